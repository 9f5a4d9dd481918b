"""Run folder: its files, written so that `run.json` comes last."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import tomli_w

from sightline import catalog as catalogs
from sightline import evaluation
from sightline.files import read_text
from sightline.records import Catalog, Predictions, Recipe, Run, RunRecord, Scores
from sightline.records.error_analysis import Mistake
from sightline.records.heatmaps import ExplainedImage
from sightline.runs import progress_file
from sightline.schema import command_line, csv_escape
from sightline.store import digest, lock_folder, plain, write_bytes, write_json, write_text
from sightline.training import events
from sightline.training.context import Candidate

P = ParamSpec("P")
T = TypeVar("T")

FEW = 200
"""Number of test images below which a cross-validation is suggested."""
MOST_LISTED = 200
"""Maximal length of lists in run.json; the tables beside it are complete."""


_locks: ContextVar[contextlib.ExitStack] = ContextVar("_locks")


def releasing(command: Callable[P, T]) -> Callable[P, T]:
    """Return a command that releases the locks taken with `lock` when it ends."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with contextlib.ExitStack() as stack:
            token = _locks.set(stack)
            try:
                return command(*args, **kwargs)
            finally:
                _locks.reset(token)

    return run


def lock(folder: Path, *, depth: int = 3) -> None:
    """Lock an output folder until the `releasing` command ends; see `store.lock_folder`.

    Raises:
        RequestError: If another process writes into it.
    """
    stack = _locks.get()
    stack.enter_context(lock_folder(folder, depth=depth))
    progress_file.attach(folder)
    stack.callback(progress_file.leave, folder)


def default(name: str, record: str, asked: Mapping[str, Any]) -> Path:
    """Return the default folder of a result: `runs/NAME`, with six digits appended if that holds another result.

    Args:
        name: Name of the result.
        record: JSON file in the folder that identifies the request, such as `run.json`.
        asked: Keys of that file and their values in this request.
    """
    folder = Path("runs") / name
    try:
        held = json.loads(read_text(folder / record))
        same = all(held.get(key) == value for key, value in plain(asked).items())
    except FileNotFoundError:
        same = True
    except (OSError, ValueError, AttributeError):
        same = False
    return folder if same else Path("runs") / f"{name}-{digest(asked)[:6]}"


def toml(recipe: Recipe) -> str:
    """Return a recipe as TOML, which reads back as an equal recipe."""
    fields = plain(recipe)
    settings = {key: value for key, value in fields.pop("settings").items() if value is not None}
    top = {key: value for key, value in fields.items() if value is not None}
    return tomli_w.dumps({**top, **({"settings": settings} if settings else {})})


def write_history(folder: Path, candidate: Candidate) -> str | None:
    """Write `history.csv`, `gradients.csv` and an event file for TensorBoard.

    Returns:
        The name of the first file; None if there is no history.
    """
    if not candidate.history:
        return None
    write_text(folder / "history.csv", table(candidate.history))
    if candidate.gradients:
        write_text(folder / "gradients.csv", table(candidate.gradients))
    write_bytes(folder / events.FILE_NAME, events.of_history(candidate.history, candidate.gradients, time.time()))
    return "history.csv"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as CSV text."""
    text = io.StringIO()
    out = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    out.writeheader()
    out.writerows({key: csv_escape(v) if isinstance(v, str) else v for key, v in row.items()} for row in rows)
    return text.getvalue()


def write_candidate(folder: Path, candidate: Candidate, catalog: Catalog, test: Predictions | None) -> str | None:
    """Write the chosen classifier, its recipe, catalog, predictions and training history.

    Returns:
        The file of the training history; None if there is none.
    """
    card = candidate.classifier.card
    candidate.classifier.save(folder / "classifier.safetensors")
    write_text(folder / "recipe.toml", toml(card.recipe))
    catalogs.save(catalog, folder / "catalog.csv")
    write_text(folder / "predictions" / f"{candidate.answers_name}.csv", candidate.val.to_csv())
    of_val = set(catalog.where(split="val").paths)
    rows = np.array([path in of_val for path in candidate.val.paths], dtype=bool)
    if candidate.answers_name != "val" and rows.any():  # the same images that a network is judged on
        write_text(folder / "predictions" / "val.csv", candidate.val.select(rows).to_csv())
    if test is not None:
        write_text(folder / "predictions" / "test.csv", test.to_csv())
    return write_history(folder, candidate)


def clusters_of(catalog: Catalog, cluster: np.ndarray, answers: Predictions) -> np.ndarray:
    """Return int64 (n,): the cluster (duplicates, or same `group`) of each predicted image.

    Args:
        catalog: All rows.
        cluster: int64 (rows,), clusters from `catalog.together`.
        answers: Predictions of n of its images.
    """
    of = dict(zip(catalog.paths, cluster.tolist(), strict=True))
    return np.array([of[path] for path in answers.paths], dtype=np.int64)


def write_curves(
    folder: Path, split: str, answers: Predictions | None, scores: Scores | None, criterion: str | None = None
) -> None:
    """Write the points of every curve of one split as `curves/SPLIT_CURVE.csv`.

    Args:
        folder: The run folder.
        split: `val`, `cross_validated` or `test`.
        answers, scores: Predictions and scores; nothing is written if one is None.
        criterion: Criterion of the threshold; its costs are used in `thresholds`.
    """
    if answers is None or scores is None:
        return
    for name, rows in evaluation.curve_tables(answers, scores.to_json(), criterion or evaluation.HALF).items():
        write_text(folder / "curves" / f"{split}_{name}.csv", table(rows))


def crossvalidate(catalog: Path | str, folder: Path, test: Predictions | None, *, again: Recipe | None = None) -> str | None:
    """Return the command for a cross-validation if the test split is small; None otherwise.

    Args:
        catalog: Catalog of the images.
        folder: The run folder, which holds the recipe.
        test: Predictions of the test images.
        again: Recipe to cross-validate instead of that of the run, whose head was selected on the same images. It is written
            into the folder.
    """
    if test is None or not 0 < len(test) < FEW:
        return None
    file = folder / ("recipe.toml" if again is None else "crossvalidate.toml")
    if again is not None:
        write_text(file, toml(again))
    return command_line("sightline", "evaluate", str(catalog), str(file), *("--folds", "5", "--repeats", "2"))


def finish(folder: Path, record: RunRecord) -> Run:
    """Write `mistakes.csv`, then `run.json`, which marks the run as finished."""
    write_mistakes(folder, record.mistakes, record.explanations)
    write_json(folder / "run.json", plain(record.to_json()))
    return Run.load(folder)


def write_mistakes(folder: Path, mistakes: Sequence[Mistake], explained: Sequence[ExplainedImage]) -> None:
    """Write `mistakes.csv`: every misclassified image, most confident first, with the file of its heatmap if there is one."""
    heatmaps = {entry.path: entry.overlay for entry in explained}
    columns = ("path", "label", "predicted", "probability")
    rows = [{**{name: getattr(m, name) for name in columns}, "heatmap": heatmaps.get(m.path) or ""} for m in mistakes]
    write_text(folder / "mistakes.csv", table(rows) if rows else ",".join([*columns, "heatmap"]) + "\n")
