"""Heatmaps of a classifier that averages over several crops of an image: each crop's heatmap at its position, averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sightline import pixels
from sightline.explanation.ensemble import combine
from sightline.explanation.feature_map import MapSession
from sightline.explanation.methods import explain
from sightline.explanation.options import ExplainOptions
from sightline.records import Explanation, Head, Progress, silent

Box = tuple[float, float, float, float]


def crop_box(box: Box, size: tuple[int, int], crop: tuple[int, int], number: int) -> Box:
    """Return the position of one of the ten crops in the upright original.

    Args:
        box: (top, left, height, width) of the image that crops are cut from, in pixels of the upright original.
        size: Its (height, width) as decoded.
        crop: (height, width) of a crop.
        number: As in `pixels.cut`; a mirrored crop has the position of its original.

    Example:
        >>> crop_box((0.0, 10.0, 512.0, 512.0), (256, 256), (224, 224), 9)
        (64.0, 74.0, 448.0, 448.0)
    """
    down, right = size[0] - crop[0], size[1] - crop[1]
    top, left = ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right))[number % 5]
    tall, wide = box[2] / size[0], box[3] / size[1]
    return box[0] + top * tall, box[1] + left * wide, crop[0] * tall, crop[1] * wide


def explain_crops(
    session: MapSession,
    head: Head,
    images: np.ndarray,
    *,
    paths: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    boxes: Sequence[Box],
    crops: int,
    options: ExplainOptions | None = None,
    progress: Progress = silent,
) -> list[Explanation]:
    """Explain a classifier that averages its prediction over `crops` crops of each image.

    Each crop is explained by itself, mirrored back where needed, and placed at its position; the heatmap is the mean over
    crops, on cells as fine as those of one crop. It is exact for the mean of the crops' scores; the prediction is the mean of
    their probabilities, which is close to it where crops agree. `missed` of integrated gradients is that of the worst crop.

    Args:
        session, head, paths, targets, classes, options: As in `explain`.
        images: uint8 (n, h, w, 3), decoded with `pixels.uncut(preprocess)`, not with the preprocess itself.
        boxes: n positions of these images in the upright originals: `pixels.seen_box` with that same preprocess.
        crops: 5 or 10.
        progress: Called after each crop of all images.

    Raises:
        RequestError: If `crops` is neither 5 nor 10; and as in `explain`.
    """
    pixels.check_crops(crops)
    size = session.backbone.preprocess.size
    by_crop: list[list[Explanation]] = []
    for number in range(crops):
        explanations = explain(
            session,
            head,
            pixels.cut(images, size, number),
            paths=paths,
            targets=targets,
            classes=classes,
            boxes=[crop_box(box, (images.shape[1], images.shape[2]), size, number) for box in boxes],
            options=options,
        )
        if number >= 5:  # mirrored
            explanations = [dataclasses.replace(e, heat=np.ascontiguousarray(e.heat[:, ::-1])) for e in explanations]
        by_crop.append(explanations)
        progress("explaining", (number + 1) * len(paths), crops * len(paths))
    return [_mean(each) for each in zip(*by_crop, strict=True)]


def _mean(explanations: Sequence[Explanation]) -> Explanation:
    """Return the mean over the crops of one image."""
    count = len(explanations)
    mean = combine(explanations, [1 / count] * count)
    missed = [e.missed for e in explanations if e.missed is not None]
    layer = f"mean over {count} crops: {explanations[0].layer}"
    return dataclasses.replace(mean, layer=layer, missed=max(missed) if missed else None)
