"""Learning curve: accuracy of a recipe against the number of training images, alone or as part of a run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import __version__, engine, heads, studies
from sightline import catalog as catalogs
from sightline.deadline import UNLIMITED, Deadline, OutOfTimeError
from sightline.errors import DataError, RequestError, SightlineError
from sightline.records import Catalog, LearningCurveRecord, Progress, Recipe, silent
from sightline.records.versions import RESULTS_VERSION
from sightline.report import documents
from sightline.report import learning_curve as figures
from sightline.runs import executor
from sightline.runs import folder as folders
from sightline.runs.dataset import as_recipe, open_catalog, taking_part
from sightline.runs.plan import photos_name
from sightline.store import Cache, digest, now, plain, stream, write_json, write_text
from sightline.studies import learning_curve as learning
from sightline.training import methods
from sightline.training.context import Candidate, Context, folds_for

ORDERS = 3
SHARE = 0.04
"""Maximal time of the curve in a report, as a fraction of the time of the run so far."""
FASTEST_S = 0.5
"""Time in seconds that a curve may always take."""
MOST_IMAGES = 20_000
"""Maximal number of images of a curve; more would only take longer."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Finished learning curve.

    Args:
        folder: Folder of table and plot.
        data: Content of `learning-curve.json`.
    """

    folder: Path
    data: dict[str, Any]


@folders.releasing
def learning_curve(
    catalog: Catalog | str | Path,
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    goal: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> LearningCurve:
    """Measure accuracy against the number of training images, and estimate the number needed for a target accuracy.

    Args:
        catalog: Catalog, or the path of one, or a folder of photographs. Uses train and val if there are splits, else all.
        recipe: Recipe of the method `features`, or the path of its TOML file; head and settings are chosen once, on all images.
        out: Folder to write; one below `runs` if None.
        goal: Target accuracy in (0, 1); None for half of the current error rate.
        seed: Random seed of folds and orders. Default: that of the recipe.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Raises:
        RequestError: If the method is not `features`, the goal is out of range, or there are too few images.
        DataError: If fewer than two classes have usable images.
    """
    recipe = as_recipe(recipe)
    if not methods.method_of(recipe).fits_heads:
        raise RequestError(
            f"a learning curve needs the method features, not {recipe.method}",
            'use a recipe with method = "features"; its curve is a rough guide for other methods too',
        )
    if goal is not None and not 0 < goal < 1:
        raise RequestError(f"--goal must be an accuracy between 0 and 1, not {goal:g}", "write --goal 0.95")
    cache, device = Cache() if cache is None else cache, engine.choose_device(device)
    seed = recipe.seed if seed is None else seed
    catalog = open_catalog(catalog, progress)
    kept, closed = taking_part(catalog)
    twins = catalogs.find_duplicates(kept, cache=cache, progress=progress)
    # All images are held out in turn, so there is one split.
    whole = kept.with_column("split", ["train"] * len(kept))
    context = Context(whole, catalogs.together(kept, twins), kept.classes, cache, device, progress=progress)
    studies.check(recipe, len(kept.classes), cache)
    studies.check_threshold(recipe, kept.classes)
    best = executor.current().fit(context, recipe)[0]
    curve = curve_of(context, best, goal=goal, orders=ORDERS, seed=seed)
    identity = digest(["learning curve", recipe.id, kept.fingerprint(), goal, seed, RESULTS_VERSION])
    folder = Path(out) if out is not None else Path("runs") / f"{photos_name(str(catalog.root))}-curve-{identity[:8]}"
    folders.lock(folder)
    if (folder / "run.json").is_file() or (folder / "study.json").is_file():
        raise RequestError(f"{folder} holds a run", "name another folder with -o")
    curve = dataclasses.replace(
        curve,
        sightline=__version__,
        kind="learning curve",
        created=now(),
        photos=str(kept.root),
        test_images=closed,
    )
    write_files(folder, curve)
    data = curve.to_json()
    write_json(folder / "learning-curve.json", data)
    return LearningCurve(folder, data)


def curve_of(
    context: Context,
    candidate: Candidate,
    *,
    goal: float | None = None,
    orders: int = 1,
    seed: int = 0,
    deadline: Deadline = UNLIMITED,
) -> LearningCurveRecord:
    """Return the learning curve of a fitted head on its cached features.

    Raises:
        RequestError: If there are too few images.
        DataError: If a class has too few images.
        OutOfTimeError: If the deadline has passed.
    """
    card = candidate.classifier.card
    rows = context.split("train", "val")
    if len(rows) > MOST_IMAGES:
        rows = np.sort(stream(seed, "learning curve images").permutation(rows)[:MOST_IMAGES])
    found = executor.current().features(context, card.backbone, candidate.classifier.precision, rows)
    rows, values = rows[found.ok], found.values[found.ok]
    folds = folds_for(context, rows, learning.FOLDS, int(stream(seed, "learning curve folds").integers(2**31)))
    settings = {k: v for k, v in card.head_settings.items() if k != "class_weight"}
    measured = learning.measure(
        values,
        context.labels[rows],
        context.cluster[rows],
        folds,
        kind=card.head,
        settings=settings,
        classes=len(context.classes),
        seeds=orders,
        seed=seed,
        deadline=deadline,
    )
    curve = learning.summarise(measured, learning.fit(measured, seed=seed), images=len(rows), goal=goal)
    return dataclasses.replace(curve, label=candidate.label, head=card.head, settings=plain(settings), held_out=len(rows))


def of_run(
    folder: Path,
    context: Context,
    candidates: Sequence[Candidate],
    chosen: Candidate,
    deadline: Deadline,
    spent_s: float,
    say: Callable[[str], None],
) -> LearningCurveRecord | None:
    """Return the learning curve for the report of a run: of the chosen head on features, else of the best fast head.

    None if its estimated time, extrapolated from one fit of the head, exceeds 4 % of the time of the run.
    """
    able = [
        c
        for c in candidates
        if methods.METHODS[c.classifier.card.method].fits_heads and heads.HEADS[c.classifier.card.head].quick
    ]
    able = [c for c in able if c.classifier.card.crops == 1 and c.classifier.card.backbone.source != "none"]
    if not able:
        return None
    of_chosen = [c for c in able if c.label == chosen.label]
    best = (of_chosen or sorted(able, key=lambda c: (-c.val_accuracy, c.val_log_loss)))[0]
    allowed, started = max(FASTEST_S, SHARE * spent_s), time.perf_counter()
    if len(context.split("train", "val")) > MOST_IMAGES:
        return None
    try:
        if _estimated_s(context, best, deadline) > allowed:
            return None
        curve = curve_of(context, best, seed=best.classifier.card.recipe.seed, deadline=deadline)
    except (RequestError, DataError, OutOfTimeError) as error:
        say(f"learning curve: {error.message}")
        return None
    except SightlineError:
        return None
    write_files(folder, curve)
    say(f"learning curve: {curve.words[0]}")
    return dataclasses.replace(curve, of_chosen=bool(of_chosen), seconds=time.perf_counter() - started)


def _estimated_s(context: Context, candidate: Candidate, deadline: Deadline) -> float:
    """Return the estimated seconds of one order: per fold about 2.5 fits on all images, the sum of all training sizes."""
    card = candidate.classifier.card
    rows = context.split("train", "val")
    found = executor.current().features(context, card.backbone, candidate.classifier.precision, rows)
    rows, values = rows[found.ok], found.values[found.ok]
    settings = {k: v for k, v in card.head_settings.items() if k != "class_weight"}
    part = np.arange(0, len(rows), 4)
    one = heads.fit(
        card.head,
        values,
        context.labels[rows],
        len(context.classes),
        folds=[(part, part)],
        refit=False,
        settings=settings,
        deadline=deadline,
    )
    return one.seconds * 4 * 2.5 * learning.FOLDS


def write_files(folder: Path, curve: LearningCurveRecord) -> None:
    """Write `learning-curve.csv` and `learning-curve.svg`."""
    points = sorted((*curve.points, *curve.ahead), key=lambda point: point.images)
    keys = ("images", "measured", "accuracy", "low", "high")
    rows = [{key: "" if getattr(p, key) is None else getattr(p, key) for key in keys} for p in points]
    write_text(folder / "learning-curve.csv", folders.table(rows))
    write_text(folder / "learning-curve.svg", documents.standalone(figures.figure(curve)))
