"""Unusual images: blurred, dark, bright, empty, odd in size or shape, grey among colour, with a border; relative to the set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sightline.catalog.looks import PREVIEW_PX
from sightline.records import Catalog
from sightline.records.catalog_audit import Finding

_LEAST_IMAGES = 10  # a set of fewer images has no usual values
_DEVIATIONS = 4.5  # robust standard deviations from the median that make a value unusual
_FEW, _MANY = 3, 0.02  # images and share of the images; a property that more have is usual in the set
_BORDER = 0.02  # share of a side


def quality_findings(catalog: Catalog, statistics: Mapping[str, np.ndarray]) -> list[Finding]:
    """Return images with unusual sharpness, brightness, content, size, shape, colour or border, the most unusual first.

    A value is unusual if it lies beyond a fixed limit and far from the set's median, in robust standard deviations, so that a
    set of dark or small images is not reported. A property that more than 2 % of the images share is not reported.

    Args:
        catalog: n rows.
        statistics: Result of `measure` for this catalog.
    """
    problems = catalog.column("problem")
    usable = np.array([p is None for p in problems], bool) & np.isfinite(statistics["brightness"])
    if usable.sum() < _LEAST_IMAGES:
        return []
    found: list[Finding] = []
    paths = catalog.paths
    values = dict(statistics) | _shape(catalog)
    for rule in _RULES:
        value = rule.value(values)
        rows = np.flatnonzero(usable & np.isfinite(value) & rule.unusual(values, value, usable))
        if len(rows) > max(_FEW, _MANY * usable.sum()):
            continue
        order = rows[np.argsort(value[rows] * (1 if rule.low else -1), kind="stable")]
        found += [
            Finding(paths[r], rule.kind, round(float(value[r]), 4), rule.words({k: float(v[r]) for k, v in values.items()}))
            for r in order.tolist()
        ]
    return found


@dataclass(frozen=True, slots=True)
class _Rule:
    """Rule for one kind of unusual image.

    Args:
        kind: Kind of the finding.
        value: Function of the statistics, the value by which images are compared.
        unusual: Function of the statistics, the value and the usable rows, bool (n,).
        words: Function of an image's statistics, the finding in words.
        low: Whether low values are the unusual ones.
    """

    kind: str
    value: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    unusual: Callable[[Mapping[str, np.ndarray], np.ndarray, np.ndarray], np.ndarray]
    words: Callable[[Mapping[str, float]], str]
    low: bool = True


def _shape(catalog: Catalog) -> dict[str, np.ndarray]:
    """Return width, height, area and the logarithm of the aspect ratio of each row; NaN if unknown."""
    width, height = (np.array([v or np.nan for v in catalog.column(name)], np.float64) for name in ("width", "height"))
    return {"width": width, "height": height, "log_area": np.log(width * height), "log_aspect": np.log(width / height)}


def _far(value: np.ndarray, usable: np.ndarray, *, floor: float) -> np.ndarray:
    """Return the distance of each value from the median in robust standard deviations, signed, float64 (n,).

    Args:
        value: float64 (n,).
        usable: bool (n,), rows that define what is usual.
        floor: Smallest standard deviation, so that tiny differences in a uniform set are not unusual.
    """
    known = value[usable & np.isfinite(value)]
    middle = np.median(known)
    spread = max(1.4826 * float(np.median(np.abs(known - middle))), floor)
    return np.asarray((value - middle) / spread)


def _blurred(s: Mapping[str, np.ndarray], value: np.ndarray, usable: np.ndarray) -> np.ndarray:
    # A small image has no detail to lose; a plain one neither.
    measurable = np.asarray((np.fmin(s["width"], s["height"]) >= PREVIEW_PX / 4) & (s["contrast"] > 0.04))
    if not (usable & measurable).any():
        return measurable
    return np.asarray(measurable & (value < np.log(0.012)) & (_far(value, usable & measurable, floor=0.35) < -2.5))


def _enough(value: np.ndarray, usable: np.ndarray, floor: float) -> np.ndarray:
    return np.asarray(np.abs(_far(value, usable, floor=floor)) > _DEVIATIONS)


def _border(s: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the share of a side that the second widest margin takes: one plain margin may be sky, two are a border."""
    sides = np.stack([s[f"border_{name}"] for name in ("top", "bottom", "left", "right")])
    pairs = np.maximum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    return np.where((sides >= 1).any(axis=0), 0.0, pairs)


_RULES = (
    _Rule(
        "blurred",
        lambda s: np.log(np.maximum(s["sharpness"], 1e-6)),
        _blurred,
        lambda s: f"sharpness {s['sharpness']:.4f}",
    ),
    _Rule(
        "dark",
        lambda s: s["highlights"],
        lambda s, v, usable: (v < 0.35) & (_far(v, usable, floor=0.05) < -3),
        lambda s: f"99 % of the pixels are darker than {s['highlights']:.0%} of white",
    ),
    _Rule(
        "bright",
        lambda s: s["shadows"],
        lambda s, v, usable: (v > 0.6) & (_far(v, usable, floor=0.05) > 3) & (s["brightness"] > 0.8),
        lambda s: f"95 % of the pixels are brighter than {s['shadows']:.0%} of white",
        low=False,
    ),
    _Rule(
        "low_information",
        lambda s: s["entropy"],
        lambda s, v, usable: (v < 3) & (_far(v, usable, floor=0.3) < -_DEVIATIONS),
        lambda s: f"{s['entropy']:.1f} bits of 8 in its grey levels",
    ),
    _Rule(
        "odd_size",
        lambda s: s["log_area"],
        lambda s, v, usable: np.abs(_far(v, usable, floor=0.35)) > 6,
        lambda s: f"{s['width']:.0f}×{s['height']:.0f} px",
    ),
    _Rule(
        "odd_aspect",
        lambda s: s["log_aspect"],
        lambda s, v, usable: (np.abs(v) > np.log(2.2)) & _enough(v, usable, 0.15),
        lambda s: f"{s['width']:.0f}×{s['height']:.0f} px",
    ),
    _Rule(
        "grey",
        lambda s: s["saturation"],
        lambda s, v, usable: (v < 0.04) & (np.median(v[usable]) > 0.15),
        lambda s: "grey among images in colour",
    ),
    _Rule(
        "border",
        _border,
        lambda s, v, usable: (v > _BORDER) & (s["entropy"] > 3),
        lambda s: "border of one colour at two opposite sides",
        low=False,
    ),
)
