"""The checks of a method's heat on a classifier: gathered on a sample of images, kept in the run, said on each picture."""

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
from sightline.records import Explanation, Predictions, Preprocess, Progress, silent
from sightline.store import Cache

SAMPLE, SAMPLE_OF_LARGE = 24, 12
"""Images that a run's checks are made on, for networks of up to `LARGE` parameters and for larger ones."""
LARGE = 10_000_000
ALIKE = 8
"""Images whose heat is made again under noise and other weights; its likeness varies far less than answers do."""
SLOW, ALIKE_SLOW = "integrated-gradients", 4
"""The method that takes many seconds an image, and how many of its images these are; coarser ones are compared, with coarse."""
ENSEMBLE_PX = 288
"""The side of the square that an ensemble's checks cover parts of: its members see different sizes, and crops."""
PICTURES = 4
"""How many times as many pictures have their own order checked at most, the others say that they were not; once as many
where an answer takes several networks or looks."""
OWN_ORDERS = 0.1
"""The share of a limited time that one picture's own random orders have at most."""
FAITHFUL = 0.5
"""The share of a limited time in which hot cells are covered; the other checks have the rest."""
DRAWN_ANEW_TIMES = 6.0
"""How many times as long as once more the same heat the heat of two networks with other weights takes, which run in torch."""
Made = Callable[[Classifier, np.ndarray, np.ndarray], list[np.ndarray]]
_CELLS = measures.MOST_CELLS_A_SIDE
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Skill:
    """What is known of how good a classifier is.

    Args:
        whole: Of all its classes together.
        answers: What it says of held-out images whose class is known; None where nobody kept them.
    """

    whole: Finding
    answers: Predictions | None = None

    def of(self, target: str, contrast: str = "") -> Finding:
        """Whether it tells a class from the one that it is set against, or from all others."""
        if self.answers is None:
            return self.whole
        classes = self.answers.classes
        return judge_distinction(self.answers, classes.index(target), classes.index(contrast) if contrast else None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks of some images gave.

    Args:
        shared: The method's verdict on this classifier, as `verdict.summary` gives it.
        skill: How good the classifier is.
        chance: float64 (r,), the gains of random orders of cells.
        own: Image → what its own order does, as `Areas.row` gives it.
        orders: Image → float64 (r,), gains of random orders of its own cells, where those of the sample did not settle it.
    """

    shared: Mapping[str, Any]
    skill: Skill
    chance: np.ndarray
    own: Mapping[str, Mapping[str, float]]
    orders: Mapping[str, np.ndarray] = field(default_factory=dict)

    def of(self, item: Explanation) -> dict[str, Any]:
        """The verdict on one picture, which says so where that picture itself was not checked."""
        method = verdict.of_class(self.shared, self.skill.of(item.target, item.contrast))
        if item.path not in self.own:
            return verdict.unchecked(method)
        return verdict.of_image(method, self.own[item.path], self.orders.get(item.path, self.chance))


@dataclass(frozen=True, slots=True)
class How:
    """How heat is made: what `heats_of` is told besides the images.

    Args:
        cache, device, seed: Its means.
        method, layer, contrast, coarse: As in `heats_of`.
        made: A map of one's own in place of a method: classifier, images uint8 (n, h, w, 3), targets (n,) → n heats.
    """

    cache: Cache
    device: str = "auto"
    seed: int = 0
    method: str = "auto"
    layer: str | None = None
    contrast: int | None = None
    coarse: bool = False
    made: Made | None = None


def sample_size(classifier: Classifier) -> int:
    """How many images are checked by default, so that the checks stay a matter of seconds."""
    parts = classifier.members or (classifier,)
    return SAMPLE if sum(p.card.backbone.parameters * p.card.crops for p in parts) <= LARGE else SAMPLE_OF_LARGE


def most_pictures(classifier: Classifier) -> int:
    """Return how many pictures have their own order checked at most."""
    return sample_size(classifier) * (PICTURES if _one_look(classifier) else 1)


def gather(
    classifier: Classifier,
    files: Sequence[Path],
    names: Sequence[str],
    targets: Sequence[int],
    how: How,
    *,
    skill: Skill,
    more: Sequence[Finding] = (),
    given: Mapping[str, Explanation] = MappingProxyType({}),
    progress: Progress = silent,
    deadline: Deadline = UNLIMITED,
    heat_s: float = 0.0,
    open_s: float = 0.0,
) -> Evidence | None:
    """Run all checks on images.

    Args:
        classifier: What answers; one without a network is checked without drawing its weights anew.
        files, names, targets: n images and the classes that are explained.
        how: The method and its means.
        skill: How good the classifier is known to be.
        more: Findings of other kinds that count as well.
        given: Name → its heat, where that is at hand.
        progress: Told after each check.
        deadline: Images and checks for which no time is left are left out, and the findings say so.
        heat_s: Seconds that the heat of one image takes, by which the time of a check is estimated.
        open_s: Seconds that the first heat took, with loading the network.

    Returns:
        None where no image could be read.
    """
    images, kept = read_seen(classifier, files)
    if not len(images):
        return None
    aims = np.array([targets[i] for i in kept], dtype=np.int64)
    steps, step = 4, itertools.count()

    def done() -> None:
        progress("checks of the heat", next(step), steps)

    done()
    own = _own(classifier, images, aims, [names[i] for i in kept], how, given)
    pace = _Pace(deadline.part(FAITHFUL))
    found = measures.faithfulness(answer_of(classifier, how), images, aims, own, how.seed, pace)
    findings = [skill.whole, *verdict.judge_faithfulness(found)]
    done()
    findings += _comparisons(classifier, images, aims, own, how, done, deadline, heat_s, open_s)
    n = len(found.heat.gain)
    shared = {**verdict.summary([*findings, *more]), "images": n, "chance": found.chance.ravel().tolist()}
    rows = {names[i]: found.heat.row(row) for row, i in enumerate(kept[:n])}
    return Evidence(shared, skill, found.chance.ravel(), rows)


class _Pace:
    """Whether another piece of work as long as those before still ends in time; pieces are counted by its calls."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline, self.started, self.pieces = deadline, deadline.clock(), 0

    def __call__(self) -> bool:
        self.pieces += 1
        return self.deadline.fits((self.deadline.clock() - self.started) / self.pieces)


def _own(
    classifier: Classifier,
    images: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    how: How,
    given: Mapping[str, Explanation],
) -> list[np.ndarray]:
    """The heat of each image, made where it is not at hand."""
    if how.made is None and _one_look(classifier) and all(name in given for name in names):
        return [_given(given[name]) for name in names]
    return (how.made or _heat_of(how))(classifier, images, targets)


def _comparisons(
    classifier: Classifier,
    images: np.ndarray,
    targets: np.ndarray,
    own: list[np.ndarray],
    how: How,
    done: Callable[[], None],
    deadline: Deadline,
    heat_s: float,
    open_s: float,
) -> list[Finding]:
    """What the first images' heat is like under noise, with other weights, and for another class."""
    slow = how.method == SLOW
    n = ALIKE_SLOW if slow else ALIKE
    how = dataclasses.replace(how, coarse=slow)
    heat = how.made or _heat_of(how)
    few, some = images[:n], targets[:n]
    step_s = heat_s * len(few)
    first = heat(classifier, few, some) if slow else own[:n]
    if deadline.fits(step_s):
        found = [verdict.judge_noise(measures.likeness(first, heat(classifier, measures.noisy(few, how.seed), some)))]
    else:
        found = [verdict.not_made("noise")]
    done()
    if deadline.fits(DRAWN_ANEW_TIMES * step_s + 2 * open_s):
        drawn = {
            words: measures.likeness(first, heat(other, few, some))
            for words, other in randomised(classifier, how.cache, how.seed)
        }
        found += [verdict.judge_weights(drawn)] if drawn else []
    else:
        found.append(verdict.not_made("weights"))
    done()
    two = len(classifier.classes) == 2 or how.contrast is not None
    if two and how.made is None and how.method == "auto":  # all methods that `auto` chooses have a sign
        found.append(verdict.class_not_applicable())
    elif not deadline.fits(2 * step_s):
        found.append(verdict.not_made("class"))
    elif len(classifier.classes) > 1:
        near, far = (measures.likeness(first, other) for other in _of_others(classifier, few, some, how))
        found.append(verdict.judge_class(near, far, either=_for_either(classifier, how), two=two))
    done()
    return found


def of_run(stored: Mapping[str, Any] | None, how: How, skill: Skill) -> Evidence | None:
    """What a run keeps of the checks of its own sample; None where they are of another method, layer or contrast, or of none.

    Random orders are kept with it: an image has the same verdict in the run's report and where it is explained by itself.
    """
    if not stored or "chance" not in stored or how.contrast is not None or how.layer is not None:
        return None
    if how.method not in ("auto", stored.get("method")):
        return None
    return Evidence(stored, skill, np.array(stored["chance"], dtype=np.float64), {})


def with_pictures(
    evidence: Evidence,
    classifier: Classifier,
    found: Sequence[Explanation],
    files: Mapping[str, Path],
    how: How,
    progress: Progress = silent,
) -> Evidence:
    """Return the evidence with the checks of the pictures' own orders, spread evenly over them where there are too many.

    Args:
        evidence: Of a sample, or of a run.
        classifier: What answers.
        found: The pictures' heats.
        files: Name → file.
        how: The method and its means.
        progress: Told after each picture.
    """
    left = [item for item in found if item.path not in evidence.own]
    chosen = {left[i].path for i in spread(len(left), most_pictures(classifier))}
    asked = [item for item in found if item.path in evidence.own or item.path in chosen]
    answer = answer_of(classifier, how)
    for number, item in enumerate(asked, 1):
        evidence = with_picture(evidence, classifier, answer, item, files[item.path], how)
        progress("checking heatmaps", number, len(asked))
    return evidence


def with_picture(
    evidence: Evidence,
    classifier: Classifier,
    answer: measures.Answer,
    item: Explanation,
    file: Path,
    how: How,
    deadline: Deadline = UNLIMITED,
) -> Evidence:
    """Return the evidence with the check of one picture's own order of cells.

    Its gain is held against the random orders of the sample. Unless it is clearly above those, random orders of the picture's
    own cells are drawn, so that no picture is called weak because of the scatter of others, or of too few orders.

    Args:
        evidence: Of a sample, or of a run.
        classifier: What answers.
        answer: Its probabilities, as `answer_of` gives them.
        item: The picture's heat.
        file: The picture.
        how: The method and its means.
        deadline: Where there is one, random orders of the picture's own are drawn for a tenth of the time that is left.
    """
    own = evidence.own.get(item.path)
    if item.path in evidence.orders or (own is not None and measures.beats(evidence.chance, own["gain"])):
        return evidence
    images, _ = read_seen(classifier, [file])
    if not len(images):
        return evidence
    one = _one_look(classifier)
    aim = np.array([classifier.classes.index(item.target)])
    heat = _given(item) if one else _heat_of(how)(classifier, images, aim)[0]
    begun = deadline.clock()
    row = measures.own_orders(answer, images, aim, [heat]).row(0) if own is None or deadline.limited else own
    draws_s = measures.ORDERS_AT_ONCE * (deadline.clock() - begun)  # another order costs about as much as the picture's own
    orders, pace = dict(evidence.orders), deadline.part(OWN_ORDERS)
    if not measures.beats(evidence.chance, row["gain"]) and pace.fits(draws_s):
        most = measures.MOST_ORDERS if one else measures.ORDERS_AT_ONCE
        orders[item.path] = measures.random_gains(
            answer, images[0], int(aim[0]), heat, row["gain"], how.seed, most, lambda: pace.fits(draws_s)
        )
    return dataclasses.replace(evidence, own={**evidence.own, item.path: row}, orders=orders)


def spread(n: int, most: int) -> list[int]:
    """Rows of n, at most so many of them, the first and the last among them, at even distances.

    Example:
        >>> spread(5, 3)
        [0, 2, 4]
    """
    most = min(n, most)
    return sorted({round(i * (n - 1) / max(most - 1, 1)) for i in range(most)})


def skill_of(classifier: Classifier, test: Mapping[str, Any] | None = None, answers: Predictions | None = None) -> Skill:
    """How good a classifier is known to be: by its answers to held-out images, else by its scores or what its card says."""
    if answers is not None and answers.classes == classifier.classes:
        known = answers.select(answers.y_true >= 0)
        if len(known):
            return Skill(judge_classes(known), known)
    score = test or classifier.card.scores.get("val") or {}
    n, accuracy = int(score.get("n") or 0), score.get("accuracy")
    if not n or accuracy is None:
        return Skill(verdict.unknown_classifier())
    return Skill(verdict.judge_classifier(round(accuracy * n), n, _guessing(classifier, score)))


def _guessing(classifier: Classifier, score: Mapping[str, Any]) -> float:
    """The share of the commonest class: of the scored images, else of all that the card counts, else an even share."""
    counts = [int(row.get("n") or 0) for row in (score.get("per_class") or {}).values()]
    if not sum(counts):
        counts = [sum(splits.values()) for splits in (classifier.card.data.get("images") or {}).values()]
    return max(counts) / sum(counts) if sum(counts) else 1 / max(len(classifier.classes), 1)


def read_seen(classifier: Classifier, files: Sequence[Path]) -> tuple[np.ndarray, list[int]]:
    """What the network sees of each file, uint8 (m, h, w, 3), and which could be read.

    Of a classifier that looks at crops, the square that they are cut from; of an ensemble the central square.
    """
    found, kept = [], []
    for row, file in enumerate(files):
        try:
            found.append(_square(file) if classifier.members else pixels.decode(file, _seen(classifier)))
        except (ImageError, OSError):
            continue
        kept.append(row)
    return np.stack(found) if found else np.zeros((0, 1, 1, 3), np.uint8), kept


def _seen(classifier: Classifier) -> Preprocess:
    """What decodes all that it looks at."""
    preprocess = classifier.card.backbone.preprocess
    return pixels.uncut(preprocess) if classifier.card.crops > 1 else preprocess


def _square(file: Path) -> np.ndarray:
    """The central square of an upright image."""
    return pixels.decode(file, Preprocess(size=(ENSEMBLE_PX, ENSEMBLE_PX), crop_fraction=1.0))


def answer_of(classifier: Classifier, how: How) -> measures.Answer:
    """The classifier itself as arrays in, probability of the target out; against one class, the probability among the two."""

    def answer(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        probs = ask(images)
        own = probs[np.arange(len(probs)), targets]
        return np.asarray(own if how.contrast is None else own / np.maximum(own + probs[:, how.contrast], 1e-300))

    ask = probs_of(classifier, how)
    return answer


def probs_of(classifier: Classifier, how: How) -> Callable[[np.ndarray], np.ndarray]:
    """Arrays → probabilities float64 (n, k)."""
    if classifier.members or classifier.card.crops > 1:
        return lambda images: classifier.predict(list(images), cache=how.cache, device=how.device).probs
    session = classifier.session(how.cache, device=how.device)

    def ask(images: np.ndarray) -> np.ndarray:
        parts = [classifier.probs(session.run(images[i : i + _BATCH])[0]) for i in range(0, len(images), _BATCH)]
        return np.concatenate(parts)

    return ask


def _heat_of(how: How) -> Made:
    """Heat over the whole of each array, undecided where no network looked."""

    def heat(classifier: Classifier, images: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
        names = [str(i) for i in range(len(images))]
        found, _ = heatmaps_of(
            classifier,
            list(images),
            names,
            [int(t) for t in targets],
            cache=how.cache,
            device=how.device,
            seed=how.seed,
            seen=_one_look(classifier),
            method=how.method,
            layer=how.layer,
            contrast=how.contrast,
            coarse=how.coarse,
        )
        return [_over(item, images.shape[1:3]) for item in found]

    return heat


def _of_others(
    classifier: Classifier, images: np.ndarray, targets: np.ndarray, how: How
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Heat for the likeliest and the unlikeliest class beside each target; where it is set against a class, for that one."""
    heat = how.made or _heat_of(how)
    if how.contrast is None:
        order = np.argsort(-probs_of(classifier, how)(images), axis=1, kind="stable")
        others = np.array([[c for c in row if c != target] for row, target in zip(order, targets, strict=True)])
        near = heat(classifier, images, others[:, 0])
        return near, near if others.shape[1] == 1 else heat(classifier, images, others[:, -1])
    found: dict[int, np.ndarray] = {}
    for target in np.unique(targets).tolist():
        rows = np.flatnonzero(targets == target)
        turned = how.made or _heat_of(dataclasses.replace(how, contrast=target))
        found |= zip(rows.tolist(), turned(classifier, images[rows], np.full(len(rows), how.contrast)), strict=True)
    opposite = [found[i] for i in range(len(images))]
    return opposite, opposite


def _for_either(classifier: Classifier, how: How) -> bool:
    """Whether the heat is that of one difference of two scores, without its sign: then it is the same for either class."""
    if how.made is not None or how.method == "auto":
        return False
    method = METHODS[how.method]
    two = len(classifier.classes) == 2 or how.contrast is not None
    return two and not method.signed and method.heads == "gradient"


def _given(item: Explanation) -> np.ndarray:
    """Heat that is at hand, of what the network sees, undecided where no network looked."""
    return np.asarray(item.heat - np.float32(item.neutral), dtype=np.float32)


def _one_look(classifier: Classifier) -> bool:
    """Whether heat of a file lies over just what `read_seen` gives of it."""
    return not classifier.members and classifier.card.crops == 1


def _over(item: Explanation, size: tuple[int, int]) -> np.ndarray:
    """Heat as it lies over an array that it was made for; a coarse one where part of the array was not seen."""
    heat = _given(item)
    if tuple(item.box) == (0.0, 0.0, float(size[0]), float(size[1])):
        return heat
    return np.asarray(np.nan_to_num(overlay.place(heat, item.box, size, (_CELLS, _CELLS)), nan=0.0))
