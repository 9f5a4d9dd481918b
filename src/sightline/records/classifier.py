"""What answers: preprocessing, backbone and head as data, and the card of the classifier that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from sightline import store
from sightline.records.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The one contract between a file and a network. There is no second way to turn a file into a tensor.

    The decoder gives upright RGB uint8 (height, width, 3); the network's own first step is
    `(pixels / 255 - mean) / std`.

    Args:
        size: (height, width) of what the network sees, in pixels.
        fit: `crop`: resize so that the centre square of `crop_fraction` fills the size; `pad`: resize to fit inside, mean
            grey around; `squash`: resize both sides, whatever their ratio.
        crop_fraction: Side of the centre crop as a fraction of the resized image's shorter side (224 / 256 = 0.875).
        interpolation: The resize filter that the weights were trained with.
        mean, std: Per channel, for pixels in 0 to 1.
        value_range: The (low, high) stored values that become 0 and 255, for 16-bit and float images, taken from the
            training set; None where it holds none.
        background: The grey level that transparent pixels are laid on, 0 to 255.
        max_pixels: An image with more is refused from its header.
        allow_truncated: Use what a truncated JPEG still shows.
        decoder: The version of the decoder; another one is another preprocess.
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
        """The identity of what it does to a file."""
        return store.digest(self)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network that turns an image into features: what it is, where its weights come from, how its last map lies.

    Args:
        name: Its name, such as `resnet50`, or `my_net.py:build`.
        source: Who builds it. `none` gives no features, `file` the file's statistics, `pixels` the resized image itself;
            `ensemble` stands for those of its members.
        weights: Where the weights came from: a file's name, a hub tag, `random:<seed>`, or `run` for trained here.
        weights_hash: SHA-256 of the tensors (name, shape, bytes); "" where there are none.
        preprocess: What its weights expect.
        features: The width d of the pooled features.
        pool: `avg`: the network's own tail; `flatten`: the map, flattened; `scores`: the network's own output, where that is
            no linear function of any features.
        map_shape: (channels, height, width) of the last map on its grid; None where there is none.
        layout: How the last map lies in memory: (n, c, h, w), (n, h, w, c), or (n, prefix + h·w, c).
        prefix: Tokens before the patches, in the `tokens` layout.
        arguments: Keyword arguments of the builder, for networks of ours.
        parameters: How many trainable numbers it has.
        licence, origin, pretrained_on: Of the weights, as far as they are known.
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
        """Whether it is a network, with weights."""
        return self.source in ("timm", "torchvision", "sightline", "user")

    @property
    def id(self) -> str:
        """The identity of what it computes from pixels: network, weights, size, normalisation, pooling."""
        p = self.preprocess
        return store.digest([self.name, self.source, self.weights_hash, self.pool, p.size, p.mean, p.std, self.arguments])


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head as data: what turns features (n, d) into logits (n, k).

    Args:
        kind: A name of `sightline.heads.HEADS`.
        classes: k, the number of classes.
        settings: What it was fitted with, the chosen ones included.
        arrays: Everything that prediction needs.
    """

    kind: str
    classes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What a classifier knows of its own limits, from images that it was not fitted on. Its arrays are tensors of the file.

    Args:
        images: How many answers prediction sets are calibrated on; 0 where there are none, as in older files.
        fitted_on: How these answers came about, such as `val` or `CV (train+val, 5 folds)`.
        by_class: Whether sets keep their promise for each class by itself.
        unlike_bar: The distance from the training images beyond which an image is unlike them; None where it is not known.
        unlike_rate: The share of images like those of the training that lie beyond it, as false alarms.
        unlike_images: How many held-out images it was chosen on.
    """

    images: int = 0
    fitted_on: str = ""
    by_class: bool = False
    unlike_bar: float | None = None
    unlike_rate: float | None = None
    unlike_images: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """What a classifier's file says of itself, as JSON in its metadata.

    Args:
        classes: In the order of the logits.
        backbone: The network, its preprocess included.
        head: The head's kind and settings (its arrays are tensors of the file).
        method: How it was trained.
        recipe: The recipe it came from.
        temperature: Logits are divided by it before the softmax; 1 where it is not calibrated.
        positive: For two classes: the one whose score is drawn in curves.
        threshold: For two classes: the probability of `positive` from which on that is the answer; None for one half.
        threshold_by: The criterion that it was chosen by.
        data: Fingerprint of the catalog, images per class and split.
        scores: What was measured when it was made.
        precision: What the features were computed in, and how that was judged.
        software: Versions.
        crops: How many looks at an image its answer is the mean of: 1, 5 or 10, see `sightline.pixels.crops`.
        members: Of an ensemble: the cards of its members, whose mean it answers with.
        weights: Of an ensemble: how much each member counts; they sum to 1.
        limits: What prediction sets and the distance from the training images are measured by.
        format: The version of this file format.
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
    limits: Uncertainty = field(default_factory=Uncertainty)
    format: int = 2

    @property
    def bar(self) -> tuple[str, float] | None:
        """What `Predictions.bar` is for its answers."""
        return None if self.threshold is None or self.positive is None else (self.positive, self.threshold)
