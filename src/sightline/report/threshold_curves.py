"""Figures over the decision threshold or the confidence: ROC, DET, precision–recall, accuracy–coverage, cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sightline import evaluation
from sightline.records import Predictions, Scores
from sightline.records.candidates import ThresholdChoice
from sightline.report import svg, threshold_figures
from sightline.report.format import decimal, decimal_range, percent, percent_range, short, sure

MOST_POINTS = 400
MOST_LINES = 6

Figure = dict[str, Any]


def points(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Return the finite points of a curve, thinned evenly to at most `MOST_POINTS`."""
    keep = evaluation.thinned(len(x), MOST_POINTS)
    return [(float(a), float(b)) for a, b in zip(x[keep], y[keep], strict=True) if math.isfinite(a + b)]


def drawn_classes(answers: Predictions, score: Scores) -> tuple[list[str], str]:
    """Return the classes to draw (the positive one of two, the hardest of many) and a sentence on the others."""
    positive = score.positive
    if len(answers.classes) == 2 and positive in answers.classes:
        return [positive], ""
    areas = {c: score.of_class(c).metric("roc_auc").value for c in answers.classes}
    known = sorted((c for c in answers.classes if areas[c] is not None), key=lambda c: areas[c] or 0.0)
    absent = len(areas) - len(known)
    note = f" {absent} {'class has' if absent == 1 else 'classes have'} no images here and no curve." if absent else ""
    if len(known) <= MOST_LINES:
        return known, note
    return known[: MOST_LINES - 1], f" Shown: the {MOST_LINES - 1} hardest of {len(known)} classes.{note}"


def other_side(answers: Predictions, score: Scores) -> Figure | None:
    """Return the ROC curve of the negative class of two; None for more classes."""
    name = _other(answers, score)
    if name is None or score.roc_auc.value is None:
        return None
    area, positive = score.of_class(name).metric("roc_auc").value, short(score.positive, 40)
    text = (
        f"Positive class: “{short(name, 40)}”. AUC {decimal(area)}. The same information as the curve for “{positive}”, "
        "with the classes swapped."
    )
    fpr, tpr, _ = evaluation.roc_curve(answers.y_true == answers.classes.index(name), rank_column(answers, name))
    axes = (
        f"false positive rate (“{short(positive, 24)}” misclassified)",
        f"true positive rate (recall of “{short(name, 24)}”)",
    )
    figure = svg.roc([svg.Series(short(name, 32), points(fpr, tpr), 1)], f"ROC curve. {text}", score.eer.value, axes)
    return {"title": f"ROC curve for “{short(name, 24)}”", "figure": figure, "legend": None, "text": text}


def more(answers: Predictions, score: Scores, threshold: ThresholdChoice) -> list[Figure]:
    """Return DET and precision–recall curves, and the threshold curve (two classes) or accuracy–coverage curve (more)."""
    two = _other(answers, score) is not None
    found = [*_det(answers, score), _precision_recall(answers, score)]
    return [f for f in [*found, _thresholds(answers, score, threshold) if two else coverage(answers)] if f is not None]


def _other(answers: Predictions, score: Scores) -> str | None:
    """Return the negative class of two, else None."""
    positive = score.positive
    return (
        next(c for c in answers.classes if c != positive) if len(answers.classes) == 2 and positive in answers.classes else None
    )


def rank_column(answers: Predictions, name: str) -> np.ndarray:
    """Return the scores, float64 (n,), that rank the images for a class, as `evaluation.rank_scores` defines them."""
    return np.asarray(evaluation.rank_scores(answers.probs)[0][:, answers.classes.index(name)])


