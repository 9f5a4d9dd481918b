"""The ledger of test images: which were looked at, when, and by what. It outlives runs, and the cache that can be cleared.

A look is an opening that could teach something new of these images. What a look has taught cannot be unlearnt by deleting a
run, so the ledger lies in the user's data folder, is only ever appended to, and is keyed by what the images are: other names,
other folders and other splits of the same photographs are found again, a part of them too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from sightline.classifier import Classifier, content_keys
from sightline.records import Predictions
from sightline.runs.folder import now
from sightline.store import canonical_json, digest, log, plain, write_bytes

LOCK_S = 20.0
_FILE = "openings.jsonl"


@dataclass(frozen=True, slots=True)
class LoggedClassifier:
    """What was scored.

    Args:
        name: For people.
        ids: What it may be known by again: its own identity, and that of its answers.
    """

    name: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TestSetAccess:
    """One opening that touched some of the images in question.

    Args:
        when: ISO 8601.
        verb: The command.
        by: What looked, in words.
        images: How many it looked at.
        shared: How many of these are among the images in question.
        classifiers: How many it scored: one declared comparison of several is one look.
    """

    when: str
    verb: str
    by: str
    images: int
    shared: int
    classifiers: int


@dataclass(frozen=True, slots=True)
class Opening:
    """What the ledger knows of the images of an opening.

    Args:
        looks: At these images, or some of them, oldest first, this one included.
        classifiers: How many different ones they scored in all.
        new: Whether this one is a look of its own.
        counted: Whether it is in the ledger.
        note: Why it is no look, or why it could not be counted; "" otherwise.
        ids: By which what was scored is known again.
    """

    looks: tuple[TestSetAccess, ...]
    classifiers: int
    new: bool
    counted: bool
    note: str = ""
    ids: tuple[str, ...] = ()

    def as_data(self, accuracy: float | None, n: int) -> dict[str, Any]:
        """The keys of run.json that speak of it.

        Args:
            accuracy: What this look has shown, 0 to 1.
            n: On how many images.
        """
        worth = None if accuracy is None else flattery(self.classifiers, accuracy, n)
        told = {"new": self.new, "counted": self.counted, "note": self.note, "classifiers": self.classifiers, "flattery": worth}
        return {"test_openings": [plain(look) for look in self.looks], "ledger": {**told, "ids": list(self.ids)}}


def root() -> Path:
    """The ledger's folder: `SIGHTLINE_LEDGER`, or one in the system's own place for a user's data."""
    named = os.environ.get("SIGHTLINE_LEDGER")
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("sightline", appauthor=False) / "ledger"


def subject(
    name: str, answers: Predictions, contents: Sequence[str], model: Classifier | None, crops: int | None
) -> LoggedClassifier:
    """What is scored, as the ledger knows it again.

    Args:
        name: For people.
        answers: Of the n images.
        contents: SHA-256 of each of them.
        model: The classifier; None for a table of predictions.
        crops: Looks at each image, where they are not those of its card.
    """
    said = sorted(zip(contents, answers.labels, strict=True))
    ids = [f"answers:{digest(said)}"]
    if model is not None:
        ids.append(f"classifier:{identity(model, crops)}")
    return LoggedClassifier(name, tuple(ids))


def identity(model: Classifier, crops: int | None = None) -> str:
    """A hash of all that a classifier's answers depend on: what it was scored with, and its name, are not among that."""
    card = model.card
    arrays = {name: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for name, a in model.head.arrays.items()}
    own = [card.backbone.id, card.backbone.preprocess.id, card.backbone.weights_hash, card.head, arrays, card.temperature]
    members = [identity(m, crops) for m in model.members]
    return digest([card.classes, own, card.bar, card.crops if crops is None else crops, members, card.weights])


def opened(contents: Sequence[str], subjects: Sequence[LoggedClassifier], *, verb: str, by: str, when: str) -> Opening:
    """Write an opening to the ledger and tell what is known of its images.

    It is no new look where each subject was scored on all of these images before: the same answers teach nothing new, and
    nothing can be chosen by them that could not be chosen before.

    Args:
        contents: SHA-256 of each image; "" for what has none.
        subjects: All that are scored in this one declared opening.
        verb: The command.
        by: In words.
        when: ISO 8601.
    """
    keys = np.unique(content_keys([c for c in contents if c]))
    here, folder = TestSetAccess(when, verb, by, len(keys), len(keys), len(subjects)), root()
    if not len(keys):
        return Opening((here,), len(subjects), True, False, "nothing is known of the images' bytes")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            earlier = list(_overlapping(folder, keys))
            if not _nothing_new(earlier, subjects, len(keys)):
                _append(folder, keys, here, subjects)
            return _opening(earlier, here, subjects, len(keys))
    except OSError as error:
        log.warning("the ledger at %s cannot be written (%s); this look at the test images is not counted", folder, error)
        found: list[_Entry] = []
        with contextlib.suppress(OSError):
            found = list(_overlapping(folder, keys))
        return _opening(found, here, subjects, len(keys), f"the ledger cannot be written ({error})")


