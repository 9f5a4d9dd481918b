"""Main workflow: scan, find duplicates, split, fit candidates, evaluate the best on the test split, heatmaps, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sightline import catalog as catalogs
from sightline import evaluation, report, studies
from sightline.classifier import Classifier, environment
from sightline.commands import learning_curve
from sightline.deadline import Clock, Deadline, OutOfTimeError
from sightline.errors import DataError, RequestError, SightlineError, unknown
from sightline.explanation import similar_images
from sightline.explanation.pointing_game import read_places
from sightline.records import SPLITS, Catalog, Predictions, Preprocess, Progress, Recipe, Run, RunRecord, Scores, silent
from sightline.records.candidates import CandidateSummary, SharedScore, ShortcutCheck, SkippedCandidate
from sightline.records.data_summary import SplitSummary
from sightline.records.heatmaps import HeatmapProgress
from sightline.runs import audit as run_audit
from sightline.runs import error_analysis, executor, gallery, network_layers, resume, scored_run, test_set_log
from sightline.runs import folder as folders
from sightline.runs import record as records
from sightline.runs.candidates import Candidates, StepClock, finalists, fit_candidates
from sightline.runs.dataset import Dataset, load_dataset
from sightline.runs.plan import (
    CURVE_SHARE,
    HEATMAPS_SHARE,
    HELD_OUT_SHARE,
    Plan,
    Request,
    check,
    device_of,
    make_plan,
    methods_s,
)
from sightline.schema import from_json
from sightline.store import Cache, now, plain
from sightline.training import process_group
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Candidate, Context, decided, never_held_out, with_card
from sightline.training.methods import METHODS

Say = Callable[[str], None]
MOST_NAMED = 5
"""Unusable files named on the console; the report and catalog.csv list more."""


@folders.releasing
def run(
    request: Request,
    *,
    progress: Progress = silent,
    say: Say = lambda line: None,
    cache: Cache | None = None,
    clock: Clock = time.perf_counter,
) -> Run:
    """Train, select and test a classifier, and write a report.

    The report is written after the test split is scored; heatmaps and misclassified images are added as far as the time budget
    allows. `run.json` is written last: a folder without it is an unfinished run, which the same request resumes.

    Args:
        request: The options of the run.
        progress: Progress callback.
        say: Function called with each line of the plan and of the results.
        cache: Cache. Default: the user's cache.
        clock: Function that returns the time in seconds, by which the budget is measured.

    Returns:
        The run. A finished run of the same request is returned as it is.

    Raises:
        RequestError: If a name, a number or a path is wrong.
        DataError: If the photographs cannot be used for classification.
        WeightsError: If the weights of a named network are not available.
    """
    cache = Cache() if cache is None else cache
    check(request, cache)
    process_group.check_alone("a run")
    laps = _Laps(clock)
    ends = Deadline.after(request.time_s, clock)
    found = _noted(load_dataset(request, cache, progress))
    laps.lap("reading, duplicates, split")
    usable = found.catalog.usable()
    _refuse(request, found.catalog)
    _say_data(found, say)
    device = device_of(request)
    plan = make_plan(request, usable, cache, device, say, spent_s=laps.total())
    found = _with_crop_note(found, plan, say)
    laps.lap("looking for networks, plan")
    identity = plan.id(request, found.catalog)
    folder = Path(request.out) / f"{request.title}-{identity[:8]}"
    if request.resume and not folder.is_dir():
        raise RequestError(f"{request.out} has no interrupted run with these arguments", "leave out --resume")
    folders.lock(folder)
    earlier = reuse(folder)
    if earlier is not None:
        say(
            f"nothing has changed since the run of {earlier.data['created']}, which is reused; the test split is not used again"
        )
        return earlier
    for line in plan.lines:
        say(line)
    kept = folder / resume.FOLDER
    context = Context(
        usable,
        found.cluster[_usable_rows(found)],
        usable.classes,
        cache,
        device,
        progress=progress,
        allow_truncated=request.allow_truncated,
        checkpoint=kept,
        precision=request.precision,
    )
    scored = scored_run.load(folder, kept)
    if scored is None:
        resume.begin_run(folder, resume=request.resume)
        scored = _score(folder, request, found, plan=plan, context=context, ends=ends, laps=laps, say=say)
    else:
        say("resuming an interrupted run that has already scored the test split")
        laps.laps |= scored.laps
    record = dataclasses.replace(_with_test_use(scored, usable, folder, say), id=identity)
    record = records.with_environment(record, environment(device))
    return _fill(
        folder, request, context, dataset=found, plan=plan, scored=scored, record=record, ends=ends, laps=laps, say=say
    )


def _score(
    folder: Path,
    request: Request,
    found: Dataset,
    plan: Plan,
    context: Context,
    ends: Deadline,
    laps: _Laps,
    say: Say,
) -> scored_run.Opened:
    """Fit the candidates, select one and score it on the test split, once; save the result in the folder."""
    methods_end = ends.sooner(request.time_s - methods_s(request))
    climbed = fit_candidates(plan, context, methods_end, say, clock_decides=request.budget_s is not None)
    laps.lap("methods")
    picked = choose(climbed.candidates)
    say(_why_chosen(picked, climbed.candidates))
    unknown_classes = never_held_out(context, picked.val)
    if unknown_classes is not None:
        say(f"note: {unknown_classes}")
    if METHODS[picked.classifier.card.method].role == "reference" and climbed.skipped:
        say("CAUTION: no method that uses the photographs fitted into the time budget; raise --budget (features are cached)")
    curve_ends = ends.within(CURVE_SHARE * request.time_s)
    curve = learning_curve.of_run(
        folder, context, climbed.candidates, chosen=picked, deadline=curve_ends, spent_s=laps.total(), say=say
    )
    laps.lap("learning curve")
    chosen = with_uncertainty(context, _decided(picked, request))
    test = _predict_test(chosen, context)
    laps.lap("test")
    record = _describe(request, found, plan, climbed, (picked, chosen), test)
    record = records.with_classifier(record, chosen, folders.write_candidate(folder, chosen, found.catalog, test))
    again = folders.crossvalidate(folder / "catalog.csv", folder, test, again=_open_choice(climbed, chosen))
    record = dataclasses.replace(record, learning_curve=curve, crossvalidate_command=again)
    assert context.checkpoint is not None
    return scored_run.save(
        folder, context.checkpoint, scored_run.Opened(chosen.classifier, chosen.val, test, record, dict(laps.laps))
    )


def _fill(
    folder: Path,
    request: Request,
    context: Context,
    dataset: Dataset,
    plan: Plan,
    scored: scored_run.Opened,
    record: RunRecord,
    ends: Deadline,
    laps: _Laps,
    say: Say,
) -> Run:
    """Write the report, draw heatmaps and misclassified images, write the report again, and last `run.json`.

    Args:
        folder: The run folder.
        request: The options of the run.
        context: Images, labels and compute settings.
        dataset: The images and their duplicates.
        plan: The plan, which holds the networks.
        scored: The classifier and its predictions.
        record: The content of `run.json` so far.
        ends: Deadline of the run.
        laps: Seconds by stage.
        say: Function called with each line of the results.
    """
    _write_curves(folder, record, scored)
    model, catalog, seed, report_file = scored.classifier, context.catalog, request.seed, folder / "report.html"
    shown = scored.test if scored.test is not None and len(scored.test) else scored.val
    held_out = shown is scored.test
    samples = gallery.write_samples(folder, catalog, model.card.backbone.preprocess, seed)
    soon = ends.within(HELD_OUT_SHARE * request.time_s)
    thumbnails = gallery.write_held_out(folder, catalog, scored.val, model.card.backbone.preprocess, soon)
    assert record.dataset is not None
    record = dataclasses.replace(
        record, dataset=dataclasses.replace(record.dataset, samples=samples), held_out_images=thumbnails
    )
    record = records.with_errors(record, error_analysis.without_images(model, shown, held_out=held_out))
    none = request.heatmaps == "none"
    record = dataclasses.replace(record, heatmaps=HeatmapProgress(request.heatmaps, drawn=0, pending=not none))
    report_s = 1.5 * _write_report(record, laps, report_file)
    laps.lap("report")
    say(f"report: {report_file}" if none else f"report: {report_file} (heatmaps follow)")
    found = gallery.write_explanations(
        folder,
        model,
        catalog,
        shown,
        seed=seed,
        budget_s=ends.sooner(report_s).within(HEATMAPS_SHARE * request.time_s).left(),
        heatmaps=request.heatmaps,
        cache=context.cache,
        device=context.device,
        progress=context.progress,
        clock=ends.clock,
    )
    record = records.with_heatmaps(record, found)
    laps.lap("heatmaps")
    _say_heatmaps(found.progress, say)
    watched = StepClock(context.progress, ends.sooner(report_s), 0.0)
    record = _with_errors(folder, context, record, model=model, shown=shown, held_out=held_out, watched=watched)
    laps.lap("mistakes")
    context = dataclasses.replace(context, progress=watched)
    record = _with_audit(folder, dataset, context, plan, record, watched=watched, say=say)
    laps.lap("audit")
    if not ends.sooner(report_s).passed:
        record = dataclasses.replace(record, network_layers=network_layers.describe(folder, model, context.cache))
        laps.lap("network drawing")
    _write_report(record, laps, report_file)
    laps.lap("report, with pictures")
    done = folders.finish(folder, _timed(record, laps))
    report.write_card(done, folder)
    if context.checkpoint is not None:
        resume.finish_run(context.checkpoint)
    return done


def _write_curves(folder: Path, record: RunRecord, scored: scored_run.Opened) -> None:
    """Write the curves of the held-out and the test images."""
    criterion = None if record.threshold is None else record.threshold.criterion
    folders.write_curves(folder, record.predictions_in or "val", scored.val, record.val, criterion)
    folders.write_curves(folder, "test", scored.test, record.test, criterion)


def _write_report(record: RunRecord, laps: _Laps, file: Path) -> float:
    """Write the report of an unfinished run, and return the seconds that it took."""
    began = laps.clock()
    report.write_report([Run(file.parent, plain(_timed(record, laps).to_json()))], file)
    return laps.clock() - began


def _with_errors(
    folder: Path,
    context: Context,
    record: RunRecord,
    *,
    model: Classifier,
    shown: Predictions,
    held_out: bool,
    watched: StepClock,
) -> RunRecord:
    """Return the record with the error analysis of the shown predictions, or with a note if its deadline passes."""
    catalog = context.catalog
    try:
        watched.deadline.check()
        found = error_analysis.describe(
            folder,
            model,
            shown,
            catalog,
            similar_images.learnt_from(catalog),
            folders.clusters_of(catalog, context.cluster, shown),
            held_out=held_out,
            cache=context.cache,
            device=context.device,
            progress=watched,
        )
    except OutOfTimeError:
        left_out = "the nearest training images of mistakes, and the groups of images with more errors"
        return dataclasses.replace(record, left_out=[left_out])
    return records.with_errors(record, found)


def _with_audit(
    folder: Path, dataset: Dataset, context: Context, plan: Plan, record: RunRecord, *, watched: StepClock, say: Say
) -> RunRecord:
    """Return the record with the audit of train and val, or with a note if its deadline passes."""
    try:
        watched.deadline.check()
        tested = record.test is not None
        found = run_audit.describe(
            folder, dataset, context, run_audit.network_of(record, plan), record.shortcut, test_scored=tested
        )
    except OutOfTimeError:
        left_out = "likely label errors, outliers and the pretraining overlap"
        return dataclasses.replace(record, left_out=[*record.left_out, left_out])
    if found.likely:
        first = found.likely[0]
        named = f"{first.path}: {first.label}, similar images are {first.suggested}"
        tests = sum(s.split == "test" for s in found.likely)
        where = f"train and val: {len(found.likely) - tests:,}" + (f", in test: {tests:,}" if found.test_included else "")
        say(f"likely label errors in {where}, such as {named}; see the report")
    return dataclasses.replace(record, audit=found)


def _say_heatmaps(heatmaps: HeatmapProgress, say: Say) -> None:
    """Report the number of heatmaps if the budget did not suffice for all."""
    drawn, total, budget_s = heatmaps.drawn or 0, heatmaps.total or 0, heatmaps.budget_s
    if heatmaps.requested != "none" and drawn < total and budget_s is not None:
        say(f"heatmaps: {drawn} of {total} drawn within their share of the time budget ({budget_s:.0f} s)")


def _timed(record: RunRecord, laps: _Laps) -> RunRecord:
    """Return the record with the seconds by stage."""
    return dataclasses.replace(record, timings=dict(laps.laps), seconds=sum(laps.laps.values()))


def _open_choice(climbed: Candidates, chosen: Candidate) -> Recipe | None:
    """Return the chosen recipe with `head = "auto"` if the run selected among several heads; None otherwise."""
    card = chosen.classifier.card
    beside = [
        c
        for c in climbed.candidates
        if (c.classifier.card.method, c.classifier.card.backbone.name) == (card.method, card.backbone.name)
    ]
    if not METHODS[card.method].fits_heads or len({c.classifier.card.head for c in beside}) < 2:
        return None
    settings = {key: value for key, value in card.recipe.settings.items() if key != "head"}
    return dataclasses.replace(card.recipe, head="auto", settings=settings)


def _refuse(request: Request, catalog: Catalog) -> None:
    """Check that the images fit the request.

    Raises:
        RequestError: If the positive class is unknown.
        DataError: If there is only one class, or a threshold is requested for other than two classes.
    """
    usable, left_out = catalog.usable(), catalogs.left_out(catalog)
    if len(usable.classes) < 2:
        besides = f"; left out: {'; '.join(left_out)}" if left_out else ""
        raise DataError(
            f"all usable images belong to one class ({usable.classes[0]}){besides}", "a classifier needs at least two classes"
        )
    if request.positive is not None and request.positive not in usable.classes:
        raise unknown("class", request.positive, usable.classes)
    if request.recipe is not None:
        studies.check_threshold(_asked(request.recipe, request), usable.classes)
    if request.threshold not in (None, evaluation.HALF) and len(usable.classes) != 2:
        raise DataError(f"a threshold needs two classes, but there are {len(usable.classes)}", "leave out --threshold")


def reuse(folder: Path) -> Run | None:
    """Return the finished run in a folder, or None if it is incomplete. A missing report is written again."""
    if not (folder / "run.json").is_file():
        return None
    try:
        done = Run.load(folder)
    except SightlineError:
        return None
    if not done.classifier_file.is_file():
        return None
    if not (folder / "report.html").is_file():
        report.write_report([done], folder / "report.html")
    return done


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """Return the best candidate on held-out images.

    Heads of one backbone are compared on all their held-out images, methods on the images held out by all of them. `shortcut`
    is never chosen, since it does not use the photographs.
    """
    final, common = finalists(candidates), shared_images(candidates)

    def rank(c: Candidate) -> tuple[float, float]:
        shared = _on(c, common) if common else c
        return -shared.val_accuracy, shared.val_log_loss

    best = min(final, key=rank)
    higher = [c for c in final if c.val_accuracy > best.val_accuracy]
    if not higher or not common:
        return best
    # Another candidate has a higher accuracy on other images: explain the choice.
    others = ", ".join(f"{c.label} {_on(c, common).val_accuracy:.1%}" for c in higher)
    note = f"on the {len(common):,} held-out images shared by all methods: {_on(best, common).val_accuracy:.1%}; {others}"
    return dataclasses.replace(best, note=f"{best.note}; {note}" if best.note else note)


def shared_images(candidates: Sequence[Candidate]) -> set[str]:
    """Return the paths of the images held out by all methods, such as val if one of them trains a network.

    Empty if all methods held out the same images, or if none is common to all.
    """
    each = [set(c.val.paths) for c in finalists(candidates)]
    common = set.intersection(*each)
    return common if any(paths != common for paths in each) else set()


def _why_chosen(picked: Candidate, candidates: Sequence[Candidate]) -> str:
    """Return a line with the chosen candidate and its accuracy."""
    common = shared_images(candidates)
    if common:
        accuracy = _on(picked, common).val_accuracy
        images = f"the {len(common):,} held-out images shared by all methods"
        return f"best on validation: {picked.label}, accuracy {accuracy:.3f} on {images}"
    return f"best on validation: {picked.label}, accuracy {picked.val_accuracy:.3f} on {picked.estimate}"


def _on(candidate: Candidate, paths: set[str]) -> Candidate:
    """Return a candidate with its held-out predictions restricted to some images."""
    rows = np.array([p in paths for p in candidate.val.paths], dtype=bool)
    return dataclasses.replace(candidate, val=candidate.val.select(rows))


class _Laps:
    """Stopwatch: seconds by stage."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.started = self.last = clock()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = self.clock()
        self.laps[stage] = now - self.last
        self.last = now

    def total(self) -> float:
        return self.clock() - self.started


