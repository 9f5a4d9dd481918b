"""Run folder: its files, written so that `run.json` comes last."""

from __future__ import annotations

import contextlib
import csv
import datetime
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

from sightline import __version__, evaluation
from sightline import catalog as catalogs
from sightline.files import read_text
from sightline.records import Catalog, Predictions, Recipe, Run
from sightline.records.run import check_complete
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
    _locks.get().enter_context(lock_folder(folder, depth=depth))


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


def now() -> str:
    """Return the local time in ISO 8601 with its UTC offset, in seconds."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


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


def write_candidate(folder: Path, candidate: Candidate, catalog: Catalog, test: Predictions | None) -> dict[str, Any]:
    """Write the chosen classifier, its recipe, catalog, predictions and training history.

    Returns:
        The keys of run.json about the classifier.
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
    return {
        "classes": list(card.classes),
        "positive": card.positive,
        "method": card.method,
        "backbone": card.backbone.name,
        "head": card.head,
        "network": network_facts(candidate),
        "precision": dict(card.precision),
        "calibration": {"temperature": card.temperature, "fitted_on": candidate.estimate},
        "threshold": {
            "value": card.threshold,
            "by": card.threshold_by,
            "positive": card.positive,
            "fitted_on": candidate.estimate,
        },
        "history": write_history(folder, candidate),
        "overfitting": candidate.overfitting,
        "epochs": sum(row.get("epoch", 1) > 0 for row in candidate.history),
        "best_epoch": candidate.detail.get("best_epoch"),
        "course": candidate.course,
        "steps": candidate.steps,
    }


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
    folder: Path, split: str, answers: Predictions | None, scores: Mapping[str, Any] | None, by: str = "half"
) -> None:
    """Write the points of every curve of one split as `curves/SPLIT_CURVE.csv`.

    Args:
        folder: The run folder.
        split: `val`, `cross_validated` or `test`.
        answers, scores: Predictions and scores; nothing is written if one is None.
        by: Criterion of the threshold; its costs are used in `thresholds`.
    """
    if answers is None or not scores:
        return
    for name, rows in evaluation.curve_tables(answers, scores, by).items():
        write_text(folder / "curves" / f"{split}_{name}.csv", table(rows))


def network_facts(candidate: Candidate) -> dict[str, Any]:
    """Return size, weights, licence and origin of the network."""
    b = candidate.classifier.card.backbone
    facts = {"name": b.name, "parameters": b.parameters, "features": b.features, "weights": b.weights}
    origin = {"weights_hash": b.weights_hash, "licence": b.licence, "origin": b.origin, "pretrained_on": b.pretrained_on}
    return {**facts, **origin, "preprocess": plain(b.preprocess)}


def rung(candidate: Candidate, chosen: bool, groups: np.ndarray, decided: Candidate | None = None) -> dict[str, Any]:
    """Return the entry of a candidate in run.json.

    Args:
        candidate: The candidate.
        chosen: Whether it was chosen.
        groups: Clusters of its held-out images, from `clusters_of`.
        decided: The chosen candidate with its threshold. The entry holds the accuracy used for the choice, and `at_bar` the
            accuracy at the threshold.
    """
    card, val = candidate.classifier.card, candidate.val
    at_bar = None
    if decided is not None and decided.val.threshold is not None:
        own = decided.classifier.card
        there = _accuracy(decided.val, groups, own.positive)
        at_bar = {"n": len(val), "threshold": own.threshold, "by": own.threshold_by, "positive": own.positive, **there}
    return {
        "method": card.method,
        "backbone": card.backbone.name,
        "head": card.head,
        "label": candidate.label,
        "val": {
            "n": len(val),
            **_accuracy(val, groups, card.positive),
            "log_loss": candidate.val_log_loss,
            "estimate": candidate.estimate,
        },
        "at_bar": at_bar,
        "seconds": candidate.seconds,
        "chosen": chosen,
        "note": candidate.note,
        "parameters": card.backbone.parameters + int(sum(np.size(a) for a in candidate.classifier.head.arrays.values())),
        "settings": dict(candidate.classifier.head.settings),
    }


def _accuracy(val: Predictions, groups: np.ndarray, positive: str | None) -> dict[str, float]:
    """Return the accuracy with its 95 % interval."""
    right = int((val.y_pred == val.y_true).sum())
    low, high = evaluation.accuracy_interval(val, groups, positive=positive)
    return {"accuracy": right / len(val), "accuracy_low": low, "accuracy_high": high}


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
    return command_line("sightline", "evaluate", str(catalog), str(file), "--folds", "5", "--repeats", "2")


def finish(folder: Path, data: Mapping[str, Any]) -> Run:
    """Write `mistakes.csv`, then `run.json`, which marks the run as finished.

    Raises:
        RequestError: If the data are no complete record of a run.
    """
    data = plain(data)
    check_complete(data)
    if "mistakes" in data:
        write_mistakes(folder, data["mistakes"], data.get("explanations") or [])
    write_json(folder / "run.json", data)
    return Run.load(folder)


def write_mistakes(folder: Path, mistakes: Sequence[Mapping[str, Any]], explained: Sequence[Mapping[str, Any]]) -> None:
    """Write `mistakes.csv`: every misclassified image, most confident first, with the file of its heatmap if there is one.

    Args:
        folder: The run folder.
        mistakes: Misclassified images, as in `evaluation.mistakes`.
        explained: Explanations, as in run.json.
    """
    heatmaps = {entry["path"]: entry["overlay"] for entry in explained}
    columns = ("path", "label", "predicted", "probability")
    rows = [{**{name: m[name] for name in columns}, "heatmap": heatmaps.get(m["path"], "")} for m in mistakes]
    write_text(folder / "mistakes.csv", table(rows) if rows else ",".join([*columns, "heatmap"]) + "\n")


def head(kind: str, name: str, identity: str) -> dict[str, Any]:
    """Return the first keys of run.json."""
    return {
        "version": 1,
        "sightline": __version__,
        "kind": kind,
        "name": name,
        "created": now(),
        "id": identity,
        "command": "",
    }
