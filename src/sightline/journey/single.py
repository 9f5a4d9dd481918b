"""The verbs beside the main job: train one recipe, score a labelled set, explain images, and the demo."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import __version__, classifier, demo, engine, evaluation, report
from sightline import catalog as catalogs
from sightline.classifier import Classifier, environment
from sightline.errors import DataError, RequestError, unknown
from sightline.inputs import read_predictions
from sightline.journey import folder as folders
from sightline.journey import gallery, plots, resuming
from sightline.journey.gather import open_photos
from sightline.journey.main import Say, reuse, run
from sightline.journey.request import Request, slug
from sightline.records import Catalog, Predictions, Progress, Recipe, Run, silent
from sightline.store import Cache, atomic_file, digest, write_text
from sightline.training import methods
from sightline.training.work import Work, decided

if TYPE_CHECKING:
    from sightline.catalog import Duplicates
    from sightline.training.finder import Rates


def train(
    catalog: Catalog,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    continued: Run | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Run:
    """Carry one recipe out. The test split is not opened.

    What trains by epochs keeps itself in the folder's `checkpoint` as it goes, and leaves there what a later run can continue.

    Args:
        catalog: With or without splits; without, 15 % go to validation and 20 % to the test.
        recipe: What to do.
        out: The run's folder.
        resume: Go on with what was interrupted in that folder, and end with the same bits as if it had not been; a finished
            run of the same recipe and images is given back as it is, asked for or not.
        continued: A finished run whose weights and optimiser go on, for as many epochs as the recipe says; the history is
            appended.
        device: `auto`, `cpu`, `cuda`, or `mps`.
        progress, cache: As everywhere.

    Raises:
        RequestError: The folder holds a run of another recipe or of other images, finished or interrupted, or there is
            nothing to continue.
    """
    started = time.perf_counter()
    evaluation.check_criterion(recipe.threshold)
    cache = Cache() if cache is None else cache
    device = engine.choose_device(device)
    divided, twins = _divided(catalog, recipe, cache, progress)
    before = [] if continued is None else [continued.data.get("id")]
    identity = digest([recipe, divided.fingerprint(), __version__, *methods.sources(recipe), *before])
    earlier = reuse(Path(out), write_report=False)
    if earlier is not None and earlier.data.get("id") == identity:
        return earlier
    if (Path(out) / "run.json").is_file():
        what = "is damaged" if earlier is None else "was made by another recipe or from other images"
        raise RequestError(f"the run in {out} {what}", "name another folder with -o")
    usable = divided.usable()
    clusters = catalogs.together(divided, twins)[[p is None for p in divided.column("problem")]]
    folder = Path(out)
    kept = resuming.begin(folder, recipe, usable, resume=resume, continued=continued)
    work = Work(usable, clusters, usable.classes, cache, device, progress=progress, checkpoint=kept)
    best = decided(methods.fit(work, recipe)[0], recipe.positive, recipe.threshold)
    data: dict[str, Any] = {
        **_head("train", folder.name, identity),
        "photos": str(divided.root),
        "root": divided.root.as_posix(),
        "seed": recipe.seed,
        "data": catalogs.summarise(divided, twins),
        "ladder": [folders.rung(best, True)],
        "val": evaluation.score(best.val, positive=best.classifier.card.positive),
        "val_estimate": best.estimate,
        "test": None,
        "test_openings": [],
        "undecodable": best.undecodable,
        "mistakes": evaluation.mistakes(best.val),
        "mistakes_in": "val",
        "continued": None if continued is None else {"run": continued.folder.as_posix(), "epochs": continued.data["epochs"]},
    }
    data |= folders.write_candidate(folder, best, divided, None)
    data |= {"environment": environment(device), "seconds": time.perf_counter() - started}
    done = folders.finish(folder, data)
    resuming.finish(kept)
    report.write_report([done], folder / "report.html")
    return done


def find_rate(
    catalog: Catalog,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Rates:
    """Look for a good learning rate for a recipe, on its training images, and draw what each rate leads to.

    Args:
        catalog, recipe, device, progress, cache: As of `train`.
        out: The plot, which ends in .svg or .png.

    Raises:
        RequestError: The method has no learning rate that could be found, or the file is no plot.
        SightlineError: No rate made the loss fall.
    """
    cache = Cache() if cache is None else cache
    if recipe.method not in methods.FINDERS:
        known = ", ".join(methods.FINDERS)
        raise RequestError(f"the learning rate of {recipe.method} cannot be looked for", f"methods that have one: {known}")
    plots.check(out)
    divided, twins = _divided(catalog, recipe, cache, progress)
    usable = divided.usable()
    clusters = catalogs.together(divided, twins)[[p is None for p in divided.column("problem")]]
    work = Work(usable, clusters, usable.classes, cache, engine.choose_device(device), progress=progress)
    found = methods.FINDERS[recipe.method](work, recipe)
    plots.rate_plot(found, out, f"Learning-rate range test: {recipe.method} of {recipe.backbone}")
    return found


def _divided(catalog: Catalog, recipe: Recipe, cache: Cache, progress: Progress) -> tuple[Catalog, Duplicates]:
    """The catalog with its splits, made where it has none, and which images are the same."""
    twins = catalogs.duplicates(catalog, cache=cache, progress=progress)
    if any(catalog.column("split")):
        return catalog, twins
    return catalogs.split(catalog, seed=recipe.seed, clusters=twins, progress=progress), twins


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
        **_head("evaluate", name, digest([subject, rows.fingerprint(), *([crops] if crops is not None else [])])),
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


def explain(
    subject: str,
    images: Sequence[str],
    *,
    out: str = "explanations",
    target: str | None = None,
    method: str = "auto",
    seed: int = 0,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Heatmaps of images: an overlay and the raw heat of each.

    Args:
        subject: A run's folder or a classifier's file.
        images: Files or folders.
        out: Where the pictures go.
        target: The class to explain; the predicted one if None.
        method: `auto`, `gradcam` or `masks`.

    Returns:
        One entry per image as `explain --json` prints it; an unreadable image has `error`.
    """
    cache = Cache() if cache is None else cache
    model = classifier.load(subject, code=code)
    if not model.looks_at_images:
        raise RequestError(f"{subject} ({model.card.method}) never looks at the photograph: there is nothing to explain")
    if target is not None and target not in model.classes:
        raise unknown("class", target, model.classes)
    files = classifier.find_images(list(images))
    names = [str(f) for f in files]
    answers = model.predict(list(files), cache=cache, device=device, progress=progress)
    probs = dict(zip(answers.paths, answers.probs, strict=True))
    said = dict(zip(answers.paths, answers.y_pred, strict=True))
    kept = [i for i, n in enumerate(names) if n in probs]
    targets = [model.classes.index(target) if target is not None else int(said[names[i]]) for i in kept]
    found, errors = gallery.explain(
        model,
        [files[i] for i in kept],
        [names[i] for i in kept],
        targets,
        cache=cache,
        device=device,
        method=method,
        seed=seed,
        progress=progress,
    )
    entries: list[dict[str, Any]] = []
    folder = Path(out)
    for number, item in enumerate(found, 1):
        stem = f"{number:03d}-{slug(Path(item.path).stem)}"
        shown = probs[item.path][model.classes.index(item.target)]
        picture, preprocess = folder / f"{stem}.png", model.card.backbone.preprocess
        gallery.write_overlay(picture, Path(item.path), preprocess, item, f"{item.target} ({shown:.0%})")
        with atomic_file(folder / f"{stem}.npy") as file:
            np.save(file, item.heat)
        entries.append(
            {
                "path": item.path,
                "target": item.target,
                "probability": float(shown),
                "method": item.method,
                "layer": item.layer,
                "overlay": str(picture),
                "heat": str(folder / f"{stem}.npy"),
                "peak": list(item.peak()),
                "check": None,
            }
        )
    failed: Mapping[str, str] = {**answers.errors, **errors}
    return entries + [{"path": n, "error": why} for n, why in failed.items()]


def run_demo(
    out: str = "sightline-demo",
    *,
    seed: int = 0,
    progress: Progress = silent,
    say: Say | Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Run:
    """The whole journey on the 1,797 handwritten digits that scikit-learn ships, as PNG files in class folders."""
    photos = demo.write_digits(Path(out) / "digits")
    say(f"1,797 real handwritten digits are in {photos}")
    command = f'sightline run "{photos}" -o "{Path(out) / "runs"}" --seed {seed}'
    request = Request(photos=str(photos), out=os.fspath(Path(out) / "runs"), seed=seed, budget_s=110, command=command)
    return run(request, progress=progress, say=say, cache=cache)


def _head(kind: str, name: str, identity: str) -> dict[str, Any]:
    """The first keys of run.json."""
    return {
        "version": 1,
        "sightline": __version__,
        "kind": kind,
        "name": name,
        "created": folders.now(),
        "id": identity,
        "command": "",
    }
