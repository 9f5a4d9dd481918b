"""A recipe with some keys changed, and whether a recipe could be carried out, asked before any work is done."""

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
    """A recipe with keys set: its own, those of its settings, and by dots those of tables among these.

    `augment.rotation` where `augment` is a policy's name changes one range of that policy; `head.C` is a setting of the head.

    Args:
        recipe: Stays as it is.
        changes: Key → value, such as `{"learning_rate": 1e-3, "augment.rotation": 30}`.

    Raises:
        RequestError: A key is not known ("did you mean"), reaches into what is no table, or holds a value of another type.

    Example:
        >>> change(Recipe(method="scratch", settings={"augment": "photo"}), {"augment.rotation": 30}).settings
        {'augment': {'policy': 'photo', 'rotation': 30}}
    """
    own = {f.name for f in dataclasses.fields(Recipe)} - {"settings"}
    if changes.get("method", recipe.method) == "ensemble":
        own -= {"weights"}  # it names no network, so they are those of its members
    first = {key: value for key, value in changes.items() if key in own}
    recipe = from_json(Recipe, {**plain(recipe), **first}, "recipe")
    for key, value in changes.items():
        if key in first:
            continue
        settings = dict(recipe.settings)
        known = {name: own for kind in settings_of(recipe) for name, own in defaults(kind).items()}
        name, *inner = key.removeprefix(_SETTINGS).split(".")
        if name not in known:
            raise unknown(f"key in a recipe of {recipe.method}", name, [*sorted(own), *known])
        settings[name] = _reached(key, settings.get(name, known[name]), inner, value) if inner else value
        recipe = dataclasses.replace(recipe, settings=settings)
    return recipe


def defaults(kind: type) -> dict[str, Any]:
    """Every key of a method's settings, and what it is where nobody says otherwise."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        found |= _keys(made) if field.metadata == BESIDE else {field.name: made}
    return found


def _keys(record: Any) -> dict[str, Any]:
    """A record's keys and values as people write them, those of a record beside the others among them."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        found |= _keys(value) if field.metadata == BESIDE else {field.name: value}
    return found


def _reached(key: str, current: Any, inner: list[str], value: Any) -> Any:
    """A table with one key inside it set; a policy's name is a table that holds nothing else."""
    if isinstance(current, str) and key.removeprefix(_SETTINGS).startswith("augment."):
        current = {"policy": current}
    if not isinstance(current, Mapping):
        outer = key.removesuffix("." + ".".join(inner))
        raise RequestError(f"{key} reaches into {outer}, which is no table of keys", f"set {outer} itself")
    name, *rest = inner
    return {**current, name: _reached(key, current.get(name, {}), rest, value) if rest else value}


def settings_of(recipe: Recipe) -> tuple[type, ...]:
    """The dataclasses that hold the settings of a recipe's method; mostly one.

    Raises:
        RequestError: The method is not known.
    """
    if recipe.method not in METHODS:
        raise unknown("method", recipe.method, METHODS)
    return SETTINGS[recipe.method](recipe)


def build(recipe: Recipe) -> dict[str, Any]:
    """Every setting of a recipe's method with its value, the types and ranges checked.

    Raises:
        RequestError: A key is not known, or a value is out of its range.
    """
    given: dict[str, Any] = {**({"network": recipe.backbone} if recipe.method == "scratch" else {}), **recipe.settings}
    *first, last = settings_of(recipe)
    made: list[Any] = []
    for kind in first:
        own = {key: given.pop(key) for key in defaults(kind) if key in given}
        made.append(from_json(kind, own, f"settings of {recipe.method}"))
    made.append(from_json(last, given, f"settings of {recipe.method}"))
    return {key: value for part in made for key, value in _keys(part).items()}


def check(recipe: Recipe, classes: int, cache: Cache) -> None:
    """Build all that a recipe names, as far as that needs no image.

    Args:
        recipe: What will be carried out.
        classes: How many there are.
        cache: Where lists and descriptions of networks are kept.

    Raises:
        RequestError: A name is not known, a value out of its range, or a network cannot see images of that size.
        WeightsError: The weights of a named network are not here and cannot be had.
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
        called = fit_network.called(network_of(recipe), recipe.image_size or fit_network.IMAGE_SIZE)
        made = networks.random_network(called, image_size=recipe.image_size, classes=classes, meta=True, cache=cache)
        if settings["resize_from"] != 1:
            own = from_json(fit_network.ScratchSettings, {"network": recipe.backbone, **recipe.settings}, "settings of scratch")
            fit_network.check_sides(own, recipe.image_size or made.size[0], classes)
    elif recipe.method == "warmstart":
        if not Path(recipe.backbone).exists():
            hint = 'set backbone to a run\'s folder or a classifier.safetensors, such as backbone = "runs/mine"'
            raise RequestError(f"warmstart begins with an earlier classifier, and {recipe.backbone} does not exist", hint)
    elif recipe.method in ("features", "frozen", "finetune"):
        if recipe.method == "features":
            _check_head(recipe, settings["head"])
        networks.describe_recipe(recipe, cache)


def _check_classes(network: str, classes: int) -> None:
    """Refuse a network that is written with another number of classes than the images have; one sigmoid unit tells two."""
    given = names.parse(network)[1].get("classes", classes)
    if given != classes and not (given == 1 and classes == 2):
        hint = "leave classes out" + (", or set classes=1 for one sigmoid unit" if classes == 2 else "")
        raise RequestError(f"the network {network} is for {given} classes, and the images have {classes}", hint)


def check_threshold(recipe: Recipe, classes: Sequence[str]) -> None:
    """Whether these classes allow the recipe's threshold and its positive class.

    Raises:
        RequestError: The criterion or the class is not known.
        DataError: A threshold needs two classes.
    """
    evaluation.check_criterion(recipe.threshold)
    if recipe.positive is not None and recipe.positive not in classes:
        raise unknown("class", recipe.positive, classes)
    if recipe.threshold != evaluation.HALF and len(classes) != 2:
        raise DataError(f"a threshold needs two classes, here are {len(classes)}", 'leave out threshold, or write "half"')


def _check_head(recipe: Recipe, own: Mapping[str, Any]) -> None:
    """Whether the head and its own settings are what they should be."""
    if recipe.head == "auto":
        if own:
            raise RequestError("settings of a head need its name", 'set head to one, such as head = "mlp"')
        return
    if recipe.head not in heads.HEADS:
        raise unknown("head", recipe.head, [*heads.HEADS, "auto"])
    from_json(heads.HEADS[recipe.head].settings, own, f"settings of the {recipe.head} head")


def network_of(recipe: Recipe) -> str:
    """What `scratch` trains, as it is named."""
    return str(recipe.settings.get("network", recipe.backbone))


def shown(value: Any) -> str:
    """A value of a recipe for people.

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
    rest = frozen.FrozenSettings if recipe.settings.get("frozen") else finetune.FinetuneSettings
    return warmstart.WarmstartSettings, rest


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
"""Method → what gives the dataclasses of its settings."""
