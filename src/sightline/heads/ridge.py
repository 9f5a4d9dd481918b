"""Ridge regression on targets of ±1: a whole path of penalties, and every fold, from one decomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.heads.choosing import choose, cross_validate, gather
from sightline.heads.logistic import gram_of, product
from sightline.heads.problem import (
    Arrays,
    Outcome,
    Problem,
    Scale,
    Setting,
    as_tuple,
    check_settings,
    linear_logits,
    scale_of,
    side_by_side,
)


@dataclass(frozen=True, slots=True)
class RidgeSettings:
    """Settings of the ridge head.

    Args:
        alpha: The strength of the penalty alpha |W|² beside the summed squared error, for features of mean squared length 1;
            1e-9 to 1e9. Several are compared on held-out images.
    """

    alpha: float | tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

    def __post_init__(self) -> None:
        check_settings("ridge", alpha=(self.alpha, 1e-9, 1e9))


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The weighted, centred rows as left · diag(√power) · rightᵀ, the latter with orthonormal columns too.

    Args:
        left: float64 (n, r), orthonormal columns.
        power: float64 (r,), positive.
        back: (k, r) → (k, r) · rightᵀ, float64 (k, d).
        root: float64 (n,), square roots of the rows' weights.
        mean: float64 (d,), weighted, of the scaled features.
    """

    left: np.ndarray
    power: np.ndarray
    back: Callable[[np.ndarray], np.ndarray]
    root: np.ndarray
    mean: np.ndarray

    def weights(self, targets: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """The solution, (k, d) and (k,), for targets (n, k)."""
        centre = np.average(targets, axis=0, weights=self.root**2)
        along = self.left.T @ (self.root[:, None] * (targets - centre))  # (r, k)
        w = self.back(along.T * (np.sqrt(self.power) / (self.power + alpha)))
        return w, centre - w @ self.mean

    def left_out(self, targets: np.ndarray, alpha: float, held: np.ndarray) -> np.ndarray:
        """What the rows `held` would be answered by a fit without them (same weights, same alpha), (m, k).

        With the smoother H of the whole fit, the error of a block B that was left out is (I - H_BB)⁻¹ times its residual.
        """
        shrink = self.power / (self.power + alpha)
        centre = np.average(targets, axis=0, weights=self.root**2)
        along = self.left.T @ (self.root[:, None] * (targets - centre))
        block, root = self.left[held], self.root[held]
        residual = root[:, None] * (targets[held] - centre) - block @ (along * shrink[:, None])
        constant = root / np.sqrt((self.root**2).sum())
        smoother = (block * shrink) @ block.T + np.outer(constant, constant)
        error = np.linalg.solve(np.eye(len(held)) - smoother, residual)
        return np.asarray(targets[held] - error / root[:, None])


def decompose(values: np.ndarray, weights: np.ndarray) -> Decomposition:
    """Decompose scaled features float32 (n, d) by the smaller of their two Gram matrices; null directions are left out."""
    root = np.sqrt(weights)
    mean = np.average(values, axis=0, weights=weights)
    n, d = values.shape
    few = n < d
    # Few rows may be very wide: they stay float32, and the products take them in parts.
    rows = values - mean.astype(values.dtype if few else np.float64)
    rows *= root[:, None].astype(rows.dtype)
    power, vectors = np.linalg.eigh(gram_of(rows) if few else rows.T @ rows)
    kept = power > 1e-10 * max(float(power[-1:].sum()), 1e-30)
    power, vectors = power[kept], vectors[:, kept]
    if few:
        return Decomposition(vectors, power, lambda w: product((w / np.sqrt(power)) @ vectors.T, rows), root, mean)
    return Decomposition(rows @ (vectors / np.sqrt(power)), power, lambda w: w @ vectors.T, root, mean)


def fit(problem: Problem, settings: RidgeSettings) -> Outcome:
    """Fit along the path. Where each fold is trained on all that it does not hold out, one decomposition serves them all."""
    tries = [{"alpha": a} for a in sorted(as_tuple(settings.alpha))]
    rows = problem.rows
    scale = scale_of(problem.features[rows])
    targets = 2.0 * (problem.y[:, None] == np.arange(problem.classes)) - 1
    if problem.refit and len(problem.folds) > 1 and _complementary(problem, rows):
        return _by_leaving_out(problem, tries, scale, targets)

    def train(chosen: np.ndarray, held: np.ndarray, some: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        found = decompose(scale.apply(problem.features[chosen]), problem.weights(chosen))
        models: list[Arrays] = [scale.fold(*found.weights(targets[chosen], s["alpha"])) for s in some]
        return models, np.stack([linear_logits(m, problem.features[held]) for m in models])

    return cross_validate(problem, tries, train)


def _complementary(problem: Problem, rows: np.ndarray) -> bool:
    """Whether every fold is trained on exactly the rows that it does not hold out."""
    return all(len(a) + len(b) == len(rows) and len(np.union1d(a, b)) == len(rows) for a, b in problem.folds)


def _by_leaving_out(problem: Problem, tries: list[dict[str, float]], scale: Scale, targets: np.ndarray) -> Outcome:
    """All folds and the final head from one decomposition of all rows."""
    rows = problem.rows
    found = decompose(scale.apply(problem.features[rows]), problem.weights(rows))
    some = targets[rows]

    def one(fold: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        problem.deadline.check()
        block = np.searchsorted(rows, fold[1])
        return np.stack([found.left_out(some, t["alpha"], block) for t in tries])

    parts = side_by_side(one, problem.folds)
    logits = gather(problem, parts, len(tries))
    best, path = choose(problem, tries, logits)
    arrays = scale.fold(*found.weights(some, tries[best]["alpha"]))
    return Outcome(arrays, tries[best], logits[best], path)
