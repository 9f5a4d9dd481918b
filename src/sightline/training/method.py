"""Method: the registry record of one training method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sightline.records import Recipe
from sightline.search_space import Suggest
from sightline.store import Cache
from sightline.training.context import Candidate, Context

if TYPE_CHECKING:
    from sightline.training.lr_finder import LrCurve


@dataclass(frozen=True, slots=True)
class Workload:
    """Size of the work that the duration of a method is estimated from.

    Args:
        images: Number of images.
        budget_s: Time budget of the whole run, in seconds.
        features_s: Estimate of the seconds that extracting the features of all images takes.
        forward_s: Estimate of the seconds of one forward pass over all images with the fastest of the networks.
        device: `cpu`, `cuda` or `mps`.
    """

    images: int
    budget_s: float
    features_s: float = 0.0
    forward_s: float = 0.0
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class SearchContext:
    """Options of a hyperparameter search on this machine, with these images.

    Args:
        backbones: Networks whose weights are on this machine, the recipe's own first.
        image_size: Input side of the recipe's network without a search, in pixels.
    """

    backbones: tuple[str, ...]
    image_size: int


def file_seconds(workload: Workload) -> float:
    """Return the estimated seconds of a method that reads files, or predictions, and fits a small head."""
    return 1 + workload.images / 800


@dataclass(frozen=True, slots=True)
class Method:
    """Record of one training method in METHODS: everything that the rest of the program knows about it.

    Args:
        name: Name in recipes and files, the key in METHODS.
        title: Name for people.
        settings: Dataclass of its settings.
        fit: Carry a recipe out: (context, recipe) → candidates.
        network: What `backbone` in its recipes names: a `pretrained` network; a network with `random` weights; the file of an
            earlier `classifier`; nothing, since its parts are `members` listed in its settings; or nothing at all (`none`).
        role: `classifier`; or `reference`, always fitted so that there is something to compare with; or `shortcut_check`, which
            shows what file properties alone give away. A run prefers any `classifier` to a `shortcut_check`.
        further_settings: recipe → a second settings dataclass, whose keys stand beside those of `settings`.
        network_setting: Key of the settings that may name the network in place of the recipe's `backbone`.
        fixed_backbone, fixed_head: Backbone and head that it always has.
        find_lr: Run a learning-rate range test; None without a learning rate.
        check: (recipe, its settings by name, number of classes, cache) → None; raises RequestError if the recipe cannot be
            carried out, as far as that shows without an image.
        search_space: Draw the next recipe of a hyperparameter search; None if there is nothing to search.
        count_parameters: (recipe, number of classes, default image side in pixels, cache) → number of trainable parameters of
            network and head, counted without building or fitting them; None if there is nothing to search.
        estimate_seconds: Estimate the duration.
        image_size: (context, recipe) → input side in pixels if the recipe names none; None if the network decides it.
        source_files: recipe → runs or files of the classifiers that it begins with.
        by_default: Whether a run tries it by default.
        by_epochs: Whether it trains with gradient steps on pixels, epoch by epoch.
        distributed: Whether several processes can share its work.
        fills_time: Whether it measures its own speed and trains for as many epochs as the time allows.
        fits_heads: Whether it fits heads on cached features, so that one extraction serves many heads.
        cross_validates: Whether a recipe of it can be cross-validated.
    """

    name: str
    title: str
    settings: type
    fit: Callable[[Context, Recipe], list[Candidate]]
    network: Literal["pretrained", "random", "classifier", "members", "none"]
    role: Literal["classifier", "reference", "shortcut_check"] = "classifier"
    further_settings: Callable[[Recipe], type] | None = None
    network_setting: str | None = None
    fixed_backbone: str | None = None
    fixed_head: str | None = None
    find_lr: Callable[[Context, Recipe], LrCurve] | None = None
    check: Callable[[Recipe, Mapping[str, Any], int, Cache], None] | None = None
    search_space: Callable[[Recipe, Suggest, SearchContext], Recipe] | None = None
    count_parameters: Callable[[Recipe, int, int, Cache], int] | None = None
    estimate_seconds: Callable[[Workload], float] = file_seconds
    image_size: Callable[[Context, Recipe], int] | None = None
    source_files: Callable[[Recipe], Sequence[str]] = lambda recipe: ()
    by_default: bool = False
    by_epochs: bool = False
    distributed: bool = False
    fills_time: bool = False
    fits_heads: bool = False
    cross_validates: bool = True

    @property
    def pretrained(self) -> bool:
        """Return whether its recipes name a pretrained network."""
        return self.network == "pretrained"

    def settings_of(self, recipe: Recipe) -> tuple[type, ...]:
        """Return the dataclasses that hold the settings of a recipe; all but the last one take their keys first."""
        return (self.settings,) if self.further_settings is None else (self.settings, self.further_settings(recipe))

    def given_settings(self, recipe: Recipe) -> dict[str, Any]:
        """Return the settings of a recipe, with the network among them if the method has a setting for it."""
        network = {self.network_setting: recipe.backbone} if self.network_setting else {}
        return {**network, **recipe.settings}

    def network_of(self, recipe: Recipe) -> str:
        """Return the name of the network that a recipe trains or extracts features with."""
        return str(recipe.settings.get(self.network_setting, recipe.backbone) if self.network_setting else recipe.backbone)
