"""Evaluation: score a classifier, or predictions of any tool, on labelled images."""

from __future__ import annotations

import dataclasses
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, engine, report
from sightline.audit import stress as stress_tests
from sightline.classifier import Classifier, environment
from sightline.errors import DataError, RequestError, unknown
from sightline.explanation import similar_images
from sightline.inputs import find_by_ending, is_predictions, read_labelled
from sightline.records import SPLITS, Catalog, Predictions, Progress, Run, RunRecord, silent
from sightline.records.candidates import ThresholdChoice
from sightline.records.data_summary import DatasetSummary
from sightline.records.error_analysis import LabelChanges, LabelMismatch, MismatchExamples, TableMismatches
from sightline.runs import error_analysis, executor, gallery, label_changes, test_set_log
from sightline.runs import folder as folders
from sightline.runs import record as records
from sightline.runs import stress as stressing
from sightline.runs.dataset import check_usable
from sightline.store import Cache, digest, log, slug, write_text
from sightline.training import methods

MOST_EXAMPLES = 20
"""Maximal number of example rows per kind of mismatch."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Predictions of a subject on labelled images.

    Args:
        predictions: Predictions of images with a class of the subject, with labels and paths of the catalog.
        rows: The usable images of the split.
        labelled: The whole catalog.
        scored: The split; `all` if none was requested and the catalog has no test split.
        unlabelled: Number of predicted images without a label, or with a class that the subject does not know.
        model: The classifier; None for a table of predictions.
        misfits: Mismatches between table and catalog; None for a classifier.
    """

    predictions: Predictions
    rows: Catalog
    labelled: Catalog
    scored: str
    unlabelled: int
    model: Classifier | None
    misfits: TableMismatches | None

    @property
    def contents(self) -> list[str]:
        """SHA-256 of every predicted image, in the order of the predictions."""
        known = dict(zip(self.rows.paths, self.rows.column("content"), strict=True))
        return [known[p] or "" for p in self.predictions.paths]


def answers_of(
    subject: str | Path | Classifier,
    catalog: str | Path | Catalog,
    *,
    split: str | None = None,
    label_from: str | None = None,
    label_level: int | None = None,
    label_column: str | None = None,
    follow_links: bool | None = None,
    crops: int | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
    called: str | None = None,
) -> Answered:
    """Return the predictions of a classifier, or of any tool, on labelled images.

    Args:
        subject: Classifier, run folder, classifier file, or a CSV with the columns `path` and `p:CLASS`. A run without a
            classifier (an evaluation or a cross-validation) stands for the table of its predictions.
        catalog: Catalog, table, or folder of photographs.
        split: `train`, `val`, `test` or `all`. Default: the test split if there is one, else all.
        label_from, label_level, label_column, follow_links: As in `catalog.scan`.
        crops: Crops per image, as in `Classifier.predict`.
        code: `file.py:function` that builds a user-defined network.
        device, progress, cache: As in `evaluate`.
        called: Name of the catalog in messages. Default: its path.

    Raises:
        RequestError: If the subject, the catalog or the split does not exist, or crops or code are given for a table.
        DataError: If no image has a class of the subject, or no row of a table is one of the images.
    """
    table, model, misfits = None if isinstance(subject, Classifier) else _table_of(Path(subject)), None, None
    title = subject_name(subject)
    if table is not None and (crops is not None or code is not None):
        option = "--crops" if crops is not None else "--code"
        raise RequestError(f"{option} needs a classifier, not a table of predictions", f"leave out {option}")
    if split not in (None, "train", "val", "test", "all"):
        raise unknown("split", str(split), ("train", "val", "test", "all"))
    if isinstance(catalog, Catalog):
        labelled = catalog
    else:
        how: dict[str, Any] = {"label_from": label_from, "label_level": label_level, "label_column": label_column}
        labelled = executor.current().scan(str(catalog), **how, follow_links=bool(follow_links), progress=progress)
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
        answers = executor.current().predict(model, rows, crops=crops, cache=cache, device=device, progress=progress)
    strange = answers.select(answers.y_true < 0).paths
    answers = answers.select(answers.y_true >= 0)
    if not len(answers):
        raise _no_known_class(name, title, answers.classes)
    if strange:
        label = rows.column("label")[rows.paths.index(strange[0])]
        case = f"{strange[0]} is {label!r}" if label else f"{strange[0]} has no label"
        images = _several(len(strange), "image")
        log.warning("%s of %s left out: not a class of %s (%s)", images, name, title, case)
    return Answered(answers, rows, labelled, scored=scored, unlabelled=len(strange), model=model, misfits=misfits)


