"""Python API: the commands as functions of objects in memory or paths."""

from __future__ import annotations

import dataclasses
import reprlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, containers, evaluation, pixels, report
from sightline.classifier import Classifier
from sightline.commands import compare as compare_command
from sightline.commands import evaluate as evaluate_command
from sightline.commands import mistakes as mistakes_command
from sightline.commands import run as run_command
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
from sightline.records.versions import RESULTS_VERSION
from sightline.runs import executor, notes, test_set_log
from sightline.runs.dataset import as_recipe, open_catalog
from sightline.runs.plan import Request, photos_name
from sightline.store import Cache, digest, log

Model = Classifier | Run | str | Path
"""Classifier, run, path of either, or the name of a network."""
Images = str | Path | Catalog | np.ndarray | Sequence[str | Path | np.ndarray]
Class = str | int
Covered = str | cover_region.Region | Sequence[str | cover_region.Region] | np.ndarray | Sequence[Sequence[bool]]
_IMAGE_HINT = "pass files, folders, or arrays (height, width, 3) of uint8, such as np.asarray(image) of a Pillow image"

_MODEL_HINT = "give what `load` or `fit` gave, a run, a path, or the name of a network"


def run(
    photos: Any,
    *,
    out: str | Path = "runs",
    recipe: Recipe | str | Path | None = None,
    backbones: Sequence[str] = (),
    weights: str = "pretrained",
    methods: Sequence[str] = (),
    head: str = "auto",
    budget_s: float | None = None,
    seed: int = 0,
    val: float | int = 0.15,
    test: float | int = 0.2,
    group_by: str | None = None,
    label_from: str | None = None,
    label_level: int | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    follow_links: bool = False,
    classes: Mapping[str, str] | None = None,
    limit: int | None = None,
    positive: str | None = None,
    threshold: str | None = None,
    fit: Literal["crop", "pad", "squash"] | None = None,
    image_size: int | None = None,
    pool: Literal["avg", "flatten"] = "avg",
    heatmaps: Literal["none", "few", "all"] = "all",
    name: str | None = None,
    device: str = "auto",
    precision: Literal["auto", "f32", "bf16", "int8"] = "auto",
    allow_truncated: bool = False,
    resume: bool = False,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Run:
    """Train, select and test a classifier, and write a report, as `sightline run` does.

    Args:
        photos: Folder of photographs, archive, CSV or Parquet table, or file of arrays (.npz, HDF5), by its path; or a data set
            of Hugging Face or torchvision, whose images are stored in the cache.
        out: Folder in which the run gets a folder of its own.
        recipe: Recipe, or the path of a TOML file, whose method is trained with these settings.
        backbones: Names of networks; a short list is compared if empty.
        weights: `pretrained`, `random`, or a file.
        methods: Names of training methods; the default list if empty.
        head: Classifier on top of the features; `auto` compares several.
        budget_s: Time limit in seconds, heatmaps and report included. Default: 600.
        seed: Random seed.
        val, test: Fraction of the images as a float, or number of images as an int.
        group_by: Table column, or regex on the path; images of the same group stay in one split.
        label_from: Regex that extracts the class from the file name.
        label_level: Folder level that is the class: 1 is the top folder, -1 the lowest.
        path_column, label_column: Columns of a table, or arrays of a file.
        follow_links: Whether to follow links to files outside the folder, and to folders.
        classes: New name → old name of the classes to use.
        limit: Maximum number of images per class.
        positive: Two classes: the positive class. Default: the less frequent one.
        threshold: Two classes: criterion for the decision threshold.
        fit: How to make non-square images square.
        image_size: Side of the square input image in pixels.
        pool: How to pool the last feature map.
        heatmaps: Heatmaps to draw and check.
        name: Name of the run, for its folder and its report. Default: that of the photographs.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: Precision of frozen networks; `auto` takes the fastest that agrees with float32 on these images.
        allow_truncated: Whether to use the decodable part of truncated JPEG files.
        resume: Whether to resume an interrupted run with the same arguments.
        progress: Progress callback.
        say: Function called with each line of the plan, such as `print`.
        cache: Cache. Default: the user's cache.

    Returns:
        The run, with its `classifier` and its `held_out` predictions.

    Raises:
        RequestError: If a name, a number or a path is wrong.
        DataError: If the photographs cannot be used.
        WeightsError: If the weights of a named network are not available.
    """
    if catalogs.is_dataset(photos):
        photos = catalogs.store_dataset(photos, progress)
    _expect(photos, (str, Path), "photos", "a folder or a table, given by its path")
    request = Request(
        photos=str(photos),
        out=str(out),
        recipe=None if recipe is None else as_recipe(recipe),
        backbones=_names("backbones", backbones),
        weights=weights,
        methods=_names("methods", methods),
        head=head,
        budget_s=budget_s,
        seed=seed,
        val=val,
        test=test,
        group_by=group_by,
        label_from=label_from,
        label_level=label_level,
        path_column=path_column,
        label_column=label_column,
        follow_links=follow_links,
        classes=classes,
        limit=limit,
        positive=positive,
        threshold=threshold,
        fit=fit,
        image_size=image_size,
        pool=pool,
        heatmaps=heatmaps,
        name=name,
        device=device,
        precision=precision,
        allow_truncated=allow_truncated,
        resume=resume,
    )
    return _with_notes(_loaded(run_command.run(request, progress=progress, say=say, cache=cache)))


def split(
    catalog: Catalog,
    *,
    val: float | int = 0.15,
    test: float | int = 0.2,
    seed: int = 0,
    group_by: str | None = None,
    order_by: str | None = None,
    folds: int | None = None,
    previous: Catalog | None = None,
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Catalog:
    """Assign each image to train, val or test. Duplicates and groups stay together; existing splits are kept.

    Args:
        catalog: Catalog returned by `sightline.scan`.
        val, test: Fraction of the images as a float, or number of images as an int.
        seed: Random seed.
        group_by: Table column, or regex on the path; images of the same group stay in one split.
        order_by: Column of dates or numbers; the earliest images become train, the latest test.
        folds: Number of folds of the images outside test, numbered in the column `fold`.
        previous: Earlier catalog; its images keep their splits.
        cache: Cache. Default: the user's cache.
        progress: Progress callback.

    Returns:
        The catalog with the columns `split` and `group`. Its notes, such as images with two labels, are logged as warnings.

    Raises:
        RequestError: If an argument has the wrong type, or a number is out of range.
    """
    _expect(catalog, (Catalog,), "catalog", "what `sightline.scan` or `sightline.load_catalog` returns")
    duplicates = catalogs.find_duplicates(catalog, Cache() if cache is None else cache, progress)
    result = catalogs.split(
        catalog,
        val=val,
        test=test,
        seed=seed,
        group_by=group_by,
        order_by=order_by,
        folds=folds,
        previous=previous,
        clusters=duplicates,
        progress=progress,
    )
    catalogs.warn(result.notes)
    return result


def fit(
    catalog: Any = None,
    recipe: Recipe | str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    continue_from: Run | str | Path | None = None,
    device: str = "auto",
    precision: Literal["auto", "f32", "bf16", "int8"] = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Run:
    """Train the classifier of a recipe, as `sightline train` does.

    Args:
        catalog: Catalog, or the path of one, or anything that `sightline.scan` takes. Without splits, 15 % of the images
            become val and 20 % test. May be left out with `continue_from`, whose catalog is then used.
        recipe: Recipe, or the path of a TOML file. Default: that of `continue_from`, else `Recipe()`.
        out: Run folder; one below `runs`, named after photographs, recipe and data, if None. A finished run of the same
            recipe and images is returned as it is.
        resume: Whether to resume an interrupted training in `out`, with bit-identical results.
        continue_from: Finished run whose weights and optimizer state are the starting point.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: Precision of frozen networks; `auto` takes the fastest that agrees with float32 on these images.
        cache: Cache. Default: the user's cache.
        progress: Progress callback.

    Returns:
        The run, with its `classifier` and its `held_out` predictions.

    Raises:
        RequestError: If an argument has the wrong type, the recipe is invalid, or the folder holds another run.
    """
    base = None if continue_from is None else _run(continue_from)
    if base is not None:
        catalog = base.folder / "catalog.csv" if catalog is None else catalog
        recipe = base.folder / "recipe.toml" if recipe is None else recipe
    if catalog is None:
        raise RequestError("fit needs a catalog", "pass what `sightline.scan` returns, or a run as `continue_from`")
    recipe, opened = as_recipe(recipe), open_catalog(catalog, progress)
    if out is None:
        identity = [recipe.id, opened.fingerprint(), RESULTS_VERSION, *([] if base is None else [base.data.get("id")])]
        identity += [] if precision == "auto" else [precision]
        out = Path("runs") / f"{photos_name(str(opened.root))}-{digest(identity)[:8]}"
    where: dict[str, Any] = {"device": device, "precision": precision, "progress": progress, "cache": cache}
    run = train(opened, recipe, out, resume=resume, continued=base, **where)
    return _with_notes(_loaded(run))


def predict(
    model: Model,
    images: Images,
    *,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Predictions:
    """Predict the class of images.

    Args:
        model: Classifier, run, or the path of either.
        images: Image file, folder, archive or file of arrays, or several of these; a catalog; a data set of Hugging Face or
            torchvision; or arrays (h, w[, c]), uint8, or float in 0 to 1.
        crops: Crops per image, 1, 5 or 10. Default: as trained.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
        cache: Cache. Default: the user's cache.
        progress: Progress callback.

    Returns:
        The predictions of n images. Files that could not be read are in `errors`.

    Raises:
        RequestError: If the classifier or the images do not exist or have the wrong type.
    """
    if catalogs.is_dataset(images):
        images = catalogs.dataset_files(images, progress)
    _expect(images, (str, Path, Catalog, np.ndarray, Sequence), "images", _IMAGE_HINT)
    chosen = _classifier(model, code)
    predictions = executor.current().predict(chosen, images, crops=crops, cache=cache, device=device, progress=progress)
    if predictions.errors:
        path, why = next(iter(predictions.errors.items()))
        log.warning("%d files have no prediction, such as %s: %s", len(predictions.errors), path, why)
    return predictions


def score(
    predictions: Predictions,
    *,
    positive: str | None = None,
    groups: np.ndarray | None = None,
    top: int = evaluation.TOP,
    seed: int = 0,
) -> dict[str, Any]:
    """Return all metrics of predictions, as `sightline.evaluation.score` does.

    Scoring labelled test images of a catalog is recorded in the test-set log.

    Args:
        predictions: Predictions of labelled images; `held_out` of a run gives an honest estimate without the test split.
        positive, groups, top, seed: As in `sightline.evaluation.score`.

    Returns:
        The scores, and `in_training`: the number of images that were used to fit the classifier.

    Warns:
        TrainingImagesWarning: If some of the images are in train or val of the classifier.

    Raises:
        RequestError: If `predictions` has the wrong type, `positive` is not a class, or `top` is below 1.
        DataError: If a probability is not a number, or `groups` does not hold one value per image.
    """
    _expect(predictions, (Predictions,), "predictions", "what `sightline.predict` returns")
    caution = evaluate_command.training_caution(predictions)
    if caution is not None:
        hint = "score images that were not used for training, or the out-of-fold predictions: sightline.score(run.held_out)"
        warnings.warn(f"{caution}. hint: {hint}", TrainingImagesWarning, stacklevel=2)
    count = 0 if predictions.in_training is None else int(predictions.in_training.sum())
    scores = evaluation.score(predictions, positive=positive, groups=groups, top=top, seed=seed)
    tests = np.array([bool(content) for content in predictions.test_contents], dtype=bool)
    test_set_log.look(predictions, predictions.test_contents, tests, None, verb="score", by="sightline.score in Python")
    return {**scores, "in_training": count}


def evaluate(
    subject: Model,
    catalog: Catalog | str | Path,
    *,
    out: str | Path | None = None,
    split: str | None = None,
    positive: str | None = None,
    crops: int | None = None,
    heatmaps: Literal["none", "few", "all"] = "all",
    stress: bool = False,
    stress_bound: float | None = None,
    code: str | None = None,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> Run:
    """Score a classifier, or predictions of any tool, on labelled images, as `sightline evaluate` does.

    Args:
        subject: Classifier, run, the path of either, or a CSV with the columns `path` and `p:CLASS`.
        catalog: Catalog, or the path of one, or a folder of photographs.
        out: Folder for report and tables; one below `runs` if None.
        split: `train`, `val`, `test` or `all`. Default: the test split if there is one, else all.
        positive: Two classes: the class whose curves are drawn.
        crops: Crops per image, 1, 5 or 10. Default: as trained.
        heatmaps: Heatmaps to draw and check.
        stress: Whether to score blurred, dark, noisy, recompressed, turned and low-resolution versions of the images too.
        stress_bound: Accuracy below which an alteration is named; default: 0.9 times the accuracy on the unaltered images.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
        cache: Cache. Default: the user's cache.
        progress: Progress callback.

    Returns:
        A run whose `data["test"]` holds the scores; `record.stress` those of altered images.

    Raises:
        RequestError: If an argument has the wrong type or does not exist, or the folder holds another kind of run.
        DataError: If no image has a class of the classifier.
    """
    run = evaluate_command.evaluate(
        _path_or_classifier(subject),
        _labelled(catalog),
        out=out,
        split=split,
        positive=positive,
        crops=crops,
        heatmaps=heatmaps,
        stress=stress,
        stress_bound=stress_bound,
        code=code,
        device=device,
        progress=progress,
        cache=cache,
    )
    return _with_notes(run)


def compare(
    subjects: Sequence[Run | str | Path],
    *,
    split: str | None = None,
    catalog: Catalog | str | Path | None = None,
    out: str | Path | None = None,
    code: str | None = None,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> compare_command.Comparison:
    """Test whether one classifier is significantly better on the same images, as `sightline compare` does.

    Args:
        subjects: Two or more runs, or paths of runs, classifiers or CSVs of probabilities.
        split: `val` or `test`. Default: test if all runs were tested, else val.
        catalog: Labelled images to predict now; None uses the stored predictions of the runs.
        out: Folder for report and tables; one below `runs` if None.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
        cache: Cache. Default: the user's cache.
        progress: Progress callback.

    Returns:
        The comparison. `data["pairs"]` holds the tests of all pairs.

    Raises:
        RequestError: If fewer than two subjects are given, or one has the wrong type or does not exist.
        DataError: If the subjects have no images in common.
    """
    _expect(subjects, (list, tuple), "subjects", "a list of runs, or of their paths")
    for subject in subjects:
        _expect(subject, (Run, str, Path), "a subject of a comparison", "a run, or the path of a run, a classifier or a CSV")
    comparison = compare_command.compare(
        [str(s.folder if isinstance(s, Run) else s) for s in subjects],
        split=split,
        catalog=None if catalog is None else _labelled(catalog),
        out=out,
        code=code,
        device=device,
        progress=progress,
        cache=cache,
    )
    catalogs.warn(comparison.data["notes"])
    return comparison


def mistakes(
    subject: Model,
    catalog: Catalog | str | Path | None = None,
    *,
    by: str = "confidence",
    split: str | None = None,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    cache: Cache | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Return misclassified images, or where errors cluster, as `sightline mistakes --json` prints them.

    A warning is logged if images were used to fit the classifier, which makes mistakes rarer than on new images.

    Args:
        subject: Run, classifier, the path of either, or a CSV with the columns `path` and `p:CLASS`.
        catalog: Labelled images. Default: the images that the run was evaluated on, or the labels in the CSV.
        by: `confidence`, `pair`, `slice`, or the name of a column.
        split, crops, code, device, cache, progress: As in `evaluate`.

    Raises:
        RequestError: If an argument has the wrong type or does not exist, or there are no labelled images.
    """
    return mistakes_command.mistakes(
        _path_or_classifier(subject),
        None if catalog is None else _labelled(catalog),
        by=by,
        split=split,
        crops=crops,
        code=code,
        device=device,
        progress=progress,
        cache=cache,
    )


def write_report(runs: Run | str | Path | Sequence[Run | str | Path], out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about one or several runs.

    Args:
        runs: Run, the path of a run folder, or several of either.
        out: HTML file to write. Default: `report.html` in the folder of a single run, else in the current folder.

    Returns:
        The path of the page.

    Raises:
        RequestError: If a run has the wrong type or does not exist, or `out` is a folder.
    """
    single = isinstance(runs, Run | str | Path)
    loaded = [_run(run) for run in (runs if isinstance(runs, list | tuple) else [runs])]
    default = loaded[0].folder / "report.html" if single else Path("report.html")
    return report.write_report(loaded, default if out is None else Path(out))


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
        answers = executor.current().predict(subject.model, queried, cache=cache, device=device, progress=progress)
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
    elif not containers.is_file(image):
        raise RequestError(
            f"{image} is not a file" if Path(image).exists() else f"{image} does not exist", "name one image file"
        )
    regions, covered_mask = cover_region.parse_covered(covered)
    if mask is not None and covered_mask is not None:
        raise RequestError("two masks are passed", "pass one, as `covered` or as `mask`")
    subject = _subject(model, cache, code)
    mask = covered_mask if mask is None else mask
    return cover_region.hide(subject.model, image, regions, mask=mask, cache=cache, device=device)


# ------------------------------------------------------------------------------------------------------------- arguments


def _expect(value: object, kinds: tuple[type, ...], name: str, expected: str) -> None:
    """Check the type of an argument.

    Raises:
        RequestError: If it is none of `kinds`.
    """
    if not isinstance(value, kinds):
        raise RequestError(f"{name} cannot be of type {type(value).__name__}", f"pass {expected}")


def _names(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return a sequence of names as a tuple.

    Raises:
        RequestError: If it is a single text, or no sequence.
    """
    if isinstance(values, str):
        raise RequestError(f"{name} is a list of names, not a text", f'write {name}=["{values}"]')
    _expect(values, (list, tuple), name, "a list of names")
    return tuple(values)


def _run(run: object) -> Run:
    """Return a run, loaded if it is given by its folder."""
    if isinstance(run, Run):
        return run
    if not isinstance(run, str | Path):
        hint = "pass what `sightline.fit` or `sightline.run` returns, or the path of a run folder"
        raise RequestError(f"a run cannot be of type {type(run).__name__}", hint)
    return Run.load(Path(run))


def _with_notes(run: Run) -> Run:
    """Log the notes on a run, and return it."""
    catalogs.warn(notes.of_run(run.record))
    return run


def _loaded(run: Run) -> Run:
    """Return a run with its classifier and its held-out predictions loaded."""
    loaded = classifier.load(run.classifier_file) if run.classifier is None else run.classifier
    return dataclasses.replace(run, classifier=loaded, held_out=read_predictions(run.held_out_file))


def _classifier(model: object, code: str | None) -> Classifier:
    """Return the classifier itself, that of a run, or the one at a path."""
    if isinstance(model, Classifier):
        return model
    if isinstance(model, Run):
        return classifier.load(model.classifier_file, code=code) if model.classifier is None else model.classifier
    if not isinstance(model, str | Path):
        raise RequestError(f"a classifier cannot be of type {type(model).__name__}", _MODEL_HINT)
    return classifier.load(model, code=code)


def _path_or_classifier(subject: object) -> str | Classifier:
    """Return the path of a run or a file, or a classifier in memory."""
    _expect(
        subject, (Classifier, Run, str, Path), "a subject", "a classifier, a run, or the path of a run, a classifier or a CSV"
    )
    return subject if isinstance(subject, Classifier) else str(subject.folder if isinstance(subject, Run) else subject)


def _labelled(catalog: object) -> Catalog | str:
    """Return a catalog in memory, or the path of labelled images."""
    if catalogs.is_dataset(catalog):
        return open_catalog(catalog)
    _expect(catalog, (Catalog, str, Path), "a catalog", "what `sightline.scan` returns, or the path of a catalog or a folder")
    return catalog if isinstance(catalog, Catalog) else str(catalog)


def _subject(model: object, cache: Cache, code: str | None) -> ExplainedModel:
    """Return the subject of an explanation from any value that identifies it.

    Raises:
        RequestError: If it cannot be explained.
    """
    if isinstance(model, str | Path):
        return find_subject(str(model), cache, code)
    model = _classifier(model, code)
    check_explainable(model)
    return ExplainedModel(model, skill_of(model))


def _sources(images: object) -> tuple[list[Path] | list[np.ndarray], list[str]]:
    """Return files or arrays, and their names. Images of a data set are written to the cache.

    Raises:
        RequestError: If they are of another type, or there are none.
    """
    if isinstance(images, Catalog):
        files, names = images.files(), images.paths
        if not files:
            raise RequestError("the catalog contains no image", "pass one with images")
        return files, names
    if catalogs.is_dataset(images):
        images = catalogs.dataset_files(images)
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
