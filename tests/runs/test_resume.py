"""A run interrupted in a long candidate resumes at the same step, with bit-identical results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline import catalog as catalogs
from sightline.commands import run as run_command
from sightline.deadline import Deadline
from sightline.records import Recipe
from sightline.runs import candidates, plan
from sightline.runs import resume as resuming
from sightline.store import Cache
from sightline.training import backbone_head as stacks
from sightline.training import checkpoint, methods
from sightline.training.context import Context
from tests.conftest import write_few_digits

SCRATCH = Recipe(method="scratch", backbone="cnn(filters=[8])", image_size=16, settings={"epochs": 4, "batch_size": 16})
TUNED = Recipe("finetune", "resnet10t", weights="random", image_size=32, settings={"epochs": 9, "batch_size": 32})


def interrupt_at(step: int, told: list[int]) -> object:
    """A progress that falls in the midst of a training, and notes the steps before."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage.startswith("training"):
            told.append(done)
            if done == step:
                raise KeyboardInterrupt

    return progress


@pytest.mark.slow
def test_an_interrupted_candidate_resumes_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    photos, cache = write_few_digits(tmp_path / "digits", 10), Cache(tmp_path / "cache")
    asked = plan.Request(
        photos=str(photos), out=str(tmp_path / "a"), recipe=SCRATCH, methods=("baseline", "scratch"), heatmaps="none"
    )
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_command.run(asked, cache=cache, progress=interrupt_at(6, told))  # type: ignore[arg-type]
    (folder,) = (tmp_path / "a").iterdir()
    assert list((folder / resuming.FOLDER).glob(f"scratch-*/{checkpoint.FILE}")) and not (folder / "run.json").exists()
    told.clear()
    resumed = dataclasses.replace(asked, resume=True)
    done = run_command.run(resumed, cache=cache, progress=interrupt_at(-1, told))  # type: ignore[arg-type]
    assert told[0] == 6 and done.folder == folder and not (folder / resuming.FOLDER).exists()
    whole = run_command.run(dataclasses.replace(asked, out=str(tmp_path / "b")), cache=Cache(tmp_path / "other"))
    for name in ("classifier.safetensors", "predictions/val.csv", "predictions/test.csv"):
        assert (done.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_without_resume_checkpoints_are_deleted(tmp_path: Path) -> None:
    file = tmp_path / resuming.FOLDER / "scratch-1" / checkpoint.FILE
    for resume in (True, False):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        assert resuming.begin_run(tmp_path, resume=resume) == tmp_path / resuming.FOLDER
        assert file.exists() == resume


def given(context: Context, recipe: Recipe) -> Context:
    return candidates._given(context, recipe, Deadline.after(5.0), [], True)


def test_every_candidate_has_its_own_checkpoint_folder(tmp_path: Path) -> None:
    context = Context(
        catalogs.scan(write_few_digits(tmp_path / "d", 2)), np.zeros(20), (), Cache(tmp_path), checkpoint=tmp_path / "kept"
    )
    recipes = [SCRATCH, dataclasses.replace(SCRATCH, backbone="resnet18"), TUNED]
    places = [given(context, recipe) for recipe in recipes]
    assert len({g.checkpoint for g in places}) == 3 and all(g.checkpoint.parent == tmp_path / "kept" for g in places)  # type: ignore[union-attr]
    assert given(context, SCRATCH).checkpoint == places[0].checkpoint  # the same step again
    assert given(dataclasses.replace(context, checkpoint=None), SCRATCH).checkpoint is None


@pytest.mark.slow
def test_a_resumed_fine_tuning_keeps_its_number_of_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of epochs that fit is measured once; a resumed training keeps it."""
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    cache, found = Cache(tmp_path / "cache"), catalogs.scan(write_few_digits(tmp_path / "digits", 6))
    divided = catalogs.split(found, clusters=catalogs.find_duplicates(found, cache))
    ends = Deadline.after(100_010.0)
    context = Context(divided, np.arange(len(divided)), divided.classes, cache, deadline=ends, checkpoint=tmp_path / "kept")
    monkeypatch.setattr(stacks, "cost", lambda *_: stacks.Cost(25_000.0, 10.0))  # 3 epochs, by the clock as it is now
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        methods.fit(dataclasses.replace(context, progress=interrupt_at(3, told)), TUNED)  # type: ignore[arg-type]
    monkeypatch.setattr(stacks, "cost", lambda *_: stacks.Cost(80_000.0, 10.0))  # 1 epoch, on a busier machine
    told.clear()
    best = methods.fit(dataclasses.replace(context, progress=interrupt_at(-1, told)), TUNED)[0]  # type: ignore[arg-type]
    assert told[0] == 3 and "3 of 9 epochs, by the time budget" in str(best.note)
    assert [row["epoch"] for row in best.history] == [0, 1, 2, 3]
