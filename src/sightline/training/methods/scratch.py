"""`scratch`: train a network with random weights on pixels; the result is split into backbone and head."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import heads, networks
from sightline.classifier import Classifier
from sightline.deadline import Deadline
from sightline.errors import DataError, RequestError
from sightline.networks import names
from sightline.records import Backbone, Predictions, Preprocess, Recipe
from sightline.records.data_summary import FileProblem
from sightline.schema import from_json
from sightline.search_space import Choice, Range, Space, Suggest
from sightline.store import Cache, plain
from sightline.training import refit, tuning
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
from sightline.training.decoded_images import decode, joined
from sightline.training.method import Method, SearchContext, Workload
from sightline.training.scratch_settings import ScratchSettings

if TYPE_CHECKING:
    from sightline.training.fit_network import ScratchFit
    from sightline.training.lr_finder import LrCurve


BEHIND_SHARE = 0.1
"""Share of the time that is reserved for converting the network and running it on the validation images."""
SMALL_PX, LARGE_PX = 32, 64
"""Image sizes for a recipe that names none: the smaller one if half of the images are not larger than that."""


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Train on the training split and keep the epoch that is best on validation; the last linear layer becomes the head."""
    from sightline.training import fit_network, loop

    started = time.perf_counter()
    check_validation(context, "training from scratch")
    settings, preprocess = _settled(context, recipe)
    lost: dict[str, list[FileProblem]] = {}
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
    held_out = Predictions(tuple(paths[i] for i in val), context.classes, context.labels[val], val_probs)
    if settings.crops > 1:
        classifier, held_out = calibrated(context, with_card(classifier, crops=settings.crops))
    candidate = Candidate(
        classifier=classifier,
        label=f"{recipe.backbone} at {preprocess.size[0]} px from scratch",
        val=held_out,
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
    return [
        _refitted(context, recipe, candidate=candidate, settings=settings, preprocess=preprocess, both=both, started=started)
    ]


def _refitted(
    context: Context,
    recipe: Recipe,
    candidate: Candidate,
    settings: ScratchSettings,
    preprocess: Preprocess,
    both: tuple[np.ndarray, np.ndarray],
    started: float,
) -> Candidate:
    """Return the candidate with a network that is trained again on train and val together.

    Args:
        context, recipe, settings, preprocess: Those of the validated training.
        candidate: Candidate of that training.
        both: Images uint8 (n, h, w, 3) and labels int64 (n,) of both splits.
        started: Start of the first training, by `time.perf_counter`.
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
    """Return the deadline of training, which leaves time for the steps after it."""
    return context.deadline.sooner(BEHIND_SHARE * context.deadline.left()) if context.deadline.limited else context.deadline


def find_rate(context: Context, recipe: Recipe) -> LrCurve:
    """Run a learning-rate range test for the recipe."""
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
    """Return the settings and the preprocessing of a recipe."""
    from sightline.training import fit_network

    settings = settings_of(recipe)
    preprocess = adapted(context, fit_network.preprocess(recipe.image_size or own_image_size(context, settings.network)))
    if context.device == "cpu":
        batch = min(settings.plan.batch_size, len(context.split("train")))
        fit_network.check_memory(settings.network, preprocess.size[0], batch, len(context.classes))
    return settings, preprocess if recipe.fit is None else dataclasses.replace(preprocess, fit=recipe.fit)


def _classifier(
    context: Context, recipe: Recipe, fitted: ScratchFit, preprocess: Preprocess, images: np.ndarray, labels: np.ndarray
) -> tuple[Classifier, np.ndarray]:
    """Return the classifier, calibrated on the validation images, and its probabilities for these."""
    backbone, tensors = record(recipe, fitted, preprocess), networks.tensors(fitted.network)
    classifier = make_classifier(context, recipe, backbone, fitted.head, tensors=tensors)
    run = classifier.session(context.cache, device=context.device)
    values = [run.run(images[i : i + run.batch_size])[0] for i in range(0, len(images), run.batch_size)]
    logits = heads.logits(fitted.head, np.concatenate(values))
    temperature = heads.temperature(logits, labels)
    return with_card(classifier, temperature=temperature), heads.softmax(logits / temperature)


def record(recipe: Recipe, fitted: ScratchFit, preprocess: Preprocess) -> Backbone:
    """Return the record of the trained network as a backbone: what is needed to build it again, and the hash of its weights."""
    network, made = fitted.network, fitted.made
    name, arguments = names.parse(made.name)
    arguments.pop("auxiliary", None)  # the auxiliary heads are removed
    build_arguments = {**arguments, "channels": made.channels, "classes": made.classes}
    if made.source != "sightline":
        build_arguments = {"classes": made.classes} if network.pool == "scores" or made.source == "user" else {}
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
        arguments=plain(build_arguments),
        parameters=network.own_parameters(),
        licence="yours",
        origin="trained here",
    )


def own_image_size(context: Context, network: str) -> int:
    """Return the image side for a network, in pixels: for `cnn` 32 for small images such as digits, else 64; else its own."""
    if names.parse(network)[0] != "cnn":
        return networks.random_network(network, meta=True).size[0]
    sides = [
        min(w, h) for w, h in zip(context.catalog.column("width"), context.catalog.column("height"), strict=True) if w and h
    ]
    return SMALL_PX if sides and float(np.median(sides)) <= SMALL_PX else LARGE_PX


def settings_of(recipe: Recipe) -> ScratchSettings:
    """Return the settings of a recipe, with the network that it names."""
    return from_json(ScratchSettings, METHOD.given_settings(recipe), "settings of scratch")


def check(recipe: Recipe, settings: Mapping[str, Any], classes: int, cache: Cache) -> None:
    """Check that the network can be built for these classes and this image size.

    Raises:
        RequestError: If the network is not known, is written for another number of classes, or cannot take such images.
    """
    from sightline.training import fit_network

    network = settings["network"]
    _check_classes(network, classes)
    name = fit_network.called(network, recipe.image_size or fit_network.IMAGE_SIZE)
    made = networks.random_network(name, image_size=recipe.image_size, classes=classes, meta=True, cache=cache)
    if settings["resize_from"] != 1:
        fit_network.check_sides(settings_of(recipe), recipe.image_size or made.size[0], classes)


def _check_classes(network: str, classes: int) -> None:
    """Refuse a network that is written with another number of classes than the images have.

    One sigmoid unit (`classes=1`) fits two classes.
    """
    given = names.parse(network)[1].get("classes", classes)
    if given != classes and not (given == 1 and classes == 2):
        hint = "leave classes out" + (", or set classes=1 for one sigmoid unit" if classes == 2 else "")
        raise RequestError(f"the network {network} is for {given} classes, and the images have {classes}", hint)


def count_parameters(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """Return the number of parameters of the network without the auxiliary heads that only training uses."""
    from sightline.training import fit_network

    side = recipe.image_size or image_size
    name = fit_network.called(METHOD.network_of(recipe), side)
    made = networks.random_network(name, image_size=side, classes=classes, meta=True, cache=cache)
    return sum(p.numel() for name, p in made.net.named_parameters() if not name.startswith(fit_network.AUXILIARY))


RATES: Mapping[str, Space] = {
    "adamw": Range(3e-4, 1e-2, log=True),
    "adam": Range(3e-4, 1e-2, log=True),
    "sgd": Range(5e-3, 0.5, log=True),
    "rmsprop": Range(1e-4, 3e-3, log=True),
}
"""Optimizer → learning rates to search: an order of magnitude on both sides of the usual one."""
CNN: Mapping[str, Space] = {
    "depth": Range(2, 5, whole=True),
    "width": Range(8, 64, log=True, whole=True),
    "kernel": Choice((3, 5)),
    "dropout": Range(0, 0.5),
}
"""Number of blocks of `cnn`, filters of the first (each next has twice as many, at most 256), kernel side, and dropout."""


def search_space(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw learning rate, regularisation, augmentation and image size, and for `cnn` its shape.

    Progressive resizing is drawn only if the recipe uses it, since not every network takes smaller images.
    """
    spaces = {**tuning.TRAINING, **tuning.rate_space(recipe, RATES, ScratchSettings().plan.optimizer)}
    settings = {**recipe.settings, **{name: suggest(name, space) for name, space in spaces.items()}}
    settings["augment"] = tuning.suggest_augmentation(suggest)
    network = METHOD.network_of(recipe)
    name, arguments = names.parse(network)
    if name == "cnn":
        depth, width = suggest("depth", CNN["depth"]), suggest("width", CNN["width"])
        filters = [min(256, width << i) for i in range(depth)]
        network = names.spell(name, {**arguments, "filters": filters, "kernel": suggest("kernel", CNN["kernel"])})
        settings["dropout"] = suggest("dropout", CNN["dropout"])
    if settings.get("resize_from", 1) != 1:
        settings["resize_from"] = suggest("resize_from", Choice((1.0, settings["resize_from"])))
    settings.pop("network", None)
    size = suggest("image_size", Choice(_sizes(context.image_size)))
    return dataclasses.replace(recipe, backbone=network, image_size=size, settings=settings)


def _sizes(side: int) -> tuple[int, ...]:
    """Return image sides to search: two thirds, the same, and one and a half times; twice the side costs four times as much."""
    return tuple(sorted({max(16, side * 2 // 3 // 8 * 8), side, side * 3 // 2 // 8 * 8}))


def image_size(context: Context, recipe: Recipe) -> int:
    """Return the input side, in pixels, of a recipe that names none."""
    return own_image_size(context, METHOD.network_of(recipe))


def estimate_seconds(workload: Workload) -> float:
    """Return the estimated duration in seconds; training on many images ends early at about 90 s."""
    return min(90.0, 5 + workload.images * 0.03)


METHOD = Method(
    name="scratch",
    title="Network trained from scratch",
    settings=ScratchSettings,
    fit=fit,
    network="random",
    network_setting="network",
    find_lr=find_rate,
    check=check,
    search_space=search_space,
    count_parameters=count_parameters,
    estimate_seconds=estimate_seconds,
    image_size=image_size,
    by_default=True,
    by_epochs=True,
    distributed=True,
)
