"""Model comparison: paired tests of several classifiers on the same images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline import evaluation
from sightline.errors import DataError
from sightline.records import Predictions
from sightline.records.comparison import AgreementCounts, ComparedPair, ComparedPrediction, ComparedScore, Disagreement
from sightline.store import stream
from sightline.studies import paired_tests
from sightline.studies.power import images_needed

_MAX_RESAMPLED_CLUSTERS = 2000


@dataclass(frozen=True, slots=True)
class NamedPredictions:
    """Predictions of one classifier with a key for each image.

    Args:
        name: Name for people, unique in the comparison.
        answers: Predictions of n images.
        keys: n unique keys; a key means the same image for every classifier.
    """

    name: str
    answers: Predictions
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Predictions of several classifiers for the same n images in the same order.

    Args:
        names: Names of the m classifiers.
        keys, paths, labels: Of the n images; paths as in the first classifier's predictions.
        answers: m predictions, each in the order of `paths`.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    answers: tuple[Predictions, ...]

    @property
    def right(self) -> np.ndarray:
        """Whether each classifier predicts each image correctly, bool (m, n)."""
        return np.array([[a == b for a, b in zip(each.labels, self.labels, strict=True)] for each in self.answers], dtype=bool)


def align(models: Sequence[NamedPredictions]) -> Aligned:
    """Bring the predictions of several classifiers for the same images into one order.

    Raises:
        DataError: If the images differ, an image occurs twice, has no label or one that is not a class of every classifier, or
            the labels disagree.
    """
    rows = [{key: i for i, key in enumerate(model.keys)} for model in models]
    for model, index in zip(models, rows, strict=True):
        if len(index) < len(model.keys):
            twice = next(k for i, k in enumerate(model.keys) if index[k] != i)
            raise DataError(f"{model.name} has more than one prediction for {twice}", "keep one row per image")
    _check_same_images(models, rows)
    keys = models[0].keys
    orders = [np.array([index[k] for k in keys], dtype=np.int64) for index in rows]
    ordered = tuple(model.answers.select(order) for model, order in zip(models, orders, strict=True))
    labels = _labels(models, ordered)
    return Aligned(tuple(model.name for model in models), keys, ordered[0].paths, labels, ordered)


def _check_same_images(models: Sequence[NamedPredictions], rows: Sequence[dict[str, int]]) -> None:
    """Check that all classifiers predicted the same images.

    Raises:
        DataError: If they did not; the message counts the images in both and in one alone.
    """
    first = models[0]
    for model, index in zip(models[1:], rows[1:], strict=True):
        only_first = [first.answers.paths[i] for k, i in rows[0].items() if k not in index]
        only_other = [model.answers.paths[i] for k, i in index.items() if k not in rows[0]]
        if not only_first and not only_other:
            continue
        shared = len(first.keys) - len(only_first)
        parts = [
            f"{len(missing):,} only in {name} (such as {missing[0]})"
            for name, missing in ((first.name, only_first), (model.name, only_other))
            if missing
        ]
        raise DataError(
            f"{first.name} ({len(first.keys):,} images) and {model.name} ({len(model.keys):,}) predicted different images: "
            f"{shared:,} in both, {' and '.join(parts)}",
            "score them on the same images: sightline compare A B --catalog CATALOG",
        )


def _labels(models: Sequence[NamedPredictions], ordered: Sequence[Predictions]) -> tuple[str, ...]:
    """Return the label of every image, from any of the predictions that has it.

    Raises:
        DataError: If labels disagree, an image has none, or one that is not a class of every classifier.
    """
    labels: list[str | None] = [None] * len(ordered[0])
    source = [""] * len(labels)
    for model, answers in zip(models, ordered, strict=True):
        for i, y in enumerate(answers.y_true.tolist()):
            if y < 0:
                continue
            label = answers.classes[y]
            if labels[i] is not None and labels[i] != label:
                message = f"the labels of {answers.paths[i]} differ: {labels[i]!r} in {source[i]}, {label!r} in {model.name}"
                raise DataError(message, "score both with the same labels")
            if labels[i] is None:
                labels[i], source[i] = label, model.name
    missing = [ordered[0].paths[i] for i, label in enumerate(labels) if label is None]
    if missing:
        message = f"{len(missing):,} images have no label, or one that is not a class of any table, such as {missing[0]}"
        raise DataError(message, "name a labelled set with --catalog, or add the column label")
    for model in models:
        unknown = [label for label in labels if label not in model.answers.classes]
        if unknown:
            classes = ", ".join(repr(c) for c in model.answers.classes[:8])
            raise DataError(
                f"{len(unknown):,} images have labels such as {unknown[0]!r}, which is not a class of {model.name}: {classes}",
                "name its columns p:CLASS with the spelling of the labels, or compare on images of its classes",
            )
    return tuple(str(label) for label in labels)


def compared_scores(aligned: Aligned, cluster: np.ndarray | None = None) -> list[ComparedScore]:
    """Return each classifier's accuracy with its interval, as from `evaluation.score`; `cluster` as in `compared_pairs`."""
    scores = []
    for name, row, answers in zip(aligned.names, aligned.right, aligned.answers, strict=True):
        y = np.array([answers.classes.index(label) for label in aligned.labels], dtype=np.int64)
        low, high = evaluation.accuracy_interval(dataclasses.replace(answers, y_true=y), cluster)
        scores.append(ComparedScore(name, float(row.mean()), low, high, wrong=int((~row).sum())))
    return scores


