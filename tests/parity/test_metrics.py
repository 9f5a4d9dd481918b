"""Parity of metrics with scikit-learn and SciPy to 1e-12, including edge cases."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from sightline import evaluation
from sightline.evaluation.bootstrap_counts import _counter
from sightline.evaluation.ranking import rankings
from sightline.evaluation.sample import sampled
from sightline.records import Predictions


@st.composite
def predicted(draw: st.DrawFn, classes: int | None = None) -> Predictions:
    """1–60 images of 2–5 classes: absent classes, ties and certainties of 0 and 1 come up by themselves."""
    k = classes or draw(st.integers(2, 5))
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = draw(st.sampled_from([1, 3, 10, 10**6]))  # few steps: many ties
    weights = rng.integers(0, steps + 1, (n, k)).astype(np.float64)
    weights[weights.sum(axis=1) == 0] = 1.0
    present = rng.permutation(k)[: draw(st.integers(1, k))]
    names = tuple("edcba"[:k])
    return Predictions(
        tuple(f"{i}.jpg" for i in range(n)), names, rng.choice(present, n), weights / weights.sum(axis=1, keepdims=True)
    )


def same(ours: float | None, theirs: float) -> bool:
    return ours is not None and math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.slow
@given(predicted())
@settings(max_examples=150, deadline=None)
def test_scores_are_scikit_learns(p: Predictions) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # ours never warns
        s = evaluation.score(p)
    y, pred, k = p.y_true, p.y_pred, len(p.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(s["accuracy"], metrics.accuracy_score(y, pred))
        assert same(s["balanced_accuracy"], metrics.balanced_accuracy_score(y, pred))
        assert same(s["macro_f1"], metrics.f1_score(y, pred, average="macro"))
        assert same(s["log_loss"], metrics.log_loss(y, p.probs, labels=list(range(k))))
        assert s["confusion"] == metrics.confusion_matrix(y, pred, labels=range(k)).tolist()
        parts = metrics.precision_recall_fscore_support(y, pred, labels=range(k), zero_division=np.nan)
        check_summaries(s, p)
    for c, name in enumerate(p.classes):
        row = s["per_class"][name]
        for key, theirs in zip(("precision", "recall", "f1", "n"), (part[c] for part in parts), strict=True):
            assert (
                (row[key] is None and f"per_class.{name}.{key}" in s["reasons"]) if np.isnan(theirs) else same(row[key], theirs)
            )


def check_summaries(s: dict[str, Any], p: Predictions) -> None:
    """Averages over classes, agreement, losses and top-k; what scikit-learn calls 0 or NaN is None with a reason."""
    y, pred, k, classes = p.y_true, p.y_pred, len(p.classes), range(len(p.classes))
    for key, average in (("macro", "macro"), ("weighted", "weighted")):
        theirs = metrics.precision_score(y, pred, labels=classes, average=average, zero_division=np.nan)
        ours = s[f"{key}_precision"]
        if key == "weighted" and not np.isin(pred, y).any():  # where all weights are 0, scikit-learn gives 0
            assert ours is None and s["reasons"]["weighted_precision"]
        else:
            assert ours is None if np.isnan(theirs) else same(ours, theirs)
    assert same(s["weighted_f1"], metrics.f1_score(y, pred, average="weighted", zero_division=np.nan))
    constant = len(set(y.tolist())) == 1 or len(set(pred.tolist())) == 1
    assert (
        s["mcc"] is None and "one class" in s["reasons"]["mcc"]
        if constant
        else same(s["mcc"], metrics.matthews_corrcoef(y, pred))
    )
    kappa = metrics.cohen_kappa_score(y, pred)
    assert s["kappa"] is None if np.isnan(kappa) else same(s["kappa"], kappa)
    assert same(
        s["brier"],
        metrics.brier_score_loss(
            y if k > 2 else y == 1, p.probs if k > 2 else p.probs[:, 1], labels=None if k == 2 else classes
        ),
    )
    for name, c in zip(p.classes, classes, strict=True):
        matrix = metrics.confusion_matrix(y == c, pred == c, labels=[False, True])
        theirs, ours = matrix[0, 0] / max(matrix[0].sum(), 1), s["per_class"][name]["specificity"]
        assert same(ours, theirs) if matrix[0].sum() else ours is None
        area = s["per_class"][name]["pr_auc"]
        if 0 < (y == c).sum() < len(y):
            assert same(area, metrics.average_precision_score(y == c, p.probs[:, c]))
        else:
            assert area is None and f"per_class.{name}.pr_auc" in s["reasons"]


@given(predicted(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_top_k_is_scikit_learns(p: Predictions, top: int) -> None:
    k = len(p.classes)
    ours = evaluation.score(p, top=top)[f"top_{top}"]
    if top >= k:
        assert ours is None
    elif k > 2:  # of equal probabilities scikit-learn takes the last class first, we the first, as in the answer
        theirs = metrics.top_k_accuracy_score(k - 1 - p.y_true, p.probs[:, ::-1], k=top, labels=range(k))
        assert same(ours, theirs)


@given(predicted(classes=2))
@settings(max_examples=100, deadline=None)
def test_precision_recall_curve_is_scikit_learns_to_the_point(p: Predictions) -> None:
    y, scores = p.y_true == 1, p.probs[:, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.precision_recall_curve(y, scores)
    ours = evaluation.precision_recall_curve(y, scores)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if y.any() or i != 1:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    ours_ap = evaluation.average_precision(y, scores)
    assert ours_ap is None if y.all() or not y.any() else same(ours_ap, metrics.average_precision_score(y, scores))


@given(predicted(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_metrics_from_image_counts_equal_those_of_copied_images(p: Predictions, seed: int) -> None:
    sample = sampled(p)
    weights = np.random.default_rng(seed).integers(0, 3, (1, len(sample))).astype(np.float64)
    if not weights.sum():
        return
    rows = np.repeat(np.arange(len(sample)), weights[0].astype(int))
    copied = sampled(Predictions(("",) * len(rows), p.classes, sample.y[rows], sample.probs[rows]), sample.positive)
    counted, told = (_counter(s, 5, rankings(s))(w) for s, w in ((sample, weights), (copied, np.ones((1, len(rows))))))
    for name, metric in [*evaluation.METRICS.items(), *evaluation.CLASS_METRICS.items()]:
        np.testing.assert_allclose(metric.formula(counted, sample), metric.formula(told, copied), atol=1e-12, err_msg=name)


@given(predicted())
@settings(max_examples=100, deadline=None)
def test_areas_are_scikit_learns(p: Predictions) -> None:
    s = evaluation.score(p)
    y, k = p.y_true, len(p.classes)
    present = np.unique(y)
    if len(present) < 2:
        assert s["roc_auc"] is None and s["reasons"]["roc_auc"]
        return
    assert 0 <= s["roc_auc_low"] <= s["roc_auc"] + 1e-12 and s["roc_auc"] <= s["roc_auc_high"] + 1e-12 <= 1 + 2e-12
    if k == 2:
        column = p.classes.index(s["positive"])
        assert same(s["roc_auc"], metrics.roc_auc_score(y == column, p.probs[:, column]))
        return
    if len(present) == k:
        assert same(s["roc_auc"], metrics.roc_auc_score(y, p.probs, multi_class="ovr", average="macro"))
    else:
        each = [metrics.roc_auc_score(y == c, p.probs[:, c]) for c in present]
        assert same(s["roc_auc"], float(np.mean(each))) and "classes" in s["reasons"]["roc_auc"]


@given(predicted(classes=2))
@settings(max_examples=150, deadline=None)
def test_roc_curve_is_scikit_learns_to_the_point(p: Predictions) -> None:
    y, scores = p.y_true == 1, p.probs[:, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metrics.roc_curve(y, scores)
    for a, b in zip(evaluation.roc_curve(y, scores), theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@given(predicted(classes=2))
@settings(max_examples=100, deadline=None)
def test_equal_error_rate_lies_on_scikit_learns_curve(p: Predictions) -> None:
    y, scores = p.y_true == 1, p.probs[:, 1]
    eer = evaluation.equal_error_rate(y, scores)
    if y.all() or not y.any():
        assert eer is None
        return
    fpr, tpr, _ = metrics.roc_curve(y, scores)
    # the point (eer, 1 - eer) is on the curve: some segment passes through it
    assert eer is not None
    on = [
        abs((tpr[i + 1] - tpr[i]) * (eer - fpr[i]) - (fpr[i + 1] - fpr[i]) * (1 - eer - tpr[i])) < 1e-12
        and fpr[i] - 1e-12 <= eer <= fpr[i + 1] + 1e-12
        and tpr[i] - 1e-12 <= 1 - eer <= tpr[i + 1] + 1e-12
        for i in range(len(fpr) - 1)
    ]
    assert any(on)


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=100, deadline=None)
def test_wilson_is_scipys(n: int, share: float, confidence: float) -> None:
    successes = round(n * share)
    theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    ours = evaluation.wilson(successes, n, confidence)
    assert ours == pytest.approx((theirs.low, theirs.high), rel=1e-12, abs=1e-12)


def test_a_single_image() -> None:
    s = evaluation.score(Predictions(("a.jpg",), ("cat", "dog"), np.array([0]), np.array([[0.3, 0.7]])))
    assert s["accuracy"] == 0 and s["balanced_accuracy"] == 0 and s["macro_f1"] == 0
    assert s["roc_auc"] is None and s["per_class"]["dog"]["recall"] is None and s["per_class"]["cat"]["precision"] is None
