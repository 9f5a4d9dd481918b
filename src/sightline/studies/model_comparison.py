"""Several classifiers on the same images: whether the images are the same, who was right on which, and what may be said."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import evaluation
from sightline.errors import DataError
from sightline.records import Predictions
from sightline.store import plain, stream
from sightline.studies import paired_tests
from sightline.studies.power import images_needed

_MOST_DRAWN = 2000


@dataclass(frozen=True, slots=True)
class Sheet:
    """One classifier's answers, and what its images are known by.

    Args:
        name: For people, unique among those that are compared.
        answers: Of n images.
        keys: n names of images, each once, that mean the same image in every sheet.
    """

    name: str
    answers: Predictions
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Several classifiers' answers to the same n images in one order.

    Args:
        names: k, of the classifiers.
        keys, paths, labels: n, of the images; paths as in the first sheet.
        answers: k predictions, each in the order of `paths`.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    answers: tuple[Predictions, ...]

    @property
    def right(self) -> np.ndarray:
        """bool (k, n): who had which image right."""
        return np.array([[a == b for a, b in zip(each.labels, self.labels, strict=True)] for each in self.answers], dtype=bool)


def align(sheets: Sequence[Sheet]) -> Aligned:
    """Bring answers to the same images into one order.

    Raises:
        DataError: The images are not the same, an image stands in a sheet twice, has no label in any, or one that is no class
            of all, or labels differ.
    """
    rows = [{key: i for i, key in enumerate(s.keys)} for s in sheets]
    for sheet, index in zip(sheets, rows, strict=True):
        if len(index) < len(sheet.keys):
            twice = next(k for i, k in enumerate(sheet.keys) if index[k] != i)
            raise DataError(f"{sheet.name} has more than one answer to {twice}", "keep one row per image")
    _check_same(sheets, rows)
    keys = sheets[0].keys
    places = [np.array([index[k] for k in keys], dtype=np.int64) for index in rows]
    ordered = tuple(s.answers.select(place) for s, place in zip(sheets, places, strict=True))
    labels = _labels(sheets, ordered)
    return Aligned(tuple(s.name for s in sheets), keys, ordered[0].paths, labels, ordered)


def _check_same(sheets: Sequence[Sheet], rows: Sequence[dict[str, int]]) -> None:
    """Refuse answers to different images.

    Raises:
        DataError: They are, with how many and which.
    """
    first = sheets[0]
    for sheet, index in zip(sheets[1:], rows[1:], strict=True):
        here = [first.answers.paths[i] for k, i in rows[0].items() if k not in index]
        there = [sheet.answers.paths[i] for k, i in index.items() if k not in rows[0]]
        if not here and not there:
            continue
        shared = len(first.keys) - len(here)
        parts = [
            f"{len(missing):,} only in {name} (such as {missing[0]})"
            for name, missing in ((first.name, here), (sheet.name, there))
            if missing
        ]
        raise DataError(
            f"{first.name} ({len(first.keys):,} images) and {sheet.name} ({len(sheet.keys):,}) did not answer the same images: "
            f"{shared:,} in both, {' and '.join(parts)}",
            "score them on one set: sightline compare A B --catalog CATALOG",
        )


def _labels(sheets: Sequence[Sheet], ordered: Sequence[Predictions]) -> tuple[str, ...]:
    """The label of every image, from whoever knows it.

    Raises:
        DataError: Two of them say different things, an image has none, or one that is no class of all of them.
    """
    found: list[str | None] = [None] * len(ordered[0])
    source = [""] * len(found)
    for sheet, each in zip(sheets, ordered, strict=True):
        for i, y in enumerate(each.y_true.tolist()):
            if y < 0:
                continue
            label = each.classes[y]
            if found[i] is not None and found[i] != label:
                told = f"{source[i]} says {found[i]!r}, {sheet.name} {label!r}"
                raise DataError(f"the labels of {each.paths[i]} differ: {told}", "compare what was scored by the same labels")
            if found[i] is None:
                found[i], source[i] = label, sheet.name
    missing = [ordered[0].paths[i] for i, label in enumerate(found) if label is None]
    if missing:
        hint = "name a labelled set with --catalog, or add the column label"
        what = f"{len(missing):,} images have no label, or one that is no class of any table, such as {missing[0]}"
        raise DataError(what, hint)
    for sheet in sheets:
        strange = [label for label in found if label not in sheet.answers.classes]
        if strange:
            classes = ", ".join(repr(c) for c in sheet.answers.classes[:8])
            raise DataError(
                f"{len(strange):,} images are labelled {strange[0]!r} or so, which is no class of {sheet.name}: {classes}",
                "name its columns p:CLASS as the labels are written, or compare on images of its classes",
            )
    return tuple(str(label) for label in found)


def compare(aligned: Aligned, *, kind: str = "test", cluster: np.ndarray | None = None) -> dict[str, Any]:
    """All pairs tested, and what may be said of them.

    Args:
        aligned: Two classifiers or more.
        kind: What the images are called: test, validation, labelled.
        cluster: int (n,), images of one number belong together (of one person, or the same file twice) and are no independent
            evidence: a test flips them together, the bootstrap draws them together. None where each stands for itself.

    Returns:
        `n`; `clusters`, None where each image stands for itself; `scores`: each one's accuracy with its interval (as
        `evaluation.score` gives it) and how many it had wrong; `pairs`: for each two, `difference`
        (accuracy of a less that of b), `low` and `high` (paired bootstrap, 95 %), `p` (McNemar's exact test), `p_corrected`
        (Holm's over all pairs), `only_a` and `only_b` (images that one alone had right), `images_needed` (None where they are
        told apart, or where no difference was seen), `told_apart`, and `verdict`, one sentence.
    """
    right = aligned.right
    n = right.shape[1]
    scores = []
    for name, row, answers in zip(aligned.names, right, aligned.answers, strict=True):
        y = np.array([answers.classes.index(label) for label in aligned.labels], dtype=np.int64)
        low, high = evaluation.accuracy_interval(dataclasses.replace(answers, y_true=y), cluster)
        own = {"accuracy": float(row.mean()), "accuracy_low": low, "accuracy_high": high, "wrong": int((~row).sum())}
        scores.append({"run": name, **own})
    pairs = []
    for d in _differences(right, cluster):
        only_a, only_b = int((right[d.a] & ~right[d.b]).sum()), int((right[d.b] & ~right[d.a]).sum())
        tests = math.comb(len(right), 2)
        needed = None if d.told_apart else images_needed(only_a, only_b, n, level=evaluation.SIGNIFICANT / tests)
        needed = None if needed is None else max(math.ceil(needed * _inflation(right[d.a], right[d.b], cluster)), n + 1)
        numbers = {"difference": d.difference, "low": d.low, "high": d.high, "p": d.p, "p_corrected": d.p_corrected}
        pair = {"a": aligned.names[d.a], "b": aligned.names[d.b], **numbers, "only_a": only_a, "only_b": only_b}
        pair |= {"images_needed": needed, "told_apart": d.told_apart}
        pairs.append(plain({**pair, "verdict": verdict(pair, n, kind, tests)}))
    clusters = None if cluster is None else len(np.unique(cluster))
    return {"n": n, "clusters": clusters, "scores": plain(scores), "pairs": pairs}


def _differences(right: np.ndarray, cluster: np.ndarray | None) -> list[paired_tests.Difference]:
    """All pairs tested by image, or by what belongs together.

    Over clusters the test is Fisher's sign flip of each cluster's sum, which for clusters of one is McNemar's exact test.
    """
    found = paired_tests.differences(right[:, None, :])
    if cluster is None or len(np.unique(cluster)) == len(cluster):
        return found
    _, number = np.unique(cluster, return_inverse=True)
    groups, sizes = int(number.max()) + 1, np.bincount(number)
    sums = [np.bincount(number, weights=right[d.a].astype(float) - right[d.b], minlength=groups) for d in found]
    raw = [evaluation.sign_flip(np.rint(each).astype(np.int64)) for each in sums]
    told = []
    for d, each, p, corrected in zip(found, sums, raw, evaluation.holm(raw), strict=True):
        low, high = _drawn_together(each, sizes)
        told.append(dataclasses.replace(d, low=low, high=high, p=p, p_corrected=corrected))
    return told


def _drawn_together(sums: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean difference when clusters are drawn anew, each with all its images.

    Args:
        sums: float (groups,), of the images' differences.
        sizes: int (groups,), how many images each has.
    """
    count, whole = len(sums), float(sums.sum() / sizes.sum())
    if count > _MOST_DRAWN:  # the ratio's first-order expansion, which differs by nothing for so many
        low, high = evaluation.paired_bootstrap(whole + (sums - whole * sizes) * count / sizes.sum())
        return max(-1.0, low), min(1.0, high)
    shares = sums / sizes
    if np.ptp(shares) == 0:
        return evaluation.alike(float(shares[0]), count)
    drawn = stream(0, "clusters").multinomial(count, np.full(count, 1 / count), size=2000)
    tail = evaluation.expanded_tail(int(np.count_nonzero(sums)))
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [tail, 1 - tail])
    return float(low), float(high)


