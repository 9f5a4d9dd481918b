"""Heads: model selection, calibration, scaling, and edge cases of single heads."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from sightline import heads
from sightline.errors import DataError, RequestError, SightlineError
from sightline.heads import logistic, problem, selection
from sightline.heads.kind import linear_logits
from sightline.heads.problem import Problem


def toy(n: int = 120, d: int = 5, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.standard_normal((n, d)).astype(np.float32)
    x[np.arange(n), y % d] += 2
    return x, y


def folds(y: np.ndarray, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(StratifiedKFold(count, shuffle=True, random_state=0).split(y, y))


def test_softmax_and_log_loss_worked_by_hand() -> None:
    out = np.log([[1.0, 3.0], [4.0, 1.0]])
    np.testing.assert_allclose(heads.softmax(out), [[0.25, 0.75], [0.8, 0.2]])
    assert heads.log_loss(out, np.array([1, 0])) == pytest.approx(-(np.log(0.75) + np.log(0.8)) / 2)
    weights = np.array([3.0, 1.0])
    assert heads.log_loss(out, np.array([1, 0]), weights) == pytest.approx(-(3 * np.log(0.75) + np.log(0.8)) / 4)


def test_softmax_of_extremes() -> None:
    probs = heads.softmax(np.array([[1e307, -1e307], [-1e5, 0.0]]))
    np.testing.assert_array_equal(probs, [[1, 0], [0, 1]])
    assert heads.log_loss(np.array([[0.0, 1e4]]), np.array([0])) == pytest.approx(1e4)


def test_temperature_recovers_a_known_factor() -> None:
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((20_000, 4))
    y = np.array([rng.choice(4, p=p) for p in heads.softmax(logits)])
    assert heads.temperature(5 * logits, y) == pytest.approx(5, rel=0.05)
    assert heads.temperature(logits / 5, y) == pytest.approx(0.2, rel=0.05)


def test_temperature_stays_in_its_range_and_changes_no_prediction() -> None:
    logits, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    t = heads.temperature(logits, y)  # all correct: the confidence that 2 correct predictions of 2 justify
    assert heads.softmax(logits / t).max(axis=1).mean() == pytest.approx(3 / 4)
    assert heads.temperature(logits, 1 - y) == pytest.approx(100)  # all wrong: the least confidence is best
    assert heads.temperature(np.zeros((2, 2)), y) == 1.0
    assert heads.temperature(np.zeros((0, 2)), y[:0]) == 1.0
    rng = np.random.default_rng(0)
    out = rng.standard_normal((500, 7))
    for t in (0.01, 0.3, 100):
        np.testing.assert_array_equal(heads.softmax(out / t).argmax(axis=1), out.argmax(axis=1))
    with pytest.raises(DataError, match="1 of 2 rows of logits are not finite"):
        heads.temperature(np.array([[0, np.nan], [0, 1]]), y)


def choice(*outs: np.ndarray, y: np.ndarray, class_weight: str | None = None) -> tuple[int, list[dict]]:
    rows = np.arange(len(y))
    task = Problem(np.zeros((len(y), 1), np.float32), y, 2, ((rows, rows),), True, 0, class_weight)  # type: ignore[arg-type]
    return selection.choose(task, [{"try": i} for i in range(len(outs))], np.stack(outs))


def scores(right: np.ndarray, y: np.ndarray, scale: float = 1.0) -> np.ndarray:
    predicted = np.where(right, y, 1 - y)
    return scale * (2.0 * np.eye(2)[predicted] - 1)


def test_a_clearly_more_accurate_setting_wins() -> None:
    y = np.arange(1000) % 2
    best, path = choice(scores(np.arange(1000) >= 300, y), scores(np.arange(1000) >= 100, y), y=y)
    assert best == 1
    assert [e["accuracy"] for e in path] == [0.7, 0.9]
    assert [e["chosen"] for e in path] == [False, True]


def test_among_equally_accurate_settings_the_log_loss_decides() -> None:
    y = np.arange(1000) % 2
    rng = np.random.default_rng(0)
    informed = scores(np.arange(1000) >= 101, y) * np.where(np.arange(1000) >= 101, rng.uniform(1, 2, 1000), 0.1)[:, None]
    best, path = choice(scores(np.arange(1000) >= 100, y), informed, y=y)
    assert path[0]["accuracy"] > path[1]["accuracy"] and best == 1
    # The scale of the logits does not matter: they are calibrated later.
    assert choice(scores(np.arange(1000) >= 100, y), informed * 100, y=y)[0] == 1


def test_balanced_choice_counts_classes_alike() -> None:
    y = (np.arange(1000) >= 900).astype(np.int64)
    majority = np.tile([1.0, -1.0], (1000, 1))
    fair = scores(np.arange(1000) % 5 > 0, y)
    assert choice(majority, fair, y=y)[0] == 0
    assert choice(majority, fair, y=y, class_weight="balanced")[0] == 1


def test_rows_held_out_twice_get_the_mean() -> None:
    rows = np.arange(4)
    task = Problem(np.zeros((4, 1), np.float32), rows % 2, 2, ((rows, rows[:2]), (rows, rows[1:3])), True, 0, None)
    out = selection.gather(task, [np.ones((1, 2, 2)), np.full((1, 2, 2), 3.0)], 1)[0]
    np.testing.assert_array_equal(out[:, 0], [1, 2, 3, np.nan])


def test_scale_folds_into_weights() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 4)) * 3 + 100).astype(np.float32)
    scale = problem.scale_of(x)
    values = scale.apply(x)
    assert (values.astype(np.float64) ** 2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)
    weights, bias = rng.standard_normal((2, 4)), rng.standard_normal(2)
    np.testing.assert_allclose(linear_logits(scale.fold(weights, bias), x), values @ weights.T + bias, atol=2e-4)


def test_constant_features_have_no_scale() -> None:
    assert problem.scale_of(np.full((10, 3), 0.1, dtype=np.float32)).length == 1
    assert problem.scale_of(np.zeros((10, 3), dtype=np.float32)).length == 1


def test_balanced_weights() -> None:
    x, _ = toy(6)
    y = np.array([0, 0, 0, 0, 2, 2])
    task = problem.checked(x, y, 3, [(np.arange(6), np.arange(0))], refit=True, seed=0, class_weight="balanced")
    np.testing.assert_allclose(task.weights(np.arange(6)), [0.75] * 4 + [1.5] * 2)  # 6 / (2 · 4), 6 / (2 · 2)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("logistic", {"C": 0}, "'C' of the logistic head cannot be 0"),
        ("logistic", {"C": []}, "'C' of the logistic head is an empty list"),
        ("logistic", {"C": [1.0, float("nan")]}, "'C' of the logistic head cannot be nan"),
        ("ridge", {"alpha": -1}, "'alpha' of the ridge head cannot be -1"),
        ("knn", {"neighbours": 0}, "'neighbours' of the knn head cannot be 0"),
        ("knn", {"metric": "cosinus"}, "there is no 'metric' in the settings of the knn head 'cosinus'"),
        ("centroid", {"shrinkage": 2}, "'shrinkage' of the centroid head cannot be 2"),
        ("forest", {"trees": 0}, "'trees' of the forest head cannot be 0"),
        ("forest", {"trees": "many"}, "'trees' in the settings of the forest head cannot be 'many'"),
        ("mlp", {"units": [[0, 0.3]]}, "'units' of the mlp head cannot be 0"),
        ("mlp", {"units": [[10, 1.0]]}, "'dropout' of the mlp head cannot be 1"),
        ("mlp", {"learning_rat": 0.1}, "there is no setting in the settings of the mlp head 'learning_rat'"),
    ],
)
def test_settings_out_of_range(kind: str, settings: dict, message: str) -> None:
    x, y = toy()
    with pytest.raises(RequestError) as caught:
        heads.fit(kind, x, y, 3, folds=folds(y), settings=settings)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_logistic_path_is_as_good_as_each_of_its_points() -> None:
    x, y = toy(300, 8)
    path = heads.fit("logistic", x, y, 3, folds=folds(y), settings={"C": [0.1, 10.0, 1000.0]})
    for entry in path.path:
        alone = heads.fit("logistic", x, y, 3, folds=folds(y), settings={"C": entry["C"]})
        assert alone.path[0]["accuracy"] == pytest.approx(entry["accuracy"], abs=0.01)
        assert alone.path[0]["log_loss"] == pytest.approx(entry["log_loss"], abs=2e-3)


def test_logistic_in_the_rows_space_is_the_same_problem() -> None:
    x, y = toy(60, 200)
    x[30:] = x[:30]  # a singular Gram matrix
    task = problem.checked(x, y, 3, [(np.arange(60), np.arange(0))], refit=True, seed=0, class_weight=None)
    space = logistic.coordinates(task)
    assert space.values.shape == (60, 60)
    scaled = space.scale.apply(x).astype(np.float64) * space.unit
    np.testing.assert_allclose(space.values @ space.values.T, scaled @ scaled.T, atol=1e-3 * (scaled**2).sum(axis=1).max())
    w = np.random.default_rng(0).standard_normal((3, 60))
    lower = space.values.astype(np.float64)
    np.testing.assert_allclose(scaled @ space.back(w @ lower).T, (lower @ lower.T) @ w.T, rtol=1e-3, atol=1e-2)


def test_knn_of_equal_images() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    y = np.repeat([0, 1, 2], 4)
    found = heads.fit("knn", x, y, 3, folds=[(np.arange(12), np.arange(12))], settings={"neighbours": 4})
    np.testing.assert_allclose(heads.probs(found.head, x)[0], [(4 + 1 / 3) / 5, 1 / 15, 1 / 15])


def test_forest_has_as_many_trees_in_the_folds_as_in_the_end() -> None:
    x, y = toy()
    found = heads.fit("forest", x, y, 3, folds=folds(y), settings={"trees": 12})
    assert len(found.head.arrays["root"]) == 12
    train, held = folds(y)[0]
    single = heads.fit("forest", x, y, 3, folds=[(train, held)], refit=False, settings={"trees": 12})
    np.testing.assert_array_equal(found.logits[held], single.logits[held])


def test_mlp_restores_the_best_epoch() -> None:
    x, y = toy(60, 30)
    y = np.random.default_rng(0).integers(0, 3, 60)  # random labels: it can only overfit
    one = [(np.arange(40), np.arange(40, 60))]
    settings = {"units": [[64, 0.0]], "learning_rate": 0.01, "epochs": 40, "patience": 5}
    found = heads.fit("mlp", x, y, 3, folds=one, refit=False, settings=settings)
    losses = [e["log_loss"] for e in found.path]
    best = int(np.argmin(losses))
    assert found.path[best]["chosen"] and len(found.path) == best + 1 + 5 < 40
    assert heads.log_loss(heads.logits(found.head, x[40:]), y[40:]) == pytest.approx(losses[best], rel=1e-6)
    assert found.head.settings["epochs"] == best + 1
    # A longer patience does not change what was best so far.
    shorter = heads.fit("mlp", x, y, 3, folds=one, refit=False, settings={**settings, "epochs": best + 1})
    np.testing.assert_array_equal(shorter.head.arrays["weights.0"], found.head.arrays["weights.0"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_mlp_learns_with_every_optimizer(optimizer: str) -> None:
    x, y = toy(200)
    rate = 0.05 if optimizer == "sgd" else 5e-3
    settings = {"units": [[32, 0.3], [16, 0.3]], "optimizer": optimizer, "learning_rate": rate, "epochs": 12, "batch_size": 32}
    found = heads.fit("mlp", x, y, 3, folds=folds(y, 2), settings=settings)
    assert (found.logits.argmax(axis=1) == y).mean() > 0.75
    assert [found.head.arrays[f"weights.{i}"].shape for i in range(3)] == [(32, 5), (16, 32), (3, 16)]


def test_diverging_mlp_raises_an_error() -> None:
    x, y = toy()
    with pytest.raises(SightlineError, match="the loss of the mlp head became NaN or infinite in epoch") as caught:
        heads.fit(
            "mlp", x, y, 3, folds=folds(y), settings={"optimizer": "sgd", "learning_rate": 10.0, "units": [[512, 0.0]] * 3}
        )
    assert "learning_rate" in str(caught.value)


def test_real_digits_are_classified() -> None:
    # The 64 grey levels of 900 digits; the same images gave a plain scikit-learn logistic regression 0.95 to 0.97.
    data = load_digits()
    x, y = data.data[:900].astype(np.float32), data.target[:900]
    lowest = {"logistic": 0.95, "ridge": 0.91, "knn": 0.97, "centroid": 0.88}
    for kind, accuracy in lowest.items():
        found = heads.fit(kind, x, y, 10, folds=folds(y, 5))
        assert (found.logits.argmax(axis=1) == y).mean() >= accuracy, kind
