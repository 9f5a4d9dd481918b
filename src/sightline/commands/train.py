"""Beside the main job: one recipe carried out, its learning rate looked for, and the demo."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import catalog as catalogs
from sightline import demo, engine, evaluation, report, studies
from sightline.classifier import environment
from sightline.commands.run import Say, reuse, run
from sightline.errors import RequestError
from sightline.explanation import similar_images
from sightline.records import Catalog, Progress, Recipe, Run, silent
from sightline.records.run import RESULTS_VERSION
from sightline.report import line_plots
from sightline.runs import distributed, error_analysis
from sightline.runs import folder as folders
from sightline.runs import resume as resuming
from sightline.runs.plan import Request
from sightline.schema import command_line
from sightline.store import Cache, digest, output_folder
from sightline.training import methods, process_group
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Context, decided

if TYPE_CHECKING:
    from sightline.catalog import Duplicates
    from sightline.training.lr_finder import LrCurve


@distributed.shared
@folders.releasing
def train(
    catalog: Catalog,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    continued: Run | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Run:
    """Carry one recipe out. The test split is not opened.

    What trains by epochs keeps itself in the folder's `checkpoint` as it goes, and leaves there what a later run can continue.
    Processes that `torchrun` started share its batches out; the first one alone writes.

    Args:
        catalog: With or without splits; without, 15 % go to validation and 20 % to the test.
        recipe: What to do.
        out: The run's folder.
        resume: Go on with what was interrupted in that folder, and end with the same bits as if it had not been; a finished
            run of the same recipe and images is given back as it is, asked for or not.
        continued: A finished run whose weights and optimizer go on, for as many epochs as the recipe says; the history is
            appended.
        device: `auto`, `cpu`, `cuda`, or `mps`.
        progress, cache: As everywhere.

    Raises:
        RequestError: The recipe is wrong, said before any image is looked at; the folder holds a run of another recipe or of
            other images, finished or interrupted; or there is nothing to continue.
    """
    started = time.perf_counter()
    cache = Cache() if cache is None else cache
    device = engine.choose_device(device)
    if process_group.here().first:
        folders.lock(Path(out))
    earlier = reuse(Path(out))
    if earlier is None:
        studies.check(recipe, len(catalog.usable().classes), cache)
        studies.check_threshold(recipe, catalog.usable().classes)
    divided, twins = _divided(catalog, recipe, cache, progress)
    catalogs.warn(n for n in divided.notes if n.startswith(catalogs.CAUTION) or n not in catalog.notes)
    before = [] if continued is None else [continued.data.get("id")]
    identity = digest([recipe.id, divided.fingerprint(), RESULTS_VERSION, *methods.source_hashes(recipe), *before])
    if earlier is not None and earlier.data.get("id") == identity:
        return earlier
    if (Path(out) / "run.json").is_file():
        studies.check(recipe, len(catalog.usable().classes), cache)
        studies.check_threshold(recipe, catalog.usable().classes)
        what = "is damaged" if earlier is None else "was made by another recipe or from other images"
        raise RequestError(f"the run in {out} {what}", "name another folder with -o")
    usable = divided.usable()
    cluster = catalogs.together(divided, twins)
    clusters = cluster[[p is None for p in divided.column("problem")]]
    folder = Path(out)
    kept = resuming.begin(folder, recipe, usable, resume=resume, continued=continued)
    context = Context(usable, clusters, usable.classes, cache, device, progress=progress, checkpoint=kept)
    fitted = methods.fit(context, recipe)[0]
    if not process_group.here().first:
        return Run(folder, {})
    best = with_uncertainty(context, decided(fitted, recipe.positive, recipe.threshold))
    preprocess = best.classifier.card.backbone.preprocess
    crop = catalogs.of_crop(usable, preprocess) if best.classifier.looks_at_images and not best.classifier.members else None
    if crop is not None:
        catalogs.warn([crop])
        divided = divided.with_notes(crop)
    positive, groups = best.classifier.card.positive, folders.clusters_of(divided, cluster, best.val)
    data: dict[str, Any] = {
        **folders.head("train", folder.name, identity),
        "photos": str(divided.root),
        "root": divided.root.as_posix(),
        "seed": recipe.seed,
        "data": catalogs.summarise(divided, twins),
        "ladder": [folders.rung(best, True, groups)],
        "val": evaluation.score(best.val, positive=positive, groups=groups),
        "val_estimate": best.estimate,
        "test": None,
        "test_openings": [],
        "undecodable": best.undecodable,
        "answers_in": best.answers_name,
        "mistakes_in": best.answers_name,
        "continued": None if continued is None else {"run": continued.folder.as_posix(), "epochs": continued.data["epochs"]},
    }
    data |= folders.write_candidate(folder, best, divided, None)
    folders.write_curves(folder, best.answers_name, best.val, data["val"], data["threshold"]["by"])
    learnt = similar_images.learnt_from(usable)
    own: dict[str, Any] = {"cache": cache, "device": device, "progress": progress}
    data |= error_analysis.describe(folder, best.classifier, best.val, usable, learnt, groups, held_out=False, **own)
    data |= {"environment": environment(device), "seconds": time.perf_counter() - started}
    done = folders.finish(folder, data)
    resuming.finish(kept)
    report.write_report([done], folder / "report.html")
    return done


def find_rate(
    catalog: Catalog,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> LrCurve:
    """Look for a good learning rate for a recipe, on its training images, and draw what each rate leads to.

    Args:
        catalog, recipe, device, progress, cache: As of `train`.
        out: The plot, which ends in .svg or .png.

    Raises:
        RequestError: The method has no learning rate that could be found, or the file is no plot.
        SightlineError: No rate made the loss fall.
    """
    process_group.check_alone("the search for a learning rate")
    cache = Cache() if cache is None else cache
    range_test = methods.method_of(recipe).find_lr
    if range_test is None:
        known = ", ".join(name for name, method in methods.METHODS.items() if method.find_lr is not None)
        raise RequestError(f"the learning rate of {recipe.method} cannot be looked for", f"methods that have one: {known}")
    studies.check(recipe, len(catalog.usable().classes), cache)
    studies.check_threshold(recipe, catalog.usable().classes)
    line_plots.check(out)
    divided, twins = _divided(catalog, recipe, cache, progress)
    usable = divided.usable()
    clusters = catalogs.together(divided, twins)[[p is None for p in divided.column("problem")]]
    context = Context(usable, clusters, usable.classes, cache, engine.choose_device(device), progress=progress)
    found = range_test(context, recipe)
    line_plots.rate_plot(found, out, f"Learning-rate range test: {recipe.method} of {recipe.backbone}")
    return found


def _divided(catalog: Catalog, recipe: Recipe, cache: Cache, progress: Progress) -> tuple[Catalog, Duplicates]:
    """The catalog with its splits, made where it has none, and which images are the same."""
    twins = catalogs.find_duplicates(catalog, cache=cache, progress=progress)
    if any(catalog.column("split")):
        return catalogs.with_duplicates(catalog, twins), twins
    return catalogs.split(catalog, seed=recipe.seed, clusters=twins, progress=progress), twins


DEMO_S = 110.0
"""The budget of the demo, in seconds."""


def run_demo(
    out: str = "sightline-demo",
    *,
    seed: int = 0,
    progress: Progress = silent,
    say: Say | Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Run:
    """The whole journey on the 1,797 handwritten digits that scikit-learn ships, as PNG files in class folders."""
    photos = demo.write_digits(output_folder(Path(out)) / "digits")
    say(f"1,797 real handwritten digits are in {photos}")
    command = command_line(
        "sightline", "run", str(photos), "-o", str(Path(out) / "runs"), "--backbone", "pixels", "--seed", str(seed)
    )
    request = Request(
        photos=str(photos),
        out=os.fspath(Path(out) / "runs"),
        backbones=("pixels",),
        seed=seed,
        budget_s=DEMO_S,
        heatmaps="few",
        command=command,
    )
    return run(request, progress=progress, say=say, cache=cache)
