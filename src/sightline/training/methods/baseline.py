"""`baseline`: always predict the most frequent class, the score that any classifier has to beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from sightline.heads import constant
from sightline.records import Backbone, Preprocess, Recipe
from sightline.schema import from_json
from sightline.training.context import Candidate, Context
from sightline.training.method import Method
from sightline.training.methods.features import FeaturesSettings, fit_heads


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """Settings of `baseline`: it has none."""


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Fit the constant prediction of the most frequent class."""
    from_json(BaselineSettings, recipe.settings, "settings of baseline")
    backbone = Backbone("none", "none", Preprocess(), 0)
    kinds: Mapping[str, Mapping[str, object]] = {constant.HEAD.name: {}}
    return fit_heads(context, dataclasses.replace(recipe, backbone="none"), backbone, kinds, FeaturesSettings())


METHOD = Method(
    name="baseline",
    title="Most frequent class",
    settings=BaselineSettings,
    fit=fit,
    network="none",
    role="reference",
    fixed_backbone="none",
    fixed_head=constant.HEAD.name,
    by_default=True,
)
