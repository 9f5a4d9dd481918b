"""`scratch` as a method: decode once, train a small network of ours on the pixels, hand it over as backbone and head."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import heads, networks, pixels
from sightline.classifier import Classifier
from sightline.deadline import Deadline
from sightline.errors import DataError, FailedWorkError
from sightline.networks import names
from sightline.records import Backbone, Predictions, Preprocess, Recipe
from sightline.schema import from_json
from sightline.store import log, plain
from sightline.training import refit
from sightline.training.context import (
    VAL,
    Candidate,
    Context,
    adapted,
    calibrated,
    check_validation,
    make_classifier,
    with_card,
)

if TYPE_CHECKING:
    from sightline.training.fit_network import ScratchFit, ScratchSettings
    from sightline.training.lr_finder import LrCurve


LARGE_BYTES = 1_000_000_000
"""From this size on decoded images lie in a memory-mapped file and not in memory."""
BEHIND_SHARE = 0.1
"""Of the time: what is left for converting the network and running it on the validation images."""
SMALL_PX, LARGE_PX = 32, 64
"""The image size that is taken where the recipe names none: the smaller one where half the images are not larger."""


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Train on the training split, keep the best epoch on validation; the last linear layer becomes the head."""
    from sightline.training import fit_network, loop

    started = time.perf_counter()
    check_validation(context, "training from scratch")
    settings, preprocess = _settled(context, recipe)
    lost: dict[str, list[dict[str, str]]] = {}
    train, images = decode(context, context.split("train"), preprocess, lost)
    val, val_images = decode(context, context.split("val"), preprocess, lost)
    if not len(val):
        raise DataError("no image of the validation split can be decoded", "see `sightline scan`")
    fitted = fit_network.fit(
        images,
        context.labels[train],
        val_images,
        context.labels[val],
        len(context.classes),
        settings=settings,
        seed=recipe.seed,
        device=context.device,
        deadline=_ends(refit.first_work(context, settings.plan)),
        progress=context.progress,
        watch=context.watch,
        checkpoint=context.checkpoint,
    )
    classifier, val_probs = _classifier(context, recipe, fitted, preprocess, val_images, context.labels[val])
    paths = context.catalog.paths
    answers = Predictions(tuple(paths[i] for i in val), context.classes, context.labels[val], val_probs)
    if settings.crops > 1:
        classifier, answers = calibrated(context, with_card(classifier, crops=settings.crops))
    candidate = Candidate(
        classifier=classifier,
        label=f"{recipe.backbone} at {preprocess.size[0]} px from scratch",
        val=answers,
        estimate=VAL,
        seconds=time.perf_counter() - started,
        undecodable=lost,
        note="; ".join(fitted.notes) or None,
        history=loop.as_rows(fitted.history, settings.plan.keep),
        gradients=[dataclasses.asdict(row) for row in fitted.gradients],
        overfitting=loop.overfitting(fitted.history, len(val)),
        steps=fitted.steps,
        detail={"best_epoch": fitted.best_epoch, "stopped": fitted.stopped},
    )
    if not settings.plan.refit:
        return [candidate]
    both = joined(context, images, val_images), context.labels[np.concatenate([train, val])]
    return [_refitted(context, recipe, candidate, settings, preprocess, both, started)]


def _refitted(
    context: Context,
    recipe: Recipe,
    candidate: Candidate,
    settings: ScratchSettings,
    preprocess: Preprocess,
    both: tuple[np.ndarray, np.ndarray],
    started: float,
) -> Candidate:
    """Return the candidate with a network that is trained anew on train and val together.

    Args:
        work, recipe, settings, preprocess: Of the validated training.
        candidate: What came of that.
        both: Images uint8 (n, h, w, 3) and labels int64 (n,) of both splits.
        started: When the first training began, by `time.perf_counter`.
    """
    from sightline.training import fit_network

    images, y = both
    again = refit.work_for(context)
    fitted = fit_network.fit(
        images,
        y,
        images[:0],
        y[:0],
        len(context.classes),
        settings=dataclasses.replace(settings, plan=refit.plan_for(settings.plan, candidate.detail["best_epoch"])),
        seed=recipe.seed,
        device=context.device,
        deadline=_ends(again),
        progress=context.progress,
        checkpoint=again.checkpoint,
    )
    tensors = networks.tensors(fitted.network)
    return refit.replaced(
        candidate,
        make_classifier(context, recipe, record(recipe, fitted, preprocess), fitted.head, tensors=tensors),
        epochs=fitted.epochs,
        images=len(images),
        steps=fitted.steps,
        notes=fitted.notes,
        seconds=time.perf_counter() - started,
    )


def _ends(context: Context) -> Deadline:
    """Return when training has to end, so that what comes behind it fits into the time as well."""
    return context.deadline.sooner(BEHIND_SHARE * context.deadline.left()) if context.deadline.limited else context.deadline


def find_rate(context: Context, recipe: Recipe) -> LrCurve:
    """Losses by learning rate of the training that the recipe would begin."""
    from sightline.training import fit_network

    settings, preprocess = _settled(context, recipe)
    rows, images = decode(context, context.split("train"), preprocess, {})
    return fit_network.find_rate(
        images,
        context.labels[rows],
        len(context.classes),
        settings=settings,
        seed=recipe.seed,
        device=context.device,
        progress=context.progress,
    )


