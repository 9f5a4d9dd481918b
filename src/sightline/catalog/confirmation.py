"""Confirmation of candidate pairs in pixels: the same picture, the same scene with another object, or different images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline import activity
from sightline.catalog import alignment, windows
from sightline.catalog.alignment import Likeness
from sightline.catalog.looks import Looks
from sightline.catalog.windows import Candidates
from sightline.records import Progress, silent

DIFFERENT, SAME_IMAGE, SAME_SCENE, OVERLAY = 0, 1, 2, 3

_AT_ONCE = 32  # pairs whose thumbnails fit in a core's cache
_MIN_COARSE, _MIN_COARSE_SMALL = (
    0.45,
    0.85,
)  # share of matching cells at 32 px; copies measured 0.6 and more, other photographs 0.3 and less
_SMALL_PX = 100  # shorter side in pixels below which fewer details exist, so that a confirmation needs closer agreement
_LEAST_REST = 10  # cells with detail outside the differing region
_STILL = 0.04  # change of place in units of half the image, up to which a camera counts as fixed
_LARGEST_CHANGE = 0.45  # share of the cells that another object may cover
_STROKE_LEVELS, _STROKE_PX = 6.0, 2.9
"""Strokes of letters at 64 px: least difference in grey levels, and largest half width; another object measured 3 and more."""
_RING = np.pad(np.zeros((6, 6), bool), 1, constant_values=True)
_LEAST_OVERLAP = 0.3  # of the larger image
_COLOUR_LEVELS = 14.0


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Verdicts on m pairs.

    Args:
        pairs: int64 (m, 2).
        verdict: int64 (m,), `SAME_IMAGE`, `SAME_SCENE`, or `OVERLAY` for the same picture with a text or mark over one of them.
        strength: float32 (m,), larger for more similar pairs.
    """

    pairs: np.ndarray
    verdict: np.ndarray
    strength: np.ndarray


def confirm(looks: Looks, side: np.ndarray, found: Candidates, progress: Progress = silent) -> Confirmed:
    """Align candidate pairs, compare them cell by cell, and return those that show the same picture or scene.

    Args:
        looks: Thumbnails of n images.
        side: int64 (n,), shorter side of each image in pixels.
        found: Candidates from `windows`.
        progress: Progress callback.
    """

    def some(start: int) -> Confirmed:
        block = Candidates(*(getattr(found, n)[start : start + _AT_ONCE] for n in ("pairs", "similarity", "turn", "place")))
        likely, place = _coarse(looks, block, side)
        rows = np.flatnonzero(likely)
        if not len(rows):
            return Confirmed(block.pairs[:0], np.zeros(0, np.int64), np.zeros(0, np.float32))
        like, place = _fine(looks, block, rows, place[rows], side)
        verdict = judge(like, place, block.turn[rows], side[block.pairs[rows]].min(axis=1))
        good = verdict != DIFFERENT
        return Confirmed(block.pairs[rows][good], verdict[good], (like.matched + like.detail - like.residual)[good])

    done, parts = 0, [Confirmed(found.pairs[:0], np.zeros(0, np.int64), np.zeros(0, np.float32))]
    with activity.workers(min(4, os.cpu_count() or 1), "sightline-compare") as pool:
        for part in pool.map(some, range(0, len(found.pairs), _AT_ONCE)):
            parts.append(part)
            done += _AT_ONCE
            progress("confirming duplicates", min(done, len(found.pairs)), len(found.pairs))
    return joined(parts)


def joined(parts: Sequence[Confirmed]) -> Confirmed:
    """Return several results as one."""
    return Confirmed(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("pairs", "verdict", "strength")))