def _det(answers: Predictions, score: Scores) -> list[Figure]:
    """Return DET curves: for each of two classes, else one figure of the hardest classes."""
    if score.roc_auc.value is None:
        return []

    def line(name: str, style: int) -> svg.Series:
        fpr, fnr, _ = evaluation.det_curve(answers.y_true == answers.classes.index(name), rank_column(answers, name))
        return svg.Series(short(name, 32), points(fpr, fnr), style)

    edges = "Both axes have a probit scale; rates below 0.1 % or above 99.9 % are drawn on the frame."
    other = _other(answers, score)
    if other is None:
        shown, rest = drawn_classes(answers, score)
        lines = [line(name, style) for style, name in enumerate(shown)]
        text = f"Each class versus the rest; closer to the lower left corner is better. {edges}{rest}"
        figure = threshold_figures.det(lines, f"DET curves. {text}", ("false positive rate", "false negative rate (misses)"))
        return [{"title": "DET curve: misses versus false alarms", "figure": figure, "legend": svg.legend(lines), "text": text}]
    positive, eer = str(score.positive), score.eer.value
    interval = percent_range(score.eer.low, score.eer.high)
    first = f"Circle: equal error rate (EER), {percent(eer)} (95 % CI {interval}), where both error rates are equal. {edges}"
    second = f"The same information as the curve for “{short(positive, 24)}”, with the classes swapped."
    found = []
    for style, (name, against, text) in enumerate(((positive, other, first), (other, positive, second))):
        axes = (
            f"false positive rate (“{short(against, 24)}” misclassified)",
            f"false negative rate (“{short(name, 24)}” missed)",
        )
        figure = threshold_figures.det([line(name, style)], f"DET curve for “{short(name, 40)}”. {text}", axes, eer)
        found.append({"title": f"DET curve for “{short(name, 24)}”", "figure": figure, "legend": None, "text": text})
    return found


def _precision_recall(answers: Predictions, score: Scores) -> Figure | None:
    """Return the precision–recall curve of the positive class, or of each class (the hardest of many)."""
    if score.pr_auc.value is None and score.roc_auc.value is None:
        return None
    shown, rest = drawn_classes(answers, score)
    lines = []
    for style, name in enumerate(shown):
        precision, recall, _ = evaluation.precision_recall_curve(
            answers.y_true == answers.classes.index(name), rank_column(answers, name)
        )
        lines.append(svg.Series(short(name, 32), points(recall, precision), style))
    interval = f"(95 % CI {decimal_range(score.pr_auc.low, score.pr_auc.high)})"
    share = None
    if _other(answers, score) is None:
        text = f"Mean average precision {decimal(score.pr_auc.value)} {interval}, each class versus the rest.{rest}"
    else:
        share = float((answers.y_true == answers.classes.index(shown[0])).mean())
        text = (
            f"Positive class: “{short(shown[0], 40)}”. Average precision {decimal(score.pr_auc.value)} {interval}. "
            f"Dashed line: random guessing ({percent(share)}, the fraction of positive images)."
        )
    figure = threshold_figures.precision_recall(lines, f"Precision–recall curve. {text}", share)
    legend = svg.legend(lines) if len(answers.classes) > 2 else None
    return {"title": "Precision–recall curve", "figure": figure, "legend": legend, "text": text}


def coverage(answers: Predictions) -> Figure:
    """Return the accuracy–coverage curve: accuracy on the most confident images."""
    right = answers.y_pred == answers.y_true
    share, accuracy, level = evaluation.accuracy_coverage(right, answers.probs[np.arange(len(answers)), answers.y_pred])
    half = int(np.argmax(share >= 0.5))
    lowest = sure(level[half]) if level[half] > 0.999 else f"≥ {percent(level[half])}"
    text = (
        f"On the most confident {percent(share[half], 0)} of images (confidence {lowest}), accuracy is "
        f"{percent(accuracy[half])}; on all images {percent(accuracy[-1])}."
    )
    enough = np.flatnonzero(accuracy >= 0.99)
    if accuracy[-1] < 0.99 and enough.size:
        text += (
            f" To reach 99 %, the classifier could predict on only {percent(share[enough[-1]], 0)} (estimated on these same "
            "images)."
        )
    figure = threshold_figures.coverage(points(share, accuracy), float(accuracy[-1]), f"Accuracy–coverage curve. {text}")
    return {"title": "Accuracy–coverage curve: when to abstain", "figure": figure, "legend": None, "text": text}


