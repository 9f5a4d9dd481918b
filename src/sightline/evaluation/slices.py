"""Slices of a labelled set, by brightness, size or any column, and those in which a classifier is worse than elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.evaluation.intervals import wilson
from sightline.evaluation.paired import SIGNIFICANT, holm

LEAST = 10
"""A slice with fewer images is not looked at."""
QUARTERS = 4
FEW_VALUES = 8
"""A column of numbers with no more distinct values than this is a column of names, such as years or ratings."""


def slices(right: np.ndarray, columns: Mapping[str, Sequence[Any]], *, least: int = LEAST) -> list[dict[str, Any]]:
    """Every slice's accuracy against that of all other images, worst evidence first.

    A column of numbers is cut at its quartiles, any other by its values. The test is Fisher's exact one, one-sided: with so
    many mistakes in all, how likely are at least as many in this slice by chance? All slices of all columns are corrected
    together (Holm): with no slice worse than the others, the chance of calling even one so is at most 5 %.

    Args:
        right: bool (n,), whether each image was answered rightly.
        columns: Name → n values; None and NaN are no value, and in no slice.
        least: Slices with fewer images, inside or outside, are left out.

    Returns:
        One {"slice", "column", "value", "low", "high", "n", "wrong", "accuracy", "accuracy_low", "accuracy_high", "rest_n",
        "rest_accuracy", "p", "p_corrected", "worse"} for each: `value` of a slice by value, `low` and `high` (both
        included) of one by quartile; the others are None.

    Source: Fisher 1935, "The logic of inductive inference"; Holm 1979.
    """
    right = np.asarray(right, dtype=bool)
    found: list[dict[str, Any]] = []
    for name, values in columns.items():
        for described, inside in _cut(name, values, least):
            if least <= inside.sum() <= len(right) - least:
                found.append({**described, **_against_rest(right, inside)})
    corrected = holm([row["p"] for row in found])
    rows = [{**row, "p_corrected": p, "worse": p < SIGNIFICANT} for row, p in zip(found, corrected, strict=True)]
    return sorted(rows, key=lambda row: (row["p"], row["slice"]))


def _against_rest(right: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    """A slice's accuracy, that of the other images, and how likely so many mistakes are by chance."""
    from scipy import stats  # here, so that reports stay quick

    n, wrong, total = int(inside.sum()), int((~right & inside).sum()), int((~right).sum())
    low, high = wilson(n - wrong, n)
    rest = len(right) - n
    return {
        "n": n,
        "wrong": wrong,
        "accuracy": (n - wrong) / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "rest_n": rest,
        "rest_accuracy": 1 - (total - wrong) / rest,
        "p": float(min(1.0, stats.hypergeom.sf(wrong - 1, len(right), total, n))),
    }


def _cut(name: str, values: Sequence[Any], least: int) -> list[tuple[dict[str, Any], np.ndarray]]:
    """The slices of one column: what each is, and bool (n,) which images are in it."""
    numbers = _numbers(values)
    if numbers is not None:
        return _quarters(name, numbers)
    counts = Counter(str(v) for v in values if not _empty(v))
    kept = sorted(v for v, n in counts.items() if n >= least)
    texts = np.array(["" if _empty(v) else str(v) for v in values], dtype=object)
    return [({"slice": f"{name} {v}", "column": name, "value": v, "low": None, "high": None}, texts == v) for v in kept]


def _quarters(name: str, numbers: np.ndarray) -> list[tuple[dict[str, Any], np.ndarray]]:
    """A column of numbers in four parts of about equal size; equal numbers stay together."""
    known = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[known], np.arange(1, QUARTERS) / QUARTERS))
    part = np.where(known, np.searchsorted(edges, numbers, "left"), -1)
    rows = []
    for number in range(len(edges) + 1):
        inside = part == number
        if inside.any():
            low, high = float(numbers[inside].min()), float(numbers[inside].max())
            told = f"{name} {low:.4g}" if low == high else f"{name} {low:.4g} to {high:.4g}"
            rows.append(({"slice": told, "column": name, "value": None, "low": low, "high": high}, inside))
    return rows


def _numbers(values: Sequence[Any]) -> np.ndarray | None:
    """A column as float64 (n,), NaN where there is no value; None where it is not one of many different numbers."""
    found = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if _empty(value):
            continue
        try:
            found[i] = float(value)
        except (TypeError, ValueError):
            return None
        if isinstance(value, bool) or not math.isfinite(found[i]):
            return None
    return found if len(np.unique(found[np.isfinite(found)])) > FEW_VALUES else None


def _empty(value: Any) -> bool:
    """Whether a cell holds nothing."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
