"""The checks of a method's heat on a classifier: gathered on a sample of images, kept in the run, said on each picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError
from sightline.explanation import checks, draw, verdict
from sightline.explanation.checks import Faithfulness
from sightline.explanation.randomised import randomised
from sightline.explanation.verdict import Finding
from sightline.journey.heats import heats_of
from sightline.records import Explanation, Preprocess, Progress, silent
from sightline.store import Cache

SAMPLE, SAMPLE_OF_LARGE = 24, 12
"""Images that a run's checks are made on, for networks of up to `LARGE` parameters and for larger ones."""
LARGE = 10_000_000
ALIKE = 8
"""Images whose heat is made again under noise and other weights; its likeness varies far less than answers do."""
ENSEMBLE_PX = 288
"""The side of the square that an ensemble's checks cover parts of: its members see different sizes, and crops."""
Made = Callable[[Classifier, np.ndarray, np.ndarray], list[np.ndarray]]
_CELLS = checks.MOST_CELLS_A_SIDE
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the checks of some images gave.

    Args:
        shared: The method's verdict on this classifier, as `verdict.summary` gives it.
        found: Deletion and insertion of each image.
        names: The images, in the order of `found`.
    """

    shared: Mapping[str, Any]
    found: Faithfulness
    names: tuple[str, ...]

    def of(self, name: str) -> dict[str, Any] | None:
        """The verdict on one image's picture; None where it was not checked."""
        return verdict.of_image(self.shared, self.found, self.names.index(name)) if name in self.names else None

    def unasked(self) -> dict[str, Any]:
        """The verdict on a picture that was not in the sample: the method's on this classifier."""
        return {"verdict": self.shared["verdict"], "why": self.shared["why"], "p": None, "method": dict(self.shared)}


@dataclass(frozen=True, slots=True)
class How:
    """How heat is made: what `heats_of` is told besides the images.

    Args:
        cache, device, seed: Its means.
        method, layer, contrast: As in `heats_of`.
        made: A map of one's own in place of a method: classifier, images uint8 (n, h, w, 3), targets (n,) → n heats.
    """

    cache: Cache
    device: str = "auto"
    seed: int = 0
    method: str = "auto"
    layer: str | None = None
    contrast: int | None = None
    made: Made | None = None


def sample_size(classifier: Classifier) -> int:
    """How many images are checked by default, so that the checks stay a matter of seconds."""
    parts = classifier.members or (classifier,)
    return SAMPLE if sum(p.card.backbone.parameters * p.card.crops for p in parts) <= LARGE else SAMPLE_OF_LARGE


def gather(
    classifier: Classifier,
    files: Sequence[Path],
    names: Sequence[str],
    targets: Sequence[int],
    how: How,
    *,
    skill: Finding,
    more: Sequence[Finding] = (),
    stored: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Evidence | None:
    """Run all checks on images.

    Args:
        classifier: What answers; one without a network is checked without drawing its weights anew.
        files, names, targets: n images and the classes that are explained.
        how: The method and its means.
        skill: What is known of how good the classifier is.
        more: Findings of other kinds that count as well.
        stored: What a run keeps of the checks of its own sample; where they are of the same method and layer they stand for
            the shared verdict, and only each image's own deletion and insertion are measured.
        progress: Told after each check.

    Returns:
        None where no image could be read.
    """
    images, kept = read_seen(classifier, files)
    if not len(images):
        return None
    aims = np.array([targets[i] for i in kept], dtype=np.int64)
    heat = how.made or _heat_of(how)
    steps = 5
    progress("checks of the heat", 0, steps)
    own = heat(classifier, images, aims)
    found = checks.faithfulness(_answer_of(classifier, how), images, aims, own, how.seed)
    if stored is not None and how.contrast is None and how.layer is None and how.method in ("auto", stored.get("method")):
        return Evidence(stored, found, tuple(names[i] for i in kept))
    findings = [skill, *verdict.judge_faithfulness(found)]
    progress("checks of the heat", 2, steps)
    few, some = images[:ALIKE], aims[:ALIKE]
    findings.append(verdict.judge_noise(checks.likeness(own[:ALIKE], heat(classifier, checks.noisy(few, how.seed), some))))
    progress("checks of the heat", 3, steps)
    drawn = {
        words: checks.likeness(own[:ALIKE], heat(other, few, some))
        for words, other in randomised(classifier, how.cache, how.seed)
    }
    if drawn:
        findings.append(verdict.judge_weights(drawn))
    progress("checks of the heat", steps, steps)
    shared = {**verdict.summary([*findings, *more]), "images": len(images)}
    return Evidence(shared, found, tuple(names[i] for i in kept))


def skill_of(classifier: Classifier, test: Mapping[str, Any] | None = None) -> Finding:
    """How good a classifier is known to be: on a run's test split, else by what its card says of validation."""
    score = test or classifier.card.scores.get("val") or {}
    n, accuracy = int(score.get("n") or 0), score.get("accuracy")
    if not n or accuracy is None:
        return verdict.unknown_classifier()
    return verdict.judge_classifier(round(accuracy * n), n, _guessing(classifier, score))


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


def _answer_of(classifier: Classifier, how: How) -> checks.Answer:
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
        found, _ = heats_of(
            classifier,
            list(images),
            names,
            [int(t) for t in targets],
            cache=how.cache,
            device=how.device,
            seed=how.seed,
            seen=not classifier.members and classifier.card.crops == 1,
            method=how.method,
            layer=how.layer,
            contrast=how.contrast,
        )
        return [_over(item, images.shape[1:3]) for item in found]

    return heat


def _over(item: Explanation, size: tuple[int, int]) -> np.ndarray:
    """Heat as it lies over an array that it was made for; a coarse one where part of the array was not seen."""
    heat = np.asarray(item.heat - np.float32(item.neutral), dtype=np.float32)
    if tuple(item.box) == (0.0, 0.0, float(size[0]), float(size[1])):
        return heat
    return np.asarray(np.nan_to_num(draw.place(heat, item.box, size, (_CELLS, _CELLS)), nan=0.0))
