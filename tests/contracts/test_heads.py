"""Contracts that every kind of head keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from sightline import heads
from sightline.errors import DataError, RequestError
from sightline.records import Head
from sightline.search_space import Choice, Range

QUICK = {"forest": {"trees": 20}, "mlp": {"epochs": 12, "learning_rate": 5e-3, "units": [[32, 0.2]]}}
CLASSES = 4


def data(n: int = 160) -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits(n_class=CLASSES)
    return digits.data[:n].astype(np.float32), digits.target[:n].astype(np.int64)


def folds(y: np.ndarray, count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(StratifiedKFold(count, shuffle=True, random_state=0).split(y, y))


def fit(kind: str, **changes: object) -> heads.Fit:
    x, y = data()
    arguments = {"folds": folds(y), "refit": True, "settings": QUICK.get(kind, {}), "seed": 0, **changes}
    return heads.fit(kind, x, y, CLASSES, **arguments)


@pytest.fixture(scope="module")
def fitted() -> dict[str, heads.Fit]:
    return {kind: fit(kind) for kind in heads.HEADS}


each = pytest.mark.parametrize("kind", heads.HEADS)


@each
def test_the_probabilities_of_an_image_do_not_depend_on_the_other_rows(kind: str, fitted: dict[str, heads.Fit]) -> None:
    head, x = fitted[kind].head, data()[0]
    together = heads.probs_of_each(head, x)
    for i in (0, 77, 159):
        np.testing.assert_array_equal(heads.probs_of_each(head, x[i : i + 1])[0], together[i])
    np.testing.assert_allclose(together, heads.probs(head, x), atol=1e-6)


@each
def test_the_record_describes_the_head(kind: str, fitted: dict[str, heads.Fit]) -> None:
    record, head, d = heads.HEADS[kind], fitted[kind].head, data()[0].shape[1]
    assert record.name == kind and record.title
    layers = heads.layers(head)
    assert (layers is None) == (record.hidden is None)
    assert layers is not None or not record.trained
    settings = heads.settings_of(kind, QUICK.get(kind, {}))
    expected = sum(w.size + b.size for w, b in layers or ()) if record.trained else 0
    assert record.count_parameters(settings, d, CLASSES) == expected
    if layers is not None:
        assert [len(bias) for _, bias in layers[:-1]] == [units for units, _ in record.hidden(settings)]
    infinite = {name for name, values in head.arrays.items() if np.isinf(values).any()}
    assert infinite == set(record.infinite)
    assert not np.isinf(heads.logits(head, data()[0])).any()


@each
def test_settings_drawn_from_the_search_space_are_valid(kind: str) -> None:
    record = heads.HEADS[kind]
    assert record.search_space or not dataclasses.fields(record.settings), "a head with settings has a search space"
    for end in (0, -1):
        drawn = {
            name: space.options[end]
            if isinstance(space, Choice)
            else int(bound(space, end))
            if space.whole
            else bound(space, end)
            for name, space in record.search_space.items()
        }
        heads.settings_of(kind, record.from_search(drawn))


def bound(space: Range, end: int) -> float:
    return (space.low, space.high)[end]


def test_auto_compares_heads_from_the_quickest_on() -> None:
    kinds = heads.to_compare(heads.AUTO, {})
    assert list(kinds) == ["centroid", "ridge", "knn", "logistic", "forest"]
    for name, settings in kinds.items():
        heads.settings_of(name, settings)
    with pytest.raises(RequestError, match="need its name"):
        heads.to_compare(heads.AUTO, {"C": 1.0})
    with pytest.raises(RequestError, match="nearest"):
        heads.to_compare("nearest", {})


@each
def test_shape_and_rows_sum_to_one(kind: str, fitted: dict[str, heads.Fit]) -> None:
    x, y = data()
    out, probs = heads.logits(fitted[kind].head, x), heads.probs(fitted[kind].head, x, 1.7)
    assert out.shape == probs.shape == fitted[kind].logits.shape == (len(x), CLASSES)
    assert out.dtype == probs.dtype == np.float64
    assert np.isfinite(out).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    if heads.HEADS[kind].needs_features:
        assert (out.argmax(axis=1) == y).mean() > 0.9
        assert (fitted[kind].logits.argmax(axis=1) == y).mean() > 0.85


@each
def test_same_input_same_bits(kind: str, fitted: dict[str, heads.Fit]) -> None:
    again = fit(kind)
    assert again.head.settings == fitted[kind].head.settings
    assert again.path == fitted[kind].path
    np.testing.assert_array_equal(again.logits, fitted[kind].logits)
    for name, values in fitted[kind].head.arrays.items():
        assert again.head.arrays[name].tobytes() == values.tobytes(), name


@each
def test_the_global_random_state_is_neither_used_nor_changed(kind: str, fitted: dict[str, heads.Fit]) -> None:
    import torch

    np.random.seed(7)
    torch.manual_seed(7)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    state = np.random.get_state()[1].copy()
    again = fit(kind)
    np.testing.assert_array_equal(again.logits, fitted[kind].logits)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("kind", ["forest", "mlp"])
def test_another_seed_gives_another_head(kind: str, fitted: dict[str, heads.Fit]) -> None:
    assert not np.array_equal(fit(kind, seed=1).logits, fitted[kind].logits)


@each
def test_rows_are_independent_of_each_other(kind: str, fitted: dict[str, heads.Fit]) -> None:
    x, _ = data()
    head = fitted[kind].head
    whole = heads.logits(head, x)
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_allclose(heads.logits(head, x[order]), whole[order], rtol=1e-9, atol=1e-9)
    single = np.concatenate([heads.logits(head, x[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(single, whole[:20], rtol=1e-9, atol=1e-9)
    assert heads.logits(head, x[:0]).shape == (0, CLASSES)


@each
def test_the_type_of_the_features_does_not_matter(kind: str, fitted: dict[str, heads.Fit]) -> None:
    x, _ = data()
    head = fitted[kind].head
    whole = heads.logits(head, x)
    for same in (x.astype(np.float64), x.astype(np.int32), np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2]):
        np.testing.assert_array_equal(heads.logits(head, same), whole)


@each
def test_features_are_not_modified(kind: str) -> None:
    x, y = data()
    before = x.copy()
    found = heads.fit(kind, x, y, CLASSES, folds=folds(y), settings=QUICK.get(kind, {}))
    heads.logits(found.head, x)
    np.testing.assert_array_equal(x, before)


@each
def test_arrays_survive_the_file(kind: str, fitted: dict[str, heads.Fit]) -> None:
    x, _ = data()
    head = fitted[kind].head
    assert all(a.dtype in (np.float32, np.int32) or n == "leaf_value" for n, a in head.arrays.items())
    read = Head(head.kind, head.classes, head.settings, load(save(dict(head.arrays))))
    np.testing.assert_array_equal(heads.logits(read, x), heads.logits(head, x))


def test_prediction_needs_neither_torch_nor_scikit_learn(fitted: dict[str, heads.Fit], python, tmp_path: Path) -> None:
    x, _ = data()
    lines = ["import numpy as np", "from sightline import heads", "from sightline.records import Head"]
    np.save(tmp_path / "x.npy", x)
    for kind, fit_ in fitted.items():
        np.savez(tmp_path / f"{kind}.npz", **fit_.head.arrays)
        read = f"Head({kind!r}, {CLASSES}, {{}}, dict(np.load({kind + '.npz'!r})))"
        lines.append(f"np.save({kind + '.npy'!r}, heads.probs({read}, np.load('x.npy')))")
    ended = python("\n".join(lines), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert not {m.split(".")[0] for m in ended.modules} & {"torch", "sklearn", "scipy", "threadpoolctl", "joblib"}
    for kind, fit_ in fitted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{kind}.npy"), heads.probs(fit_.head, x), rtol=1e-9)


@each
def test_linear_heads_are_their_weights_and_bias(kind: str, fitted: dict[str, heads.Fit]) -> None:
    x, _ = data()
    found = heads.linear(fitted[kind].head)
    assert (found is not None) == heads.HEADS[kind].linear
    if found is not None:
        weights, bias = found
        assert weights.shape == (CLASSES, x.shape[1]) and bias.shape == (CLASSES,)
        assert weights.dtype == bias.dtype == np.float32
        np.testing.assert_allclose(heads.logits(fitted[kind].head, x), x @ weights.T + bias, rtol=1e-3, atol=1e-3)


@each
def test_only_held_out_rows_have_logits(kind: str) -> None:
    x, y = data()
    train, val = np.arange(100), np.arange(100, 140)
    found = heads.fit(kind, x, y, CLASSES, folds=[(train, val)], refit=False, settings=QUICK.get(kind, {}))
    assert np.isfinite(found.logits[val]).all()
    assert np.isnan(np.delete(found.logits, val, axis=0)).all()
    # Without a refit, the final head is the one that was evaluated.
    np.testing.assert_allclose(heads.logits(found.head, x[val]), found.logits[val], rtol=1e-6, atol=1e-6)
    chosen = [entry for entry in found.path if entry["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["accuracy"] == pytest.approx((found.logits[val].argmax(axis=1) == y[val]).mean())


@each
def test_held_out_labels_do_not_change_held_out_logits(kind: str) -> None:
    # With one setting there is nothing to select, so the label of a held-out row cannot change its logits.
    one = {"logistic": {"C": 1.0}, "ridge": {"alpha": 1.0}, "knn": {"neighbours": 5}, "centroid": {"shrinkage": 1.0}}
    settings = {**QUICK.get(kind, {}), **one.get(kind, {}), **({"epochs": 1} if kind == "mlp" else {})}
    x, y = data()
    parts = folds(y)
    held = parts[0][1]
    other = y.copy()
    other[held] = (other[held] + 1) % CLASSES
    first, second = (heads.fit(kind, x, labels, CLASSES, folds=parts, settings=settings).logits for labels in (y, other))
    np.testing.assert_allclose(first[held], second[held], rtol=1e-6, atol=1e-6)
    assert not np.allclose(first, second)


@pytest.mark.slow
@each
def test_degenerate_data_gives_finite_results(kind: str) -> None:
    rng = np.random.default_rng(0)
    settings = QUICK.get(kind, {})
    y = np.array([0, 0, 0, 0, 1, 1, 1, 3, 3, 3, 3, 3])  # class 2 of 5 has no row, class 4 gets one
    y[-1] = 4
    some = [(np.arange(0, 12, 2), np.arange(1, 12, 2)), (np.arange(1, 12, 2), np.arange(0, 12, 2))]
    wide = rng.standard_normal((12, 300)).astype(np.float32)
    twice = np.repeat(wide[:6], 2, axis=0)  # a singular Gram matrix, and the same image under two labels
    constant = np.full((12, 7), 0.1, dtype=np.float32)
    large = wide * 1e15
    mixed = np.concatenate([wide[:, :5], np.full((12, 1), 1e4, dtype=np.float32)], axis=1)
    for x in (wide, wide[:, :1], twice, constant, large, mixed, np.zeros((12, 3), dtype=np.float32)):
        found = heads.fit(kind, x, y, 5, folds=some, settings=settings, class_weight="balanced")
        probs = heads.probs(found.head, x)
        assert np.isfinite(found.logits).all() and np.isfinite(probs).all()
        assert (probs.argmax(axis=1) != 2).all()
        assert np.isfinite(heads.temperature(found.logits, y))


@each
def test_a_single_class_is_always_predicted(kind: str) -> None:
    x, _ = data(20)
    found = heads.fit(kind, x, np.full(20, 1), 3, folds=[(np.arange(10), np.arange(10, 20))], settings=QUICK.get(kind, {}))
    assert (heads.logits(found.head, x).argmax(axis=1) == 1).all()


@each
def test_wrong_input_raises_errors(kind: str, fitted: dict[str, heads.Fit]) -> None:
    x, y = data()
    bad = x.copy()
    bad[[3, 5], 2] = np.nan
    bad[7, 1] = np.inf
    with pytest.raises(DataError, match=r"3 of 160 rows of features are not finite \(the first is row 3\)"):
        heads.fit(kind, bad, y, CLASSES, folds=folds(y))
    with pytest.raises(DataError, match="3 of 160 rows"):
        heads.logits(fitted[kind].head, bad)
    with pytest.raises(DataError, match="the labels go from 0 to 3, but there are 2 classes"):
        heads.fit(kind, x, y, 2, folds=folds(y))
    with pytest.raises(DataError, match="no rows to fit"):
        heads.fit(kind, x, y, CLASSES, folds=[])
    with pytest.raises(RequestError, match="there is no setting"):
        heads.fit(kind, x, y, CLASSES, folds=folds(y), settings={"no_such_thing": 1})
    if heads.HEADS[kind].needs_features:
        with pytest.raises(DataError, match=r"an image has 10 features here, but the .* head takes 64"):
            heads.logits(fitted[kind].head, x[:, :10])
        with pytest.raises(DataError, match="needs features"):
            heads.fit(kind, x[:, :0], y, CLASSES, folds=folds(y))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name for name, record in heads.HEADS.items() if record.needs_features])
def test_balanced_weights_help_the_rare_class(kind: str) -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], [400, 25])
    x = rng.standard_normal((425, 6)).astype(np.float32)
    x[:, 0] += 1.8 * y
    parts = folds(y, 5)
    settings: dict[str, object] = {
        "forest": {"trees": 60, "min_leaf": 10},
        "mlp": {"units": [], "epochs": 15, "learning_rate": 5e-3},
    }.get(kind, {})
    recall = {}
    for weight in (None, "balanced"):
        found = heads.fit(kind, x, y, 2, folds=parts, settings=settings, class_weight=weight)  # type: ignore[arg-type]
        recall[weight] = (found.logits[y == 1].argmax(axis=1) == 1).mean()
    assert recall["balanced"] >= recall[None]  # equal for a head that gives all classes the same prior in either case
    assert recall["balanced"] > 0.6


def test_the_constant_head_needs_no_features() -> None:
    found = heads.fit(
        "constant", np.zeros((6, 0), dtype=np.float32), np.array([0, 1, 1, 1, 0, 1]), 2, folds=[(np.arange(6),) * 2]
    )
    probs = heads.probs(found.head, np.zeros((2, 0), dtype=np.float32))
    np.testing.assert_allclose(probs, [[2.5 / 7, 4.5 / 7]] * 2, rtol=1e-6)


def test_unknown_head() -> None:
    with pytest.raises(RequestError, match="there is no head 'logistc'") as caught:
        heads.fit("logistc", *data(), CLASSES, folds=[])
    assert "logistic" in str(caught.value)
