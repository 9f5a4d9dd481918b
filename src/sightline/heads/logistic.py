"""Multinomial logistic regression with an L2 penalty, fitted along a path of C."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.deadline import UNLIMITED, Deadline
from sightline.heads.kind import HeadKind, check_linear, linear_layers, linear_logits, no_hidden_layers
from sightline.heads.problem import Arrays, Outcome, Problem, Scale, Setting, as_tuple, check_settings, scale_of, with_absent
from sightline.heads.selection import cross_validate
from sightline.search_space import Range

_PATH_TOLERANCE = 5e-5
_FINAL_TOLERANCE = 2e-6
"""Stop when no entry of the mean loss's gradient exceeds this; scikit-learn's default is 1e-4."""


@dataclass(frozen=True, slots=True)
class LogisticSettings:
    """Settings of the logistic head.

    Args:
        C: Inverse strength of the penalty |W|² / (2 C) added to the summed log loss, as in scikit-learn, for features of mean
            squared length 1; 1e-6 to 1e6. Several values are compared on held-out images.
        max_steps: Maximum number of L-BFGS steps, 10 to 100,000.
    """

    C: float | tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    max_steps: int = 1000

    def __post_init__(self) -> None:
        check_settings("logistic", C=(self.C, 1e-6, 1e6), max_steps=(self.max_steps, 10, 100_000))


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Coordinates in which the optimizer runs: the scaled features, or with fewer rows than features the rows of a triangular
    matrix with the same inner products. The penalty is the same in both, and so are the predictions.

    Args:
        values: float32 (m, r), the training and held-out rows.
        row: int64 (n,), index in `values` of each of the problem's rows, -1 for rows in no fold.
        back: Converts weights (p, r) to weights (p, d) on scaled features.
        scale: Scale of the features.
        unit: Factor on the scaled features that makes their entries about 1, a good starting point for L-BFGS.
    """

    values: np.ndarray
    row: np.ndarray
    back: Callable[[np.ndarray], np.ndarray]
    scale: Scale
    unit: float


