"""Registry of metrics: one record per metric with its title, description, direction, interval and formula."""

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
"""Default number of most probable classes in which `top_5` looks for the true class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Everything that the command line, the report, the docs and the intervals know about one metric.

    Args:
        name: Key in `--json` and in the registry.
        title: Name in the report, such as "Macro F1".
        description: Definition in a few words; stands beside the title in the report and in docs/guide/metrics.md.
        higher_is_better: False for losses and error rates.
        interval: Method of the 95 % interval: `wilson` for a proportion of images, `delong` for an area under a ROC curve,
            else `bootstrap`.
        formula: Maps the sums over b sets of images to float64 (b,), or (b, k) for a metric of each class; NaN where undefined.
        percent: Whether the report prints the value in percent; else as a decimal number.
        headline: Whether the report always shows the metric; the others are collapsed.
        undefined: Reason for a missing value; may contain {name}, the class, and {k}, the number of classes.
        trials: For a proportion, the number of images that it is a proportion of; shaped as the result of `formula`.
        per_class: Whether each class has its own value.
        mean_of: Name of the metric in `CLASS_METRICS` whose unweighted mean this metric is.
        left_out: For a metric of each class: why a mean over classes leaves some classes out.
        from_ranking: Whether it is computed from images ranked by the probability of a class. For two classes its value is
            that of the positive class.
        least_classes: Smallest number of classes for which it is defined.
        two_classes_only: Whether it is defined for two classes only.
        limits: Smallest and largest possible value.
        limits_of_two: The same for two classes, where that differs.
        bias: Expected increase of the value due to chance alone, where it is substantial.
        mistake: For a mean loss: the cost of one more misclassified image, which the interval includes.
        weighs: What has equal weight in the metric: `classes`, so that small ones make it uncertain, `images`, or `positives`:
            for two classes the images of the positive one, where they count more than the classes do, else as `classes`; then
            the cap is lifted as DeLong's widening is.
        capped: Whether its interval is never narrower than that of a proportion of as many independent images. Bootstrap sets
            show no spread for a small class whose images are all right, or all wrong, which doesn't make the value certain.
    """

    name: str
    title: str
    description: str
    higher_is_better: bool
    interval: Literal["wilson", "delong", "bootstrap"]
    formula: Formula
    percent: bool = True
    headline: bool = False
    undefined: str = "there are no labelled images"
    trials: Formula | None = None
    per_class: bool = False
    mean_of: str | None = None
    left_out: str = "the others have no images here"
    from_ranking: bool = False
    least_classes: int = 1
    two_classes_only: bool = False
    limits: tuple[float, float] = (0.0, 1.0)
    limits_of_two: tuple[float, float] | None = None
    bias: Callable[[Sample], float] | None = None
    mistake: Callable[[Sample], float] | None = None
    weighs: Literal["classes", "images", "positives"] = "classes"
    capped: bool = False

    def defined_for(self, classes: int) -> bool:
        """Return whether the metric is defined for this number of classes."""
        return classes == 2 if self.two_classes_only else classes >= self.least_classes


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0))


def _mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the mean over the classes with a defined value, float64 (b,)."""
    defined = ~np.isnan(values)
    weights = defined.astype(np.float64) if weights is None else weights * defined
    return _ratio((np.where(defined, values, 0.0) * weights).sum(axis=1), weights.sum(axis=1))


def _recall(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(t.hits, t.n)


def _precision(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(t.hits, t.predicted)


def _specificity(t: Tally, _: Sample) -> np.ndarray:
    negatives = t.total[:, None] - t.n
    return _ratio(negatives - t.predicted + t.hits, negatives)


def _negatives(t: Tally, _: Sample) -> np.ndarray:
    return np.asarray(t.total[:, None] - t.n)


def _f1(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(2 * t.hits, t.n + t.predicted)


def _accuracy(t: Tally, _: Sample) -> np.ndarray:
    return _ratio(t.hits.sum(axis=1), t.total)


def _mcc(t: Tally, _: Sample) -> np.ndarray:
    """Return Matthews correlation. Source: Gorodkin 2004, "Comparing two K-category assignments", equation 8."""
    total = t.total
    covariance = total * t.hits.sum(axis=1) - (t.n * t.predicted).sum(axis=1)
    spread = (total**2 - (t.n**2).sum(axis=1)) * (total**2 - (t.predicted**2).sum(axis=1))
    return np.asarray(np.clip(_ratio(covariance, np.sqrt(spread)), -1, 1))


def _kappa(t: Tally, _: Sample) -> np.ndarray:
    """Return Cohen's kappa. Source: Cohen 1960, "A coefficient of agreement for nominal scales", equation 1."""
    chance = (t.n * t.predicted).sum(axis=1)
    total = t.total
    return np.asarray(np.clip(_ratio(total * t.hits.sum(axis=1) - chance, total**2 - chance), -1, 1))


