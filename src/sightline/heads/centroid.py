"""The nearest class mean, by a distance that counts each feature by how little it varies within a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.heads.choosing import cross_validate
from sightline.heads.problem import (
    Arrays,
    Outcome,
    Problem,
    Setting,
    as_tuple,
    check_settings,
    linear_logits,
    scale_of,
    with_absent,
)


@dataclass(frozen=True, slots=True)
class CentroidSettings:
    """Settings of the centroid head.

    Args:
        shrinkage: How far the features' variances within a class are drawn to their common mean, 0.001 to 1; 1 is the plain
            Euclidean distance. Several are compared on held-out images.
    """

    shrinkage: float | tuple[float, ...] = (1.0, 0.3, 0.05)

    def __post_init__(self) -> None:
        check_settings("centroid", shrinkage=(self.shrinkage, 0.001, 1))


def fit(problem: Problem, settings: CentroidSettings) -> Outcome:
    """Linear discriminant analysis with a diagonal covariance: logit = -½ Σ (x - mean)² / variance + log prior, whose
    squares of x are the same for all classes, so that it is linear. The priors are the classes' shares, equal where classes
    are balanced. The sum over features is divided by √d; calibration does the rest.

    Source: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, equation 18.2.
    """
    scale = scale_of(problem.features[problem.rows])

    def train(rows: np.ndarray, held: np.ndarray, tries: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        values = scale.apply(problem.features[rows]).astype(np.float64)
        present, target = np.unique(problem.y[rows], return_inverse=True)
        means = np.stack([values[target == c].mean(axis=0) for c in range(len(present))])
        variance = ((values - means[target]) ** 2).mean(axis=0)  # (d,)
        # Where no class has two unlike rows there is no variance to divide by: the squared length of all rows stands in.
        typical = float(variance.mean()) if variance.any() else 1 / max(len(variance), 1)
        prior = np.log(np.bincount(target, weights=problem.weights(rows)) / len(rows))
        models: list[Arrays] = []
        for setting in tries:
            inverse = 1 / ((1 - setting["shrinkage"]) * variance + setting["shrinkage"] * typical)
            inverse /= math.sqrt(len(inverse))  # the features of a network are far from independent
            bias = prior - 0.5 * (means**2 * inverse).sum(axis=1)
            models.append(scale.fold(*with_absent(means * inverse, bias, present, problem.classes)))
        return models, np.stack([linear_logits(m, problem.features[held]) for m in models])

    return cross_validate(problem, [{"shrinkage": s} for s in as_tuple(settings.shrinkage)], train)
