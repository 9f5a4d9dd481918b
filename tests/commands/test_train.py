"""`train`: files of a run, resuming and continuing, and refusals."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from sightline import catalog as catalogs
from sightline.cli import train as train_cli
from sightline.commands import find_lr
from sightline.commands import train as train_command
from sightline.deadline import Deadline
from sightline.errors import DataError, RequestError
from sightline.inputs import read_recipe
from sightline.records import Catalog, Recipe, Run
from sightline.report import line_plots
from sightline.runs import resume
from sightline.store import Cache
from sightline.training import checkpoint, decoded_images, fit_network, hardware
from sightline.training.context import Context
from sightline.training.methods import scratch as from_scratch
from tests.conftest import write_few_digits

SETTINGS = {"epochs": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_few_digits(tmp_path_factory.mktemp("photos") / "digits", 8)


def divided(photos: Path, seed: int = 0) -> Catalog:
    """A folder's table with splits."""
    found = catalogs.scan(photos)
    return catalogs.split(found, seed=seed, clusters=catalogs.find_duplicates(found, cache=Cache()))


@pytest.fixture(scope="module")
def table(photos: Path) -> Catalog:
    return divided(photos)


def recipe(**settings: Any) -> Recipe:
    return Recipe(method="scratch", backbone="cnn(filters=[8, 16])", image_size=16, settings={**SETTINGS, **settings})


