"""Ensembles: weighted mean of probabilities, one file, held-out predictions only, calibration, and heatmaps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline import classifier, engine, heads
from sightline.commands import evaluate as evaluate_command
from sightline.commands import explain as explain_command
from sightline.commands import train as train_command
from sightline.errors import ModelFileError, RequestError
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.options import ExplainOptions
from sightline.records import Recipe
from sightline.store import Cache
from sightline.training import methods
from sightline.training.context import Context, with_card
from sightline.training.methods import ensemble
from tests.conftest import write_few_digits

NETWORK = Recipe(backbone="resnet10t", weights="random", image_size=32, head="ridge")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """100 digits with their splits, and a folder `runs` beside them."""
    folder = tmp_path_factory.mktemp("ensemble")
    found = catalogs.scan(write_few_digits(folder / "digits", 10))
    cache = Cache(folder / "cache")
    twins = catalogs.find_duplicates(found, cache)
    divided = catalogs.split(found, clusters=twins)
    return Context(divided, catalogs.together(divided, twins), divided.classes, cache)


@pytest.fixture(scope="module")
def runs(context: Context) -> list[str]:
    """Three runs: two heads on one network, and a head on pixels."""
    folder = context.cache.root.parent / "runs"
    recipes = {
        "ridge": NETWORK,
        "centroid": dataclasses.replace(NETWORK, head="centroid"),
        "pixels": Recipe(backbone="pixels", head="ridge"),
    }
    for name, recipe in recipes.items():
        train_command.train(context.catalog, recipe, folder / name, cache=context.cache)
    return [str(folder / name) for name in recipes]


def fitted(context: Context, runs: list[str], **settings: object) -> methods.Candidate:  # type: ignore[name-defined]
    return methods.fit(context, Recipe(method="ensemble", settings={"members": runs, **settings}))[0]


def test_predictions_are_the_calibrated_weighted_mean_of_the_members(context: Context, runs: list[str]) -> None:
    made = fitted(context, runs, weights=[2.0, 1.0, 1.0]).classifier
    tests = context.catalog.where(split="test")
    each = [classifier.load(run).predict(tests, cache=context.cache).probs for run in runs]
    mean = 0.5 * each[0] + 0.25 * each[1] + 0.25 * each[2]
    expected = heads.softmax(np.log(mean) / made.card.temperature)
    np.testing.assert_allclose(made.predict(tests, cache=context.cache).probs, expected, atol=1e-9)
    assert made.card.weights == (0.5, 0.25, 0.25)


def test_held_out_predictions_are_read_from_the_member_runs(context: Context, runs: list[str]) -> None:
    """Heads were refitted on train and val, so their present predictions of these images are too optimistic."""
    best = fitted(context, runs)
    from sightline.inputs import read_predictions

    tables = [read_predictions(Path(run) / "predictions" / "cross_validated.csv") for run in runs]
    assert len(best.val) == len(context.split("train", "val")) and best.estimate == "train+val, held out from every member"
    mean = np.mean([t.probs[[t.paths.index(p) for p in best.val.paths]] for t in tables], axis=0)
    np.testing.assert_allclose(heads.softmax(np.log(mean) / best.classifier.card.temperature), best.val.probs, atol=1e-9)
    again = best.classifier.predict(context.catalog.where(split="val"), cache=context.cache)
    in_val = [best.val.paths.index(p) for p in again.paths]
    assert (again.y_pred == again.y_true).mean() >= (best.val.y_pred == best.val.y_true)[in_val].mean()
    assert heads.temperature(heads.log_probs(best.val.probs), best.val.y_true) == pytest.approx(1.0, abs=0.02)


def test_an_ensemble_file_holds_a_shared_backbone_once(context: Context, runs: list[str], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    best = fitted(context, runs)
    file = best.classifier.save(tmp_path / "e.safetensors")
    names = load_file(file)
    backbones = {n.split(".")[1] for n in names if n.startswith("backbone.")}
    assert len(backbones) == 1, "ridge and centroid share their network"
    assert {n.split(".")[1] for n in names if n.startswith("head.")} == {"0", "1", "2"}
    loaded = classifier.load(file)
    assert [m.card.head for m in loaded.members] == ["ridge", "centroid", "ridge"]
    tests = context.catalog.where(split="test")
    before, after = (c.predict(tests, cache=context.cache) for c in (best.classifier, loaded))
    np.testing.assert_array_equal(before.probs, after.probs)
    assert loaded.save(tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert loaded.was_trained_on(context.catalog.where(split="train").column("content")).all()
    assert not loaded.was_trained_on(tests.column("content")).any()


def test_a_damaged_member_is_refused_on_load(context: Context, runs: list[str], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = fitted(context, runs).classifier.save(tmp_path / "e.safetensors")
    arrays = load_file(file)
    name = next(n for n in arrays if n.startswith("backbone.") and arrays[n].ndim == 4)
    arrays[name] = arrays[name] + 1
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    save_file(arrays, file, metadata=metadata)
    with pytest.raises(ModelFileError, match="do not match the hash in its card"):
        classifier.load(file)


def test_shared_features_are_computed_once(context: Context, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = fitted(context, runs).classifier
    opened: list[str] = []
    real = classifier.Classifier.session

    def counting(self: classifier.Classifier, *args: object, **own: object) -> object:
        opened.append(self.card.backbone.name)
        return real(self, *args, **own)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier.Classifier, "session", counting)
    arrays = [np.full((40, 40, 3), v, dtype=np.uint8) for v in (0, 128)]
    answers = made.predict(arrays, cache=context.cache)
    assert len(answers) == 2 and sorted(opened) == ["pixels", "resnet10t"]


def test_the_heatmap_is_the_weighted_sum_of_the_members_heatmaps(context: Context, runs: list[str]) -> None:
    made = fitted(context, runs[:2]).classifier
    files, names = context.catalog.files()[:2], context.catalog.paths[:2]
    options = ExplainOptions(cache=context.cache, device="cpu")
    found, errors = heatmaps_of(made, files, names, [3, 5], options)
    assert not errors and [e.path for e in found] == names and [e.target for e in found] == ["3", "5"]
    parts = [heatmaps_of(m, files, names, [3, 5], options)[0] for m in made.members]
    for i, item in enumerate(found):
        scaled = [
            w / m.card.temperature * (p[i].heat - p[i].neutral)
            for w, m, p in zip(made.card.weights, made.members, parts, strict=True)
        ]
        np.testing.assert_allclose(item.heat, sum(scaled), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_can_be_trained_evaluated_and_explained(context: Context, runs: list[str], tmp_path: Path) -> None:
    recipe = Recipe(method="ensemble", settings={"members": runs})
    run = train_command.train(context.catalog, recipe, tmp_path / "run", cache=context.cache)
    assert run.data["method"] == "ensemble" and run.data["backbone"] == "ensemble of 3"
    scored = evaluate_command.evaluate(
        str(run.folder), str(tmp_path / "run" / "catalog.csv"), out=str(tmp_path / "s"), cache=context.cache
    )
    assert scored.data["test"]["n"] == len(context.split("test")) and scored.data["explanations"]
    rows = explain_command.explain(
        str(run.folder), [str(context.catalog.files()[0])], out=str(tmp_path / "x"), cache=context.cache
    )
    assert Path(rows[0]["overlay"]).is_file() and rows[0]["layer"].startswith("sum over 3 members")


def test_member_weights_are_fitted_and_evaluated_by_cross_validation(context: Context, runs: list[str]) -> None:
    baseline = context.cache.root.parent / "runs" / "baseline"
    train_command.train(context.catalog, Recipe(method="baseline"), baseline, cache=context.cache)
    best = fitted(context, [runs[2], str(baseline)], weights="validation")
    assert best.classifier.card.weights[0] > 0.9
    assert best.note is not None and "evaluated by cross-validation" in best.note


def test_mixture_weights_minimise_the_log_loss() -> None:
    random = np.random.default_rng(0)
    answers, y = random.dirichlet(np.ones(3), (2, 200)), random.integers(0, 3, 200)
    answers[0, np.arange(200), y] += 0.3
    answers /= answers.sum(axis=2, keepdims=True)
    found = ensemble.mixture(answers, y)

    def loss(first: float) -> float:
        return float(-np.log((first * answers[0] + (1 - first) * answers[1])[np.arange(200), y]).mean())

    assert found.sum() == pytest.approx(1)
    assert loss(found[0]) <= min(loss(w) for w in np.linspace(0, 1, 501)) + 1e-5


def test_several_seeds_of_one_recipe_become_members(context: Context) -> None:
    inner = {"method": "scratch", "backbone": "cnn(filters=[4])", "settings": {"epochs": 1}}
    best = methods.fit(context, Recipe(method="ensemble", seed=4, settings={"recipe": inner, "seeds": 2}))[0]
    assert [c.recipe.seed for c in best.classifier.card.members] == [4, 5]
    assert best.estimate == "val"
    assert best.note is not None and "accuracy of its members alone on the same images: " in best.note


@pytest.mark.slow
def test_an_ensemble_of_seeds_records_epochs_steps_and_notes_of_its_members(context: Context, tmp_path: Path) -> None:
    """Epochs of the first member, steps of all, and every note; a continued run appends to them."""
    inner = {"method": "scratch", "backbone": "cnn(filters=[4])", "settings": {"epochs": 2}}
    recipe = Recipe(method="ensemble", seed=4, settings={"recipe": inner, "seeds": 2})
    first = train_command.train(context.catalog, recipe, tmp_path / "first", cache=context.cache)
    alone = methods.fit(context, Recipe(seed=4, **inner))[0]  # type: ignore[arg-type]
    assert (first.data["epochs"], first.data["steps"], first.data["history"]) == (2, 2 * alone.steps, "history.csv")
    assert first.data["best_epoch"] == alone.detail["best_epoch"]
    note = first.data["ladder"][0]["note"]
    assert "every seed: augmentation: light" in note and "those of seed 4, the steps those of all" in note
    assert (first.folder / "gradients.csv").is_file()
    more = train_command.train(context.catalog, recipe, tmp_path / "more", continued=first, cache=context.cache)
    lines = [(run.folder / "history.csv").read_text().splitlines() for run in (first, more)]
    assert len(lines[1]) == 5 and lines[1][:3] == lines[0], "appended"
    assert "continues after epoch 2" in more.data["ladder"][0]["note"]
    assert (more.data["epochs"], more.data["steps"]) == (4, 4 * alone.steps)


def test_the_note_of_an_ensemble_names_a_seed_that_diverged(context: Context) -> None:
    settings = {"epochs": 2, "optimizer": "sgd", "learning_rate": 10, "clip_norm": 0, "momentum": 0.99}
    inner = {"method": "scratch", "backbone": "cnn(filters=[4, 8])", "image_size": 32, "settings": settings}
    best = methods.fit(context, Recipe(method="ensemble", settings={"recipe": inner, "seeds": 2}))[0]
    alone = [methods.fit(context, Recipe(seed=s, **inner))[0].note for s in (0, 1)]  # type: ignore[arg-type]
    assert "diverged" in f"{alone[0]}{alone[1]}" and best.note is not None
    assert all(f"seed {seed}: {note}" in best.note for seed, note in enumerate(alone))


def test_runs_on_a_table_outside_the_photo_folder_can_be_members(context: Context, tmp_path: Path) -> None:
    photos = write_few_digits(tmp_path / "digits", 10)
    found = catalogs.scan(photos)
    catalogs.save(catalogs.split(found, clusters=catalogs.find_duplicates(found, context.cache)), tmp_path / "table.csv")
    table = catalogs.load(tmp_path / "table.csv")
    assert table.paths[0].startswith("digits/")
    names = []
    for head in ("ridge", "centroid"):
        names.append(str(tmp_path / "runs" / head))
        train_command.train(table, Recipe(backbone="pixels", head=head), Path(names[-1]), cache=context.cache)
    beside = Context(table, np.arange(len(table)), table.classes, context.cache)
    best = fitted(beside, names)
    assert best.estimate == "train+val, held out from every member" and len(best.val) == len(beside.split("train", "val"))


def test_a_member_file_without_its_run_is_evaluated_on_validation_images_with_a_note(
    context: Context, runs: list[str], tmp_path: Path
) -> None:
    alone = tmp_path / "moved.safetensors"
    alone.write_bytes((Path(runs[0]) / "classifier.safetensors").read_bytes())
    best = fitted(context, [str(alone), runs[2]])
    assert set(best.val.paths) == set(context.catalog.where(split="val").paths)
    assert best.note is not None and "is not in a run folder" in best.note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs either members or one recipe"),
        ({"members": ["a"]}, "an ensemble cannot have 1 members"),
        ({"members": ["a", "b"], "recipe": {"method": "scratch"}}, "needs either members or one recipe"),
        ({"members": ["a", "b"], "weights": [1.0]}, "1 weights do not match 2 members"),
        ({"members": ["a", "b"], "weights": [1.0, -1.0]}, r"the weights cannot be \[1.0, -1.0\]"),
        ({"members": ["a", "b"], "weights": "validatoin"}, "weights"),
        ({"members": ["runs/nowhere", "b"]}, "runs/nowhere does not exist"),
        ({"member": ["a", "b"]}, "did you mean 'members'"),
        ({"recipe": {"method": "ensemble"}}, "cannot be a member of an ensemble"),
    ],
)
def test_invalid_settings_are_refused_by_name(context: Context, settings: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        methods.fit(context, Recipe(method="ensemble", settings=settings))


def test_members_with_other_classes_and_nested_ensembles_are_refused(context: Context, runs: list[str], tmp_path: Path) -> None:
    kept = np.isin(context.labels, range(5))
    few = dataclasses.replace(
        context, catalog=context.catalog.rows(kept.tolist()), cluster=context.cluster[kept], classes=context.classes[:5]
    )
    with pytest.raises(RequestError, match="differ from those of the images"):
        fitted(few, runs)
    whole = fitted(context, runs).classifier.save(tmp_path / "e.safetensors")
    with pytest.raises(RequestError, match="is an ensemble itself"):
        fitted(context, [str(whole), runs[0]])
    with pytest.raises(RequestError, match="is an ensemble"):
        methods.fit(context, Recipe(method="warmstart", backbone=str(whole)))


def test_members_in_two_precisions_share_one_forward_pass(
    context: Context, runs: list[str], emulated_bf16: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two heads on one network, of which one needs float32."""
    first, second = (classifier.load(run) for run in runs[:2])
    members = [with_card(first, precision={"used": "bf16", "judged_on": 10}), second]
    made = ensemble.combine(members, [0.5, 0.5], context, Recipe(method="ensemble"))
    opened: list[str] = []
    real = engine.open_session

    def counting(*args: object, **own: object) -> engine.Session:
        opened.append(str(own["precision"]))
        return real(*args, **own)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "open_session", counting)
    assert len(made.predict([np.full((40, 40, 3), 77, dtype=np.uint8)], cache=context.cache)) == 1
    assert opened == ["f32"] and made.card.precision["used"] == "f32"
    assert [m.card.precision["used"] for m in made.members] == ["f32", "f32"]
    assert "another member" in made.members[0].card.precision["why"]
