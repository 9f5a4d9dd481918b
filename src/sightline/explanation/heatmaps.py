"""Heatmaps of files or arrays for any classifier, ensembles included."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import explanation, features, pixels
from sightline.classifier import Classifier
from sightline.containers import read_bytes
from sightline.errors import RequestError
from sightline.explanation.checks.randomised_weights import RANDOMISED
from sightline.explanation.options import ExplainOptions
from sightline.records import Explanation, Preprocess, Progress, silent


def heatmaps_of(
    classifier: Classifier,
    sources: Sequence[Path] | Sequence[np.ndarray],
    names: Sequence[str],
    targets: Sequence[int],
    options: ExplainOptions | None = None,
    *,
    cropped: bool = False,
    progress: Progress = silent,
) -> tuple[list[Explanation], dict[str, str]]:
    """Return heatmaps of images: the one function that `run`, the command line and Python use.

    The heatmap of an ensemble is the weighted sum over its members, without those that use no pixels; that of a classifier that
    averages over crops is the mean over the same crops, each at its position.

    Args:
        classifier: The classifier to explain.
        sources: n files, or arrays uint8 (h, w, 3).
        names: n names.
        targets: n class indices.
        options: The method and its settings; the defaults if None.
        cropped: Whether the arrays are network inputs already: they are neither resized nor cropped.
        progress: Called after each image.

    Returns:
        Explanations of the readable images, in order, and the reason for each other image by its name.

    Raises:
        RequestError: If no member uses pixels, or the method does not fit a member.
    """
    options = ExplainOptions() if options is None else options
    if classifier.members:
        return _of_members(classifier, sources, names, targets, options, cropped=cropped, progress=progress)
    randomised = classifier.card.backbone.weights == RANDOMISED  # used once: converting the network would take longer
    session = classifier.session(
        options.cache,
        device=options.device,
        expected=0 if randomised else len(sources),
        maps=True,
        opened=None if randomised else options.sessions,
    )
    preprocess = classifier.card.backbone.preprocess
    if classifier.card.crops > 1 and not cropped:
        return _of_crops(classifier, session, sources, names, targets, options=options, progress=progress)
    errors: dict[int, Any] = {}
    maps: np.ndarray | None
    if cropped:
        images, index = np.stack(sources), np.arange(len(sources))  # type: ignore[arg-type]
        maps = _maps(session, images)
    else:
        index, images, maps, errors = features.compute(sources, preprocess, session, maps=True, progress=progress)
    rows = index.tolist()
    whole = (0.0, 0.0, float(images.shape[1]), float(images.shape[2])) if cropped else None
    explanations = explanation.explain(
        session,
        classifier.head,
        images,
        paths=[names[i] for i in rows],
        targets=[targets[i] for i in rows],
        classes=classifier.classes,
        boxes=[whole or box_of(sources[i], names[i], preprocess) for i in rows],
        options=options,
        maps=maps,
        progress=progress,
    )
    return explanations, {names[i]: e.message for i, e in errors.items()}


def box_of(source: Path | np.ndarray, name: str, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Return the (top, left, height, width) of the network's input, in pixels of the upright original."""
    if isinstance(source, np.ndarray):
        return pixels.seen_box(source.shape[1], source.shape[0], preprocess)
    header = pixels.read_header(read_bytes(source), name)
    return pixels.seen_box(header.width, header.height, preprocess)


def _maps(session: Any, images: np.ndarray) -> np.ndarray:
    """Return last maps of arrays of the network's input size, batch by batch."""
    size = session.batch_size
    return np.concatenate([session.run(images[i : i + size], maps=True)[1] for i in range(0, len(images), size)])


def _of_crops(
    classifier: Classifier,
    session: Any,
    sources: Sequence[Path] | Sequence[np.ndarray],
    names: Sequence[str],
    targets: Sequence[int],
    options: ExplainOptions,
    progress: Progress,
) -> tuple[list[Explanation], dict[str, str]]:
    """Return heatmaps of a classifier that averages over several crops of each image, batch by batch."""
    uncut = pixels.uncut(classifier.card.backbone.preprocess)
    explanations: list[Explanation] = []
    errors: dict[str, str] = {}
    for batch in pixels.batches(sources, uncut, batch_size=session.batch_size):
        rows = batch.index.tolist()
        errors |= {names[i]: error.message for i, error in batch.errors.items()}
        if rows:
            explanations += explanation.explain_crops(
                session,
                classifier.head,
                batch.images,
                paths=[names[i] for i in rows],
                targets=[targets[i] for i in rows],
                classes=classifier.classes,
                boxes=[box_of(sources[i], names[i], uncut) for i in rows],
                crops=classifier.card.crops,
                options=options,
            )
        progress("explaining", len(explanations) + len(errors), len(sources))
    position = {name: i for i, name in enumerate(names)}
    return sorted(explanations, key=lambda item: position[item.path]), errors


def _of_members(
    classifier: Classifier,
    sources: Sequence[Path] | Sequence[np.ndarray],
    names: Sequence[str],
    targets: Sequence[int],
    options: ExplainOptions,
    cropped: bool,
    progress: Progress,
) -> tuple[list[Explanation], dict[str, str]]:
    """Return heatmaps of an ensemble: those of its members, combined by `explanation.combine`."""
    parts: list[dict[str, Explanation]] = []
    shares: list[float] = []
    errors: dict[str, str] = {}
    for member, weight in zip(classifier.members, classifier.card.weights, strict=True):
        if not member.looks_at_images or not weight:
            continue
        member_targets = [member.classes.index(classifier.classes[t]) for t in targets]
        contrast = None if options.contrast is None else member.classes.index(classifier.classes[options.contrast])
        explanations, unread = heatmaps_of(
            member,
            sources,
            names,
            member_targets,
            dataclasses.replace(options, contrast=contrast),
            cropped=cropped,
            progress=progress,
        )
        parts.append({item.path: item for item in explanations})
        shares.append(weight / member.card.temperature)
        errors |= unread
    if not parts:
        raise RequestError("no member of this ensemble uses the pixels of an image, so there is nothing to explain")
    readable = [name for name in names if name not in errors]
    return [explanation.combine([part[name] for part in parts], shares) for name in readable], errors
