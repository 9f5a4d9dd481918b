"""`scratch` as a method: decode once, train a small network of ours on the pixels, hand it over as backbone and head."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from sightline import networks, pixels
from sightline.records import Backbone, Predictions, Preprocess, Recipe, from_plain
from sightline.training.settings import ScratchSettings
from sightline.training.work import Candidate, Work, make_classifier, value_range

SMALL_PX, LARGE_PX = 32, 64
"""The image size that is taken where the recipe names none: the smaller one where half the images are not larger."""


def fit(work: Work, recipe: Recipe) -> list[Candidate]:
    """Train on the training split with early stopping on validation; the last linear layer becomes the head."""
    from sightline.training import scratch
    from sightline.training.loop import Data

    started = time.perf_counter()
    settings = from_plain(ScratchSettings, recipe.settings, "settings of scratch")
    side = recipe.image_size or _image_size(work)
    preprocess = Preprocess(
        size=(side, side),
        fit=recipe.fit or "squash",
        crop_fraction=1.0,
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        value_range=value_range(work),
    )
    train, val = work.split("train"), work.split("val")
    lost: dict[str, list[dict[str, str]]] = {}
    train, images = _decode(work, train, preprocess, lost)
    val, val_images = _decode(work, val, preprocess, lost)
    data = Data(images, work.labels[train], val_images, work.labels[val], preprocess.mean, preprocess.std)
    fitted = scratch.fit(
        recipe.backbone,
        data,
        len(work.classes),
        settings,
        seed=recipe.seed,
        device=work.device,
        budget_s=work.budget_s,
        progress=work.progress,
    )
    tensors = networks.tensors(networks.Network(fitted.network, preprocess.size))
    backbone = Backbone(
        name=recipe.backbone,
        source="sightline",
        preprocess=preprocess,
        features=fitted.head.arrays["weights"].shape[1],
        weights="run",
        weights_hash=networks.weights_hash(tensors),
        map_shape=fitted.map_shape,
        arguments=fitted.arguments,
        parameters=int(sum(p.numel() for p in fitted.network.parameters())),
        licence="yours",
        origin="trained here",
    )
    classifier = make_classifier(work, recipe, backbone, fitted.head, temperature=fitted.temperature, tensors=tensors)
    paths = work.catalog.paths
    return [
        Candidate(
            classifier=classifier,
            label=f"{recipe.backbone} at {side} px from scratch",
            val=Predictions(tuple(paths[i] for i in val), work.classes, work.labels[val], fitted.val_probs),
            estimate="validation",
            seconds=time.perf_counter() - started,
            undecodable=lost,
            note="; ".join(fitted.notes) or None,
            history=[dataclasses.asdict(epoch) for epoch in fitted.history],
            overfitting=fitted.overfitting,
            steps=fitted.steps,
        )
    ]


def _image_size(work: Work) -> int:
    """32 px for small images such as digits, else 64."""
    sides = [min(w, h) for w, h in zip(work.catalog.column("width"), work.catalog.column("height"), strict=True) if w and h]
    return SMALL_PX if sides and float(np.median(sides)) <= SMALL_PX else LARGE_PX


def _decode(
    work: Work, rows: np.ndarray, preprocess: Preprocess, lost: dict[str, list[dict[str, str]]]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that give pixels, and their images uint8 (m, h, w, 3); the others go to `lost`."""
    files, contents = work.catalog.files(), work.catalog.column("content")
    images = np.empty((len(rows), *preprocess.size, 3), dtype=np.uint8)
    good = np.ones(len(rows), dtype=bool)
    batches: Any = pixels.batches(
        [files[i] for i in rows], preprocess, batch_size=64, contents=[contents[i] for i in rows]
    )
    for batch in batches:
        images[batch.index] = batch.images
        for index, error in batch.errors.items():
            good[index] = False
            split = work.catalog.column("split")[rows[index]]
            lost.setdefault(split, []).append({"path": work.catalog.paths[rows[index]], "problem": error.message})
        work.progress("decoding", int(batch.index[-1]) + 1 if len(batch.index) else 0, len(rows))
    return rows[good], images[good]