def _usable_rows(found: Dataset) -> np.ndarray:
    return np.array([p is None for p in found.catalog.column("problem")], dtype=bool)


def _noted(found: Dataset) -> Dataset:
    """Return the data set with notes on columns of object positions that cannot be used."""
    _, notes = read_places(found.catalog.usable())
    return dataclasses.replace(found, catalog=found.catalog.with_notes(*notes))


def _say_data(found: Dataset, say: Say) -> None:
    """Print the notes on the images and the unusable files."""
    for note in found.catalog.notes:
        say(catalogs.line_of(note))
    wrong = [
        (path, why) for path, why in zip(found.catalog.paths, found.catalog.column("problem"), strict=True) if why is not None
    ]
    if wrong:
        where = (
            "see “Files left out” in the report" if len(wrong) <= folders.MOST_LISTED else "see catalog.csv in the run folder"
        )
        first = "; ".join(f"{path} ({why})" for path, why in wrong[:MOST_NAMED])
        say(
            f"note: {len(wrong):,} files could not be used, such as {first}; {where}"
            if len(wrong) > MOST_NAMED
            else f"note: could not be used: {first}"
        )
    if found.leaks:
        tests = len({t for t, _ in found.leaks})
        say(f"note: {tests:,} test images are also in train; the test score is reported with and without them")


