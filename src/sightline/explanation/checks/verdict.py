"""Verdicts: the thresholds of the checks, and their findings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sightline.evaluation import wilson
from sightline.explanation.checks.measures import FEW, LEVEL, Faithfulness

Word = Literal["n/a", "passes", "weak", "don't rely on this"]
NOT_APPLICABLE: Word = "n/a"
PASSES: Word = "passes"
WEAK: Word = "weak"
REFUSED: Word = "don't rely on this"
_RANK: tuple[Word, ...] = (PASSES, WEAK, REFUSED)

SURE = 0.99
"""Confidence level at which an accuracy must exceed guessing: high, since the best of several classifiers was chosen."""
DEPENDS, HARDLY = 0.5, 0.7
"""Rank correlation with heatmaps of randomised weights: the heatmap depends on them below the first, not above the second."""
STEADY, SHAKY = 0.8, 0.5
"""Rank correlation with the heatmap under noise: stable from the first on, unreliable below the second."""
APART, BLIND = 0.8, 0.97
"""Rank correlation with the heatmap for another class: below the first it depends on the class, from the second on not."""
COMPLETE, INCOMPLETE = 0.01, 0.05
"""Relative error of the sum of an attribution that should be complete."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Args:
        check: Its name.
        word: Its verdict.
        text: The numbers in a sentence.
        numbers: The numbers for programs.
    """

    check: str
    word: Word
    text: str
    numbers: Mapping[str, Any]


def worst(words: Sequence[Word]) -> Word:
    """Return the worst of verdicts, without those that are not applicable; "weak" where none is left.

    Example:
        >>> worst(["passes", "weak"]), worst(["n/a", "passes"]), worst([])
        ('weak', 'passes', 'weak')
    """
    judged = [word for word in words if word != NOT_APPLICABLE]
    return max(judged, key=_RANK.index) if judged else WEAK


def judge_classifier(right: int, n: int, majority: float) -> Finding:
    """Return whether the classifier is more accurate than guessing: else a heatmap shows, faithfully, the evidence for guesses.

    Args:
        right: Correct predictions for images that it was not fitted on.
        n: Number of these images.
        majority: Share of the most frequent class among them: the accuracy of guessing.
    """
    low, _ = wilson(right, n, SURE)
    word = PASSES if low > majority else REFUSED
    share = right / n if n else 0.0
    than = "more accurate than" if word == PASSES else "not shown to be more accurate than"
    text = f"the classifier is {than} guessing ({share:.0%} of {n:,} held-out images correct, guessing {majority:.0%})"
    return Finding("classifier", word, text, {"accuracy": share, "n": n, "low": low, "guessing": majority})


def unknown_classifier() -> Finding:
    """Return the finding for a classifier whose accuracy was never measured."""
    return Finding("classifier", WEAK, "the classifier's accuracy was never measured", {"accuracy": None})


def published_classifier(name: str) -> Finding:
    """Return the finding for a network that predicts its own classes with published weights."""
    return Finding(
        "classifier", PASSES, f"{name} predicts the classes that its weights were published with", {"accuracy": None}
    )


def judge_faithfulness(result: Faithfulness) -> list[Finding]:
    """Return whether high-attribution cells change the prediction more than random cells and the image's edges do.

    Gains are tested in log odds; random cells gain 0. With at least `FEW` images by a one-sided Wilcoxon test over the images;
    with fewer by a permutation test against random orders of the same images, whose power is low, and edges are compared
    without a test.
    """
    n, gain = len(result.heat.gain), result.heat.gain
    numbers: dict[str, Any] = {"n": n}
    for name in ("heat", "random", "edges"):
        areas = getattr(result, name)
        means = {key: float(getattr(areas, key).mean()) for key in ("deletion", "insertion", "gain")}
        numbers[name] = means
    p = p_better(gain) if n >= FEW else p_of_orders(result.chance, float(gain.sum()))
    word = PASSES if p < LEVEL else REFUSED if n >= FEW or p > 1 - LEVEL else WEAK
    orders = "" if n >= FEW else f", {result.chance.size:,} random orders"
    text = f"high-attribution cells change the prediction {_than(word, p)} random cells ({gain.mean():+.2f} log odds"
    text += f"{'' if n == 1 else ' on average'}, random 0, p = {p:.2g}{orders})"
    first = Finding("against random", word, text, {**numbers, "p": p})
    difference = gain - result.edges.gain
    edges = f"an edge filter's: {gain.mean():+.2f} log odds on average, the filter's {result.edges.gain.mean():+.2f}"
    if n < FEW:
        word = PASSES if difference.mean() > 0 else WEAK
        does = "change the prediction more than" if word == PASSES else "do not change the prediction more than"
        text = f"high-attribution cells {does} {edges} (too few images for a test)"
        return [first, Finding("against edges", word, text, {**numbers, "p": None})]
    better, worse = p_better(difference), p_better(-difference)
    word = PASSES if better < LEVEL else REFUSED if worse < LEVEL else WEAK
    change = {
        PASSES: "change the prediction more",
        WEAK: "are not shown to change the prediction more",
        REFUSED: "change the prediction less",
    }
    text = f"high-attribution cells {change[word]} than {edges} (p = {worse if word == REFUSED else better:.2g})"
    return [first, Finding("against edges", word, text, {**numbers, "p": better})]


def _than(word: Word, p: float) -> str:
    """Return the comparison of high-attribution cells with random ones in words."""
    return "more than" if word == PASSES else "less than" if p > 1 - LEVEL else "not clearly more than"


def exact(value: float, *thresholds: float) -> str:
    """Format a number with two digits, or with as many as it takes to show on which side of a threshold it lies.

    Example:
        >>> exact(0.796, 0.8), exact(0.796, 0.5), exact(0.8, 0.8)
        ('0.796', '0.80', '0.80')
    """
    texts = (f"{value:.{digits}f}" for digits in range(2, 9))
    return next(
        (t for t in texts if all(np.sign(float(t) - threshold) == np.sign(value - threshold) for threshold in thresholds)),
        repr(value),
    )


def p_better(differences: np.ndarray) -> float:
    """Return the one-sided p-value of Wilcoxon's signed-rank test that differences are above 0; 1 where all are 0."""
    from scipy.stats import wilcoxon

    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="greater").pvalue)


