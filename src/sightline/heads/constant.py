"""Class-prior baseline: predict the class frequencies for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.heads.kind import HeadKind
from sightline.heads.problem import Arrays, Outcome, Problem, Setting, expect
from sightline.heads.selection import cross_validate

if TYPE_CHECKING:
    from sightline.engine.graph import Value


@dataclass(frozen=True, slots=True)
class ConstantSettings:
    """Settings of the constant head: none."""


def fit(problem: Problem, settings: ConstantSettings) -> Outcome:
    """Take the log class frequencies of the training rows as logits, with half a row added to each class.

    Class weights are ignored, so the prediction is the most frequent class.
    """

    def train(rows: np.ndarray, held: np.ndarray, candidates: Sequence[Setting]) -> tuple[list[Arrays], np.ndarray]:
        counts = np.bincount(problem.y[rows], minlength=problem.classes) + 0.5
        arrays = {"bias": np.log(counts / counts.sum()).astype(np.float32)}
        return [arrays], logits(arrays, problem.features[held])[None]

    return cross_validate(problem, [{}], train)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check that `bias` has one number per class.

    Raises:
        ModelFileError: If it is missing or has another shape.
    """
    expect(arrays, "bias", (classes,))


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return the same logits for each row, float64 (n, k)."""
    return np.tile(arrays["bias"].astype(np.float64), (len(features), 1))


def in_graph(arrays: Arrays, features: Value) -> Value:
    """Append the same logits for each row of features."""
    return features.sum(1, keep=True) * 0.0 + features.graph.const(arrays["bias"][None], np.float32)


HEAD = HeadKind(
    name="constant",
    title="class frequencies",
    settings=ConstantSettings,
    fit=fit,
    logits=logits,
    in_graph=in_graph,
    check=check,
    needs_features=False,
)