def _with_crop_note(found: Dataset, plan: Plan, say: Say) -> Dataset:
    """Print and return a note if the crop of a planned network cuts off much of wide or tall images."""
    fits = [backbone.preprocess for backbone in plan.backbones.values()]
    fits += [Preprocess(fit=s.recipe.fit or "crop") for s in plan.steps if METHODS[s.recipe.method].network == "random"]
    notes = [note for how in fits for note in [catalogs.of_crop(found.catalog, how)] if note is not None]
    for note in notes[:1]:
        say(catalogs.line_of(note))
    return dataclasses.replace(found, catalog=found.catalog.with_notes(*notes[:1]))


def _decided(chosen: Candidate, request: Request) -> Candidate:
    """Return the chosen classifier with positive class, threshold and validation scores in its card.

    The recipe in the card includes the requested options, so that training it again gives the same classifier.
    """
    recipe = _asked(chosen.classifier.card.recipe, request)
    chosen = decided(chosen, recipe.positive, recipe.threshold)
    scores = {"val": {"n": len(chosen.val), "accuracy": chosen.val_accuracy, "estimate": chosen.estimate}}
    return dataclasses.replace(chosen, classifier=with_card(chosen.classifier, scores=scores, recipe=recipe))


def _asked(recipe: Recipe, request: Request) -> Recipe:
    """Return a recipe with the positive class and the threshold of the request."""
    positive, threshold = request.positive or recipe.positive, request.threshold or recipe.threshold
    return dataclasses.replace(recipe, positive=positive, threshold=threshold)