def compared_pairs(aligned: Aligned, *, kind: str = "test", cluster: np.ndarray | None = None) -> list[ComparedPair]:
    """Test all pairs of classifiers: McNemar's exact test, corrected by Holm over all pairs, and a paired bootstrap.

    Args:
        aligned: Two classifiers or more.
        kind: Adjective for the images in sentences: test, validation, labelled.
        cluster: Cluster of each image, int (n,). Images of a cluster (one person, or copies of one file) are not independent:
            the test flips their signs together and the bootstrap resamples them together. None if all are independent.
    """
    right = aligned.right
    n, tests = right.shape[1], math.comb(len(right), 2)
    pairs = []
    for d in _differences(right, cluster):
        only_a, only_b = int((right[d.a] & ~right[d.b]).sum()), int((right[d.b] & ~right[d.a]).sum())
        needed = None if d.told_apart else images_needed(only_a, only_b, n, level=evaluation.SIGNIFICANT / tests)
        needed = None if needed is None else max(math.ceil(needed * _inflation(right[d.a], right[d.b], cluster)), n + 1)
        pair = ComparedPair(
            a=aligned.names[d.a],
            b=aligned.names[d.b],
            difference=d.difference,
            low=d.low,
            high=d.high,
            p=d.p,
            p_corrected=d.p_corrected,
            only_a=only_a,
            only_b=only_b,
            images_needed=needed,
            significant=d.told_apart,
        )
        pairs.append(dataclasses.replace(pair, verdict=verdict(pair, n, kind, tests)))
    return pairs


def _differences(right: np.ndarray, cluster: np.ndarray | None) -> list[paired_tests.Difference]:
    """Test all pairs, by image or by cluster.

    With clusters the test is Fisher's sign flip of each cluster's sum, which for clusters of one image is McNemar's exact test.
    """
    by_image = paired_tests.differences(right[:, None, :])
    if cluster is None or len(np.unique(cluster)) == len(cluster):
        return by_image
    _, number = np.unique(cluster, return_inverse=True)
    groups, sizes = int(number.max()) + 1, np.bincount(number)
    sums = [np.bincount(number, weights=right[d.a].astype(float) - right[d.b], minlength=groups) for d in by_image]
    raw = [evaluation.sign_flip(np.rint(each).astype(np.int64)) for each in sums]
    by_cluster = []
    for d, each, p, corrected in zip(by_image, sums, raw, evaluation.holm(raw), strict=True):
        low, high = _cluster_bootstrap(each, sizes)
        by_cluster.append(dataclasses.replace(d, low=low, high=high, p=p, p_corrected=corrected))
    return by_cluster


