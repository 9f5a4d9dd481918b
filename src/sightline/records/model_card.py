"""Model card: what a classifier is, what it was trained on, and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class MeasuredAccuracy:
    """Accuracy on images that the classifier was not fitted on.

    Args:
        split: `test`, or the origin of held-out predictions, such as `CV (train+val, 5 folds)`.
        images: Number of images.
        accuracy, low, high: Accuracy and its 95 % interval, 0–1.
    """

    split: str
    images: int
    accuracy: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Card of a classifier, as `sightline card --json` prints it, after every tensor and field was checked.

    Args:
        file: Classifier file.
        bytes: Its size.
        sha256: SHA-256 of the file.
        classes: Class names in the order of the probabilities.
        images_per_class: Number of images by class and split.
        method, backbone, head: Training method, network and head.
        parameters: Number of parameters of the networks.
        input_px: (height, width) of the network's input.
        licences: Licences of pretrained weights, by network.
        pretrained_on: Training data of pretrained weights, by network.
        temperature: Divisor of logits before the softmax.
        positive, threshold: Positive class and decision threshold, for two classes.
        crops: Crops per image.
        prediction_sets: Number of held-out images on which prediction sets are calibrated; 0 if there are none.
        ood_threshold: Distance from the training images beyond which an image is out of distribution.
        scores: Accuracies from the run that the file belongs to.
        cautions: What a user should know before relying on it.
        recipe: Recipe that it was trained with.
        software: Package versions.
        format: Version of the file format.
    """

    file: str
    bytes: int
    sha256: str
    classes: Sequence[str]
    images_per_class: Mapping[str, Mapping[str, int]]
    method: str
    backbone: str
    head: str
    parameters: int
    input_px: tuple[int, int]
    licences: Mapping[str, str]
    pretrained_on: Mapping[str, str]
    temperature: float
    positive: str | None
    threshold: float | None
    crops: int
    prediction_sets: int
    ood_threshold: float | None
    scores: Sequence[MeasuredAccuracy] = ()
    cautions: Sequence[str] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    format: int = 0

    @property
    def best_score(self) -> MeasuredAccuracy | None:
        """Return the accuracy on the test split if it is known, else on other held-out images."""
        return next((s for s in self.scores if s.split == "test"), self.scores[0] if self.scores else None)
