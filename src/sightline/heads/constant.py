"""The head that looks at nothing: the classes' frequencies. What every other head has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.heads.choosing import cross_validate
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, expect


@dataclass(frozen=True, slots=True)
class ConstantSettings:
    """There is nothing to set."""


def fit(problem: Problem, settings: ConstantSettings) -> Outcome:
    """The logarithm of each class's share of the training rows, half a row added to each. Class weights don't apply: the
    answer is the most frequent class."""

    def train(rows: np.ndarray, held: np.ndarray, tries: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        counts = np.bincount(problem.y[rows], minlength=problem.classes) + 0.5
        arrays = {"bias": np.log(counts / counts.sum()).astype(np.float32)}
        return [arrays], logits(arrays, problem.features[held])[None]

    return cross_validate(problem, [{}], train)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check that the array has one number per class.

    Raises:
        ModelFileError: It does not.
    """
    expect(arrays, "bias", (classes,))


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """The same for each row, float64 (n, k)."""
    return np.tile(arrays["bias"].astype(np.float64), (len(features), 1))
