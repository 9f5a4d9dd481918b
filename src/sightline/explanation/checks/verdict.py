"""Numbers of checks → words: what passes, what is weak, and what not to rely on, with the thresholds in one place."""

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
"""Confidence of the interval that an accuracy must clear chance with: the best of several classifiers is a flattered one."""
DEPENDS, HARDLY = 0.5, 0.7
"""Rank correlation with the heat of other weights: below the first the map depends on the weights, above the second not."""
STEADY, SHAKY = 0.8, 0.5
"""Rank correlation with the heat under noise: from the first on steady, below the second not to be relied on."""
APART, BLIND = 0.8, 0.97
"""Rank correlation with the heat for another class: below the first the map depends on the class, from the second on not."""
COMPLETE, INCOMPLETE = 0.01, 0.05
"""Relative error of the sum of a complete attribution."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, judged.

    Args:
        check: Its name.
        word: What it says.
        text: The numbers in a sentence.
        numbers: The same for programs.
    """

    check: str
    word: Word
    text: str
    numbers: Mapping[str, Any]


def worst(words: Sequence[Word]) -> Word:
    """Return the least favourable of verdicts, without those that are not applicable; "weak" where none is left.

    Example:
        >>> worst(["passes", "weak"]), worst(["n/a", "passes"]), worst([])
        ('weak', 'passes', 'weak')
    """
    judged = [word for word in words if word != NOT_APPLICABLE]
    return max(judged, key=_RANK.index) if judged else WEAK


def judge_classifier(right: int, n: int, majority: float) -> Finding:
    """Whether there is anything to explain: heat of a classifier that guesses shows, faithfully, what its guesses hang on.

    Args:
        right: Right answers on images that it was not fitted on.
        n: Of so many.
        majority: The share of the commonest class among them: what guessing reaches.
    """
    low, _ = wilson(right, n, SURE)
    word = PASSES if low > majority else REFUSED
    share = right / n if n else 0.0
    than = "better than" if word == PASSES else "not shown to be better than"
    text = f"the classifier is {than} guessing ({share:.0%} of {n:,} held-out images right, guessing {majority:.0%})"
    return Finding("classifier", word, text, {"accuracy": share, "n": n, "low": low, "guessing": majority})


def unknown_classifier() -> Finding:
    """The finding where nobody has measured the classifier."""
    return Finding("classifier", WEAK, "how often the classifier is right was never measured here", {"accuracy": None})


def published_classifier(name: str) -> Finding:
    """The finding for a network that answers with its own classes and published weights."""
    return Finding(
        "classifier", PASSES, f"{name} answers with the classes that its weights were published for", {"accuracy": None}
    )


def judge_faithfulness(found: Faithfulness) -> list[Finding]:
    """Whether covering hot cells moves the answer more than random cells do, and more than the photograph's edges do.

    Gains in log odds are tested, and told; random cells gain 0. With at least `FEW` images a one-sided Wilcoxon test over the
    images; with fewer the gain is held against random orders of the same images in a permutation test, whose silence says
    little, and edges are compared without a test.
    """
    n, gain = len(found.heat.gain), found.heat.gain
    numbers: dict[str, Any] = {"n": n}
    for name in ("heat", "random", "edges"):
        areas = getattr(found, name)
        means = {key: float(getattr(areas, key).mean()) for key in ("deletion", "insertion", "gain")}
        numbers[name] = means
    p = p_better(gain) if n >= FEW else p_of_orders(found.chance, float(gain.sum()))
    word = PASSES if p < LEVEL else REFUSED if n >= FEW or p > 1 - LEVEL else WEAK
    orders = "" if n >= FEW else f", {found.chance.size:,} random orders"
    text = f"hot cells move the answer {_than(word, p)} random cells ({gain.mean():+.2f} log odds"
    text += f"{'' if n == 1 else ' on average'}, random 0, p = {p:.2g}{orders})"
    first = Finding("against random", word, text, {**numbers, "p": p})
    difference = gain - found.edges.gain
    told = f"an edge filter's: {gain.mean():+.2f} log odds on average, the filter's {found.edges.gain.mean():+.2f}"
    if n < FEW:
        word = PASSES if difference.mean() > 0 else WEAK
        move = "move the answer more than" if word == PASSES else "do not move the answer more than"
        text = f"hot cells {move} {told} (too few images for a test)"
        return [first, Finding("against edges", word, text, {**numbers, "p": None})]
    better, worse = p_better(difference), p_better(-difference)
    word = PASSES if better < LEVEL else REFUSED if worse < LEVEL else WEAK
    answer = {PASSES: "move the answer more", WEAK: "are not shown to move the answer more", REFUSED: "move the answer less"}
    text = f"hot cells {answer[word]} than {told} (p = {worse if word == REFUSED else better:.2g})"
    return [first, Finding("against edges", word, text, {**numbers, "p": better})]


