"""What `--json` prints, as a projection of what the verbs return. Fields are only ever added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sightline import evaluation
from sightline.records import Catalog, Predictions, Run

if TYPE_CHECKING:
    from sightline.evaluation import conformal

_RUN_TEST = ("n", "accuracy", "accuracy_low", "accuracy_high")
MOST_FILES = 200
"""Unusable files that `scan --json` names; the table names them all."""


def _score_fields() -> tuple[str, ...]:
    """Return the fields of scores: every metric of the registry with its interval, and what explains them."""
    numbers = (f"{name}{end}" for name in evaluation.METRICS for end in ("", "_low", "_high"))
    return ("n", *numbers, "positive", "inverted", "reasons", "intervals", "clusters", "per_class")


def of_run(run: Run) -> dict[str, Any]:
    """`run`, `demo`."""
    data = run.data
    return {
        "run": str(run.folder),
        "report": str(run.folder / "report.html"),
        "classifier": str(run.classifier_file),
        **{key: data.get(key) for key in ("method", "backbone", "head", "val_estimate")},
        "val": _pick(data.get("val"), ("n", "accuracy", "accuracy_low", "accuracy_high")),
        "test": _pick(data.get("test"), _RUN_TEST),
        "test_without_leaks": _pick(data.get("test_without_leaks"), _RUN_TEST),
        "seconds": data.get("seconds"),
    }


def of_training(run: Run) -> dict[str, Any]:
    """`train`."""
    data = run.data
    return {
        "run": str(run.folder),
        "classifier": str(run.classifier_file),
        "method": data.get("method"),
        "val_estimate": data.get("val_estimate"),
        "val": _pick(data.get("val"), ("n", "accuracy", "accuracy_low", "accuracy_high")),
        "epochs": data.get("epochs", 0),
        "steps": data.get("steps", 0),
        "seconds": data.get("seconds"),
    }


def of_evaluation(run: Run) -> dict[str, Any]:
    """`evaluate`: the scores of what was scored; an undefined one is null, and `reasons` says why."""
    data = run.data
    told = {"run": str(run.folder), "split": data.get("scored", "test"), **_pick(data.get("test") or {}, _score_fields())}
    told |= {key: data.get(key) for key in ("caution", "in_training", "not_among_classes", "table", "limits")}
    told["looks"] = len(data.get("test_openings") or [])
    told["test_without_leaks"] = _pick(data.get("test_without_leaks"), _RUN_TEST)
    return told


def of_crossvalidation(run: Run) -> dict[str, Any]:
    """`evaluate --folds`: the accuracy over all repeats; every other score is that of the first."""
    data, told = run.data, run.data["crossvalidation"]
    return {
        "run": str(run.folder),
        "split": "cross-validated",
        **_pick(data["val"], _score_fields()),
        "estimate": data["val_estimate"],
        **{key: told[key] for key in ("folds", "repeats", "by_repeat", "parts", "closed")},
        "threshold": data.get("threshold"),
        "report": str(run.folder / "report.html"),
    }


def of_scan(catalog: Catalog, file: str) -> dict[str, Any]:
    """`scan`: usable images per class, problems per kind."""
    rows = list(zip(catalog.column("label"), catalog.column("problem"), strict=True))
    kinds = Counter(kind_of(problem) for _, problem in rows if problem is not None)
    labels = Counter(label for label, problem in rows if problem is None and label is not None)
    return {
        "catalog": file,
        "images": len(catalog),
        "classes": dict(sorted(labels.items())),
        "problems": dict(sorted(kinds.items())),
        "problem_files": [
            {"path": path, "problem": problem}
            for path, problem in zip(catalog.paths, catalog.column("problem"), strict=True)
            if problem is not None
        ][:MOST_FILES],
        "notes": list(catalog.notes),
    }


def of_predictions(
    predictions: Predictions, doubts: conformal.UncertaintyFit | None = None, *, with_sets: bool = False
) -> list[dict[str, Any]]:
    """`predict`: one entry per image in the order of `paths`, then the files that gave no answer.

    Args:
        predictions: The answers.
        doubts: What they leave open: gives `unsure`, and `set` and `coverage` where sets were asked for.
        with_sets: Whether they were.
    """
    names, told = predictions.classes, []
    for i, (path, label, index) in enumerate(zip(predictions.paths, predictions.labels, predictions.y_pred, strict=True)):
        probs = predictions.probs[i]
        row: dict[str, Any] = {"path": path, "label": label, "probability": float(probs[index])}
        row["probabilities"] = {c: float(p) for c, p in zip(names, probs, strict=True)}
        if doubts is not None:
            row["unsure"] = bool(doubts.unsure[i])
        if doubts is not None and with_sets:
            likeliest_first = sorted(range(len(names)), key=lambda k: -probs[k])
            row |= {"set": [names[k] for k in likeliest_first if doubts.sets[i, k]], "coverage": doubts.coverage}
        if predictions.ood_score is not None:
            row |= {"unlike": float(predictions.ood_score[i]), "unlike_bar": predictions.ood_threshold}
        told.append(row)
    return told + [{"path": path, "error": error} for path, error in predictions.errors.items()]


def remarks(told: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What `of_predictions` says beyond probabilities, as columns of `predict -o`: `unsure`, `set`, `unlike` and their bars.

    Args:
        told: Entries of answered images, all with the same fields.
    """
    columns: dict[str, list[str]] = {}
    for name in ("unsure", "set", "coverage", "unlike", "unlike_bar"):
        if told and told[0].get(name) is not None:
            columns[name] = [_cell(row[name]) for row in told]
    return columns


def _cell(value: object) -> str:
    """A value in a table: yes or no, the classes of a set with semicolons between them, a number as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(value) if isinstance(value, list) else repr(value)


def kind_of(problem: str) -> str:
    """The kind of a catalog's `problem`: what stands before its details."""
    return problem.partition(":")[0].strip()


def _pick(values: Mapping[str, Any] | None, keys: tuple[str, ...]) -> Any:
    """Some keys of an object, absent ones as null; null of null."""
    return None if values is None else {key: values.get(key) for key in keys}
