"""Augmentation policies: settings, their ranges, and predefined policies."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sightline.errors import RequestError, unknown

Span = tuple[float, float]
PADDINGS = ("reflection", "border", "zeros")


@dataclass(frozen=True, slots=True)
class Setting:
    """Type and range of one key of a policy.

    Args:
        kind: Meaning of a single number x. `chance`: a probability. `around`: short for [-x, x]. `upto`: for [0, x].
            `growth`: for [1/(1+x) - 1, x], the same factor smaller and larger. `ratio`: for [1/x, x]. `share`: for [x, 1].
            `exact`: for [x, x]. `quality`: for [x, 100]. `amount`: x itself; no pair. `count`: x itself, a whole number; no
            pair. `channels`: one value for each of red, green and blue, see `Policy`.
        low, high: Limits of both ends.
        unit: Unit, for display.
        what: Short description, for display.
    """

    kind: Literal["chance", "around", "upto", "growth", "ratio", "share", "exact", "quality", "amount", "count", "channels"]
    low: float
    high: float
    unit: str
    what: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Augmentation policy: how strongly images are changed. The default of every setting changes nothing.

    A range is one number, read as `SETTINGS` says, or a pair (low, high): `rotation=15` is `rotation=(-15, 15)`.

    Args:
        flip, vertical_flip: Probabilities of a left–right and of an upside-down mirror image, 0 to 1.
        quarter_turn: Probability of a rotation by 90°, 180° or 270°, 0 to 1; 0.75 makes all four orientations equally likely.
        crop: Random resized crop: share of the area that is kept and enlarged to the whole image, above 0, at most 1.
        crop_ratio: Ratio of the crop's width to its height, relative to the image's own, 0.25 to 4.
        crop_padding: Random crop of the padded image: pixels of padding on each side, 0 to 512; a shift by whole pixels.
        rotation: Degrees counter-clockwise, -180 to 180.
        shear: Degrees by which vertical lines lean to the right, -60 to 60.
        zoom: Enlargement as a fraction, -0.75 to 3: 0.2 draws a factor from 1/1.2 to 1.2, log-uniformly.
        shift: Translation along each side, as a fraction of that side, -1 to 1.
        perspective: Largest distance by which corners move inwards, as a fraction of half a side, 0 to 0.6 (beyond 2/3 the
            image may fold over).
        elastic: Largest displacement of the knots of a smooth random warp, as a fraction of the side, 0 to 0.25.
        elastic_cells: Cells of the warp along a side, 2 to 16; more cells make it more local.
        brightness, contrast, saturation: Change of the factor, -1 to 3: 0.2 draws a factor from 0.8 to 1.2.
        hue: Degrees of rotation about the grey axis, -180 to 180; positive angles rotate red towards yellow.
        rgb_shift: Grey levels added to red, green and blue, -255 to 255. `10` or `(10, 40, 10)` draws from -x to x,
            `((-10, 30), (0, 0), (-5, 5))` from the given ranges, and the text `+10,-40,-10` is added to every image.
        pca: Standard deviation of shifts along the principal axes of the training set's colours, relative to the standard
            deviation of the colours along them, 0 to 1; AlexNet uses 0.1.
        grey: Probability of a grey image, 0 to 1.
        blur: Standard deviation of a Gaussian blur, in pixels of the network's input, 0 to 10.
        resolution: Reduced resolution: factor by which the sides are scaled down and up again, 0.05 to 1.
        noise: Standard deviation of Gaussian noise, in grey levels, 0 to 100.
        jpeg: JPEG compression: quality, 1 to 100, where 100 leaves the image as it is.
        erase: Probability that a random rectangle is erased, 0 to 1.
        erase_area: Share of the area of the erased rectangle, 0.005 to 0.9.
        padding: Padding beyond the edge: the mirrored image (`reflection`), its edge pixels (`border`) or black (`zeros`).

    Raises:
        RequestError: If a value is outside its range or is not a number.
    """

    flip: float = 0.0
    vertical_flip: float = 0.0
    quarter_turn: float = 0.0
    crop: float | Span = 1.0
    crop_ratio: float | Span = 1.0
    crop_padding: int = 0
    rotation: float | Span = 0.0
    shear: float | Span = 0.0
    zoom: float | Span = 0.0
    shift: float | Span = 0.0
    perspective: float = 0.0
    elastic: float = 0.0
    elastic_cells: int = 5
    brightness: float | Span = 0.0
    contrast: float | Span = 0.0
    saturation: float | Span = 0.0
    hue: float | Span = 0.0
    rgb_shift: float | tuple[float, float, float] | tuple[Span, Span, Span] | str = 0.0
    pca: float = 0.0
    grey: float = 0.0
    blur: float | Span = 0.0
    resolution: float | Span = 1.0
    noise: float | Span = 0.0
    jpeg: float | Span = 100.0
    erase: float = 0.0
    erase_area: float | Span = (0.02, 0.2)
    padding: Literal["reflection", "border", "zeros"] = "reflection"

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            given = getattr(self, name)
            value = _channels(given) if setting.kind == "channels" else _tuples(given)
            object.__setattr__(self, name, value)
            spans = self.rgb_spans() if setting.kind == "channels" else (_span(name, value),)
            for low, high in spans:
                if not setting.low <= low <= high <= setting.high:
                    raise _outside(name, given)
        if self.padding not in PADDINGS:
            raise unknown("padding", str(self.padding), PADDINGS)

    def span(self, name: str) -> Span:
        """Return the range of a setting.

        Example:
            >>> Policy(rotation=15).span("rotation"), Policy(zoom=(0, 0.5)).span("zoom"), Policy(crop=0.4).span("crop")
            ((-15.0, 15.0), (0.0, 0.5), (0.4, 1.0))
        """
        return _span(name, getattr(self, name))

    def rgb_spans(self) -> tuple[Span, Span, Span]:
        """Return the ranges that are added to red, green and blue.

        Example:
            >>> Policy(rgb_shift=(10, 40, 10)).rgb_spans()
            ((-10.0, 10.0), (-40.0, 40.0), (-10.0, 10.0))
            >>> Policy(rgb_shift="+10,-40,-10").rgb_spans()
            ((10.0, 10.0), (-40.0, -40.0), (-10.0, -10.0))
        """
        given: Any = self.rgb_shift
        each = given if isinstance(given, tuple) else (given,) * 3
        if len(each) != 3:
            raise _outside("rgb_shift", given)
        red, green, blue = (_pair("rgb_shift", v) if isinstance(v, tuple) else _around("rgb_shift", v) for v in each)
        return red, green, blue


