"""Curves of what is gained and what is paid for it: precision and recall, misses and false alarms, answers and abstentions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline.evaluation.curves import calibration_curve, roc_curve
from sightline.evaluation.ranking import rank_scores
from sightline.evaluation.thresholds import costs
from sightline.records import Predictions

MOST_POINTS = 1_000
"""Of one curve in a table."""
MOST_CLASSES = 100
"""Whose curves stand in a table: those with the smallest areas under the ROC curve."""


def precision_recall_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall of answering with the positive class from each score on.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), higher speaks for the positive class.

    Returns:
        Precision and recall, float64 (m + 1,) each, ending with (1, 0), and the m distinct scores in rising order. Recall is
        NaN where there is no positive image.

    Source: the definition of scikit-learn's `precision_recall_curve`, to the last point.
    """
    y, score = np.asarray(y, dtype=bool), np.asarray(score, dtype=np.float64)
    levels, hits, answered = _from_each(y, score)
    recall = hits / y.sum() if y.any() else np.full(len(hits), np.nan)
    return np.r_[hits / answered, 1.0], np.r_[recall, 0.0], levels


def det_curve(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The detection error tradeoff: the points of `roc_curve` as false positive and false negative rates.

    Returns:
        False positive rate, false negative rate and threshold, float64 (m,) each.

    Source: Martin et al. 1997, "The DET curve in assessment of detection task performance".
    """
    fpr, tpr, levels = roc_curve(y, score)
    return fpr, 1.0 - tpr, levels


def accuracy_coverage(correct: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often the answers are right that are given if all below a certainty are withheld.

    Args:
        correct: bool (n,), whether the answer is right.
        confidence: float (n,), its probability.

    Returns:
        The share of images that are answered (rising to 1), the share of those that is right, and the certainty from which
        on answers are given, float64 (m,) each.

    Source: Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", section 2: one less the
    selective risk.
    """
    correct, confidence = np.asarray(correct, dtype=bool), np.asarray(confidence, dtype=np.float64)
    levels, right, answered = _from_each(correct, confidence)
    return (answered / max(len(correct), 1))[::-1], (right / answered)[::-1], levels[::-1]


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """What each bar of the positive class's probability would give; float64 (m,) each.

    Args:
        threshold: Rising, each halfway between two neighbouring probabilities; from it on the answer is positive.
        precision: NaN where no image is answered so.
        recall: Of the positive class.
        cost: The mean over all images of what misses and false alarms cost.
        missed, alarm: The price of one of each.
    """

    threshold: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    cost: np.ndarray
    missed: float
    alarm: float


def threshold_curve(y: np.ndarray, score: np.ndarray, missed: float = 1.0, alarm: float = 1.0) -> ThresholdCurve:
    """Precision, recall and cost over the bar from which on an image is answered with the positive class.

    Args:
        y: bool (n,), True for the positive class.
        score: float (n,), its probability.
        missed, alarm: What a missed positive and a false alarm cost; with 1 and 1 the cost is the share of wrong answers.
    """
    y, score = np.asarray(y, dtype=bool), np.asarray(score, dtype=np.float64)
    levels, hits, answered = _from_each(y, score)
    if len(levels):
        levels = np.r_[levels[0] / 2, (levels[1:] + levels[:-1]) / 2, (levels[-1] + 1) / 2]
        hits, answered = np.r_[hits, 0.0], np.r_[answered, 0.0]
    positives = float(y.sum())
    precision = np.divide(hits, answered, out=np.full(len(hits), np.nan), where=answered > 0)
    recall = hits / positives if positives else np.full(len(hits), np.nan)
    cost = (missed * (positives - hits) + alarm * (answered - hits)) / max(len(y), 1)
    return ThresholdCurve(levels, precision, recall, cost, missed, alarm)


def _from_each(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores in rising order, and how many positives and how many images have at least each; float64 (m,)."""
    levels, which = np.unique(score, return_inverse=True)
    every = np.bincount(which.ravel(), minlength=len(levels))
    hits = np.bincount(which.ravel(), weights=positive, minlength=len(levels))
    return levels, np.cumsum(hits[::-1])[::-1], np.cumsum(every[::-1])[::-1].astype(np.float64)


def thinned(length: int, most: int = MOST_POINTS) -> np.ndarray:
    """int64 (at most `most`,): evenly spaced places of a curve of so many points, its ends among them."""
    return (
        np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(np.int64)) if length else np.zeros(0, np.int64)
    )


def curve_tables(
    predictions: Predictions, scores: Mapping[str, Any], criterion: str = "half"
) -> dict[str, list[dict[str, str | float | int]]]:
    """The points of every curve, as tables.

    Args:
        predictions: Answers to images; those without a label are left out.
        scores: What `score` says of them.
        criterion: How the bar was chosen; its prices are the costs of the curve over thresholds.

    Returns:
        `roc`, `det` and `precision_recall` of each class against the rest (of the hundred hardest of more), `calibration`,
        `accuracy_coverage`, and for two classes `thresholds` of the positive one. A curve that is not defined is left out;
        one of more than a thousand points is thinned evenly.
    """
    answers = predictions.select(predictions.y_true >= 0)
    if not len(answers) or len(answers.classes) < 2:
        return {}
    tables: dict[str, list[dict[str, str | float | int]]] = {}
    areas = {c: row.get("roc_auc") for c, row in scores["per_class"].items()}
    ranked, known = rank_scores(answers.probs)

    def at(scores: np.ndarray, k: int) -> np.ndarray:
        """The probabilities at scores of `ranked`, infinite where these are."""
        if not len(known):
            return scores
        finite = np.isfinite(scores)
        return np.where(finite, known[np.where(finite, scores, 0).astype(np.int64), k], scores)

    hardest = sorted((c for c in answers.classes if areas.get(c) is not None), key=lambda c: areas[c])[:MOST_CLASSES]
    for name in (c for c in answers.classes if c in set(hardest)):
        k = answers.classes.index(name)
        y, p = answers.y_true == k, ranked[:, k]
        passed, caught, bars = roc_curve(y, p)
        _add(tables, "roc", name, ("false_positive_rate", "true_positive_rate", "threshold"), (passed, caught, at(bars, k)))
        _add(
            tables, "det", name, ("false_positive_rate", "false_negative_rate", "threshold"), (passed, 1 - caught, at(bars, k))
        )
        precision, recall, levels = precision_recall_curve(y, p)
        names = ("precision", "recall", "threshold")
        _add(tables, "precision_recall", name, names, (precision, recall, at(np.r_[levels, np.inf], k)))
    right = answers.y_pred == answers.y_true
    sure = answers.probs[np.arange(len(answers)), answers.y_pred]
    tables["calibration"] = [
        {"low": b.low, "high": b.high, "n": b.n, "certainty": b.confidence, "accuracy": b.accuracy}
        for b in calibration_curve(right, sure)
    ]
    _add(tables, "accuracy_coverage", None, ("coverage", "accuracy", "certainty"), accuracy_coverage(right, sure))
    positive = scores.get("positive")
    if len(answers.classes) == 2 and positive in hardest:
        k, (missed, alarm) = answers.classes.index(positive), costs(criterion)
        c = threshold_curve(answers.y_true == k, answers.probs[:, k], missed, alarm)
        four = ("threshold", "precision", "recall", "cost")
        _add(tables, "thresholds", positive, four, (c.threshold, c.precision, c.recall, c.cost))
    return tables


def _add(
    tables: dict[str, list[dict[str, str | float | int]]],
    table: str,
    name: str | None,
    columns: tuple[str, ...],
    values: tuple[np.ndarray, ...],
) -> None:
    """Append one curve's points to a table, the class in front where there is one; what is not a number is left empty."""
    rows = tables.setdefault(table, [])
    for i in thinned(len(values[0])).tolist():
        numbers = {c: float(v[i]) if np.isfinite(v[i]) else "" for c, v in zip(columns, values, strict=True)}
        rows.append(numbers if name is None else {"class": name, **numbers})
