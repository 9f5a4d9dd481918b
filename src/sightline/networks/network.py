"""`Network`: one interface for every network, with its last feature map, features, logits, stages and parameter groups."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from sightline.errors import RequestError, unknown
from sightline.networks import find_feature_map
from sightline.networks.feature_cut import Replay
from sightline.networks.stages import Stage, find_stages

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601, as in Pillow)."""


class Network(nn.Module):
    """A network with its last feature map, features, logits and stages. `find_feature_map` finds the parts of any network.

    images → `map` → last feature map → `tail` → features → classifier → `logits`

    - map: the last feature map, the last tensor that still has a position for each region of the image. Heatmaps such as
      Grad-CAM are computed on it. For a CNN it is the output of the last block; for a vision transformer, the tokens that
      enter the last block.
    - tail: everything between the last feature map and the classifier, often just global average pooling. It turns the map
      into features, one row of d numbers per image.
    - logits: the class scores of the network's own (pretrained) classifier.
    - stages: consecutive groups of blocks that work at one resolution, from the images to the features. They are the units of
      freezing and of learning rates that decrease towards the images.

    Args:
        net: The network.
        size: (height, width) of the images in px.
        pool: `avg` for the network's own tail, `flatten` for the flattened map, `scores` to use its whole output as features.
        classifier: Whether `net` contains its own classifier with weights.

    Attributes:
        layout: Layout of the map: `nchw` (n, c, h, w), `nhwc` (n, h, w, c) or `tokens` (n, prefix + h·w, c).
        prefix: Number of tokens before the patches: class token and registers.
        map_shape: (channels, height, width) of the map; None if the network has none.
        features: Number of features d.
        channels: Number of input channels of `net`. If it is 1, RGB images are converted to grey.
        stages: Stages from the images to the features; see `find_stages`.
    """

    def __init__(
        self,
        net: nn.Module,
        size: tuple[int, int],
        *,
        pool: Literal["avg", "flatten", "scores"] = "avg",
        classifier: bool = False,
    ) -> None:
        super().__init__()
        measured = find_feature_map.find(net, size, scores=pool == "scores")
        self.net = net
        self.pool = pool
        self.cut = measured.cut
        self.layout = measured.layout
        self.prefix = measured.prefix
        self.map_shape = measured.map_shape
        self.features = measured.map_numbers if pool == "flatten" else measured.features
        self.has_classifier = classifier
        self.classifier = measured.classifier
        """Name of the classifier module, on which features do not depend; "" if there is none."""
        self.channels = find_feature_map.channels_of(net)
        self.size = size
        self._stages: tuple[Stage, ...] | None = None
        self._frozen = 0

    def map(self, x: Tensor) -> Tensor:
        """Return the last feature map of normalised images float (n, 3, h, w), in the network's own layout."""
        return self.cut.map(self.net, self._converted(x))

    def tail(self, last: Tensor) -> Tensor:
        """Return the features (n, d) of a last feature map."""
        return last.flatten(1) if self.pool == "flatten" else self.cut.tail(self.net, last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last feature map and the features (n, d) of normalised images float (n, 3, h, w)."""
        if isinstance(self.cut, Replay) and self.pool != "flatten":
            return self.cut.both(self.net, self._converted(x))  # calling `tail` would run the whole network a second time
        last = self.map(x)
        return last, self.tail(last)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (n, k) of the network's own classifier. A single sigmoid unit gives two columns, the first 0.

        Raises:
            RequestError: If the network was built without its classifier.
        """
        if not self.has_classifier:
            raise RequestError("this network was loaded without its own classifier", "build it with classifier=True")
        scores = self.net(self._converted(x))
        return two_columns(scores) if scores.shape[1] == 1 else scores

    def _converted(self, x: Tensor) -> Tensor:
        """Convert RGB images to grey for a network with one input channel."""
        return grey(x) if self.channels == 1 and x.shape[1] == 3 else x

    def own_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that map and tail depend on, by name: without the classifier and BatchNorm's batch counters."""
        return {
            name: value
            for name, value in self.net.state_dict().items()
            if not name.endswith("num_batches_tracked") and not self._in_classifier(name)
        }

    def own_parameters(self) -> int:
        """Return the number of trainable parameters of map and tail."""
        return sum(p.numel() for n, p in self.net.named_parameters() if not self._in_classifier(n))

    def _in_classifier(self, name: str) -> bool:
        return bool(self.classifier) and not self.has_classifier and name.startswith(f"{self.classifier}.")

    # ------------------------------------------------------------------------------------- freezing and learning rates

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages between changes of resolution, the first one nearest to the images."""
        if self._stages is None:
            self._stages = find_stages(self.net, self.size, self.channels, self.classifier, nhwc=self.layout == "nhwc")
        return self._stages

    def freeze(self, stages: int | str | None = None) -> Self:
        """Freeze the first stages: no gradients, and BatchNorm in inference mode even after `train()`.

        All other stages are trainable. A second call replaces the first.

        Args:
            stages: Number of stages from the images on, or the name of the last stage to freeze; None freezes all.

        Raises:
            RequestError: If there is no such stage.
        """
        self._frozen = count = self._stage_count(stages, "frozen", from_end=False)
        frozen = {p for stage in self.stages[:count] for p in stage.parameters}
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name not in frozen)
        return self.train(self.training)

    def unfreeze(self, stages: int | str | None = None) -> Self:
        """Make the last stages trainable and freeze the stages before them.

        Args:
            stages: Number of stages counted back from the features, or the name of the first trainable stage; None for all.

        Raises:
            RequestError: If there is no such stage.
        """
        return self.freeze(len(self.stages) - self._stage_count(stages, "unfrozen", from_end=True))

    def _stage_count(self, stages: int | str | None, action: str, *, from_end: bool) -> int:
        """Return the number of stages that a number, or the name of the last (first) one, means; None means all."""
        names = [s.name for s in self.stages]
        if isinstance(stages, str):
            if stages not in names:
                raise unknown("stage", stages, names)
            stages = len(names) - names.index(stages) if from_end else names.index(stages) + 1
        count = len(names) if stages is None else stages
        if not 0 <= count <= len(names):
            raise RequestError(f"{count} stages cannot be {action}", f"the network has {len(names)}: {', '.join(names)}")
        return count

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        if self._frozen and mode:
            for stage in self.stages[: self._frozen]:
                for name in stage.modules:
                    self.net.get_submodule(name).training = False
        return self

    def parameter_groups(self, learning_rate: float, *, decay: float = 1.0, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Return the trainable parameters as groups for torch's optimizers, with layer-wise learning-rate decay.

        Args:
            learning_rate: Learning rate of the last stage and of the network's own classifier.
            decay: Factor of the learning rate from a stage to the one before it, in (0, 1].
            weight_decay: Weight decay of weights; biases, BatchNorm and other one-dimensional parameters get none.

        Returns:
            Dicts with `params`, `lr`, `weight_decay`, `name`, without frozen parameters and empty groups.
        """
        named = dict(self.net.named_parameters())
        placed = {p for stage in self.stages for p in stage.parameters}
        parts = [(s.name, s.parameters, decay ** (len(self.stages) - 1 - i)) for i, s in enumerate(self.stages)]
        rest = tuple(n for n in named if n not in placed and (self.has_classifier or not self._in_classifier(n)))
        groups = []
        for name, members, factor in [*parts, ("classifier", rest, 1.0)]:
            learning = [named[p] for p in members if named[p].requires_grad]
            for params, group_decay in (
                ([p for p in learning if p.ndim >= 2], weight_decay),
                ([p for p in learning if p.ndim < 2], 0.0),
            ):
                if params:
                    groups.append({"params": params, "lr": learning_rate * factor, "weight_decay": group_decay, "name": name})
        return groups


def grey(x: Tensor) -> Tensor:
    """Convert images (n, 3, h, w) to grey (n, 1, h, w)."""
    return (x * x.new_tensor(GREY).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def two_columns(scores: Tensor) -> Tensor:
    """Convert the score (n, 1) of a sigmoid unit with probability p to logits (n, 2), whose softmax is (1 - p, p)."""
    return torch.cat([torch.zeros_like(scores), scores], dim=1)


class Pixels(nn.Module):
    """The backbone `pixels`: the map is the image, the features are its pixel values."""

    layout = "nhwc"
    prefix = 0

    def map(self, x: Tensor) -> Tensor:
        """Return images (n, 3, h, w) as (n, h, w, 3)."""
        return x.permute(0, 2, 3, 1)

    def tail(self, last: Tensor) -> Tensor:
        """Flatten images (n, h, w, 3) to features (n, h·w·3)."""
        return last.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (n, h·w·3) of images (n, 3, h, w)."""
        return self.tail(self.map(x))


def tensors(network: Network) -> dict[str, np.ndarray]:
    """Return a network's weights by name as a classifier's file stores them: floats as float32, integers unchanged."""
    arrays = {}
    for name, value in network.own_tensors().items():
        values = value.detach().cpu()
        arrays[name] = np.ascontiguousarray((values.float() if values.is_floating_point() else values).numpy())
    return arrays


def parse(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Convert the arrays that `tensors` returned to torch tensors (copies)."""
    return {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}