@pytest.fixture(scope="module")
def done(table: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_command.train(table, recipe(), tmp_path_factory.mktemp("runs") / "first")


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def interrupt(table: Catalog, asked: Recipe, out: Path, step: int = 5) -> None:
    """Interrupt a training, with a checkpoint after every step."""

    def progress(stage: str, number: int, total: int) -> None:
        if stage.startswith("training") and number == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train_command.train(table, asked, out, progress=progress)


def test_a_training_run_has_the_documented_files(done: Run) -> None:
    history, gradients = rows(done.folder / "history.csv"), rows(done.folder / "gradients.csv")
    assert [r["epoch"] for r in history] == ["1", "2", "3"] == sorted({r["epoch"] for r in gradients})
    layers = [r["layer"] for r in gradients if r["epoch"] == "1"]
    assert layers[0] == "blocks.0" and layers[-1] == "classifier" and all(float(r["norm"]) > 0 for r in gradients)
    assert (done.folder / "events.out.tfevents.sightline").read_bytes().count(b"val/accuracy") == 3
    environment = done.data["environment"]
    assert environment["threads"] >= 1 and environment["instruction_set"] and environment["versions"]["torch"]
    assert [f.name for f in (done.folder / "checkpoint").iterdir()] == [checkpoint.FILE]


def test_resumed_runs_equal_uninterrupted_ones(table: Catalog, done: Run, tmp_path: Path) -> None:
    interrupt(table, recipe(), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    steps: list[int] = []

    def progress(stage: str, number: int, total: int) -> None:
        if stage.startswith("training"):
            steps.append(number)

    again = train_command.train(table, recipe(), tmp_path / "run", resume=True, progress=progress)
    assert steps[0] == 5 and again.data["id"] == done.data["id"]
    for name in ("classifier.safetensors", "gradients.csv", "predictions/val.csv"):
        assert (again.folder / name).read_bytes() == (done.folder / name).read_bytes(), name
    assert [{**r, "seconds": ""} for r in rows(again.folder / "history.csv")] == [
        {**r, "seconds": ""} for r in rows(done.folder / "history.csv")
    ]


def test_an_interrupted_training_restarts_without_resume_with_a_note(
    table: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(table, recipe(), tmp_path / "run")
    assert "were deleted" not in caplog.text
    steps: list[int] = []
    train_command.train(
        table, recipe(), tmp_path / "run", progress=lambda s, n, t: steps.append(n) if s.startswith("training") else None
    )
    assert steps[0] == 1
    assert "were deleted; use --resume to continue such a training" in caplog.text


def test_resume_without_a_checkpoint_starts_anew_with_a_note(
    table: Catalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_command.train(table, recipe(epochs=1), tmp_path / "run", resume=True)
    assert "no interrupted training to resume" in caplog.text


def test_resuming_another_recipe_is_refused_with_the_difference(table: Catalog, photos: Path, tmp_path: Path) -> None:
    interrupt(table, recipe(), tmp_path / "run")
    with pytest.raises(RequestError, match=r"learning_rate null, now 0\.01") as error:
        train_command.train(table, recipe(learning_rate=0.01), tmp_path / "run", resume=True)
    assert error.value.hint is not None and "--resume" in error.value.hint
    with pytest.raises(RequestError, match="without 7, 8, 9"):
        train_command.train(fewer(photos, tmp_path, 7), recipe(), tmp_path / "run", resume=True)
    with pytest.raises(RequestError, match="other images, or another split"):
        train_command.train(divided(photos, 1), recipe(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint" / checkpoint.FILE).is_file()  # what was kept is kept


def fewer(photos: Path, place: Path, classes: int) -> Catalog:
    for label in range(classes):
        shutil.copytree(photos / str(label), place / "fewer" / str(label))
    return divided(place / "fewer")


# --------------------------------------------------------------------------------------------------------------- continued


def optimizer_steps(file: Path) -> float:
    with safe_open(file, framework="np") as opened:
        return float(opened.get_tensor("optimizer/0/step"))


def test_a_finished_run_can_be_continued(table: Catalog, done: Run, tmp_path: Path) -> None:
    longer = train_command.train(table, recipe(epochs=2), tmp_path / "longer", continued=done)
    history, before = rows(longer.folder / "history.csv"), rows(done.folder / "history.csv")
    assert history[:3] == before and [r["epoch"] for r in history] == ["1", "2", "3", "4", "5"]
    assert float(history[3]["learning_rate"]) > float(history[2]["learning_rate"])  # the course begins anew
    assert float(history[4]["learning_rate"]) < 1e-4
    assert float(history[4]["train_loss"]) < float(history[2]["train_loss"])
    assert longer.data["continued"] == {"run": done.folder.as_posix(), "epochs": 3}
    assert longer.data["epochs"] == 5 and longer.data["id"] != done.data["id"]
    steps = done.data["steps"]
    assert longer.data["steps"] == steps * 5 // 3
    assert optimizer_steps(longer.folder / "checkpoint" / checkpoint.FILE) == steps * 5 // 3  # its own went on, too
    assert [r["epoch"] for r in rows(longer.folder / "gradients.csv")][-1] == "5"


def test_a_continued_run_can_be_interrupted_and_resumed(table: Catalog, done: Run, tmp_path: Path) -> None:
    whole = train_command.train(table, recipe(epochs=2), tmp_path / "whole", continued=done)

    def progress(stage: str, number: int, total: int) -> None:
        if stage.startswith("training") and number == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train_command.train(table, recipe(epochs=2), tmp_path / "run", continued=done, progress=progress)
    with pytest.raises(RequestError, match="another run to continue from"):
        train_command.train(table, recipe(epochs=2), tmp_path / "run", resume=True)
    again = train_command.train(table, recipe(epochs=2), tmp_path / "run", continued=done, resume=True)
    name = "classifier.safetensors"
    assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert [f.name for f in (again.folder / "checkpoint").iterdir()] == [checkpoint.FILE]


def test_runs_that_cannot_be_continued_are_refused(table: Catalog, done: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has the classes 0, 1") as error:
        train_command.train(fewer(photos, tmp_path, 7), recipe(), tmp_path / "a", continued=done)
    assert error.value.hint is not None and "warmstart" in error.value.hint
    other = Recipe(method="scratch", backbone="cnn(filters=[8, 8])", image_size=16, settings=SETTINGS)
    with pytest.raises(RequestError, match="other layers"):
        train_command.train(table, other, tmp_path / "b", continued=done)
    plain = train_command.train(table, Recipe(method="baseline"), tmp_path / "c")
    assert not (plain.folder / "checkpoint").exists()
    with pytest.raises(RequestError, match="has no checkpoint to continue from"):
        train_command.train(table, recipe(), tmp_path / "d", continued=plain)


def test_notes_of_a_continued_run_name_a_changed_optimizer_and_other_validation_images(
    photos: Path, done: Run, tmp_path: Path
) -> None:
    table = divided(photos, 1)
    again = train_command.train(table, recipe(epochs=1, optimizer="sgd"), tmp_path / "run", continued=done)
    note = again.data["ladder"][0]["note"]
    assert "the state of the optimizer is reset" in note and "evaluated on other images or metrics" in note


def test_continue_takes_catalog_and_recipe_from_the_run(done: Run, cli: Any, tmp_path: Path) -> None:
    ended = cli("train", "--continue", str(done.folder), "--epochs", "2", "-o", "longer", "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert value["epochs"] == 5 and value["run"] == "longer"
    assert read_recipe(tmp_path / "longer" / "recipe.toml").settings["epochs"] == 2
    missing = cli("train")
    assert missing.code == 2 and "CATALOG" in missing.err


def test_the_best_epoch_is_printed(done: Run, table: Catalog, tmp_path: Path) -> None:
    best, history = done.data["best_epoch"], rows(done.folder / "history.csv")
    accuracy = float(history[best - 1]["val_accuracy"])
    assert done.data["course"].startswith(f"Kept epoch {best} of 3 (val accuracy {accuracy:.2f}")
    assert done.data["course"].count("last epoch's") == (best != 3)
    worse = train_command.train(
        table, recipe(epochs=1, learning_rate=5.0, clip_norm=0, warm_up=0.0), tmp_path / "b", continued=done
    )
    assert worse.data["best_epoch"] == best
    shown = train_cli.no_better_epoch(worse)
    assert "None of the new epochs (1) was better" in shown and "the classifier is unchanged" in shown
    assert train_cli.no_better_epoch(done) == ""


def test_a_training_stopped_by_the_budget_has_a_note(table: Catalog, cache: Any) -> None:
    now = [0.0]

    def epoch_takes_10_s(share: float, accuracy: float) -> None:
        now[0] += 10

    deadline = Deadline(15.0, lambda: now[0])
    context = Context(table, np.arange(len(table)), table.classes, cache, deadline=deadline, watch=epoch_takes_10_s)
    best = from_scratch.fit(context, recipe(epochs=50))[0]
    assert best.course is not None and best.course.startswith(
        "Stopped by the time budget (14 s) after epoch 1 of 50. Kept epoch 1 of 1 "
    )


@pytest.mark.slow
def test_a_second_training_resumes_and_a_refitted_run_continues(table: Catalog, tmp_path: Path) -> None:
    asked = recipe(refit=True, keep="last")
    whole = train_command.train(table, asked, tmp_path / "whole")
    assert whole.data["epochs"] == 3 and "trained again on train and val together" in whole.data["ladder"][0]["note"]
    first_steps = 0

    def progress(stage: str, number: int, total: int) -> None:
        nonlocal first_steps
        first_steps += stage.startswith("training") and number == 2
        if stage.startswith("training") and number == 4 and first_steps == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train_command.train(table, asked, tmp_path / "again", progress=progress)
    again = train_command.train(table, asked, tmp_path / "again", resume=True)
    weights = [run.data["network"]["weights_hash"] for run in (whole, again)]
    assert weights[0] == weights[1]
    longer = train_command.train(table, recipe(refit=True, keep="last", epochs=1), tmp_path / "longer", continued=whole)
    assert longer.data["best_epoch"] == 4 and "for 4 epochs" in longer.data["ladder"][0]["note"]


# -------------------------------------------------------------------------------------------------------------- the finder


def test_find_rate_suggests_a_rate_and_writes_the_plot(table: Catalog, tmp_path: Path) -> None:
    found = find_lr.find_lr(table, recipe(), tmp_path / "plots" / "rate.svg")
    drawn = (tmp_path / "plots" / "rate.svg").read_text(encoding="utf-8")
    assert f"suggestion {found.suggestion:g}" in drawn and "learning rate" in drawn and 1e-5 < found.suggestion < 1
    with pytest.raises(RequestError, match=r"rate\.pdf"):
        find_lr.find_lr(table, recipe(), tmp_path / "rate.pdf")
    with pytest.raises(RequestError, match="features has no learning rate to find"):
        find_lr.find_lr(table, Recipe(), tmp_path / "rate.svg")


def test_gradients_of_two_runs_are_drawn(done: Run, tmp_path: Path) -> None:
    read = line_plots.read_gradients(done.folder)
    assert read[0]["epoch"] == 1 and isinstance(read[0]["norm"], float)
    line_plots.gradient_plot({"plain": read, "residual": read}, tmp_path / "a.png", epoch=3)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    line_plots.gradient_plot({"plain": read}, tmp_path / "a.svg")
    line_plots.gradient_plot({"plain": read}, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(DataError, match="no gradients of epoch 9"):
        line_plots.gradient_plot({"plain": read}, tmp_path / "c.svg", epoch=9)
    with pytest.raises(DataError, match=r"no gradients\.csv"):
        line_plots.read_gradients(tmp_path)


# -------------------------------------------------------------------------------------------------------------- large sets


def test_large_sets_are_decoded_into_a_file(table: Catalog, cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    usable = table.usable()
    context = Context(usable, np.arange(len(usable)), usable.classes, cache)
    rows_, in_memory = decoded_images.decode(context, context.split("train"), fit_network.preprocess(16), {})
    monkeypatch.setattr(decoded_images, "LARGE_BYTES", 1000)
    again, mapped = decoded_images.decode(context, context.split("train"), fit_network.preprocess(16), {})
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, in_memory) and np.array_equal(rows_, again)
    assert [p for p in cache.root.rglob("*") if p.is_file()] == []  # the file has no name, and nobody need remove it


def test_undecodable_images_are_left_out_of_the_decoded_array(photos: Path, tmp_path: Path, cache: Any) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    table = divided(tmp_path / "photos")
    usable = table.usable()
    context = Context(usable, np.arange(len(usable)), usable.classes, cache)
    train = context.split("train")
    _, whole = decoded_images.decode(context, train, fit_network.preprocess(16), {})
    for at in (0, 5):
        usable.files()[train[at]].write_bytes(b"no image")
    lost: dict[str, list[dict[str, str]]] = {}
    rows_, found = decoded_images.decode(context, train, fit_network.preprocess(16), lost)
    kept = [i for i in range(len(train)) if i not in (0, 5)]
    assert np.array_equal(rows_, train[kept]) and np.array_equal(found, whole[kept]) and len(lost["train"]) == 2


def test_without_disk_space_decoded_images_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_images, "LARGE_BYTES", 10)
    monkeypatch.setattr(decoded_images.os, "posix_fallocate", full, raising=False)
    assert type(decoded_images.room((2, 4, 4, 3), tmp_path)) is np.ndarray
    assert "No space left" in caplog.text


def test_images_that_fit_neither_disk_nor_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_images, "LARGE_BYTES", 10)
    monkeypatch.setattr(decoded_images.os, "posix_fallocate", full, raising=False)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 50)
    with pytest.raises(DataError, match="fit neither into"):
        decoded_images.room((2, 4, 4, 3), tmp_path)


def test_images_that_exceed_memory_are_refused_before_decoding(
    table: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 10**9)
    large = Recipe(method="scratch", backbone="cnn(filters=[8, 16])", image_size=2000, settings=SETTINGS)
    with pytest.raises(RequestError, match=r"images of 2000×2000 px needs .* GB of memory, and this machine has 1 GB"):
        train_command.train(table, large, tmp_path / "run", device="cpu", progress=lambda stage, *_: told.append(stage))
    assert not any(stage.startswith("decoding") for stage in told)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: None)  # as on Windows
    fit_network.check_memory("cnn", 4096, 64, 2)


def test_an_invalid_recipe_is_refused_before_images_are_read(table: Catalog, done: Run, tmp_path: Path) -> None:
    told: list[str] = []
    for changes, words in (({"epochs": "abc"}, "'epochs'"), ({"augment": "foto"}, "foto")):
        for folder in (done.folder, tmp_path / "new"):
            with pytest.raises(RequestError, match=words):
                train_command.train(table, recipe(**changes), folder, progress=lambda stage, *_: told.append(stage))
    assert not any(stage.startswith("decoding") for stage in told) and not (tmp_path / "new").exists()
    with pytest.raises(RequestError, match="resnet19"):
        train_command.train(table, Recipe(method="scratch", backbone="resnet19"), done.folder)
    with pytest.raises(RequestError, match="has another recipe"):
        train_command.train(table, recipe(epochs=7), done.folder)


def test_finishing_deletes_the_checkpoint_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoint" / "seed-0").mkdir(parents=True)
    (tmp_path / "checkpoint" / "request.json").write_text("{}", encoding="utf-8")
    resume.finish(tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