def _inflation(a: np.ndarray, b: np.ndarray, cluster: np.ndarray | None) -> float:
    """How many times the images are needed because they come in clusters: the design effect of the difference, at least 1."""
    d = a.astype(float) - b
    alone = float(((d - d.mean()) ** 2).sum())
    if cluster is None or not alone:
        return 1.0
    _, number = np.unique(cluster, return_inverse=True)
    return max(1.0, float((np.bincount(number, weights=d - d.mean()) ** 2).sum()) / alone)


def verdict(pair: dict[str, Any], n: int, kind: str, tests: int = 1) -> str:
    """What may be said of a pair, in a sentence.

    Args:
        pair: As `compare` makes it.
        n: Images.
        kind: What they are called.
        tests: How many pairs are tested; the p value that is told is the corrected one.

    Example:
        >>> pair = {"a": "x", "b": "y", "difference": 0.025, "low": 0.006, "high": 0.045}
        >>> pair |= {"p_corrected": 0.0123, "told_apart": True}
        >>> verdict(pair, 400, "test")
        'x is better than y by 2.5 percentage points [0.6, 4.5], p = 0.012'
        >>> verdict({**pair, "told_apart": False, "p_corrected": 0.3, "images_needed": 871}, 200, "test")
        "can't tell x and y apart with 200 test images; about 880 would be needed if they differ as much as here"
    """
    a, b, d = pair["a"], pair["b"], pair["difference"]
    images = f"{n:,} {kind} image{'s' if n != 1 else ''}"
    if pair["told_apart"]:
        better, worse, sign = (a, b, 1) if d > 0 else (b, a, -1)
        low, high = sorted((100 * sign * pair["low"], 100 * sign * pair["high"]))
        corrected = f" (corrected for {tests} pairs)" if tests > 1 else ""
        by = f"{100 * abs(d):.1f} percentage points [{_zero(low):.1f}, {_zero(high):.1f}]"
        return f"{better} is better than {worse} by {by}, {_p(pair['p_corrected'])}{corrected}"
    start = f"can't tell {a} and {b} apart with {images}"
    if pair["images_needed"] is None:
        return f"{start}: both had equally many right, so how many would be needed cannot be said"
    return f"{start}; about {rounded_up(pair['images_needed']):,} would be needed if they differ as much as here"


