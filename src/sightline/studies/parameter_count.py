"""Parameter count: the number of trained parameters of a recipe's classifier, without building or fitting it."""

from __future__ import annotations

from typing import Any

from sightline import classifier, heads, networks
from sightline.records import Backbone, Recipe
from sightline.store import Cache
from sightline.studies.recipe_edit import build, network_of


def parameters(recipe: Recipe, classes: int, image_size: int, cache: Cache) -> int:
    """Return the number of parameters of network and head; class means, neighbours and trees count as none.

    Args:
        recipe: The recipe.
        classes: k.
        image_size: Side of the input of `scratch` if the recipe sets none, in pixels.
        cache: Cache of network descriptions.

    Raises:
        RequestError: If the network is unknown, or does not accept images of that size.
    """
    if recipe.method in ("baseline", "shortcut"):
        return 0
    if recipe.method == "scratch":
        from sightline.training import fit_network

        side = recipe.image_size or image_size
        network = fit_network.called(network_of(recipe), side)
        built = networks.random_network(network, image_size=side, classes=classes, meta=True, cache=cache)
        return sum(p.numel() for name, p in built.net.named_parameters() if not name.startswith(_AUXILIARY))
    backbone = _backbone(recipe, cache)
    return backbone.parameters + _head(recipe, backbone.features, classes)


def _backbone(recipe: Recipe, cache: Cache) -> Backbone:
    """Return the backbone of a recipe."""
    if recipe.method == "warmstart":
        return classifier.load(recipe.backbone).card.backbone
    return networks.describe_recipe(recipe, cache)


def _head(recipe: Recipe, width: int, classes: int) -> int:
    """Return the number of weights and biases of the head on `width` features; for `auto`, those of a linear head."""
    if recipe.method == "features" and recipe.head != heads.AUTO:
        settings: Any = heads.settings_of(recipe.head, recipe.settings.get("head", {}))
        return heads.HEADS[recipe.head].count_parameters(settings, width, classes)
    hidden: Any = ()
    if recipe.method != "features":  # trained on pixels: hidden layers, if any, then a linear layer
        hidden = build(recipe).get("head")
        if hidden is None and recipe.method == "warmstart":  # the head of the earlier classifier
            hidden = heads.hidden(classifier.load(recipe.backbone).head)
    return heads.layer_parameters([width, *(units for units, _ in hidden or ()), classes])


_AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""Name prefixes of auxiliary classifiers, which training removes at its end."""
