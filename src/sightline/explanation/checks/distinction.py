"""Check whether a classifier separates the explained class from the others, or from its contrast class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sightline.evaluation import wilson
from sightline.explanation.checks.verdict import PASSES, REFUSED, SURE, WEAK, Finding, Word, worst
from sightline.records import Predictions

COMMONLY = 2
"""Number of misclassified images from which two classes count as often confused and are tested separately."""
FEW_OF_A_CLASS = 10
"""With fewer images of a class, a separation that is not shown is weak and not refused."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The number of images on which a class is separated from others.

    Args:
        target, other: Their names.
        right: Correctly classified images of the target, and of the others.
        n: All images of the target, and of the others.
    """

    target: str
    other: str
    right: tuple[int, int]
    n: tuple[int, int]

    @property
    def low(self) -> float:
        """Return the lower end of the interval of true positive rate − false positive rate: 0 is guessing, for any class sizes.

        Source: Newcombe, Interval estimation for the difference between independent proportions (1998), method 10.
        """
        if not all(self.n):
            return -1.0
        true_rate, false_rate = self.right[0] / self.n[0], 1 - self.right[1] / self.n[1]
        lowest, highest = wilson(self.right[0], self.n[0], SURE)[0], wilson(self.n[1] - self.right[1], self.n[1], SURE)[1]
        return true_rate - false_rate - math.hypot(true_rate - lowest, highest - false_rate)

    @property
    def word(self) -> Word:
        """Return the verdict."""
        if self.low > 0:
            return PASSES
        return WEAK if min(self.n) < FEW_OF_A_CLASS else REFUSED

    @property
    def wrong(self) -> int:
        """Return the number of misclassified images."""
        return sum(self.n) - sum(self.right)

    def finding(self) -> Finding:
        """Return the finding."""
        separates = "separates" if self.word == PASSES else "is not shown to separate"
        (a, b), (n, m) = self.right, self.n
        text = f"the classifier {separates} {self.target} from {self.other}"
        text += f" ({a:,} of {n:,} and {b:,} of {m:,} held-out images correct, half expected by guessing)"
        numbers = {"target": self.target, "other": self.other, "right": [a, b], "n": [n, m], "low": self.low}
        return Finding("classifier", self.word, text, numbers)


def judge_distinction(answers: Predictions, target: int, contrast: int | None = None) -> Finding:
    """Return whether held-out images of a class are separated from those of the contrast class, or else from all others.

    Without a contrast class it must be separated from all others together, and from each class that it is often confused with;
    the worst of them counts. So "one kind of dog against another, and flowers" does not pass because of the flowers. All must
    be shown
    individually, which needs no correction for their number: if one is false, the probability that all pass is no higher.

    Args:
        answers: Predictions for images that the classifier was not fitted on, with their labels.
        target: The explained class index.
        contrast: The contrast class index; None for all others.
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
    """Return the finding on all classes: refused where no class is separated from the others, weak where only some are."""
    classes = answers.classes
    findings = [judge_distinction(answers, c) for c in range(len(classes))]
    failed = [f for f in findings if f.word != PASSES]
    right, n = int((answers.y_pred == answers.y_true).sum()), len(answers)
    numbers = {"accuracy": right / n if n else None, "n": n, "classes": {f.numbers["target"]: f.word for f in findings}}
    share = f"{right:,} of {n:,} held-out images correct"
    if not failed:
        text = f"the classifier separates its classes ({share})"
        return Finding("classifier", PASSES, text, numbers)
    word = WEAK if len(failed) < len(findings) else worst([f.word for f in failed])
    text = min((f for f in failed if f.word == worst([g.word for g in failed])), key=lambda f: f.numbers["low"]).text
    if len(classes) > 2:
        text = f"{len(failed)} of {len(classes)} classes are not shown to be separated from the others: {text}"
    return Finding("classifier", word, text, numbers)


def _pair(answers: Predictions, target: int, other: int) -> _Pair:
    """Return two classes alone, compared by their probabilities; for two classes in all, by the prediction."""
    probs = answers.probs
    predicted = answers.y_pred == target if len(answers.classes) == 2 else probs[:, target] > probs[:, other]
    return _of(answers, target, answers.y_true == other, predicted, answers.classes[other])


def _rest(answers: Predictions, target: int) -> _Pair:
    """Return a class against all others together, by the prediction."""
    others = (answers.y_true != target) & (answers.y_true >= 0)
    return _of(answers, target, others, answers.y_pred == target, "the other classes")


def _of(answers: Predictions, target: int, others: np.ndarray, predicted: np.ndarray, name: str) -> _Pair:
    """Return a pair from masks: `others` are the images of the other class, `predicted` those assigned to the target."""
    is_target = answers.y_true == target
    right = (int((predicted & is_target).sum()), int((~predicted & others).sum()))
    return _Pair(answers.classes[target], name, right, (int(is_target.sum()), int(others.sum())))
