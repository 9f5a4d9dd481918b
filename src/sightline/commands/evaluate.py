"""A labelled set scored by a classifier, or by any tool's table of probabilities."""

from __future__ import annotations

import dataclasses
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, engine, evaluation, report
from sightline.classifier import Classifier, environment
from sightline.errors import DataError, RequestError, unknown
from sightline.explanation import similar_images
from sightline.inputs import find_by_ending, is_predictions, read_labelled
from sightline.records import SPLITS, Catalog, Predictions, Progress, Run, silent
from sightline.runs import error_analysis, gallery, test_set_log
from sightline.runs import folder as folders
from sightline.runs.dataset import check_usable
from sightline.store import Cache, digest, log, slug, write_text
from sightline.training import methods

MOST_EXAMPLES = 20
"""Rows of a table that are named, of each kind that does not fit."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a subject says of a labelled set.

    Args:
        predictions: Of the images whose class it knows, with the catalog's labels and paths; `errors` has what gave no answer.
        rows: The usable images that were asked about.
        labelled: The whole catalog.
        scored: The split that was asked about, `all` where the catalog has no test split and none was named.
        unlabelled: How many answered images have no label, or one that the subject does not know.
        model: The classifier; None for a table of predictions.
        misfits: Of a table, what `_misfits` says of it; None for a classifier.
    """

    predictions: Predictions
    rows: Catalog
    labelled: Catalog
    scored: str
    unlabelled: int
    model: Classifier | None
    misfits: Mapping[str, Any] | None

    @property
    def contents(self) -> list[str]:
        """SHA-256 of every answered image, in the order of the predictions."""
        known = dict(zip(self.rows.paths, self.rows.column("content"), strict=True))
        return [known[p] or "" for p in self.predictions.paths]


def answers_of(
    subject: str | Path | Classifier,
    catalog: str | Path | Catalog,
    *,
    split: str | None = None,
    label_from: str | None = None,
    label_column: str | None = None,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
    called: str | None = None,
) -> Answered:
    """What a run, a classifier or any tool's table of probabilities says of a labelled set.

    Args:
        subject: A run's folder, a classifier's file, or a CSV with `path` and `p:CLASS` columns. A run without a classifier
            (of an evaluation or a cross-validation) stands for the table of its predictions.
        catalog: A folder of photographs, a table, or a catalog.
        split: `train`, `val`, `test` or `all`; None takes the test split where there is one, else all.
        label_from, label_column: Where the classes stand, as of `catalog.scan`.
        crops: Looks at each image, as in `Classifier.predict`.
        code: For a network of the user's own, `file.py:function`.
        device, progress, cache: As everywhere.
        called: The catalog's name for people, where it is not the one given.

    Raises:
        RequestError: There is no such subject, catalog or split; or crops or code are given for a table.
        DataError: No image has a class that the subject knows, or none of a table's rows is among the images.
    """
    table, model, misfits = None if isinstance(subject, Classifier) else _table_of(Path(subject)), None, None
    title = subject_name(subject)
    if table is not None and (crops is not None or code is not None):
        what = "crops are" if crops is not None else "code is"
        hint = f"leave out --{'crops' if crops is not None else 'code'}"
        raise RequestError(f"{what} for a classifier; a table of predictions holds its answers", hint)
    if split not in (None, "train", "val", "test", "all"):
        raise unknown("split", str(split), ("train", "val", "test", "all"))
    if isinstance(catalog, Catalog):
        labelled = catalog
    else:
        labelled = open_labelled(str(catalog), progress, label_from=label_from, label_column=label_column)
    name = called or str(labelled.root if isinstance(catalog, Catalog) else catalog)
    scored = split or ("test" if any(s == "test" for s in labelled.column("split")) else "all")
    labelled = labelled if table is None else _labels_alone(labelled, scored)
    check_usable(labelled if scored == "all" else labelled.where(split=scored), name, "" if scored == "all" else f"{scored} ")
    rows = labelled.usable() if scored == "all" else labelled.usable().where(split=scored)
    if without_pictures(rows):
        log.warning("%s: %s", name, labelled.notes[-1])
    if table is not None:
        given, labels = read_labelled(table)
        answers, found = _matched(given, rows, labelled, scored, name)
        misfits = _misfits(given.paths, labels, found, rows)
        _say_misfits(misfits, title, name)
    else:
        model = subject if isinstance(subject, Classifier) else classifier.load(subject, code=code)
        if not set(rows.column("label")) & set(model.classes):
            raise _no_known_class(name, title, model.classes)
        answers = model.predict(rows, crops=crops, cache=cache, device=device, progress=progress)
    strange = answers.select(answers.y_true < 0).paths
    answers = answers.select(answers.y_true >= 0)
    if not len(answers):
        raise _no_known_class(name, title, answers.classes)
    if strange:
        label = rows.column("label")[rows.paths.index(strange[0])]
        case = f"{strange[0]} is {label!r}" if label else f"{strange[0]} has no label"
        images = _several(len(strange), "image")
        log.warning("%s of %s left out, of no class that %s knows (%s)", images, name, title, case)
    return Answered(answers, rows, labelled, scored, len(strange), model, misfits)


