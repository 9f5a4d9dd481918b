"""Hyperparameter search spaces: the settings and ranges that a search draws for each method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sightline import heads, networks
from sightline.errors import RequestError, unknown
from sightline.heads.mlp import hidden_layers
from sightline.networks import names
from sightline.records import Recipe
from sightline.search_space import Choice, Range, Space, Suggest
from sightline.store import Cache
from sightline.studies.recipe_edit import change, defaults, network_of, settings_of

Propose = Callable[[Recipe, Suggest, "SearchContext"], Recipe]
"""(starting recipe, draws a value, search context) → the next recipe to try."""


@dataclass(frozen=True, slots=True)
class SearchContext:
    """Backbones and image size available to a search.

    Args:
        backbones: Networks whose weights are on this machine, the recipe's own first.
        image_size: Side of the network's input without a search, in pixels.
    """

    backbones: tuple[str, ...]
    image_size: int


def here(recipe: Recipe, image_size: int, max_parameters: float | None, cache: Cache) -> SearchContext:
    """Return the backbones that a search can use without a download.

    Args:
        recipe: The recipe that the search starts from.
        image_size: Side of its network's input, in pixels.
        max_parameters: Leave out networks with more parameters; None for no limit.
        cache: Cache of network descriptions.
    """
    backbones = [recipe.backbone]
    if recipe.weights == "pretrained" and recipe.method in _NAMED and recipe.backbone not in ("pixels", "file", "none"):
        local = [n for n in BACKBONES if n != recipe.backbone and networks.download_bytes(n, "pretrained", cache) is None]
        backbones += [n for n in local if _eligible(n, recipe, max_parameters, cache)]
    return SearchContext(tuple(backbones), image_size)


def _eligible(name: str, recipe: Recipe, max_parameters: float | None, cache: Cache) -> bool:
    """Return whether a network accepts the recipe's image size and is not too large."""
    if recipe.image_size is None and max_parameters is None:
        return True
    try:
        described = networks.describe_recipe(replace(recipe, backbone=name), cache)
    except RequestError:
        return False
    return max_parameters is None or described.parameters <= max_parameters


