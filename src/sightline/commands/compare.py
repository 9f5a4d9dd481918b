"""`compare`: several runs, classifiers or tables of predictions on the same images, as a folder with its page."""

from __future__ import annotations

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
from sightline.commands.evaluate import Answered, answers_of, in_training, match, open_labelled
from sightline.errors import DataError, ImageError, RequestError, unknown
from sightline.inputs import read_predictions
from sightline.records import Catalog, Predictions, Progress, Run, silent
from sightline.runs import folder as folders
from sightline.runs import test_set_log
from sightline.store import Cache, plain, slug, write_bytes, write_json, write_text
from sightline.studies import model_comparison as comparison
from sightline.studies.model_comparison import Aligned, Sheet

SPLITS = ("test", "val")
CROSS_VALIDATED = "cross-validated"
"""Instead of a split: the images outside the test split, each answered out of fold."""
MOST_SHOWN = 60
"""Images that the page shows; the table beside it has all."""
THUMBNAIL_PX = 240


@dataclass(frozen=True, slots=True)
class Comparison:
    """One finished folder.

    Args:
        folder: Where it lies.
        data: The content of `comparison.json`, which is written last.
    """

    folder: Path
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of those that are compared.

    Args:
        given: As the user named it.
        name: For people.
        answers: To all its images.
        catalog: Where its images are known; None for a table alone.
        ids: What the ledger may know it by.
        model: The classifier, where it was asked here.
        notes: What the reader must know of it.
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
    """Say which of several classifiers is better on the same images, and whether that could be chance.

    Args:
        subjects: Two or more runs' folders, classifiers' files, or CSVs with `path` and `p:CLASS` columns.
        split: `test` or `val`; None takes the test split where all have answered it, else all cross-validated images where
            all runs have these, else the val split. With a catalog: any of its splits, or `all`.
        catalog: A labelled set that all are asked about; None takes the answers that lie in the runs' folders.
        out: The folder of the result; a name is made where it is None.
        code: For a network of the user's own, `file.py:function`.
        device, progress, cache: As everywhere.

    Returns:
        The comparison. A look at test images is one opening in the ledger, however many are compared.

    Raises:
        RequestError: Fewer than two are named, one twice, or one cannot be found.
        DataError: They did not answer the same images.
    """
    _check(subjects, split, catalog)
    cache, names = Cache() if cache is None else cache, comparison.unique_names(subjects)
    if catalog is not None:
        labelled = catalog if isinstance(catalog, Catalog) else open_labelled(str(catalog), progress)
        title = str(labelled.root if isinstance(catalog, Catalog) else catalog)
        own: dict[str, Any] = {"code": code, "device": device, "progress": progress, "cache": cache}
        found = [answers_of(s, labelled, split=split, called=title, **_for(s, own)) for s in subjects]
        sides = [_asked(s, name, f) for s, name, f in zip(subjects, names, found, strict=True)]
        where = found[0].scored
    else:
        where = split or _default_split(subjects)
        sides = [_stored(s, name, where, code, device, progress, cache) for s, name in zip(subjects, names, strict=True)]
        sides = _with_catalog(sides, where)
    sides, notes = _without_training(sides)
    aligned = comparison.align([Sheet(s.name, s.answers, _keys(s, sides)) for s in sides])
    opening = None if where in ("val", "train", CROSS_VALIDATED) else _look(sides, aligned)
    kind = {"val": "validation", "train": "training", "all": "labelled", CROSS_VALIDATED: CROSS_VALIDATED}.get(where, "test")
    asked_for = {"runs": list(subjects)}
    folder = Path(out) if out is not None else folders.default(_folder_name(names), "comparison.json", asked_for)
    folders.lock(folder)
    if (folder / "run.json").is_file() or (folder / "study.json").is_file():
        raise RequestError(f"{folder} holds a run", "name another folder with -o")
    remarks = [*notes, *(n for s in sides for n in s.notes)]
    data = _describe(sides, aligned, where, kind, opening, remarks, _clusters(sides, aligned, cache, progress))
    _write(folder, data, aligned, next((s.catalog for s in sides if s.catalog is not None), None))
    return Comparison(folder, data)