def _mean_loss(sums: Callable[[Tally], np.ndarray]) -> Formula:
    """Return the formula of a mean over images, defined from two classes on."""

    def formula(t: Tally, s: Sample) -> np.ndarray:
        mean = _ratio(sums(t), t.total)
        return mean if len(s.classes) > 1 else np.full_like(mean, np.nan)

    return formula


def _ranking_score(field: Literal["area", "precision"]) -> Formula:
    """Return the formula of a ranking metric: of the positive class for two classes, else the one-vs-rest mean."""

    def formula(t: Tally, s: Sample) -> np.ndarray:
        values: np.ndarray = getattr(t, field)
        if not values.shape[1] or len(s.classes) < 2:
            return np.full(len(values), np.nan)
        return _mean(values) if s.column is None else values[:, s.column]

    return formula


def _calibration_bias(s: Sample) -> float:
    """Return the calibration error that a perfectly calibrated classifier is expected to show on these few images.

    In each bin, the number of correct predictions minus the sum of confidences is then about normal around 0, and the mean of
    its absolute value is sqrt(2 / pi) standard deviations.
    """
    confidence = s.probs[np.arange(len(s)), s.y_pred]
    spread = np.bincount(bins_of(confidence), confidence * (1 - confidence), minlength=CALIBRATION_BINS)
    return float(np.sqrt(2 / np.pi * spread).sum()) / max(len(s), 1)


def _cost_of_a_mistake(s: Sample) -> float:
    """Return the log loss of a misclassified image, estimated from the probabilities of these images.

    For each image, the most probable class other than the label has a probability, and a mistake would cost its negative
    logarithm. The mean weighted by these probabilities is what a calibrated classifier pays for a mistake; the unweighted mean
    is what one pays whose confidence doesn't depend on being right. The result is the middle of both.
    """
    rows = np.arange(len(s))
    others = s.probs.copy()
    others[rows, s.probs.argmax(axis=1)] = -1.0
    next_best = np.clip(others.max(axis=1), np.finfo(np.float64).eps, 1.0)
    true_class = np.clip(s.probs[rows, s.y], np.finfo(np.float64).eps, 1.0)
    chance = np.where(s.y == s.probs.argmax(axis=1), next_best, true_class)
    cost = -np.log(chance)
    return float((np.average(cost, weights=chance) + cost.mean()) / 2)


def undefined_reason(metric: Metric, sample: Sample, name: str = "") -> str:
    """Return why a metric has no value for a sample; `name` is the class of a metric of each class."""
    if not len(sample):
        return "there are no labelled images"
    if len(sample.classes) < 2 and not metric.per_class:
        return "there is one class only"
    if metric.two_classes_only and len(sample.classes) != 2:
        return f"it is defined for two classes, here are {len(sample.classes)}"
    return metric.undefined.format(name=name, k=len(sample.classes))


_ONE_KIND = "the images are all of one class"
_NOT_BOTH = "no image, or every image, is labelled '{name}'"

