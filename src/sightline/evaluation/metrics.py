"""The metrics by name: what each is in words, which direction is better, where its interval comes from, and its formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sightline.evaluation.bootstrap_counts import Tally
from sightline.evaluation.curves import CALIBRATION_BINS, bins_of
from sightline.evaluation.sample import Sample

Formula = Callable[[Tally, Sample], np.ndarray]
TOP = 5
"""How many answers count for `top_5` where nobody says another number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about answers.

    Args:
        words: What people call it, and what it is.
        higher: Whether more is better.
        interval: `wilson` for a share of images, `delong` for an area under a ROC curve, else `bootstrap`.
        value: From sums over the images of b sets to float64 (b,), for a metric of each class (b, k); NaN where undefined.
        undefined: Why there may be no value, in words; may hold {name}, the class, and {k}, how many there are.
        trials: For a share, of how many images it is one; shaped as `value`.
        per_class: Whether every class has its own.
        mean_of: The metric of each class that it is the plain mean of, where it is one.
        two_only: Whether it is defined for two classes only.
        limits: The least and the greatest value that it can take.
        limits_of_two: The same for two classes, where that differs.
        bias: By how much chance alone is expected to raise it, where that is much.
        mistake: For a mean loss: what one more mistake would cost, which its interval counts in.
        weighs: What weighs the same in it: `classes`, so that small ones make it uncertain, `images`, or `positives`: for two
            classes the images of the positive one, where they are more than the classes are worth, else as `classes`; then
            the cap is lifted as DeLong's widening is.
        capped: Whether its interval is never narrower than that of a share of as many independent images. What drawn sets
            show of a small class whose images are all right, or all wrong, is nothing, and it is not certain for that.
    """

    words: str
    higher: bool
    interval: Literal["wilson", "delong", "bootstrap"]
    value: Formula
    undefined: str = "there are no labelled images"
    trials: Formula | None = None
    per_class: bool = False
    mean_of: str | None = None
    two_only: bool = False
    limits: tuple[float, float] = (0.0, 1.0)
    limits_of_two: tuple[float, float] | None = None
    bias: Callable[[Sample], float] | None = None
    mistake: Callable[[Sample], float] | None = None
    weighs: Literal["classes", "images", "positives"] = "classes"
    capped: bool = False


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0))


def _mean(each: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean over the classes for which it is defined, float64 (b,)."""
    known = ~np.isnan(each)
    weights = known.astype(np.float64) if weights is None else weights * known
    return _ratio((np.where(known, each, 0.0) * weights).sum(axis=1), weights.sum(axis=1))