def _predict_test(chosen: Candidate, context: Context) -> Predictions | None:
    """Return the predictions of the chosen classifier on the labelled test images; None if there are none."""
    tests = context.catalog.where(split="test")
    if not len(tests):
        return None
    answers = executor.current().predict(
        chosen.classifier, tests, cache=context.cache, device=context.device, progress=context.progress
    )
    return answers.select(answers.y_true >= 0)


def _with_test_use(scored: scored_run.Opened, usable: Catalog, folder: Path, say: Say) -> RunRecord:
    """Record the use of the test split in the test-set log, and return the record of the run with it."""
    test, card = scored.test, scored.classifier.card
    if test is None or not len(test):
        return scored.record
    content = dict(zip(usable.paths, usable.column("content"), strict=True))
    contents = [content[p] for p in test.paths]
    subject = test_set_log.subject(folder.name, test, contents, scored.classifier, None)
    by = f"{card.method} on {card.backbone.name} ({folder.name})"
    opening = test_set_log.opened(contents, [subject], verb="run", by=by, when=now())
    if len(opening.looks) > 1:
        say(f"Caution: some of these test images have been used in {len(opening.looks)} evaluations; see the report")
    return records.with_test_use(scored.record, opening, test)


def _describe(
    request: Request,
    found: Dataset,
    plan: Plan,
    climbed: Candidates,
    best: tuple[Candidate, Candidate],
    test: Predictions | None,
) -> RunRecord:
    """Return the parts of the record that are known after the test.

    Args:
        request: The options of the run.
        found: The images.
        plan: The plan.
        climbed: The fitted candidates.
        best: The chosen candidate as it was compared, and with its threshold.
        test: Its predictions on the test split; None if there is none.
    """
    _, chosen = best
    positive, leaked = chosen.classifier.card.positive, {t for t, _ in found.leaks}
    clean = None
    if test is not None and leaked:
        clean = test.select(np.array([p not in leaked for p in test.paths], dtype=bool))

    def score(answers: Predictions | None) -> Scores | None:
        return records.scores(answers, positive, None if answers is None else _groups(found, answers))

    return dataclasses.replace(
        records.begin("run", request.name or request.title),
        command=request.command,
        photos=request.photos,
        root=found.catalog.root.as_posix(),
        seed=request.seed,
        dataset=records.dataset_summary(found.catalog, found.twins),
        split=_split_summary(request, found),
        plan=plan.lines,
        candidates=_candidates(found, climbed.candidates, best),
        skipped=[SkippedCandidate(*each) for each in climbed.skipped],
        missing_weights=plan.missing,
        pretrained_networks=[name for name, backbone in plan.backbones.items() if backbone.pretrained_on != "nothing"],
        shortcut=_shortcut_check(climbed.candidates),
        val=score(chosen.val),
        val_estimate=chosen.estimate,
        test=score(test),
        test_without_leaks=score(clean),
        undecodable=chosen.undecodable,
        predictions_in=chosen.answers_name,
        mistakes_in="test" if test is not None and len(test) else chosen.answers_name,
        rerun_commands=[request.command] if request.command else [],
    )