def _no_known_class(name: str, subject: str, classes: Sequence[str]) -> DataError:
    """Return the error for a labelled set none of whose classes a classifier or a table knows."""
    return DataError(f"no image of {name} has a class that {subject} knows", f"the classes are {', '.join(classes[:8])}")


def subject_name(subject: str | Path | Classifier) -> str:
    """Return the path of a subject, or the method and backbone of a classifier in memory."""
    if isinstance(subject, Classifier):
        return f"{subject.card.method} on {subject.card.backbone.name}"
    return str(subject)


def in_order(first: str, second: str) -> tuple[str, str]:
    """(subject, catalog) of two names in whichever order they came; as they are where both or neither could be a subject."""
    return (second, first) if _is_subject(second) and not _is_subject(first) else (first, second)


def _is_subject(name: str) -> bool:
    """Whether something is a run, a classifier or a table of predictions."""
    path = Path(name)
    if path.suffix.lower() == ".csv" and path.is_file():
        return is_predictions(path)
    return path.suffix.lower() == ".safetensors" or (path / "run.json").is_file()


def _table_of(subject: Path) -> Path | None:
    """The table of predictions that a subject is or stands for; None for what has a classifier to ask."""
    if subject.suffix.lower() == ".csv" and not subject.is_dir():
        return subject
    if not (subject / "run.json").is_file() or (subject / "classifier.safetensors").is_file():
        return None
    files = [subject / "predictions" / f"{name}.csv" for name in ("test", "cross_validated", "val")]
    return next((f for f in files if f.is_file()), None)


def _check_folder(folder: Path) -> None:
    """Refuse to write an evaluation over something else; an earlier evaluation is replaced.

    Raises:
        RequestError: A training's run, a study or a comparison lies there.
    """
    others = ("study.json", "comparison.json", "classifier.safetensors")
    kind = Run.load(folder).data.get("kind") if (folder / "run.json").is_file() else "evaluate"
    if kind != "evaluate" or any((folder / name).is_file() for name in others):
        raise RequestError(f"{folder} holds something else than an evaluation", "name another folder with -o")


