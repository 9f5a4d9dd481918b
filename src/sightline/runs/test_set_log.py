"""Test-set log: record which test images were used, when, and by which classifiers.

A use counts if it reveals new scores on these images. Deleting a run does not undo that, so the log is kept in the user's data
folder, is only appended to, and identifies images by their bytes: renamed, moved or newly split photographs are recognised, and
subsets of them too.
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
from sightline.records.test_set import TestSetAccess, TestSetLogEntry
from sightline.store import append_line, canonical_json, digest, locked_file, log, now, plain, write_bytes

LOCK_S = 20.0
_FILE = "openings.jsonl"


@dataclass(frozen=True, slots=True)
class LoggedClassifier:
    """Classifier in the test-set log.

    Args:
        name: Its name in reports.
        ids: Hashes of the classifier and of its predictions, by which it is recognised.
        same_as: Ids of a classifier of which this entry is another use, such as a stress test: counted as one classifier.
    """

    name: str
    ids: tuple[str, ...]
    same_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """Result of recording a use of test images.

    Args:
        looks: All uses of some of these images, oldest first, this one included.
        classifiers: Total number of different classifiers scored in them.
        new: Whether this use reveals new scores.
        counted: Whether it is in the log.
        note: Why it is not new, or could not be recorded; "" otherwise.
        ids: Ids of the scored classifiers.
    """

    looks: tuple[TestSetAccess, ...]
    classifiers: int
    new: bool
    counted: bool
    note: str = ""
    ids: tuple[str, ...] = ()

    def entry(self, accuracy: float, n: int) -> TestSetLogEntry:
        """Return the entry of run.json.

        Args:
            accuracy: Accuracy on the images, 0 to 1.
            n: Number of images.
        """
        bound = optimism(self.classifiers, accuracy, n)
        return TestSetLogEntry(self.new, self.counted, self.note, self.classifiers, bound, self.ids)


def root() -> Path:
    """Return the folder of the log: `SIGHTLINE_LEDGER`, or one in the user's data folder."""
    named = os.environ.get("SIGHTLINE_LEDGER")
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("sightline", appauthor=False) / "ledger"


def subject(
    name: str, answers: Predictions, contents: Sequence[str], model: Classifier | None, crops: int | None
) -> LoggedClassifier:
    """Return the entry of a classifier in the log.

    Args:
        name: Its name in reports.
        answers: Predictions of n images.
        contents: SHA-256 of each image.
        model: The classifier; None for a table of predictions.
        crops: Crops per image, if other than those of the card.
    """
    pairs = sorted(zip(contents, answers.labels, strict=True))
    ids = [f"answers:{digest(pairs)}"]
    if model is not None:
        ids.append(f"classifier:{identity(model, crops)}")
    return LoggedClassifier(name, tuple(ids))


def identity(model: Classifier, crops: int | None = None) -> str:
    """Return a hash of everything that affects the predictions of a classifier; its name and its scores do not."""
    card = model.card
    arrays = {name: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for name, a in model.head.arrays.items()}
    own = [card.backbone.id, card.backbone.preprocess.id, card.backbone.weights_hash, card.head, arrays, card.temperature]
    members = [identity(m, crops) for m in model.members]
    return digest([card.classes, own, card.decision, card.crops if crops is None else crops, members, card.weights])


def opened(contents: Sequence[str], subjects: Sequence[LoggedClassifier], *, verb: str, by: str, when: str) -> Opening:
    """Record a use of test images, and return all uses of them.

    The use is not new if every subject was scored on all of these images before, since it reveals nothing new.

    Args:
        contents: SHA-256 of each image; "" if unknown.
        subjects: All classifiers scored in this use.
        verb: The command.
        by: Description of the classifier or comparison.
        when: Time in ISO 8601.
    """
    keys = np.unique(content_keys([c for c in contents if c]))
    here, folder = TestSetAccess(when, verb, by, len(keys), len(keys), _classifiers(subjects)), root()
    if not len(keys):
        return Opening((here,), here.classifiers or 1, True, False, "the bytes of the images are unknown")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_file(folder / ".lock", LOCK_S):
            earlier = list(_overlapping(folder, keys))
            if not _nothing_new(earlier, subjects, len(keys)):
                _append(folder, keys, here, subjects)
            return _opening(earlier, here, subjects, len(keys))
    except OSError as error:
        log.warning("the test-set log in %s cannot be written (%s); this use of the test images is not counted", folder, error)
        found: list[_Entry] = []
        with contextlib.suppress(OSError):
            found = list(_overlapping(folder, keys))
        return _opening(found, here, subjects, len(keys), f"the test-set log cannot be written ({error})")


