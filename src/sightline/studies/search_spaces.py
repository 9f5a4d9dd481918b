"""What a search tries: for every kind of head and every method that trains, which settings, in which ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sightline import networks
from sightline.errors import RequestError, unknown
from sightline.networks import names
from sightline.records import Recipe
from sightline.store import Cache
from sightline.studies.recipe_edit import change, defaults, network_of, settings_of


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`.

    Args:
        low, high: Both ends belong to it.
        log: Drawn evenly in the logarithm: for what works by its order of magnitude.
        whole: Whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several."""

    options: tuple[Any, ...]


Space = Range | Choice
Suggest = Callable[[str, Space], Any]
"""Gives the next value to try under a name."""
Propose = Callable[[Recipe, Suggest, "SearchContext"], Recipe]
"""Gives the next recipe to try, drawn around one."""


@dataclass(frozen=True, slots=True)
class SearchContext:
    """What the search may use on this machine, with these images.

    Args:
        backbones: Networks whose weights are here, the recipe's own first.
        image_size: What the recipe's network sees without a search, in pixels.
    """

    backbones: tuple[str, ...]
    image_size: int


def here(recipe: Recipe, image_size: int, largest: float | None, cache: Cache) -> SearchContext:
    """What can be searched without a download.

    Args:
        recipe: What the search starts from.
        image_size: What its network sees, in pixels.
        largest: Networks with more parameters are left out; None takes all.
        cache: Where descriptions are kept.
    """
    found = [recipe.backbone]
    if recipe.weights == "pretrained" and recipe.method in _NAMED and recipe.backbone not in ("pixels", "file", "none"):
        known = [n for n in BACKBONES if n != recipe.backbone and networks.download_bytes(n, "pretrained", cache) is None]
        found += [n for n in known if _eligible(n, recipe, largest, cache)]
    return SearchContext(tuple(found), image_size)


def _eligible(name: str, recipe: Recipe, largest: float | None, cache: Cache) -> bool:
    """Whether a network sees images as the recipe has them, and is not too large."""
    if recipe.image_size is None and largest is None:
        return True
    try:
        described = networks.describe_recipe(replace(recipe, backbone=name), cache)
    except RequestError:
        return False
    return largest is None or described.parameters <= largest


def propose(recipe: Recipe, suggest: Suggest, found: SearchContext) -> Recipe:
    """The next recipe to try.

    Raises:
        RequestError: There is nothing to search in this method.
    """
    return SPACES[check_method(recipe.method)](recipe, suggest, found)


def check_method(method: str) -> str:
    """A method that can be searched.

    Raises:
        RequestError: There is nothing to search in it.
    """
    if method not in SPACES:
        raise RequestError(f"there is nothing to tune in {method}", f"set method to one of {', '.join(SPACES)}")
    return method


def features(recipe: Recipe, suggest: Suggest, found: SearchContext) -> Recipe:
    """Backbone, head and the head's settings: features are cached, so a trial costs a head.

    Views, with and without, only where the recipe has some: each is another forward pass over all images.
    """
    changes: dict[str, Any] = {}
    if len(found.backbones) > 1:
        changes["backbone"] = suggest("backbone", Choice(found.backbones))
    elif recipe.backbone == "pixels":
        changes["image_size"] = suggest("image_size", Choice(PIXEL_SIZES))
    kind = suggest("head", Choice(tuple(HEAD_SPACES)))
    own = {name: suggest(f"{kind}.{name}", space) for name, space in HEAD_SPACES[kind].items()}
    settings = {**recipe.settings, "head": {"units": _units(own), **own} if kind == "mlp" else own}
    if settings.get("views"):
        settings["views"] = suggest("views", Choice((0, settings["views"])))
    return change(replace(recipe, head=kind, settings=settings), changes)


def _units(own: dict[str, Any]) -> list[list[Any]]:
    """Hidden layers, each half as wide as the one before, of their number, first width and dropout, which are taken out."""
    layers, width, dropout = own.pop("layers"), own.pop("units"), own.pop("dropout")
    return [[max(8, width >> i), dropout] for i in range(layers)]


def pretrained(recipe: Recipe, suggest: Suggest, found: SearchContext) -> Recipe:
    """For what trains on top of a pretrained network: backbone, the optimizer, the augmentation, and what learns."""
    only_head = recipe.method == "frozen" or bool(recipe.settings.get("frozen"))
    space = FROZEN if only_head else FINETUNE
    rates = RATES["frozen" if only_head else "finetune"]
    drawn = {name: suggest(name, one) for name, one in {**TRAINING, **_rate(recipe, rates), **space}.items()}
    if only_head:
        drawn["head"] = _units(drawn)
    settings = {**recipe.settings, **drawn, "augment": _augment(suggest)}
    backbone = suggest("backbone", Choice(found.backbones)) if len(found.backbones) > 1 else recipe.backbone
    return replace(recipe, backbone=backbone, settings=settings)


def _rate(recipe: Recipe, rates: dict[str, Space]) -> dict[str, Space]:
    """The learning rates to try with the recipe's optimizer, or with the one that its method takes."""
    own = next(value for kind in settings_of(recipe) for key, value in defaults(kind).items() if key == "optimizer")
    name = str(recipe.settings.get("optimizer", own))
    if name not in rates:
        raise unknown("optimizer", name, rates)
    return {"learning_rate": rates[name]}


