"""The verbs as Python users call them, on what they have in hand rather than on files and folders."""

from __future__ import annotations

import dataclasses
import reprlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, evaluation, pixels
from sightline.classifier import Classifier
from sightline.commands.evaluate import training_caution
from sightline.commands.train import train
from sightline.errors import ImageError, RequestError, TrainingImagesWarning
from sightline.explanation import cover_region
from sightline.explanation.checks.evidence import skill_of
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.methods import check_contrast, check_method
from sightline.explanation.options import ExplainOptions
from sightline.explanation.subject import ExplainedModel, aims, check_explainable, find_subject
from sightline.inputs import read_predictions
from sightline.records import Catalog, Explanation, Predictions, Progress, Recipe, Run, silent
from sightline.records.run import RESULTS_VERSION
from sightline.runs import test_set_log
from sightline.runs.plan import photos_name
from sightline.store import Cache, digest

Model = Classifier | Run | str | Path
"""What answers: itself, a run, a path, or the name of a network."""
Images = str | Path | Catalog | np.ndarray | Sequence[str | Path | np.ndarray]
Class = str | int
Covered = str | cover_region.Region | Sequence[str | cover_region.Region] | np.ndarray | Sequence[Sequence[bool]]
_IMAGE_HINT = "pass files, folders, or arrays (height, width, 3) of uint8, such as np.asarray(image) of a Pillow image"


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
        The catalog with `split` and `group` filled. Its notes, such as pictures with different labels, are logged as warnings.
    """
    twins = catalogs.find_duplicates(catalog, Cache() if cache is None else cache, progress)
    done = catalogs.split(
        catalog, val=val, test=test, seed=seed, group_by=group_by, previous=previous, clusters=twins, progress=progress
    )
    catalogs.warn(done.notes)
    return done


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
        The run, its `classifier` and its `held_out` answers loaded.
    """
    recipe = Recipe() if recipe is None else recipe
    if out is None:
        out = (
            Path("runs") / f"{photos_name(str(catalog.root))}-{digest([recipe.id, catalog.fingerprint(), RESULTS_VERSION])[:8]}"
        )
    run = train(catalog, recipe, Path(out), device=device, progress=progress, cache=cache)
    own = classifier.load(run.classifier_file)
    return dataclasses.replace(run, classifier=own, held_out=read_predictions(run.held_out_file))


def score(
    predictions: Predictions,
    *,
    positive: str | None = None,
    groups: np.ndarray | None = None,
    top: int = evaluation.TOP,
    seed: int = 0,
) -> dict[str, Any]:
    """Return every metric of one set of predictions, as `sightline.evaluation.score` does.

    Where the predictions are of a catalog's labelled test images, this is a look at them, which the test-set log records.

    Args:
        predictions: Answers to labelled images; `held_out` of what `fit` gave is an honest estimate before the test.
        positive, groups, top, seed: As of `sightline.evaluation.score`, which says what is returned.

    Returns:
        The scores, and `in_training`: how many of the images the classifier was made from.

    Warns:
        TrainingImagesWarning: Some of the images are in train or val of the classifier that gave the predictions.

    Raises:
        RequestError: `positive` is no class, or `top` is below 1.
        DataError: A probability is not a number, or `groups` does not hold one value per image.
    """
    caution = training_caution(predictions)
    if caution is not None:
        hint = "score images that it has not seen, or its out-of-fold answers: sightline.score(run.held_out)"
        warnings.warn(f"{caution}. hint: {hint}", TrainingImagesWarning, stacklevel=2)
    counted = 0 if predictions.in_training is None else int(predictions.in_training.sum())
    scores = evaluation.score(predictions, positive=positive, groups=groups, top=top, seed=seed)
    tests = np.array([bool(content) for content in predictions.test_contents], dtype=bool)
    test_set_log.look(predictions, predictions.test_contents, tests, None, verb="score", by="sightline.score in Python")
    return {**scores, "in_training": counted}


