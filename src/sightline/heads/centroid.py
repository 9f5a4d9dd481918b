"""Nearest class mean: linear discriminant analysis with a shrunken diagonal covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.heads.kind import HeadKind, check_linear, linear_layers, linear_logits, no_hidden_layers
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, as_tuple, check_settings, scale_of, with_absent
from sightline.heads.selection import cross_validate
from sightline.search_space import Range


@dataclass(frozen=True, slots=True)
class CentroidSettings:
    """Settings of the centroid head.

    Args:
        shrinkage: Shrinkage of the features' within-class variances to their common mean, 0.001 to 1; 1 gives the Euclidean
            distance. Several values are compared on held-out images.
    """

    shrinkage: float | tuple[float, ...] = (1.0, 0.3, 0.05)

    def __post_init__(self) -> None:
        check_settings("centroid", shrinkage=(self.shrinkage, 0.001, 1))


def fit(problem: Problem, settings: CentroidSettings) -> Outcome:
    """Fit linear discriminant analysis with a diagonal covariance.

    logit = -½ Σ (x - mean)² / variance + log prior; the term in x² is the same for all classes, so the logit is linear in x.
    The priors are the class frequencies, or equal if classes are balanced. The sum over features is divided by √d, since the
    features of a network are far from independent; the temperature corrects the rest.

    Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, equation 18.2.
    """
    scale = scale_of(problem.features[problem.rows])

    def train(rows: np.ndarray, held: np.ndarray, candidates: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        values = scale.apply(problem.features[rows]).astype(np.float64)
        present, target = np.unique(problem.y[rows], return_inverse=True)
        means = np.stack([values[target == c].mean(axis=0) for c in range(len(present))])
        variance = ((values - means[target]) ** 2).mean(axis=0)  # (d,)
        # If no class has two different rows, there is no variance to divide by: use that of scaled features.
        typical = float(variance.mean()) if variance.any() else 1 / max(len(variance), 1)
        prior = np.log(np.bincount(target, weights=problem.weights(rows)) / len(rows))
        models: list[Arrays] = []
        for setting in candidates:
            inverse = 1 / ((1 - setting["shrinkage"]) * variance + setting["shrinkage"] * typical)
            inverse /= math.sqrt(len(inverse))
            bias = prior - 0.5 * (means**2 * inverse).sum(axis=1)
            models.append(scale.fold(*with_absent(means * inverse, bias, present, problem.classes)))
        return models, np.stack([linear_logits(m, problem.features[held]) for m in models])

    return cross_validate(problem, [{"shrinkage": s} for s in as_tuple(settings.shrinkage)], train)


HEAD = HeadKind(
    name="centroid",
    title="nearest class mean",
    settings=CentroidSettings,
    fit=fit,
    logits=linear_logits,
    check=check_linear,
    layers=linear_layers,
    hidden=no_hidden_layers,
    complexity=3,
    quick=True,
    auto_settings={},
    auto_order=1,
    search_space={"shrinkage": Range(0.01, 1, log=True)},
)
