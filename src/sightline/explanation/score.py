"""The explained score: one class of one head on one network as a number, for heads with and without a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from sightline import heads
from sightline.errors import RequestError
from sightline.explanation.feature_map import MapSession
from sightline.records import Head

_LARGEST = math.log(999)


@dataclass(frozen=True, slots=True)
class Score:
    """The score that is explained for one image.

    Args:
        session: The network.
        head: The head on its features.
        target: The class index.
        seed: Seed of the method's random draws.
        contrast: The class that the target is compared with ("why dumpling and not chicken?"); None for all others together.
        image: uint8 (height, width, 3), the input of the network; None where only its map is available.
        coarse: Whether the heatmap only serves a comparison, so that a slow method may stop sooner.
        planes: Cache of the directions of a linear head by target and contrast, shared by scores of the same head.
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
        """Return the mean of the training images' features, float32 (d,); None where the head does not store it."""
        return self.head.arrays.get("feature_mean")

    @property
    def pixels(self) -> np.ndarray:
        """Return the image, uint8 (height, width, 3).

        Raises:
            RequestError: If only the feature map is available.
        """
        if self.image is None:
            raise RequestError("this method needs the image, but only its feature map was passed", "pass the images as well")
        return self.image

    def evaluate(self, features: np.ndarray) -> np.ndarray:
        """Return the score of features float32 (m, d) under any head, float64 (m,).

        The score is the target's log odds, or the difference of two logits with a contrast class. Neither saturates as a
        probability does.
        """
        logits = heads.logits(self.head, features)
        if self.contrast is None:
            return log_odds(logits, self.target)
        between = logits[:, self.target] - logits[:, self.contrast]
        return np.asarray(np.clip(between, -_LARGEST, _LARGEST) if counts_votes(logits) else between)

    def coefficients(self) -> np.ndarray:
        """Return the weights of the logits in the score of a head with a gradient, float64 (k,).

        1 for the target; -1 for the contrast class, or -1 / (k - 1) for each other class.
        """
        return coefficients(self.head.classes, self.target, self.contrast)

    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the head as linear layers with a ReLU between them.

        Raises:
            RequestError: If the head has no gradient.
        """
        layers = heads.layers(self.head)
        if layers is None:
            hint = "use --method masks or --method occlusion, which explain any head"
            raise RequestError(f"a head of kind {self.head.kind!r} has no gradient", hint)
        return layers

    def direction(self, features: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the score's gradient with respect to the features and the intercept: score = direction · x + intercept.

        For a linear head both are the same for all features; for an MLP they describe the tangent plane at `features`.

        Args:
            features: float32 (d,).

        Returns:
            float32 (d,), and the intercept.

        Raises:
            RequestError: If the head has no gradient.
        """
        cached = self.planes.get((self.target, self.contrast))
        if cached is not None:
            return cached
        layers = [(w.astype(np.float64), b.astype(np.float64)) for w, b in self.layers()]
        value, values = features.astype(np.float64), []
        for weights, bias in layers[:-1]:
            values.append(weights @ value + bias)
            value = np.maximum(values[-1], 0)
        gradient = self.coefficients() @ layers[-1][0]
        intercept = float(self.coefficients() @ layers[-1][1])
        for (weights, bias), hidden in zip(layers[-2::-1], values[::-1], strict=True):
            gradient = gradient * (hidden > 0)
            intercept += float(gradient @ bias)
            gradient = gradient @ weights
        plane = gradient.astype(np.float32), intercept
        if len(layers) == 1:
            self.planes[self.target, self.contrast] = plane
        return plane


def coefficients(classes: int, target: int, contrast: int | None = None) -> np.ndarray:
    """Return the weight of each logit in the explained score, float64 (classes,).

    The score is the target's logit minus the mean of the others, or minus that of the contrast class. Adding one number to all
    logits changes neither the softmax nor this difference, but would change a single logit. With two classes it is
    the log odds.

    Example:
        >>> coefficients(3, 1).tolist(), coefficients(3, 1, 2).tolist()
        ([-0.5, 1.0, -0.5], [0.0, 1.0, -1.0])
    """
    if contrast is None:
        weights = np.full(classes, -1 / max(classes - 1, 1))
    else:
        weights = np.zeros(classes)
        weights[contrast] = -1
    weights[target] = 1
    return weights


def counts_votes(logits: np.ndarray) -> bool:
    """Return whether logits float64 (m, k) are log probabilities, as those of heads that count votes."""
    return bool(np.abs(np.logaddexp.reduce(logits, axis=1)).max() < 0.1)


def log_odds(logits: np.ndarray, target: int) -> np.ndarray:
    """Return the log odds of a class, which do not saturate as a probability does.

    Args:
        logits: float64 (m, k). For heads that count votes, which give log probabilities, log odds are clipped to those of 0.1 %
            and 99.9 %.
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
    return np.clip(odds, -_LARGEST, _LARGEST) if counts_votes(logits) else odds
