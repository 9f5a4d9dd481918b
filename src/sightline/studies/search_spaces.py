"""Hyperparameter search: the recipes that a search may try on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sightline import networks
from sightline.errors import RequestError
from sightline.records import Recipe
from sightline.search_space import Suggest
from sightline.store import Cache
from sightline.training.method import SearchContext
from sightline.training.methods import METHODS, method_of

BACKBONES: Sequence[str] = (
    *networks.DEFAULTS,
    "mobilenetv2_100",
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
"""Networks that a search over backbones tries if their weights are on this machine; nothing is downloaded for it."""


def here(recipe: Recipe, image_size: int, max_parameters: float | None, cache: Cache) -> SearchContext:
    """Return the options of a search that need no download.

    Args:
        recipe: The recipe that the search starts from.
        image_size: Input side of its network, in pixels.
        max_parameters: Networks with more parameters are left out; None takes all.
        cache: Holds descriptions of networks.
    """
    backbones = [recipe.backbone]
    if recipe.weights == "pretrained" and method_of(recipe).pretrained and recipe.backbone not in networks.SPECIAL:
        others = [n for n in BACKBONES if n != recipe.backbone and networks.download_bytes(n, "pretrained", cache) is None]
        backbones += [n for n in others if _eligible(n, recipe, max_parameters, cache)]
    return SearchContext(tuple(backbones), image_size)


def _eligible(name: str, recipe: Recipe, max_parameters: float | None, cache: Cache) -> bool:
    """Return whether a network takes images of the recipe's size and is not too large."""
    if recipe.image_size is None and max_parameters is None:
        return True
    try:
        backbone = networks.describe_recipe(dataclasses.replace(recipe, backbone=name), cache)
    except RequestError:
        return False
    return max_parameters is None or backbone.parameters <= max_parameters


def search_space_of(recipe: Recipe) -> Callable[[Recipe, Suggest, SearchContext], Recipe]:
    """Return the function that draws the next recipe of a search.

    Raises:
        RequestError: If the method has nothing to search.
    """
    method = method_of(recipe)
    if method.search_space is None:
        known = ", ".join(name for name, m in METHODS.items() if m.search_space is not None)
        raise RequestError(f"there is nothing to tune in {method.name}", f"set method to one of {known}")
    return method.search_space
