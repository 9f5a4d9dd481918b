"""Model selection: choose the settings of a head by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sightline.heads.problem import Arrays, Outcome, Problem, Setting, side_by_side
from sightline.heads.softmax import log_loss, temperature

Train = Callable[[np.ndarray, np.ndarray, Sequence[Setting]], tuple[list[Arrays], np.ndarray]]
"""(training rows, held-out rows, settings) → arrays of one head per setting, logits (settings, held-out rows, k).

If the final head is refitted, the arrays of heads that are only evaluated may be left out."""


def cross_validate(problem: Problem, candidates: Sequence[Setting], train: Train, *, parallel: bool = True) -> Outcome:
    """Fit every candidate setting on every fold, select one, and fit the final head with it.

    Args:
        problem: The data, folds and deadline.
        candidates: The settings to compare.
        train: Fits all candidates on given rows.
        parallel: Fit the folds in parallel threads; False for a head that uses all cores itself.

    Raises:
        OutOfTimeError: If the deadline has passed.
    """

    def fit_fold(fold: tuple[np.ndarray, np.ndarray]) -> tuple[list[Arrays], np.ndarray]:
        problem.deadline.check()
        return train(*fold, candidates)

    results, folds = [], problem.folds
    if problem.watch is not None and len(folds) > 1:  # report after the first fold; with 5 folds on 2 or 4 cores this is free
        results, folds = [fit_fold(folds[0])], folds[1:]
        held = problem.folds[0][1]
        correct = results[0][1].argmax(axis=2) == problem.y[held]  # (candidates, held-out rows)
        problem.watch(1 / len(problem.folds), float(correct.mean(axis=1).max()))
    results += side_by_side(fit_fold, folds) if parallel else [fit_fold(f) for f in folds]
    logits = gather(problem, [part for _, part in results], len(candidates))
    best, path = choose(problem, candidates, logits)
    problem.deadline.check()
    if problem.refit:
        models, _ = train(problem.rows, np.zeros(0, dtype=np.int64), [candidates[best]])
        arrays = models[0]
    else:
        arrays = results[0][0][best]
    return Outcome(arrays, candidates[best], logits[best], path)


def gather(problem: Problem, parts: Sequence[np.ndarray], candidates: int) -> np.ndarray:
    """Return the held-out logits of all folds in the order of the rows.

    Args:
        problem: The problem with its folds.
        parts: Per fold, logits (candidates, held-out rows, k).
        candidates: Number of candidate settings.

    Returns:
        float64 (candidates, n, k): the mean for a row that was held out more than once, NaN for one that never was.
    """
    n = len(problem.y)
    total = np.zeros((candidates, n, problem.classes))
    count = np.zeros(n)
    for (_, held), part in zip(problem.folds, parts, strict=True):
        total[:, held] += part
        count[held] += 1
    with np.errstate(invalid="ignore"):
        total /= count[:, None]
    return total


def choose(problem: Problem, candidates: Sequence[Setting], logits: np.ndarray) -> tuple[int, list[dict[str, Any]]]:
    """Select the candidate of least log loss among those whose accuracy is within one standard error of the best.

    Accuracy alone is coarse (with 500 images, one image is 0.2 %); log loss alone may prefer an underconfident head over a more
    accurate one. Each log loss is taken at the candidate's own best temperature, since the head is calibrated later.
    With balanced classes both are weighted by class.

    Args:
        problem: The labels and class weights.
        candidates: The settings.
        logits: Held-out logits (candidates, n, k), as `gather` returns them.

    Returns:
        The index of the selected candidate, and one entry per candidate: its setting, `accuracy`, `log_loss`, `temperature`,
        `chosen`.
    """
    held = np.flatnonzero(np.isfinite(logits[0]).all(axis=1))
    y, weights = problem.y[held], problem.weights(held)
    path: list[dict[str, Any]] = []
    accuracy, loss = np.zeros(len(candidates)), np.zeros(len(candidates))
    for i, setting in enumerate(candidates):
        if not len(held):
            path.append({**setting, "accuracy": None, "log_loss": None, "temperature": 1.0})
            continue
        out = logits[i, held]
        correct = out.argmax(axis=1) == y
        t = temperature(out, y, weights)
        accuracy[i], loss[i] = np.average(correct, weights=weights), log_loss(out / t, y, weights)
        path.append({**setting, "accuracy": float(correct.mean()), "log_loss": log_loss(out / t, y), "temperature": t})
    top = accuracy.max()
    error = math.sqrt(top * (1 - top) / len(held)) if len(held) else 0.0
    best = min(range(len(candidates)), key=lambda i: (accuracy[i] < top - error, loss[i], i))
    for i, entry in enumerate(path):
        entry["chosen"] = i == best
    return best, path
