"""The verbs as Python users call them, on what they have in hand rather than on files and folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from sightline import __version__, classifier
from sightline import catalog as catalogs
from sightline.classifier import Classifier
from sightline.errors import ImageError, RequestError, unknown
from sightline.journey.heats import heats_of
from sightline.journey.request import photos_name
from sightline.journey.single import train
from sightline.journey.subject import aims, explainable
from sightline.records import Catalog, Explanation, Progress, Recipe, Run, silent
from sightline.store import Cache, digest


def split(
    catalog: Catalog,
    *,
    val: float | int = 0.15,
    test: float | int = 0.2,
    seed: int = 0,
    group_by: str | None = None,
    previous: Catalog | None = None,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Catalog:
    """Assign every image to train, val or test; duplicates and groups stay together, what is assigned stays.

    Args:
        catalog: What `sightline.scan` gave.
        val, test: Shares as floats, or numbers of images as ints.
        seed: The assignment is a function of it.
        group_by: A column, or a pattern on the path, whose value says which images belong together.
        previous: An earlier catalog, whose assignments are kept.
        cache: The user's own if None.
        progress: Told how far it is.

    Returns:
        The catalog with `split` and `group` filled.
    """
    twins = catalogs.duplicates(catalog, Cache() if cache is None else cache, progress)
    return catalogs.split(
        catalog, val=val, test=test, seed=seed, group_by=group_by, previous=previous, clusters=twins, progress=progress
    )


def fit(
    catalog: Catalog,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Run:
    """Carry a recipe out on the train split of a catalog.

    Args:
        catalog: With splits, or without; then 15 % go to validation and 20 % to the test.
        recipe: What to do; its defaults if None.
        out: The run's folder; one under `runs`, named by photographs, recipe and data, if None. A finished run of the same
            is given back as it is.
        device: `auto`, `cpu`, `cuda`, or `mps`.
        cache: The user's own if None.
        progress: Told how far it is.

    Returns:
        The run, its `classifier` loaded.
    """
    recipe = Recipe() if recipe is None else recipe
    if out is None:
        out = Path("runs") / f"{photos_name(str(catalog.root))}-{digest([recipe, catalog.fingerprint(), __version__])[:8]}"
    run = train(catalog, recipe, Path(out), device=device, progress=progress, cache=cache)
    return dataclasses.replace(run, classifier=classifier.load(run.classifier_file))


def explain(
    model: Classifier,
    images: str | Path | Sequence[str | Path],
    *,
    target: str | None = None,
    method: str = "auto",
    layer: str | None = None,
    contrast: str | None = None,
    seed: int = 0,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> list[Explanation]:
    """Where a classifier looked.

    Args:
        model: What `fit` made or `load` read.
        images: One image file, a folder, or several of either.
        target: The class to explain; for each image the predicted one if None.
        method: `auto`, or a name of `sightline.explanation.METHODS`.
        layer: The module of the network whose output is the map; its last map if None.
        contrast: The class that the target is set against; all others together if None. Where it is itself the answer, the
            second likeliest class is explained.
        seed: Of random masks and noise.
        device, cache, progress: As everywhere.

    Returns:
        One explanation per image, in order.

    Raises:
        ImageError: An image cannot be decoded.
        RequestError: A class, a method or a layer is not known, does not fit the classifier, or a class is to be set against
            itself; or the classifier never looks at the photograph.
    """
    if not explainable(model):
        raise RequestError(f"{model.card.method} never looks at the photograph: there is nothing to explain")
    for name in (target, contrast):
        if name is not None and name not in model.classes:
            raise unknown("class", name, model.classes)
    cache = Cache() if cache is None else cache
    files, unread = classifier.find_images([images] if isinstance(images, str | Path) else list(images))
    _refuse(unread)
    against = None if contrast is None else model.classes.index(contrast)
    if target is not None:
        targets = [model.classes.index(target)] * len(files)
    else:
        answers = model.predict(list(files), cache=cache, device=device, progress=progress)
        _refuse(answers.errors)
        targets = aims(answers, against)
    found, errors = heats_of(
        model,
        files,
        [str(f) for f in files],
        targets,
        cache=cache,
        device=device,
        method=method,
        layer=layer,
        contrast=against,
        seed=seed,
        progress=progress,
    )
    _refuse(errors)
    return found


def _refuse(errors: Mapping[str, str]) -> None:
    """Raise for the first image that could not be read."""
    for name, why in errors.items():
        raise ImageError("unreadable", f"{name} cannot be explained ({why})", "leave it out")
