"""Heads against scikit-learn's, on real images of digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from sightline import heads
from sightline.heads import forest
from sightline.heads.problem import scale_of


def digits(n: int = 600, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits(n_class=classes)
    return data.data[:n].astype(np.float32), data.target[:n].astype(np.int64)


def halves(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.arange(n // 2), np.arange(n // 2, n))]


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("balanced", [None, "balanced"])
@pytest.mark.parametrize("few", [False, True])
def test_logistic(classes: int, balanced: str | None, few: bool) -> None:
    # With fewer rows than features the search runs in the rows' space: the answer must be the same.
    x, y = digits(40 if few else 500, classes)
    c = 30.0
    found = heads.fit("logistic", x, y, classes, folds=halves(len(x)), settings={"C": c}, class_weight=balanced)  # type: ignore[arg-type]
    scale = scale_of(x)
    reference = LogisticRegression(C=c, tol=1e-8, max_iter=10_000, class_weight=balanced)
    reference.fit((x - scale.mean) / scale.length, y)
    expected = reference.predict_proba((x - scale.mean) / scale.length)
    np.testing.assert_allclose(heads.probs(found.head, x), expected, atol=2e-3)
    np.testing.assert_array_equal(heads.probs(found.head, x).argmax(axis=1), expected.argmax(axis=1))
    weights, _ = heads.linear(found.head) or pytest.fail("not linear")
    ours = weights[1] - weights[0]
    theirs = (reference.coef_[0] if classes == 2 else reference.coef_[1] - reference.coef_[0]) / scale.length
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()


@pytest.mark.parametrize("n", [40, 300])
@pytest.mark.parametrize("balanced", [None, "balanced"])
def test_ridge_and_its_folds(n: int, balanced: str | None) -> None:
    x, y = digits(n, 3)
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(x, y))
    alpha = 0.1
    found = heads.fit("ridge", x, y, 3, folds=folds, settings={"alpha": alpha}, class_weight=balanced)  # type: ignore[arg-type]
    counts = np.bincount(y)
    weights = (n / (3 * counts))[y] if balanced else np.ones(n)
    scale = scale_of(x)
    values, targets = (x - scale.mean) / scale.length, 2.0 * np.eye(3)[y] - 1
    whole = Ridge(alpha=alpha).fit(values, targets, sample_weight=weights)
    np.testing.assert_allclose(heads.logits(found.head, x), whole.predict(values), atol=1e-4)
    for train, held in folds:
        part = Ridge(alpha=alpha).fit(values[train], targets[train], sample_weight=weights[train])
        np.testing.assert_allclose(found.logits[held], part.predict(values[held]), atol=1e-5)


def test_ridge_by_leaving_out_and_fold_by_fold_agree() -> None:
    x, y = digits(200, 4)
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(x, y))
    together = heads.fit("ridge", x, y, 4, folds=folds, refit=True)
    apart = heads.fit("ridge", x, y, 4, folds=folds, refit=False)
    assert [e["alpha"] for e in together.path if e["chosen"]] == [e["alpha"] for e in apart.path if e["chosen"]]
    np.testing.assert_allclose(together.logits, apart.logits, atol=1e-4)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn(metric: str) -> None:
    x, y = digits(500)
    found = heads.fit("knn", x, y, 10, folds=halves(500), refit=False, settings={"neighbours": 7, "metric": metric})

    def votes(distance: np.ndarray) -> np.ndarray:
        squared = 2 * distance if metric == "cosine" else distance**2  # |a - b|² of unit vectors is 2 (1 - cos)
        return np.exp(-squared / squared.max(axis=1, keepdims=True))

    reference = KNeighborsClassifier(7, metric=metric, weights=votes).fit(x[:250].astype(np.float64), y[:250])
    expected = reference.predict_proba(x[250:].astype(np.float64))
    ours = np.exp(found.logits[250:])
    np.testing.assert_array_equal(ours.argmax(axis=1), expected.argmax(axis=1))
    # One vote is spread over all classes, the others are the same.
    near = votes(reference.kneighbors(x[250:].astype(np.float64))[0]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, (expected * near + 0.1) / (near + 1), atol=1e-6)


def test_centroid() -> None:
    x, y = digits(500)
    plain = heads.fit("centroid", x, y, 10, folds=halves(500), settings={"shrinkage": 1.0}, class_weight="balanced")
    np.testing.assert_array_equal(heads.logits(plain.head, x).argmax(axis=1), NearestCentroid().fit(x, y).predict(x))


def test_centroid_is_diagonal_lda() -> None:
    # Two features that vary on their own, unlike each other, around means that lie apart: the covariance is diagonal.
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], [3000, 2000, 1000]))
    x = (rng.standard_normal((6000, 2)) * [1, 5] + np.array([[0, 0], [2, 2], [0, 10]])[y]).astype(np.float32)
    found = heads.fit("centroid", x, y, 3, folds=halves(6000), settings={"shrinkage": 0.001})
    reference = LinearDiscriminantAnalysis().fit(x, y)
    # Ours is divided by √d, the priors are not.
    expected = (reference.decision_function(x) - reference.intercept_) / np.sqrt(2)
    ours = heads.logits(found.head, x) - np.asarray(heads.linear(found.head)[1])
    expected -= expected.mean(axis=1, keepdims=True)
    assert np.abs(ours - expected).max() < 0.05 * np.abs(expected).max()


def adversarial(model: RandomForestClassifier, x: np.ndarray) -> np.ndarray:
    """Rows made of the very numbers that decide: thresholds as float32, their neighbours, extremes, zeros of both signs."""
    rng = np.random.default_rng(0)
    thresholds = np.concatenate([e.tree_.threshold[e.tree_.children_left >= 0] for e in model.estimators_])
    near = thresholds.astype(np.float32)
    big = np.finfo(np.float32).max
    pool = np.concatenate(
        [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
        + [np.array([big, -big, 0.0, -0.0, 1e-45, -1e-45], dtype=np.float32)] * 50
    )
    return np.concatenate([x, rng.choice(pool, (400, x.shape[1])), rng.standard_normal((100, x.shape[1]))]).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("min_leaf", [1, 5])
@pytest.mark.parametrize("balanced", [None, "balanced"])
def test_forest_to_the_last_bit(scale: float, min_leaf: int, balanced: str | None) -> None:
    x, y = digits(400)
    rng = np.random.default_rng(1)
    x = ((x + rng.standard_normal(x.shape) * 1e-3) * scale).astype(np.float32)
    x[:40] = x[40:80]  # equal images, unlike labels: leaves of several classes
    model = RandomForestClassifier(40, random_state=0, min_samples_leaf=min_leaf, class_weight=balanced, n_jobs=1).fit(x, y)
    arrays = forest.as_arrays(model, 10)
    rows = adversarial(model, x)
    np.testing.assert_array_equal(forest.votes(arrays, rows), model.predict_proba(rows))
    # The thresholds lie where they decide: rounding them to the nearest float32 would not do.
    assert arrays["threshold"].dtype == np.float32


def test_forest_thresholds_are_rounded_down() -> None:
    values = np.array([0.1, -0.1, 1.0, 1e300, -1e300, 1e-300, -1e-300, 16777217.0])
    down = forest.round_down(values)
    assert down.dtype == np.float32
    assert (down.astype(np.float64) <= values).all()
    with np.errstate(over="ignore"):
        above = np.nextafter(down, np.float32(np.inf)).astype(np.float64)
    assert (above > values).all()


def test_forest_that_knows_fewer_classes() -> None:
    x, y = digits(100, 2)
    model = RandomForestClassifier(5, random_state=0, n_jobs=1).fit(x, 3 * y)
    np.testing.assert_array_equal(forest.votes(forest.as_arrays(model, 5), x)[:, [0, 3]], model.predict_proba(x))


def test_forest_of_single_leaves() -> None:
    model = RandomForestClassifier(3, random_state=0, n_jobs=1).fit(np.zeros((4, 2)), [0, 0, 1, 1])
    arrays = forest.as_arrays(model, 2)
    np.testing.assert_array_equal(forest.votes(arrays, np.ones((2, 2), np.float32)), model.predict_proba(np.ones((2, 2))))


def test_forest_as_fitted_is_scikit_learns() -> None:
    x, y = digits(200, 3)
    found = heads.fit("forest", x, y, 3, folds=halves(200), settings={"trees": 30})
    from sightline import store

    seed = int(store.stream(0, "forest").integers(2**31))
    model = RandomForestClassifier(30, random_state=seed, n_jobs=1).fit(x, y)
    np.testing.assert_array_equal(forest.votes(found.head.arrays, x), model.predict_proba(x))


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_temperature(factor: float) -> None:
    x, y = digits(900)
    model = LogisticRegression(C=10.0, max_iter=500).fit(x[:300], y[:300])
    logits = model.decision_function(x[300:])
    found = heads.temperature(factor * logits, y[300:])
    reference = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(x[300:], y[300:])
    expected = reference.predict_proba(x[300:])
    np.testing.assert_allclose(heads.softmax(factor * logits / found), expected, atol=1e-4)
