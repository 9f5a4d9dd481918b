"""Image alignment: register thumbnails by affine transforms with a free tone curve, and compare them cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CELLS = 8  # per side of the grid in which aligned images are compared
_TEXTURE_SD = 2.5  # grey levels; a cell with a lower standard deviation in both images has no detail to compare
_NOISE = 3.0  # grey levels of difference that recompression causes
_COLOUR_LEVELS = 4.0  # mean chroma in grey levels; an image with less counts as grey
_FAR = 1.45  # largest coordinate of an aligned corner, in units of half the image; bounds the search


@dataclass(frozen=True, slots=True)
class Likeness:
    """Comparison of the images of m pairs after alignment.

    Args:
        correlation: float32 (m,), correlation of the grey levels in the overlap after the tone curve, -1 to 1.
        overlap: float32 (m,), share of the first image's area that lies inside the second.
        cover: float32 (m,), share of the second image's area that lies inside the first.
        textured: int64 (m,), number of cells in the overlap that have detail in one of the images.
        matched: float32 (m,), share of these cells whose detail correlates.
        detail: float32 (m,), median correlation of the detail in these cells.
        ncc: float32 (m, 8, 8), correlation within each cell.
        detailed: bool (m, 8, 8), cells of the overlap with detail in one of the images.
        differs: bool (m, 8, 8), cells of the overlap whose content differs.
        inside: bool (m, 8, 8), cells of the overlap.
        difference: float32 (m, s, s), difference in grey levels after the tone curve; 0 outside the overlap.
        gain: float32 (m, 2), slope of the tone curve in the darker and the brighter half.
        contrast: float32 (m,), standard deviation of the first image in the overlap, in grey levels.
        residual: float32 (m,), 90th percentile of the cells' root mean square difference divided by `contrast`.
        colour: float32 (m,), median difference of the chroma among the cells, in grey levels; 0 if one image is grey.
    """

    correlation: np.ndarray
    overlap: np.ndarray
    cover: np.ndarray
    textured: np.ndarray
    matched: np.ndarray
    detail: np.ndarray
    ncc: np.ndarray
    detailed: np.ndarray
    differs: np.ndarray
    inside: np.ndarray
    difference: np.ndarray
    gain: np.ndarray
    contrast: np.ndarray
    residual: np.ndarray
    colour: np.ndarray


def identity(m: int) -> np.ndarray:
    """Return m identity placements, float32 (m, 2, 3)."""
    return np.tile(np.eye(2, 3, dtype=np.float32), (m, 1, 1))


def align(first: np.ndarray, second: np.ndarray, place: np.ndarray, steps: int, keep: np.ndarray | None = None) -> np.ndarray:
    """Estimate the affine transforms that align `second` with `first`, by robust Gauss–Newton steps with a free tone curve.

    Pixels that differ much, such as those of a caption, get a small weight.

    Args:
        first, second: float32 (m, s, s).
        place: float32 (m, 2, 3), initial transforms: coordinates (x, y, 1) of the first image, -1 to 1, to those of the second.
        steps: Number of Gauss–Newton steps.
        keep: float32 (m, s, s), weights of the pixels, 0 for those to ignore; None for all 1.

    Returns:
        float32 (m, 2, 3), the refined transforms.

    Source: Lucas and Kanade 1981, with the affine transform and the weights of Baker and Matthews 2004.
    """
    m, s, _ = first.shape
    flat = first.reshape(m, 1, -1)
    x, y = (np.broadcast_to(v, (s, s)).ravel() for v in (_grid(s)[None, :], _grid(s)[:, None]))
    coordinates = np.stack([x, y, np.ones_like(x)])  # (3, s·s)
    damping = np.array([*[1e-3] * 6, 1e-3, 1e-3, 1e-5], np.float32) * s * s
    weight: np.ndarray | None = None
    for _ in range(steps):
        moved, mask = warp(second, place)
        if keep is not None:
            mask = mask * keep
        if weight is None:
            weight = _first_weight(flat, moved.reshape(m, 1, -1), mask.reshape(m, 1, -1))
        down, across = (d.reshape(m, 1, -1) * (s / 2) for d in np.gradient(moved, axis=(1, 2)))
        values = moved.reshape(m, 1, -1) / 128 - 1
        tone = np.concatenate([values, values**2, np.ones_like(values)], axis=1)
        jacobian = np.concatenate([across * coordinates, down * coordinates, 64 * tone], axis=1)  # (m, 9, s·s)
        weighted = jacobian * (mask.reshape(m, 1, -1) * weight)
        normal = weighted @ jacobian.transpose(0, 2, 1)
        normal[:, range(9), range(9)] += damping
        solution = np.linalg.solve(normal, weighted @ flat.transpose(0, 2, 1))[..., 0]
        residual = flat - solution[:, None, 6:] @ jacobian[:, 6:]
        scale = 1.5 * np.median(np.abs(residual), axis=2, keepdims=True) + _NOISE
        weight = 1 / (1 + (residual / scale) ** 2)
        slope = solution[:, 6:7] / 2  # of the tone curve at its middle
        slope = np.where(np.abs(slope) < 0.25, 0.25, slope)
        step = np.clip(solution[:, :6] / slope, -0.08, 0.08).reshape(m, 2, 3).astype(np.float32)
        place = np.clip(place + step, -_FAR, _FAR)
    return place


def _first_weight(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return small weights for pixels whose standardised grey levels differ much, (m, 1, s·s)."""
    scaled = []
    for values in (first, second):
        centre = np.median(values, axis=2, keepdims=True)
        scaled.append((values - centre) / (np.median(np.abs(values - centre), axis=2, keepdims=True) + _NOISE))
    difference = np.abs(scaled[0] - scaled[1]) * mask
    return np.asarray(1 / (1 + (difference / (1.5 * np.median(difference, axis=2, keepdims=True) + 0.2)) ** 2))


