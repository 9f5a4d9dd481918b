"""Ridge regression on ±1 targets: all penalties and all folds from one eigendecomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.heads.kind import HeadKind, check_linear, linear_layers, linear_logits, no_hidden_layers
from sightline.heads.logistic import gram_of, product
from sightline.heads.problem import Arrays, Outcome, Problem, Scale, Setting, as_tuple, check_settings, scale_of, side_by_side
from sightline.heads.selection import choose, cross_validate, gather
from sightline.search_space import Range


@dataclass(frozen=True, slots=True)
class RidgeSettings:
    """Settings of the ridge head.

    Args:
        alpha: Strength of the penalty alpha |W|² added to the summed squared error, for features of mean squared length 1;
            1e-9 to 1e9. Several values are compared on held-out images.
    """

    alpha: float | tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

    def __post_init__(self) -> None:
        check_settings("ridge", alpha=(self.alpha, 1e-9, 1e9))


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Singular value decomposition left · diag(√power) · rightᵀ of the weighted, centred rows.

    Args:
        left: float64 (n, r), orthonormal columns.
        power: float64 (r,), squared singular values, positive.
        back: (k, r) → (k, r) · rightᵀ, float64 (k, d).
        root: float64 (n,), square roots of the rows' weights.
        mean: float64 (d,), weighted mean of the scaled features.
    """

    left: np.ndarray
    power: np.ndarray
    back: Callable[[np.ndarray], np.ndarray]
    root: np.ndarray
    mean: np.ndarray

    def weights(self, targets: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the ridge solution, weights (k, d) and bias (k,), for targets (n, k)."""
        centre = np.average(targets, axis=0, weights=self.root**2)
        along = self.left.T @ (self.root[:, None] * (targets - centre))  # (r, k)
        w = self.back(along.T * (np.sqrt(self.power) / (self.power + alpha)))
        return w, centre - w @ self.mean

    def left_out(self, targets: np.ndarray, alpha: float, held: np.ndarray) -> np.ndarray:
        """Return the predictions (m, k) for the rows `held` of a fit without them (same weights, same alpha).

        With the smoother matrix H of the fit on all rows, the error of a left-out block B is (I - H_BB)⁻¹ times its residual.
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
    """Decompose scaled features float32 (n, d) by the smaller of their two Gram matrices, without null directions."""
    root = np.sqrt(weights)
    mean = np.average(values, axis=0, weights=weights)
    n, d = values.shape
    few = n < d
    # Few rows may be very wide: keep them float32 and multiply them in parts.
    rows = values - mean.astype(values.dtype if few else np.float64)
    rows *= root[:, None].astype(rows.dtype)
    power, vectors = np.linalg.eigh(gram_of(rows) if few else rows.T @ rows)
    positive = power > 1e-10 * max(float(power[-1:].sum()), 1e-30)
    power, vectors = power[positive], vectors[:, positive]
    if few:
        return Decomposition(vectors, power, lambda w: product((w / np.sqrt(power)) @ vectors.T, rows), root, mean)
    return Decomposition(rows @ (vectors / np.sqrt(power)), power, lambda w: w @ vectors.T, root, mean)


def fit(problem: Problem, settings: RidgeSettings) -> Outcome:
    """Fit the path of penalties; one decomposition serves all folds if each is trained on all rows that it doesn't hold out."""
    candidates = [{"alpha": a} for a in sorted(as_tuple(settings.alpha))]
    rows = problem.rows
    scale = scale_of(problem.features[rows])
    targets = 2.0 * (problem.y[:, None] == np.arange(problem.classes)) - 1
    if problem.refit and len(problem.folds) > 1 and _complementary(problem, rows):
        return _leave_block_out(problem, candidates, scale, targets)

    def train(part: np.ndarray, held: np.ndarray, candidates: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        decomposition = decompose(scale.apply(problem.features[part]), problem.weights(part))
        models: list[Arrays] = [scale.fold(*decomposition.weights(targets[part], c["alpha"])) for c in candidates]
        return models, np.stack([linear_logits(m, problem.features[held]) for m in models])

    return cross_validate(problem, candidates, train)


def _complementary(problem: Problem, rows: np.ndarray) -> bool:
    """Return whether every fold is trained on exactly the rows that it does not hold out."""
    return all(len(a) + len(b) == len(rows) and len(np.union1d(a, b)) == len(rows) for a, b in problem.folds)


def _leave_block_out(problem: Problem, candidates: list[dict[str, float]], scale: Scale, targets: np.ndarray) -> Outcome:
    """Evaluate all folds and fit the final head with one decomposition of all rows."""
    rows = problem.rows
    decomposition = decompose(scale.apply(problem.features[rows]), problem.weights(rows))
    row_targets = targets[rows]

    def evaluate(fold: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        problem.deadline.check()
        block = np.searchsorted(rows, fold[1])
        return np.stack([decomposition.left_out(row_targets, c["alpha"], block) for c in candidates])

    logits = gather(problem, side_by_side(evaluate, problem.folds), len(candidates))
    best, path = choose(problem, candidates, logits)
    arrays = scale.fold(*decomposition.weights(row_targets, candidates[best]["alpha"]))
    return Outcome(arrays, candidates[best], logits[best], path)


HEAD = HeadKind(
    name="ridge",
    title="ridge regression",
    settings=RidgeSettings,
    fit=fit,
    logits=linear_logits,
    check=check_linear,
    layers=linear_layers,
    hidden=no_hidden_layers,
    complexity=2,
    trained=True,
    quick=True,
    auto_settings={},
    auto_order=2,
    search_space={"alpha": Range(1e-3, 1e3, log=True)},
)
