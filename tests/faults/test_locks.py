"""Locks of output folders: a second writer is refused, and a killed one leaves no lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sightline import catalog as catalogs
from sightline.commands import cross_validate, learning_curve, sweep, tune
from sightline.commands import evaluate as evaluate_command
from sightline.commands import explain as explain_command
from sightline.commands import train as train_command
from sightline.errors import RequestError, SightlineError
from sightline.records import Catalog, Recipe
from sightline.store import LOCK, OUTPUT_MARK, Cache, atomic_file, lock_folder
from tests.conftest import write_few_digits

PIXELS = Recipe(method="features", backbone="pixels", head="ridge", image_size=8)
HOLDER = """
import sys, time
from pathlib import Path
from sightline.store import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_refused_while_another_process_writes_and_free_once_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        words = rf"is being written by another sightline process \(PID {holder.pid}\)"
        with pytest.raises(RequestError, match=words), lock_folder(folder):
            raise AssertionError("the folder was locked twice")
        holder.kill()
    with lock_folder(folder):
        (folder / "x").write_text("x", encoding="utf-8")
    assert sorted(f.name for f in folder.iterdir()) == [OUTPUT_MARK, LOCK, "x"]


def test_an_empty_output_folder_is_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RequestError), lock_folder(tmp_path / "run"):
        raise RequestError("the recipe is wrong")
    assert not (tmp_path / "run").exists()


def test_temporary_files_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    ours = [tmp_path / f".report.html.{'0a' * 6}.tmp", tmp_path / "curves" / f".val_roc.csv.{'1b' * 6}.tmp"]
    others = [tmp_path / ".mine.tmp", tmp_path / "notes.tmp", tmp_path / "run-2" / f".run.json.{'2c' * 6}.tmp"]
    for file in (*ours, *others, tmp_path / "run-2" / LOCK):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    with lock_folder(tmp_path):
        assert [f.exists() for f in ours] == [False, False] and all(f.exists() for f in others)


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, atomic_file(tmp_path / "report.html"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == str(tmp_path / "report.html")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    found = catalogs.scan(write_few_digits(tmp_path_factory.mktemp("photos") / "digits", 10))
    return catalogs.split(found, seed=0, clusters=catalogs.find_duplicates(found, cache=Cache()))


VERBS: dict[str, Callable[[Catalog, Path], object]] = {
    "train": lambda table, out: train_command.train(table, PIXELS, out),
    "sweep": lambda table, out: sweep.sweep(table, PIXELS, {"head": ["ridge", "knn"]}, out),
    "tune": lambda table, out: tune.tune(table, PIXELS, out, trials=1),
    "cross-validate": lambda table, out: cross_validate.cross_validate(table, PIXELS, out, folds=2),
    "learning curve": lambda table, out: learning_curve.learning_curve(table, PIXELS, out),
    "evaluate": lambda table, out: evaluate_command.evaluate("answers.csv", str(table.root), out=str(out)),
    "explain": lambda table, out: explain_command.explain(str(out.parent / "trained"), [str(table.files()[0])], out=str(out)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_writes_a_folder_refuses_one_that_is_being_written(verb: str, table: Catalog, tmp_path: Path) -> None:
    if verb == "explain":
        train_command.train(table, PIXELS, tmp_path / "trained")
    out = tmp_path / "out"
    with lock_folder(out), pytest.raises(RequestError, match=rf"out is being written .*PID {os.getpid()}"):
        VERBS[verb](table, out)


def test_a_finished_training_without_a_page_gets_one(table: Catalog, tmp_path: Path) -> None:
    done = train_command.train(table, PIXELS, tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    page.unlink()
    before = (done.folder / "run.json").read_bytes()
    train_command.train(table, PIXELS, tmp_path / "run")
    assert page.is_file() and (done.folder / "run.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_of_two_trainings_at_once_one_is_carried_out_and_the_other_refused(table: Catalog, tmp_path: Path) -> None:
    catalogs.save(table, tmp_path / "c.csv")
    recipe = 'method = "features"\nbackbone = "pixels"\nhead = "ridge"\nseed = {}\n'
    command = [sys.executable, "-m", "sightline", "train", "c.csv"]
    for seed in (1, 2):
        (tmp_path / f"{seed}.toml").write_text(recipe.format(seed), encoding="utf-8")
    pair = [
        subprocess.Popen([*command, f"{seed}.toml", "-o", "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for seed in (1, 2)
    ]
    ended = [(p.communicate(timeout=300)[1], p.returncode) for p in pair]
    assert sorted(code for _, code in ended) == [0, 2], ended
    assert "Traceback" not in ended[0][0] + ended[1][0]
    killed = subprocess.Popen([*command, "1.toml", "-o", "killed"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (tmp_path / "killed" / LOCK).exists() and killed.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert subprocess.run([*command, "1.toml", "-o", "killed"], cwd=tmp_path, check=False).returncode == 0


def test_a_database_of_a_search_that_cannot_be_used_is_named(table: Catalog, tmp_path: Path) -> None:
    tune.tune(table, PIXELS, tmp_path / "tuned", trials=1)
    (tmp_path / "tuned" / "optuna.db").write_bytes(b"no database" * 1000)
    with pytest.raises(SightlineError, match=r"tuned.optuna\.db cannot be read or written \(file is not a database\)"):
        tune.tune(table, PIXELS, tmp_path / "tuned", trials=2)