def _thresholds(answers: Predictions, score: Scores, threshold: ThresholdChoice) -> Figure | None:
    """Return precision, recall and cost of the positive class over the decision threshold, with the selected one marked."""
    if _other(answers, score) is None or score.roc_auc.value is None:
        return None
    name, by = str(score.positive), str(threshold.criterion or evaluation.HALF)
    thresholds = np.unique(answers.thresholds)
    if answers.threshold is not None and answers.threshold[0] != name:
        thresholds = 1 - thresholds[::-1]
    missed, alarm = evaluation.costs(by)
    positive = answers.y_true == answers.classes.index(name)
    curve = evaluation.threshold_curve(positive, answers.probs[:, answers.classes.index(name)], missed, alarm)
    largest_cost = float(curve.cost.max()) or 1.0
    lines = [
        svg.Series(f"precision of “{short(name, 24)}”", points(curve.threshold, curve.precision), 0),
        svg.Series(f"recall of “{short(name, 24)}”", points(curve.threshold, curve.recall), 1),
        svg.Series("cost relative to the worst threshold", points(curve.threshold, curve.cost / largest_cost), 2),
    ]
    if len(thresholds) == 1:
        text = _text_of_one_threshold(curve, float(thresholds[0]), name, by)
    else:
        text = _text_of_several_thresholds(answers, positive, thresholds, name, by, bool(threshold.by_fold))
    axis = f"decision threshold (minimum probability of “{short(name, 24)}”)"
    figure = threshold_figures.thresholds(lines, thresholds.tolist(), _criterion(by), axis, f"Decision threshold. {text}")
    return {"title": "Effect of the decision threshold", "figure": figure, "legend": svg.legend(lines), "text": text}


def _text_of_one_threshold(curve: evaluation.ThresholdCurve, selected: float, name: str, by: str) -> str:
    """Return a text on precision, recall and cost at the decision threshold of all predictions."""
    chosen = int(np.argmin(np.abs(curve.threshold - selected)))
    return (
        f"Predicted “{short(name, 40)}” at probability ≥ {selected:.3g} ({_criterion(by)}): precision "
        f"{percent(_number(curve.precision, chosen))}, recall {percent(_number(curve.recall, chosen))}, mean cost per image "
        f"{decimal(float(curve.cost[chosen]))} ({_cost_terms(by)}). Choose the threshold on validation images, not on these."
    )


def _text_of_several_thresholds(
    answers: Predictions, positive: np.ndarray, thresholds: np.ndarray, name: str, by: str, folds: bool
) -> str:
    """Return a text on precision, recall and cost if the decision threshold differs between predictions."""
    predicted = np.asarray(answers.y_pred == answers.classes.index(name))
    hits, (missed, alarm) = float((predicted & positive).sum()), evaluation.costs(by)
    cost = (missed * (positive.sum() - hits) + alarm * (predicted.sum() - hits)) / len(answers)
    unit = "fold" if folds else "image"
    return (
        f"Predicted “{short(name, 40)}” at probability ≥ {thresholds[0]:.3g} to {thresholds[-1]:.3g}, one threshold per {unit} "
        f"({_criterion(by)}): precision {percent(hits / predicted.sum() if predicted.any() else None)}, recall "
        f"{percent(hits / positive.sum() if positive.any() else None)}, mean cost per image {decimal(float(cost))} "
        f"({_cost_terms(by)}). The curves use one threshold for all images."
    )


def _criterion(by: str) -> str:
    """Return how the threshold was selected, in words."""
    return "the default" if by == evaluation.HALF else f"criterion: {short(by, 24)}"


def _cost_terms(by: str) -> str:
    missed, alarm = evaluation.costs(by)
    return f"a miss costs {missed:g}, a false alarm {alarm:g}"


def _number(values: Sequence[float] | np.ndarray, i: int) -> float | None:
    """Return an element, or None if it is not finite."""
    return float(values[i]) if math.isfinite(values[i]) else None
