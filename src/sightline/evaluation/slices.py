"""Slices of a labelled set, by brightness, size or any column, and those in which a classifier is worse than elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline.evaluation.clusters import cautious
from sightline.evaluation.intervals import wilson
from sightline.evaluation.paired import SIGNIFICANT, holm

LEAST = 10
"""A slice with fewer images is not looked at."""
QUARTERS = 4
FEW_VALUES = 8
"""A column of numbers with no more distinct values than this is a column of names, such as years or ratings."""
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
"""What stands for no value in a table, in any case: pandas' words for it."""


def slices(
    right: np.ndarray, columns: Mapping[str, Sequence[Any]], groups: np.ndarray | None = None, *, least: int = LEAST
) -> list[dict[str, Any]]:
    """Every slice's accuracy against that of all other images, worst evidence first.

    A column of numbers is cut at its quartiles, any other by its values. The test is Fisher's exact one, one-sided: with so
    many mistakes in all, how likely are at least as many in this slice by chance? All slices of all columns are corrected
    together (Holm): with no slice worse than the others, the chance of calling even one so is at most 5 %.

    Images that belong together are often right or wrong together, and tell less than as many images of their own. Their
    numbers are divided by the design effect before the test (Rao and Scott): 1 + rho ((sum over groups of D²) / (sum over
    images of d²) - 1), where rho is the correlation of two mistakes in one group, d is 1 or 0 for inside or not less its
    mean, and D is the sum of d over a group (Moulton). It is the size of the groups where all of a group is right or wrong,
    and in or out; it is 1, so that Fisher's test is exact, where each image is on its own.

    Measured over 100 to 250 sets each, for mistakes of 5 and 15 % and rho of 0, 0.2, 0.5 and 1. Without any difference, by a
    column of three values that is one for a group and by quartiles that are not, chance is called worse in 0 to 4 % of sets
    (60 groups of 8), in 0 to 3 % (20 of 10) and in 1 to 5 % (300 pairs); image by image it would be up to 59, 66 and 10 %. A
    third of the groups with 30 points more mistakes is found in 99 to 100 % of sets for rho 0.2, in 83 to 95 % for 0.5 and in
    52 to 67 % for 1 (60 of 8); in 42, 18 to 19 and 11 to 14 % (20 of 10).

    Args:
        right: bool (n,), whether each image was answered rightly.
        columns: Name → n values; None, NaN and the words for it (`MISSING`, in any case) are no value, and in no slice.
        groups: int (n,), equal for images that belong together; None where each is on its own.
        least: Slices with fewer images, inside or outside, are left out.

    Returns:
        One {"slice", "column", "value", "low", "high", "n", "wrong", "accuracy", "accuracy_low", "accuracy_high", "rest_n",
        "rest_accuracy", "p", "p_corrected", "worse"} for each: `value` of a slice by value, `low` and `high` (both
        included) of one by quartile; the others are None.

    Source: Fisher 1935, "The logic of inductive inference"; Holm 1979; Moulton 1986, "Random group effects and the precision
    of regression estimates"; Rao and Scott 1992, "A simple method for the analysis of clustered binary data".
    """
    right = np.asarray(right, dtype=bool)
    unit = np.arange(len(right)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    rho = 0.0 if right.all() or not right.any() else cautious(~right, unit)
    found: list[dict[str, Any]] = []
    for name, values in columns.items():
        for described, inside in _cut(name, values, least):
            if least <= inside.sum() <= len(right) - least:
                found.append({**described, **_against_rest(right, inside, unit, rho)})
    corrected = holm([row["p"] for row in found])
    rows = [{**row, "p_corrected": p, "worse": p < SIGNIFICANT} for row, p in zip(found, corrected, strict=True)]
    return sorted(rows, key=lambda row: (row["p"], row["slice"]))


def _against_rest(right: np.ndarray, inside: np.ndarray, unit: np.ndarray, rho: float) -> dict[str, Any]:
    """A slice's accuracy, that of the other images, and how likely so many mistakes are by chance."""
    n, wrong, total = int(inside.sum()), int((~right & inside).sum()), int((~right).sum())
    own = np.bincount(unit[inside]).astype(np.float64)
    alone = 1 + rho * (float((own**2).sum()) / n - 1)  # the design effect of the slice's own accuracy
    low, high = wilson((n - wrong) / alone, n / alone)
    rest = len(right) - n
    apart = inside - inside.mean()
    shared = float((np.bincount(unit, apart) ** 2).sum() / (apart**2).sum())
    return {
        "n": n,
        "wrong": wrong,
        "accuracy": (n - wrong) / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "rest_n": rest,
        "rest_accuracy": 1 - (total - wrong) / rest,
        "p": _fisher(wrong, n, total - wrong, rest, max(1.0, 1 + rho * (shared - 1))),
    }


def _fisher(wrong: int, n: int, rest_wrong: int, rest: int, effect: float) -> float:
    """Fisher's exact p, one-sided, of counts divided by a design effect: margins are rounded, the tail is read between.

    Example:
        >>> round(_fisher(3, 4, 1, 4, 1.0), 4), round(_fisher(24, 32, 8, 32, 8.0), 4)
        (0.2429, 0.2429)
    """
    from scipy import stats  # here, so that reports stay quick

    inside, others = max(1, round(n / effect)), max(1, round(rest / effect))
    mistakes = min(inside + others, round((wrong + rest_wrong) / effect))
    whole, part = divmod(round(wrong / effect, 9), 1.0)
    at_least, more = stats.hypergeom.sf([whole - 1, whole], inside + others, mistakes, inside)
    return float(min(1.0, (1 - part) * at_least + part * more))


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
    """Whether a cell holds nothing, or a word for it."""
    return value is None or str(value).strip().casefold() in MISSING