def look(
    answers: Predictions,
    contents: Sequence[str],
    counts: np.ndarray,
    model: Classifier | None,
    *,
    verb: str,
    by: str,
    crops: int | None = None,
    stress: bool = False,
) -> Opening | None:
    """Record that predictions of labelled test images are shown. Every command that shows some calls this function.

    Args:
        answers: Predictions of n images.
        contents: SHA-256 of each image; "" if unknown.
        counts: bool (n,), which images count as test images, from `Classifier.counts_as_test`.
        model: The classifier; None for a table of predictions.
        verb: The command.
        by: Description of the classifier.
        crops: Crops per image, if other than those of the card.
        stress: Whether predictions of altered versions of the images are shown too.

    Returns:
        The recorded use; None if no image counts.
    """
    rows = np.flatnonzero(counts)
    if not len(rows):
        return None
    known = [contents[i] for i in rows.tolist()]
    subjects = [subject(by, answers.select(rows), known, model, crops)]
    if stress:
        ids = subjects[0].ids
        subjects.append(LoggedClassifier(f"{by}, stress test", (f"stress:{digest(ids)}",), same_as=ids))
    return opened(known, subjects, verb=verb, by=by, when=now())


def optimism(classifiers: int, accuracy: float, n: int) -> float:
    """Return the approximate upper bound of the optimism of the best of several classifiers selected on the same images.

    Expected maximum of the accuracy of k equally good classifiers with independent errors, minus their true accuracy:
    E[max of k standard normals] · √(p (1 − p) / n). With correlated errors the optimism is smaller.

    Args:
        classifiers: Number of classifiers, k.
        accuracy: Accuracy, p; kept at least half an image away from 0 and 1.
        n: Number of images.

    Example:
        >>> round(optimism(1, 0.9, 400), 4), round(optimism(2, 0.9, 400), 4), round(optimism(10, 0.9, 400), 4)
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
    """Line of the log that shares images with the current ones."""

    look: TestSetAccess
    subjects: tuple[LoggedClassifier, ...]


def _opening(
    earlier: Sequence[_Entry], here: TestSetAccess, subjects: Sequence[LoggedClassifier], n: int, trouble: str = ""
) -> Opening:
    """Return the earlier uses with this one, if it is new, and the number of different classifiers."""
    known: list[set[str]] = []
    for each in [*(s for e in earlier for s in e.subjects), *subjects]:
        own = {*each.ids, *each.same_as}
        same = [ids for ids in known if ids.intersection(own)]
        known = [ids for ids in known if ids not in same] + [own.union(*same)]
    looks, ids = tuple(e.look for e in earlier), tuple(i for s in subjects for i in s.ids)
    if _nothing_new(earlier, subjects, n):
        return Opening(looks, len(known), False, True, "the same predictions of the same images were scored before", ids)
    return Opening((*looks, here), len(known), True, not trouble, trouble, ids)


def _classifiers(subjects: Sequence[LoggedClassifier]) -> int:
    """Return the number of different classifiers of one use."""
    return sum(not subject.same_as for subject in subjects)


def _nothing_new(earlier: Sequence[_Entry], subjects: Sequence[LoggedClassifier], n: int) -> bool:
    """Return whether every subject was scored on all of the images before."""
    known = {i for e in earlier if e.look.shared == n for s in e.subjects for i in s.ids}
    return all(known.intersection(s.ids) for s in subjects)


def _append(folder: Path, keys: np.ndarray, look: TestSetAccess, subjects: Sequence[LoggedClassifier]) -> None:
    """Write the images, then the line that refers to them, so that an interruption leaves no line without images."""
    data = keys.astype("<u8").tobytes()
    name = hashlib.sha256(data).hexdigest()[:32]
    file = folder / "images" / name
    if not file.is_file():
        write_bytes(file, data)
    value = {"version": 1, "images": name, "n": len(keys), "when": look.when, "verb": look.verb, "by": look.by}
    line = canonical_json({**value, "subjects": [plain(s) for s in subjects]})
    append_line(folder / _FILE, line)


def _overlapping(folder: Path, keys: np.ndarray) -> Iterator[_Entry]:
    """Yield the lines that share images with these, oldest first; unreadable lines are logged and left out."""
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
            log.warning("line %d of the test-set log %s cannot be read (%s) and is left out", number, folder / _FILE, error)


def _entry(value: Mapping[str, Any], shared: int) -> _Entry:
    subjects = tuple(
        LoggedClassifier(str(s["name"]), tuple(map(str, s["ids"])), tuple(map(str, s.get("same_as", ()))))
        for s in value["subjects"]
    )
    look = TestSetAccess(
        str(value["when"]), str(value["verb"]), str(value["by"]), int(value["n"]), shared, _classifiers(subjects)
    )
    return _Entry(look, subjects)


def _shared(folder: Path, name: str, keys: np.ndarray) -> int:
    """Return how many of the images are in a stored set.

    Raises:
        ValueError: If the set is damaged.
    """
    if not name.isalnum():
        raise ValueError("invalid name of a set of images")
    data = (folder / "images" / name).read_bytes()
    if hashlib.sha256(data).hexdigest()[:32] != name:
        raise ValueError(f"the images {name} are damaged")
    return int(np.isin(keys, np.frombuffer(data, dtype="<u8"), assume_unique=True).sum())
