"""Stress test: accuracy on blurred, dark, noisy, recompressed, turned and low-resolution versions of images.

The augmentation engine alters the inputs of the network, so that a strength means the same for photographs of every size.

Source: Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and perturbations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline import evaluation, features, pixels
from sightline.classifier import Classifier, Decoded, Resident
from sightline.errors import DataError, RequestError
from sightline.records import Predictions, Preprocess, Progress, silent
from sightline.records.stress import StressScore, StressTest
from sightline.store import Cache, stream
from sightline.training import augment
from sightline.training.augment import Draw, Policy

DEFAULT_BOUND = 0.9
"""Default bound, as a share of the accuracy on the unaltered images."""
MOST_IMAGES = 2_000
"""Images of a stress test; of more, a random sample is used."""
_REFERENCE_PX = 224
"""Side for which blurs are stated; they are scaled with the side of the input."""
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Stress:
    """A kind of alteration at three strengths.

    Args:
        title: What it does to an image, as an adjective.
        settings: Parameter of each strength, for people.
        policies: Augmentation policy of each strength, with ranges of one value.
    """

    title: str
    settings: tuple[str, str, str]
    policies: tuple[Policy, Policy, Policy]


STRESSES: dict[str, Stress] = {
    "blur": Stress(
        "blurred",
        ("σ 1 px at 224 px", "σ 2 px at 224 px", "σ 4 px at 224 px"),
        (Policy(blur=(1, 1)), Policy(blur=(2, 2)), Policy(blur=(4, 4))),
    ),
    "dark": Stress(
        "dark",
        ("brightness ×0.5", "brightness ×0.25", "brightness ×0.12"),
        (Policy(brightness=(-0.5, -0.5)), Policy(brightness=(-0.75, -0.75)), Policy(brightness=(-0.88, -0.88))),
    ),
    "noise": Stress(
        "noisy",
        ("σ 10 grey levels", "σ 25 grey levels", "σ 50 grey levels"),
        (Policy(noise=(10, 10)), Policy(noise=(25, 25)), Policy(noise=(50, 50))),
    ),
    "jpeg": Stress(
        "recompressed",
        ("JPEG quality 40", "JPEG quality 20", "JPEG quality 8"),
        (Policy(jpeg=(40, 40)), Policy(jpeg=(20, 20)), Policy(jpeg=(8, 8))),
    ),
    "turned": Stress(
        "turned",
        ("by 10° to either side", "by 25° to either side", "by 45° to either side"),
        (Policy(rotation=(10, 10)), Policy(rotation=(25, 25)), Policy(rotation=(45, 45))),
    ),
    "low_resolution": Stress(
        "low-resolution",
        ("half of each side", "a quarter of each side", "an eighth of each side"),
        (Policy(resolution=(0.5, 0.5)), Policy(resolution=(0.25, 0.25)), Policy(resolution=(0.125, 0.125))),
    ),
}
"""Kind → alteration."""


@dataclass(frozen=True, slots=True)
class Stressed:
    """Images of a stress test.

    Args:
        files: n files.
        answers: Predictions of the unaltered images, with labels, in the same order.
        groups: int64 (n,), clusters of images that belong together, for the intervals.
    """

    files: Sequence[Path]
    answers: Predictions
    groups: np.ndarray


def check_model(model: Classifier) -> None:
    """Check that a classifier can be stressed.

    Raises:
        RequestError: If it does not use pixels.
    """
    if not any(part.looks_at_images for part in model.members or (model,)):
        raise RequestError(
            f"a stress test needs a classifier that uses pixels, not the method {model.card.method}", "leave out --stress"
        )


def check_bound(bound: float | None) -> None:
    """Check the bound of a stress test.

    Raises:
        RequestError: If it is not above 0 and at most 1.
    """
    if bound is not None and not 0 < bound <= 1:
        raise RequestError(f"--stress-bound is an accuracy above 0 and at most 1, not {bound:g}", "write --stress-bound 0.9")


def stress_test(
    model: Classifier,
    images: Stressed,
    *,
    bound: float | None = None,
    positive: str | None = None,
    crops: int | None = None,
    cache: Cache,
    device: str = "auto",
    progress: Progress = silent,
    seed: int = 0,
) -> tuple[StressTest, dict[tuple[str, int], np.ndarray]]:
    """Return the accuracy of a classifier on altered versions of images.

    Args:
        model: A classifier that uses pixels.
        images: The images, at least one.
        bound: Accuracy below which an alteration is named; None for `DEFAULT_BOUND` times that of the unaltered images.
        positive: Positive class of two, as in `evaluation.score`.
        crops, cache, device, progress: As in `Classifier.predict`.
        seed: Random seed of sample, noise and directions.

    Returns:
        The result without thumbnails, and by kind and strength the first image as altered, uint8 (h, w, 3).

    Raises:
        RequestError: If the classifier does not use pixels, or the bound is not an accuracy.
        DataError: If no image can be decoded any more.
    """
    check_model(model)
    check_bound(bound)
    rows = np.sort(stream(seed, "stress test").permutation(len(images.files))[:MOST_IMAGES])
    draws = {(kind, s): _draw(kind, s, len(rows), seed) for kind in STRESSES for s in (1, 2, 3)}
    resident = Resident(model, cache, device)
    probs: dict[tuple[str, int], list[np.ndarray]] = {key: [] for key in draws}
    used: list[np.ndarray] = []
    examples: dict[tuple[str, int], np.ndarray] = {}
    for start in range(0, len(rows), _BATCH):
        progress("stress test", start, len(rows))
        part = np.arange(start, min(start + _BATCH, len(rows)))
        inputs, properties, ok = _inputs(model, [images.files[i] for i in rows[part]], crops)
        part = part[ok]
        if not len(part):
            continue
        used.append(rows[part])
        for key, drawn in draws.items():
            altered = {how: _altered(array, drawn.rows(part)) for how, array in inputs.items()}
            examples.setdefault(key, next(iter(altered.values()))[0])
            decoded = [_decoded(altered, properties, i) for i in range(len(part))]
            probs[key].append(resident.predict(decoded, [str(i) for i in part], crops=crops).probs)
    if not used:
        raise DataError("no image of the stress test can be decoded any more", "check that the photographs are still there")
    progress("stress test", len(rows), len(rows))
    kept = np.concatenate(used)
    plain, groups = images.answers.select(kept), images.groups[kept]
    accuracy, low, high = _accuracy(plain, groups, positive)
    limit = DEFAULT_BOUND * accuracy if bound is None else bound
    scores = []
    for (kind, strength), parts in probs.items():
        value, least, most = _accuracy(dataclasses.replace(plain, probs=np.concatenate(parts)), groups, positive)
        stress = STRESSES[kind]
        setting = stress.settings[strength - 1]
        score = StressScore(
            kind,
            stress.title,
            strength,
            setting,
            accuracy=value,
            accuracy_low=least,
            accuracy_high=most,
            below=value < limit,
        )
        scores.append(score)
    found = StressTest(
        limit,
        bound_given=bound is not None,
        n=len(kept),
        total=len(images.files),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        scores=scores,
    )
    return dataclasses.replace(found, sentence=in_words(found), example=plain.paths[0]), examples


def in_words(found: StressTest) -> str:
    """Return the result as a sentence: the weakest strength of each kind at which the accuracy is below the bound."""
    first: dict[str, StressScore] = {}
    for score in found.scores:
        if score.below:
            first.setdefault(score.kind, score)
    if not first:
        return f"Accuracy stays at {100 * found.bound:.1f} % or above for all {len(found.scores)} alterations."
    named = "; ".join(f"{s.title} images ({s.setting}: {100 * s.accuracy:.1f} %)" for s in first.values())
    return f"Accuracy falls below {100 * found.bound:.1f} % on {named}."


def _accuracy(answers: Predictions, groups: np.ndarray, positive: str | None) -> tuple[float, float, float]:
    """Return the accuracy and the ends of its 95 % interval."""
    low, high = evaluation.accuracy_interval(answers, groups, positive=positive)
    return float((answers.y_pred == answers.y_true).mean()), low, high


def _draw(kind: str, strength: int, n: int, seed: int) -> Draw:
    """Return the alterations of n images; images are turned to the left or to the right at random."""
    drawn = augment.draw(STRESSES[kind].policies[strength - 1], n, seed=seed, epoch=0)
    sides = stream(seed, "stress test, sides").choice([-1.0, 1.0], n)
    return dataclasses.replace(drawn, angle=drawn.angle * sides)


def _altered(images: np.ndarray, drawn: Draw) -> np.ndarray:
    """Return altered network inputs, uint8 (n, h, w, 3)."""
    scale = min(images.shape[1:3]) / _REFERENCE_PX
    return augment.altered(images, dataclasses.replace(drawn, blur=drawn.blur * scale))


def _inputs(
    model: Classifier, files: Sequence[Path], crops: int | None
) -> tuple[dict[Preprocess, np.ndarray], list[np.ndarray], np.ndarray]:
    """Decode images for all networks of a classifier.

    Returns:
        Preprocessing → uint8 (m, h, w, 3); file properties of the m images, empty if no member uses them; and int64 (m,), the
        images that could be decoded.
    """
    arrays: dict[Preprocess, np.ndarray] = {}
    ok = np.arange(len(files))
    parts = model.members or (model,)
    for part in parts:
        backbone = part.card.backbone
        how = pixels.uncut(backbone.preprocess) if (crops or part.card.crops) > 1 else backbone.preprocess
        if part.looks_at_images and how not in arrays:
            batch = next(pixels.batches(files, how, batch_size=len(files)))
            arrays[how], ok = batch.images, batch.index
    properties = []
    if any(part.card.backbone.source == "file" for part in parts):
        properties = [features.of_file_bytes(*pixels.read(files[i])) for i in ok.tolist()]
    return arrays, properties, ok


def _decoded(altered: Mapping[Preprocess, np.ndarray], properties: Sequence[np.ndarray], index: int) -> Decoded:
    """Return one image as `Resident.predict` takes it."""
    decoded: Decoded = {how: array[index] for how, array in altered.items()}
    return {**decoded, "file": properties[index]} if properties else decoded