def _no_known_class(name: str, subject: str, classes: Sequence[str]) -> DataError:
    """Return the error for labelled images without any class of the subject."""
    return DataError(f"no image of {name} has a class of {subject}", f"the classes are {', '.join(classes[:8])}")


def subject_name(subject: str | Path | Classifier) -> str:
    """Return the path of a subject, or the method and backbone of a classifier in memory."""
    if isinstance(subject, Classifier):
        return f"{subject.card.method} on {subject.card.backbone.name}"
    return str(subject)


def in_order(first: str, second: str) -> tuple[str, str]:
    """Return (subject, catalog) of two names in either order; unchanged if both or neither could be a subject."""
    return (second, first) if _is_subject(second) and not _is_subject(first) else (first, second)


def _is_subject(name: str) -> bool:
    """Return whether a path is a run, a classifier or a table of predictions."""
    path = Path(name)
    if path.suffix.lower() == ".csv" and path.is_file():
        return is_predictions(path)
    return path.suffix.lower() == ".safetensors" or (path / "run.json").is_file()


def _table_of(subject: Path) -> Path | None:
    """Return the table of predictions of a subject; None if the subject has a classifier."""
    if subject.suffix.lower() == ".csv" and not subject.is_dir():
        return subject
    if not (subject / "run.json").is_file() or (subject / "classifier.safetensors").is_file():
        return None
    files = [subject / "predictions" / f"{name}.csv" for name in ("test", "cross_validated", "val")]
    return next((f for f in files if f.is_file()), None)


def _check_folder(folder: Path) -> None:
    """Check that a folder is empty or holds an evaluation, which is replaced.

    Raises:
        RequestError: If the folder holds a trained run, a study or a comparison.
    """
    others = ("study.json", "comparison.json", "classifier.safetensors")
    kind = Run.load(folder).data.get("kind") if (folder / "run.json").is_file() else "evaluate"
    if kind != "evaluate" or any((folder / name).is_file() for name in others):
        raise RequestError(f"{folder} already holds other results than an evaluation", "name another folder with -o")