def p_of_orders(chance: np.ndarray, gain: float) -> float:
    """Return the one-sided p-value of a gain, summed over images, among all combinations of random and reversed orders.

    Args:
        chance: float64 (n, r), as in `Faithfulness`, of few images.
        gain: The sum of n gains.

    Example:
        >>> p_of_orders(np.array([[0.1, -0.3]]), 0.2)  # of ±0.1 and ±0.3 one is as large
        0.4
    """
    sums = np.zeros(1)
    for row in chance:
        sums = (sums[:, None] + np.concatenate([row, -row])).ravel()
    return float((1 + (sums >= gain).sum()) / (1 + len(sums)))


def judge_weights(stages: Mapping[str, np.ndarray]) -> Finding:
    """Return whether the heatmap changes when the network's weights are randomised from the top down.

    The largest of the medians over images of each step counts: guided backpropagation changes only with the lowest layers, and
    a heatmap that keeps its shape with a random top does not show what the classifier has learnt.

    Source: Adebayo et al., Sanity Checks for Saliency Maps (2018), with our own thresholds.

    Args:
        stages: Randomised part → rank correlations float64 (n,) with the heatmap of the true weights.
    """
    medians = {name: float(np.median(values)) for name, values in stages.items()}
    highest = max(medians.values())
    word = PASSES if highest < DEPENDS else WEAK if highest < HARDLY else REFUSED
    values = ", ".join(f"{exact(value, DEPENDS, HARDLY)} with {name}" for name, value in medians.items())
    depends = {PASSES: "depends", WEAK: "depends little", REFUSED: "hardly depends"}[word]
    text = f"the heatmap {depends} on the weights: rank correlation {values} randomised"
    return Finding("weights", word, text, {"correlation": medians})


def judge_noise(likeness: np.ndarray) -> Finding:
    """Return whether the heatmap is stable under noise that is too weak to see: by the median rank correlation over images."""
    median = float(np.median(likeness))
    word = PASSES if median >= STEADY else WEAK if median >= SHAKY else REFUSED
    stable = {PASSES: "stable", WEAK: "not quite stable", REFUSED: "unstable"}[word]
    text = f"the heatmap is {stable} under faint noise: rank correlation {exact(median, STEADY, SHAKY)}"
    return Finding("noise", word, text, {"correlation": median})


def class_not_applicable() -> Finding:
    """Return the finding on the class for two classes: there is no third class that could have another heatmap."""
    text = "not applicable to two classes: evidence for one is evidence against the other, so their heatmaps always differ"
    return Finding("class", NOT_APPLICABLE, text, {"correlation": None})


