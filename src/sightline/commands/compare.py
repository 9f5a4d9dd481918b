"""`compare`: several runs, classifiers or tables of predictions on the same images, as a folder with its page."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import __version__, pixels, report
from sightline import catalog as catalogs
from sightline.classifier import Classifier
from sightline.commands.evaluate import Answered, answers_of, in_training, match
from sightline.errors import DataError, ImageError, RequestError, unknown
from sightline.evaluation import alignment
from sightline.evaluation.alignment import Aligned, NamedPredictions
from sightline.inputs import read_predictions
from sightline.records import Catalog, ComparisonRecord, Predictions, Progress, Run, silent
from sightline.records.comparison import Disagreement
from sightline.runs import executor, test_set_log
from sightline.runs import folder as folders
from sightline.schema import to_json
from sightline.store import Cache, now, plain, slug, write_bytes, write_json, write_text
from sightline.studies import model_comparison as comparison

SPLITS = ("test", "val")
CROSS_VALIDATED = "cross-validated"
"""Instead of a split: the images outside the test split, each answered out of fold."""
MOST_SHOWN = 60
"""Disagreements shown in the report; disagreements.csv lists all."""
THUMBNAIL_PX = 240


@dataclass(frozen=True, slots=True)
class Comparison:
    """Finished comparison.

    Args:
        folder: Folder of report and tables.
        data: Content of `comparison.json`.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def record(self) -> ComparisonRecord:
        """Typed content of `comparison.json`."""
        return ComparisonRecord.from_json(self.data)

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        return self.record._repr_html_()


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of the comparison.

    Args:
        given: Its path as given by the user.
        name: Its name in tables.
        answers: Its predictions.
        catalog: Catalog with its images; None for a table alone.
        ids: Its ids in the test-set log.
        model: The classifier, if it predicted the images now.
        notes: Notes for the report.
    """

    given: str
    name: str
    answers: Predictions
    catalog: Catalog | None
    ids: tuple[str, ...] = ()
    model: Classifier | None = None
    notes: tuple[str, ...] = ()


@folders.releasing
def compare(
    subjects: Sequence[str],
    *,
    split: str | None = None,
    catalog: str | Path | Catalog | None = None,
    out: str | Path | None = None,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Comparison:
    """Test which of several classifiers is better on the same images, and whether the difference is significant.

    Args:
        subjects: Two or more run folders, classifier files, or CSVs with the columns `path` and `p:CLASS`.
        split: `test` or `val`. Default: test if all were tested, else the cross-validated images if all runs have them, else
            val. With a catalog: any of its splits, or `all`.
        catalog: Catalog, table or folder of labelled images to predict now; None uses the predictions stored in the runs.
        out: Folder to write; one below `runs` if None.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Returns:
        The comparison. On test images it counts as one use of the test set, for any number of subjects.

    Raises:
        RequestError: If fewer than two subjects are given, one is given twice, or one does not exist.
        DataError: If the subjects have no images in common.
    """
    _check(subjects, split, catalog)
    cache, names = Cache() if cache is None else cache, comparison.unique_names(subjects)
    if catalog is not None:
        labelled = catalog if isinstance(catalog, Catalog) else executor.current().scan(str(catalog), progress=progress)
        title = str(labelled.root if isinstance(catalog, Catalog) else catalog)
        own: dict[str, Any] = {"code": code, "device": device, "progress": progress, "cache": cache}
        found = [answers_of(s, labelled, split=split, called=title, **_for(s, own)) for s in subjects]
        sides = [_asked(s, name, f) for s, name, f in zip(subjects, names, found, strict=True)]
        where = found[0].scored
    else:
        where = split or _default_split(subjects)
        sides = [
            _stored(s, name, where, code=code, device=device, progress=progress, cache=cache)
            for s, name in zip(subjects, names, strict=True)
        ]
        sides = _with_catalog(sides, where)
    sides, notes = _without_training(sides)
    aligned = alignment.align([NamedPredictions(s.name, s.answers, _keys(s, sides)) for s in sides])
    opening = None if where in ("val", "train", CROSS_VALIDATED) else _look(sides, aligned)
    kind = {"val": "validation", "train": "training", "all": "labelled", CROSS_VALIDATED: CROSS_VALIDATED}.get(where, "test")
    asked_for = {"runs": list(subjects)}
    folder = Path(out) if out is not None else folders.default(_folder_name(names), "comparison.json", asked_for)
    folders.lock(folder)
    if (folder / "run.json").is_file() or (folder / "study.json").is_file():
        raise RequestError(f"{folder} holds a run", "name another folder with -o")
    remarks = [*notes, *(n for s in sides for n in s.notes)]
    cluster = _clusters(sides, aligned, cache, progress)
    record = _describe(sides, aligned, where, kind=kind, opening=opening, notes=remarks, cluster=cluster)
    pictures = next((s.catalog for s in sides if s.catalog is not None), None)
    return Comparison(folder, _write(folder, record, aligned, pictures))


def _for(subject: str, own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the prediction settings of a subject; `code` does not apply to tables."""
    return {**own, "code": None} if Path(subject).suffix.lower() == ".csv" else own


