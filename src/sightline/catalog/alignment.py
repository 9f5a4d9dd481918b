"""Image alignment: register one image to another by shift and scale, and measure the remaining difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LARGEST_SHIFT = 0.3  # of half the image; a crop of 10 % on one side shifts by 0.1
_GREY = 4.0  # grey levels; an image with less colour counts as grey


@dataclass(frozen=True, slots=True)
class Likeness:
    """Similarity of the images of m pairs after alignment.

    Args:
        correlation: float32 (m,), correlation of the grey levels in the overlap, -1 to 1.
        gain: float32 (m,), ratio of the first image's contrast to the second's.
        offset: float32 (m,), difference of the mean grey levels.
        residual: float32 (m,), largest root mean square difference among the cells of an 8×8 grid, divided by the first image's
            standard deviation; detects local changes, such as other eyes in a face.
        colour: float32 (m,), largest mean colour difference of a cell in grey levels; 0 if one of the images has no colour, so
            that a photograph and its black-and-white copy count as similar.
    """

    correlation: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    residual: np.ndarray
    colour: np.ndarray


def coarse(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Align small grey images, and return their correlation and the alignment.

    Args:
        first, second: (m, s, s), grey levels.

    Returns:
        Correlation, float32 (m,), -1 to 1; and alignment, float32 (m, 4), as returned by `align`.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    place = align(blur(first, 2), blur(second, 2), np.zeros((len(first), 4), np.float32), 3)
    place = align(first, second, place, 2)
    moved, mask = warp(second, place)
    return _moments(first, moved, mask)[0], place


def fine(first: np.ndarray, second: np.ndarray, place: np.ndarray) -> Likeness:
    """Refine the alignment of colour images, and return their similarity.

    Args:
        first, second: uint8 (m, s, s, 3), s a multiple of 8.
        place: float32 (m, 4), alignment from `coarse`.
    """
    gray, other = (_gray(x) for x in (first, second))
    place = align(gray, other, place, 2)
    moved, mask = warp(other, place)
    correlation, mean, mean_moved, sd, sd_moved = _moments(gray, moved, mask)
    gain = correlation * sd / np.maximum(sd_moved, 1e-3)
    difference = (gray - mean[:, None, None] - gain[:, None, None] * (moved - mean_moved[:, None, None])) * mask
    residual = np.sqrt(_grid_means(blur(difference, 2) ** 2).max(axis=1)) / np.maximum(sd, 1e-3)
    tint, other_tint, colour = (np.zeros(len(gray), np.float32) for _ in range(3))
    for channel in (0, 2):
        one, two = first[..., channel].astype(np.float32) - gray, second[..., channel].astype(np.float32) - other
        shift = (one - warp(two, place)[0]) * mask
        pairs = ((tint, one), (other_tint, two), (colour, shift))
        tint, other_tint, colour = (np.maximum(x, _largest_mean(y)) for x, y in pairs)
    colour[np.minimum(tint, other_tint) < _GREY] = 0
    return Likeness(correlation, gain, mean - mean_moved, residual, colour)


def align(first: np.ndarray, second: np.ndarray, place: np.ndarray, steps: int) -> np.ndarray:
    """Estimate the scale and shift that align `second` with `first`, by Gauss–Newton steps with free gain and offset.

    Args:
        first, second: float32 (m, s, s).
        place: float32 (m, 4), initial alignment: scale minus 1 along x and y, shift along x and y in units of half the image.
        steps: Number of Gauss–Newton steps.

    Returns:
        float32 (m, 4), the refined alignment.

    Source: Lucas and Kanade 1981, with the affine transform restricted to scale and shift, as a crop produces.
    """
    m, s, _ = first.shape
    grid = _grid(s)
    for _ in range(steps):
        moved, mask = warp(second, place)
        down, across = (d * (s / 2) for d in np.gradient(moved, axis=(1, 2)))
        terms = (across * grid[None, None, :], down * grid[None, :, None], across, down, moved, np.ones_like(moved))
        jacobian = np.stack(terms, axis=1).reshape(m, 6, -1)  # (m, 6, s·s)
        weighted = jacobian * mask.reshape(m, 1, -1)
        normal = (weighted @ jacobian.transpose(0, 2, 1)).astype(np.float64)
        normal[:, range(6), range(6)] += np.array([1, 1, 1, 1, 1e-3, 1e-3]) * 1e-4 * s * s
        solution = np.linalg.solve(normal, (weighted @ first.reshape(m, -1, 1)).astype(np.float64))[..., 0]
        gain = np.where(np.abs(solution[:, 4:5]) < 0.2, 0.2, solution[:, 4:5])
        step = np.clip(solution[:, :4] / gain, -0.1, 0.1).astype(np.float32)
        place = np.clip(place + step, -_LARGEST_SHIFT, _LARGEST_SHIFT)
    return place


def warp(images: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample images bilinearly by an alignment, and return them with a mask of valid pixels.

    Args:
        images: float32 (m, s, s).
        place: float32 (m, 4), alignment as returned by `align`.

    Returns:
        Resampled images, float32 (m, s, s); and mask, float32 (m, s, s), 1 inside the source image and 0 outside.
    """
    s = images.shape[1]
    columns, inside_x = _weights(place[:, 0], place[:, 2], s)
    rows, inside_y = _weights(place[:, 1], place[:, 3], s)
    mask = (inside_y[:, :, None] & inside_x[:, None, :]).astype(np.float32)
    return rows @ images @ columns.transpose(0, 2, 1), mask


