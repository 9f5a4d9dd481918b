"""Data types of a classifier: preprocessing, backbone, head, and the card saved in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from sightline import store
from sightline.records.recipe import Recipe
from sightline.schema import fields_to_json, json_key


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Preprocessing of an image for a network: the only way from a file to a tensor.

    The decoder returns upright RGB uint8 (height, width, 3); the network's first step is `(pixels / 255 - mean) / std`.

    Args:
        size: (height, width) of the network's input, in pixels.
        fit: `crop`: resize so that the centre square of `crop_fraction` fills the size; `pad`: resize to fit inside, mean
            grey around; `squash`: resize both sides, ignoring the aspect ratio.
        crop_fraction: Side of the centre crop as a fraction of the resized image's shorter side (224 / 256 = 0.875).
        interpolation: Resize filter that the weights were trained with.
        mean, std: Per channel, for pixels in 0 to 1.
        value_range: (low, high) stored values that become 0 and 255, for 16-bit and float images, taken from the
            training set; None if it has none.
        background: Grey level behind transparent pixels, 0 to 255.
        max_pixels: Maximum number of pixels of an image; a larger one is refused by its header.
        allow_truncated: Whether to use the readable part of a truncated JPEG.
        decoder: Version of the decoder; part of the identity.
    """

    size: tuple[int, int] = (224, 224)
    fit: Literal["crop", "pad", "squash"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    value_range: tuple[float, float] | None = None
    background: int = 255
    max_pixels: int = 178_956_970
    allow_truncated: bool = False
    decoder: str = "pillow-1"

    @property
    def id(self) -> str:
        """Return the identity of the preprocessing, by which features are cached.

        The keys are written out: they stay as they are if an attribute is renamed. A new option is added only if it differs
        from its default, so that cached features stay valid.
        """
        return store.digest(
            {
                "size": self.size,
                "fit": self.fit,
                "crop_fraction": self.crop_fraction,
                "interpolation": self.interpolation,
                "mean": self.mean,
                "std": self.std,
                "value_range": self.value_range,
                "background": self.background,
                "max_pixels": self.max_pixels,
                "allow_truncated": self.allow_truncated,
                "decoder": self.decoder,
            }
        )


@dataclass(frozen=True, slots=True)
class Backbone:
    """Network that turns an image into features: name, origin of its weights, and layout of its last map.

    Args:
        name: Name, such as `resnet50`, or `my_net.py:build`.
        source: Library that builds it. `none` gives no features, `file` the file's statistics, `pixels` the resized image;
            `ensemble` stands for the backbones of the members.
        weights: Origin of the weights: a file name, a hub tag, `random:<seed>`, or `run` if trained in the run.
        weights_hash: SHA-256 of the tensors (name, shape, bytes); "" if there are none.
        preprocess: Preprocessing that its weights expect.
        features: Width d of the pooled features.
        pool: `avg`: the network's pooling; `flatten`: the flattened map; `scores`: the network's output, if it isn't a linear
            function of any features.
        map_shape: (channels, height, width) of the last map; None if there is none.
        layout: Memory layout of the last map: (n, c, h, w), (n, h, w, c), or (n, prefix + h·w, c).
        prefix: Number of tokens before the patches, in the `tokens` layout.
        arguments: Keyword arguments of the builder, for networks of Sightline.
        parameters: Number of trainable parameters.
        licence, origin, pretrained_on: Licence, origin and training data of the weights, as far as known.
    """

    name: str
    source: Literal["none", "file", "pixels", "ensemble", "timm", "torchvision", "sightline", "user"]
    preprocess: Preprocess
    features: int
    weights: str = ""
    weights_hash: str = ""
    pool: Literal["avg", "flatten", "scores"] = "avg"
    map_shape: tuple[int, int, int] | None = None
    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    licence: str = "unknown"
    origin: str = "unknown"
    pretrained_on: str = "nothing"

    @property
    def is_network(self) -> bool:
        """Return whether it is a network with weights."""
        return self.source in ("timm", "torchvision", "sightline", "user")

    @property
    def id(self) -> str:
        """Return the identity of its computation: network, weights, size, normalisation, pooling."""
        p = self.preprocess
        return store.digest([self.name, self.source, self.weights_hash, self.pool, p.size, p.mean, p.std, self.arguments])


@dataclass(frozen=True, slots=True)
class Head:
    """Fitted head, which maps features (n, d) to logits (n, k).

    Args:
        kind: Name in `sightline.heads.HEADS`.
        classes: Number of classes k.
        settings: Settings of the fit, including those chosen by a search.
        arrays: Fitted arrays by name.
    """

    kind: str
    classes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Fit of prediction sets and of OOD detection, on held-out images. Its arrays are tensors of the classifier's file.

    Args:
        images: Number of held-out images on which prediction sets are calibrated; 0 if there are none.
        fitted_on: Origin of their predictions, such as `val` or `CV (train+val, 5 folds)`.
        by_class: Whether the coverage of sets holds for each class separately.
        ood_threshold: OOD threshold: distance from the training images beyond which an image is out of distribution; None if
            unknown.
        ood_rate: False alarm rate at this threshold, 0–1.
        ood_images: Number of held-out images on which it was chosen.
    """

    images: int = 0
    fitted_on: str = ""
    by_class: bool = False
    ood_threshold: float | None = field(default=None, metadata=json_key("unlike_bar"))
    ood_rate: float | None = field(default=None, metadata=json_key("unlike_rate"))
    ood_images: int = field(default=0, metadata=json_key("unlike_images"))


@dataclass(frozen=True, slots=True)
class Card:
    """Description of a classifier, saved as JSON in the metadata of its file.

    Args:
        classes: Class names in the order of the logits.
        backbone: Network with its preprocessing.
        head: Kind of the head (its arrays are tensors of the file).
        head_settings: Settings of the head.
        method: Training method.
        recipe: Recipe that it was trained with.
        temperature: Divisor of logits before the softmax; 1 if not calibrated.
        positive: Positive class, for two classes.
        threshold: Decision threshold for the probability of `positive`; None for 0.5.
        threshold_by: Criterion by which the threshold was chosen.
        data: Fingerprint of the catalog, and number of images per class and split.
        scores: Scores measured in training.
        precision: Precision of the features, and how it was validated.
        software: Package versions.
        crops: Number of crops over which predictions are averaged: 1, 5 or 10, see `sightline.pixels.crops`.
        members: For an ensemble: the cards of its members.
        weights: For an ensemble: the weight of each member; they sum to 1.
        uncertainty: Fit of prediction sets and OOD detection.
        format: Version of the file format.
    """

    FORMAT: ClassVar[int] = 2

    classes: tuple[str, ...]
    backbone: Backbone
    head: str
    head_settings: Mapping[str, Any]
    method: str
    recipe: Recipe
    temperature: float = 1.0
    positive: str | None = None
    threshold: float | None = None
    threshold_by: str = "half"
    data: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    precision: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    crops: int = 1
    members: tuple[Card, ...] = ()
    weights: tuple[float, ...] = ()
    uncertainty: Uncertainty = field(default_factory=Uncertainty, metadata=json_key("limits"))
    format: int = 2

    def to_json(self) -> dict[str, Any]:
        """Return the card in JSON types, as `schema.from_json` reads it."""
        value: dict[str, Any] = store.plain(self)
        del value["uncertainty"]
        return {**value, "limits": fields_to_json(self.uncertainty), "members": [m.to_json() for m in self.members]}

    @property
    def decision(self) -> tuple[str, float] | None:
        """Return `Predictions.threshold` for its predictions: (positive class, decision threshold), or None for 0.5."""
        return None if self.threshold is None or self.positive is None else (self.positive, self.threshold)