def _than(word: Word, p: float) -> str:
    """Return how much hot cells move the answer compared with random ones."""
    return "more than" if word == PASSES else "less than" if p > 1 - LEVEL else "not clearly more than"


def exact(value: float, *bars: float) -> str:
    """A number with two digits, or with as many as it takes to see on which side of a bar it lies.

    Example:
        >>> exact(0.796, 0.8), exact(0.796, 0.5), exact(0.8, 0.8)
        ('0.796', '0.80', '0.80')
    """
    texts = (f"{value:.{digits}f}" for digits in range(2, 9))
    return next((t for t in texts if all(np.sign(float(t) - bar) == np.sign(value - bar) for bar in bars)), repr(value))


def p_better(differences: np.ndarray) -> float:
    """One-sided p of Wilcoxon's signed-rank test that differences lie above 0; 1 where all are 0."""
    from scipy.stats import wilcoxon

    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="greater").pvalue)


def p_of_orders(chance: np.ndarray, gain: float) -> float:
    """One-sided p of a gain, summed over images, among those of all combinations of their random orders and these reversed.

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
    """Whether the map changes when the network's weights are drawn anew, top down.

    The median over images of each step is taken, and the largest counts: guided backpropagation changes only when the lowest
    layers do, and a map that keeps its shape with a random top does not show what the classifier has learnt.

    Source: Adebayo et al., Sanity Checks for Saliency Maps (2018), with thresholds of ours.

    Args:
        stages: What was drawn anew → rank correlations float64 (n,) with the heat of the true weights.
    """
    medians = {name: float(np.median(values)) for name, values in stages.items()}
    highest = max(medians.values())
    word = PASSES if highest < DEPENDS else WEAK if highest < HARDLY else REFUSED
    told = ", ".join(f"{exact(value, DEPENDS, HARDLY)} with {name}" for name, value in medians.items())
    does = {PASSES: "depends on the weights", WEAK: "depends little on the weights", REFUSED: "hardly depends on the weights"}[
        word
    ]
    return Finding("weights", word, f"the map {does}: rank correlation {told} drawn anew", {"correlation": medians})


def judge_noise(likeness: np.ndarray) -> Finding:
    """Whether the map stays when noise too weak to see is added: the median over images of the rank correlation."""
    median = float(np.median(likeness))
    word = PASSES if median >= STEADY else WEAK if median >= SHAKY else REFUSED
    does = {PASSES: "steady", WEAK: "shaky", REFUSED: "not steady"}[word]
    return Finding(
        "noise",
        word,
        f"the map is {does} under faint noise: rank correlation {exact(median, STEADY, SHAKY)}",
        {"correlation": median},
    )


def class_not_applicable() -> Finding:
    """Return the finding on the class where there are but two: there is no other class that could have another map."""
    text = "not applicable to two classes: what speaks for one speaks against the other, so the maps differ by construction"
    return Finding("class", NOT_APPLICABLE, text, {"correlation": None})


def judge_class(likeliest: np.ndarray, unlikeliest: np.ndarray, *, either: bool = False, two: bool = False) -> Finding:
    """Whether the map changes with the class that it is said to explain.

    The likeliest other class may be a close relative, whose evidence lies at the same place, so the smaller of both counts.

    Args:
        likeliest, unlikeliest: float64 (n,), rank correlations, signs and all, with the heat for these other classes.
        either: The map is of how much the difference of two classes' scores can be moved, whichever way: it must be the same
            for both, and says nothing for one of them.
        two: There are but two classes, so that maps that differ show nothing; maps that are the same still fail.
    """
    near, far = float(np.median(likeliest)), float(np.median(unlikeliest))
    numbers = {"correlation": {"likeliest": near, "unlikeliest": far}}
    if either:
        text = (
            "the map is for either class alike: it has no sign, and says where the score of one against the other can be moved"
        )
        return Finding("class", WEAK, text, numbers)
    value = min(near, far)
    word = PASSES if value < APART else WEAK if value < BLIND else REFUSED
    if two and word == PASSES:
        return class_not_applicable()
    does = {PASSES: "depends", WEAK: "depends little", REFUSED: "does not depend"}[word]
    one, other = exact(near, APART, BLIND), exact(far, APART, BLIND)
    told = f"rank correlation {one} with that for the likeliest other class"
    told += f", {other} for the unlikeliest" if far != near else ""
    hint = "; --contrast asks what tells it from the likeliest" if word == PASSES and near >= APART else ""
    return Finding("class", word, f"the map {does} on the class: {told}{hint}", numbers)


def not_made(check: str) -> Finding:
    """Return the finding of a check that was left out because the time for checks was used up."""
    return Finding(check, WEAK, f'the check "{check}" was left out: its time was used up', {"skipped": True})


def judge_completeness(error: float) -> Finding:
    """Whether an attribution that promises to add up to a difference of scores does."""
    word = PASSES if error <= COMPLETE else WEAK if error <= INCOMPLETE else REFUSED
    text = f"its sum misses the difference of scores by {exact(100 * error, 100 * COMPLETE, 100 * INCOMPLETE)} %"
    return Finding("completeness", word, text, {"error": error})


def judge_pointing(hits: np.ndarray, area_shares: np.ndarray) -> Finding:
    """Whether peaks lie in the boxes that the data bring, more often than a random place does."""
    n, share, chance = len(hits), float(hits.mean()), float(area_shares.mean())
    low, high = wilson(int(hits.sum()), n)
    word = PASSES if low > chance else REFUSED if high < chance else WEAK
    than = {PASSES: "more often than", WEAK: "not surely more often than", REFUSED: "less often than"}[word]
    text = f"the peak lies on the marked object {than} a random place: for {share:.0%} of {n} images, against {chance:.0%}"
    return Finding("pointing", word, text, {"hits": share, "n": n, "chance": chance, "low": low, "high": high})


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """Findings as JSON: `verdict`, `why` (what decided, in a sentence), and all of them."""
    return _told([_listed(f) for f in findings])


def _listed(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "verdict": finding.word, "text": finding.text, **finding.numbers}


def _told(listed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    word = worst([f["verdict"] for f in listed])
    deciding = [f["text"] for f in listed if f["verdict"] == word] if word != PASSES else []
    why = "; ".join(deciding) or f"all {sum(f['verdict'] != NOT_APPLICABLE for f in listed)} checks pass"
    return {"verdict": word, "why": why, "findings": list(listed)}


def of_class(shared: Mapping[str, Any], skill: Finding) -> dict[str, Any]:
    """A method's verdict for pictures of one class: the finding on the classifier as a whole gives way to that on the class."""
    return _told([_listed(skill) if f["check"] == skill.check else f for f in shared["findings"]])