@folders.releasing
def evaluate(
    subject: str | Path | Classifier,
    catalog: str | Path | Catalog,
    *,
    out: str | Path | None = None,
    split: str | None = None,
    label_from: str | None = None,
    label_level: int | None = None,
    label_column: str | None = None,
    follow_links: bool | None = None,
    positive: str | None = None,
    crops: int | None = None,
    heatmaps: gallery.Heatmaps = "all",
    stress: bool = False,
    stress_bound: float | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Run:
    """Score a classifier, or predictions of any tool, on labelled images.

    Args:
        subject: Classifier, run folder, classifier file, or a CSV with the columns `path` and `p:CLASS`.
        catalog: Catalog, table, or folder of photographs.
        out: Folder to write; one below `runs` if None.
        split: `train`, `val`, `test` or `all`. Default: the test split if there is one, else all.
        label_from, label_level, label_column, follow_links: As in `catalog.scan`.
        positive: Two classes: the class whose curves are drawn.
        crops: Crops per image, as in `Classifier.predict`.
        heatmaps: `none`, `few` or `all`, as in `gallery.write_explanations`.
        stress: Whether to score altered versions of the images too: blurred, dark, noisy, recompressed, turned, and of low
            resolution. They count as one use of the test images together with the unaltered ones.
        stress_bound: Accuracy below which an alteration is named, above 0 and at most 1; default: 0.9 times the accuracy on
            the unaltered images.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Returns:
        A run. `data["test"]` holds the scores, `scored` the split, `in_training` the number of images used for training.

    Raises:
        RequestError: If the folder holds other results; or as in `answers_of`.
        DataError: As in `answers_of`.
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
    which |= {"label_level": label_level, "follow_links": follow_links}
    stress_tests.check_bound(stress_bound)
    found = answers_of(subject, catalog, **which, device=device, progress=progress, cache=cache)  # type: ignore[arg-type]
    answers, rows, model = found.predictions, found.rows, found.model
    if stress:
        _check_stress(model)
    if positive is not None and positive not in answers.classes:
        raise unknown("class", positive, answers.classes)
    positive = positive or (model.card.positive if model is not None else answers.threshold and answers.threshold[0])
    by = model.card.threshold_by if model is not None else "half" if answers.threshold is None else "given with the table"
    seen = in_training(answers)
    clean = answers.select(~seen) if seen.any() and not seen.all() else None
    twins = catalogs.find_duplicates(found.labelled, cache=cache, progress=progress)
    groups = folders.clusters_of(found.labelled, catalogs.together(found.labelled, twins), answers)
    opening = None if found.scored in ("train", "val") else _look(found, title, seen, crops, stress=stress)
    identity = test_set_log.identity(subject) if isinstance(subject, Classifier) else str(subject)
    record = dataclasses.replace(
        records.begin("evaluate", name, digest([identity, rows.fingerprint(), *([crops] if crops is not None else [])])),
        photos=photos,
        root=rows.root.as_posix(),
        subject=title,
        seed=0,
        scored_split=found.scored,
        classes=answers.classes,
        positive=positive,
        in_training=int(seen.sum()),
        caution=training_caution(answers),
        unknown_labels=found.unlabelled,
        table_mismatches=found.misfits,
        threshold=ThresholdChoice(criterion=by),
        dataset=_dataset(found, twins),
        test=records.scores(answers, positive, groups),
        test_without_leaks=records.scores(clean, positive, groups[~seen]),
        label_changes=_label_changes(subject, found, groups, positive),
        undecodable={"test": records.file_problems(answers.errors)},
        mistakes_in="test",
    )
    record = records.with_test_use(record, opening, answers if clean is None else clean)
    own: dict[str, Any] = {"cache": cache, "device": device, "progress": progress}
    learnt = None if isinstance(subject, Classifier) else similar_images.training_of(subject)
    errors = error_analysis.describe(folder, model, answers, rows, learnt, groups, held_out=not seen.any(), **own)
    record = records.with_errors(record, errors)
    if model is not None:
        record = _with_model(folder, record, model, answers, crops=crops)
        if not (model.card.backbone.source == "user" and code is None):
            drawn = gallery.write_explanations(folder, model, rows, answers, seed=0, heatmaps=heatmaps, **own)
            record = records.with_heatmaps(record, drawn)
    if model is not None and stress:
        counted = ~seen if clean is not None else np.ones(len(answers), dtype=bool)
        limits: dict[str, Any] = {"bound": stress_bound, "positive": positive, "crops": crops}
        tested = stressing.describe(folder, model, rows, answers.select(counted), groups[counted], **limits, **own)
        record = dataclasses.replace(record, stress=tested)
    write_text(folder / "predictions" / "test.csv", answers.to_csv())
    folders.write_curves(folder, "test", answers, record.test, by)
    catalogs.save(found.labelled, folder / "catalog.csv")
    seconds = time.perf_counter() - started
    done = folders.finish(folder, records.with_environment(record, environment(engine.choose_device(device)), seconds))
    report.write_report([done], folder / "report.html")
    return done


def _with_model(folder: Path, record: RunRecord, model: Classifier, answers: Predictions, *, crops: int | None) -> RunRecord:
    """Return the record with the facts of a classifier, and write its recipe."""
    card, again = model.card, None
    if card.method in methods.METHODS and not card.members and not methods.source_hashes(card.recipe):
        write_text(folder / "recipe.toml", folders.toml(card.recipe))
        again = folders.crossvalidate(folder / "catalog.csv", folder, answers)
    return dataclasses.replace(
        record,
        method=card.method,
        backbone=card.backbone.name,
        head=card.head,
        precision=records.precision_check(card.precision),
        crops=card.crops if crops is None else crops,
        crossvalidate_command=again,
    )


def _look(
    found: Answered, subject: str, seen: np.ndarray, crops: int | None, *, stress: bool = False
) -> test_set_log.Opening | None:
    """Record the evaluation of images not used for training in the test-set log; None if all were used for training."""
    return test_set_log.look(
        found.predictions, found.contents, ~seen, found.model, verb="evaluate", by=subject, crops=crops, stress=stress
    )


def _label_changes(
    subject: str | Path | Classifier, found: Answered, groups: np.ndarray, positive: str | None
) -> LabelChanges | None:
    """Return the score under the labels that the subject's run knew and under the present ones, if they differ."""
    if isinstance(subject, Classifier):
        return None
    old = label_changes.known_labels(Path(subject))
    return label_changes.label_changes(found.predictions, found.rows, old, groups, positive) if old else None


def _check_stress(model: Classifier | None) -> None:
    """Check that a stress test is possible.

    Raises:
        RequestError: If there is no classifier, or it does not use pixels.
    """
    if model is None:
        raise RequestError("--stress needs a classifier, not a table of predictions", "leave out --stress")
    stress_tests.check_model(model)


def _labels_alone(labelled: Catalog, scored: str) -> Catalog:
    """Return the catalog with rows of missing files made usable by their labels, if none of the files exists.

    Scores need only labels; a note tells what is left out.
    """
    columns = (labelled.column(name) for name in ("problem", "label", "split"))
    rows = [(p, label is not None and scored in ("all", s)) for p, label, s in zip(*columns, strict=True)]
    missing = [asked and p is not None and p.startswith("missing:") for p, asked in rows]
    if not any(missing) or any(asked and p is None for p, asked in rows):
        return labelled
    note = (
        f"none of the {sum(missing):,} images exists (such as {labelled.paths[missing.index(True)]}), so only the labels are "
        "used: duplicates, slices by image properties and the test-set log are left out"
    )
    known = [None if gone else p for gone, (p, _) in zip(missing, rows, strict=True)]
    return labelled.with_column("problem", known).with_notes(note)


def without_pictures(catalog: Catalog) -> bool:
    """Return whether only the labels of the images are known."""
    return not any(catalog.column("content"))


def _dataset(found: Answered, duplicates: catalogs.Duplicates) -> DatasetSummary:
    """Return the summary of the images, without image properties if only labels are known."""
    summary = records.dataset_summary(found.labelled, duplicates)
    if not without_pictures(found.rows):
        return summary
    nothing: dict[str, Any] = {"width": None, "height": None, "size_histogram": None, "duplicates": None}
    return dataclasses.replace(summary, **nothing, enlarged={}, formats={}, modes={})


def match(answers: Predictions, catalog: Catalog) -> Predictions:
    """Return predictions of any tool with the labels and paths of the catalog; rows of other images are dropped.

    Rows are matched by `inputs.find_by_ending`.

    Raises:
        DataError: If no row matches a usable image, or an image has two rows.
    """
    return _matched(answers, catalog.usable(), catalog, "all", "the catalog")[0]


def _matched(
    answers: Predictions, rows: Catalog, labelled: Catalog, scored: str, name: str
) -> tuple[Predictions, list[str | None]]:
    """Return the matched predictions, and for each row of the table its image in the whole catalog, or None.

    Args:
        answers: Predictions of a table.
        rows: The images of the split.
        labelled: The whole catalog.
        scored: The split, or `all`.
        name: Name of the catalog in messages.
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
    """Return the error for a table without any row of the requested images."""
    splits = dict(zip(labelled.paths, labelled.column("split"), strict=True))
    counts = Counter(splits[path] or "no split" for path in images if path is not None and splits[path] != scored)
    if counts and scored != "all":
        parts = " and ".join(f"{n:,} of {split}" for split, n in sorted(counts.items()))
        what = f"no row of the predictions is in the {scored} split of {name}: they are {parts}"
        named = [split for split in SPLITS if split in counts]
        ways = named if len(counts) == len(named) == 1 else [*named, "all"]
        return DataError(what, f"add {' or '.join(f'--split {split}' for split in ways)}")
    first = answers.paths[0] if len(answers) else ""
    alike = [p for p in labelled.paths if unicodedata.normalize("NFC", p).endswith(unicodedata.normalize("NFC", first))]
    hint = f"the predictions say {first!r}, the catalog {labelled.paths[0]!r}" if first and len(labelled) else None
    if len(alike) > 1:
        hint = f"{first!r} could be any of {len(alike):,} images, such as {alike[0]!r} and {alike[1]!r}: write whole paths"
    return DataError(f"none of the {len(answers):,} paths in the predictions is an image of {name}", hint)


def _misfits(names: Sequence[str], labels: Sequence[str], images: Sequence[str | None], rows: Catalog) -> TableMismatches:
    """Return the mismatches between a table of predictions and labelled images.

    Args:
        names, labels: Paths and labels of the rows of the table; a missing label is "".
        images: Path of the matched image of each row, or None. Images of other splits are not mismatches.
        rows: The images of the split.

    Returns:
        Their numbers and the first examples of each kind; if labels differ, that of the catalog is used.
    """
    true = dict(zip(rows.paths, rows.column("label"), strict=True))
    lost = [name for name, path in zip(names, images, strict=True) if path is None]
    found = [(path, label) for path, label in zip(images, labels, strict=True) if path is not None and path in true]
    other = [
        LabelMismatch(path, table=label, catalog=known)
        for path, label in found
        if label
        and (known := true[path]) is not None
        and unicodedata.normalize("NFC", label) != unicodedata.normalize("NFC", known)
    ]
    answered = {path for path, _ in found}
    missing = [path for path in rows.paths if path not in answered]
    examples = MismatchExamples(lost[:MOST_EXAMPLES], other[:MOST_EXAMPLES], missing[:MOST_EXAMPLES])
    return TableMismatches(len(lost), len(other), len(missing), examples)


def _say_misfits(misfits: TableMismatches, table: str, name: str) -> None:
    """Log a warning for each kind of mismatch, with an example."""
    examples = misfits.examples
    if misfits.not_in_catalog:
        rows, path = _several(misfits.not_in_catalog, "row"), examples.not_in_catalog[0]
        log.warning("%s of %s left out: no image of %s, or more than one, has that path (such as %s)", rows, table, name, path)
    if misfits.other_label:
        rows, case = _several(misfits.other_label, "row"), examples.other_label[0]
        labels = f"{case.path} is {case.table!r} there and {case.catalog!r} here"
        log.warning("%s of %s with another label than %s, whose labels count (%s)", rows, table, name, labels)
    if misfits.no_row:
        images, path = _several(misfits.no_row, "image"), examples.no_row[0]
        log.warning("%s of %s left out: no row of %s is of that image (such as %s)", images, name, table, path)


def _several(n: int, what: str) -> str:
    """Return a count with its noun, in the singular for 1."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def in_training(answers: Predictions) -> np.ndarray:
    """Return bool (n,): which images were used to fit the classifier; all False if unknown."""
    return np.zeros(len(answers), dtype=bool) if answers.in_training is None else answers.in_training


def training_caution(answers: Predictions) -> str | None:
    """Return a warning with the number of images that were used to fit the classifier; None if there are none."""
    count = int(in_training(answers).sum())
    if not count:
        return None
    which = f"all {count:,}" if count == len(answers) else f"{count:,} of {len(answers):,}"
    return f"{which} images were used to fit this classifier (train or val), so their score is too optimistic"
