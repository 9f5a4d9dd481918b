"""A batch's augmentation as one warp and one colour matrix: parameters are drawn first, as data; then one pass over pixels.

Flip, rotation, zoom and shift compose into one affine sampling grid; brightness, contrast, saturation and the network's
normalisation into one 3×4 matrix. Whatever the policy, a batch costs one `grid_sample` and one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sightline import store
from sightline.errors import RequestError, unknown

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float64)
"""How much each channel counts for brightness (ITU-R BT.601, as in Pillow and torchvision)."""

_CPU_CHUNK = 4  # images; a whole batch of grids and samples leaves the processor's cache
_COLUMNS = 8  # random numbers an image and epoch; a new operation is a new column, so that older ones keep theirs


@dataclass(frozen=True, slots=True)
class Policy:
    """How strongly images are changed. Every range is symmetric about "unchanged"; zeros everywhere change nothing.

    Args:
        flip: Probability of a left–right mirror image, 0 to 1.
        rotation: Largest angle to either side, in degrees, 0 to 180.
        zoom: Largest enlargement, as a fraction, 0 to 3: 0.2 draws a factor from 1/1.2 to 1.2, evenly in its logarithm.
        shift: Largest shift along each side, as a fraction of that side, 0 to 1.
        brightness, contrast, saturation: Largest change of the factor, 0 to 1: 0.2 draws a factor from 0.8 to 1.2.
        padding: What lies beyond the edge: the mirrored image, the edge's own pixels, or black.
    """

    flip: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    padding: Literal["reflection", "border", "zeros"] = "reflection"

    def __post_init__(self) -> None:
        limits = {"flip": 1, "rotation": 180, "zoom": 3, "shift": 1, "brightness": 1, "contrast": 1, "saturation": 1}
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise RequestError(f"the augmentation's {name} cannot be {value}", f"it lies between 0 and {limit}")

    @property
    def warps(self) -> bool:
        """Whether pixels move at all."""
        return any((self.flip, self.rotation, self.zoom, self.shift))


@dataclass(frozen=True, slots=True)
class Draw:
    """What happens to each of n images, as data.

    Args:
        flip: bool (n,).
        angle: float64 (n,), degrees, counter-clockwise as one sees it.
        zoom: float64 (n,), above 1 enlarges.
        shift: float64 (n, 2), (down, right) as fractions of the height and width.
        brightness, contrast, saturation: float64 (n,), factors.
    """

    flip: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray
    shift: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray


def identity(n: int) -> Draw:
    """The draw that changes nothing."""
    one = np.ones(n)
    return Draw(np.zeros(n, dtype=bool), np.zeros(n), one, np.zeros((n, 2)), one, one, one)


def draw(policy: Policy, n: int, *, seed: int, epoch: int) -> Draw:
    """The changes of all n training images in one epoch.

    Row i is a function of (seed, epoch, i) alone: neither the order of the images nor the batch size matters.
    """
    u = store.stream(seed, "augment", epoch).random((n, _COLUMNS))
    either = 2 * u - 1  # -1 to 1
    return Draw(
        flip=u[:, 0] < policy.flip,
        angle=policy.rotation * either[:, 1],
        zoom=np.exp(math.log1p(policy.zoom) * either[:, 2]),
        shift=policy.shift * either[:, 3:5],
        brightness=1 + policy.brightness * either[:, 5],
        contrast=1 + policy.contrast * either[:, 6],
        saturation=1 + policy.saturation * either[:, 7],
    )


def warp_matrices(drawn: Draw, height: int, width: int) -> np.ndarray:
    """Where each output pixel is taken from: float32 (n, 2, 3), in coordinates from -1 to 1 over the image, (x, y).

    The image is mirrored, then turned, then enlarged about its centre, then shifted; the matrix is the way back. Angles
    are true angles in pixels, whatever the ratio of the sides.
    """
    cos, sin = np.cos(np.deg2rad(drawn.angle)), np.sin(np.deg2rad(drawn.angle))
    ratio = height / width
    mirror = np.where(drawn.flip, -1.0, 1.0)
    # rows: x_in, y_in; columns: of (x_out, y_out) with the shift taken off
    back = np.stack(
        [np.stack([mirror * cos, -mirror * sin * ratio], axis=1), np.stack([sin / ratio, cos], axis=1)], axis=1
    ) / drawn.zoom.reshape(-1, 1, 1)
    offset = 2.0 * drawn.shift[:, ::-1]  # (right, down); the coordinates' range is 2 wide
    moved = -np.einsum("nij,nj->ni", back, offset)
    return np.concatenate([back, moved[:, :, None]], axis=2).astype(np.float32)


def colour_matrices(drawn: Draw, mean_rgb: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The colour change and the normalisation as one matrix from pixels (0 to 255): float32 (n, 3, 4).

    brightness x ← b·x, then contrast x ← c·x + (1 - c)·m with m the image's own mean grey, then saturation
    x ← s·x + (1 - s)·grey(x), then (x / 255 - mean) / std. Nothing is clipped in between.

    Args:
        drawn: For n images.
        mean_rgb: float (n, 3), each image's mean colour, 0 to 255.
        mean, std: The network's, per channel, for pixels in 0 to 1.
    """
    n = len(drawn.brightness)
    saturation = drawn.saturation[:, None, None]
    mix = saturation * np.eye(3) + (1 - saturation) * GREY[None, None, :]  # (n, 3, 3)
    linear = mix * (drawn.contrast * drawn.brightness)[:, None, None]
    grey = (1 - drawn.contrast) * drawn.brightness * (mean_rgb @ GREY)  # what contrast adds; a grey, so saturation keeps it
    scale = 1.0 / np.asarray(std, dtype=np.float64)
    out = np.empty((n, 3, 4))
    out[:, :, :3] = linear * (scale / 255.0)[None, :, None]
    out[:, :, 3] = (grey[:, None] / 255.0 - np.asarray(mean)) * scale
    return out.astype(np.float32)


