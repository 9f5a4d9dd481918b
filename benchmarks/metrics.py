"""Measure time and memory of all metrics with intervals: 100,000 images of 100 classes, in under 30 s on two cores and 2 GB.

The probabilities are synthetic, with an accuracy of about 0.5. Memory is the peak of the process, including the predictions.

    python benchmarks/metrics.py
    python benchmarks/metrics.py --images 100000 --classes 2 --groups 30000
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np

from sightline import evaluation
from sightline.records import Predictions

MOST_S, MOST_MB = 30.0, 2048.0


def answers(images: int, classes: int) -> Predictions:
    """Draw predictions: softmax of normal scores, with the score of the true class shifted."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, images)
    scores = rng.normal(size=(images, classes))
    scores[np.arange(images), y] += 2.5
    probs = np.exp(2 * scores)
    return Predictions(("",) * images, tuple(f"c{i}" for i in range(classes)), y, probs / probs.sum(axis=1, keepdims=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--groups", type=int, help="so many clusters of images; each on its own without it")
    options = parser.parse_args()
    given = answers(options.images, options.classes)
    groups = None if options.groups is None else np.random.default_rng(1).integers(0, options.groups, options.images)
    wall, cpu = time.perf_counter(), time.process_time()
    scores = evaluation.score(given, groups=groups)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    for name in evaluation.METRICS:
        if scores[name] is not None:
            ends = f"[{scores[f'{name}_low']:.4f}, {scores[f'{name}_high']:.4f}]"
            print(f"{name:<20}{scores[name]:.4f} {ends}  {scores['intervals'][name]}")
    print(
        f"{options.images:,} images, {options.classes} classes: {wall:.1f} s ({cpu:.1f} s of one core), {peak:,.0f} MB at most"
    )
    good = wall < MOST_S and peak < MOST_MB
    print(f"limit {MOST_S:.0f} s and {MOST_MB:,.0f} MB: {'kept' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
