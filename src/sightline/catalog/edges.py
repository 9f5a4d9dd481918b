"""Edge statistics: how the margins of an image differ from its middle, by which captions, logos and borders are noticed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sightline.catalog import looks
from sightline.records import Progress, silent
from sightline.store import Cache

_SHARE = 8
"""An edge is this part of a side wide: the outer eighth."""
_KINDS = ("detail", "lines", "level", "darkest", "brightest", "flatness")
NAMES = {
    "detail": "detail",
    "lines": "direction of lines",
    "level": "brightness",
    "darkest": "darkest pixels",
    "brightest": "brightest pixels",
    "flatness": "flat areas",
}
_BLOCK = 1_024


def edges_of(
    files: Sequence[Path], contents: Sequence[str], cache: Cache, progress: Progress = silent
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the `looks.STATISTICS` and the `edge_statistics` of files, each float64 (n,), from the decode that both share.

    The `edge_statistics` are also measured at the edges of the middle of each image, half as wide and high, where captions
    and borders do not reach: there, only the content can separate classes.

    Args:
        files: n files.
        contents: n content hashes, not necessarily different; "" if unknown.
        cache: Cache of thumbnails and statistics.
        progress: Progress callback.

    Returns:
        Three dicts by name, the last one of the middle; NaN for images that cannot be decoded.
    """
    keys = [content or f"{looks.UNKNOWN}{i}" for i, content in enumerate(contents)]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    found = looks.looks([files[i] for i in first.values()], list(first), cache, progress)
    place = {key: j for j, key in enumerate(first)}
    rows = np.array([place[key] for key in keys], dtype=np.int64)
    numbers = {name: found.statistics[rows, j].astype(np.float64) for j, name in enumerate(looks.STATISTICS)}
    missing = np.isnan(numbers["brightness"])
    quarter = found.luma.shape[1] // 4
    edges, middle = (
        {name: np.where(missing, np.nan, values[rows]) for name, values in edge_statistics(luma).items()}
        for luma in (found.luma, found.luma[:, quarter:-quarter, quarter:-quarter])
    )
    return numbers, edges, middle


def edge_statistics(luma: np.ndarray) -> dict[str, np.ndarray]:
    """Return statistics of the edges and corners of images by name, each float64 (n,).

    For each edge and each half of the top and bottom edge: detail (gradient relative to the rest), direction of lines,
    brightness relative to the rest, darkest and brightest pixels, and flat areas.

    Args:
        luma: uint8 (n, s, s), grey levels of the whole image as a square.
    """
    side = luma.shape[1]
    boxes = dict(_boxes(side))
    values: dict[str, list[np.ndarray]] = {f"{NAMES[kind]} at the {edge}": [] for edge in boxes for kind in _KINDS}
    for start in range(0, len(luma), _BLOCK):
        block = luma[start : start + _BLOCK].astype(np.float32)
        across, down = np.abs(np.diff(block, axis=2))[:, :-1], np.abs(np.diff(block, axis=1))[:, :, :-1]
        for edge, inside in boxes.items():
            for kind, each in _of_edge(block, across, down, inside).items():
                values[f"{NAMES[kind]} at the {edge}"].append(each.astype(np.float64))
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in values.items()}


def _boxes(side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, pixels inside, bool (s, s))."""
    width, half = side // _SHARE, side // 2
    rows = {"top": slice(0, width), "bottom": slice(side - width, side)}
    columns = {"left": slice(0, half), "right": slice(half, side)}
    whole = slice(0, side)
    places = {f"{name} edge": (rows[name], whole) for name in rows}
    places |= {"left edge": (whole, slice(0, width)), "right edge": (whole, slice(side - width, side))}
    places |= {f"{r} {c}": (rows[r], columns[c]) for r in rows for c in columns}
    for name, place in places.items():
        inside = np.zeros((side, side), bool)
        inside[place] = True
        yield name, inside


def _of_edge(block: np.ndarray, across: np.ndarray, down: np.ndarray, inside: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of one edge of a block of images."""
    near = inside[:-1, :-1]
    here_across, here_down = across[:, near], down[:, near]
    steps = here_across + here_down
    rest = across[:, ~near].mean(axis=1) + down[:, ~near].mean(axis=1)
    levels = block[:, inside]
    return {
        "detail": np.log((steps.mean(axis=1) + 0.5) / (rest + 0.5)),
        "lines": np.log((here_across.mean(axis=1) + 0.5) / (here_down.mean(axis=1) + 0.5)),
        "level": levels.mean(axis=1) - block[:, ~inside].mean(axis=1),
        "darkest": np.percentile(levels, 2, axis=1),
        "brightest": np.percentile(levels, 98, axis=1),
        "flatness": -np.sort(steps, axis=1)[:, : steps.shape[1] // 2].mean(axis=1),
    }
