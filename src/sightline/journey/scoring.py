"""A labelled set scored by a classifier, or by any tool's table of probabilities."""

from __future__ import annotations

import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, engine, evaluation, report
from sightline.classifier import Classifier, environment
from sightline.errors import DataError, RequestError, unknown
from sightline.inputs import read_predictions
from sightline.journey import folder as folders
from sightline.journey import gallery
from sightline.journey.gather import open_photos
from sightline.journey.request import slug
from sightline.records import Catalog, Predictions, Progress, Run, silent
from sightline.store import Cache, digest, write_text

if TYPE_CHECKING:
    pass


def evaluate(
    subject: str,
    catalog: str,
    *,
    out: str | None = None,
    positive: str | None = None,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Run:
    """Score a classifier, or any tool's table of probabilities, on a labelled set.

    Args:
        subject: A run's folder, a classifier's file, or a CSV with `path` and `p:CLASS` columns.
        catalog: A folder of photographs or a table. Where it has a test split, that is scored; else all of it.
        out: The folder of the result; a name is made where it is None.
        positive: For two classes, whose score the curves are drawn for.
        crops: Looks at each image, as in `Classifier.predict`.
        code: For a network of the user's own, `file.py:function`.

    Returns:
        A run whose `test` holds the scores, `scored` the split, and `in_training` how many of the images were trained on.
    """
    started = time.perf_counter()
    cache = Cache() if cache is None else cache
    labelled = open_labelled(catalog, progress)
    scored = "test" if any(s == "test" for s in labelled.column("split")) else "all"
    rows = labelled.usable()
    rows = rows.where(split="test") if scored == "test" else rows
    model: Classifier | None = None
    if Path(subject).suffix.lower() == ".csv":
        if crops is not None:
            raise RequestError("crops are for a classifier; a table of predictions holds its answers", "leave out --crops")
        answers = match(read_predictions(Path(subject)), rows)
    else:
        model = classifier.load(subject, code=code)
        answers = model.predict(rows, crops=crops, cache=cache, device=device, progress=progress)
    unlabelled = int((answers.y_true < 0).sum())
    answers = answers.select(answers.y_true >= 0)
    if not len(answers):
        hint = f"the classes are {', '.join(answers.classes[:8])}"
        raise DataError(f"no image of {catalog} has a class that {subject} knows", hint)
    if positive is not None and positive not in answers.classes:
        raise unknown("class", positive, answers.classes)
    positive = positive or (model.card.positive if model is not None else answers.bar and answers.bar[0])
    seen = in_training(model, rows, answers)
    name = f"{slug(Path(subject).stem if Path(subject).is_file() else Path(subject).name)}-on-{slug(Path(catalog).stem)}"
    folder = Path(out) if out is not None else Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    clean = answers.select(~seen) if seen.any() and not seen.all() else None
    data: dict[str, Any] = {
        **folders.head("evaluate", name, digest([subject, rows.fingerprint(), *([crops] if crops is not None else [])])),
        "photos": catalog,
        "root": rows.root.as_posix(),
        "subject": subject,
        "seed": 0,
        "scored": scored,
        "classes": list(answers.classes),
        "positive": positive,
        "in_training": int(seen.sum()),
        "not_among_classes": unlabelled,
        "data": catalogs.summarise(labelled, catalogs.duplicates(labelled, cache=cache, progress=progress)),
        "test": evaluation.score(answers, positive=positive),
        "test_without_leaks": None if clean is None else evaluation.score(clean, positive=positive),
        "test_openings": [{"when": folders.now(), "by": subject}],
        "undecodable": {"test": [{"path": p, "problem": why} for p, why in answers.errors.items()]},
        "mistakes": evaluation.mistakes(answers),
        "mistakes_in": "test",
    }
    if model is not None:
        card = model.card
        data |= {"method": card.method, "backbone": card.backbone.name, "head": card.head, "precision": dict(card.precision)}
        data["crops"] = card.crops if crops is None else crops
        if not (card.backbone.source == "user" and code is None):
            data["explanations"] = gallery.write_explanations(
                folder, model, rows, answers, cache=cache, device=device, seed=0, progress=progress
            )
    write_text(folder / "predictions" / "test.csv", answers.to_csv())
    catalogs.save(labelled, folder / "catalog.csv")
    data |= {"environment": environment(engine.choose_device(device)), "seconds": time.perf_counter() - started}
    done = folders.finish(folder, data)
    report.write_report([done], folder / "report.html")
    return done


def open_labelled(catalog: str, progress: Progress = silent) -> Catalog:
    """A labelled set: a table that Sightline or the user wrote, or a folder that is scanned."""
    return open_photos(catalog, progress=progress)


def match(answers: Predictions, rows: Catalog) -> Predictions:
    """Another tool's predictions with the catalog's labels and paths.

    A row is found by its path, else by the end of its path where only one image of the catalog ends so.

    Raises:
        DataError: No row is found, or one is found twice.
    """
    paths = rows.paths
    index = {p: i for i, p in enumerate(paths)}
    ends: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        parts = PurePosixPath(path).parts
        for start in range(len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(i)
    kept: list[int] = []
    target: list[int] = []
    for row, name in enumerate(answers.paths):
        found = index.get(name)
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for start in range(len(parts)):
            if found is not None:
                break
            ending = ends.get("/".join(parts[start:]), [])
            found = ending[0] if len(ending) == 1 else None
        if found is not None:
            kept.append(row)
            target.append(found)
    if not kept:
        raise DataError(
            f"none of the {len(answers)} paths in the predictions is an image of the catalog",
            f"the predictions say {answers.paths[0]!r}, the catalog {paths[0]!r}" if len(answers) and paths else None,
        )
    if len(set(target)) < len(target):
        twice = next(paths[t] for t in target if target.count(t) > 1)
        raise DataError(f"{twice} has more than one row in the predictions", "keep one row per image")
    labels = rows.labels(answers.classes)[target]
    missing = {p: "no row in the predictions" for i, p in enumerate(paths) if i not in set(target)}
    return Predictions(tuple(paths[t] for t in target), answers.classes, labels, answers.probs[kept], missing, answers.bar)


def in_training(model: Classifier | None, rows: Catalog, answers: Predictions) -> np.ndarray:
    """bool (n,): which of the answered images the classifier was trained on, by their very bytes."""
    if model is None:
        return np.zeros(len(answers), dtype=bool)
    content = dict(zip(rows.paths, rows.column("content"), strict=True))
    return model.was_trained_on([content[p] for p in answers.paths])
