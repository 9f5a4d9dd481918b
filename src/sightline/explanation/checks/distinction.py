"""Whether a classifier makes the distinction that a heatmap is said to explain: one class told from the others, or from one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sightline.evaluation import wilson
from sightline.explanation.checks.verdict import PASSES, REFUSED, SURE, WEAK, Finding, Word, worst
from sightline.records import Predictions

COMMONLY = 2
"""From so many images on the wrong side on, two classes count as commonly confused, and have to be shown to be told apart."""
FEW_OF_A_CLASS = 10
"""With fewer images of a class a distinction that is not shown is weak, and not refused."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """How well a class is told from others.

    Args:
        target, other: Their names.
        right: Images of the target, and of the others, on their own side.
        n: Of so many.
    """

    target: str
    other: str
    right: tuple[int, int]
    n: tuple[int, int]

    @property
    def low(self) -> float:
        """The lower end of the interval of what the classifier knows: 0 is guessing, however uneven the classes are.

        That is the share of the target's images that are taken for it, less the share of the others' that are.

        Source: Newcombe, Interval estimation for the difference between independent proportions (1998), method 10.
        """
        if not all(self.n):
            return -1.0
        found, taken = self.right[0] / self.n[0], 1 - self.right[1] / self.n[1]
        lowest, highest = wilson(self.right[0], self.n[0], SURE)[0], wilson(self.n[1] - self.right[1], self.n[1], SURE)[1]
        return found - taken - math.hypot(found - lowest, highest - taken)

    @property
    def word(self) -> Word:
        if self.low > 0:
            return PASSES
        return WEAK if min(self.n) < FEW_OF_A_CLASS else REFUSED

    @property
    def wrong(self) -> int:
        """Images on the wrong side."""
        return sum(self.n) - sum(self.right)

    def finding(self) -> Finding:
        """It in words."""
        told = "is told from" if self.word == PASSES else "is not shown to be told from"
        (a, b), (n, m) = self.right, self.n
        text = f"{self.target} {told} {self.other} ({a:,} of {n:,} and {b:,} of {m:,} held-out images right, half by guessing)"
        numbers = {"target": self.target, "other": self.other, "right": [a, b], "n": [n, m], "low": self.low}
        return Finding("classifier", self.word, text, numbers)


def judge_distinction(answers: Predictions, target: int, contrast: int | None = None) -> Finding:
    """Whether held-out images of a class are told from those of the class that it is set against, or else from all others.

    Without a contrast it must be told from all others together, and from each class that it is commonly confused with; the
    worst of them decides. So "one kind of dog against another, and flowers" is not passed because of the flowers. All must be
    shown, each by itself, which needs no correction for their number: where one is not true, all pass no more often than it.

    Args:
        answers: Of images that the classifier was not fitted on, with their labels.
        target: The class index that is explained.
        contrast: The class index that it is set against; None for all others.
    """
    if contrast is not None:
        return _pair(answers, target, contrast).finding()
    others = [c for c in range(len(answers.classes)) if c != target]
    pairs = [_pair(answers, target, other) for other in others]
    if len(others) > 1:
        pairs = [_rest(answers, target), *(p for p in pairs if p.wrong >= COMMONLY)]
    word = worst([p.word for p in pairs])
    return min((p for p in pairs if p.word == word), key=lambda p: p.low).finding()


def judge_classes(answers: Predictions) -> Finding:
    """The same for a classifier as a whole: refused where no class is told from the others, weak where only some are."""
    classes = answers.classes
    found = [judge_distinction(answers, c) for c in range(len(classes))]
    failed = [f for f in found if f.word != PASSES]
    right, n = int((answers.y_pred == answers.y_true).sum()), len(answers)
    numbers = {"accuracy": right / n if n else None, "n": n, "classes": {f.numbers["target"]: f.word for f in found}}
    share = f"{right:,} of {n:,} held-out images right"
    if not failed:
        text = f"the classifier tells its classes apart ({share})"
        return Finding("classifier", PASSES, text, numbers)
    word = WEAK if len(failed) < len(found) else worst([f.word for f in failed])
    text = min((f for f in failed if f.word == worst([g.word for g in failed])), key=lambda f: f.numbers["low"]).text
    if len(classes) > 2:
        text = f"{len(failed)} of {len(classes)} classes are not shown to be told from the others: {text}"
    return Finding("classifier", word, text, numbers)


def _pair(answers: Predictions, target: int, other: int) -> _Pair:
    """Two classes alone, by which of them has the higher probability; where there are no more, by the answer."""
    probs = answers.probs
    says = answers.y_pred == target if len(answers.classes) == 2 else probs[:, target] > probs[:, other]
    return _of(answers, target, answers.y_true == other, says, answers.classes[other])


def _rest(answers: Predictions, target: int) -> _Pair:
    """A class against all others together, by the answer."""
    others = (answers.y_true != target) & (answers.y_true >= 0)
    return _of(answers, target, others, answers.y_pred == target, "the other classes")


def _of(answers: Predictions, target: int, others: np.ndarray, says: np.ndarray, name: str) -> _Pair:
    own = answers.y_true == target
    right = (int((says & own).sum()), int((~says & others).sum()))
    return _Pair(answers.classes[target], name, right, (int(own.sum()), int(others.sum())))