def look(
    answers: Predictions,
    contents: Sequence[str],
    counts: np.ndarray,
    model: Classifier | None,
    *,
    verb: str,
    by: str,
    crops: int | None = None,
) -> Opening | None:
    """Record that a classifier's answers to labelled test images are shown; every command that shows some calls this.

    Args:
        answers: To n images.
        contents: SHA-256 of each image; "" where it is not known.
        counts: bool (n,), which images count: see `Classifier.counts_as_test`.
        model: The classifier; None for a table of predictions.
        verb: The command.
        by: What looks, in words.
        crops: Looks at each image, where they are not those of the classifier's card.

    Returns:
        None where no image counts.
    """
    rows = np.flatnonzero(counts)
    if not len(rows):
        return None
    known = [contents[i] for i in rows.tolist()]
    return opened(known, [subject(by, answers.select(rows), known, model, crops)], verb=verb, by=by, when=now())


def flattery(classifiers: int, accuracy: float, n: int) -> float:
    """By how much the best of several classifiers looks better than it is, at most about, where these images chose it.

    The expected maximum of k equally good classifiers' scores, above what each would have on endless images, if they erred
    independently: E[max of k standard normals] · √(p (1 − p) / n). Classifiers that err on the same images flatter less.

    Args:
        classifiers: k.
        accuracy: p; where all are right or all wrong, half an image is taken off.
        n: Images.

    Example:
        >>> round(flattery(1, 0.9, 400), 4), round(flattery(2, 0.9, 400), 4), round(flattery(10, 0.9, 400), 4)
        (0.0, 0.0085, 0.0231)
    """
    if classifiers < 2 or not n:
        return 0.0
    p = min(max(accuracy, 0.5 / n), 1 - 0.5 / n)
    x = np.linspace(-8, 8, 4001)
    normal = NormalDist()
    below = np.array([normal.cdf(v) for v in x.tolist()])
    highest = np.gradient(below**classifiers, x)
    return float((x * highest).sum() * (x[1] - x[0])) * math.sqrt(p * (1 - p) / n)


# ---------------------------------------------------------------------------------------------------------------- the file


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the ledger that touches the images in question."""

    look: TestSetAccess
    subjects: tuple[LoggedClassifier, ...]


def _opening(
    earlier: Sequence[_Entry], here: TestSetAccess, subjects: Sequence[LoggedClassifier], n: int, trouble: str = ""
) -> Opening:
    """The earlier looks and this one, if it is one, and how many classifiers that makes."""
    known: list[set[str]] = []
    for each in [*(s for e in earlier for s in e.subjects), *subjects]:
        same = [ids for ids in known if ids.intersection(each.ids)]
        known = [ids for ids in known if ids not in same] + [set(each.ids).union(*same)]
    looks, ids = tuple(e.look for e in earlier), tuple(i for s in subjects for i in s.ids)
    if _nothing_new(earlier, subjects, n):
        return Opening(looks, len(known), False, True, "the same answers to the same images were looked at before", ids)
    return Opening((*looks, here), len(known), True, not trouble, trouble, ids)


def _nothing_new(earlier: Sequence[_Entry], subjects: Sequence[LoggedClassifier], n: int) -> bool:
    """Whether every subject was scored on all of the images before."""
    known = {i for e in earlier if e.look.shared == n for s in e.subjects for i in s.ids}
    return all(known.intersection(s.ids) for s in subjects)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time.

    Raises:
        OSError: It cannot be had.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=LOCK_S)
    except filelock.Timeout as error:
        raise TimeoutError(f"another process holds it for {LOCK_S:g} s") from error
    try:
        yield
    finally:
        lock.release()


def _append(folder: Path, keys: np.ndarray, look: TestSetAccess, subjects: Sequence[LoggedClassifier]) -> None:
    """Keep the images, then the line that names them: an interruption between the two leaves no line without images."""
    data = keys.astype("<u8").tobytes()
    name = hashlib.sha256(data).hexdigest()[:32]
    file = folder / "images" / name
    if not file.is_file():
        write_bytes(file, data)
    value = {"version": 1, "images": name, "n": len(keys), "when": look.when, "verb": look.verb, "by": look.by}
    line = canonical_json({**value, "subjects": [plain(s) for s in subjects]}) + b"\n"
    descriptor = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
    with open(descriptor, "r+b", buffering=0) as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            line = line if stream.read(1) == b"\n" else b"\n" + line  # what an interrupted line left
        stream.write(line)
        os.fsync(descriptor)


def _overlapping(folder: Path, keys: np.ndarray) -> Iterator[_Entry]:
    """The lines whose images are among these, oldest first; a line that cannot be read is said and left out."""
    try:
        text = (folder / _FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    shared: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            name = str(value["images"])
            if name not in shared:
                shared[name] = _shared(folder, name, keys)
            if shared[name]:
                yield _entry(value, shared[name])
        except (ValueError, KeyError, TypeError, OSError) as error:
            log.warning("line %d of the ledger %s cannot be read (%s) and is left out", number, folder / _FILE, error)


def _entry(value: Mapping[str, Any], shared: int) -> _Entry:
    subjects = tuple(LoggedClassifier(str(s["name"]), tuple(map(str, s["ids"]))) for s in value["subjects"])
    look = TestSetAccess(str(value["when"]), str(value["verb"]), str(value["by"]), int(value["n"]), shared, len(subjects))
    return _Entry(look, subjects)


def _shared(folder: Path, name: str, keys: np.ndarray) -> int:
    """How many of the images are in a kept set.

    Raises:
        ValueError: The set is damaged.
    """
    if not name.isalnum():
        raise ValueError("a name of images that is none")
    data = (folder / "images" / name).read_bytes()
    if hashlib.sha256(data).hexdigest()[:32] != name:
        raise ValueError(f"the images {name} are damaged")
    return int(np.isin(keys, np.frombuffer(data, dtype="<u8"), assume_unique=True).sum())
