"""Heat of files or arrays for any classifier, an ensemble included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import explanation, features, pixels
from sightline.classifier import Classifier
from sightline.errors import RequestError
from sightline.explanation.checks.randomised_weights import DRAWN_ANEW
from sightline.files import read_bytes
from sightline.records import Explanation, Preprocess, Progress, silent
from sightline.store import Cache


def heatmaps_of(
    classifier: Classifier,
    sources: Sequence[Path] | Sequence[np.ndarray],
    names: Sequence[str],
    targets: Sequence[int],
    *,
    cache: Cache,
    device: str = "auto",
    method: str = "auto",
    seed: int = 0,
    layer: str | None = None,
    contrast: int | None = None,
    seen: bool = False,
    coarse: bool = False,
    progress: Progress = silent,
) -> tuple[list[Explanation], dict[str, str]]:
    """Heatmaps of images.

    Those of an ensemble are the sum of its members', without those that do not look at images; those of a classifier that
    answers with the mean over crops the mean over the same crops, each laid where it was.

    Args:
        classifier: What is explained.
        sources: n files, or arrays uint8 (h, w, 3).
        names: n of them.
        targets: n class indices.
        cache, device: As in `Classifier.predict`.
        method, seed, layer: As in `explanation.explain`.
        contrast: The class index that all targets are set against; None for all other classes together.
        seen: The arrays are what the network sees, of its own size; they are not resized and cut again, and are one look.
        coarse: As in `explanation.explain`.
        progress: Told after each image.

    Returns:
        Explanations of the images that could be read, in order, and the reasons for the others by name.

    Raises:
        RequestError: No member looks at images, or a method does not fit a member.
    """
    own: dict[str, Any] = {"method": method, "seed": seed, "layer": layer, "coarse": coarse, "progress": progress}
    if classifier.members:
        return _of_members(classifier, sources, names, targets, contrast, cache=cache, device=device, seen=seen, **own)
    drawn_anew = classifier.card.backbone.weights == DRAWN_ANEW  # asked once, so that converting it would be a waste
    run = classifier.session(cache, device=device, expected=0 if drawn_anew else len(sources))
    preprocess = classifier.card.backbone.preprocess
    if classifier.card.crops > 1 and not seen:
        return _of_crops(classifier, run, sources, names, targets, contrast, **own)
    errors: dict[int, Any] = {}
    maps: np.ndarray | None
    if seen:
        images, index = np.stack(sources), np.arange(len(sources))  # type: ignore[arg-type]
        maps = _maps(run, images)
    else:
        index, images, maps, errors = features.compute(sources, preprocess, run, maps=True, progress=progress)
    rows = index.tolist()
    whole = (0.0, 0.0, float(images.shape[1]), float(images.shape[2])) if seen else None
    boxes = [whole or box_of(sources[r], names[r], preprocess) for r in rows]
    kept, aims = [names[i] for i in rows], [targets[i] for i in rows]
    own["contrast"] = None if contrast is None else [contrast] * len(rows)
    found = explanation.explain(run, classifier.head, images, kept, aims, classifier.classes, boxes, maps=maps, **own)
    return found, {names[i]: e.message for i, e in errors.items()}


def box_of(source: Path | np.ndarray, name: str, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """(top, left, height, width) of what the network sees, in pixels of the upright original."""
    if isinstance(source, np.ndarray):
        return pixels.seen_box(source.shape[1], source.shape[0], preprocess)
    header = pixels.read_header(read_bytes(source), name)
    return pixels.seen_box(header.width, header.height, preprocess)


def _maps(run: Any, images: np.ndarray) -> np.ndarray:
    """Last maps of arrays of the network's own size, batch by batch."""
    size = run.batch_size
    return np.concatenate([run.run(images[i : i + size], maps=True)[1] for i in range(0, len(images), size)])


def _of_crops(
    classifier: Classifier,
    run: Any,
    sources: Sequence[Path] | Sequence[np.ndarray],
    names: Sequence[str],
    targets: Sequence[int],
    contrast: int | None,
    *,
    progress: Progress,
    **own: Any,
) -> tuple[list[Explanation], dict[str, str]]:
    """Heatmaps of a classifier that looks at several crops of each image, batch by batch."""
    whole = pixels.uncut(classifier.card.backbone.preprocess)
    found: list[Explanation] = []
    errors: dict[str, str] = {}
    for batch in pixels.batches(sources, whole, batch_size=run.batch_size):
        rows = batch.index.tolist()
        errors |= {names[i]: error.message for i, error in batch.errors.items()}
        if rows:
            against = None if contrast is None else [contrast] * len(rows)
            kept, aims = [names[i] for i in rows], [targets[i] for i in rows]
            boxes = [box_of(sources[i], names[i], whole) for i in rows]
            found += explanation.explain_crops(
                run, classifier.head, batch.images, kept, aims, classifier.classes, boxes,
                crops=classifier.card.crops, contrast=against, **own,
            )  # fmt: skip
        progress("explaining", len(found) + len(errors), len(sources))
    place = {name: i for i, name in enumerate(names)}
    return sorted(found, key=lambda item: place[item.path]), errors


def _of_members(
    classifier: Classifier,
    sources: Sequence[Path] | Sequence[np.ndarray],
    names: Sequence[str],
    targets: Sequence[int],
    contrast: int | None,
    **own: Any,
) -> tuple[list[Explanation], dict[str, str]]:
    """Heatmaps of an ensemble: what `explanation.combine` makes of its members'."""
    parts: list[dict[str, Explanation]] = []
    shares: list[float] = []
    errors: dict[str, str] = {}
    for member, weight in zip(classifier.members, classifier.card.weights, strict=True):
        if not member.looks_at_images or not weight:
            continue
        theirs = [member.classes.index(classifier.classes[t]) for t in targets]
        against = None if contrast is None else member.classes.index(classifier.classes[contrast])
        found, failed = heatmaps_of(member, sources, names, theirs, contrast=against, **own)
        parts.append({item.path: item for item in found})
        shares.append(weight / member.card.temperature)
        errors |= failed
    if not parts:
        raise RequestError("no member of this ensemble looks at the photograph: there is nothing to explain")
    kept = [name for name in names if name not in errors]
    return [explanation.combine([part[name] for part in parts], shares) for name in kept], errors