@folders.releasing
def evaluate(
    subject: str | Path | Classifier,
    catalog: str | Path | Catalog,
    *,
    out: str | Path | None = None,
    split: str | None = None,
    label_from: str | None = None,
    label_column: str | None = None,
    positive: str | None = None,
    crops: int | None = None,
    heatmaps: gallery.Heatmaps = "all",
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
        split: Another split, or `all`.
        label_from, label_column: Where the classes stand, as of `catalog.scan`.
        positive: For two classes, whose score the curves are drawn for.
        crops: Looks at each image, as in `Classifier.predict`.
        heatmaps: `none`, `few` or `all`, as in `gallery.write_explanations`.
        code: For a network of the user's own, `file.py:function`.

    Returns:
        A run whose `test` holds the scores, `scored` the split, and `in_training` how many of the images were trained on.

    Raises:
        RequestError: The folder holds something else than an evaluation; or as `answers_of`.
    """
    started = time.perf_counter()
    cache = Cache() if cache is None else cache
    title, photos = subject_name(subject), str(catalog.root if isinstance(catalog, Catalog) else catalog)
    name = f"{slug(Path(title).stem if Path(title).is_file() else Path(title).name)}-on-{slug(Path(photos).stem)}"
    name += f"-{split}" if split is not None else ""
    asked = {"subject": title, "photos": photos}
    folder = Path(out) if out is not None else folders.default(name, "run.json", asked)
    folders.lock(folder)
    _check_folder(folder)
    which = {"split": split, "label_from": label_from, "label_column": label_column, "crops": crops, "code": code}
    found = answers_of(subject, catalog, **which, device=device, progress=progress, cache=cache)  # type: ignore[arg-type]
    answers, rows, model = found.predictions, found.rows, found.model
    if positive is not None and positive not in answers.classes:
        raise unknown("class", positive, answers.classes)
    positive = positive or (model.card.positive if model is not None else answers.bar and answers.bar[0])
    by = model.card.threshold_by if model is not None else "half" if answers.bar is None else "given with the table"
    seen = in_training(answers)
    clean = answers.select(~seen) if seen.any() and not seen.all() else None
    twins = catalogs.find_duplicates(found.labelled, cache=cache, progress=progress)
    groups = folders.clusters_of(found.labelled, catalogs.together(found.labelled, twins), answers)
    opening = None if found.scored in ("train", "val") else _look(found, title, seen, crops)
    quoted = answers if clean is None else clean
    identity = test_set_log.identity(subject) if isinstance(subject, Classifier) else str(subject)
    data: dict[str, Any] = {
        **folders.head("evaluate", name, digest([identity, rows.fingerprint(), *([crops] if crops is not None else [])])),
        "photos": photos,
        "root": rows.root.as_posix(),
        "subject": title,
        "seed": 0,
        "scored": found.scored,
        "classes": list(answers.classes),
        "positive": positive,
        "in_training": int(seen.sum()),
        "caution": training_caution(answers),
        "not_among_classes": found.unlabelled,
        "table": found.misfits,
        "threshold": {"by": by},
        "data": _facts(found, twins),
        "test": evaluation.score(answers, positive=positive, groups=groups),
        "test_without_leaks": None if clean is None else evaluation.score(clean, positive=positive, groups=groups[~seen]),
        **({} if opening is None else opening.as_data(float((quoted.y_pred == quoted.y_true).mean()), len(quoted))),
        "undecodable": {"test": [{"path": p, "problem": why} for p, why in answers.errors.items()]},
        "mistakes_in": "test",
    }
    learnt = None if isinstance(subject, Classifier) else similar_images.training_of(subject)
    own: dict[str, Any] = {"cache": cache, "device": device, "progress": progress}
    data |= error_analysis.describe(folder, model, answers, rows, learnt, groups, held_out=not seen.any(), **own)
    if model is not None:
        data |= _of_model(folder, model, rows, answers, crops, code, heatmaps, own)
    write_text(folder / "predictions" / "test.csv", answers.to_csv())
    folders.write_curves(folder, "test", answers, data["test"], by)
    catalogs.save(found.labelled, folder / "catalog.csv")
    data |= {"environment": environment(engine.choose_device(device)), "seconds": time.perf_counter() - started}
    done = folders.finish(folder, data)
    report.write_report([done], folder / "report.html")
    return done


def _of_model(
    folder: Path,
    model: Classifier,
    rows: Catalog,
    answers: Predictions,
    crops: int | None,
    code: str | None,
    heatmaps: gallery.Heatmaps,
    own: dict[str, Any],
) -> dict[str, Any]:
    """What is told of a classifier, and not of a table: what it is, its recipe, where it looked."""
    card = model.card
    data: dict[str, Any] = {"method": card.method, "backbone": card.backbone.name, "head": card.head}
    data |= {"precision": dict(card.precision), "crops": card.crops if crops is None else crops}
    if card.method in methods.METHODS and not card.members and not methods.sources(card.recipe):
        write_text(folder / "recipe.toml", folders.toml(card.recipe))
        data["crossvalidate"] = folders.crossvalidate(folder / "catalog.csv", folder, answers)
    if not (card.backbone.source == "user" and code is None):
        data |= gallery.write_explanations(folder, model, rows, answers, seed=0, heatmaps=heatmaps, **own)
    return data


def _look(found: Answered, subject: str, seen: np.ndarray, crops: int | None) -> test_set_log.Opening | None:
    """Count this look at the images that the classifier was not trained on; None where it was trained on all."""
    return test_set_log.look(found.predictions, found.contents, ~seen, found.model, verb="evaluate", by=subject, crops=crops)


def open_labelled(
    catalog: str, progress: Progress = silent, *, label_from: str | None = None, label_column: str | None = None
) -> Catalog:
    """A labelled set: a table that Sightline or the user wrote, or a folder that is scanned."""
    return catalogs.scan(catalog, label_from=label_from, label_column=label_column, progress=progress)


def _labels_alone(labelled: Catalog, scored: str) -> Catalog:
    """The set as it serves answers that are there already: where none of the files that are asked about exists, labels will do.

    Their rows count as they are, without bytes or pixels, and a note says so.
    """
    columns = (labelled.column(name) for name in ("problem", "label", "split"))
    rows = [(p, label is not None and scored in ("all", s)) for p, label, s in zip(*columns, strict=True)]
    missing = [asked and p is not None and p.startswith("missing:") for p, asked in rows]
    if not any(missing) or any(asked and p is None for p, asked in rows):
        return labelled
    note = (
        f"none of the {sum(missing):,} images is there (such as {labelled.paths[missing.index(True)]}), so labels alone are "
        "used: duplicates, slices by what images look like, and the count of looks are left out"
    )
    known = [None if gone else p for gone, (p, _) in zip(missing, rows, strict=True)]
    return labelled.with_column("problem", known).with_notes(note)


def without_pictures(catalog: Catalog) -> bool:
    """Whether labels are all that is known of a set's images."""
    return not any(catalog.column("content"))


def _facts(found: Answered, twins: catalogs.Duplicates) -> dict[str, Any]:
    """The `data` block of run.json; of labels alone nothing is said of sizes and formats."""
    told = catalogs.summarise(found.labelled, twins)
    seen = ("width", "height", "size_histogram", "enlarged", "formats", "modes", "duplicates")
    return {key: value for key, value in told.items() if not (without_pictures(found.rows) and key in seen)}


def match(answers: Predictions, catalog: Catalog) -> Predictions:
    """Return another tool's predictions with the catalog's labels and paths; rows of no usable image are dropped.

    A row is found by `inputs.find_by_ending` among all images of the catalog.

    Raises:
        DataError: No row is of a usable image, or an image has two rows.
    """
    return _matched(answers, catalog.usable(), catalog, "all", "the catalog")[0]


def _matched(
    answers: Predictions, rows: Catalog, labelled: Catalog, scored: str, name: str
) -> tuple[Predictions, list[str | None]]:
    """What `match` gives, and which image of the whole catalog each of the predictions is of, None where it is of none.

    Args:
        answers: Of a table.
        rows: The images that are asked about.
        labelled: The whole catalog.
        scored: The split that `rows` are, or `all`.
        name: What the catalog is called.
    """
    whole = labelled.paths
    images = [None if place is None else whole[place] for place in find_by_ending(answers.paths, whole)]
    index = {path: i for i, path in enumerate(rows.paths)}
    kept = [row for row, path in enumerate(images) if path in index]
    if not kept:
        raise _nothing_asked(answers, images, labelled, scored, name)
    target = [index[path] for path in images if path in index]
    if len(set(target)) < len(target):
        twice = rows.paths[Counter(target).most_common(1)[0][0]]
        raise DataError(f"{twice} has more than one row in the predictions", "keep one row per image")
    labels = rows.labels(answers.classes)[target]
    found = answers.select(np.array(kept, dtype=np.int64))
    return dataclasses.replace(found, paths=tuple(rows.paths[t] for t in target), y_true=labels, errors={}), images


def _nothing_asked(answers: Predictions, images: Sequence[str | None], labelled: Catalog, scored: str, name: str) -> DataError:
    """The refusal of a table of which no row is of an image that is asked about."""
    splits = dict(zip(labelled.paths, labelled.column("split"), strict=True))
    counts = Counter(splits[path] or "no split" for path in images if path is not None and splits[path] != scored)
    if counts and scored != "all":
        parts = " and ".join(f"{n:,} of {split}" for split, n in sorted(counts.items()))
        what = f"no row of the predictions is an image of the {scored} split of {name}: they are {parts}"
        named = [split for split in SPLITS if split in counts]
        ways = named if len(counts) == len(named) == 1 else [*named, "all"]
        return DataError(what, f"add {' or '.join(f'--split {split}' for split in ways)}")
    first = answers.paths[0] if len(answers) else ""
    alike = [p for p in labelled.paths if unicodedata.normalize("NFC", p).endswith(unicodedata.normalize("NFC", first))]
    hint = f"the predictions say {first!r}, the catalog {labelled.paths[0]!r}" if first and len(labelled) else None
    if len(alike) > 1:
        hint = f"{first!r} could be any of {len(alike):,} images, such as {alike[0]!r} and {alike[1]!r}: write whole paths"
    return DataError(f"none of the {len(answers):,} paths in the predictions is an image of {name}", hint)


def _misfits(names: Sequence[str], labels: Sequence[str], images: Sequence[str | None], rows: Catalog) -> dict[str, Any]:
    """Where a table of predictions and a labelled set do not fit together.

    Args:
        names, labels: Of the table's rows; a label is "" where it gives none.
        images: The path of the image that each row is of, None where it is of none; one of another split is no misfit.
        rows: What was asked about.

    Returns:
        The counts `not_in_catalog` (rows left out), `other_label` (rows whose label the set contradicts; the set's counts) and
        `no_row` (images without an answer); and `examples` of each.
    """
    true = dict(zip(rows.paths, rows.column("label"), strict=True))
    lost = [name for name, path in zip(names, images, strict=True) if path is None]
    found = [(path, label) for path, label in zip(images, labels, strict=True) if path in true]
    other = [
        {"path": path, "table": label, "catalog": known}
        for path, label in found
        if label
        and (known := true[path]) is not None
        and unicodedata.normalize("NFC", label) != unicodedata.normalize("NFC", known)
    ]
    answered = {path for path, _ in found}
    missing = [path for path in rows.paths if path not in answered]
    kinds: dict[str, list[Any]] = {"not_in_catalog": lost, "other_label": other, "no_row": missing}
    examples = {kind: cases[:MOST_EXAMPLES] for kind, cases in kinds.items()}
    return {**{kind: len(cases) for kind, cases in kinds.items()}, "examples": examples}


def _say_misfits(misfits: Mapping[str, Any], table: str, name: str) -> None:
    """A note for each kind of misfit, with an example."""
    examples = misfits["examples"]
    if misfits["not_in_catalog"]:
        rows, path = _several(misfits["not_in_catalog"], "row"), examples["not_in_catalog"][0]
        log.warning("%s of %s left out: no image of %s, or more than one, has that path (such as %s)", rows, table, name, path)
    if misfits["other_label"]:
        rows, case = _several(misfits["other_label"], "row"), examples["other_label"][0]
        said = f"{case['path']} is {case['table']!r} there and {case['catalog']!r} here"
        log.warning("%s of %s with another label than %s, whose labels count (%s)", rows, table, name, said)
    if misfits["no_row"]:
        images, path = _several(misfits["no_row"], "image"), examples["no_row"][0]
        log.warning("%s of %s left out: no row of %s is of that image (such as %s)", images, name, table, path)


def _several(n: int, what: str) -> str:
    """A number of things, in the singular where it is one."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def in_training(answers: Predictions) -> np.ndarray:
    """bool (n,): which of the answered images the classifier was made from, as far as that is known."""
    return np.zeros(len(answers), dtype=bool) if answers.in_training is None else answers.in_training


def training_caution(answers: Predictions) -> str | None:
    """Return the sentence that counts the images that a classifier was made from; None where there are none of them."""
    count = int(in_training(answers).sum())
    if not count:
        return None
    which = f"all {count:,}" if count == len(answers) else f"{count:,} of {len(answers):,}"
    return f"{which} images were used to make this classifier (train or val), so their score is too good"