def warp(images: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample images bilinearly by affine transforms, and return them with a mask of valid pixels.

    Args:
        images: float32 (m, s, s) or (m, s, s, c).
        place: float32 (m, 2, 3), transforms as in `align`.

    Returns:
        Resampled images of the same shape; and mask, float32 (m, s, s), 1 inside the source image and 0 outside.
    """
    m, s = images.shape[:2]
    grid = _grid(s)
    x = place[:, 0, 0, None, None] * grid[None, None, :] + place[:, 0, 1, None, None] * grid[None, :, None]
    y = place[:, 1, 0, None, None] * grid[None, None, :] + place[:, 1, 1, None, None] * grid[None, :, None]
    x, y = ((v + place[:, i, 2, None, None] + 1) * (s / 2) - 0.5 for i, v in enumerate((x, y)))
    inside = (x >= -0.5) & (x <= s - 0.5) & (y >= -0.5) & (y <= s - 0.5)
    x, y = np.clip(x, 0, s - 1), np.clip(y, 0, s - 1)
    left, top = (np.minimum(v.astype(np.int32), s - 2) for v in (x, y))
    dx, dy = x - left.astype(np.float32), y - top.astype(np.float32)
    start = (np.arange(m, dtype=np.int32) * (s * s))[:, None, None] + top * s + left
    flat = images.reshape(m * s * s, *images.shape[3:])
    if images.ndim == 4:
        dx, dy = dx[..., None], dy[..., None]
    upper = flat[start] * (1 - dx) + flat[start + 1] * dx
    lower = flat[start + s] * (1 - dx) + flat[start + s + 1] * dx
    return upper + dy * (lower - upper), inside.astype(np.float32)


def compare(luma: tuple[np.ndarray, np.ndarray], colour: tuple[np.ndarray, np.ndarray], place: np.ndarray) -> Likeness:
    """Compare aligned images cell by cell.

    Args:
        luma: Two arrays, float32 (m, s, s), s a multiple of 8.
        colour: Two arrays, float32 (m, t, t, 3), t a multiple of 8.
        place: float32 (m, 2, 3), transforms from `align`.
    """
    first, second = luma
    moved, mask = warp(second, place)
    curve, tone = _tone_curve(first, moved, mask)
    toned = tone(moved)
    difference = (first - toned) * mask * ~_clipped(first, moved)
    filled = np.maximum(_cell_means(mask), 1e-6)
    inside = filled > 0.75
    rms = np.sqrt(_cell_means(blur(difference, 1) ** 2) / filled)
    ncc, sd, sd_toned = _cell_correlations(blur(first, 1), blur(toned, 1), mask)
    detailed = inside & (np.maximum(sd, sd_toned) > _TEXTURE_SD)
    agrees = (ncc > 0.8) | (rms < _NOISE)
    textured = detailed.sum(axis=(1, 2))
    matched = (detailed & agrees).sum(axis=(1, 2)) / np.maximum(textured, 1)
    contrast = np.maximum(_masked_sd(first, mask), 1e-3)
    detail = np.array([np.median(n[d]) if d.any() else 0.0 for n, d in zip(ncc, detailed, strict=True)], np.float32)
    high = np.array([np.quantile(r[i], 0.9) if i.any() else 255.0 for r, i in zip(rms, inside, strict=True)], np.float32)
    same = (ncc > 0.9) | ((ncc > 0.6) & (rms < 0.5 * contrast[:, None, None]))
    differs = inside & ~same & (rms > 2 * _NOISE)
    area = np.abs(np.linalg.det(place[:, :, :2]))
    overlap = mask.mean(axis=(1, 2))
    return Likeness(
        correlation=_correlation(first, toned, mask),
        overlap=overlap,
        cover=np.minimum(area * overlap, 1).astype(np.float32),
        textured=textured,
        matched=matched.astype(np.float32),
        detail=detail,
        ncc=ncc,
        detailed=detailed,
        differs=differs,
        inside=inside,
        difference=difference,
        gain=np.stack([curve[:, 0] - curve[:, 1], curve[:, 0] + curve[:, 1]], axis=1) / 2,
        contrast=contrast,
        residual=high / contrast,
        colour=_colour_difference(colour, place, curve),
    )


def matching_cells(first: np.ndarray, second: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the share of cells with detail, of an 8×8 grid, in which aligned images correlate, float32 (m,).

    Args:
        first, second: float32 (m, s, s), s a multiple of 8.
        place: float32 (m, 2, 3), transforms from `align`.
    """
    moved, mask = warp(second, place)
    ncc, sd, other_sd = _cell_correlations(first, moved, mask)
    detailed = (_cell_means(mask) > 0.75) & (np.maximum(sd, other_sd) > _TEXTURE_SD)
    return np.asarray((detailed & (ncc > 0.8)).sum(axis=(1, 2)) / np.maximum(detailed.sum(axis=(1, 2)), 1), dtype=np.float32)


def _tone_curve(
    first: np.ndarray, moved: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Fit grey levels of the first image as a quadratic function of those of the second, robustly.

    Returns:
        Coefficients, float32 (m, 3), of v = level / 128 - 1, v² and 1 in units of 64 levels; and the function with them.
    """
    m = len(first)
    flat, weight = first.reshape(m, -1, 1), mask.reshape(m, 1, -1)

    def basis(levels: np.ndarray) -> np.ndarray:
        v = levels.reshape(len(levels), 1, -1) / 128 - 1
        return 64 * np.concatenate([v, v**2, np.ones_like(v)], axis=1)

    terms = basis(moved)
    robust = weight * _first_weight(flat.transpose(0, 2, 1), moved.reshape(m, 1, -1), weight)
    for _ in range(4):
        weighted = terms * robust
        normal = weighted @ terms.transpose(0, 2, 1)
        normal[:, range(3), range(3)] += np.array([1e-2, 1e1, 1e-2], np.float32) * flat.shape[1]
        curve = np.linalg.solve(normal, weighted @ flat)[..., 0]
        residual = flat.transpose(0, 2, 1) - curve[:, None] @ terms
        scale = 1.5 * np.median(np.abs(residual), axis=2, keepdims=True) + _NOISE
        robust = weight / (1 + (residual / scale) ** 2)

    def tone(levels: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip((curve[:, None] @ basis(levels)).reshape(levels.shape), -20, 275))

    return curve, tone


def _clipped(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the pixels whose detail an editor may have clipped: white or black in one image, bright or dark in the other."""
    pairs = ((first, second), (second, first))
    return np.asarray(np.any([((a >= 250) & (b >= 190)) | ((a <= 5) & (b <= 60)) for a, b in pairs], axis=0))


def _colour_difference(colour: tuple[np.ndarray, np.ndarray], place: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Return the median chroma difference of the cells after the tone curve's gain, float32 (m,); 0 if one image is grey."""
    first, second = colour
    moved, mask = warp(second, place)
    grey, other = (x @ np.array([0.299, 0.587, 0.114], np.float32) for x in (first, moved))
    slope = np.clip((curve[:, 0, None, None] + 2 * curve[:, 1, None, None] * (other / 128 - 1)) / 2, 0.2, 4)
    one = first[..., (0, 2)] - grey[..., None]
    two = (moved[..., (0, 2)] - other[..., None]) * slope[..., None]
    out = np.zeros(len(first), np.float32)
    for i, good in enumerate(mask > 0):
        a, b = one[i][good], two[i][good]
        if not len(a) or min(float(np.sqrt((c**2).sum(axis=1)).mean()) for c in (a, b)) < _COLOUR_LEVELS:
            continue
        saturation = np.clip((a * b).sum() / max(float((b * b).sum()), 1e-3), 0.4, 2.5)  # an editor may have changed it
        out[i] = np.median(np.abs(a - saturation * b).max(axis=1))
    return out


def _cell_correlations(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return correlation and both standard deviations within each cell, float32 (m, 8, 8)."""
    filled = np.maximum(_cell_means(mask), 1e-6)
    mean, mean2 = (_cell_means(x * mask) / filled for x in (first, second))
    squares, squares2, products = (_cell_means(x * mask) / filled for x in (first**2, second**2, first * second))
    sd, sd2 = (np.sqrt(np.maximum(q - a**2, 0)) for q, a in ((squares, mean), (squares2, mean2)))
    return (products - mean * mean2) / np.maximum(sd * sd2, 0.25), sd, sd2


def _correlation(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the correlation of m pairs over the pixels with mask 1, float32 (m,)."""
    weight = mask / np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    a, b = (x - (x * weight).sum(axis=(1, 2), keepdims=True) for x in (first, second))
    product = (a * b * weight).sum(axis=(1, 2))
    return np.asarray(
        product / np.maximum(np.sqrt((a * a * weight).sum(axis=(1, 2)) * (b * b * weight).sum(axis=(1, 2))), 1e-3)
    )


def _masked_sd(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the standard deviation over the pixels with mask 1, float32 (m,)."""
    weight = mask / np.maximum(mask.sum(axis=(1, 2), keepdims=True), 1)
    mean = (images * weight).sum(axis=(1, 2), keepdims=True)
    return np.asarray(np.sqrt(((images - mean) ** 2 * weight).sum(axis=(1, 2))))


def _cell_means(images: np.ndarray) -> np.ndarray:
    """Return the means of the cells of an 8×8 grid, (m, 8, 8)."""
    m, s, _ = images.shape
    return np.asarray(images.reshape(m, CELLS, s // CELLS, CELLS, s // CELLS).mean(axis=(2, 4)))


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
