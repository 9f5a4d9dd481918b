"""Label an unlabelled folder: which photograph comes next, the answers, the head that learns from them, and its accuracy.

The folder of a session holds `label.json` (the request), `catalog.csv` (the photographs), `decisions.jsonl` (the answers) and
`heads.jsonl` (predictions of every fitted head on the random sample); the last two are only ever appended to. Everything else
is a function of them, so that a restart loses nothing. `save` writes `labelled.csv`.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline import catalog as catalogs
from sightline import engine, heads
from sightline.audit import labelling
from sightline.audit.label_next import Proposal
from sightline.audit.label_next import label_next as propose
from sightline.commands.audit import default_network, features_of
from sightline.commands.label_next import open_photographs
from sightline.errors import DataError, RequestError, SightlineError
from sightline.files import read_text
from sightline.records import Catalog, Head, Progress, silent
from sightline.records.decisions import Action, Decision, Drawn
from sightline.records.labelling import FittedHead, LabellingRequest, LabellingState, Question
from sightline.records.versions import check_version
from sightline.runs import decisions, test_set_log
from sightline.runs import folder as folders
from sightline.schema import from_json
from sightline.store import Cache, append_line, canonical_json, digest, log, now, plain, write_json
from sightline.training.context import folds_of

REQUEST, CATALOG, DECISIONS, HEADS = "label.json", "catalog.csv", "decisions.jsonl", "heads.jsonl"
LABELLED, CHANGES = "labelled.csv", "changes.csv"
MOST_CLASSES = 30
"""Maximum number of classes: each has a key."""
_QUEUE = 4 * labelling.EVERY
_ANSWERS: dict[str, str] = {"no class": "not in any class", "skip": "skipped"}


@dataclass(frozen=True, slots=True)
class _Material:
    """Photographs of a session, computed once.

    Args:
        catalog: n rows; labels and splits are empty.
        values: float32 (n, d), features, NaN for rows that cannot be used.
        cluster: int64 (n,), equal for duplicates.
        sample: int64 (m,), rows of the random sample, in the order of the draw.
    """

    catalog: Catalog
    values: np.ndarray
    cluster: np.ndarray
    sample: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Rows with features, bool (n,)."""
        return np.asarray(np.isfinite(self.values).all(axis=1))


@dataclass(frozen=True, slots=True)
class _Answers:
    """Decisions in force, by row of the catalog.

    Args:
        all: Content of the decisions file.
        by_row: Row → decision.
    """

    all: decisions.Decisions
    by_row: Mapping[int, Decision]

    def rows(self, action: Action, drawn: Drawn) -> list[int]:
        """Return the rows with this answer that were drawn in this way."""
        return [row for row, each in self.by_row.items() if each.action == action and each.drawn == drawn]