def _for(subject: str, own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The means of asking a subject: a table has no network that code could build."""
    return {**own, "code": None} if Path(subject).suffix.lower() == ".csv" else own


def _check(subjects: Sequence[str], split: str | None, catalog: object) -> None:
    """Refuse what cannot be compared.

    Raises:
        RequestError: So it is.
    """
    if len(subjects) < 2:
        raise RequestError("a comparison needs at least two", "name two runs, classifiers or tables of predictions")
    twice = [s for s, count in Counter(str(Path(s)) for s in subjects).items() if count > 1]
    if twice:
        raise RequestError(f"{twice[0]} is named twice", "a classifier is no better than itself")
    bare = all(Path(s).suffix.lower() == ".csv" and not Path(s).is_dir() for s in subjects)
    if split is not None and catalog is None and bare:
        hint = "leave out --split, or name the labelled set with --catalog"
        raise RequestError("--split chooses among the answers of runs, and these are tables of answers by themselves", hint)
    known = SPLITS if catalog is None else ("train", "val", "test", "all")
    if split is not None and split not in known:
        raise unknown("split", split, known)


def _run_of(subject: str) -> Run | None:
    """The run that a subject is, or whose classifier it is; None for a classifier or a table by itself.

    Raises:
        RequestError: It is nothing of that kind.
    """
    path = Path(subject)
    if path.suffix.lower() == ".csv" and not path.is_dir():
        return None
    if path.name == "classifier.safetensors" and (path.parent / "run.json").is_file():
        return Run.load(path.parent)
    if path.is_file():
        hint = "name a labelled set that all are asked about, with --catalog"
        raise RequestError(f"{subject} is neither a run nor a table of predictions: no answers of it are kept", hint)
    return Run.load(path)


def _answers_to(run: Run, where: str) -> Predictions | None:
    """A run's answers to a split, None where it has not answered it."""
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
    """The test split where all runs have answered it; else cross-validated images where all have these; else val.

    A table by itself says nothing of how its answers came about: with one, it is val.
    """
    runs = [_run_of(subject) for subject in subjects]
    folders_of = [run.folder / "predictions" for run in runs if run is not None]
    if all((folder / "test.csv").is_file() for folder in folders_of):
        return "test"
    crossed = None not in runs and all((folder / "cross_validated.csv").is_file() for folder in folders_of)
    return CROSS_VALIDATED if crossed else "val"


def _stored(subject: str, name: str, where: str, code: str | None, device: str, progress: Progress, cache: Cache) -> _Side:
    """What a run has answered, or a table holds; a run that has not opened its test split is asked now.

    Raises:
        RequestError: There are no such answers, and no way to get them.
    """
    run = _run_of(subject)
    if run is None:
        return _Side(subject, name, read_predictions(Path(subject)), None)
    answers = _answers_to(run, where)
    if answers is None:
        return _ask(subject, name, run, where, code=code, device=device, progress=progress, cache=cache)
    leaked = int(run.data.get("in_training") or 0) if where == "test" else 0
    notes = (f"{leaked:,} of the images were in the training of {name}: its score may flatter it",) if leaked else ()
    ids = tuple(str(i) for i in (run.data.get("ledger") or {}).get("ids") or ())
    return _Side(subject, name, answers, _catalog_of(run, answers.paths), ids, notes=notes)


def _ask(subject: str, name: str, run: Run, where: str, **own: Any) -> _Side:
    """Open a split that a run has not answered.

    Raises:
        RequestError: The run has no classifier, or no such images.
    """
    labelled = _catalog_of(run, ())
    if labelled is None or not run.classifier_file.is_file() or where not in labelled.column("split"):
        other = "val" if where == "test" else "test"
        raise RequestError(f"{subject} has no answers to its {where} split", f"compare with --split {other}, or on a --catalog")
    return _asked(subject, name, answers_of(run.folder, labelled, split=where, **own))


def _asked(subject: str, name: str, found: Answered) -> _Side:
    """What was answered just now."""
    ids = () if found.model is None else (f"classifier:{test_set_log.identity(found.model)}",)
    return _Side(subject, name, found.predictions, found.rows, ids, found.model)


def _catalog_of(run: Run, paths: Sequence[str]) -> Catalog | None:
    """The catalog of a run, where it can be read and knows these paths."""
    return catalogs.load_beside(run.folder / "catalog.csv", run.data.get("root"), paths)


def _with_catalog(sides: list[_Side], where: str) -> list[_Side]:
    """Tables by themselves find their images in the first run's catalog, where all are there; rows of other splits are dropped.

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
    """Leave out images that one of those who are asked here was trained on: its score on them would say nothing.

    Raises:
        DataError: None is left.
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
        raise DataError("all of these images were in training", "compare on images that none of them has learnt from")
    return left, [f"{len(seen):,} images that were in the training of one of them are left out"]


def _keys(side: _Side, sides: Sequence[_Side]) -> tuple[str, ...]:
    """What a side's images are known by: their bytes where all sides know these, else their paths.

    The same bytes under several paths are told apart by their order.
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
    """Count the comparison as one look; None where nobody knows the images' bytes."""
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
    return test_set_log.opened(contents, subjects, verb="compare", by=by, when=folders.now())


def _clusters(sides: Sequence[_Side], aligned: Aligned, cache: Cache, progress: Progress) -> np.ndarray | None:
    """int64 (n,): duplicates and images of one group have one number; None where each image stands for itself."""
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
) -> dict[str, Any]:
    """The content of comparison.json but for the pictures."""
    told = comparison.compare(aligned, kind=kind, cluster=cluster)
    if cluster is not None:
        count = told["clusters"]
        notes = [*notes, f"images of one group, and duplicates, count together: {count:,} clusters in {told['n']:,} images"]
    given = {s.name: s.given for s in sides}
    pairs = [{**p, "a": given[p["a"]], "b": given[p["b"]]} for p in told["pairs"]]
    best = max(s["accuracy"] for s in told["scores"])
    looks = {} if opening is None else opening.as_data(best, told["n"])
    data: dict[str, Any] = plain(
        {
            "version": 1,
            "sightline": __version__,
            "kind": "compare",
            "created": folders.now(),
            "runs": [s.given for s in sides],
            "names": [s.name for s in sides],
            "split": where,
            "images": kind,
            "n": told["n"],
            "clusters": told["clusters"],
            "scores": told["scores"],
            "pairs": pairs,
            "patterns": comparison.patterns(aligned),
            "disagreements": comparison.disagreements(aligned),
            "notes": list(notes),
            **looks,
        }
    )
    return data


