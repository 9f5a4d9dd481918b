"""Draw the augmentation parameters of every image, as a function of seed, epoch and image alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import store
from sightline.training.augment.policy import Policy, Span

_COLUMNS = 8
"""Random numbers per image and epoch for the first operations: flip, rotation, zoom, shift (2), brightness, contrast,
saturation. Every other operation has its own random stream, so that switching one on does not change the draws of others."""
_ERASE_RATIO: Span = (0.3, 1 / 0.3)
"""Height to width of the erased rectangle. Source: Zhong et al. 2017, "Random erasing data augmentation"."""
NOISE_TABLE = 1 << 20
"""Number of positions in the noise table at which the noise of an image may begin."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Augmentation parameters of n images. Fractions are of the image's height and width.

    Args:
        crop: float64 (n, 4): top, left, height and width of the crop that is enlarged to the whole image, as fractions.
        flip, vertical_flip: bool (n,).
        turns: int64 (n,), quarter turns counter-clockwise, 0 to 3.
        shear: float64 (n,), degrees by which vertical lines lean to the right.
        angle: float64 (n,), degrees, counter-clockwise on screen.
        zoom: float64 (n,), above 1 enlarges.
        shift: float64 (n, 2), (down, right) as fractions.
        shift_px: int64 (n, 2), (down, right) in pixels.
        corners: float64 (n, 4, 2): how far the corners top left, top right, bottom right and bottom left move inwards,
            (vertically, horizontally), as fractions of half a side.
        elastic: float32 (n, 2, c + 3, c + 3): displacements of the knots of a cubic spline with c cells a side, (right, down),
            as fractions; None without an elastic warp.
        brightness, contrast, saturation: float64 (n,), factors.
        hue: float64 (n,), degrees.
        rgb: float64 (n, 3), grey levels to add.
        pca: float64 (n, 3), shifts along the principal axes of colour, in standard deviations along them.
        grey: bool (n,).
        blur: float64 (n,), standard deviation in pixels.
        resolution: float64 (n,), factor by which the sides are scaled down and up again; 1 leaves the image as it is.
        noise: float64 (n,), standard deviation in grey levels.
        noise_at: int64 (n,), index in the noise table at which the noise of the image begins.
        jpeg: int64 (n,), JPEG quality; 100 leaves the image as it is.
        erase: float64 (n, 4): top, left, height and width of the erased rectangle, as fractions; height 0 if none is erased.
    """

    crop: np.ndarray
    flip: np.ndarray
    vertical_flip: np.ndarray
    turns: np.ndarray
    shear: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray
    shift: np.ndarray
    shift_px: np.ndarray
    corners: np.ndarray
    elastic: np.ndarray | None
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray
    rgb: np.ndarray
    pca: np.ndarray
    grey: np.ndarray
    blur: np.ndarray
    resolution: np.ndarray
    noise: np.ndarray
    noise_at: np.ndarray
    jpeg: np.ndarray
    erase: np.ndarray

    def __len__(self) -> int:
        return len(self.flip)

    def rows(self, index: np.ndarray | slice) -> Draw:
        """Return the draws of some of the images."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: value[index] for name, value in values.items() if value is not None})


def identity(n: int) -> Draw:
    """Return the draw that changes nothing."""

    def each(value: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(value), (n, *np.shape(value)))

    no, zero, one = each(False), each(0.0), each(1.0)
    return Draw(
        crop=each([0.0, 0.0, 1.0, 1.0]),
        flip=no,
        vertical_flip=no,
        turns=each(0),
        shear=zero,
        angle=zero,
        zoom=one,
        shift=each([0.0, 0.0]),
        shift_px=each([0, 0]),
        corners=each([[0.0, 0.0]] * 4),
        elastic=None,
        brightness=one,
        contrast=one,
        saturation=one,
        hue=zero,
        rgb=each([0.0] * 3),
        pca=each([0.0] * 3),
        grey=no,
        blur=zero,
        resolution=one,
        noise=zero,
        noise_at=each(0),
        jpeg=each(100),
        erase=each([0.0] * 4),
    )


def draw(policy: Policy, n: int, *, seed: int, epoch: int) -> Draw:
    """Draw the augmentation parameters of all n training images for one epoch.

    Row i is a function of (seed, epoch, i) alone: it does not depend on the order or number of images, the batch size or the
    other operations of the policy.
    """
    drawn = _first(policy, n, seed, epoch)
    for name, operation in _LATER.items():
        if getattr(policy, name) != getattr(_NOTHING, name):
            drawn |= operation(policy, n, store.stream(seed, "augment", epoch, name))
    return dataclasses.replace(identity(n), **drawn)


def between(span: Span, u: np.ndarray) -> np.ndarray:
    """Scale uniform numbers in 0 to 1 to a range."""
    return span[0] + (span[1] - span[0]) * u


