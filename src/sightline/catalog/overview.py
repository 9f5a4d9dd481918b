"""Overview of a catalog: classes, formats, sides and shapes, the size to work at, and what a centre crop cuts off."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.catalog.summary import SIDES_PX, sides
from sightline.records import Catalog

_FEW_ENLARGED = 0.1  # share of images that may be enlarged without loss worth naming
_SQUARE = 1.1  # ratio of the sides up to which an image counts as square
_CUT = 1 / 3  # share of the area whose loss matters
_MANY_CUT = 0.1


@dataclass(frozen=True, slots=True)
class Overview:
    """Overview of a set of images: formats, sizes and shapes.

    Args:
        classes: Usable images by class.
        formats: Usable images by file format, the most frequent first.
        modes: Usable images by colour mode, the most frequent first.
        shorter_px, longer_px: Smallest, median and largest side; None without images.
        shapes: Usable images by `wide`, `tall` and `square`.
        enlarged: Side in pixels → share of images whose shorter side is smaller.
        work_size_px: Largest of these sides for which at most 10 % of the images are enlarged; None if there is none.
        cropped: Share of images that lose a third or more of their area to a square centre crop.
    """

    classes: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    shorter_px: dict[str, float] | None
    longer_px: dict[str, float] | None
    shapes: dict[str, int]
    enlarged: dict[int, float]
    work_size_px: int | None
    cropped: float


def work_sizes(catalog: Catalog) -> dict[int, float]:
    """Return, for each usual input side of 32 to 299 px, the share of usable images that would be enlarged to it."""
    shorter = sides(catalog)[0]
    return {side: float((shorter < side).mean()) if len(shorter) else 0.0 for side in SIDES_PX}


def overview(catalog: Catalog) -> Overview:
    """Return what one wants to know first about the usable images of a catalog."""
    usable = catalog.usable()
    width, height = (np.array([v or 0 for v in usable.column(n)], np.int64) for n in ("width", "height"))
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    known = shorter > 0
    ratio = longer[known] / shorter[known]
    wide = width[known] > height[known]
    shapes = {
        "wide": int((wide & (ratio > _SQUARE)).sum()),
        "tall": int((~wide & (ratio > _SQUARE)).sum()),
        "square": int((ratio <= _SQUARE).sum()),
    }
    enlarged = work_sizes(catalog)
    fitting = [side for side, share in enlarged.items() if share <= _FEW_ENLARGED]
    return Overview(
        classes=dict(sorted(Counter(v for v in usable.column("label") if v is not None).items())),
        formats=_counted(usable.column("format")),
        modes=_counted(usable.column("mode")),
        shorter_px=_range(shorter[known]),
        longer_px=_range(longer[known]),
        shapes=shapes,
        enlarged=enlarged,
        work_size_px=max(fitting) if fitting and known.any() else None,
        cropped=float((1 - 1 / ratio >= _CUT).mean()) if known.any() else 0.0,
    )


def lines(found: Overview) -> list[str]:
    """Return an overview in words, one subject per line."""
    out = []
    if found.formats:
        out.append(f"formats: {_listed(found.formats)}; modes: {_listed(found.modes)}")
    if found.shorter_px is not None and found.longer_px is not None:
        texts = [
            f"{name} side {s['min']:,.0f} to {s['max']:,.0f} px, median {s['median']:,.0f}"
            for name, s in (("shorter", found.shorter_px), ("longer", found.longer_px))
        ]
        out.append("; ".join(texts) + f"; shapes: {_listed({k: v for k, v in found.shapes.items() if v})}")
        shares = ", ".join(f"{side} px {share:.0%}" for side, share in found.enlarged.items())
        advice = f"work at {found.work_size_px} px or less; " if found.work_size_px is not None else ""
        out.append(f"size: {advice}images that would be enlarged: {shares}")
    if found.cropped >= _MANY_CUT:
        out.append(
            f"the centre crop cuts off a third or more of {found.cropped:.0%} of the images, which are wide or tall: "
            "use --fit pad to show whole images to the network"
        )
    return out


def _listed(counts: dict[str, int]) -> str:
    """Return counts as text."""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


def _range(values: np.ndarray) -> dict[str, float] | None:
    """Return minimum, median and maximum; None without values."""
    if not len(values):
        return None
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def _counted(values: list[Any]) -> dict[str, int]:
    """Return the number of occurrences of each value, the most frequent first."""
    return dict(Counter(str(v) for v in values if v is not None).most_common())