def _settled(context: Context, recipe: Recipe) -> tuple[ScratchSettings, Preprocess]:
    """The recipe's settings, and how files become what the network sees."""
    from sightline.training import fit_network

    settings = from_json(fit_network.ScratchSettings, {"network": recipe.backbone, **recipe.settings}, "settings of scratch")
    preprocess = adapted(context, fit_network.preprocess(recipe.image_size or own_image_size(context, settings.network)))
    if context.device == "cpu":
        batch = min(settings.plan.batch_size, len(context.split("train")))
        fit_network.check_memory(settings.network, preprocess.size[0], batch, len(context.classes))
    return settings, preprocess if recipe.fit is None else dataclasses.replace(preprocess, fit=recipe.fit)


def _classifier(
    context: Context, recipe: Recipe, fitted: ScratchFit, preprocess: Preprocess, images: np.ndarray, labels: np.ndarray
) -> tuple[Classifier, np.ndarray]:
    """What was trained as a classifier, calibrated on the validation images, and its probabilities of these."""
    backbone, tensors = record(recipe, fitted, preprocess), networks.tensors(fitted.network)
    classifier = make_classifier(context, recipe, backbone, fitted.head, tensors=tensors)
    run = classifier.session(context.cache, device=context.device)
    values = [run.run(images[i : i + run.batch_size])[0] for i in range(0, len(images), run.batch_size)]
    found = heads.logits(fitted.head, np.concatenate(values))
    temperature = heads.temperature(found, labels)
    return with_card(classifier, temperature=temperature), heads.softmax(found / temperature)


def record(recipe: Recipe, fitted: ScratchFit, preprocess: Preprocess) -> Backbone:
    """What was trained as a backbone: what builds it again, and the identity of its weights."""
    network, made = fitted.network, fitted.made
    name, arguments = names.parse(made.name)
    arguments.pop("auxiliary", None)  # those heads are gone
    own = {**arguments, "channels": made.channels, "classes": made.classes}
    if made.source != "sightline":
        own = {"classes": made.classes} if network.pool == "scores" or made.source == "user" else {}
    return Backbone(
        name=name,
        source=made.source,
        preprocess=preprocess,
        features=network.features,
        weights="run",
        weights_hash=networks.weights_hash(networks.tensors(network)),
        pool=network.pool,
        map_shape=network.map_shape,
        layout=network.layout,
        prefix=network.prefix,
        arguments=plain(own),
        parameters=network.own_parameters(),
        licence="yours",
        origin="trained here",
    )


def own_image_size(context: Context, network: str) -> int:
    """For `cnn` 32 px for small images such as digits, else 64; for any other network its own."""
    if names.parse(network)[0] != "cnn":
        return networks.random_network(network, meta=True).size[0]
    sides = [
        min(w, h) for w, h in zip(context.catalog.column("width"), context.catalog.column("height"), strict=True) if w and h
    ]
    return SMALL_PX if sides and float(np.median(sides)) <= SMALL_PX else LARGE_PX


def decode(
    context: Context, rows: np.ndarray, preprocess: Preprocess, lost: dict[str, list[dict[str, str]]]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that give pixels, and their images uint8 (m, h, w, 3); the others go to `lost`."""
    files, contents = context.catalog.files(), context.catalog.column("content")
    images = room((len(rows), *preprocess.size, 3), context.cache.root)
    good = np.ones(len(rows), dtype=bool)
    batches: Any = pixels.batches([files[i] for i in rows], preprocess, batch_size=64, contents=[contents[i] for i in rows])
    for batch in batches:
        images[batch.index] = batch.images
        for index, error in batch.errors.items():
            good[index] = False
            split = context.catalog.column("split")[rows[index]]
            lost.setdefault(split, []).append({"path": context.catalog.paths[rows[index]], "problem": error.message})
        context.progress("decoding", int(batch.index[-1]) + 1 if len(batch.index) else 0, len(rows))
    kept = np.flatnonzero(good)
    for place, row in enumerate(kept):
        if place != row:
            images[place] = images[row]
    return rows[good], images[: len(kept)]


def joined(context: Context, train: np.ndarray, val: np.ndarray) -> np.ndarray:
    """Return the images of both splits as one array, in memory or in a file as `room` decides.

    Args:
        work: Its cache's disk holds the file.
        train, val: uint8 (n, h, w, 3) and (m, h, w, 3).

    Returns:
        uint8 (n + m, h, w, 3).
    """
    images = room((len(train) + len(val), *train.shape[1:]), context.cache.root)
    images[: len(train)], images[len(train) :] = train, val
    return images


def room(shape: tuple[int, ...], folder: Path) -> np.ndarray:
    """An array uint8 to fill: in memory, or from `LARGE_BYTES` on in a memory-mapped file without a name, which goes with it.

    Args:
        shape: Of the array.
        folder: On whose disk the file would be.

    Raises:
        FailedWorkError: It fits nowhere.
    """
    from sightline.training import hardware

    size_bytes = math.prod(shape)
    if size_bytes < LARGE_BYTES:
        return np.empty(shape, dtype=np.uint8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)  # a full disk shows now, and not as a crash later
            return np.memmap(file, dtype=np.uint8, mode="r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        memory = hardware.memory_bytes()
        if memory is not None and size_bytes > memory:
            found = f"{size_bytes / 1e9:,.0f} GB of decoded images fit neither into {folder} ({error.strerror}) nor into memory"
            raise FailedWorkError(found, "take a smaller image_size or fewer images, or make room there") from error
        log.warning("decoded images cannot be laid out in %s (%s); they go to memory", folder, error.strerror)
        return np.empty(shape, dtype=np.uint8)
