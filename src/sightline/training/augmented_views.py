"""Augmented views of images for heads on features: the augmentation is a function of image content, view number and seed."""

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
"""Number of images by which `auto` decides whether a data set is grey."""


def view_looks(
    context: Context, preprocess: Preprocess, views: int, policy: str | Mapping[str, Any], seed: int
) -> CropFeatures:
    """Return the specification of augmented views for feature extraction.

    The augmentation of an image is a function of (seed, view, content), so that its features can be cached and more views cost
    only the new ones. For that reason a policy's shifts along the principal colours of the whole training set are left out.

    Args:
        context: Holds the training images by which `auto` decides.
        preprocess: Preprocessing of the network.
        views: Number of views.
        policy: Policy as in `sightline.training.augment.policy_for`.
        seed: Random seed.

    Raises:
        RequestError: If the policy is not known or a value is outside its range.
    """
    from sightline.training import augment

    _, chosen = augment.policy_for(policy, _sample(context, preprocess))
    fixed = dataclasses.replace(chosen, pca=0.0)

    def make(view: int, images: np.ndarray, contents: Sequence[str]) -> np.ndarray:
        drawn = [augment.draw(fixed, 1, seed=_seed(seed, content), epoch=view + 1) for content in contents]
        return warped(images, _joined(drawn), fixed.padding)

    return CropFeatures(preprocess, tuple(["view", i, dataclasses.asdict(fixed), seed] for i in range(views)), make)


def warped(images: np.ndarray, drawn: Draw, padding: str) -> np.ndarray:
    """Return images, uint8 (n, h, w, 3), after the drawn augmentation."""
    import torch

    from sightline.training import augment

    mean_rgb = images.mean(axis=(1, 2), dtype=np.float64)
    unscaled = (1 / 255,) * 3  # the network normalises later: pixels stay 0 to 255
    changes = augment.prepare(drawn, images.shape[1:3], mean_rgb, (0.0,) * 3, unscaled, padding=padding)
    done = augment.apply(torch.from_numpy(np.ascontiguousarray(images)), changes)
    return np.ascontiguousarray(done.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _seed(seed: int, content: str) -> int:
    """Return the seed of one image."""
    return int(stream(seed, "views", content).integers(2**63))


def _joined(drawn: Sequence[Draw]) -> Draw:
    """Join draws for one image each into one draw."""
    first = drawn[0]
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(first):
        parts = [getattr(d, spec.name) for d in drawn]
        values[spec.name] = None if parts[0] is None else np.concatenate(parts)
    return dataclasses.replace(first, **values)


def _sample(context: Context, preprocess: Preprocess) -> np.ndarray:
    """Decode a sample of the training images for the network, uint8 (m, h, w, 3)."""
    files, images = context.catalog.files(), []
    rows = context.split("train")
    for row in rows[:: max(1, len(rows) // _SAMPLED)]:
        try:
            images.append(pixels.decode(files[row], preprocess))
        except (ImageError, OSError):
            continue
    return np.stack(images) if images else np.zeros((0, *preprocess.size, 3), dtype=np.uint8)