def explain(
    model: Model,
    images: Images,
    *,
    target: Class | Sequence[Class | None] | None = None,
    method: str = "auto",
    layer: str | None = None,
    contrast: Class | None = None,
    seed: int = 0,
    code: str | None = None,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> list[Explanation]:
    """Explain the predictions of a classifier for images.

    Args:
        model: A classifier from `fit` or `load`; a run, the path of a run's folder or of a classifier file; or the name of a
            network, which predicts its own classes.
        images: One image file, a folder, or several of either; a catalog, whose labelled test images are then recorded in
            the test-set log; or one array (h, w[, c]), several in a list, or a batch (n, h, w[, c]), each uint8, or
            float in 0 to 1.
        target: The class to explain, by its name in any case or by its number in `classes`; one for all images, or one for each
            in order. None for the predicted class.
        method: `auto`, or a name in `sightline.explanation.METHODS`.
        layer: The module of the network whose output is the feature map; None for its last one.
        contrast: The class that the target is compared with; None for all others together. Where it is the prediction itself,
            the second most probable class is explained.
        seed: Seed of random masks and noise.
        code: `file.py:function` that builds a user-defined network, for a classifier that is named by its path.
        device, cache, progress: As in `Classifier.predict`.

    Returns:
        One explanation per image, in order; the path of an array is `array 0` and so on.

    Raises:
        ImageError: If an image cannot be decoded.
        RequestError: If the model, an image, a class, a method or a layer is unknown or does not fit, a class is compared with
            itself, or the classifier uses no pixels.
    """
    cache = Cache() if cache is None else cache
    check_method(method)
    sources, names = _sources(images)
    subject = _subject(model, cache, code)
    against = None if contrast is None else _class(subject, contrast)
    targets = _targets(subject, target, len(sources))
    for index in {t for t in targets if t is not None}:
        check_contrast(subject.model.classes[index], index, against)
    if None in targets or isinstance(images, Catalog):
        queried: Any = images if isinstance(images, Catalog) else list(sources)
        answers = subject.model.predict(queried, cache=cache, device=device, progress=progress)
        _refuse(answers.errors)
        counts = np.array([bool(content) for content in answers.test_contents], dtype=bool)
        test_set_log.look(
            answers, answers.test_contents, counts, subject.model, verb="explain", by="sightline.explain in Python"
        )
        targets = [p if t is None else t for t, p in zip(targets, aims(answers, against), strict=True)]
    options = ExplainOptions(method=method, layer=layer, contrast=against, seed=seed, cache=cache, device=device)
    known = [t for t in targets if t is not None]
    explanations, errors = heatmaps_of(subject.model, sources, names, known, options, progress=progress)
    _refuse(errors)
    return explanations


def hide(
    model: Model,
    image: str | Path | np.ndarray,
    covered: Covered = (),
    *,
    mask: Any = None,
    code: str | None = None,
    device: str = "auto",
    cache: Cache | None = None,
) -> cover_region.Hidden:
    """Cover a part of an image with the mean colour of the rest, and predict again.

    Args:
        model, code, device, cache: As in `explain`.
        image: A file, or an upright array (h, w[, c]), uint8 or float in 0 to 1.
        covered: One region (x, y, width, height) in pixels of the upright original, or several; or a mask.
        mask: bool (h, w) of the upright original's size, an array or nested lists, combined with the regions.

    Returns:
        The probabilities before and after, in the order of `classes`; the colour, the share, and the covered image.

    Raises:
        ImageError: If the image cannot be decoded.
        RequestError: If the model or the image is unknown; a region or a mask is invalid, or lies outside the image; nothing or
            everything would be covered; or the classifier uses no pixels.
    """
    cache = Cache() if cache is None else cache
    if not isinstance(image, str | Path | np.ndarray):
        raise RequestError(f"the image cannot be of type {type(image).__name__}", _IMAGE_HINT)
    if isinstance(image, np.ndarray):
        _check_array(image, "the array")
    elif not Path(image).is_file():
        raise RequestError(
            f"{image} is not a file" if Path(image).exists() else f"{image} does not exist", "name one image file"
        )
    regions, covered_mask = cover_region.parse_covered(covered)
    if mask is not None and covered_mask is not None:
        raise RequestError("two masks are passed", "pass one, as `covered` or as `mask`")
    subject = _subject(model, cache, code)
    mask = covered_mask if mask is None else mask
    return cover_region.hide(subject.model, image, regions, mask=mask, cache=cache, device=device)


# ------------------------------------------------------------------------------------------------------- what was handed over


def _subject(model: object, cache: Cache, code: str | None) -> ExplainedModel:
    """Return the subject of an explanation from any value that identifies it.

    Raises:
        RequestError: If it cannot be explained.
    """
    if isinstance(model, str | Path):
        return find_subject(str(model), cache, code)
    if isinstance(model, Run):
        model = classifier.load(model.classifier_file, code=code) if model.classifier is None else model.classifier
    if not isinstance(model, Classifier):
        hint = "pass a classifier from `load` or `fit`, a run, a path, or the name of a network"
        raise RequestError(f"a classifier cannot be of type {type(model).__name__}", hint)
    check_explainable(model)
    return ExplainedModel(model, skill_of(model))


def _sources(images: object) -> tuple[list[Path] | list[np.ndarray], list[str]]:
    """Return files or arrays, and their names.

    Raises:
        RequestError: If they are of another type, or there are none.
    """
    if isinstance(images, Catalog):
        files, names = images.files(), images.paths
        if not files:
            raise RequestError("the catalog contains no image", "pass one with images")
        return files, names
    if isinstance(images, str | Path):
        images = [images]
    if isinstance(images, np.ndarray) and images.dtype.kind in "UO":
        images = images.ravel().tolist()
    if isinstance(images, np.ndarray):
        several = images.ndim == 4 or (images.ndim == 3 and images.shape[2] not in pixels.CHANNELS)
        images = list(images) if several else [images]
    if not isinstance(images, Iterable) or isinstance(images, Mapping | bytes):
        raise RequestError(f"images cannot be of type {type(images).__name__}", _IMAGE_HINT)
    each = list(images)
    if not each:
        raise RequestError("there is no image to explain", _IMAGE_HINT)
    odd = [e for e in each if not isinstance(e, str | Path | np.ndarray)]
    if odd:
        raise RequestError(f"an image cannot be of type {type(odd[0]).__name__}", _IMAGE_HINT)
    arrays = [e for e in each if isinstance(e, np.ndarray)]
    if arrays and len(arrays) < len(each):
        raise RequestError("the images are files and arrays at once", "pass files in one call, and arrays in another")
    if arrays:
        for number, array in enumerate(arrays):
            _check_array(array, f"array {number}")
        return arrays, [f"array {number}" for number in range(len(arrays))]
    files, unread = classifier.find_images(each)
    _refuse(unread)
    if not files:
        raise classifier.no_image(each, unread)
    return files, [str(f) for f in files]


def _check_array(array: np.ndarray, name: str) -> None:
    """Check that an array is an image.

    Raises:
        RequestError: If it has another shape or type.
    """
    fault = pixels.array_fault(array)
    if fault is not None:
        raise RequestError(f"{name} {fault}: it is not an image", _IMAGE_HINT)


def _targets(subject: ExplainedModel, target: object, n: int) -> list[int | None]:
    """Return the class to explain for each of n images, None for the predicted one."""
    if target is None:
        return [None] * n
    several = isinstance(target, Sequence) and not isinstance(target, str)
    if not several and not (isinstance(target, np.ndarray) and target.ndim == 1):
        return [_class(subject, target)] * n
    each = list(target)  # type: ignore[call-overload]
    if len(each) != n:
        counted = f"{len(each):,} class{'es' if len(each) != 1 else ''} for {n:,} image{'s' if n != 1 else ''}"
        raise RequestError(f"target has {counted}", "name one class for all images, or one for each in order")
    return [None if one is None else _class(subject, one) for one in each]


def _class(subject: ExplainedModel, name: object) -> int:
    """Return the index of a class from its name or number.

    Raises:
        RequestError: If there is no such class.
    """
    classes = subject.model.classes
    if isinstance(name, str):
        return subject.class_index(name)
    hint = f"pass a class name, or its number from 0 to {len(classes) - 1}"
    if not isinstance(name, Integral) or isinstance(name, bool):
        raise RequestError(f"{reprlib.repr(name)} is not a class", hint)
    if not 0 <= int(name) < len(classes):
        raise RequestError(f"class {int(name)} is not one of the {len(classes):,} classes", hint)
    return int(name)


def _refuse(errors: Mapping[str, str]) -> None:
    """Raise for the first image that could not be read."""
    for name, why in errors.items():
        raise ImageError("unreadable", f"{name} cannot be explained ({why})", "leave it out")
