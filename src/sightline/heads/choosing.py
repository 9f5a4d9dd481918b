"""Choosing a setting by what it says of held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sightline.heads.problem import Arrays, Outcome, Problem, Setting, side_by_side
from sightline.heads.softmax import log_loss, temperature

Train = Callable[[np.ndarray, np.ndarray, Sequence[Setting]], tuple[list[Arrays], np.ndarray]]
"""(training rows, held-out rows, settings) → the arrays of one head per setting, and their logits (settings, held-out, k).
Where the final head is fitted anew, the arrays of those that are only judged may be left out."""


def cross_validate(problem: Problem, tries: Sequence[Setting], train: Train, *, parallel: bool = True) -> Outcome:
    """Fit every setting on every fold, choose one, and fit the final head.

    Args:
        problem: What to fit.
        tries: The settings.
        train: Fits them on some rows.
        parallel: Whether folds run side by side; not for what uses all cores itself.
    """

    def one(fold: tuple[np.ndarray, np.ndarray]) -> tuple[list[Arrays], np.ndarray]:
        problem.deadline.check()
        return train(*fold, tries)

    done, rest = [], problem.folds
    if problem.watch is not None and len(problem.folds) > 1:  # with 5 folds on 2 or 4 cores this costs no time
        done, rest = [one(rest[0])], rest[1:]
        held = problem.folds[0][1]
        right = done[0][1].argmax(axis=2) == problem.y[held]  # (tries, held-out)
        problem.watch(1 / len(problem.folds), float(right.mean(axis=1).max()))
    done += side_by_side(one, rest) if parallel else [one(f) for f in rest]
    logits = gather(problem, [out for _, out in done], len(tries))
    best, path = choose(problem, tries, logits)
    problem.deadline.check()
    if problem.refit:
        models, _ = train(problem.rows, np.zeros(0, dtype=np.int64), [tries[best]])
        arrays = models[0]
    else:
        arrays = done[0][0][best]
    return Outcome(arrays, tries[best], logits[best], path)


def gather(problem: Problem, parts: Sequence[np.ndarray], tries: int) -> np.ndarray:
    """The folds' held-out logits in place.

    Args:
        problem: Whose folds they are.
        parts: Per fold, (tries, held-out rows, k).
        tries: How many settings.

    Returns:
        float64 (tries, n, k): the mean where a row was held out more than once, NaN where never.
    """
    n = len(problem.y)
    total = np.zeros((tries, n, problem.classes))
    count = np.zeros(n)
    for (_, held), part in zip(problem.folds, parts, strict=True):
        total[:, held] += part
        count[held] += 1
    with np.errstate(invalid="ignore"):
        total /= count[:, None]
    return total


def choose(problem: Problem, tries: Sequence[Setting], logits: np.ndarray) -> tuple[int, list[dict[str, Any]]]:
    """The setting of least log loss among those whose accuracy is within one standard error of the best.

    Accuracy alone is coarse (with 500 images, one of them is 0.2 %), log loss alone may prefer a head that is sure less often
    over one that is right more often. Each setting's log loss is taken at its own best temperature, as it will be used.
    With balanced classes both count each class alike.

    Returns:
        Its index, and one entry per setting: the setting, `accuracy`, `log_loss`, `temperature`, `chosen`.
    """
    held = np.flatnonzero(np.isfinite(logits[0]).all(axis=1))
    y, weights = problem.y[held], problem.weights(held)
    path: list[dict[str, Any]] = []
    accuracy, loss = np.zeros(len(tries)), np.zeros(len(tries))
    for i, setting in enumerate(tries):
        if not len(held):
            path.append({**setting, "accuracy": None, "log_loss": None, "temperature": 1.0})
            continue
        out = logits[i, held]
        right = out.argmax(axis=1) == y
        t = temperature(out, y, weights)
        accuracy[i], loss[i] = np.average(right, weights=weights), log_loss(out / t, y, weights)
        path.append({**setting, "accuracy": float(right.mean()), "log_loss": log_loss(out / t, y), "temperature": t})
    top = accuracy.max()
    error = math.sqrt(top * (1 - top) / len(held)) if len(held) else 0.0
    best = min(range(len(tries)), key=lambda i: (accuracy[i] < top - error, loss[i], i))
    for i, entry in enumerate(path):
        entry["chosen"] = i == best
    return best, path
