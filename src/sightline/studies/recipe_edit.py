"""Recipe editing: change keys of a recipe, and check a recipe before any work is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import evaluation, heads, networks
from sightline.errors import DataError, RequestError, unknown
from sightline.networks import names
from sightline.records import Recipe
from sightline.schema import BESIDE, from_json
from sightline.store import Cache, plain
from sightline.training.methods import (
    METHODS,
    BaselineSettings,
    FeaturesSettings,
    ensemble,
    finetune,
    frozen,
    shortcut,
    warmstart,
)

_SETTINGS = "settings."


def change(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a copy of a recipe with some keys changed: its own keys, those of its settings, and keys of nested tables.

    A dot enters a table: `head.C` is a setting of the head. `augment.rotation` changes one range of the augmentation policy,
    even if `augment` is the name of a policy.

    Args:
        recipe: The recipe; it is not modified.
        changes: Key → value, such as `{"learning_rate": 1e-3, "augment.rotation": 30}`.

    Raises:
        RequestError: If a key is unknown ("did you mean"), enters something that is not a table, or has a value of wrong type.

    Example:
        >>> change(Recipe(method="scratch", settings={"augment": "photo"}), {"augment.rotation": 30}).settings
        {'augment': {'policy': 'photo', 'rotation': 30}}
    """
    fields = {f.name for f in dataclasses.fields(Recipe)} - {"settings"}
    if changes.get("method", recipe.method) == "ensemble":
        fields -= {"weights"}  # an ensemble has no network of its own; its `weights` are those of its members
    top_level = {key: value for key, value in changes.items() if key in fields}
    recipe = from_json(Recipe, {**plain(recipe), **top_level}, "recipe")
    for key, value in changes.items():
        if key in top_level:
            continue
        settings = dict(recipe.settings)
        known = {name: default for kind in settings_of(recipe) for name, default in defaults(kind).items()}
        name, *inner = key.removeprefix(_SETTINGS).split(".")
        if name not in known:
            raise unknown(f"key in a recipe of {recipe.method}", name, [*sorted(fields), *known])
        settings[name] = _with_inner(key, settings.get(name, known[name]), inner, value) if inner else value
        recipe = dataclasses.replace(recipe, settings=settings)
    return recipe


def defaults(kind: type) -> dict[str, Any]:
    """Return every key of a method's settings with its default."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        values |= _keys(default) if field.metadata == BESIDE else {field.name: default}
    return values


def _keys(record: Any) -> dict[str, Any]:
    """Return a record's keys and values as written in a recipe: those of an inlined record stand among the others."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        values |= _keys(value) if field.metadata == BESIDE else {field.name: value}
    return values


def _with_inner(key: str, current: Any, inner: list[str], value: Any) -> Any:
    """Return a table with one nested key set; the name of an augmentation policy counts as `{"policy": name}`."""
    if isinstance(current, str) and key.removeprefix(_SETTINGS).startswith("augment."):
        current = {"policy": current}
    if not isinstance(current, Mapping):
        outer = key.removesuffix("." + ".".join(inner))
        raise RequestError(f"cannot set {key}: {outer} is not a table", f"set {outer} itself")
    name, *rest = inner
    return {**current, name: _with_inner(key, current.get(name, {}), rest, value) if rest else value}


def settings_of(recipe: Recipe) -> tuple[type, ...]:
    """Return the dataclasses that hold the settings of a recipe's method; for most methods one.

    Raises:
        RequestError: If the method is unknown.
    """
    if recipe.method not in METHODS:
        raise unknown("method", recipe.method, METHODS)
    return SETTINGS[recipe.method](recipe)


def build(recipe: Recipe) -> dict[str, Any]:
    """Return every setting of a recipe's method with its value, after checking types and ranges.

    Raises:
        RequestError: If a key is unknown, or a value is out of range.
    """
    rest: dict[str, Any] = {**({"network": recipe.backbone} if recipe.method == "scratch" else {}), **recipe.settings}
    *first, last = settings_of(recipe)
    records: list[Any] = []
    for kind in first:
        values = {key: rest.pop(key) for key in defaults(kind) if key in rest}
        records.append(from_json(kind, values, f"settings of {recipe.method}"))
    records.append(from_json(last, rest, f"settings of {recipe.method}"))
    return {key: value for record in records for key, value in _keys(record).items()}


