"""The heat of a classifier that looks at several crops of an image: each look's heat laid where the crop was, and averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sightline import pixels
from sightline.explanation.ensemble import combine
from sightline.explanation.feature_map import MapSession
from sightline.explanation.methods import explain
from sightline.records import Explanation, Head, Progress, silent

Box = tuple[float, float, float, float]


def crop_box(box: Box, size: tuple[int, int], crop: tuple[int, int], number: int) -> Box:
    """Where one of the ten crops lies in the upright original.

    Args:
        box: (top, left, height, width) of the image that crops are cut from, in pixels of the upright original.
        size: Its (height, width) as decoded.
        crop: (height, width) of a crop.
        number: As in `pixels.cut`; a mirrored crop lies where its model does.

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
    paths: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    boxes: Sequence[Box],
    *,
    crops: int,
    progress: Progress = silent,
    **own: Any,
) -> list[Explanation]:
    """Where a classifier looked that answers with the mean over `crops` looks at each image.

    Each look is explained by itself, turned back if it was mirrored, and laid where it was; the heat is the mean over looks, on
    cells as fine as one look's. It is exact for the mean of the looks' scores; the classifier's answer is the mean of their
    probabilities, which follows it where looks agree. Integrated gradients' `missed` is that of the worst look.

    Args:
        session, head, paths, targets, classes: As in `explain`.
        images: uint8 (n, h, w, 3), decoded with `pixels.uncut(preprocess)`, not with the preprocess itself.
        boxes: n times what these images show of the upright originals: `pixels.seen_box` with that same preprocess.
        crops: 5 or 10.
        progress: Told after each look at all images.
        own: `method`, `seed`, `layer` and `contrast` of `explain`.

    Raises:
        RequestError: There are no such crops; and as in `explain`.
    """
    pixels.check_crops(crops)
    size = session.backbone.preprocess.size
    looks: list[list[Explanation]] = []
    for number in range(crops):
        seen = pixels.cut(images, size, number)
        where = [crop_box(box, (images.shape[1], images.shape[2]), size, number) for box in boxes]
        found = explain(session, head, seen, paths, targets, classes, where, **own)
        looks.append([dataclasses.replace(e, heat=np.ascontiguousarray(e.heat[:, ::-1])) if number >= 5 else e for e in found])
        progress("explaining", (number + 1) * len(paths), crops * len(paths))
    return [_mean(each) for each in zip(*looks, strict=True)]


def _mean(looks: Sequence[Explanation]) -> Explanation:
    """The mean over the looks at one image."""
    count = len(looks)
    whole = combine(looks, [1 / count] * count)
    missed = [e.missed for e in looks if e.missed is not None]
    where = f"mean over {count} looks: {looks[0].layer}"
    return dataclasses.replace(whole, layer=where, missed=max(missed) if missed else None)