def _tuples(value: Any) -> Any:
    """Convert the lists of TOML and JSON to tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _channels(value: Any) -> Any:
    """Parse text such as `+10,-40,-10` (fixed shifts) or `10,40,10` (symmetric ranges)."""
    if not isinstance(value, str):
        return _tuples(value)
    parts = [part.strip() for part in value.split(",")]
    if len(parts) == 3 and all(re.fullmatch(r"[+-]?\d+(\.\d+)?", part) for part in parts):
        signed = [part[0] in "+-" for part in parts]
        if all(signed):
            return tuple((float(part), float(part)) for part in parts)
        if not any(signed):
            return tuple(float(part) for part in parts)
    raise _outside("rgb_shift", value)


def _number(name: str, value: Any) -> float:
    """Return a value as float; refuse a bool, infinity and NaN."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise _outside(name, value)
    return float(value)


def _pair(name: str, value: tuple[Any, ...]) -> Span:
    if len(value) != 2:
        raise _outside(name, value)
    return _number(name, value[0]), _number(name, value[1])


def _around(name: str, value: Any) -> Span:
    x = _number(name, value)
    if x < 0:  # -5 would be the empty range from 5 to -5
        raise _outside(name, value)
    return -x or 0.0, x


def _span(name: str, value: Any) -> Span:
    """Return the range that a value of a setting stands for.

    Raises:
        RequestError: If it is not a number, or a pair although the setting takes one number.
    """
    kind = SETTINGS[name].kind
    if isinstance(value, tuple):
        if kind in ("chance", "amount", "count"):
            raise _outside(name, value)
        return _pair(name, value)
    x = _number(name, value)
    if kind == "around":
        return _around(name, value)
    if kind == "count" and x != int(x):
        raise _outside(name, value)
    # a negative value, or a ratio below 1, gives low > high, which the caller refuses
    return {
        "upto": (0.0, x),
        "growth": (1 / (1 + abs(x)) - 1, x),
        "ratio": (1 / max(x, 1.0), x),
        "share": (x, 1.0),
        "quality": (x, 100.0),
    }.get(kind, (x, x))


def _outside(name: str, value: Any) -> RequestError:
    """Return the error for a value outside the range of a setting."""
    setting = SETTINGS[name]
    unit = f" {setting.unit}" if setting.unit else ""
    low, high = f"{setting.low:g}", f"{setting.high:g}{unit}"
    hint = {
        "around": f"give a number, or both ends as [low, high], between {low} and {high}",
        "channels": f"give a number, one for each channel, or +10,-40,-10 for a fixed shift, between {low} and {high}",
        "chance": "it is a probability, between 0 and 1",
        "amount": f"it is a number between {low} and {high}",
        "count": f"it is a whole number between {low} and {high}",
        "ratio": f"give a number from 1 to {high}, or both ends as [low, high], between {low} and {high}",
    }.get(setting.kind, f"give a number, or both ends as [low, high], between {low} and {high}")
    shown = list(value) if isinstance(value, tuple) else value
    return RequestError(f"the augmentation's {name} cannot be {shown!r}", hint)


def is_grey(images: np.ndarray) -> bool:
    """Return whether all images, uint8 (n, h, w, 3), have equal values in all three channels."""
    first = images[..., 0]
    return all(np.array_equal(first[i], images[i, ..., c]) for i in range(len(images)) for c in (1, 2))