def fit(problem: Problem, settings: LogisticSettings) -> Outcome:
    """Fit along the path from the strongest penalty to the weakest, each fit starting at the previous solution."""
    space = coordinates(problem)
    final = not problem.refit and len(as_tuple(settings.C)) == 1

    def train(rows: np.ndarray, held: np.ndarray, candidates: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        tolerance = _PATH_TOLERANCE if len(held) and not final else _FINAL_TOLERANCE
        present, target = np.unique(problem.y[rows], return_inverse=True)
        values = np.ascontiguousarray(space.values[space.row[rows]])
        weights = problem.weights(rows)
        solution = np.zeros((values.shape[1] + 1, len(present) if len(present) > 2 else 1))
        only_evaluated = problem.refit and len(held) > 0
        models: list[Arrays] = []
        logits = []
        for setting in candidates:
            solution = minimise(
                values,
                target,
                weights,
                inverse=setting["C"] / space.unit**2,
                start=solution,
                tolerance=tolerance,
                max_steps=settings.max_steps,
                deadline=problem.deadline,
            )
            both = solution if len(present) > 2 else np.hstack([-solution / 2, solution / 2])[:, : len(present)]
            w, b = with_absent(both[:-1].T, both[-1], present, problem.classes)
            if only_evaluated:  # in these coordinates, which may be far fewer than the features
                logits.append(space.values[space.row[held]] @ w.T + b)
                continue
            models.append(space.scale.fold(space.back(w) * space.unit, b))
            logits.append(linear_logits(models[-1], problem.features[held]))
        return models, np.stack(logits)

    return cross_validate(problem, [{"C": c} for c in sorted(as_tuple(settings.C))], train)


def coordinates(problem: Problem) -> Coordinates:
    """Return the coordinates of a problem, shared by all folds."""
    rows = problem.rows
    d = problem.features.shape[1]
    scale = scale_of(problem.features[rows])
    unit = math.sqrt(max(d, 1))
    row = np.full(len(problem.y), -1, dtype=np.int64)
    row[rows] = np.arange(len(rows))
    values = scale.apply(problem.features[rows])
    values *= np.float32(unit)
    if len(rows) > 0.7 * d:
        return Coordinates(values, row, lambda w: w, scale, unit)
    from scipy.linalg import cholesky, solve_triangular

    gram = gram_of(values)
    # Linearly dependent rows make it singular; the added diagonal is far below the precision of float32 features.
    gram[np.diag_indices_from(gram)] += 1e-9 * max(float(np.trace(gram)) / len(gram), 1e-9)
    lower = cholesky(gram, lower=True, check_finite=False)

    def back(w: np.ndarray) -> np.ndarray:
        return product(solve_triangular(lower, w.T, lower=True, trans="T", check_finite=False).T, values)

    return Coordinates(lower.astype(np.float32), row, back, scale, unit)


def gram_of(values: np.ndarray) -> np.ndarray:
    """Return values · valuesᵀ in float64, from float32 (n, d), in bounded memory."""
    out = np.zeros((len(values), len(values)))
    for start in range(0, values.shape[1], 8192):
        part = values[:, start : start + 8192].astype(np.float64)
        out += part @ part.T
    return out


def product(left: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return left · values in float64, from float64 (k, n) and float32 (n, d), in bounded memory."""
    parts = range(0, values.shape[1], 8192)
    return np.concatenate([left @ values[:, s : s + 8192].astype(np.float64) for s in parts], axis=1)


def minimise(
    values: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    *,
    inverse: float,
    start: np.ndarray,
    tolerance: float,
    max_steps: int,
    deadline: Deadline = UNLIMITED,
) -> np.ndarray:
    """Return the W and b that minimise weighted log loss + |W|² / (2 C), by L-BFGS.

    Args:
        values: float32 (n, r).
        target: int (n,), 0 to p - 1.
        weights: float64 (n,).
        inverse: C.
        start: Starting point float64 (r + 1, p), the bias in the last row, or (r + 1, 1) for the log odds of class 1 if p is 2.
        tolerance: Largest entry of the gradient of the mean loss at which to stop.
        max_steps: Maximum number of steps.
        deadline: Checked before each evaluation of the loss.

    Returns:
        The solution, in the shape of `start`.

    Source: the objective of scikit-learn's LogisticRegression, divided by the sum of the weights.
    """
    from scipy.optimize import minimize

    if target.max(initial=0) == 0:  # a single class
        return start
    shape = start.shape
    total = float(weights.sum())
    share = (weights / total)[:, None]
    residual = _binary if shape[1] == 1 else _multinomial

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        deadline.check()
        w = flat.reshape(shape)
        scores = (values @ w[:-1].astype(np.float32)).astype(np.float64) + w[-1]
        value, slope = residual(scores, target, share)
        gradient = np.empty(shape)
        gradient[:-1] = values.T @ slope.astype(np.float32)
        gradient[:-1] += w[:-1] / (inverse * total)
        gradient[-1] = slope.sum(axis=0)
        return value + float((w[:-1] ** 2).sum()) / (2 * inverse * total), gradient.ravel()

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "gtol": tolerance, "ftol": 1e-12, "maxcor": 10}
    result = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(result.x).reshape(shape)


def _binary(scores: np.ndarray, target: np.ndarray, share: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean log loss of the log odds (n, 1) of class 1, and its gradient."""
    signed = np.where(target[:, None] == 1, scores, -scores)
    value = float((np.logaddexp(0, -signed) * share).sum())
    wrong = np.exp(-np.logaddexp(0, signed))  # the probability of the other class
    return value, np.where(target[:, None] == 1, -wrong, wrong) * share


def _multinomial(scores: np.ndarray, target: np.ndarray, share: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean log loss of scores (n, p), and its gradient."""
    rows = np.arange(len(target))
    shifted = scores - scores.max(axis=1, keepdims=True)
    probs = np.exp(shifted)
    norm = probs.sum(axis=1, keepdims=True)
    value = float(((np.log(norm[:, 0]) - shifted[rows, target]) * share[:, 0]).sum())
    probs /= norm
    probs[rows, target] -= 1
    return value, probs * share


HEAD = HeadKind(
    name="logistic",
    title="logistic regression",
    settings=LogisticSettings,
    fit=fit,
    logits=linear_logits,
    check=check_linear,
    layers=linear_layers,
    hidden=no_hidden_layers,
    complexity=1,
    trained=True,
    quick=True,
    auto_settings={},
    auto_order=4,
    search_space={"C": Range(1e-2, 1e4, log=True)},
)
