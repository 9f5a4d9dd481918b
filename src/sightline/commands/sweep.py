"""Sweep: train a recipe with some keys over several values, each with several seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import engine, studies
from sightline.commands import study
from sightline.commands.study import Study
from sightline.records import Catalog, Progress, Recipe, silent
from sightline.records.versions import RESULTS_VERSION
from sightline.runs import folder as folders
from sightline.runs.dataset import as_recipe, open_catalog, with_splits
from sightline.store import Cache, digest, plain, write_text
from sightline.training import process_group


@folders.releasing
def sweep(
    catalog: Catalog | str | Path,
    recipe: Recipe | str | Path,
    sweeps: Mapping[str, Sequence[Any]],
    out: str | Path | None = None,
    *,
    seeds: int = 1,
    device: str = "auto",
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Study:
    """Train a recipe once per combination of values and seed, and compare the results. The test split is not used.

    Each fit is a run below `out`. Finished fits are reused, interrupted ones resumed, so that a sweep with more values or
    seeds trains only the new ones.

    Args:
        catalog: Catalog, or the path of one, or a folder of photographs; all fits use the same splits.
        recipe: The recipe.
        sweeps: Key → values, such as `{"augment.rotation": [0, 15]}`. Several keys form a grid.
        out: Study folder to write; one below `runs` if None.
        seeds: Number of seeds per setting, counted up from that of the recipe.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        say: Function called with a line per fit.
        cache: Cache. Default: the user's cache.

    Returns:
        The study. Its `data` holds the table of settings, the paired tests and the conclusions.

    Raises:
        RequestError: If a key or a value is invalid (checked before the first fit), or the folder holds another study.
        DataError: If the images are not usable, or all fits failed.
    """
    started = time.perf_counter()
    process_group.check_alone("a sweep")
    cache, device = Cache() if cache is None else cache, engine.choose_device(device)
    recipe = as_recipe(recipe)
    fits = studies.plan(recipe, sweeps, seeds)
    catalog, _ = with_splits(open_catalog(catalog, progress), recipe.seed, cache, progress)
    for fit in fits:
        if fit.seed == recipe.seed:
            studies.check(fit.recipe, len(catalog.usable().classes), cache)
            studies.check_threshold(fit.recipe, catalog.usable().classes)
    request = {"recipe": recipe, "data": study.fingerprint(catalog), "version": RESULTS_VERSION}
    identity = digest([request, [f.recipe.id for f in fits]])
    folder = study.claim_folder(out, "sweep", catalog, request)
    earlier = study.load_finished(folder, identity, [folder / f.name / "run.json" for f in fits])
    if earlier is not None:
        return earlier
    catalogs.save(catalog, folder / "catalog.csv")
    keys, outcomes = list(sweeps), []
    for number, fit in enumerate(fits):
        progress("fits", number, len(fits))
        outcome = study.run_fit(fit, catalog, folder, device, progress, cache)
        outcomes.append(outcome)
        result = (
            outcome.why
            if outcome.val is None
            else f"{100 * float(np.mean(outcome.val.y_pred == outcome.val.y_true)):.1f} %, {outcome.seconds:.1f} s"
        )
        say(f"{studies.label(fit.setting, keys)}, seed {fit.seed}: {result}")
    progress("fits", len(fits), len(fits))
    results = studies.summarise(recipe, fits, outcomes)
    best = next(f for f in fits if plain(f.setting) == results.settings[results.best].setting)
    write_text(folder / "best.toml", folders.toml(best.recipe))
    return study.finish(folder, results, identity, catalog=catalog, started=started)