def policy_for(spec: str | Mapping[str, Any], images: np.ndarray) -> tuple[str, Policy]:
    """Return a predefined policy, or one with some settings changed.

    `auto` is `light` if all images are grey (digits, drawings, scans), else `photo`.

    Args:
        spec: Name in `POLICIES`, `auto`, or settings of `Policy` by name; among them `policy`, the policy that they change,
            by default `auto`.
        images: uint8 (n, h, w, 3), by which `auto` decides.

    Returns:
        Its description, such as `photo, rotation 30`, and the policy.

    Raises:
        RequestError: If a name is not known or a value is outside its range.

    Example:
        >>> policy_for({"policy": "none", "rotation": 30}, np.zeros((1, 8, 8, 3), np.uint8))[0]
        'none, rotation 30'
    """
    changes = {"policy": spec} if isinstance(spec, str) else dict(spec)
    name = str(changes.pop("policy", "auto"))
    if name == "auto":
        name = "light" if is_grey(images) else "photo"
    if name not in POLICIES:
        raise unknown("augmentation policy", name, ["auto", *POLICIES])
    known = [field.name for field in dataclasses.fields(Policy)]
    for key in changes:
        if key not in known:
            raise unknown("setting of augmentation", str(key), known)
    called = ", ".join([name, *(f"{key} {_shown(value)}" for key, value in sorted(changes.items()))])
    return called, dataclasses.replace(POLICIES[name], **changes)


def _shown(value: Any) -> str:
    """Format the value of a setting."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


SETTINGS: dict[str, Setting] = {
    "flip": Setting("chance", 0, 1, "", "left–right mirror image"),
    "vertical_flip": Setting("chance", 0, 1, "", "upside-down mirror image"),
    "quarter_turn": Setting("chance", 0, 1, "", "turn by 90°, 180° or 270°"),
    "crop": Setting("share", 0.01, 1, "of the area", "a random part, enlarged to the whole"),
    "crop_ratio": Setting("ratio", 0.25, 4, "", "width to height of the crop"),
    "crop_padding": Setting("count", 0, 512, "px", "moved by whole pixels, padding beyond the edge"),
    "rotation": Setting("around", -180, 180, "°", "turned, counter-clockwise where positive"),
    "shear": Setting("around", -60, 60, "°", "upright lines lean, to the right where positive"),
    "zoom": Setting("growth", -0.75, 3, "", "enlarged or reduced about the centre"),
    "shift": Setting("around", -1, 1, "of each side", "moved down and to the right, or back"),
    "perspective": Setting("amount", 0, 0.6, "of half a side", "corners move inwards"),
    "elastic": Setting("amount", 0, 0.25, "of the side", "a smooth random warp"),
    "elastic_cells": Setting("count", 2, 16, "", "knots of the elastic warp along a side"),
    "brightness": Setting("around", -1, 3, "", "every value times a factor"),
    "contrast": Setting("around", -1, 3, "", "distance from the image's mean grey times a factor"),
    "saturation": Setting("around", -1, 3, "", "distance from grey times a factor"),
    "hue": Setting("around", -180, 180, "°", "colours turned about the grey axis"),
    "rgb_shift": Setting("channels", -255, 255, "grey levels", "added to red, green and blue"),
    "pca": Setting("amount", 0, 1, "of the spread", "moved along the set's principal colours"),
    "grey": Setting("chance", 0, 1, "", "grey image"),
    "blur": Setting("upto", 0, 10, "px", "Gaussian blur"),
    "resolution": Setting("share", 0.05, 1, "of each side", "scaled down and up again"),
    "noise": Setting("upto", 0, 100, "grey levels", "Gaussian noise"),
    "jpeg": Setting("quality", 1, 100, "quality", "JPEG compression"),
    "erase": Setting("chance", 0, 1, "", "a random rectangle erased"),
    "erase_area": Setting("exact", 0.005, 0.9, "of the area", "size of the erased rectangle"),
}
"""Every numeric setting, in the order in which they are applied."""

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "light": Policy(rotation=10, zoom=0.1, shift=0.08, brightness=0.1, contrast=0.1),  # no mirror image: b is not d
    "photo": Policy(flip=0.5, rotation=15, zoom=0.25, shift=0.1, brightness=0.2, contrast=0.2, saturation=0.3),
    "strong": Policy(
        flip=0.5,
        crop=0.4,
        crop_ratio=4 / 3,
        rotation=15,
        shear=8,
        perspective=0.2,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=15,
        pca=0.1,
        grey=0.1,
        blur=0.8,
        noise=6,
        erase=0.25,
    ),
    "handwriting": Policy(
        rotation=10,
        shear=15,
        zoom=0.15,
        shift=0.08,
        elastic=0.05,
        brightness=0.1,
        contrast=0.2,
        blur=0.5,
        padding="border",  # paper goes on; a mirrored stroke would be another letter
    ),
    "texture": Policy(
        flip=0.5, vertical_flip=0.5, crop=0.5, rotation=180, brightness=0.15, contrast=0.2, saturation=0.15, blur=0.5
    ),  # no side is up, and a part shows what the whole does
}