def sampling_grid(warp: Tensor, height: int, width: int) -> Tensor:
    """The positions that `grid_sample` reads: (n, height, width, 2), from matrices (n, 2, 3).

    Written out with broadcasting, as torch's own `affine_grid` builds a (height·width, 3) matrix product.
    """
    n = warp.shape[0]
    x = (torch.arange(width, device=warp.device, dtype=torch.float32) * 2 + 1) / width - 1
    y = (torch.arange(height, device=warp.device, dtype=torch.float32) * 2 + 1) / height - 1
    grid = torch.empty((n, height, width, 2), device=warp.device)
    for axis in (0, 1):
        a, b, c = (warp[:, axis, i].view(n, 1, 1) for i in range(3))
        torch.add(a * x.view(1, 1, width), b * y.view(1, height, 1) + c, out=grid[..., axis])
    return grid


def apply(images: Tensor, warp: Tensor | None, colour: Tensor, *, padding: str = "reflection") -> Tensor:
    """Warp and recolour a batch: uint8 pixels in, the network's normalised input out.

    Args:
        images: uint8 (n, h, w, 3).
        warp: float32 (n, 2, 3), or None where no pixel moves.
        colour: float32 (n, 3, 4).
        padding: What `grid_sample` takes beyond the edge.

    Returns:
        float32 (n, 3, h, w), channels last in memory.
    """
    n, height, width, _ = images.shape
    out = torch.empty((n, 3, height, width), device=images.device, memory_format=torch.channels_last)
    step = _CPU_CHUNK if images.device.type == "cpu" else n
    for start in range(0, n, step):
        rows = slice(start, start + step)
        pixels = images[rows].permute(0, 3, 1, 2).float()  # (4, 3, h, w)
        if warp is not None:
            grid = sampling_grid(warp[rows], height, width)
            pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode=padding, align_corners=False)
        matrix = colour[rows]  # as (3, 3) times (3, h·w): nine times faster than (h·w, 3) times (3, 3)
        normal = torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], pixels.reshape(-1, 3, height * width))
        out[rows] = normal.view(-1, 3, height, width)
    return out


def is_grey(images: np.ndarray) -> bool:
    """Whether every one of the images uint8 (n, h, w, 3) has the same value in all three channels."""
    first = images[..., 0]
    return all(np.array_equal(first[i], images[i, ..., c]) for i in range(len(images)) for c in (1, 2))


def policy_for(name: str, images: np.ndarray) -> tuple[str, Policy]:
    """A ready policy by name; `auto` takes `light` where all images are grey (digits, drawings, scans), else `photo`.

    Returns:
        The name of the policy that was taken, and the policy.
    """
    if name == "auto":
        name = "light" if is_grey(images) else "photo"
    if name not in POLICIES:
        raise unknown("augmentation policy", name, ["auto", *POLICIES])
    return name, POLICIES[name]


POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "light": Policy(rotation=10, zoom=0.1, shift=0.08, brightness=0.1, contrast=0.1),  # no mirror image: b is not d
    "photo": Policy(flip=0.5, rotation=15, zoom=0.25, shift=0.1, brightness=0.2, contrast=0.2, saturation=0.3),
}
