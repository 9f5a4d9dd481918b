"""The figures over a threshold or a certainty: both classes' ROC and DET, precision–recall, accuracy–coverage, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sightline import evaluation
from sightline.records import Predictions
from sightline.report import svg, threshold_figures
from sightline.report.format import at, decimal, percent, percent_range, short

MOST_POINTS = 400
MOST_LINES = 6

Figure = dict[str, Any]


def points(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """A curve's points, thinned evenly where they are many; those that are no numbers are left out."""
    keep = evaluation.thinned(len(x), MOST_POINTS)
    return [(float(a), float(b)) for a, b in zip(x[keep], y[keep], strict=True) if math.isfinite(a + b)]


def drawn_classes(answers: Predictions, score: Mapping[str, Any]) -> tuple[list[str], str]:
    """Which classes have a line, and what to say of the others: the positive one of two, the hardest of many."""
    positive = score.get("positive")
    if len(answers.classes) == 2 and positive in answers.classes:
        return [positive], ""
    areas = {c: at(score, "per_class", {}).get(c, {}).get("roc_auc") for c in answers.classes}
    known = sorted((c for c in answers.classes if areas[c] is not None), key=lambda c: areas[c])
    absent = len(areas) - len(known)
    said = f" {absent} without images here {'has' if absent == 1 else 'have'} none." if absent else ""
    if len(known) <= MOST_LINES:
        return known, said
    return known[: MOST_LINES - 1], f" Drawn are the {MOST_LINES - 1} hardest of {len(known)} classes.{said}"


def other_side(answers: Predictions, score: Mapping[str, Any]) -> Figure | None:
    """The ROC curve of the class that is not the positive one: the same curve from its other side."""
    name = _other(answers, score)
    if name is None or score.get("roc_auc") is None:
        return None
    area, positive = at(score, "per_class", {}).get(name, {}).get("roc_auc"), short(score["positive"], 40)
    text = (
        f"Here “{short(name, 40)}” counts as positive (area {decimal(area)}). It and the curve of “{positive}” are one curve "
        f"seen from two sides: what is found of one class is what is not taken for the other."
    )
    fpr, tpr, _ = evaluation.roc_curve(answers.y_true == answers.classes.index(name), rank_column(answers, name))
    axes = (f"share of “{positive}” taken for “{short(name, 16)}”", f"found of “{short(name, 24)}”")
    figure = svg.roc([svg.Series(short(name, 32), points(fpr, tpr), 1)], f"ROC curve. {text}", score.get("eer"), axes)
    return {"title": f"ROC of “{short(name, 24)}”", "figure": figure, "legend": None, "text": text}


def more(answers: Predictions, score: Mapping[str, Any], threshold: Mapping[str, Any]) -> list[Figure]:
    """DET, precision–recall, and what each bar would give for two classes; for more than two what abstaining would give."""
    two = _other(answers, score) is not None
    found = [*_det(answers, score), _precision_recall(answers, score)]
    return [f for f in [*found, _thresholds(answers, score, threshold) if two else coverage(answers)] if f is not None]


def _other(answers: Predictions, score: Mapping[str, Any]) -> str | None:
    """Of two classes the one that is not positive."""
    positive = score.get("positive")
    return (
        next(c for c in answers.classes if c != positive) if len(answers.classes) == 2 and positive in answers.classes else None
    )


def _column(answers: Predictions, name: str) -> np.ndarray:
    return np.asarray(answers.probs[:, answers.classes.index(name)])


def rank_column(answers: Predictions, name: str) -> np.ndarray:
    """float64 (n,): what images are ranked by for a class, as `evaluation.rank_scores` says."""
    return np.asarray(evaluation.rank_scores(answers.probs)[0][:, answers.classes.index(name)])


