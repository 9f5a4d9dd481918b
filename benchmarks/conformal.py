"""Prediction sets beside their promise: how often they hold the right class, in the mean over draws of calibration images.

For scores without ties the coverage of one calibration is Beta(r, n + 1 - r) with r = ceil((n + 1) · promise), so its mean is
r / (n + 1), exactly; the simulation draws answers of a classifier that is too sure of itself and fits and measures sets on
them. Run: python benchmarks/conformal.py
"""

from __future__ import annotations

import math

import numpy as np

from sightline.evaluation import conformal

SIZES = (30, 100, 300, 1_000)
PROMISES = (0.8, 0.9, 0.95)


def exact_coverage(n: int, promise: float) -> float:
    """The mean coverage of sets calibrated on n images, for scores without ties; 1 where n is too few to promise anything."""
    return min(1.0, math.ceil((n + 1) * promise - 1e-9) / (n + 1))


def simulated_coverage(n: int, promise: float, *, classes: int = 5, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """(mean coverage, mean size) over draws of n images to calibrate and 1,000 to measure on."""
    random = np.random.default_rng([seed, n, round(1000 * promise), classes])
    covered, size = [], []
    for _ in range(draws):
        logits = 1.5 * random.normal(size=(n + 1_000, classes))
        y = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # as often right as the softmax of the logits says
        probs = np.exp(2 * logits)
        probs /= probs.sum(axis=1, keepdims=True)
        chosen = conformal.sets(probs[n:], conformal.fit(probs[:n], y[:n], promise))
        covered.append(chosen[np.arange(1_000), y[n:]].mean())
        size.append(chosen.sum(axis=1).mean())
    return float(np.mean(covered)), float(np.mean(size))


def main() -> None:
    """Print a line for each number of images and promise."""
    print("images  promised  exact mean  simulated  classes in a set")
    worst = 0.0
    for n in SIZES:
        for promise in PROMISES:
            exact, (mean, size) = exact_coverage(n, promise), simulated_coverage(n, promise)
            print(f"{n:>6,}  {promise:>8.0%}  {exact:>10.2%}  {mean:>9.2%}  {size:>16.2f}")
            worst = max(worst, abs(mean - promise) if n >= 100 else 0.0)
    print(f"farthest from the promise with 100 images or more: {worst:.2%}")


if __name__ == "__main__":
    main()
