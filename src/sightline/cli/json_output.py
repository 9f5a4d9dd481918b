"""JSON values printed by `--json`. Fields are only ever added."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.catalog import Overview
    from sightline.commands.compare import Comparison
    from sightline.commands.study import Study
    from sightline.records import Catalog, Run
    from sightline.records.catalog_audit import DuplicateSet, Finding

_ACCURACY = ("n", "accuracy", "accuracy_low", "accuracy_high")
MOST_FILES = 200
"""Unusable files listed by `scan --json`; the table lists all."""


def _score_fields() -> tuple[str, ...]:
    """Return the fields of scores: every metric of the registry with its interval, and what explains them."""
    from sightline import evaluation

    numbers = (f"{name}{end}" for name in evaluation.METRICS for end in ("", "_low", "_high"))
    return ("n", *numbers, "positive", "inverted", "reasons", "intervals", "clusters", "per_class")


def of_run(run: Run) -> dict[str, Any]:
    """Return the value of `run` and `demo`."""
    data = run.data
    return {
        "run": str(run.folder),
        "report": str(run.folder / "report.html"),
        "classifier": str(run.classifier_file),
        **{key: data.get(key) for key in ("method", "backbone", "head", "val_estimate")},
        "val": _pick(data.get("val"), _ACCURACY),
        "test": _pick(data.get("test"), _ACCURACY),
        "test_without_leaks": _pick(data.get("test_without_leaks"), _ACCURACY),
        "seconds": data.get("seconds"),
    }


def of_training(run: Run) -> dict[str, Any]:
    """Return the value of `train`."""
    data = run.data
    return {
        "run": str(run.folder),
        "classifier": str(run.classifier_file),
        "method": data.get("method"),
        "val_estimate": data.get("val_estimate"),
        "val": _pick(data.get("val"), _ACCURACY),
        "epochs": data.get("epochs", 0),
        "steps": data.get("steps", 0),
        "seconds": data.get("seconds"),
    }


def of_evaluation(run: Run) -> dict[str, Any]:
    """Return the value of `evaluate`; an undefined score is null, and `reasons` tells why."""
    data = run.data
    value = {"run": str(run.folder), "split": data.get("scored", "test"), **_pick(data.get("test") or {}, _score_fields())}
    value |= {key: data.get(key) for key in ("caution", "in_training", "not_among_classes", "table", "limits")}
    value["uncertainty"] = _uncertainty(value["limits"])
    value["looks"] = value["test_set_accesses"] = len(data.get("test_openings") or [])
    value["test_without_leaks"] = _pick(data.get("test_without_leaks"), _ACCURACY)
    value["stress"], value["label_changes"] = data.get("stress"), data.get("label_changes")
    return value


def _uncertainty(limits: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the uncertainty of an evaluation; short or old keys have a second, descriptive name beside them."""
    if limits is None:
        return None
    unlike = limits.get("unlike")
    names = {"of": "total", "bar": "threshold", "images": "held_out"}
    described = None if unlike is None else {names.get(key, key): item for key, item in unlike.items()}
    return {**limits, "prediction_sets": limits.get("sets"), "out_of_distribution": described}


def of_cross_validation(run: Run) -> dict[str, Any]:
    """Return the value of `evaluate --folds`: the accuracy over all repeats, every other score of the first repeat."""
    data, folds = run.data, run.data["crossvalidation"]
    return {
        "run": str(run.folder),
        "split": "cross-validated",
        **_pick(data["val"], _score_fields()),
        "estimate": data["val_estimate"],
        **{key: folds[key] for key in ("folds", "repeats", "by_repeat", "parts", "closed")},
        "threshold": data.get("threshold"),
        "report": str(run.folder / "report.html"),
    }


def of_comparison(comparison: Comparison) -> dict[str, Any]:
    """Return the value of `compare`. Pairs use the names given by the user; `difference` is a minus b."""
    data, folder = comparison.data, comparison.folder
    value: dict[str, Any] = {key: data[key] for key in ("runs", "split", "n", "scores", "pairs", "patterns", "notes")}
    value |= {"disagreements": data["disagreements"], "folder": str(folder), "report": str(folder / "report.html")}
    value["test_openings"] = data.get("test_openings") or []
    return value


def of_sweep(study: Study) -> dict[str, Any]:
    """Return the value of `train --sweep`."""
    data = study.data
    keys = ("keys", "seeds", "images", "estimate", "settings", "best", "default", "comparisons", "words", "seconds")
    return {
        **_of_study(study, data["settings"][data["best"]]["accuracy"]),
        "method": data["recipe"]["method"],
        **{key: data[key] for key in keys},
    }


def of_tuning(study: Study) -> dict[str, Any]:
    """Return the value of `tune`."""
    data = study.data
    keys = ("images", "estimate", "counts", "best", "changed", "comparison", "optimism", "importance", "trials", "words")
    best = next(t for t in data["trials"] if t["number"] == data["best"])
    return {**_of_study(study, best["accuracy"]), **{key: data[key] for key in (*keys, "seconds")}}


def _of_study(study: Study, accuracy: float) -> dict[str, Any]:
    """Return the fields common to sweeps and searches."""
    return {
        "study": str(study.folder),
        "report": str(study.folder / "report.html"),
        "recipe": str(study.best_recipe),
        "val": {"accuracy": accuracy},
    }


def of_scan(
    catalog: Catalog, file: str, found: Overview, sets: Sequence[DuplicateSet], unusual: Sequence[Finding]
) -> dict[str, Any]:
    """Return the value of `scan`: usable images per class, problems per kind, sizes, duplicate sets and unusual images."""
    from sightline.catalog import NOT_LOOKED_FOR

    problems = catalog.column("problem")
    kinds = Counter(problem.partition(":")[0].strip() for problem in problems if problem is not None)
    unusable = [(path, problem) for path, problem in zip(catalog.paths, problems, strict=True) if problem is not None]
    return {
        "catalog": file,
        "images": len(catalog),
        **dataclasses.asdict(found),
        "problems": dict(sorted(kinds.items())),
        "problem_files": [{"path": path, "problem": problem} for path, problem in unusable[:MOST_FILES]],
        "duplicates": [dataclasses.asdict(s) for s in sets],
        "not_looked_for": NOT_LOOKED_FOR,
        "unusual": [dataclasses.asdict(f) for f in unusual],
        "notes": list(catalog.notes),
    }


def _pick(values: Mapping[str, Any] | None, keys: tuple[str, ...]) -> Any:
    """Return some keys of a mapping, null for missing ones; None for None."""
    return None if values is None else {key: values.get(key) for key in keys}
