"""How many parameters a recipe's classifier would have, counted without building or fitting it."""

from __future__ import annotations

import itertools
from typing import Any

from sightline import classifier, heads, networks
from sightline.records import Backbone, Recipe
from sightline.schema import from_json
from sightline.store import Cache
from sightline.studies.recipe_edit import build, network_of


def parameters(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """The trainable numbers of network and head; forests, neighbours and centroids add none.

    Args:
        recipe: Any.
        classes: k.
        image_size: What the network sees where the recipe names no size, in pixels; only `scratch` asks.
        cache: Where descriptions of networks are kept.

    Raises:
        RequestError: The network is not known, or cannot see such images.
    """
    if recipe.method in ("baseline", "shortcut"):
        return 0
    if recipe.method == "scratch":
        from sightline.training import fit_network

        side = recipe.image_size or image_size
        called = fit_network.called(network_of(recipe), side)
        made = networks.random_network(called, image_size=side, classes=classes, meta=True, cache=cache)
        return sum(p.numel() for name, p in made.net.named_parameters() if not name.startswith(_AUXILIARY))
    backbone = _backbone(recipe, cache)
    return backbone.parameters + _head(recipe, backbone.features, classes)


def _backbone(recipe: Recipe, cache: Cache) -> Backbone:
    """What stands below the head."""
    if recipe.method == "warmstart":
        return classifier.load(recipe.backbone).card.backbone
    return networks.describe_recipe(recipe, cache)


def _head(recipe: Recipe, width: int, classes: int) -> int:
    """Weights and biases of a head on `width` features."""
    layers: Any = ()
    if recipe.method != "features":  # trained on pixels: layers, if any, then a linear one
        layers = build(recipe).get("head")
        if layers is None:  # a linear head, or that of the earlier classifier
            layers = heads.hidden(classifier.load(recipe.backbone).head) if recipe.method == "warmstart" else ()
        layers = layers or ()
    elif recipe.head == "mlp":
        own: Any = from_json(heads.HEADS["mlp"].settings, recipe.settings.get("head", {}), "settings of the mlp head")
        layers = own.units
    elif recipe.head not in ("auto", "logistic", "ridge"):
        return 0
    widths = [width, *(units for units, _ in layers), classes]
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


_AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Heads that only training uses: they are gone from the classifier."""