def check(recipe: Recipe, classes: int, cache: Cache) -> None:
    """Check everything that a recipe names, as far as that needs no image.

    Args:
        recipe: The recipe to carry out.
        classes: k.
        cache: Cache of lists and descriptions of networks.

    Raises:
        RequestError: If a name is unknown, a value is out of range, or a network does not accept images of that size.
        WeightsError: If the weights of a named network are not on this machine and cannot be downloaded.
    """
    evaluation.check_criterion(recipe.threshold)
    settings = build(recipe)
    policy = settings.get("augment")
    if isinstance(policy, str | Mapping):
        from sightline.training import augment

        augment.policy_for(policy, np.zeros((1, 8, 8, 3), dtype=np.uint8))
    if recipe.method == "scratch":
        from sightline.training import fit_network

        _check_classes(network_of(recipe), classes)
        network = fit_network.called(network_of(recipe), recipe.image_size or fit_network.IMAGE_SIZE)
        built = networks.random_network(network, image_size=recipe.image_size, classes=classes, meta=True, cache=cache)
        if settings["resize_from"] != 1:
            values = {"network": recipe.backbone, **recipe.settings}
            scratch_settings = from_json(fit_network.ScratchSettings, values, "settings of scratch")
            fit_network.check_sides(scratch_settings, recipe.image_size or built.size[0], classes)
    elif recipe.method == "warmstart":
        if not Path(recipe.backbone).exists():
            hint = 'set backbone to a run\'s folder or a classifier.safetensors, such as backbone = "runs/mine"'
            raise RequestError(f"warmstart starts from an earlier classifier, and {recipe.backbone} does not exist", hint)
    elif recipe.method in ("features", "frozen", "finetune"):
        if recipe.method == "features":
            heads.to_compare(recipe.head, settings["head"])
        networks.describe_recipe(recipe, cache)


def _check_classes(network: str, classes: int) -> None:
    """Check that a network's `classes` argument, if any, is the number of classes of the images, or 1 for two classes."""
    outputs = names.parse(network)[1].get("classes", classes)
    if outputs != classes and not (outputs == 1 and classes == 2):
        hint = "leave classes out" + (", or set classes=1 for one sigmoid unit" if classes == 2 else "")
        raise RequestError(f"the network {network} is for {outputs} classes, and the images have {classes}", hint)


def check_threshold(recipe: Recipe, classes: Sequence[str]) -> None:
    """Check that the recipe's threshold criterion and positive class are possible with these classes.

    Raises:
        RequestError: If the criterion or the class is unknown.
        DataError: If a threshold is set and there are not two classes.
    """
    evaluation.check_criterion(recipe.threshold)
    if recipe.positive is not None and recipe.positive not in classes:
        raise unknown("class", recipe.positive, classes)
    if recipe.threshold != evaluation.HALF and len(classes) != 2:
        raise DataError(f"a threshold needs two classes, but there are {len(classes)}", 'leave out threshold, or write "half"')


def network_of(recipe: Recipe) -> str:
    """Return the name of the network that `scratch` trains."""
    return str(recipe.settings.get("network", recipe.backbone))


def shown(value: Any) -> str:
    """Return a value of a recipe as text for people.

    Example:
        >>> shown(0.001), shown([16, 32]), shown({"policy": "photo"}), shown(None)
        ('0.001', '[16, 32]', '{policy=photo}', 'none')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}={shown(v)}" for k, v in value.items()) + "}"
    return "none" if value is None else str(value)


def _scratch(recipe: Recipe) -> tuple[type, ...]:
    from sightline.training.fit_network import ScratchSettings  # here, since it brings torch

    return (ScratchSettings,)


def _warmstart(recipe: Recipe) -> tuple[type, ...]:
    training = frozen.FrozenSettings if recipe.settings.get("frozen") else finetune.FinetuneSettings
    return warmstart.WarmstartSettings, training


SETTINGS: dict[str, Callable[[Recipe], tuple[type, ...]]] = {
    "baseline": lambda recipe: (BaselineSettings,),
    "shortcut": lambda recipe: (shortcut.ShortcutSettings,),
    "features": lambda recipe: (FeaturesSettings,),
    "scratch": _scratch,
    "frozen": lambda recipe: (frozen.FrozenSettings,),
    "finetune": lambda recipe: (finetune.FinetuneSettings,),
    "warmstart": _warmstart,
    "ensemble": lambda recipe: (ensemble.EnsembleSettings,),
}
"""Method → function that returns the dataclasses of its settings."""