def whole(count: int, u: np.ndarray) -> np.ndarray:
    """Turn uniform numbers in 0 to 1 into whole numbers from 0 to count - 1, one by one, so that rows stay independent."""
    return np.minimum((count * u).astype(np.int64), count - 1)


def _first(policy: Policy, n: int, seed: int, epoch: int) -> dict[str, np.ndarray]:
    """Draw the operations that share one table of random numbers."""
    u = store.stream(seed, "augment", epoch).random((n, _COLUMNS))
    low, high = policy.span("zoom")
    return {
        "flip": u[:, 0] < policy.flip,
        "angle": between(policy.span("rotation"), u[:, 1]),
        "zoom": np.exp(between((np.log1p(low), np.log1p(high)), u[:, 2])),
        "shift": between(policy.span("shift"), u[:, 3:5]),
        "brightness": 1 + between(policy.span("brightness"), u[:, 5]),
        "contrast": 1 + between(policy.span("contrast"), u[:, 6]),
        "saturation": 1 + between(policy.span("saturation"), u[:, 7]),
    }


def rectangles(area: np.ndarray, ratio: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return rectangles inside the unit square, float64 (n, 4): top, left, height, width.

    Args:
        area: (n,), share of the area of the square; reduced if a side would be longer than that of the square.
        ratio: (n,), width to height.
        place: (n, 2), position in the remaining space (down, right), 0 to 1.
    """
    sides = np.minimum(1.0, np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1))
    return np.concatenate([(1 - sides) * place, sides], axis=1)


def _crop(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    u = rng.random((n, 4))
    low, high = policy.span("crop_ratio")
    ratio = np.exp(between((np.log(low), np.log(high)), u[:, 1]))
    return {"crop": rectangles(between(policy.span("crop"), u[:, 0]), ratio, u[:, 2:])}


def _crop_ratio(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the largest crop of a drawn ratio if the policy has no `crop`; else `_crop` draws the ratio too."""
    return _crop(policy, n, rng) if policy.span("crop") == (1.0, 1.0) else {}


def _quarter_turn(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    u = rng.random((n, 2))
    return {"turns": np.where(u[:, 0] < policy.quarter_turn, 1 + whole(3, u[:, 1]), 0)}


def _elastic(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    side = policy.elastic_cells + 3
    u = rng.random((n, 2, side, side), dtype=np.float32)
    return {"elastic": np.float32(policy.elastic) * (2 * u - 1)}


def _rgb_shift(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    u = rng.random((n, 3))
    return {"rgb": np.stack([between(span, u[:, c]) for c, span in enumerate(policy.rgb_spans())], axis=1)}


def _erase(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    u = rng.random((n, 5))
    low, high = _ERASE_RATIO
    ratio = np.exp(between((np.log(low), np.log(high)), u[:, 2]))
    found = rectangles(between(policy.span("erase_area"), u[:, 1]), ratio, u[:, 3:])
    return {"erase": np.where((u[:, 0] < policy.erase)[:, None], found, 0.0)}


def _noise(policy: Policy, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    u = rng.random((n, 2))
    return {"noise": between(policy.span("noise"), u[:, 0]), "noise_at": whole(NOISE_TABLE, u[:, 1])}


_NOTHING = Policy()
_LATER: dict[str, Callable[[Policy, int, np.random.Generator], dict[str, np.ndarray]]] = {
    "vertical_flip": lambda p, n, rng: {"vertical_flip": rng.random(n) < p.vertical_flip},
    "quarter_turn": _quarter_turn,
    "crop": _crop,
    "crop_ratio": _crop_ratio,
    "crop_padding": lambda p, n, rng: {"shift_px": whole(2 * p.crop_padding + 1, rng.random((n, 2))) - p.crop_padding},
    "shear": lambda p, n, rng: {"shear": between(p.span("shear"), rng.random(n))},
    "perspective": lambda p, n, rng: {"corners": p.perspective * rng.random((n, 4, 2))},
    "elastic": _elastic,
    "hue": lambda p, n, rng: {"hue": between(p.span("hue"), rng.random(n))},
    "rgb_shift": _rgb_shift,
    "pca": lambda p, n, rng: {"pca": p.pca * rng.standard_normal((n, 3))},
    "grey": lambda p, n, rng: {"grey": rng.random(n) < p.grey},
    "blur": lambda p, n, rng: {"blur": between(p.span("blur"), rng.random(n))},
    "resolution": lambda p, n, rng: {"resolution": between(p.span("resolution"), rng.random(n))},
    "noise": _noise,
    "jpeg": lambda p, n, rng: {"jpeg": np.rint(between(p.span("jpeg"), rng.random(n))).astype(np.int64)},
    "erase": _erase,
}
"""Operation → function that draws its parameters: (policy, number of images, random stream) → fields of `Draw`."""
