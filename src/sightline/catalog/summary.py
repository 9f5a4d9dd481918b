"""Catalog summary: counts, sizes and problems for the `data` block of a run."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from sightline.catalog.near_duplicates import NOT_LOOKED_FOR, Duplicates
from sightline.records import SPLITS, Catalog

_MOST_LISTED = 200
SIDES_PX = (32, 64, 96, 128, 160, 224, 299)
_EDGES_PX = (1, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 299, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 65536)


def summarise(catalog: Catalog, duplicates: Duplicates | None = None) -> dict[str, Any]:
    """Return counts and sizes as JSON types: images, problems, classes by split, widths, heights, formats, duplicates.

    `enlarged` is the fraction of usable images whose shorter side is below each size, which would be enlarged to it.
    """
    names = ("path", "label", "split", "problem", "width", "height", "format", "mode")
    columns = {n: catalog.column(n) for n in names}
    problems = [(p, why) for p, why in zip(columns["path"], columns["problem"], strict=True) if why is not None]
    good = [i for i, why in enumerate(columns["problem"]) if why is None]
    per_class: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for i in good:
        if columns["label"][i] is not None:
            counts = per_class[columns["label"][i]]
            part = columns["split"][i] or "unsplit"
            counts[part] = counts.get(part, 0) + 1
    width, height = (np.array([columns[n][i] or 0 for i in good], dtype=np.int64) for n in ("width", "height"))
    short = np.minimum(width, height)
    counts_px, _ = np.histogram(short, bins=np.array([*_EDGES_PX, 1 << 31]))
    kinds = Counter(why.partition(":")[0].strip() for _, why in problems)
    return {
        "images": len(catalog),
        "usable": len(good),
        "problems": dict(sorted(kinds.items())),
        "problem_files": [{"path": p, "problem": why} for p, why in problems[:_MOST_LISTED]],
        "notes": list(catalog.notes),
        "per_class": {label: per_class[label] for label in sorted(per_class)},
        "width": _range(width),
        "height": _range(height),
        # the bin beyond the last edge is merged into the last bin
        "size_histogram": {"edges_px": list(_EDGES_PX), "counts": [*counts_px[:-2].tolist(), int(counts_px[-2:].sum())]},
        "enlarged": {str(side): float((short < side).mean()) if len(short) else 0.0 for side in SIDES_PX},
        "formats": _counted(columns["format"], good),
        "modes": _counted(columns["mode"], good),
        "duplicates": _duplicates(duplicates),
    }


def sides(catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """Return the shorter and the longer side of the usable images whose size is known, int64 (n,) in pixels."""
    usable = catalog.usable()
    width, height = (np.array([v or 0 for v in usable.column(n)], np.int64) for n in ("width", "height"))
    known = (width > 0) & (height > 0)
    return np.minimum(width, height)[known], np.maximum(width, height)[known]


def _range(values: np.ndarray) -> dict[str, float] | None:
    """Return minimum, median and maximum; None without values."""
    if not len(values):
        return None
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _counted(values: list[str | None], rows: list[int]) -> dict[str, int]:
    """Return the number of occurrences of each value, most frequent first."""
    return dict(Counter(str(values[i]) for i in rows if values[i] is not None).most_common())


def _duplicates(duplicates: Duplicates | None) -> dict[str, Any] | None:
    """Return all duplicate sets, their numbers, the largest set, and the sets with different labels."""
    if duplicates is None:
        return None
    largest = max([*duplicates.exact, *duplicates.near], key=len, default=[])
    kinds = (
        ("exact", duplicates.exact),
        ("near", duplicates.near),
        ("same_scene", [*duplicates.same_scene, *duplicates.crowded_scenes]),
    )
    return {
        "exact": len(duplicates.exact),
        "near": len(duplicates.near),
        "same_scene": len(duplicates.same_scene),
        "sets": [{"kind": kind, "paths": paths} for kind, sets in kinds for paths in sets],
        "not_looked_for": NOT_LOOKED_FOR,
        "largest": largest[:_MOST_LISTED],
        "conflicts": [paths[:_MOST_LISTED] for paths in duplicates.conflicts[:_MOST_LISTED]],
    }