def _augment(suggest: Suggest) -> str | dict[str, Any]:
    """A ready policy, weaker or stronger."""
    policy = suggest("augment", Choice(POLICY_NAMES))
    return strengthened(policy, 1.0 if policy == "none" else suggest("augment_strength", STRENGTH))


def scratch(recipe: Recipe, suggest: Suggest, found: SearchContext) -> Recipe:
    """The network where it is `cnn`, the optimizer, the augmentation and the image size; growing images, with and without, only
    where the recipe has them, as not every network takes them."""
    spaces = {**TRAINING, **_rate(recipe, RATES["scratch"])}
    settings = {**recipe.settings, **{name: suggest(name, space) for name, space in spaces.items()}}
    settings["augment"] = _augment(suggest)
    bare, given = names.parse(network_of(recipe))
    network = network_of(recipe)
    if bare == "cnn":
        depth, width = suggest("depth", CNN["depth"]), suggest("width", CNN["width"])
        filters = [min(256, width << i) for i in range(depth)]
        network = names.spell("cnn", {**given, "filters": filters, "kernel": suggest("kernel", CNN["kernel"])})
        settings["dropout"] = suggest("dropout", CNN["dropout"])
    if settings.get("resize_from", 1) != 1:
        settings["resize_from"] = suggest("resize_from", Choice((1.0, settings["resize_from"])))
    settings.pop("network", None)
    size = suggest("image_size", Choice(_sizes(found.image_size)))
    return replace(recipe, backbone=network, image_size=size, settings=settings)


def _sizes(own: int) -> tuple[int, ...]:
    """A smaller and a larger image size beside the own one; twice the side is four times the work."""
    return tuple(sorted({max(16, own * 2 // 3 // 8 * 8), own, own * 3 // 2 // 8 * 8}))


def strengthened(policy: str, strength: float) -> str | dict[str, Any]:
    """A ready policy with every range so many times as wide, as far as it may be; chances of what changes little stay.

    Example:
        >>> strengthened("light", 1.0), strengthened("light", 2.0)["rotation"]
        ('light', 20.0)
    """
    from sightline.training import augment

    if strength == 1.0:
        return policy
    whole, plain = augment.POLICIES[policy], augment.Policy()
    changed: dict[str, Any] = {}
    for name, setting in augment.SETTINGS.items():
        low, high = whole.span(name) if setting.kind not in ("channels", "chance", "amount", "count") else (0.0, 0.0)
        value = getattr(whole, name)
        if value == getattr(plain, name):
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
"""Networks that a search over backbones tries where their weights are on this machine; nothing is downloaded for it."""

PIXEL_SIZES = (8, 16, 24)
"""Sides of the image as its own features, in pixels."""

HEAD_SPACES: dict[str, dict[str, Space]] = {
    "logistic": {"C": Range(1e-2, 1e4, log=True)},
    "ridge": {"alpha": Range(1e-3, 1e3, log=True)},
    "knn": {"neighbours": Range(1, 50, log=True, whole=True), "metric": Choice(("cosine", "euclidean"))},
    "centroid": {"shrinkage": Range(0.01, 1, log=True)},
    "forest": {"trees": Choice((100, 300)), "min_leaf": Range(1, 10, log=True, whole=True)},
    "mlp": {
        "layers": Range(0, 2, whole=True),
        "units": Range(32, 1024, log=True, whole=True),
        "dropout": Range(0, 0.6),
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "weight_decay": Range(1e-4, 0.3, log=True),
    },
}
"""Per kind of head, its settings; for `mlp` the hidden layers' number, the first one's width and their dropout."""

TRAINING: dict[str, Space] = {"weight_decay": Range(1e-3, 0.3, log=True), "label_smoothing": Range(0, 0.2)}
"""Settings of all that trains on pixels."""

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
"""What learns → optimizer → learning rates: an order of magnitude on both sides of the rate that each is mostly used with."""

FROZEN: dict[str, Space] = {
    "layers": Range(0, 2, whole=True),
    "units": Range(64, 1024, log=True, whole=True),
    "dropout": Range(0, 0.6),
}
"""Where the head alone learns: its layers as for `mlp`."""

FINETUNE: dict[str, Space] = {
    "layer_decay": Range(0.5, 1),
    "unfreeze": Choice((1, 2, "all")),
}
"""Where the network goes on learning."""

CNN: dict[str, Space] = {
    "depth": Range(2, 5, whole=True),
    "width": Range(8, 64, log=True, whole=True),
    "kernel": Choice((3, 5)),
    "dropout": Range(0, 0.5),
}
"""Blocks of `cnn`, filters of the first (each next has twice as many, 256 at most), their size, and dropout."""

POLICY_NAMES = ("none", "light", "photo", "strong", "handwriting", "texture")
STRENGTH = Range(0.5, 2, log=True)
"""How many times as wide a policy's ranges are."""

_NAMED = ("features", "frozen", "finetune")
"""Methods whose backbone is a pretrained network by name."""

SPACES: dict[str, Propose] = {
    "features": features,
    "scratch": scratch,
    "frozen": pretrained,
    "finetune": pretrained,
    "warmstart": pretrained,
}
"""Method → what draws its next recipe."""