def _folder_name(names: Sequence[str]) -> str:
    """Such as `compare-a-b`."""
    told = "-".join(slug(Path(n).name) for n in names[:3])
    return f"compare-{told}{'-and-more' if len(names) > 3 else ''}"


def _write(folder: Path, data: dict[str, Any], aligned: Aligned, catalog: Catalog | None) -> None:
    """Tables, thumbnails, comparison.json, and the page."""
    write_text(folder / "pairs.csv", folders.table([{k: v for k, v in p.items() if k != "verdict"} for p in data["pairs"]]))
    header = ["path", "label", *(f"{what}:{name}" for name in aligned.names for what in ("predicted", "probability", "right"))]
    rows = []
    for row in data["disagreements"]:
        cells = [v for a in row["answers"] for v in (a["predicted"], a["probability"], int(a["right"]))]
        rows.append(dict(zip(header, [row["path"], row["label"], *cells], strict=True)))
    write_text(folder / "disagreements.csv", folders.table(rows) if rows else ",".join(header) + "\n")
    if catalog is not None:
        _write_thumbnails(folder, data["disagreements"][:MOST_SHOWN], catalog)
    write_json(folder / "comparison.json", data)
    report.write_comparison(data, folder / "report.html")


def _write_thumbnails(folder: Path, rows: Sequence[dict[str, Any]], catalog: Catalog) -> None:
    """Small pictures of images as far as these can be found; each row learns its own."""
    from PIL import Image

    for number, row in enumerate(rows, 1):
        try:
            small = pixels.upright(catalog.file(row["path"]), THUMBNAIL_PX)
        except (ImageError, OSError):
            continue
        data = io.BytesIO()
        Image.fromarray(small).save(data, "JPEG", quality=86)
        row["file"] = f"thumbnails/{number:03d}.jpg"
        write_bytes(folder / row["file"], data.getvalue())