def _recall(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(t.hits, t.n)


def _precision(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(t.hits, t.answered)


def _specificity(t: Tally, _: Sample) -> np.ndarray:
    others = t.total[:, None] - t.n
    return _ratio(others - t.answered + t.hits, others)


def _others(t: Tally, _: Sample) -> np.ndarray:
    return np.asarray(t.total[:, None] - t.n)


def _f1(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(2 * t.hits, t.n + t.answered)


def _accuracy(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(t.hits.sum(axis=1), t.total)


def _mcc(t: Tally, _: Sample) -> np.ndarray:
    """The correlation of label and answer. Source: Gorodkin 2004, "Comparing two K-category assignments", equation 8."""
    total = t.total
    covariance = total * t.hits.sum(axis=1) - (t.n * t.answered).sum(axis=1)
    spread = (total**2 - (t.n**2).sum(axis=1)) * (total**2 - (t.answered**2).sum(axis=1))
    return np.asarray(np.clip(_ratio(covariance, np.sqrt(spread)), -1, 1))


def _kappa(t: Tally, _: Sample) -> np.ndarray:
    """Source: Cohen 1960, "A coefficient of agreement for nominal scales", equation 1."""
    chance = (t.n * t.answered).sum(axis=1)
    total = t.total
    return np.asarray(np.clip(_ratio(total * t.hits.sum(axis=1) - chance, total**2 - chance), -1, 1))


def _of_loss(sums: Callable[[Tally], np.ndarray]) -> Formula:
    """The mean over the images, where there are at least two classes."""

    def value(t: Tally, s: Sample) -> np.ndarray:
        mean = _ratio(sums(t), t.total)
        return mean if len(s.classes) > 1 else np.full_like(mean, np.nan)

    return value


def _of_curves(field: Literal["area", "precision"]) -> Formula:
    """For two classes the positive one's curve, for more the mean of one against the rest."""

    def value(t: Tally, s: Sample) -> np.ndarray:
        each: np.ndarray = getattr(t, field)
        if not each.shape[1] or len(s.classes) < 2:
            return np.full(len(each), np.nan)
        return _mean(each) if s.column is None else each[:, s.column]

    return value


def _chance_gap(s: Sample) -> float:
    """The calibration error that a perfectly calibrated classifier is expected to show on so few images.

    In each bin right answers less certainties then sum to about a normal number around 0, whose absolute value has the mean
    sqrt(2 / pi) standard deviations.
    """
    sure = s.probs[np.arange(len(s)), s.y_pred]
    spread = np.bincount(bins_of(sure), sure * (1 - sure), minlength=CALIBRATION_BINS)
    return float(np.sqrt(2 / np.pi * spread).sum()) / max(len(s), 1)


def _cost_of_a_mistake(s: Sample) -> float:
    """The log loss of an image that is answered wrongly, as far as the probabilities of these images tell.

    Each image's likeliest class beside the label has its probability, and would cost its logarithm. Weighted by these
    probabilities the mean is what a calibrated classifier pays for a mistake, unweighted what one pays that is sure of all
    its answers: the middle of both.
    """
    rows = np.arange(len(s))
    others = s.probs.copy()
    others[rows, s.probs.argmax(axis=1)] = -1.0
    next_best = np.clip(others.max(axis=1), np.finfo(np.float64).eps, 1.0)
    own = np.clip(s.probs[rows, s.y], np.finfo(np.float64).eps, 1.0)
    chance = np.where(s.y == s.probs.argmax(axis=1), next_best, own)
    cost = -np.log(chance)
    return float((np.average(cost, weights=chance) + cost.mean()) / 2)


def worded(metric: Metric, sample: Sample, name: str = "") -> str:
    """Why there is no value."""
    if not len(sample):
        return "there are no labelled images"
    if len(sample.classes) < 2 and not metric.per_class:
        return "there is one class only"
    if metric.two_only and len(sample.classes) != 2:
        return f"it is defined for two classes, here are {len(sample.classes)}"
    return metric.undefined.format(name=name, k=len(sample.classes))


_ONE_KIND = "the images are all of one class"
_NOT_BOTH = "no image, or every image, is labelled '{name}'"

METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy: the share of right answers", True, "wilson", _accuracy, trials=lambda t, s: t.total),
    "balanced_accuracy": Metric(
        "balanced accuracy: the mean recall of the classes",
        True,
        "bootstrap",
        lambda t, s: _mean(_recall(t, s)),
        mean_of="recall",
        capped=True,
    ),
    "top_5": Metric(
        "top-5 accuracy: the share of images whose label is among the five likeliest classes",
        True,
        "wilson",
        lambda t, s: _ratio(t.top, t.total),
        "there are only {k} classes",
        trials=lambda t, s: t.total,
    ),
    "macro_precision": Metric(
        "macro precision: the mean precision of the classes",
        True,
        "bootstrap",
        lambda t, s: _mean(_precision(t, s)),
        mean_of="precision",
    ),
    "macro_f1": Metric("macro F1: the mean F1 of the classes", True, "bootstrap", lambda t, s: _mean(_f1(t, s)), mean_of="f1"),
    "weighted_precision": Metric(
        "weighted precision: the mean precision, each class weighing as many as it has images",
        True,
        "bootstrap",
        lambda t, s: _mean(_precision(t, s), t.n),
        "no class that has images was answered",
        weighs="images",
        capped=True,
    ),
    "weighted_f1": Metric(
        "weighted F1: the mean F1, each class weighing as many as it has images",
        True,
        "bootstrap",
        lambda t, s: _mean(_f1(t, s), t.n),
        weighs="images",
    ),
    "mcc": Metric(
        "Matthews correlation coefficient: the correlation of label and answer, 0 for chance",
        True,
        "bootstrap",
        _mcc,
        "the labels, or the answers, are all of one class",
        limits=(-1.0, 1.0),
    ),
    "kappa": Metric(
        "Cohen's kappa: agreement of label and answer beyond chance, 0 for chance",
        True,
        "bootstrap",
        _kappa,
        "labels and answers are all of the same one class",
        limits=(-1.0, 1.0),
    ),
    "log_loss": Metric(
        "log loss: the mean of -ln of the probability of the label, in nats",
        False,
        "bootstrap",
        _of_loss(lambda t: t.loss),
        limits=(0.0, np.inf),
        mistake=_cost_of_a_mistake,
        weighs="images",
    ),
    "brier": Metric(
        "Brier score: the mean squared error of the probabilities, summed over the classes where they are more than two",
        False,
        "bootstrap",
        _of_loss(lambda t: t.squares),
        limits=(0.0, 2.0),
        limits_of_two=(0.0, 1.0),
        weighs="images",
    ),
    "ece": Metric(
        "expected calibration error: the mean distance of claimed certainty and accuracy, in 15 bins",
        False,
        "bootstrap",
        _of_loss(lambda t: np.abs(t.gaps).sum(axis=1)),
        bias=_chance_gap,
        weighs="images",
    ),
    "roc_auc": Metric(
        "area under the ROC curve: of the positive class, for more than two classes the mean of one against the rest",
        True,
        "delong",
        _of_curves("area"),
        _ONE_KIND,
        mean_of="roc_auc",
    ),
    "pr_auc": Metric(
        "area under the precision–recall curve (average precision), as the ROC curve's",
        True,
        "bootstrap",
        _of_curves("precision"),
        _ONE_KIND,
        mean_of="pr_auc",
        weighs="positives",
        capped=True,
    ),
    "eer": Metric(
        "equal error rate: where as large a share of positives is missed as of negatives is let through",
        False,
        "bootstrap",
        lambda t, s: t.eer,
        _ONE_KIND,
        two_only=True,
        capped=True,
    ),
}
"""Of all images together. Where another number of answers counts, `top_5` is called after it."""

CLASS_METRICS: dict[str, Metric] = {
    "recall": Metric(
        "recall: the share of the class's images that is found",
        True,
        "wilson",
        _recall,
        "no image is labelled '{name}'",
        lambda t, s: t.n,
        True,
    ),
    "precision": Metric(
        "precision: the share of the class's answers that is right",
        True,
        "wilson",
        _precision,
        "no image was answered '{name}'",
        lambda t, s: t.answered,
        True,
    ),
    "specificity": Metric(
        "specificity: the share of the other images that is not taken for the class",
        True,
        "wilson",
        _specificity,
        "every image is labelled '{name}'",
        _others,
        True,
    ),
    "f1": Metric(
        "F1: the harmonic mean of precision and recall",
        True,
        "bootstrap",
        _f1,
        "no image is labelled or was answered '{name}'",
        per_class=True,
    ),
    "roc_auc": Metric(
        "area under the ROC curve, the class against the rest",
        True,
        "delong",
        lambda t, s: t.area,
        _NOT_BOTH,
        per_class=True,
    ),
    "pr_auc": Metric(
        "area under the class's precision–recall curve", True, "bootstrap", lambda t, s: t.precision, _NOT_BOTH, per_class=True
    ),
}
"""Of each class against the rest; a row of `per_class` has them all."""
