"""One surface over every network: its last map, the tail that makes features of it, logits where it has its own classifier,
its stages from the images to the features, and which of them learn."""

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
"""How much each channel counts for brightness (ITU-R BT.601, as in Pillow)."""


class Network(nn.Module):
    """A network cut into map and tail; see `search` for where.

    Args:
        net: The network itself.
        size: (height, width) of the images that it will see.
        pool: `avg` for its own tail, `flatten` for the flattened map, `scores` for its whole output.
        classifier: Whether its own classifier is there, with weights.

    Attributes:
        layout: How the last map lies: (n, c, h, w), (n, h, w, c), or (n, prefix + h·w, c).
        prefix: Tokens before the patches.
        map_shape: (channels, height, width) of the map on its grid, None where there is none.
        features: The width d.
        channels: Of the images that the network itself takes; one of 1 is given the grey image of three channels.
        stages: From the images to the features; see `find_stages`.
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
        found = find_feature_map.find(net, size, scores=pool == "scores")
        self.net = net
        self.pool = pool
        self.cut = found.cut
        self.layout = found.layout
        self.prefix = found.prefix
        self.map_shape = found.map_shape
        self.features = found.map_numbers if pool == "flatten" else found.features
        self.has_classifier = classifier
        self._behind = found.classifier
        self.channels = find_feature_map.channels_of(net)
        self.size = size
        self._stages: tuple[Stage, ...] | None = None
        self._frozen = 0

    def map(self, x: Tensor) -> Tensor:
        """Normalised images float (n, 3, h, w) → the last map, in the network's own layout."""
        return self.cut.map(self.net, self._seen(x))

    def tail(self, last: Tensor) -> Tensor:
        """The last map → features (n, d)."""
        return last.flatten(1) if self.pool == "flatten" else self.cut.tail(self.net, last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last map and the features."""
        if isinstance(self.cut, Replay) and self.pool != "flatten":
            return self.cut.both(self.net, self._seen(x))  # its tail would run the whole network once more
        last = self.map(x)
        return last, self.tail(last)

    def logits(self, x: Tensor) -> Tensor:
        """The scores (n, k) of the network's own classifier; those of one sigmoid unit as two columns, the first of them 0.

        Raises:
            RequestError: It has none.
        """
        if not self.has_classifier:
            raise RequestError("this network was loaded without its own classifier", "build it with classifier=True")
        scores = self.net(self._seen(x))
        return two_columns(scores) if scores.shape[1] == 1 else scores

    def _seen(self, x: Tensor) -> Tensor:
        """The images as the network itself takes them."""
        return grey(x) if self.channels == 1 and x.shape[1] == 3 else x

    def own_tensors(self) -> dict[str, Tensor]:
        """The tensors that map and tail depend on, by the network's own names: no classifier, no batch counters."""
        return {
            name: value
            for name, value in self.net.state_dict().items()
            if not name.endswith("num_batches_tracked") and not self._in_classifier(name)
        }

    def own_parameters(self) -> int:
        """How many trainable numbers map and tail have."""
        return sum(p.numel() for n, p in self.net.named_parameters() if not self._in_classifier(n))

    @property
    def classifier(self) -> str:
        """The name of the module behind the features that features do not depend on, "" where there is none."""
        return self._behind

    def _in_classifier(self, name: str) -> bool:
        return bool(self._behind) and not self.has_classifier and name.startswith(f"{self._behind}.")

    # ------------------------------------------------------------------------------------------- what learns, how fast

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its parts between two changes of resolution, the first one nearest to the images."""
        if self._stages is None:
            self._stages = find_stages(self.net, self.size, self.channels, self._behind, self.layout == "nhwc")
        return self._stages

    def freeze(self, stages: int | str | None = None) -> Self:
        """Let the first stages learn nothing: no gradients, and their BatchNorm in inference mode whatever `train` says.

        The others learn. Freezing again replaces what was frozen.

        Args:
            stages: How many, from the images on; a stage's name freezes up to and with it; None freezes all.

        Raises:
            RequestError: There is no such stage.
        """
        names = [s.name for s in self.stages]
        if isinstance(stages, str):
            if stages not in names:
                raise unknown("stage", stages, names)
            stages = names.index(stages) + 1
        count = len(names) if stages is None else stages
        if not 0 <= count <= len(names):
            raise RequestError(f"{count} stages cannot be frozen", f"there are {len(names)}: {', '.join(names)}")
        self._frozen = count
        frozen = {p for stage in self.stages[:count] for p in stage.parameters}
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name not in frozen)
        return self.train(self.training)

    def unfreeze(self, stages: int | str | None = None) -> Self:
        """Let the last stages learn, and freeze those before them.

        Args:
            stages: How many, from the features back; a stage's name unfreezes from it on; None unfreezes all.

        Raises:
            RequestError: There is no such stage.
        """
        names = [s.name for s in self.stages]
        if isinstance(stages, str):
            if stages not in names:
                raise unknown("stage", stages, names)
            stages = len(names) - names.index(stages)
        count = len(names) if stages is None else stages
        if not 0 <= count <= len(names):
            raise RequestError(f"{count} stages cannot be unfrozen", f"there are {len(names)}: {', '.join(names)}")
        return self.freeze(len(names) - count)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but frozen stages stay in inference mode."""
        super().train(mode)
        if self._frozen and mode:
            for stage in self.stages[: self._frozen]:
                for name in stage.modules:
                    self.net.get_submodule(name).training = False
        return self

    def parameter_groups(self, learning_rate: float, *, decay: float = 1.0, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """What learns, in groups for torch's optimizers: the last stage at the full rate, each one before it at `decay` of it.

        Args:
            learning_rate: Of the last stage, and of the network's own classifier.
            decay: The factor from a stage to the one before it, above 0, at most 1.
            weight_decay: Of weights; biases, BatchNorm and other parameters of one dimension get none.

        Returns:
            Dicts with `params`, `lr`, `weight_decay`, `name`; frozen parameters and empty groups are left out.
        """
        named = dict(self.net.named_parameters())
        placed = {p for stage in self.stages for p in stage.parameters}
        parts = [(s.name, s.parameters, decay ** (len(self.stages) - 1 - i)) for i, s in enumerate(self.stages)]
        rest = tuple(n for n in named if n not in placed and (self.has_classifier or not self._in_classifier(n)))
        groups = []
        for name, members, factor in [*parts, ("classifier", rest, 1.0)]:
            learning = [named[p] for p in members if named[p].requires_grad]
            for params, own in (
                ([p for p in learning if p.ndim >= 2], weight_decay),
                ([p for p in learning if p.ndim < 2], 0.0),
            ):
                if params:
                    groups.append({"params": params, "lr": learning_rate * factor, "weight_decay": own, "name": name})
        return groups


def grey(x: Tensor) -> Tensor:
    """Images (n, 3, h, w) as grey ones (n, 1, h, w)."""
    return (x * x.new_tensor(GREY).reshape(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def two_columns(scores: Tensor) -> Tensor:
    """The score (n, 1) of one sigmoid unit as logits (n, 2), whose softmax is (1 - p, p)."""
    return torch.cat([torch.zeros_like(scores), scores], dim=1)


class Pixels(nn.Module):
    """The image itself as a network: the map is the image, the features are its numbers."""

    layout = "nhwc"
    prefix = 0

    def map(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) → (n, h, w, 3)."""
        return x.permute(0, 2, 3, 1)

    def tail(self, last: Tensor) -> Tensor:
        """(n, h, w, 3) → (n, h·w·3)."""
        return last.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        return self.tail(self.map(x))


def tensors(network: Network) -> dict[str, np.ndarray]:
    """The weights of a network by name, as a classifier's file stores them: float32 (n, …), whole numbers as they are."""
    found = {}
    for name, value in network.own_tensors().items():
        values = value.detach().cpu()
        found[name] = np.ascontiguousarray((values.float() if values.is_floating_point() else values).numpy())
    return found


def parse(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """What `tensors` gave, as torch's tensors (copies)."""
    return {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}