def _check(subjects: Sequence[str], split: str | None, catalog: object) -> None:
    """Check the arguments.

    Raises:
        RequestError: If there are fewer than two subjects, one is given twice, or the split does not fit.
    """
    if len(subjects) < 2:
        raise RequestError("a comparison needs at least two", "name two runs, classifiers or tables of predictions")
    twice = [s for s, count in Counter(str(Path(s)) for s in subjects).items() if count > 1]
    if twice:
        raise RequestError(f"{twice[0]} is named twice", "name two different runs, classifiers or tables")
    bare = all(Path(s).suffix.lower() == ".csv" and not Path(s).is_dir() for s in subjects)
    if split is not None and catalog is None and bare:
        hint = "leave out --split, or name the labelled set with --catalog"
        raise RequestError("--split needs runs, not tables of predictions", hint)
    known = SPLITS if catalog is None else ("train", "val", "test", "all")
    if split is not None and split not in known:
        raise unknown("split", split, known)


def _run_of(subject: str) -> Run | None:
    """Return the run of a subject; None for a table of predictions.

    Raises:
        RequestError: If the subject is neither a run nor a table.
    """
    path = Path(subject)
    if path.suffix.lower() == ".csv" and not path.is_dir():
        return None
    if path.name == "classifier.safetensors" and (path.parent / "run.json").is_file():
        return Run.load(path.parent)
    if path.is_file():
        hint = "name labelled images to predict with --catalog"
        raise RequestError(f"{subject} is neither a run nor a table of predictions: it has no stored predictions", hint)
    return Run.load(path)


def _answers_to(run: Run, where: str) -> Predictions | None:
    """Return the stored predictions of a run on a split; None if there are none."""
    names = {"test": ("test",), CROSS_VALIDATED: ("cross_validated",)}.get(where, ("val", "cross_validated"))
    files = [run.folder / "predictions" / f"{name}.csv" for name in names]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        return None
    answers = read_predictions(file)
    if where != "val" or file.stem == "val":
        return answers
    rows = _catalog_of(run, answers.paths)
    split = {} if rows is None else dict(zip(rows.paths, rows.column("split"), strict=True))
    of_val = np.array([split.get(path) == "val" for path in answers.paths], dtype=bool)
    return answers.select(of_val) if of_val.any() else answers


def _default_split(subjects: Sequence[str]) -> str:
    """Return `test` if all runs were tested, else cross-validated images if all runs have them, else `val`.

    The origin of a table alone is unknown, so it counts as `val`.
    """
    runs = [_run_of(subject) for subject in subjects]
    folders_of = [run.folder / "predictions" for run in runs if run is not None]
    if all((folder / "test.csv").is_file() for folder in folders_of):
        return "test"
    crossed = None not in runs and all((folder / "cross_validated.csv").is_file() for folder in folders_of)
    return CROSS_VALIDATED if crossed else "val"


def _stored(subject: str, name: str, where: str, code: str | None, device: str, progress: Progress, cache: Cache) -> _Side:
    """Return the stored predictions of a subject; a run without predictions on the split predicts it now.

    Raises:
        RequestError: If there are no such predictions and the run cannot compute them.
    """
    run = _run_of(subject)
    if run is None:
        return _Side(subject, name, read_predictions(Path(subject)), None)
    answers = _answers_to(run, where)
    if answers is None:
        return _ask(subject, name, run, where, code=code, device=device, progress=progress, cache=cache)
    leaked = int(run.data.get("in_training") or 0) if where == "test" else 0
    notes = (f"{leaked:,} of the images were used to train {name}: its score may be too optimistic",) if leaked else ()
    ids = tuple(str(i) for i in (run.data.get("ledger") or {}).get("ids") or ())
    return _Side(subject, name, answers, _catalog_of(run, answers.paths), ids, notes=notes)