def _groups(found: Dataset, answers: Predictions) -> np.ndarray:
    return folders.clusters_of(found.catalog, found.cluster, answers)


def _candidates(found: Dataset, candidates: Sequence[Candidate], best: tuple[Candidate, Candidate]) -> list[CandidateSummary]:
    """Return the entries of the candidates, the most accurate last."""
    (picked, chosen), common = best, shared_images(candidates)
    entries = []
    for candidate in sorted(candidates, key=lambda c: c.val_accuracy):
        this = _same(candidate, picked)
        entry = records.candidate_summary(
            picked if this else candidate, this, _groups(found, candidate.val), chosen if this else None
        )
        shared = _on(candidate, common)
        score = SharedScore(len(shared.val), shared.val_accuracy) if len(shared.val) else None
        entries.append(dataclasses.replace(entry, shared=score))
    return entries


def _shortcut_check(candidates: Sequence[Candidate]) -> ShortcutCheck | None:
    """Return the result of the classifier that sees file properties only; None if it was not fitted."""
    details = [c.detail for c in candidates if METHODS[c.classifier.card.method].role == "shortcut_check"]
    return from_json(ShortcutCheck, plain(details[0]), "shortcut check") if details else None


def _same(a: Candidate, b: Candidate) -> bool:
    return a.label == b.label and a.classifier.card.recipe == b.classifier.card.recipe


def _split_summary(request: Request, found: Dataset) -> SplitSummary:
    """Return how the images were divided."""
    usable = found.catalog.usable()
    train, val, test = (len(usable.where(split=s)) for s in SPLITS)
    proof = catalogs.split_proof(found.catalog, found.twins)
    return SplitSummary(
        given=found.given,
        moves=found.moves,
        val_share=request.val,
        test_share=request.test,
        seed=request.seed,
        group_by=request.group_by,
        train=train,
        val=val,
        test=test,
        clusters=proof.clusters,
        straddling=proof.straddling,
        proof=proof.sentence,
        leaks=found.leaks[: folders.MOST_LISTED],
        leaked=len({t for t, _ in found.leaks}),
    )
