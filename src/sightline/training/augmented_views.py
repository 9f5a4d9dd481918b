"""Augmented views of images for heads on features: what an image becomes is a function of its content, view and seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import pixels
from sightline.errors import ImageError
from sightline.features import CropFeatures
from sightline.records import Preprocess
from sightline.store import stream
from sightline.training.context import Context

if TYPE_CHECKING:
    from sightline.training.augment import Draw

_SAMPLED = 64
"""Images by which `auto` decides whether a set is grey."""


def view_looks(context: Context, preprocess: Preprocess, views: int, asked: str | Mapping[str, Any], seed: int) -> CropFeatures:
    """The looks that are augmented views.

    Every image's change is a function of (seed, view, content), so that its features can be kept, and more views cost only the
    new ones. What a policy takes from the whole training set, the principal colours, is left out for that reason.

    Args:
        work: Whose training images `auto` looks at.
        preprocess: The network's.
        views: How many.
        asked: A policy as `sightline.training.augment.policy_for` takes it.
        seed: Of the draws.

    Raises:
        RequestError: The policy is not known, or a value lies outside its range.
    """
    from sightline.training import augment

    _, policy = augment.policy_for(asked, _sample(context, preprocess))
    policy = dataclasses.replace(policy, pca=0.0)

    def make(view: int, images: np.ndarray, contents: Sequence[str]) -> np.ndarray:
        drawn = [augment.draw(policy, 1, seed=_seed(seed, content), epoch=view + 1) for content in contents]
        return warped(images, _joined(drawn), policy.padding)

    return CropFeatures(preprocess, tuple(["view", i, dataclasses.asdict(policy), seed] for i in range(views)), make)


def warped(images: np.ndarray, drawn: Draw, padding: str) -> np.ndarray:
    """Images uint8 (n, h, w, 3) after the changes that were drawn for them, as uint8 again."""
    import torch

    from sightline.training import augment

    mean_rgb = images.mean(axis=(1, 2), dtype=np.float64)
    unscaled = (1 / 255,) * 3  # the network's own normalisation comes later: pixels stay 0 to 255
    changes = augment.prepare(drawn, images.shape[1:3], mean_rgb, (0.0,) * 3, unscaled, padding=padding)
    done = augment.apply(torch.from_numpy(np.ascontiguousarray(images)), changes)
    return np.ascontiguousarray(done.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _seed(seed: int, content: str) -> int:
    """A seed for one image."""
    return int(stream(seed, "views", content).integers(2**63))


def _joined(drawn: Sequence[Draw]) -> Draw:
    """Draws for one image each as one draw."""
    first = drawn[0]
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(first):
        parts = [getattr(d, spec.name) for d in drawn]
        values[spec.name] = None if parts[0] is None else np.concatenate(parts)
    return dataclasses.replace(first, **values)


def _sample(context: Context, preprocess: Preprocess) -> np.ndarray:
    """Some training images as the network sees them, uint8 (m, h, w, 3)."""
    files, found = context.catalog.files(), []
    rows = context.split("train")
    for row in rows[:: max(1, len(rows) // _SAMPLED)]:
        try:
            found.append(pixels.decode(files[row], preprocess))
        except (ImageError, OSError):
            continue
    return np.stack(found) if found else np.zeros((0, *preprocess.size, 3), dtype=np.uint8)