def _det(answers: Predictions, score: Mapping[str, Any]) -> list[Figure]:
    """The error rates against each other: of both classes where they are two, else of the hardest."""
    if score.get("roc_auc") is None:
        return []

    def line(name: str, style: int) -> svg.Series:
        fpr, fnr, _ = evaluation.det_curve(answers.y_true == answers.classes.index(name), rank_column(answers, name))
        return svg.Series(short(name, 32), points(fpr, fnr), style)

    edges = "Both axes are normal deviates; rates beyond 0.1 and 99.9 % lie on the frame."
    other = _other(answers, score)
    if other is None:
        shown, rest = drawn_classes(answers, score)
        lines = [line(name, style) for style, name in enumerate(shown)]
        text = f"Each class against all the others; the nearer to the lower left corner, the better. {edges}{rest}"
        figure = threshold_figures.det(lines, f"DET curves. {text}", ("others taken for it", "missed"))
        return [{"title": "DET: misses against false alarms", "figure": figure, "legend": svg.legend(lines), "text": text}]
    positive, eer = str(score["positive"]), score.get("eer")
    interval = percent_range(score.get("eer_low"), score.get("eer_high"))
    first = f"At the ring as large a share of “{short(positive, 24)}” is missed as of “{short(other, 24)}” is taken for it: "
    first += f"{percent(eer)} (95 % interval {interval}). {edges}"
    second = f"The same errors with “{short(other, 24)}” as the positive class: misses and false alarms change places. "
    second += "The two are one curve, seen from two sides."
    found = []
    for style, (name, against, text) in enumerate(((positive, other, first), (other, positive, second))):
        axes = (f"“{short(against, 24)}” taken for “{short(name, 16)}”", f"missed of “{short(name, 24)}”")
        figure = threshold_figures.det([line(name, style)], f"DET curve of {short(name, 40)}. {text}", axes, eer)
        found.append({"title": f"DET of “{short(name, 24)}”", "figure": figure, "legend": None, "text": text})
    return found


def _precision_recall(answers: Predictions, score: Mapping[str, Any]) -> Figure | None:
    """How many of its answers are right, over how many of its images are found."""
    if score.get("pr_auc") is None and score.get("roc_auc") is None:
        return None
    shown, rest = drawn_classes(answers, score)
    lines = []
    for style, name in enumerate(shown):
        precision, recall, _ = evaluation.precision_recall_curve(
            answers.y_true == answers.classes.index(name), rank_column(answers, name)
        )
        lines.append(svg.Series(short(name, 32), points(recall, precision), style))
    interval = f"(95 % interval {decimal(score.get('pr_auc_low'))}–{decimal(score.get('pr_auc_high'))})"
    share = None
    if _other(answers, score) is None:
        text = f"Mean area {decimal(score.get('pr_auc'))} {interval}, each class against all the others.{rest}"
    else:
        share = float((answers.y_true == answers.classes.index(shown[0])).mean())
        text = (
            f"For “{short(shown[0], 40)}”: area {decimal(score.get('pr_auc'))} {interval}. Answers by chance would be right as "
            f"often as the class is among the images, {percent(share)} (broken line)."
        )
    figure = threshold_figures.precision_recall(lines, f"Precision–recall curve. {text}", share)
    legend = svg.legend(lines) if len(answers.classes) > 2 else None
    return {"title": "Precision–recall: the price of finding more", "figure": figure, "legend": legend, "text": text}


def coverage(answers: Predictions) -> Figure:
    """What is gained by not answering where it is unsure."""
    right = answers.y_pred == answers.y_true
    share, accuracy, level = evaluation.accuracy_coverage(right, answers.probs[np.arange(len(answers)), answers.y_pred])
    half = int(np.argmax(share >= 0.5))
    text = (
        f"If it answers only the {percent(share[half], 0)} of the images that it is surest of (certainty from "
        f"{percent(level[half])}), {percent(accuracy[half])} of those answers are right; of all, {percent(accuracy[-1])}."
    )
    enough = np.flatnonzero(accuracy >= 0.99)
    if accuracy[-1] < 0.99 and enough.size:
        text += f" For 99 % it may answer {percent(share[enough[-1]], 0)}, as these very images have it."
    figure = threshold_figures.coverage(points(share, accuracy), float(accuracy[-1]), f"Accuracy over coverage. {text}")
    return {"title": "Accuracy–coverage: when to abstain", "figure": figure, "legend": None, "text": text}