def _cluster_bootstrap(sums: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean difference when whole clusters are resampled.

    Args:
        sums: Sum of the images' differences in each cluster, float (groups,).
        sizes: Number of images in each cluster, int (groups,).
    """
    count, mean = len(sums), float(sums.sum() / sizes.sum())
    if count > _MAX_RESAMPLED_CLUSTERS:  # the ratio's first-order expansion, which agrees for this many clusters
        low, high = evaluation.paired_bootstrap(mean + (sums - mean * sizes) * count / sizes.sum())
        return max(-1.0, low), min(1.0, high)
    shares = sums / sizes
    if np.ptp(shares) == 0:
        return evaluation.alike(float(shares[0]), count)
    drawn = stream(0, "clusters").multinomial(count, np.full(count, 1 / count), size=2000)
    tail = evaluation.expanded_tail(int(np.count_nonzero(sums)))
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [tail, 1 - tail])
    return float(low), float(high)


def _inflation(a: np.ndarray, b: np.ndarray, cluster: np.ndarray | None) -> float:
    """Return the design effect of the difference, at least 1: the factor on the images needed because they come in clusters."""
    d = a.astype(float) - b
    independent = float(((d - d.mean()) ** 2).sum())
    if cluster is None or not independent:
        return 1.0
    _, number = np.unique(cluster, return_inverse=True)
    return max(1.0, float((np.bincount(number, weights=d - d.mean()) ** 2).sum()) / independent)


def verdict(pair: ComparedPair, n: int, kind: str, tests: int = 1) -> str:
    """Return the result of one paired test as a sentence.

    Args:
        pair: The test.
        n: Number of images.
        kind: Adjective for the images.
        tests: Number of pairs tested; the sentence gives the corrected p value.

    Example:
        >>> pair = ComparedPair("x", "y", 0.025, 0.006, 0.045, 0.0123, 0.0123, 18, 8, None, True)
        >>> verdict(pair, 400, "test")
        'x is better than y by 2.5 percentage points [0.6, 4.5], p = 0.012'
        >>> verdict(dataclasses.replace(pair, significant=False, images_needed=871), 200, "test")
        'the difference between x and y is not significant with 200 test images; about 880 would be needed to detect it'
    """
    images = f"{n:,} {kind} image{'s' if n != 1 else ''}"
    if pair.significant:
        better, worse, sign = (pair.a, pair.b, 1) if pair.difference > 0 else (pair.b, pair.a, -1)
        low, high = sorted((100 * sign * pair.low, 100 * sign * pair.high))
        corrected = f" (corrected for {tests} pairs)" if tests > 1 else ""
        by = f"{100 * abs(pair.difference):.1f} percentage points [{_zero(low):.1f}, {_zero(high):.1f}]"
        return f"{better} is better than {worse} by {by}, {_p(pair.p_corrected)}{corrected}"
    start = f"the difference between {pair.a} and {pair.b} is not significant with {images}"
    if pair.images_needed is None:
        return f"{start}: both have equally many correct predictions"
    return f"{start}; about {rounded_up(pair.images_needed):,} would be needed to detect it"


def rounded_up(count: int) -> int:
    """Return a number rounded up to two significant digits.

    Example:
        >>> rounded_up(871), rounded_up(1639), rounded_up(96)
        (880, 1700, 96)
    """
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _zero(value: float) -> float:
    """Return the number, or 0 if it would be printed as -0.0."""
    return 0.0 if abs(value) < 0.05 else value


def disagreements(aligned: Aligned) -> list[Disagreement]:
    """Return the images for which the predictions differ, the most confident errors first.

    Images that some classifiers predict correctly and others do not come before those that all predict wrongly.
    """
    predicted = [each.labels for each in aligned.answers]
    confidence = [each.probs.max(axis=1) if each.threshold is None else _predicted_probs(each) for each in aligned.answers]
    right = aligned.right
    rows = [i for i in range(len(aligned.paths)) if len({labels[i] for labels in predicted}) > 1]
    mixed: np.ndarray = np.asarray(right.any(axis=0) & ~right.all(axis=0))
    worst = {i: max((float(p[i]) for p, r in zip(confidence, right[:, i], strict=True) if not r), default=0.0) for i in rows}
    rows.sort(key=lambda i: (not mixed[i], -worst[i], aligned.paths[i]))
    return [
        Disagreement(
            aligned.paths[i],
            aligned.labels[i],
            [
                ComparedPrediction(name, labels[i], float(p[i]), bool(r))
                for name, labels, p, r in zip(aligned.names, predicted, confidence, right[:, i], strict=True)
            ],
        )
        for i in rows
    ]


def _predicted_probs(predictions: Predictions) -> np.ndarray:
    """Return the probability of each predicted class, float64 (n,)."""
    return np.asarray(predictions.probs[np.arange(len(predictions)), predictions.y_pred])


def patterns(aligned: Aligned) -> AgreementCounts:
    """Return the number of images that all, some, and none of the classifiers predict correctly.

    Example:
        >>> one = Predictions(("1", "2"), ("x", "y"), np.array([0, 0]), np.array([[1.0, 0], [0, 1.0]]))
        >>> patterns(Aligned(("a", "b"), ("1", "2"), ("1", "2"), ("x", "x"), (one, one)))
        AgreementCounts(all=1, some=0, none=1)
    """
    count = aligned.right.sum(axis=0)
    k = len(aligned.names)
    return AgreementCounts(int((count == k).sum()), int(((count > 0) & (count < k)).sum()), int((count == 0).sum()))


def unique_names(subjects: Sequence[str]) -> list[str]:
    """Return a short unique name for each path: its last part if that is unique.

    Example:
        >>> unique_names(["runs/a", "runs/b/classifier.safetensors", "x.csv"])
        ['a', 'b', 'x']
        >>> unique_names(["one/a", "two/a"])
        ['one/a', 'two/a']
    """
    short = []
    for text in subjects:
        parts = [p for p in text.replace("\\", "/").split("/") if p not in ("", ".")] or [text]
        if parts[-1] == "classifier.safetensors" and len(parts) > 1:
            parts.pop()
        short.append(parts[-1].removesuffix(".safetensors").removesuffix(".csv"))
    if len(set(short)) == len(short):
        return short
    if len(set(subjects)) == len(subjects):
        return list(subjects)
    return [f"{text} ({number})" for number, text in enumerate(subjects, 1)]