def rounded_up(count: int) -> int:
    """A number that is no more exact than it can be: two digits, upwards.

    Example:
        >>> rounded_up(871), rounded_up(1639), rounded_up(96)
        (880, 1700, 96)
    """
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _zero(value: float) -> float:
    """The number without the sign of a rounded zero."""
    return 0.0 if abs(value) < 0.05 else value


def disagreements(aligned: Aligned) -> list[dict[str, Any]]:
    """The images on which not all gave the same answer: those where somebody is right and somebody wrong first, by certainty.

    Returns:
        Per image `path`, `label`, `answers`: for each classifier `run`, `predicted`, `probability`, `right`.
    """
    said = [each.labels for each in aligned.answers]
    sure = [each.probs.max(axis=1) if each.threshold is None else _of_answer(each) for each in aligned.answers]
    right = aligned.right
    rows = [i for i in range(len(aligned.paths)) if len({s[i] for s in said}) > 1]
    mixed: np.ndarray = np.asarray(right.any(axis=0) & ~right.all(axis=0))
    wrongly_sure = {i: max((float(p[i]) for p, r in zip(sure, right[:, i], strict=True) if not r), default=0.0) for i in rows}
    rows.sort(key=lambda i: (not mixed[i], -wrongly_sure[i], aligned.paths[i]))
    return [
        {
            "path": aligned.paths[i],
            "label": aligned.labels[i],
            "answers": [
                {"run": name, "predicted": s[i], "probability": float(p[i]), "right": bool(r)}
                for name, s, p, r in zip(aligned.names, said, sure, right[:, i], strict=True)
            ],
        }
        for i in rows
    ]


def _of_answer(each: Predictions) -> np.ndarray:
    """float64 (n,): the probability of what was answered."""
    return np.asarray(each.probs[np.arange(len(each)), each.y_pred])


def patterns(aligned: Aligned) -> dict[str, int]:
    """How many images all had right, some, and none; for two, which of them.

    Example:
        >>> one = Predictions(("1", "2"), ("x", "y"), np.array([0, 0]), np.array([[1.0, 0], [0, 1.0]]))
        >>> patterns(Aligned(("a", "b"), ("1", "2"), ("1", "2"), ("x", "x"), (one, one)))
        {'all': 1, 'some': 0, 'none': 1}
    """
    count = aligned.right.sum(axis=0)
    k = len(aligned.names)
    return {"all": int((count == k).sum()), "some": int(((count > 0) & (count < k)).sum()), "none": int((count == 0).sum())}


def unique_names(given: Sequence[str]) -> list[str]:
    """Short names that tell the given paths apart: the last part where that is enough.

    Example:
        >>> unique_names(["runs/a", "runs/b/classifier.safetensors", "x.csv"])
        ['a', 'b', 'x']
        >>> unique_names(["one/a", "two/a"])
        ['one/a', 'two/a']
    """
    short = []
    for text in given:
        parts = [p for p in text.replace("\\", "/").split("/") if p not in ("", ".")] or [text]
        if parts[-1] == "classifier.safetensors" and len(parts) > 1:
            parts.pop()
        short.append(parts[-1].removesuffix(".safetensors").removesuffix(".csv"))
    if len(set(short)) == len(short):
        return short
    if len(set(given)) == len(given):
        return list(given)
    counts = itertools.count(1)
    return [f"{text} ({next(counts)})" for text in given]
