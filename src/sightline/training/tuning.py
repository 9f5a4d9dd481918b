"""Search spaces that several training methods share: learning rates, regularisation, head layers, augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sightline.errors import unknown
from sightline.records import Recipe
from sightline.search_space import Choice, Range, Space, Suggest
from sightline.training.method import SearchContext

TRAINING: Mapping[str, Space] = {"weight_decay": Range(1e-3, 0.3, log=True), "label_smoothing": Range(0, 0.2)}
"""Settings of every method that trains on pixels."""
POLICY_NAMES = ("none", "light", "photo", "strong", "handwriting", "texture")
STRENGTH = Range(0.5, 2, log=True)
"""Factor on the ranges of an augmentation policy."""


def rate_space(recipe: Recipe, rates: Mapping[str, Space], default: str) -> dict[str, Space]:
    """Return the space of the learning rate for the recipe's optimizer.

    Args:
        recipe: Its settings may name the optimizer.
        rates: Optimizer → space of the learning rate.
        default: Optimizer of a recipe that names none.

    Raises:
        RequestError: If the optimizer is not known.
    """
    name = str(recipe.settings.get("optimizer", default))
    if name not in rates:
        raise unknown("optimizer", name, rates)
    return {"learning_rate": rates[name]}


def suggest_augmentation(suggest: Suggest) -> str | dict[str, Any]:
    """Draw an augmentation policy and its strength."""
    policy = suggest("augment", Choice(POLICY_NAMES))
    return strengthened(policy, 1.0 if policy == "none" else suggest("augment_strength", STRENGTH))


def suggest_recipe(recipe: Recipe, settings: Mapping[str, Any], suggest: Suggest, context: SearchContext) -> Recipe:
    """Return a recipe with drawn settings, an augmentation and, if several are available, a backbone.

    Args:
        recipe: The recipe that the search starts from.
        settings: Settings that were drawn already.
        suggest: Draws a value.
        context: The available backbones.
    """
    changed = {**recipe.settings, **settings, "augment": suggest_augmentation(suggest)}
    several = len(context.backbones) > 1
    name = suggest("backbone", Choice(context.backbones)) if several else recipe.backbone
    return dataclasses.replace(recipe, backbone=name, settings=changed)


def strengthened(policy: str, strength: float) -> str | dict[str, Any]:
    """Return an augmentation policy with its ranges multiplied by a factor, within what each setting allows.

    Probabilities of discrete changes, such as flips, stay as they are.

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
