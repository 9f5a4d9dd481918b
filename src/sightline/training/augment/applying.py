"""Apply drawn augmentations to pixels: one `grid_sample` and one matrix product per batch, on any device."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sightline import store
from sightline.training.augment.colour import colour_matrices
from sightline.training.augment.drawing import NOISE_TABLE, Draw, identity
from sightline.training.augment.warp import farthest, fold, sampling_grid, warp_matrices

_CPU_CHUNK_PX = 40_000
"""Pixels that a CPU processes at a time, so that grid and samples stay in its cache: 9 images of 64×64; at least two images."""
_NEAR = 2.99  # just below 3: reached by one mirroring, with a margin for rounding
_SHARP = 1e-3  # pixels; a smaller blur has no effect
_ON_CPU = ("resolution", "noise_at", "jpeg")
_REACH = 4.0  # standard deviations; the weights beyond sum to 1 / 15,000


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of n images as tensors; None for a step that no image needs.

    Args:
        colour: float32 (n, 3, 4), the normalisation included.
        warp: float32 (n, 2, 3) or (n, 3, 3).
        elastic: float32 (n, 2, c + 3, c + 3), as in `Draw`.
        blur: float32 (n,), standard deviation in pixels.
        reach: Radius of the widest blur, in pixels.
        resolution: float32 (n,), as in `Draw`; always on the CPU.
        noise: float32 (n,), standard deviation in grey levels.
        noise_at: int64 (n,), index in the noise table at which each image's noise begins; always on the CPU.
        jpeg: int64 (n,), as in `Draw`; always on the CPU.
        erase: float32 (n, 4), as in `Draw`.
        padding: Padding beyond the edge, as in `Policy`.
        near: Whether mirroring once at the edge brings every sampled position into the image.
    """

    colour: Tensor
    warp: Tensor | None = None
    elastic: Tensor | None = None
    blur: Tensor | None = None
    reach: int = 0
    resolution: Tensor | None = None
    noise: Tensor | None = None
    noise_at: Tensor | None = None
    jpeg: Tensor | None = None
    erase: Tensor | None = None
    padding: str = "reflection"
    near: bool = False

    def __len__(self) -> int:
        return len(self.colour)

    def rows(self, index: np.ndarray | slice) -> Changes:
        """Return the changes of some of the images."""
        where = torch.from_numpy(index) if isinstance(index, np.ndarray) else index
        return self._each(lambda name, tensor: tensor[where])

    def at(self, scale: float) -> Changes:
        """Return the changes for images whose side is `scale` times as long; only a blur depends on the size in pixels."""
        if self.blur is None or scale == 1:
            return self
        return dataclasses.replace(self, blur=self.blur * scale, reach=math.ceil(self.reach * scale))

    def to(self, device: torch.device) -> Changes:
        """Return the changes on another device."""
        return self._each(lambda name, tensor: tensor if name in _ON_CPU else tensor.to(device))

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> Changes:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {name: change(name, v) for name, v in values.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **changed)


def prepare(
    drawn: Draw,
    size: tuple[int, int],
    mean_rgb: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    padding: str = "reflection",
    principal: np.ndarray | None = None,
) -> Changes:
    """Return a draw as tensors for images of one size and a network's normalisation, on the CPU, for a whole epoch at once.

    Args:
        drawn: Draw for n images.
        size: (height, width) of the images.
        mean_rgb: float (n, 3), each image's mean colour, 0 to 255.
        mean, std: Normalisation of the network, per channel, for pixels in 0 to 1.
        padding: Padding beyond the edge, as in `Policy`.
        principal: Result of `principal_colours` for the training set; needed if `drawn.pca` is not 0.
    """

    def some(values: np.ndarray | None, wanted: bool = True) -> Tensor | None:
        return None if values is None or not wanted else torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    noisy, warp = bool(drawn.noise.any()), warp_matrices(drawn, *size)
    return Changes(
        colour=torch.from_numpy(colour_matrices(drawn, mean_rgb, mean, std, principal)),
        warp=some(warp),
        elastic=some(drawn.elastic),
        blur=some(drawn.blur, bool(drawn.blur.any())),
        reach=math.ceil(_REACH * float(drawn.blur.max(initial=0.0))),
        resolution=some(drawn.resolution, bool((drawn.resolution < 1).any())),
        noise=some(drawn.noise, noisy),
        noise_at=torch.from_numpy(np.array(drawn.noise_at, dtype=np.int64)) if noisy else None,
        jpeg=torch.from_numpy(np.array(drawn.jpeg, dtype=np.int64)) if (drawn.jpeg < 100).any() else None,
        erase=some(drawn.erase, bool(drawn.erase.any())),
        padding=padding,
        near=warp is not None and farthest(warp, drawn.elastic) <= _NEAR,
    )