def _images(values: np.ndarray, block: Candidates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the turned first and the second image of some pairs, float32."""
    first = values[block.pairs[rows, 0]].astype(np.float32)
    for turn in np.unique(block.turn[rows]).tolist():
        same = block.turn[rows] == turn
        first[same] = windows.turned(first[same], turn)
    return first, values[block.pairs[rows, 1]].astype(np.float32)


def _coarse(looks: Looks, block: Candidates, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Align pairs at 16 and 32 px, from their window and from the whole image.

    Returns:
        Whether each pair is likely to show the same picture, bool (m,); and transforms, float32 (m, 2, 3).
    """
    first, second = (_halved(x) for x in _images(looks.luma, block, np.arange(len(block.pairs))))
    small = _halved(first), _halved(second)
    score, place = np.full(len(first), -1.0, np.float32), block.place.copy()
    whole = alignment.identity(len(first))
    inner = np.flatnonzero(np.abs(block.place - whole).max(axis=(1, 2)) > 0.01)
    for rows, start in ((np.arange(len(first)), block.place), (inner, whole)):
        if not len(rows):
            continue
        at = alignment.align(small[0][rows], small[1][rows], start[rows], 4)
        at = alignment.align(first[rows], second[rows], at, 3)
        matched = alignment.matching_cells(first[rows], second[rows], at)
        better = matched > score[rows]
        score[rows[better]], place[rows[better]] = matched[better], at[better]
    small = side[block.pairs].min(axis=1) < _SMALL_PX
    return score > np.where(small, _MIN_COARSE_SMALL, _MIN_COARSE), place


def _halved(images: np.ndarray) -> np.ndarray:
    """Average blocks of 2×2 pixels."""
    m, s, _ = images.shape
    return np.asarray(images.reshape(m, s // 2, 2, s // 2, 2).mean(axis=(2, 4)))


def _fine(
    looks: Looks, block: Candidates, rows: np.ndarray, place: np.ndarray, side: np.ndarray
) -> tuple[Likeness, np.ndarray]:
    """Refine the alignment of some pairs at 64 px, and compare them.

    Pairs that differ in some cells are aligned again without these, except tiny images, which must not differ in any cell.
    """
    luma, colour = _images(looks.luma, block, rows), _images(looks.colour, block, rows)
    place = alignment.align(*luma, place, 3)
    like = alignment.compare(luma, colour, place)
    tiny = side[block.pairs[rows]].min(axis=1) < windows.TINY_PX
    odd = np.flatnonzero(like.differs.any(axis=(1, 2)) & (like.matched > 0.4) & ~tiny)
    if not len(odd):
        return like, place
    block_px = luma[0].shape[1] // alignment.CELLS
    keep = np.stack([np.kron(~_dilated(cells), np.ones((block_px, block_px), np.float32)) for cells in like.differs[odd]])
    some = [tuple(x[odd] for x in pair) for pair in (luma, colour)]
    again = alignment.align(some[0][0], some[0][1], place[odd], 4, keep)
    other = alignment.compare((some[0][0], some[0][1]), (some[1][0], some[1][1]), again)
    better = other.matched >= like.matched[odd]
    for name in Likeness.__dataclass_fields__:
        getattr(like, name)[odd[better]] = getattr(other, name)[better]
    place[odd[better]] = again[better]
    return like, place


# --------------------------------------------------------------------------------------------------------------- verdicts


def judge(like: Likeness, place: np.ndarray, turn: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Decide whether aligned pairs show the same picture, the same scene, or different images, int64 (m,) of verdicts.

    Args:
        like: Comparison of m pairs.
        place: float32 (m, 2, 3), their alignment.
        turn: int64 (m,), how the first image was turned.
        side: int64 (m,), shorter side in pixels of the smaller image.
    """
    # Images with few details agree by chance: photographs of a burst on a plain wall reach a residual of 0.05.
    few = (side < _SMALL_PX) | (like.textured < 32)
    limit = np.where(few, 0.05, np.where(like.textured < 48, 0.12, 0.3))
    plausible = (np.maximum(like.overlap, like.cover) > 0.8) & (np.minimum(like.overlap, like.cover) > _LEAST_OVERLAP)
    plausible &= (like.gain > 0.25).all(axis=1) & (like.gain < 4).all(axis=1) & (like.colour < _COLOUR_LEVELS)
    changed = like.differs.sum(axis=(1, 2))
    agrees = (like.matched > 0.92) & (like.detail > 0.95) & (like.residual < limit) & (like.textured >= 6)
    verdict = np.where(plausible & agrees & (changed == 0), SAME_IMAGE, DIFFERENT)
    for i in np.flatnonzero(plausible & (verdict == DIFFERENT) & ~few).tolist():
        verdict[i] = _partly(like, i, still=bool(turn[i] == 0 and np.abs(place[i] - np.eye(2, 3)).max() < _STILL))
    return verdict


def _partly(like: Likeness, i: int, *, still: bool) -> int:
    """Return the verdict on a pair that differs in some cells: by text or marks over it, or by another object in the scene.

    Args:
        like: Comparison of m pairs.
        i: Index of the pair.
        still: Whether the images lie upon each other without being moved, as those of a fixed camera do.
    """
    differs, inside = like.differs[i], like.inside[i]
    rest = inside & ~_dilated(differs)
    if not still:  # a frame or a black corner mixes into the outer cells
        rest &= ~_RING
    if (rest & like.detailed[i]).sum() < _LEAST_REST:
        rest = inside & ~differs
    detailed = rest & like.detailed[i]
    if detailed.sum() < _LEAST_REST:
        return DIFFERENT
    agreement = float((like.ncc[i][detailed] > 0.8).mean())
    detail = float(np.median(like.ncc[i][detailed]))
    block = like.difference.shape[1] // 8
    rms = np.sqrt((like.difference[i] ** 2).reshape(8, block, 8, block).mean(axis=(1, 3)))
    residual = float(np.quantile(rms[rest], 0.9) / like.contrast[i])
    if detail > 0.975 and agreement > 0.95 and residual < 0.22 and (not differs.any() or _is_overlay(like, i, still)):
        return OVERLAY if still else SAME_IMAGE
    compact = differs.any() and differs.sum() <= _LARGEST_CHANGE * inside.sum() and _regions(differs) <= 2
    return SAME_SCENE if still and compact and detail > 0.85 and agreement > 0.85 else DIFFERENT


def _is_overlay(like: Likeness, i: int, still: bool) -> bool:
    """Return whether the differing cells look like a frame, a strip of text or thin strokes rather than like an object.

    Args:
        like: Comparison of m pairs.
        i: Index of the pair.
        still: Whether the images lie upon each other without being moved.
    """
    from scipy.ndimage import distance_transform_edt

    difference = like.difference[i]
    differs = like.differs[i] | (_dilated(like.differs[i]) & like.detailed[i] & (like.ncc[i] < 0.8))
    rows, columns = np.nonzero(differs)
    if not (differs & ~_RING).any():
        corners = set(zip(rows.tolist(), columns.tolist(), strict=True)) <= {(0, 0), (0, 7), (7, 0), (7, 7)}
        if not still or corners or differs.sum() >= 16 or (len(np.unique(rows)) == 1 and len(rows) >= 2):
            return True
    edge = (rows.max() <= 2 and rows.min() == 0) or (rows.min() >= 5 and rows.max() == 7)
    if edge and len(np.unique(columns)) >= 5:  # a strip with text at the upper or lower edge
        return True
    block = difference.shape[0] // 8
    near = np.abs(difference) * np.kron(_dilated(differs), np.ones((block, block)))
    altered = near > _STROKE_LEVELS
    if not altered.any():
        return True
    half_width = float(distance_transform_edt(altered).max())
    strong = near > max(10.0, 0.3 * float(near.max()))
    down, across = (np.ptp(v) + 1 for v in np.nonzero(strong))
    line = down <= 11 and across >= 2.3 * down and half_width <= 4.2  # px of 64
    one_sided = abs(float(difference[strong].sum())) > 0.75 * float(near[strong].sum())  # all brighter, or all darker
    return bool((half_width <= _STROKE_PX or line) and (still or one_sided))


def _dilated(cells: np.ndarray) -> np.ndarray:
    """Return cells and their neighbours, bool (8, 8)."""
    padded = np.pad(cells, 1)
    return np.asarray(np.any([padded[1 + y : 9 + y, 1 + x : 9 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0))


def _regions(cells: np.ndarray) -> int:
    """Return the number of connected regions of cells, diagonals included."""
    from scipy.ndimage import label

    return int(label(cells, np.ones((3, 3)))[1])
