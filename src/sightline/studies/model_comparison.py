"""Model comparison: paired tests of several classifiers on the same images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sightline import evaluation
from sightline.evaluation.alignment import Aligned
from sightline.records.comparison import ComparedPair, ComparedScore
from sightline.store import stream
from sightline.studies import paired_tests
from sightline.studies.power import images_needed

_MAX_RESAMPLED_CLUSTERS = 2000


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