_RECORDS = (
    Metric(
        name="accuracy",
        title="Accuracy",
        description="share of images classified correctly",
        higher_is_better=True,
        interval="wilson",
        formula=_accuracy,
        headline=True,
        trials=lambda t, s: t.total,
    ),
    Metric(
        name="balanced_accuracy",
        title="Balanced accuracy",
        description="average recall over classes (macro recall)",
        higher_is_better=True,
        interval="bootstrap",
        formula=lambda t, s: _mean(_recall(t, s)),
        headline=True,
        mean_of="recall",
        capped=True,
    ),
    Metric(
        name="top_5",
        title="Top-5 accuracy",
        description="true class among the five most probable classes",
        higher_is_better=True,
        interval="wilson",
        formula=lambda t, s: _ratio(t.top, t.total),
        headline=True,
        undefined="there are only {k} classes",
        trials=lambda t, s: t.total,
        least_classes=TOP + 1,
    ),
    Metric(
        name="macro_precision",
        title="Macro precision",
        description="average precision over classes, all with equal weight",
        higher_is_better=True,
        interval="bootstrap",
        formula=lambda t, s: _mean(_precision(t, s)),
        mean_of="precision",
    ),
    Metric(
        name="macro_f1",
        title="Macro F1",
        description="average F1 over classes, all with equal weight",
        higher_is_better=True,
        interval="bootstrap",
        formula=lambda t, s: _mean(_f1(t, s)),
        headline=True,
        mean_of="f1",
    ),
    Metric(
        name="weighted_precision",
        title="Weighted precision",
        description="precision averaged with class sizes as weights",
        higher_is_better=True,
        interval="bootstrap",
        formula=lambda t, s: _mean(_precision(t, s), t.n),
        undefined="no class that has images was predicted",
        weighs="images",
        capped=True,
    ),
    Metric(
        name="weighted_f1",
        title="Weighted F1",
        description="F1 averaged with class sizes as weights",
        higher_is_better=True,
        interval="bootstrap",
        formula=lambda t, s: _mean(_f1(t, s), t.n),
        weighs="images",
    ),
    Metric(
        name="mcc",
        title="Matthews correlation",
        description="correlation between label and prediction; 0 = chance",
        higher_is_better=True,
        interval="bootstrap",
        formula=_mcc,
        percent=False,
        undefined="all labels, or all predictions, are of one class",
        limits=(-1.0, 1.0),
    ),
    Metric(
        name="kappa",
        title="Cohen’s kappa",
        description="agreement of label and prediction beyond chance; 0 = chance",
        higher_is_better=True,
        interval="bootstrap",
        formula=_kappa,
        percent=False,
        undefined="all labels and predictions are of one and the same class",
        limits=(-1.0, 1.0),
    ),
    Metric(
        name="roc_auc",
        title="ROC AUC",
        description="area under the ROC curve; for more than two classes the one-vs-rest average",
        higher_is_better=True,
        interval="delong",
        formula=_ranking_score("area"),
        percent=False,
        headline=True,
        undefined=_ONE_KIND,
        mean_of="roc_auc",
        from_ranking=True,
    ),
    Metric(
        name="pr_auc",
        title="PR AUC",
        description="average precision; for more than two classes the one-vs-rest average",
        higher_is_better=True,
        interval="bootstrap",
        formula=_ranking_score("precision"),
        percent=False,
        undefined=_ONE_KIND,
        mean_of="pr_auc",
        from_ranking=True,
        weighs="positives",
        capped=True,
    ),
    Metric(
        name="eer",
        title="Equal error rate",
        description="error rate at the threshold where misses and false alarms are equal; two classes only",
        higher_is_better=False,
        interval="bootstrap",
        formula=lambda t, s: t.eer,
        undefined=_ONE_KIND,
        from_ranking=True,
        two_classes_only=True,
        capped=True,
    ),
    Metric(
        name="log_loss",
        title="Log loss",
        description="mean of -ln of the true class's probability, in nats; guessing among k classes costs ln k",
        higher_is_better=False,
        interval="bootstrap",
        formula=_mean_loss(lambda t: t.loss),
        percent=False,
        headline=True,
        limits=(0.0, np.inf),
        mistake=_cost_of_a_mistake,
        weighs="images",
    ),
    Metric(
        name="brier",
        title="Brier score",
        description="mean squared error of the probabilities; for more than two classes summed over them (0 to 2)",
        higher_is_better=False,
        interval="bootstrap",
        formula=_mean_loss(lambda t: t.squares),
        percent=False,
        limits=(0.0, 2.0),
        limits_of_two=(0.0, 1.0),
        weighs="images",
    ),
    Metric(
        name="ece",
        title="Calibration error",
        description="expected calibration error: average gap between confidence and accuracy, in 15 bins",
        higher_is_better=False,
        interval="bootstrap",
        formula=_mean_loss(lambda t: np.abs(t.gaps).sum(axis=1)),
        headline=True,
        bias=_calibration_bias,
        weighs="images",
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _RECORDS}
"""Metrics of all images together. With another number of classes than five, `top_5` is named after that number."""
PRIMARY_METRIC = "accuracy"
"""Metric that is printed first and by which candidates are compared."""

_CLASS_RECORDS = (
    Metric(
        name="recall",
        title="Recall",
        description="share of the class's images that are classified as the class",
        higher_is_better=True,
        interval="wilson",
        formula=_recall,
        headline=True,
        undefined="no image is labelled '{name}'",
        trials=lambda t, s: t.n,
        per_class=True,
    ),
    Metric(
        name="precision",
        title="Precision",
        description="share of the predictions of the class that are correct",
        higher_is_better=True,
        interval="wilson",
        formula=_precision,
        headline=True,
        undefined="no image was classified as '{name}'",
        trials=lambda t, s: t.predicted,
        per_class=True,
        left_out="the others are never predicted",
    ),
    Metric(
        name="specificity",
        title="Specificity",
        description="share of the other images that are not classified as the class",
        higher_is_better=True,
        interval="wilson",
        formula=_specificity,
        undefined="every image is labelled '{name}'",
        trials=_negatives,
        per_class=True,
    ),
    Metric(
        name="f1",
        title="F1",
        description="harmonic mean of precision and recall",
        higher_is_better=True,
        interval="bootstrap",
        formula=_f1,
        headline=True,
        undefined="no image is labelled or was classified as '{name}'",
        per_class=True,
    ),
    Metric(
        name="roc_auc",
        title="ROC AUC",
        description="area under the ROC curve, the class against the rest",
        higher_is_better=True,
        interval="delong",
        formula=lambda t, s: t.area,
        percent=False,
        headline=True,
        undefined=_NOT_BOTH,
        per_class=True,
        from_ranking=True,
    ),
    Metric(
        name="pr_auc",
        title="PR AUC",
        description="average precision, the class against the rest",
        higher_is_better=True,
        interval="bootstrap",
        formula=lambda t, s: t.precision,
        percent=False,
        undefined=_NOT_BOTH,
        per_class=True,
        from_ranking=True,
    ),
)
CLASS_METRICS: dict[str, Metric] = {metric.name: metric for metric in _CLASS_RECORDS}
"""Metrics of each class against the rest; each row of `per_class` holds them all."""
