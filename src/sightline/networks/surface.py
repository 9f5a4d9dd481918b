"""One surface over every network: its last map, the tail that makes features of it, logits where it has its own classifier."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks import search


class Network(nn.Module):
    """A network cut into map and tail; see `search` for where.

    Args:
        net: The network itself.
        size: (height, width) of the images that it will see.
        pool: `avg` for its own tail, `flatten` for the flattened map.
        classifier: Whether its own classifier is there, with weights.

    Attributes:
        layout: How the last map lies: (n, c, h, w), (n, h, w, c), or (n, prefix + h·w, c).
        prefix: Tokens before the patches.
        map_shape: (channels, height, width) of the map on its grid, None where there is none.
        features: The width d.
    """

    def __init__(
        self, net: nn.Module, size: tuple[int, int], *, pool: Literal["avg", "flatten"] = "avg", classifier: bool = False
    ) -> None:
        super().__init__()
        found = search.find(net, size)
        self.net = net
        self.pool = pool
        self.cut = found.cut
        self.layout = found.layout
        self.prefix = found.prefix
        self.map_shape = found.map_shape
        self.features = found.map_numbers if pool == "flatten" else found.features
        self.has_classifier = classifier
        self._behind = found.classifier

    def map(self, x: Tensor) -> Tensor:
        """Normalised images float (n, 3, h, w) → the last map, in the network's own layout."""
        return self.cut.map(self.net, x)

    def tail(self, last: Tensor) -> Tensor:
        """The last map → features (n, d)."""
        return last.flatten(1) if self.pool == "flatten" else self.cut.tail(self.net, last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last map and the features."""
        last = self.map(x)
        return last, self.tail(last)

    def logits(self, x: Tensor) -> Tensor:
        """The scores (n, k) of the network's own classifier.

        Raises:
            RequestError: It has none.
        """
        if not self.has_classifier:
            raise RequestError("this network was loaded without its own classifier", "build it with classifier=True")
        return self.net(x)  # type: ignore[no-any-return]

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
