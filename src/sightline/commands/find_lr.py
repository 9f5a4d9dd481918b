"""Learning-rate range test: find the learning rate at which the loss falls fastest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sightline import catalog as catalogs
from sightline import engine, studies
from sightline.errors import RequestError
from sightline.records import Catalog, Progress, Recipe, silent
from sightline.report import line_plots
from sightline.runs.dataset import open_catalog, with_splits
from sightline.store import Cache
from sightline.training import methods, process_group
from sightline.training.context import Context

if TYPE_CHECKING:
    from sightline.training.lr_finder import LrCurve


def find_lr(
    catalog: Catalog | str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> LrCurve:
    """Find a learning rate for a recipe on its training images, and plot the loss at each rate.

    Args:
        catalog, recipe, device, progress, cache: As in `train`.
        out: Plot to write, .svg or .png.

    Raises:
        RequestError: If the method has no learning rate, or `out` has another suffix.
        SightlineError: If the loss does not fall at any rate.
    """
    process_group.check_alone("the search for a learning rate")
    cache = Cache() if cache is None else cache
    range_test = methods.method_of(recipe).find_lr
    if range_test is None:
        known = ", ".join(name for name, method in methods.METHODS.items() if method.find_lr is not None)
        raise RequestError(f"{recipe.method} has no learning rate to find", f"methods with a learning rate: {known}")
    catalog = open_catalog(catalog, progress)
    studies.check(recipe, len(catalog.usable().classes), cache)
    studies.check_threshold(recipe, catalog.usable().classes)
    line_plots.check(Path(out))
    catalog, duplicates = with_splits(catalog, recipe.seed, cache, progress)
    usable = catalog.usable()
    clusters = catalogs.together(catalog, duplicates)[[p is None for p in catalog.column("problem")]]
    context = Context(usable, clusters, usable.classes, cache, engine.choose_device(device), progress=progress)
    curve = range_test(context, recipe)
    line_plots.rate_plot(curve, Path(out), f"Learning-rate range test: {recipe.method} of {recipe.backbone}")
    return curve
