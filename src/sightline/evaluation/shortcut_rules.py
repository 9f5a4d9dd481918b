"""Shortcut rules: values of file properties that only images of one class have, such as a JPEG quality or a border.

A classifier can learn such a property instead of the objects. A rule needs only a part of a class to have the value, so it
also finds what is too rare to separate the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from sightline.evaluation.curves import auc
from sightline.evaluation.intervals import auc_interval, wilson
from sightline.records.candidates import ShortcutRule

PURITY = 0.9
"""Smallest share of the images with a value that belong to one class."""
COVERAGE = 0.15
"""Smallest share of the class's images that have the value."""
EDGE_AUC = 0.9
"""Lower bound of the ROC AUC of an edge statistic that raises the alarm. Clean sets of photographs reached 0.80; a white
border or a caption on a band 0.97 to 1.0."""
EDGE_GAIN = 0.02
"""Least gain of an edge's ROC AUC over that of the same statistics in the middle of the images. Classes of centred objects on a
plain background, such as digits, are separated by parts of the object wherever one looks."""
FEWEST = 8
SIGNIFICANCE = 1e-4
"""Largest p-value, corrected for the number of values tried, of as pure a value by chance."""


PRESENT = "present"
"""Value of a property that an image has or has not."""


def shortcut_rules(
    columns: Mapping[str, Sequence[str | None]], labels: np.ndarray, classes: Sequence[str], cluster: np.ndarray | None = None
) -> list[ShortcutRule]:
    """Return the rules that hold, the most telling first; of each property and class at most one.

    Args:
        columns: Property → value of each of n images as text, None if an image has none.
        labels: int64 (n,), class indices; images with -1 are left out.
        classes: Names of the k classes.
        cluster: int64 (n,), images that are no independent evidence, such as duplicates; each cluster counts once.

    Example:
        >>> labels = np.repeat([0, 1], 60)
        >>> software = ["GIMP"] * 20 + [None] * 100
        >>> [rule.sentence for rule in shortcut_rules({"EXIF software": software}, labels, ("cat", "dog"))]
        ['EXIF software GIMP: 100% of the 20 images with it are cat (33% of that class)']
    """
    rows = np.flatnonzero(labels >= 0)
    if cluster is not None:
        rows = rows[np.unique(np.stack([cluster[rows], labels[rows]]), axis=1, return_index=True)[1]]
    y = labels[rows]
    sizes = np.bincount(y, minlength=len(classes))
    if np.count_nonzero(sizes) < 2:
        return []
    counted = {name: _counts([values[i] for i in rows.tolist()], y, len(classes)) for name, values in columns.items()}
    tried = sum(len(counts) for counts in counted.values())
    found: dict[tuple[str, int], ShortcutRule] = {}
    for name, counts in counted.items():
        if _is_label(counts, classes):
            continue
        for value, each in counts.items():
            rule = _rule(name, value, each, sizes, classes, tried)
            if rule is None:
                continue
            key = (name, int(each.argmax()))
            if key not in found or (rule.coverage or 0) > (found[key].coverage or 0):
                found[key] = rule
    return sorted(found.values(), key=lambda rule: (rule.p or 0.0, -(rule.coverage or 0.0)))


def _counts(values: Sequence[str | None], y: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return value → number of images of each class, int64 (k,)."""
    counts: dict[str, np.ndarray] = {}
    for value, label in zip(values, y.tolist(), strict=True):
        if value is not None:
            counts.setdefault(value, np.zeros(k, np.int64))[label] += 1
    return counts


def _rule(
    name: str, value: str, each: np.ndarray, sizes: np.ndarray, classes: Sequence[str], tried: int
) -> ShortcutRule | None:
    """Return the rule of a value, None if it is not pure, frequent and significant enough."""
    n, k = int(each.sum()), int(each.argmax())
    inside = int(each[k])
    purity, coverage = inside / max(n, 1), inside / max(int(sizes[k]), 1)
    if n < FEWEST or purity < PURITY or coverage < COVERAGE or wilson(inside, n)[0] < PURITY - 0.15:
        return None
    p = float(stats.hypergeom.sf(inside - 1, int(sizes.sum()), int(sizes[k]), n)) * tried
    rule = ShortcutRule(name, classes[k], value, images=n, purity=purity, coverage=coverage, p=p)
    return rule if p < SIGNIFICANCE else None


def _is_label(counts: Mapping[str, np.ndarray], classes: Sequence[str]) -> bool:
    """Return whether the values of a property are the class names: the labels were read from it."""
    known = {_plain(name): k for k, name in enumerate(classes)}
    total = sum(int(each.sum()) for each in counts.values())
    same = sum(int(each[known[_plain(value)]]) for value, each in counts.items() if _plain(value) in known)
    return total > 0 and same >= 0.9 * total


def _plain(text: str) -> str:
    text = text.strip().lower()
    return {"jpg": "jpeg", "tif": "tiff"}.get(text, text)


def edge_rules(
    statistics: Mapping[str, np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    middle: Mapping[str, np.ndarray] | None = None,
) -> list[ShortcutRule]:
    """Return the edge statistics that separate a class from all others, the most telling of each class.

    Args:
        statistics: Name → float64 (n,), from `catalog.edges`; NaN for images that cannot be decoded.
        labels: int64 (n,), class indices; images with -1 are left out.
        classes: Names of the k classes.
        middle: The same statistics of the middle of the images. If they separate any class about as well as an edge separates
            one, the edge shows the objects themselves, and is no shortcut.
    """
    best = _separated(statistics, labels, classes)
    if best and middle:
        content = max((rule.auc or 0 for rule in _separated(middle, labels, classes).values()), default=0.0)
        best = {k: rule for k, rule in best.items() if (rule.auc or 0) >= content + EDGE_GAIN}
    rules = sorted(best.values(), key=lambda rule: -(rule.auc or 0))
    return rules[:1] if len(classes) == 2 else rules  # of two classes, both are separated


def _separated(statistics: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> dict[int, ShortcutRule]:
    """Return, by class, the statistic that separates it best, if the lower bound of its ROC AUC is above `EDGE_AUC`."""
    best: dict[int, ShortcutRule] = {}
    for name, values in statistics.items():
        rows = np.flatnonzero((labels >= 0) & np.isfinite(values))
        for k in range(len(classes)):
            target = labels[rows] == k
            if min(target.sum(), (~target).sum()) < FEWEST:
                continue
            area = auc(target, values[rows]) or 0.5
            if max(area, 1 - area) < EDGE_AUC:
                continue
            signed = values[rows] if area >= 0.5 else -values[rows]
            interval = auc_interval(target, signed)
            area = max(area, 1 - area)
            if interval is not None and interval[0] > EDGE_AUC and area > (best[k].auc or 0 if k in best else 0):
                best[k] = ShortcutRule(name, classes[k], auc=area)
    return best