def _thresholds(answers: Predictions, score: Mapping[str, Any], threshold: Mapping[str, Any]) -> Figure | None:
    """Precision, recall and cost of the positive class over its bar, the chosen one marked."""
    if _other(answers, score) is None or score.get("roc_auc") is None:
        return None
    name, by = str(score["positive"]), str(threshold.get("by") or "half")
    bars = np.unique(answers.thresholds)
    if answers.threshold is not None and answers.threshold[0] != name:
        bars = 1 - bars[::-1]
    missed, alarm = evaluation.costs(by)
    positive = answers.y_true == answers.classes.index(name)
    curve = evaluation.threshold_curve(positive, _column(answers, name), missed, alarm)
    dearest = float(curve.cost.max()) or 1.0
    lines = [
        svg.Series(f"precision of “{short(name, 24)}”", points(curve.threshold, curve.precision), 0),
        svg.Series(f"recall of “{short(name, 24)}”", points(curve.threshold, curve.recall), 1),
        svg.Series("cost, as a share of the dearest bar’s", points(curve.threshold, curve.cost / dearest), 2),
    ]
    if len(bars) == 1:
        text = _one_bar(curve, float(bars[0]), name, by)
    else:
        text = _own_bars(answers, positive, bars, name, by, bool(threshold.get("bars")))
    axis = f"probability of “{short(name, 24)}” from which on it is the answer"
    figure = threshold_figures.thresholds(lines, bars.tolist(), short(by, 20), axis, f"Threshold. {text}")
    return {"title": "Threshold: what another bar would give", "figure": figure, "legend": svg.legend(lines), "text": text}


def _one_bar(curve: evaluation.ThresholdCurve, bar: float, name: str, by: str) -> str:
    """What the bar of all answers gives."""
    chosen = int(np.argmin(np.abs(curve.threshold - bar)))
    return (
        f"An image is answered “{short(name, 40)}” from a probability of {bar:.3g} on (criterion: {short(by, 24)}). There "
        f"precision is {percent(_number(curve.precision, chosen))}, recall {percent(_number(curve.recall, chosen))}, and an "
        f"image costs {decimal(float(curve.cost[chosen]))} on average ({_priced(by)}). Choose a bar on held-out images, not "
        "here."
    )


def _own_bars(answers: Predictions, positive: np.ndarray, bars: np.ndarray, name: str, by: str, folds: bool) -> str:
    """What bars that are not the same for all answers give together."""
    said = np.asarray(answers.y_pred == answers.classes.index(name))
    hits, (missed, alarm) = float((said & positive).sum()), evaluation.costs(by)
    cost = (missed * (positive.sum() - hits) + alarm * (said.sum() - hits)) / len(answers)
    whose = "each fold’s own bar" if folds else "each image’s own bar"
    return (
        f"An image is answered “{short(name, 40)}” by {whose} (criterion: {short(by, 24)}), from a probability of "
        f"{bars[0]:.3g} to {bars[-1]:.3g} on. So precision is {percent(hits / said.sum() if said.any() else None)}, recall "
        f"{percent(hits / positive.sum() if positive.any() else None)}, and an image costs {decimal(float(cost))} on average "
        f"({_priced(by)}). The curves are those of one bar for all."
    )


def _priced(by: str) -> str:
    missed, alarm = evaluation.costs(by)
    return f"a missed one costs {missed:g}, a false alarm {alarm:g}"


def _number(values: Sequence[float] | np.ndarray, i: int) -> float | None:
    """One of them, None where it is no number."""
    return float(values[i]) if math.isfinite(values[i]) else None