@folders.releasing
def start(
    photos: str | Path | Catalog,
    classes: Sequence[str],
    folder: Path,
    *,
    backbone: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> LabellingSession:
    """Start a labelling session of a folder, or continue the one that the session's folder holds.

    Args:
        photos: Folder, table or catalog of unlabelled photographs.
        classes: At least two class names.
        folder: Folder of the session.
        backbone: Network of the features. Default: the first default network that is available.
        seed: Random seed.
        device, progress, cache: As in `label_next`.

    Raises:
        RequestError: If there are fewer than two classes, a name is empty or given twice, `photos` does not exist, or the
            folder holds a session of other photographs.
        DataError: If no photograph can be decoded.
    """
    cache = Cache() if cache is None else cache
    names = checked_classes(classes)
    name = str(photos.root if isinstance(photos, Catalog) else Path(photos).absolute())
    folders.lock(folder)
    if (folder / REQUEST).is_file():
        if (held := read_request(folder)).photos != name:
            hint = "give the session another name"
            raise RequestError(f"{folder} holds a labelling session of other photographs, {held.photos}", hint)
        return LabellingSession(folder, device=device, progress=progress, cache=cache)
    found = open_photographs(photos, progress)
    empty: list[str | None] = [None] * len(found)
    found = found.with_column("label", empty).with_column("split", empty)
    if not len(found.usable()):
        raise DataError(f"{name} has no usable photograph", "`sightline scan` lists the problem of each image")
    catalogs.save(found, folder / CATALOG)
    request = LabellingRequest(name, names, default_network(backbone, cache).name, seed, now())
    write_json(folder / REQUEST, plain(request))
    return LabellingSession(folder, device=device, progress=progress, cache=cache)


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return class names without spaces around them.

    Raises:
        RequestError: If there are fewer than two or too many, or one is empty or given twice.
    """
    names = tuple(name.strip() for name in classes)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise RequestError(f"{len(names)} classes cannot be labelled by keys", f"name 2 to {MOST_CLASSES} classes")
    if not all(names) or len(set(names)) != len(names):
        raise RequestError(f"a class name is empty or given twice: {', '.join(map(repr, names))}", "give each class one name")
    return names


def read_request(folder: Path) -> LabellingRequest:
    """Return the request of the session in a folder.

    Raises:
        RequestError: If there is none, or it has another version.
    """
    try:
        value = json.loads(read_text(folder / REQUEST))
    except FileNotFoundError:
        raise RequestError(f"{folder} holds no labelling session", "start one on the page Label") from None
    check_version(value, f"file {folder / REQUEST}")
    return from_json(LabellingRequest, value, "labelling session", "key")


class LabellingSession:
    """Labelling of one folder. Its functions may be called from several threads.

    Args:
        folder: Folder of the session, as `start` writes it.
        device, progress, cache: As in `start`.
    """

    def __init__(self, folder: Path, *, device: str = "auto", progress: Progress = silent, cache: Cache | None = None) -> None:
        self.folder, self.request = folder, read_request(folder)
        self._material = _load(self.request, folder, Cache() if cache is None else cache, device, progress)
        self._row = {path: row for row, path in enumerate(self._material.catalog.paths)}
        self._head: Head | None = None
        self._queue: list[Proposal] = []
        self._fitted = list(_read_heads(folder / HEADS, len(self._material.sample)))
        self._fitted_version = -1
        self._lock, self._fit_lock = threading.RLock(), threading.Lock()
        self.refit()

    @property
    def catalog(self) -> Catalog:
        """The photographs, without labels."""
        return self._material.catalog

    def _answers(self) -> _Answers:
        """Read the decisions; those about photographs that the catalog does not have are left out."""
        read = decisions.read(self.folder / DECISIONS)
        by_path = read.in_force()
        return _Answers(read, {self._row[path]: each for path, each in by_path.items() if path in self._row})

    def _classes(self, answers: _Answers) -> tuple[str, ...]:
        """Return the classes: those of the request, then those that were added, in the order of their first label."""
        added = (each.label for each in answers.by_row.values() if each.action == "label" and each.label)
        return tuple(dict.fromkeys((*self.request.classes, *added)))

    def state(self) -> LabellingState:
        """Return the state of the session with the next photograph."""
        answers = self._answers()
        with self._lock:
            fitted = list(self._fitted)
            question = self._question(answers)
        of_row = {row: each.label for row, each in answers.by_row.items() if each.action == "label"}
        sampled = [of_row.get(row) for row in self._material.sample.tolist()]
        last = _last(answers.all)
        return LabellingState(
            version=answers.all.version,
            classes=self._classes(answers),
            question=question,
            counts=Counter(label for label in of_row.values() if label),
            trained=len(answers.rows("label", "ranked")),
            sampled=len(answers.rows("label", "random")),
            no_class=sum(each.action == "no class" for each in answers.by_row.values()),
            skipped=sum(each.action == "skip" for each in answers.by_row.values()),
            images=int(self._material.usable.sum()),
            curve=labelling.curve(fitted, sampled),
            gain=labelling.gain(fitted, sampled),
            last=None if last is None else (last.path, last.label or _ANSWERS[last.action]),
            fitting=self._fit_lock.locked(),
        )

    def answer(self, path: str, action: Action, label: str | None, *, seen: int) -> None:
        """Record the answer to a photograph.

        Args:
            path: Its path.
            action: `label`, `no class` or `skip`.
            label: Class, for `label`; a new one is added to the classes.
            seen: Version that the person has seen.

        Raises:
            StaleError: If there are newer decisions.
            RequestError: If the photograph is not one of the session, or the label is empty.
        """
        if path not in self._row:
            raise RequestError(f"{path!r} is not a photograph of this session", "load the page again")
        if action not in ("label", *_ANSWERS):
            raise RequestError(f"{action!r} is not an answer", "answer with a class, no class or skip")
        name = (label or "").strip()
        if action == "label":
            if not name:
                raise RequestError(f"the label of {path} is empty", "name a class")
            checked_classes(list(dict.fromkeys((*self._classes(self._answers()), name))))
        row = self._row[path]
        drawn: Drawn = "random" if row in set(self._material.sample.tolist()) else "ranked"
        content = self._material.catalog.column("content")[row] or ""
        self._append(Decision(action, path, content, name if action == "label" else None, drawn=drawn), seen)

    def undo(self, *, seen: int) -> None:
        """Take the last answer back; its photograph is asked for again.

        Raises:
            StaleError: If there are newer decisions.
            RequestError: If there is no answer.
        """
        last = _last(self._answers().all)
        if last is None:
            raise RequestError("there is no answer to undo", "label a photograph first")
        self._append(Decision("undo", undoes=last.number), seen)

    def _append(self, decision: Decision, seen: int) -> None:
        decisions.append(self.folder / DECISIONS, [decision], seen=seen, catalog=CATALOG)

    def needs_fit(self) -> bool:
        """Return whether enough answers have come in since the last fit."""
        return self._answers().all.version - self._fitted_version >= labelling.EVERY

    def refit(self) -> None:
        """Fit the head on the labels so far, predict the random sample, and choose the next photographs; takes seconds."""
        with self._fit_lock:
            answers = self._answers()
            classes, material = self._classes(answers), self._material
            rows = np.array(sorted(answers.rows("label", "ranked")), dtype=np.int64)
            index = {name: i for i, name in enumerate(classes)}
            y = np.array([index[answers.by_row[row].label or ""] for row in rows.tolist()], dtype=np.int64)
            head = _fit(material, rows, y, len(classes), self.request.seed)
            queue = _ranked(material, answers, head, len(classes), self.request.seed)
            with self._lock:
                if head is not None and (not self._fitted or self._fitted[-1].decisions != answers.all.version):
                    predicted = heads.logits(head, material.values[material.sample]).argmax(axis=1)
                    fitted = FittedHead(len(rows), answers.all.version, classes, predicted.tolist())
                    append_line(self.folder / HEADS, canonical_json(fitted))
                    self._fitted.append(fitted)
                self._head, self._queue, self._fitted_version = head, queue, answers.all.version

    def _question(self, answers: _Answers) -> Question | None:
        """Return the next photograph: one whose answer was undone, one of the random sample, or the next chosen one."""
        undone = _undone(answers.all)
        if undone is not None and undone.path in self._row:
            return self._asked(self._row[undone.path], undone.drawn or "ranked", "its answer was undone", answers)
        sample = [row for row in self._material.sample.tolist() if row not in answers.by_row]
        taken = sum(each.drawn == "random" for each in answers.by_row.values())
        if sample and labelling.asks_sample(len(answers.by_row), taken):
            return self._asked(sample[0], "random", "drawn at random, to measure the accuracy", answers)
        chosen = next((each for each in self._queue if each.row not in answers.by_row), None)
        if chosen is None:
            material, classes = self._material, len(self._classes(answers))
            self._queue = _ranked(material, answers, self._head, classes, self.request.seed)
            chosen = self._queue[0] if self._queue else None
        if chosen is not None:
            return self._asked(chosen.row, "ranked", chosen.reason, answers)
        return self._asked(sample[0], "random", "drawn at random, to measure the accuracy", answers) if sample else None

    def _asked(self, row: int, drawn: Drawn, reason: str, answers: _Answers) -> Question:
        """Return a question, with the prediction of the current head for chosen photographs."""
        question = Question(self._material.catalog.paths[row], row, drawn, reason)
        if self._head is None or drawn == "random":
            return question
        probs = heads.probs(self._head, self._material.values[[row]])[0]
        best = int(probs.argmax())
        return dataclasses.replace(question, predicted=self._classes(answers)[best], probability=float(probs[best]))

    def save(self) -> Path:
        """Write the catalog with the labels as `labelled.csv`, and the list of changes as `changes.csv`.

        Chosen photographs become the training split and the random sample the test split, whose use for the curve is recorded
        in the test-set log.

        Returns:
            The catalog.
        """
        answers, catalog = self._answers(), self._material.catalog
        by_path = {catalog.paths[row]: each for row, each in answers.by_row.items()}
        labelled, changes = catalogs.apply_decisions(catalog, by_path)
        splits: list[str | None] = [None] * len(catalog)
        for drawn, split in (("ranked", "train"), ("random", "test")):
            for row, each in answers.by_row.items():
                if each.action == "label" and each.drawn == drawn:
                    splits[row] = split
        labelled = labelled.with_column("split", splits)
        catalogs.save(labelled, self.folder / LABELLED)
        catalogs.write_changes(changes, self.folder / CHANGES)
        tests = [content or "" for content in labelled.where(split="test").column("content")]
        if tests and self._fitted:
            session = digest([self.request.photos, self.request.created])
            subject = test_set_log.LoggedClassifier("labelling", (f"labelling:{session}",))
            by = f"accuracy while labelling {self.request.photos}"
            test_set_log.opened(tests, [subject], verb="label", by=by, when=now())
        return self.folder / LABELLED


def _load(request: LabellingRequest, folder: Path, cache: Cache, device: str, progress: Progress) -> _Material:
    """Return the photographs of a session with features and clusters.

    Raises:
        DataError: If no photograph can be decoded.
    """
    root = Path(request.photos)
    catalog = catalogs.load(folder / CATALOG, root if root.is_dir() else None)
    usable = np.array([problem is None for problem in catalog.column("problem")], dtype=bool)
    network = default_network(request.network, cache)
    found = features_of(catalog.usable(), network, cache, engine.choose_device(device), progress)
    values = np.full((len(catalog), found.shape[1]), np.nan, np.float32)
    values[usable] = found
    if not np.isfinite(values).all(axis=1).any():
        raise DataError(
            f"{request.photos} has no image that can be decoded", "`sightline scan` lists the problem of each image"
        )
    cluster = catalogs.together(catalog, catalogs.find_duplicates(catalog, cache, progress, features=values))
    material = _Material(catalog, values, cluster, np.zeros(0, np.int64))
    return dataclasses.replace(material, sample=labelling.random_sample(cluster, material.usable, request.seed))


def _read_heads(file: Path, sampled: int) -> Iterator[FittedHead]:
    """Yield the fitted heads of a session; lines that are damaged or of another sample are left out."""
    try:
        lines = read_text(file).splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        try:
            head = from_json(FittedHead, json.loads(line), "fitted head", "key")
        except (ValueError, TypeError, SightlineError) as error:
            log.warning("line %d of %s cannot be read (%s) and is left out", number, file, error)
            continue
        if len(head.predicted) == sampled:
            yield head


def _fit(material: _Material, rows: np.ndarray, y: np.ndarray, classes: int, seed: int) -> Head | None:
    """Return the head of labelled rows, its penalty chosen by cross-validation; None with one class only."""
    if len(np.unique(y)) < 2:
        return None
    kind, settings = heads.with_units([])
    try:
        folds = folds_of(y, material.cluster[rows], 5, seed)
    except DataError:  # every class has one photograph
        folds, settings = [(np.arange(len(rows)), np.zeros(0, np.int64))], {"C": 1.0}
    return heads.fit(kind, material.values[rows], y, classes, folds=folds, settings=settings, seed=seed).head


def _ranked(material: _Material, answers: _Answers, head: Head | None, classes: int, seed: int) -> list[Proposal]:
    """Return the next photographs in the order of `label_next`: without the random sample and without answered ones.

    A photograph whose duplicate was answered comes last.
    """
    answered = np.array(sorted(answers.by_row), dtype=np.int64)
    free = material.usable & ~np.isin(material.cluster, material.cluster[material.sample])
    free[answered] = False
    fresh = free & ~np.isin(material.cluster, material.cluster[answered])
    pool = np.flatnonzero(fresh if fresh.any() else free)
    if not len(pool):
        return []
    probs = None if head is None else heads.probs(head, material.values[pool])
    known = material.values[[row for row in answered.tolist() if answers.by_row[row].drawn == "ranked"]]
    group = material.cluster[pool]
    found = propose(material.values[pool], _QUEUE, labelled=known, probs=probs, group=group, seed=seed)
    return [Proposal(int(pool[each.row]), each.reason) for each in found]


def _undone(read: decisions.Decisions) -> Decision | None:
    """Return the decision that was undone last and has not been taken anew; None if there is none."""
    by_number, current = {each.number: each for each in read.decisions}, read.in_force()
    for each in reversed(read.decisions):
        taken_back = by_number.get(each.undoes or 0) if each.action == "undo" else None
        if taken_back is not None and taken_back.action != "undo" and taken_back.path not in current:
            return taken_back
    return None


def _last(read: decisions.Decisions) -> Decision | None:
    """Return the newest decision in force; None if there is none."""
    return max(read.in_force().values(), key=lambda each: each.number, default=None)