def unchanged(n: int, mean: Sequence[float], std: Sequence[float]) -> Changes:
    """Return the changes that only normalise."""
    return Changes(torch.from_numpy(colour_matrices(identity(n), np.zeros((n, 3)), mean, std)))


def apply(images: Tensor, changes: Changes) -> Tensor:
    """Augment and normalise a batch.

    Pixels are warped, blurred, reduced in resolution, made noisy and compressed as JPEG on the scale 0 to 255, then recoloured
    and normalised. An erased rectangle is set to 0 after that, which is the mean colour of the normalisation.

    Args:
        images: uint8 (n, h, w, 3).
        changes: Changes of these n images, on the same device.

    Returns:
        float32 (n, 3, h, w), channels last in memory.
    """
    n, height, width, _ = images.shape
    out = torch.empty((n, 3, height, width), device=images.device, memory_format=torch.channels_last)
    step = max(n, 1)
    if images.device.type == "cpu":  # `grid_sample` distributes images over threads
        step = min(step, max(2, torch.get_num_threads(), _CPU_CHUNK_PX // (height * width)))
    room = _room(step, height, width, changes)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        part, use = changes.rows(rows), room.first(rows.stop - start)
        pixels = use.pixels.copy_(images[rows].permute(0, 3, 1, 2))
        if part.warp is not None:
            pixels = _warped(pixels, part, use)
        if part.blur is not None:
            pixels = _blurred(pixels, part.blur, part.reach)
        if part.resolution is not None:
            pixels = _reduced(pixels, part.resolution)
        if part.noise is not None and part.noise_at is not None:
            pixels = _noisy(pixels, part.noise, part.noise_at)
        if part.jpeg is not None:
            pixels = _compressed(pixels, part.jpeg)
        # as (3, 3) times (3, h·w): nine times faster than (h·w, 3) times (3, 3)
        colour, planes = part.colour, pixels.reshape(-1, 3, height * width)
        normal = torch.baddbmm(colour[:, :, 3:], colour[:, :, :3], planes, out=use.normal)
        out[rows] = normal.view(-1, 3, height, width)
        if part.erase is not None:
            out[rows].masked_fill_(_inside(part.erase, height, width), 0.0)
    return out


def altered(images: np.ndarray, drawn: Draw, *, padding: str = "reflection", principal: np.ndarray | None = None) -> np.ndarray:
    """Return augmented images as pictures, uint8 (n, h, w, 3); an erased rectangle is mid-grey.

    Args:
        images: uint8 (n, h, w, 3).
        drawn: Draw for n images.
        padding, principal: As in `prepare`.
    """
    means, size = images.mean(axis=(1, 2)), (images.shape[1], images.shape[2])
    changes = prepare(drawn, size, means, (0.5,) * 3, (1.0,) * 3, padding=padding, principal=principal)
    out = apply(torch.tensor(images), changes).permute(0, 2, 3, 1).numpy()
    return np.asarray(np.clip(np.rint((out + np.float32(0.5)) * 255), 0, 255), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class _Room:
    """Buffers that are reused for every chunk. Allocating them for each chunk would take longer than the computation, since the
    operating system clears every new page.

    Args:
        pixels: float32 (step, 3, h, w), channels last.
        grid, scratch: float32 (step, 2, h, w), grid (step, 3, h, w) with a perspective; empty if nothing is warped.
        normal: float32 (step, 3, h·w).
    """

    pixels: Tensor
    grid: Tensor
    scratch: Tensor
    normal: Tensor

    def first(self, n: int) -> _Room:
        """Return the buffers for the first n images."""
        return _Room(self.pixels[:n], self.grid[:n], self.scratch[:n], self.normal[:n])


def _room(step: int, height: int, width: int, changes: Changes) -> _Room:
    """Allocate the buffers for `step` images."""
    device, warp = changes.colour.device, changes.warp
    axes, warped = (2, 0) if warp is None else (warp.shape[1], step)
    return _Room(
        pixels=torch.empty((step, 3, height, width), device=device, memory_format=torch.channels_last),
        grid=torch.empty((warped, axes, height, width), device=device),
        scratch=torch.empty((warped if changes.near else 0, 2, height, width), device=device),
        normal=torch.empty((step, 3, height * width), device=device),
    )


def _warped(pixels: Tensor, changes: Changes, room: _Room) -> Tensor:
    """Return warped pixels, float32 (n, 3, h, w)."""
    assert changes.warp is not None
    height, width = pixels.shape[2:]
    grid, padding = sampling_grid(changes.warp, height, width, changes.elastic, room.grid), changes.padding
    if padding == "reflection" and changes.near:
        grid, padding = fold(grid, room.scratch.permute(0, 2, 3, 1)), "border"
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _blurred(pixels: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Return pixels after a separable Gaussian blur of each image's own width; edge pixels are repeated beyond the edge."""
    n, channels, height, width = pixels.shape
    away = torch.arange(-reach, reach + 1, device=pixels.device)
    sigma = sigma.clamp(min=_SHARP).view(n, 1)
    kernel = torch.exp(-0.5 * (away / sigma).square())
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    planes = F.pad(pixels.reshape(1, n * channels, height, width), (reach,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, None, :], groups=n * channels)
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=n * channels)
    return planes.view(n, channels, height, width)


def _reduced(pixels: Tensor, factors: Tensor) -> Tensor:
    """Return pixels scaled down by each image's factor, with antialiasing, and up again, both bilinearly."""
    out, (height, width) = pixels.clone(), pixels.shape[2:]
    for factor in {f for f in factors.tolist() if f < 1}:
        rows = (factors == factor).nonzero()[:, 0].to(pixels.device)
        small = (max(1, round(height * factor)), max(1, round(width * factor)))
        reduced = F.interpolate(pixels[rows], small, mode="bilinear", antialias=True)
        out[rows] = F.interpolate(reduced, (height, width), mode="bilinear")
    return out


def _compressed(pixels: Tensor, qualities: Tensor) -> Tensor:
    """Return pixels after JPEG compression of each image, on the CPU."""
    whole = (pixels + 0.501).floor()  # so that rounding errors do not decide ties such as 7.5, which are frequent
    images = whole.clamp(0, 255).to(device="cpu", dtype=torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    out = pixels.clone()
    for i, quality in enumerate(qualities.tolist()):
        if quality < 100:
            data = io.BytesIO()
            Image.fromarray(images[i]).save(data, "JPEG", quality=quality)
            out[i] = torch.from_numpy(np.array(Image.open(data))).permute(2, 0, 1).to(pixels.device)
    return out


def _noisy(pixels: Tensor, sigma: Tensor, places: Tensor) -> Tensor:
    """Return pixels with Gaussian noise, copied for each image from one long table, which is faster than drawing it."""
    count = pixels[0].numel()
    table = _noise_table(1 << max(count - 1, 1).bit_length(), pixels.device)
    pieces = torch.stack([table[at : at + count] for at in places.tolist()]).view(pixels.shape)
    return torch.addcmul(pixels, sigma.view(-1, 1, 1, 1), pieces)


@functools.lru_cache(maxsize=4)
def _noise_table(longest: int, device: torch.device) -> Tensor:
    """Return standard normal numbers, float32 (NOISE_TABLE + longest,); a longer table begins with the same numbers."""
    drawn = store.stream(0, "noise").standard_normal(NOISE_TABLE + longest, dtype=np.float32)
    return torch.from_numpy(drawn).to(device)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return which pixel centres lie inside a rectangle: bool (n, 1, height, width)."""
    y = ((torch.arange(height, device=boxes.device) + 0.5) / height).view(1, height, 1)
    x = ((torch.arange(width, device=boxes.device) + 0.5) / width).view(1, 1, width)
    top, left, tall, wide = (boxes[:, i].view(-1, 1, 1) for i in range(4))
    return ((y >= top) & (y < top + tall) & (x >= left) & (x < left + wide))[:, None]