def judge_class(likeliest: np.ndarray, unlikeliest: np.ndarray, *, either: bool = False, two: bool = False) -> Finding:
    """Return whether the heatmap changes with the class that it explains.

    The most probable other class may be similar, with evidence at the same place, so the smaller of both correlations counts.

    Args:
        likeliest, unlikeliest: float64 (n,), signed rank correlations with the heatmap for the most and least probable other
            class.
        either: Whether the heatmap is of the unsigned difference of two classes' scores: it must be the same for both, and
            shows nothing about either.
        two: Whether there are two classes only, so that different heatmaps show nothing; equal ones still fail.
    """
    near, far = float(np.median(likeliest)), float(np.median(unlikeliest))
    numbers = {"correlation": {"likeliest": near, "unlikeliest": far}}
    if either:
        text = "the heatmap has no sign and is the same for both classes: it shows where their difference in score is sensitive"
        return Finding("class", WEAK, text, numbers)
    value = min(near, far)
    word = PASSES if value < APART else WEAK if value < BLIND else REFUSED
    if two and word == PASSES:
        return class_not_applicable()
    depends = {PASSES: "depends", WEAK: "depends little", REFUSED: "does not depend"}[word]
    one, other = exact(near, APART, BLIND), exact(far, APART, BLIND)
    values = f"rank correlation {one} with that for the most probable other class"
    values += f", {other} for the least probable" if far != near else ""
    hint = "; --contrast shows what separates it from the most probable one" if word == PASSES and near >= APART else ""
    return Finding("class", word, f"the heatmap {depends} on the class: {values}{hint}", numbers)


def not_made(check: str) -> Finding:
    """Return the finding of a check that was skipped because no time was left."""
    return Finding(check, WEAK, f'the check "{check}" was skipped: no time was left', {"skipped": True})


def judge_completeness(error: float) -> Finding:
    """Return whether an attribution that should add up to a difference in score does."""
    word = PASSES if error <= COMPLETE else WEAK if error <= INCOMPLETE else REFUSED
    text = f"the sum of the heatmap misses the difference in score by {exact(100 * error, 100 * COMPLETE, 100 * INCOMPLETE)} %"
    return Finding("completeness", word, text, {"error": error})


def judge_pointing(hits: np.ndarray, area_shares: np.ndarray) -> Finding:
    """Return whether peaks lie in the boxes of the data set more often than random points do."""
    n, share, chance = len(hits), float(hits.mean()), float(area_shares.mean())
    low, high = wilson(int(hits.sum()), n)
    word = PASSES if low > chance else REFUSED if high < chance else WEAK
    than = {PASSES: "more often than", WEAK: "not significantly more often than", REFUSED: "less often than"}[word]
    text = f"the peak lies on the marked object {than} a random point: {share:.0%} of {n} images, {chance:.0%} at random"
    return Finding("pointing", word, text, {"hits": share, "n": n, "chance": chance, "low": low, "high": high})


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as JSON: `verdict`, `why` (the findings that determine it), and all of them."""
    return _summary([_listed(f) for f in findings])


def _listed(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "verdict": finding.word, "text": finding.text, **finding.numbers}


def _summary(listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    word = worst([f["verdict"] for f in listed])
    deciding = [f["text"] for f in listed if f["verdict"] == word] if word != PASSES else []
    why = "; ".join(deciding) or f"all {sum(f['verdict'] != NOT_APPLICABLE for f in listed)} checks pass"
    return {"verdict": word, "why": why, "findings": list(listed)}


def of_class(shared: Mapping[str, Any], skill: Finding) -> dict[str, Any]:
    """Return a method's verdict for images of one class: the finding on the class replaces that on the whole classifier."""
    return _summary([_listed(skill) if f["check"] == skill.check else f for f in shared["findings"]])


def of_image(method: Mapping[str, Any], own: Mapping[str, float], chance: np.ndarray) -> dict[str, Any]:
    """Return the verdict on one image: the method's verdict for its class, lowered where this image's own order fails.

    Its gain is compared with those of random orders. If its high-attribution cells do not change the prediction clearly more
    than random cells, the image is at best weak; if they change it significantly less, it is refused.

    Args:
        method: As returned by `of_class`.
        own: The effect of this image's order, as returned by `Areas.row`.
        chance: float64 (…), the gains of random orders, of this image or of all images of the sample.
    """
    p = p_of_orders(chance.reshape(1, -1), own["gain"])
    here: Word = PASSES if p < LEVEL else REFUSED if p > 1 - LEVEL else WEAK
    word = worst([method["verdict"], here])
    why = method["why"]
    if here != PASSES:
        image = f"in this image high-attribution cells change the prediction {_than(here, p)} random cells "
        image += f"({own['gain']:+.2f} log odds, p = {p:.2g}, {chance.size:,} random orders)"
        why = image if word == here and method["verdict"] != here else f"{why}; {image}"
    return {"verdict": word, "why": why, "p": p, "orders": chance.size, "heat": dict(own), "method": dict(method)}


def unchecked(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict on an image that was not checked itself: the method's verdict for its class, with a note."""
    passes = method["verdict"] == PASSES
    why = f"{'the method passes' if passes else method['why']}; this image itself was not checked"
    return {"verdict": method["verdict"], "why": why, "p": None, "orders": 0, "heat": None, "method": dict(method)}