def _weights(scale: np.ndarray, shift: np.ndarray, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bilinear weights along one axis, float32 (m, s, s), and the positions inside the image, bool (m, s)."""
    at = ((1 + scale[:, None]) * _grid(s) + shift[:, None] + 1) * (s / 2) - 0.5
    inside = (at >= -0.5) & (at <= s - 0.5)
    at = np.clip(at, 0, s - 1)
    base = np.minimum(at.astype(np.int64), s - 2)
    part = (at - base).astype(np.float32)
    weights = np.zeros((len(at), s, s), np.float32)
    m, i = np.arange(len(at))[:, None], np.arange(s)[None]
    weights[m, i, base] = 1 - part
    weights[m, i, base + 1] = part
    return weights, inside


def _grid(s: int) -> np.ndarray:
    """Return the centres of s equal cells from -1 to 1."""
    return ((np.arange(s, dtype=np.float32) + 0.5) / s * 2 - 1).astype(np.float32)


def blur(images: np.ndarray, times: int) -> np.ndarray:
    """Apply a 3×3 binomial blur `times` times, with replicated edges."""
    for _ in range(times):
        p = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
        across = (p[:, :, :-2] + 2 * p[:, :, 1:-1] + p[:, :, 2:]) / 4
        images = (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 4
    return images


def _gray(images: np.ndarray) -> np.ndarray:
    """Convert RGB to grey levels, float32, with the ITU-R 601 weights of Pillow's mode `L`."""
    return np.asarray(images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))


def _moments(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return correlation, both means and both standard deviations of m pairs, over the pixels with mask 1."""
    weight = mask / np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    means = [(x * weight).sum(axis=(1, 2)) for x in (first, second)]
    a, b = (x - mean[:, None, None] for x, mean in zip((first, second), means, strict=True))
    sds = [np.sqrt((x * x * weight).sum(axis=(1, 2))) for x in (a, b)]
    correlation = (a * b * weight).sum(axis=(1, 2)) / np.maximum(sds[0] * sds[1], 1e-6)
    return correlation, means[0], means[1], sds[0], sds[1]


def _largest_mean(images: np.ndarray) -> np.ndarray:
    """Return the largest absolute mean among the cells of an 8×8 grid, float32 (m,)."""
    return np.asarray(np.abs(_grid_means(images)).max(axis=1))


def _grid_means(images: np.ndarray) -> np.ndarray:
    """Return the means of the cells of an 8×8 grid, (m, 64)."""
    m, s, _ = images.shape
    return np.asarray(images.reshape(m, 8, s // 8, 8, s // 8).mean(axis=(2, 4)).reshape(m, 64))