def _ask(subject: str, name: str, run: Run, where: str, **own: Any) -> _Side:
    """Predict a split for which a run has no predictions.

    Raises:
        RequestError: If the run has no classifier, or no images in the split.
    """
    labelled = _catalog_of(run, ())
    if labelled is None or not run.classifier_file.is_file() or where not in labelled.column("split"):
        other = "val" if where == "test" else "test"
        raise RequestError(
            f"{subject} has no predictions on its {where} split", f"compare with --split {other}, or on a --catalog"
        )
    return _asked(subject, name, answers_of(run.folder, labelled, split=where, **own))


def _asked(subject: str, name: str, found: Answered) -> _Side:
    """Return a side from predictions computed now."""
    ids = () if found.model is None else (f"classifier:{test_set_log.identity(found.model)}",)
    return _Side(subject, name, found.predictions, found.rows, ids, found.model)


def _catalog_of(run: Run, paths: Sequence[str]) -> Catalog | None:
    """Return the catalog of a run if it can be read and contains these paths."""
    return catalogs.load_beside(run.folder / "catalog.csv", run.data.get("root"), paths)


def _with_catalog(sides: list[_Side], where: str) -> list[_Side]:
    """Match tables with the catalog of the first run if it contains all their images; drop rows of other splits.

    Args:
        sides: Runs and tables.
        where: The split that is compared.
    """
    known = next((s for s in sides if s.catalog is not None), None)
    if known is None or known.catalog is None:
        return sides
    asked, split = set(known.answers.paths), dict(zip(known.catalog.paths, known.catalog.column("split"), strict=True))
    rows = known.catalog.rows(p in asked for p in known.catalog.paths)
    found = []
    for side in sides:
        if side.catalog is None:
            try:
                matched = match(side.answers, known.catalog)
            except DataError:
                matched = None
            if matched is not None and len(matched) == len(side.answers):
                here = np.array([p in asked or split[p] == where for p in matched.paths], dtype=bool)
                side = _Side(side.given, side.name, matched.select(here), rows, side.ids) if here.any() else side
        found.append(side)
    return found


def _without_training(sides: list[_Side]) -> tuple[list[_Side], list[str]]:
    """Leave out images that were used to train a classifier that predicts now.

    Raises:
        DataError: If no image is left.
    """
    seen: set[str] = set()
    for side in sides:
        if side.model is not None:
            rows = in_training(side.answers)
            seen |= {p for p, known in zip(side.answers.paths, rows.tolist(), strict=True) if known}
    if not seen:
        return sides, []
    left = [
        _Side(s.given, s.name, s.answers.select(np.array([p not in seen for p in s.answers.paths])), s.catalog, s.ids, s.model)
        for s in sides
    ]
    if not all(len(s.answers) for s in left):
        raise DataError(
            "all of these images were used for training", "compare on images that were not used to train any of them"
        )
    return left, [f"{len(seen):,} images used to train one of the classifiers are left out"]


def _keys(side: _Side, sides: Sequence[_Side]) -> tuple[str, ...]:
    """Return the keys of the images of a side: hashes of the bytes if all sides know them, else paths.

    Identical files are numbered in the order of their paths.
    """
    if any(s.catalog is None for s in sides) or side.catalog is None:
        return side.answers.paths
    content = dict(zip(side.catalog.paths, side.catalog.column("content"), strict=True))
    named = [content.get(p) or p for p in side.answers.paths]
    places: Counter[str] = Counter()
    keys = [""] * len(named)
    for i in sorted(range(len(named)), key=lambda i: side.answers.paths[i]):
        keys[i] = f"{named[i]}#{places[named[i]]}"
        places[named[i]] += 1
    return tuple(keys)


def _look(sides: Sequence[_Side], aligned: Aligned) -> test_set_log.Opening | None:
    """Record the comparison as one use of the test set; None if the bytes of the images are unknown."""
    known = next((s.catalog for s in sides if s.catalog is not None), None)
    if known is None:
        return None
    content = dict(zip(known.paths, known.column("content"), strict=True))
    contents = [content.get(p) or "" for p in aligned.paths]
    subjects = []
    for side, answers in zip(sides, aligned.answers, strict=True):
        plain_one = test_set_log.subject(side.name, answers, contents, None, None)
        subjects.append(test_set_log.LoggedClassifier(side.name, (*plain_one.ids, *side.ids)))
    by = f"a comparison of {', '.join(s.name for s in sides)}"
    return test_set_log.opened(contents, subjects, verb="compare", by=by, when=now())