def propose(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Return the next recipe to try.

    Raises:
        RequestError: If the method has no search space.
    """
    return SPACES[check_method(recipe.method)](recipe, suggest, context)


def check_method(method: str) -> str:
    """Return the method if it has a search space.

    Raises:
        RequestError: If it has none.
    """
    if method not in SPACES:
        raise RequestError(f"there is nothing to tune in {method}", f"set method to one of {', '.join(SPACES)}")
    return method


def features(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw backbone, head and the head's settings; features are cached, so a trial costs one fit of a head.

    Augmented views are switched on and off only if the recipe has some, since each is another forward pass over all images.
    """
    changes: dict[str, Any] = {}
    if len(context.backbones) > 1:
        changes["backbone"] = suggest("backbone", Choice(context.backbones))
    elif recipe.backbone == "pixels":
        changes["image_size"] = suggest("image_size", Choice(PIXEL_SIZES))
    name = suggest("head", Choice(tuple(name for name, kind in heads.HEADS.items() if kind.search_space)))
    kind = heads.HEADS[name]
    values = {key: suggest(f"{name}.{key}", space) for key, space in kind.search_space.items()}
    settings = {**recipe.settings, "head": kind.from_search(values)}
    if settings.get("views"):
        settings["views"] = suggest("views", Choice((0, settings["views"])))
    return change(replace(recipe, head=name, settings=settings), changes)


def pretrained(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw backbone, optimizer settings, augmentation and trainable layers for training on top of a pretrained network."""
    only_head = recipe.method == "frozen" or bool(recipe.settings.get("frozen"))
    spaces = FROZEN if only_head else FINETUNE
    rates = RATES["frozen" if only_head else "finetune"]
    values = {name: suggest(name, space) for name, space in {**TRAINING, **_rate(recipe, rates), **spaces}.items()}
    if only_head:
        values["head"] = hidden_layers(values.pop("layers"), values.pop("units"), values.pop("dropout"))
    settings = {**recipe.settings, **values, "augment": _augment(suggest)}
    backbone = suggest("backbone", Choice(context.backbones)) if len(context.backbones) > 1 else recipe.backbone
    return replace(recipe, backbone=backbone, settings=settings)


def _rate(recipe: Recipe, rates: dict[str, Space]) -> dict[str, Space]:
    """Return the learning rates to try with the recipe's optimizer, by default that of its method."""
    default = next(value for kind in settings_of(recipe) for key, value in defaults(kind).items() if key == "optimizer")
    name = str(recipe.settings.get("optimizer", default))
    if name not in rates:
        raise unknown("optimizer", name, rates)
    return {"learning_rate": rates[name]}


def _augment(suggest: Suggest) -> str | dict[str, Any]:
    """Draw an augmentation policy and its strength."""
    policy = suggest("augment", Choice(POLICY_NAMES))
    return strengthened(policy, 1.0 if policy == "none" else suggest("augment_strength", STRENGTH))


def scratch(recipe: Recipe, suggest: Suggest, context: SearchContext) -> Recipe:
    """Draw optimizer settings, augmentation, image size and, for `cnn`, the network.

    Progressive resizing is switched on and off only if the recipe has it, since not every network supports it.
    """
    spaces = {**TRAINING, **_rate(recipe, RATES["scratch"])}
    settings = {**recipe.settings, **{name: suggest(name, space) for name, space in spaces.items()}}
    settings["augment"] = _augment(suggest)
    bare, arguments = names.parse(network_of(recipe))
    network = network_of(recipe)
    if bare == "cnn":
        depth, width = suggest("depth", CNN["depth"]), suggest("width", CNN["width"])
        filters = [min(256, width << i) for i in range(depth)]
        network = names.spell("cnn", {**arguments, "filters": filters, "kernel": suggest("kernel", CNN["kernel"])})
        settings["dropout"] = suggest("dropout", CNN["dropout"])
    if settings.get("resize_from", 1) != 1:
        settings["resize_from"] = suggest("resize_from", Choice((1.0, settings["resize_from"])))
    settings.pop("network", None)
    size = suggest("image_size", Choice(_sizes(context.image_size)))
    return replace(recipe, backbone=network, image_size=size, settings=settings)


def _sizes(side: int) -> tuple[int, ...]:
    """Return an image size with a smaller and a larger one; twice the side costs four times as much."""
    return tuple(sorted({max(16, side * 2 // 3 // 8 * 8), side, side * 3 // 2 // 8 * 8}))


def strengthened(policy: str, strength: float) -> str | dict[str, Any]:
    """Return a policy with every range multiplied by `strength`, within its limits; probabilities stay.

    Example:
        >>> strengthened("light", 1.0), strengthened("light", 2.0)["rotation"]
        ('light', 20.0)
    """
    from sightline.training import augment

    if strength == 1.0:
        return policy
    base, neutral = augment.POLICIES[policy], augment.Policy()
    changed: dict[str, Any] = {}
    for name, setting in augment.SETTINGS.items():
        low, high = base.span(name) if setting.kind not in ("channels", "chance", "amount", "count") else (0.0, 0.0)
        value = getattr(base, name)
        if value == getattr(neutral, name):
            continue
        if setting.kind in ("around", "upto", "growth"):
            changed[name] = min(high * strength, setting.high)
        elif setting.kind == "amount":
            changed[name] = min(value * strength, setting.high)
        elif setting.kind == "share":
            changed[name] = max(1 - (1 - low) * strength, 0.1)
    return {"policy": policy, **{k: round(float(v), 4) for k, v in changed.items()}}


BACKBONES: Sequence[str] = (
    *networks.DEFAULTS,
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "convnext_tiny",
    "inception_v3",
    "xception",
    "squeezenet1_1",
    "densenet121",
    "regnety_016",
    "swin_tiny_patch4_window7_224",
    "vit_small_patch16_224",
)
"""Networks that a search over backbones tries if their weights are on this machine; it downloads nothing."""

PIXEL_SIZES = (8, 16, 24)
"""Image sides to try with the backbone `pixels`, in pixels."""

TRAINING: dict[str, Space] = {"weight_decay": Range(1e-3, 0.3, log=True), "label_smoothing": Range(0, 0.2)}
"""Settings of all methods that train on pixels."""

RATES: dict[str, dict[str, Space]] = {
    "scratch": {
        "adamw": Range(3e-4, 1e-2, log=True),
        "adam": Range(3e-4, 1e-2, log=True),
        "sgd": Range(5e-3, 0.5, log=True),
        "rmsprop": Range(1e-4, 3e-3, log=True),
    },
    "frozen": {
        "adamw": Range(1e-4, 1e-2, log=True),
        "adam": Range(1e-4, 1e-2, log=True),
        "sgd": Range(3e-3, 0.3, log=True),
        "rmsprop": Range(3e-5, 3e-3, log=True),
    },
    "finetune": {
        "adamw": Range(1e-5, 1e-3, log=True),
        "adam": Range(1e-5, 1e-3, log=True),
        "sgd": Range(1e-3, 0.1, log=True),
        "rmsprop": Range(3e-6, 3e-4, log=True),
    },
}
"""Trained part → optimizer → learning rates: one order of magnitude on both sides of each optimizer's usual rate."""

FROZEN: dict[str, Space] = {
    "layers": Range(0, 2, whole=True),
    "units": Range(64, 1024, log=True, whole=True),
    "dropout": Range(0, 0.6),
}
"""Settings if only the head is trained: its hidden layers, as for `mlp`."""

FINETUNE: dict[str, Space] = {
    "layer_decay": Range(0.5, 1),
    "unfreeze": Choice((1, 2, "all")),
}
"""Settings if the network is trained too."""

CNN: dict[str, Space] = {
    "depth": Range(2, 5, whole=True),
    "width": Range(8, 64, log=True, whole=True),
    "kernel": Choice((3, 5)),
    "dropout": Range(0, 0.5),
}
"""Number of blocks of `cnn`, filters of the first block (doubled in each next one, up to 256), kernel size, dropout."""

POLICY_NAMES = ("none", "light", "photo", "strong", "handwriting", "texture")
STRENGTH = Range(0.5, 2, log=True)
"""Factor on the ranges of an augmentation policy."""

_NAMED = ("features", "frozen", "finetune")
"""Methods whose backbone is the name of a pretrained network."""

SPACES: dict[str, Propose] = {
    "features": features,
    "scratch": scratch,
    "frozen": pretrained,
    "finetune": pretrained,
    "warmstart": pretrained,
}
"""Method → function that draws its next recipe."""
