"""Training: one recipe carried out on a catalog, as a run folder."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from sightline import catalog as catalogs
from sightline import engine, report, studies
from sightline.classifier import environment
from sightline.commands.run import reuse
from sightline.errors import RequestError
from sightline.explanation import similar_images
from sightline.records import Catalog, Progress, Recipe, Run, RunRecord, silent
from sightline.records.candidates import ContinuedRun
from sightline.records.versions import RESULTS_VERSION
from sightline.runs import distributed, error_analysis, executor
from sightline.runs import folder as folders
from sightline.runs import record as records
from sightline.runs import resume as resuming
from sightline.runs.dataset import open_catalog, with_splits
from sightline.store import Cache, digest
from sightline.training import methods, process_group
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Candidate, Context, decided


@distributed.shared
@folders.releasing
def train(
    catalog: Catalog | str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    continued: Run | None = None,
    device: str = "auto",
    precision: Literal["auto", "f32", "bf16", "int8"] = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Run:
    """Train the classifier of a recipe. The test split is not used.

    Methods that train by epochs save checkpoints in the folder `checkpoint` of the run, from which a later run can continue.
    Processes started by `torchrun` share the batches; only the first one writes.

    Args:
        catalog: Catalog, or the path of one, or a folder of photographs. Without splits, 15 % of the images become val and
            20 % test.
        recipe: The recipe.
        out: Run folder to write.
        resume: Whether to resume an interrupted training in that folder, with bit-identical results. A finished run of the
            same recipe and images is returned as it is in either case.
        continued: Finished run whose weights and optimizer state are the starting point; the recipe sets the number of
            further epochs, and the history is appended.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: Precision of frozen networks; `auto` takes the fastest that agrees with float32 on these images.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Raises:
        RequestError: If the recipe is invalid (checked before any image is read), the folder holds a run of another recipe or
            of other images, or there is nothing to continue.
    """
    started = time.perf_counter()
    cache = Cache() if cache is None else cache
    device, folder = engine.choose_device(device), Path(out)
    catalog = open_catalog(catalog, progress)
    if process_group.here().first:
        folders.lock(folder)
    earlier = reuse(folder)
    if earlier is None:
        studies.check(recipe, len(catalog.usable().classes), cache)
        studies.check_threshold(recipe, catalog.usable().classes)
    divided, duplicates = with_splits(catalog, recipe.seed, cache, progress)
    catalogs.warn(n for n in divided.notes if n.startswith(catalogs.CAUTION) or n not in catalog.notes)
    before = [] if continued is None else [continued.data.get("id")]
    before += [] if precision == "auto" else [precision]
    identity = digest([recipe.id, divided.fingerprint(), RESULTS_VERSION, *methods.source_hashes(recipe), *before])
    if earlier is not None and earlier.data.get("id") == identity:
        return earlier
    if (folder / "run.json").is_file():
        studies.check(recipe, len(catalog.usable().classes), cache)
        studies.check_threshold(recipe, catalog.usable().classes)
        what = "is damaged" if earlier is None else "has another recipe or other images"
        raise RequestError(f"the run in {out} {what}", "name another folder with -o")
    usable = divided.usable()
    clusters = catalogs.together(divided, duplicates)[[p is None for p in divided.column("problem")]]
    checkpoint = resuming.begin(folder, recipe, usable, resume=resume, continued=continued)
    where: dict[str, Any] = {"checkpoint": checkpoint, "precision": precision}
    context = Context(usable, clusters, usable.classes, cache, device, progress=progress, **where)
    fitted = executor.current().fit(context, recipe)[0]
    if not process_group.here().first:
        return Run(folder, {})
    best = with_uncertainty(context, decided(fitted, recipe.positive, recipe.threshold))
    record = dataclasses.replace(
        records.begin("train", folder.name, identity),
        seed=recipe.seed,
        continued=None if continued is None else ContinuedRun(continued.folder.as_posix(), continued.data["epochs"]),
    )
    record = _write(folder, record, best, context, divided=_with_crop_note(divided, best), duplicates=duplicates)
    done = folders.finish(folder, records.with_environment(record, environment(device), time.perf_counter() - started))
    resuming.finish(checkpoint)
    report.write_report([done], folder / "report.html")
    return done


def _with_crop_note(catalog: Catalog, best: Candidate) -> Catalog:
    """Return the catalog with a note, which is logged, if the classifier's crop cuts off much of wide or tall images."""
    model = best.classifier
    if not model.looks_at_images or model.members:
        return catalog
    note = catalogs.of_crop(catalog.usable(), model.card.backbone.preprocess)
    if note is None:
        return catalog
    catalogs.warn([note])
    return catalog.with_notes(note)


def _write(
    folder: Path, record: RunRecord, best: Candidate, context: Context, *, divided: Catalog, duplicates: catalogs.Duplicates
) -> RunRecord:
    """Write classifier, predictions, curves and thumbnails, and return the record with all blocks but time and environment.

    Args:
        folder: The run folder.
        record: The record so far.
        best: The trained classifier.
        context: Images, labels and compute settings.
        divided, duplicates: All rows with splits, and their duplicates.
    """
    usable = context.catalog
    groups = folders.clusters_of(usable, context.cluster, best.val)
    record = dataclasses.replace(
        record,
        photos=str(divided.root),
        root=divided.root.as_posix(),
        dataset=records.dataset_summary(divided, duplicates),
        candidates=[records.candidate_summary(best, True, groups)],
        val=records.scores(best.val, best.classifier.card.positive, groups),
        val_estimate=best.estimate,
        undecodable=best.undecodable,
        predictions_in=best.answers_name,
        mistakes_in=best.answers_name,
    )
    record = records.with_classifier(record, best, folders.write_candidate(folder, best, divided, None))
    folders.write_curves(folder, best.answers_name, best.val, record.val, best.classifier.card.threshold_by)
    found = error_analysis.describe(
        folder,
        best.classifier,
        best.val,
        usable,
        similar_images.learnt_from(usable),
        groups,
        held_out=False,
        cache=context.cache,
        device=context.device,
        progress=context.progress,
    )
    return records.with_errors(record, found)
