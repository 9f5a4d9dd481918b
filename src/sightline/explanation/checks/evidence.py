"""Evidence for a heatmap method on a classifier: checks on a sample of images, and on each image that is shown."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import ImageError
from sightline.explanation.checks import measures, verdict
from sightline.explanation.checks.distinction import judge_classes, judge_distinction
from sightline.explanation.checks.randomised_weights import randomised
from sightline.explanation.checks.verdict import Finding
from sightline.explanation.draw import overlay
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.methods import METHODS
from sightline.explanation.options import ExplainOptions
from sightline.records import Explanation, Predictions, Preprocess, Progress, silent

SAMPLE, SAMPLE_OF_LARGE = 24, 12
"""Number of images that a run's checks use, for networks of up to `LARGE` parameters and for larger ones."""
LARGE = 10_000_000
COMPARED, COMPARED_SLOW = 8, 4
"""Number of images whose heatmaps are recomputed under noise and other weights; the second for slow methods."""
ENSEMBLE_PX = 288
"""Side of the square whose cells are covered for ensembles, whose members have different input sizes and crops."""
IMAGES_PER_SAMPLE = 4
"""Maximum number of images that are checked individually, as a multiple of the sample size; 1 for ensembles and crops."""
OWN_ORDERS = 0.1
"""Maximum share of a limited time for one image's own random orders."""
FAITHFUL = 0.5
"""Share of a limited time for covering cells; the other checks use the rest."""
RANDOMISED_TIMES = 6.0
"""Time for heatmaps of two networks with randomised weights, which run in torch, as a multiple of that for one heatmap."""
Make = Callable[[Classifier, np.ndarray, np.ndarray], list[np.ndarray]]
"""Classifier, images uint8 (n, h, w, 3), targets (n,) → n heatmaps."""
_CELLS = measures.MOST_CELLS_A_SIDE
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Skill:
    """Known accuracy of a classifier.

    Args:
        whole: The finding on all classes together.
        answers: Predictions for held-out images of known class; None where they were not saved.
    """

    whole: Finding
    answers: Predictions | None = None

    def of(self, target: str, contrast: str = "") -> Finding:
        """Return whether the classifier separates a class from its contrast class, or from all others."""
        if self.answers is None:
            return self.whole
        classes = self.answers.classes
        return judge_distinction(self.answers, classes.index(target), classes.index(contrast) if contrast else None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The results of the checks on some images.

    Args:
        shared: The method's verdict on this classifier, as returned by `verdict.summary`.
        skill: How accurate the classifier is known to be.
        chance: float64 (r,), the gains of random orders of cells.
        own: Image → the effect of its own order of cells, as returned by `Areas.row`.
        orders: Image → float64 (r,), gains of random orders of its own cells, where those of the sample were inconclusive.
    """

    shared: Mapping[str, Any]
    skill: Skill
    chance: np.ndarray
    own: Mapping[str, Mapping[str, float]]
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)

    def of(self, item: Explanation) -> dict[str, Any]:
        """Return the verdict on one image; it states where that image itself was not checked."""
        method = verdict.of_class(self.shared, self.skill.of(item.target, item.contrast))
        if item.path not in self.own:
            return verdict.unchecked(method)
        return verdict.of_image(method, self.own[item.path], self.orders.get(item.path, self.chance))


def sample_size(classifier: Classifier) -> int:
    """Return the number of images that are checked by default, so that the checks take seconds."""
    parts = classifier.members or (classifier,)
    return SAMPLE if sum(p.card.backbone.parameters * p.card.crops for p in parts) <= LARGE else SAMPLE_OF_LARGE


def most_pictures(classifier: Classifier) -> int:
    """Return the maximum number of images that are checked individually."""
    return sample_size(classifier) * (IMAGES_PER_SAMPLE if _single_input(classifier) else 1)


def gather(
    classifier: Classifier,
    files: Sequence[Path],
    names: Sequence[str],
    targets: Sequence[int],
    options: ExplainOptions,
    *,
    skill: Skill,
    more: Sequence[Finding] = (),
    given: Mapping[str, Explanation] = MappingProxyType({}),
    make: Make | None = None,
    progress: Progress = silent,
    deadline: Deadline = UNLIMITED,
    heat_s: float = 0.0,
    open_s: float = 0.0,
) -> Evidence | None:
    """Run all checks on images.

    Args:
        classifier: The explained classifier; without a network its weights are not randomised.
        files, names, targets: n images and the classes that are explained.
        options: The method and its settings.
        skill: How accurate the classifier is known to be.
        more: Findings of other checks that count as well.
        given: Name → its explanation, where it was computed before.
        make: A user-defined heatmap function in place of a method.
        progress: Called after each check.
        deadline: Images and checks for which no time is left are skipped, and the findings state it.
        heat_s: Seconds per heatmap, from which the time of a check is estimated.
        open_s: Seconds for the first heatmap, including loading the network.

    Returns:
        None where no image could be read.
    """
    images, readable = read_seen(classifier, files)
    if not len(images):
        return None
    aims = np.array([targets[i] for i in readable], dtype=np.int64)
    steps, step = 4, itertools.count()

    def done() -> None:
        progress("checking the heatmap method", next(step), steps)

    done()
    if make is None and _single_input(classifier) and all(names[i] in given for i in readable):
        heats = [_centred(given[names[i]]) for i in readable]
    else:
        heats = (make or _maker(options))(classifier, images, aims)
    pace = _Pace(deadline.part(FAITHFUL))
    faithfulness = measures.faithfulness(answer_of(classifier, options), images, aims, heats, options.seed, pace)
    findings = [skill.whole, *verdict.judge_faithfulness(faithfulness)]
    done()
    sample = _Sample(
        classifier=classifier,
        images=images,
        targets=aims,
        heats=heats,
        options=options,
        make=make,
        deadline=deadline,
        heat_s=heat_s,
        open_s=open_s,
    )
    for check in (sample.noise, sample.weights, sample.other_class):
        findings += check()
        done()
    n = len(faithfulness.heat.gain)
    shared = {**verdict.summary([*findings, *more]), "images": n, "chance": faithfulness.chance.ravel().tolist()}
    rows = {names[i]: faithfulness.heat.row(row) for row, i in enumerate(readable[:n])}
    return Evidence(shared, skill, faithfulness.chance.ravel(), rows)


class _Pace:
    """Whether another piece of work of the same duration ends in time; its calls count the pieces."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline, self.started, self.pieces = deadline, deadline.clock(), 0

    def __call__(self) -> bool:
        self.pieces += 1
        return self.deadline.fits((self.deadline.clock() - self.started) / self.pieces)


class _Sample:
    """The first images of a sample, for checks that recompute heatmaps: under noise, with other weights, for other classes."""

    def __init__(
        self,
        *,
        classifier: Classifier,
        images: np.ndarray,
        targets: np.ndarray,
        heats: list[np.ndarray],
        options: ExplainOptions,
        make: Make | None,
        deadline: Deadline,
        heat_s: float,
        open_s: float,
    ) -> None:
        slow = options.method in METHODS and METHODS[options.method].slow
        n = COMPARED_SLOW if slow else COMPARED
        self.classifier, self.deadline, self.user_defined, self.open_s = classifier, deadline, make is not None, open_s
        self.options = dataclasses.replace(options, coarse=slow)
        self.make = make or _maker(self.options)
        self.images, self.targets = images[:n], targets[:n]
        self.step_s = heat_s * len(self.images)
        self.heats = self.make(classifier, self.images, self.targets) if slow else heats[:n]

    def noise(self) -> list[Finding]:
        """Return the finding on stability under noise."""
        if not self.deadline.fits(self.step_s):
            return [verdict.not_made("noise")]
        noisy = self.make(self.classifier, measures.noisy(self.images, self.options.seed), self.targets)
        return [verdict.judge_noise(measures.likeness(self.heats, noisy))]

    def weights(self) -> list[Finding]:
        """Return the finding on randomised weights; none where there is no network."""
        if not self.deadline.fits(RANDOMISED_TIMES * self.step_s + 2 * self.open_s):
            return [verdict.not_made("weights")]
        likeness = {
            words: measures.likeness(self.heats, self.make(other, self.images, self.targets))
            for words, other in randomised(self.classifier, self.options.cache, self.options.seed)
        }
        return [verdict.judge_weights(likeness)] if likeness else []

    def other_class(self) -> list[Finding]:
        """Return the finding on heatmaps for other classes; none where there is one class only."""
        two = len(self.classifier.classes) == 2 or self.options.contrast is not None
        if two and not self.user_defined and self.options.method == "auto":  # all methods that `auto` selects are signed
            return [verdict.class_not_applicable()]
        if not self.deadline.fits(2 * self.step_s):
            return [verdict.not_made("class")]
        if len(self.classifier.classes) < 2:
            return []
        near, far = (measures.likeness(self.heats, other) for other in self._of_others())
        return [verdict.judge_class(near, far, either=self._same_for_either(two), two=two)]

    def _of_others(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return heatmaps for the most and the least probable other class; with a contrast class, for that one."""
        images, contrast = self.images, self.options.contrast
        if contrast is None:
            order = np.argsort(-probs_of(self.classifier, self.options)(images), axis=1, kind="stable")
            others = np.array([[c for c in row if c != target] for row, target in zip(order, self.targets, strict=True)])
            near = self.make(self.classifier, images, others[:, 0])
            return near, near if others.shape[1] == 1 else self.make(self.classifier, images, others[:, -1])
        by_row: dict[int, np.ndarray] = {}
        for target in np.unique(self.targets).tolist():
            rows = np.flatnonzero(self.targets == target)
            swapped = self.make if self.user_defined else _maker(dataclasses.replace(self.options, contrast=target))
            by_row |= zip(rows.tolist(), swapped(self.classifier, images[rows], np.full(len(rows), contrast)), strict=True)
        opposite = [by_row[i] for i in range(len(images))]
        return opposite, opposite

    def _same_for_either(self, two: bool) -> bool:
        """Return whether the heatmap is of an unsigned difference of two scores, and so the same for either class."""
        if self.user_defined or self.options.method == "auto":
            return False
        method = METHODS[self.options.method]
        return two and not method.signed and method.heads == "gradient"


def of_run(stored: Mapping[str, Any] | None, options: ExplainOptions, skill: Skill) -> Evidence | None:
    """Return the stored checks of a run; None if there are none, or they are of another method, layer or contrast class.

    Random orders are stored too, so that an image has the same verdict in the run's report and when it is explained alone.
    """
    if not stored or "chance" not in stored or options.contrast is not None or options.layer is not None:
        return None
    if options.method not in ("auto", stored.get("method")):
        return None
    return Evidence(stored, skill, np.array(stored["chance"], dtype=np.float64), {})


def with_pictures(
    evidence: Evidence,
    classifier: Classifier,
    explanations: Sequence[Explanation],
    files: Mapping[str, Path],
    options: ExplainOptions,
    progress: Progress = silent,
) -> Evidence:
    """Return the evidence with individual checks of images, spread evenly over them where there are too many.

    Args:
        evidence: Of a sample, or of a run.
        classifier: The explained classifier.
        explanations: One per image.
        files: Name → file.
        options: The method and its settings.
        progress: Called after each image.
    """
    left = [item for item in explanations if item.path not in evidence.own]
    selected = {left[i].path for i in spread(len(left), most_pictures(classifier))}
    checked = [item for item in explanations if item.path in evidence.own or item.path in selected]
    answer = answer_of(classifier, options)
    for number, item in enumerate(checked, 1):
        evidence = with_picture(evidence, classifier, answer, item, files[item.path], options)
        progress("checking heatmaps", number, len(checked))
    return evidence


def with_picture(
    evidence: Evidence,
    classifier: Classifier,
    answer: measures.Answer,
    item: Explanation,
    file: Path,
    options: ExplainOptions,
    deadline: Deadline = UNLIMITED,
) -> Evidence:
    """Return the evidence with the check of one image's own order of cells.

    Its gain is compared with the random orders of the sample. Unless it is clearly above those, random orders of the image's
    own cells are drawn, so that no image is judged weak because of the scatter of others, or of too few orders.

    Args:
        evidence: Of a sample, or of a run.
        classifier: The explained classifier.
        answer: Its probabilities, as returned by `answer_of`.
        item: The image's explanation.
        file: The image.
        options: The method and its settings.
        deadline: With a limit, at most a tenth of the remaining time goes to the image's own random orders.
    """
    own = evidence.own.get(item.path)
    if item.path in evidence.orders or (own is not None and measures.beats(evidence.chance, own["gain"])):
        return evidence
    images, _ = read_seen(classifier, [file])
    if not len(images):
        return evidence
    single = _single_input(classifier)
    target = np.array([classifier.classes.index(item.target)])
    heatmap = _centred(item) if single else _maker(options)(classifier, images, target)[0]
    begun = deadline.clock()
    row = measures.own_orders(answer, images, target, [heatmap]).row(0) if own is None or deadline.limited else own
    draws_s = measures.ORDERS_AT_ONCE * (deadline.clock() - begun)  # a random order takes as long as the image's own
    orders, pace = dict(evidence.orders), deadline.part(OWN_ORDERS)
    if not measures.beats(evidence.chance, row["gain"]) and pace.fits(draws_s):
        orders[item.path] = measures.random_gains(
            answer,
            images[0],
            int(target[0]),
            heatmap,
            gain=row["gain"],
            seed=options.seed,
            most=measures.MOST_ORDERS if single else measures.ORDERS_AT_ONCE,
            proceed=lambda: pace.fits(draws_s),
        )
    return dataclasses.replace(evidence, own={**evidence.own, item.path: row}, orders=orders)


def spread(n: int, most: int) -> list[int]:
    """Return at most `most` of n rows at even distances, including the first and the last.

    Example:
        >>> spread(5, 3)
        [0, 2, 4]
    """
    most = min(n, most)
    return sorted({round(i * (n - 1) / max(most - 1, 1)) for i in range(most)})


def skill_of(classifier: Classifier, test: Mapping[str, Any] | None = None, answers: Predictions | None = None) -> Skill:
    """Return how accurate a classifier is known to be: by predictions for held-out images, else by scores, else by its card."""
    if answers is not None and answers.classes == classifier.classes:
        labelled = answers.select(answers.y_true >= 0)
        if len(labelled):
            return Skill(judge_classes(labelled), labelled)
    score = test or classifier.card.scores.get("val") or {}
    n, accuracy = int(score.get("n") or 0), score.get("accuracy")
    if not n or accuracy is None:
        return Skill(verdict.unknown_classifier())
    return Skill(verdict.judge_classifier(round(accuracy * n), n, _guessing(classifier, score)))


def _guessing(classifier: Classifier, score: Mapping[str, Any]) -> float:
    """Return the share of the most frequent class: of the scored images, else of those on the card, else 1 / k."""
    counts = [int(row.get("n") or 0) for row in (score.get("per_class") or {}).values()]
    if not sum(counts):
        counts = [sum(splits.values()) for splits in (classifier.card.data.get("images") or {}).values()]
    return max(counts) / sum(counts) if sum(counts) else 1 / max(len(classifier.classes), 1)


def read_seen(classifier: Classifier, files: Sequence[Path]) -> tuple[np.ndarray, list[int]]:
    """Return the network's input for each readable file, uint8 (m, h, w, 3), and the rows of these files.

    For a classifier that averages over crops, the square that they are cut from; for an ensemble the central square.
    """
    images, readable = [], []
    for row, file in enumerate(files):
        try:
            images.append(pixels.decode(file, _decoding(classifier)))
        except (ImageError, OSError):
            continue
        readable.append(row)
    return np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8), readable


def _decoding(classifier: Classifier) -> Preprocess:
    """Return the preprocessing of all pixels that the classifier uses."""
    if classifier.members:
        return Preprocess(size=(ENSEMBLE_PX, ENSEMBLE_PX), crop_fraction=1.0)
    preprocess = classifier.card.backbone.preprocess
    return pixels.uncut(preprocess) if classifier.card.crops > 1 else preprocess


def answer_of(classifier: Classifier, options: ExplainOptions) -> measures.Answer:
    """Return a function from arrays to the probability of the target; with a contrast class, among the two classes."""

    def answer(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        probs = predict(images)
        own = probs[np.arange(len(probs)), targets]
        return np.asarray(own if options.contrast is None else own / np.maximum(own + probs[:, options.contrast], 1e-300))

    predict = probs_of(classifier, options)
    return answer


def probs_of(classifier: Classifier, options: ExplainOptions) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from arrays to probabilities float64 (n, k)."""
    if classifier.members or classifier.card.crops > 1:
        shared: dict[str, Any] = {"cache": options.cache, "device": options.device, "sessions": options.sessions}
        return lambda images: classifier.predict(list(images), **shared).probs
    session = classifier.session(options.cache, device=options.device, maps=True, opened=options.sessions)

    def predict(images: np.ndarray) -> np.ndarray:
        parts = [classifier.probs(session.run(images[i : i + _BATCH])[0]) for i in range(0, len(images), _BATCH)]
        return np.concatenate(parts)

    return predict


def _maker(options: ExplainOptions) -> Make:
    """Return a function that computes heatmaps over the whole of each array, neutral outside the network's input."""

    def make(classifier: Classifier, images: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
        names = [str(i) for i in range(len(images))]
        aims = [int(t) for t in targets]
        explanations, _ = heatmaps_of(classifier, list(images), names, aims, options, cropped=_single_input(classifier))
        return [_over(item, images.shape[1:3]) for item in explanations]

    return make


def _centred(item: Explanation) -> np.ndarray:
    """Return an explanation's heatmap with 0 as the neutral value."""
    return np.asarray(item.heat - np.float32(item.neutral), dtype=np.float32)


def _single_input(classifier: Classifier) -> bool:
    """Return whether a file's heatmap covers exactly the pixels that `read_seen` returns."""
    return not classifier.members and classifier.card.crops == 1


def _over(item: Explanation, size: tuple[int, int]) -> np.ndarray:
    """Return a heatmap over the whole array; at low resolution where a part of the array is outside the network's input."""
    heatmap = _centred(item)
    if tuple(item.box) == (0.0, 0.0, float(size[0]), float(size[1])):
        return heatmap
    return np.asarray(np.nan_to_num(overlay.place(heatmap, item.box, size, (_CELLS, _CELLS)), nan=0.0))