def of_image(method: Mapping[str, Any], own: Mapping[str, float], chance: np.ndarray) -> dict[str, Any]:
    """What one picture's caption says: the method's verdict for its class, less where this image's own order fails.

    Its gain is held against those of random orders. A picture whose hot cells do not move the answer clearly more than random
    cells is at best weak; one whose hot cells move it the wrong way, beyond chance, is not to be relied on.

    Args:
        method: As `of_class` gives it.
        own: What this image's order does, as `Areas.row` gives it.
        chance: float64 (…), the gains of random orders, of this image or of all images of the sample.
    """
    p = p_of_orders(chance.reshape(1, -1), own["gain"])
    here: Word = PASSES if p < LEVEL else REFUSED if p > 1 - LEVEL else WEAK
    word = worst([method["verdict"], here])
    why = method["why"]
    if here != PASSES:
        mine = f"here hot cells move the answer {_than(here, p)} random cells "
        mine += f"({own['gain']:+.2f} log odds, p = {p:.2g}, {chance.size:,} random orders)"
        why = mine if word == here and method["verdict"] != here else f"{why}; {mine}"
    return {"verdict": word, "why": why, "p": p, "orders": chance.size, "heat": dict(own), "method": dict(method)}


def unchecked(method: Mapping[str, Any]) -> dict[str, Any]:
    """What the caption of a picture says that was not checked: the method's verdict for its class, and that it is no more."""
    passes = method["verdict"] == PASSES
    why = f"{'the method passes' if passes else method['why']}; this picture itself was not checked"
    return {"verdict": method["verdict"], "why": why, "p": None, "orders": 0, "heat": None, "method": dict(method)}
