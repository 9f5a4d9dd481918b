"""What is explained: one class of one head on one network, as a number that heads with and without a gradient give."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sightline import heads
from sightline.errors import RequestError
from sightline.explanation.feature_map import MapSession
from sightline.records import Head

_SURE = math.log(999)


@dataclass(frozen=True, slots=True)
class Score:
    """What is explained of one image.

    Args:
        session: The network.
        head: What turns its features into logits.
        target: The class index.
        seed: Of whatever the method draws.
        contrast: The class that the target is set against ("why dumpling and not chicken?"); None for all others together.
        image: uint8 (height, width, 3), what the network sees; None where only its map is at hand.
        coarse: The heat is only to be compared with another: a method that takes minutes may stop sooner.
        planes: Directions of this head if it is linear, by target and contrast: subjects that share it compute each once.
    """

    session: MapSession
    head: Head
    target: int
    seed: int = 0
    contrast: int | None = None
    image: np.ndarray | None = None
    coarse: bool = False
    planes: dict[tuple[int, int | None], tuple[np.ndarray, float]] = field(default_factory=dict)

    @property
    def mean_features(self) -> np.ndarray | None:
        """float32 (d,): the mean of the training images' features, where the head keeps it."""
        return self.head.arrays.get("feature_mean")

    @property
    def pixels(self) -> np.ndarray:
        """uint8 (height, width, 3).

        Raises:
            RequestError: Only the map is at hand.
        """
        if self.image is None:
            raise RequestError("this method needs the image, and only its map is at hand", "hand over the images as well")
        return self.image

    def answer(self, features: np.ndarray) -> np.ndarray:
        """What any head says for the target, float64 (m,), of features float32 (m, d).

        Its log odds; against one class the difference of the two logits. Both are without a probability's ceiling.
        """
        logits = heads.logits(self.head, features)
        if self.contrast is None:
            return log_odds(logits, self.target)
        between = logits[:, self.target] - logits[:, self.contrast]
        return np.asarray(np.clip(between, -_SURE, _SURE) if counts_votes(logits) else between)

    def coefficients(self) -> np.ndarray:
        """float64 (k,): the score of a head with a gradient is their product with its logits.

        1 for the target; -1 for the class that it is set against, or -1 / (k - 1) for each of the others.
        """
        return coefficients(self.head.classes, self.target, self.contrast)

    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The head as linear layers with a ReLU between any two.

        Raises:
            RequestError: It is no such head, so that there is no gradient to follow.
        """
        found = heads.layers(self.head)
        if found is None:
            hint = "use --method masks or --method occlusion, which explain any head"
            raise RequestError(f"a head of kind {self.head.kind!r} has no gradient", hint)
        return found

    def direction(self, features: np.ndarray) -> tuple[np.ndarray, float]:
        """The score's gradient with respect to the features, and what it leaves of the score: score = direction · x + rest.

        For a linear head that is the same everywhere, the rest its bias; for an MLP it is the plane on which `features` lie.

        Args:
            features: float32 (d,).

        Returns:
            float32 (d,), and the rest.

        Raises:
            RequestError: The head has no gradient.
        """
        known = self.planes.get((self.target, self.contrast))
        if known is not None:
            return known
        layers = [(w.astype(np.float64), b.astype(np.float64)) for w, b in self.layers()]
        value, values = features.astype(np.float64), []
        for weights, bias in layers[:-1]:
            values.append(weights @ value + bias)
            value = np.maximum(values[-1], 0)
        gradient = self.coefficients() @ layers[-1][0]
        rest = float(self.coefficients() @ layers[-1][1])
        for (weights, bias), hidden in zip(layers[-2::-1], values[::-1], strict=True):
            gradient = gradient * (hidden > 0)
            rest += float(gradient @ bias)
            gradient = gradient @ weights
        found = gradient.astype(np.float32), rest
        if len(layers) == 1:
            self.planes[self.target, self.contrast] = found
        return found


def coefficients(classes: int, target: int, contrast: int | None = None) -> np.ndarray:
    """float64 (classes,): how much each logit counts in the score that is explained.

    Example:
        >>> coefficients(3, 1).tolist(), coefficients(3, 1, 2).tolist()
        ([-0.5, 1.0, -0.5], [0.0, 1.0, -1.0])
    """
    if contrast is None:
        found = np.full(classes, -1 / max(classes - 1, 1))
    else:
        found = np.zeros(classes)
        found[contrast] = -1
    found[target] = 1
    return found


def counts_votes(logits: np.ndarray) -> bool:
    """Whether logits float64 (m, k) are logarithms of shares, which sum to 1."""
    return bool(np.abs(np.logaddexp.reduce(logits, axis=1)).max() < 0.1)


def log_odds(logits: np.ndarray, target: int) -> np.ndarray:
    """How sure answers are of a class, without the ceiling that a probability has: of a sure one half may be hidden unnoticed.

    Args:
        logits: float64 (m, k). Heads that count votes give log probabilities, whose certainty has no degrees: of these the
            log odds are cut at those of 0.1 % and 99.9 %.
        target: The class index.

    Returns:
        float64 (m,).

    Example:
        >>> log_odds(np.array([[2.0, -1.0], [0.0, 30.0]]), 1).tolist()
        [-3.0, 30.0]
    """
    if logits.shape[1] == 1:
        return np.asarray(logits[:, 0], dtype=np.float64)
    odds = np.asarray(logits[:, target] - np.logaddexp.reduce(np.delete(logits, target, axis=1), axis=1))
    return np.clip(odds, -_SURE, _SURE) if counts_votes(logits) else odds