def _clusters(sides: Sequence[_Side], aligned: Aligned, cache: Cache, progress: Progress) -> np.ndarray | None:
    """Return int64 (n,): one number per cluster of duplicates and groups; None if every image is its own cluster."""
    known = next((s.catalog for s in sides if s.catalog is not None and set(aligned.paths) <= set(s.catalog.paths)), None)
    if known is None:
        return None
    twins = catalogs.find_duplicates(known, cache=cache, progress=progress)
    number = dict(zip(known.paths, catalogs.together(known, twins).tolist(), strict=True))
    found = np.array([number[path] for path in aligned.paths], dtype=np.int64)
    return None if len(np.unique(found)) == len(found) else found


def _describe(
    sides: Sequence[_Side],
    aligned: Aligned,
    where: str,
    kind: str,
    opening: test_set_log.Opening | None,
    notes: Sequence[str],
    cluster: np.ndarray | None,
) -> ComparisonRecord:
    """Return the content of comparison.json without thumbnails."""
    n, scores, clusters = len(aligned.paths), comparison.compared_scores(aligned, cluster), None
    if cluster is not None:
        clusters = len(np.unique(cluster))
        notes = [
            *notes,
            f"duplicates and images of the same group count as one cluster: {clusters:,} clusters in {n:,} images",
        ]
    given = {s.name: s.given for s in sides}
    pairs = comparison.compared_pairs(aligned, kind=kind, cluster=cluster)
    best = max(s.accuracy for s in scores)
    return ComparisonRecord(
        sightline=__version__,
        created=now(),
        runs=[s.given for s in sides],
        names=[s.name for s in sides],
        split=where,
        images=kind,
        n=n,
        clusters=clusters,
        scores=scores,
        pairs=[dataclasses.replace(p, a=given[p.a], b=given[p.b]) for p in pairs],
        patterns=alignment.patterns(aligned),
        disagreements=alignment.disagreements(aligned),
        notes=list(notes),
        test_set_accesses=() if opening is None else opening.looks,
        test_set_log=None if opening is None else opening.entry(best, n),
    )


def _folder_name(names: Sequence[str]) -> str:
    """Return a folder name such as `compare-a-b`."""
    told = "-".join(slug(Path(n).name) for n in names[:3])
    return f"compare-{told}{'-and-more' if len(names) > 3 else ''}"


def _write(folder: Path, record: ComparisonRecord, aligned: Aligned, catalog: Catalog | None) -> dict[str, Any]:
    """Write tables, thumbnails, comparison.json and the report; return the content of comparison.json."""
    pairs = [{key: value for key, value in to_json(pair).items() if key != "verdict"} for pair in record.pairs]
    write_text(folder / "pairs.csv", folders.table(pairs))
    header = ["path", "label", *(f"{what}:{name}" for name in aligned.names for what in ("predicted", "probability", "right"))]
    rows = []
    for row in record.disagreements:
        cells = [v for p in row.predictions for v in (p.predicted, p.probability, int(p.right))]
        rows.append(dict(zip(header, [row.path, row.label, *cells], strict=True)))
    write_text(folder / "disagreements.csv", folders.table(rows) if rows else ",".join(header) + "\n")
    if catalog is not None:
        record = dataclasses.replace(record, disagreements=_with_thumbnails(folder, record.disagreements, catalog))
    data: dict[str, Any] = plain(record.to_json())
    write_json(folder / "comparison.json", data)
    report.write_comparison(record, folder / "report.html")
    return data


def _with_thumbnails(folder: Path, rows: Sequence[Disagreement], catalog: Catalog) -> list[Disagreement]:
    """Write thumbnails of the first images that can be read, and return the rows with their paths."""
    from PIL import Image

    shown = list(rows)
    for number, row in enumerate(rows[:MOST_SHOWN]):
        try:
            small = pixels.upright(catalog.file(row.path), THUMBNAIL_PX)
        except (ImageError, OSError):
            continue
        data, name = io.BytesIO(), f"thumbnails/{number + 1:03d}.jpg"
        Image.fromarray(small).save(data, "JPEG", quality=86)
        write_bytes(folder / name, data.getvalue())
        shown[number] = dataclasses.replace(row, file=name)
    return shown
