"""Main workflow: scan, find duplicates, split, fit candidates, evaluate the best on the test split, heatmaps, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import __version__, evaluation, report, studies
from sightline import catalog as catalogs
from sightline.classifier import environment
from sightline.commands import learning_curve
from sightline.deadline import Clock, Deadline, OutOfTimeError
from sightline.errors import DataError, RequestError, SightlineError, unknown
from sightline.explanation import similar_images
from sightline.explanation.pointing_game import read_places
from sightline.records import Catalog, Predictions, Preprocess, Progress, Recipe, Run, silent
from sightline.runs import error_analysis, gallery, resume, scored_run, test_set_log
from sightline.runs import folder as folders
from sightline.runs.candidates import Candidates, StepClock, finalists, fit_candidates
from sightline.runs.dataset import Dataset, load_dataset
from sightline.runs.plan import CURVE_SHARE, HEATMAPS_SHARE, Plan, Request, check, device_of, make_plan, methods_s, photos_name
from sightline.store import Cache, plain
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
    folder = Path(request.out) / f"{photos_name(request.photos)}-{identity[:8]}"
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
    )
    scored = scored_run.load(folder, kept)
    if scored is None:
        resume.begin_run(folder, resume=request.resume)
        scored = _score(folder, request, found, plan=plan, context=context, ends=ends, laps=laps, say=say)
    else:
        say("resuming an interrupted run that has already scored the test split")
        laps.laps |= scored.laps
    data = {**scored.data, **_look(scored, usable, folder, say), "environment": environment(device), "id": identity}
    return _fill(folder, request, context, scored=scored, data=data, ends=ends, laps=laps, say=say)


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
    data = _describe(request, found, plan, climbed, (picked, chosen), test)
    data |= folders.write_candidate(folder, chosen, found.catalog, test)
    data |= curve
    again = _open_choice(climbed, chosen)
    data["crossvalidate"] = folders.crossvalidate(folder / "catalog.csv", folder, test, again=again)
    assert context.checkpoint is not None
    return scored_run.save(
        folder, context.checkpoint, scored_run.Opened(chosen.classifier, chosen.val, test, data, dict(laps.laps))
    )


def _fill(
    folder: Path,
    request: Request,
    context: Context,
    scored: scored_run.Opened,
    data: dict[str, Any],
    ends: Deadline,
    laps: _Laps,
    say: Say,
) -> Run:
    """Write the report, draw heatmaps and misclassified images, write the report again, and last `run.json`.

    Args:
        folder: The run folder.
        request: The options of the run.
        context: Images, labels and compute settings.
        scored: The classifier and its predictions.
        data: The content of `run.json` so far.
        ends: Deadline of the run.
        laps: Seconds by stage.
        say: Function called with each line of the results.
    """
    for name, key, answers in ((data["answers_in"], "val", scored.val), ("test", "test", scored.test)):
        folders.write_curves(folder, name, answers, data[key], data["threshold"]["by"])
    model, catalog, seed, report_file = scored.classifier, context.catalog, request.seed, folder / "report.html"
    shown = scored.test if scored.test is not None and len(scored.test) else scored.val
    held_out = shown is scored.test
    own: dict[str, Any] = {"cache": context.cache, "device": context.device}
    data["data"]["samples"] = gallery.write_samples(folder, catalog, model.card.backbone.preprocess, seed)
    data |= error_analysis.facts(model, shown, held_out=held_out)

    def write() -> float:
        began = ends.clock()
        report.write_report([Run(folder, _timed(data, laps))], report_file)
        return ends.clock() - began

    data["heatmaps"] = {"asked": request.heatmaps, "drawn": 0, "pending": request.heatmaps != "none"}
    report_s = 1.5 * write()
    laps.lap("report")
    say(f"report: {report_file} (heatmaps follow)" if request.heatmaps != "none" else f"report: {report_file}")
    share = HEATMAPS_SHARE * request.time_s
    drawn_until = ends.sooner(report_s).within(share)
    data |= gallery.write_explanations(
        folder,
        model,
        catalog,
        shown,
        seed=seed,
        budget_s=drawn_until.left(),
        heatmaps=request.heatmaps,
        progress=context.progress,
        clock=ends.clock,
        **own,
    )
    laps.lap("heatmaps")
    _say_heatmaps(data, say)
    groups = folders.clusters_of(catalog, context.cluster, shown)
    watched = StepClock(context.progress, ends.sooner(report_s), 0.0)
    try:
        watched.deadline.check()
        own |= {"progress": watched}
        data |= error_analysis.describe(
            folder, model, shown, catalog, similar_images.learnt_from(catalog), groups, held_out=held_out, **own
        )
    except OutOfTimeError:
        data["left_out"] = ["the nearest training images of mistakes, and the groups of images with more errors"]
    laps.lap("mistakes")
    write()
    laps.lap("report, with pictures")
    done = folders.finish(folder, _timed(data, laps))
    if context.checkpoint is not None:
        resume.finish_run(context.checkpoint)
    return done


def _say_heatmaps(data: Mapping[str, Any], say: Say) -> None:
    """Report the number of heatmaps if the budget did not suffice for all."""
    heatmaps = data.get("heatmaps") or {}
    drawn, of, budget_s = heatmaps.get("drawn", 0), heatmaps.get("of", 0), heatmaps.get("budget_s")
    if heatmaps.get("asked") != "none" and drawn < of and budget_s is not None:
        say(f"heatmaps: {drawn} of {of} drawn within their share of the time budget ({budget_s:.0f} s)")


def _timed(data: Mapping[str, Any], laps: _Laps) -> dict[str, Any]:
    """Return the content of `run.json` with the seconds by stage, in JSON types."""
    value: dict[str, Any] = plain({**data, "timings": laps.laps, "seconds": sum(laps.laps.values())})
    return value


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
    answers = chosen.classifier.predict(tests, cache=context.cache, device=context.device, progress=context.progress)
    return answers.select(answers.y_true >= 0)


def _look(scored: scored_run.Opened, usable: Catalog, folder: Path, say: Say) -> dict[str, Any]:
    """Record the use of the test split in the test-set log, and return its keys of run.json."""
    test, card = scored.test, scored.classifier.card
    if test is None or not len(test):
        return {"test_openings": []}
    content = dict(zip(usable.paths, usable.column("content"), strict=True))
    contents = [content[p] for p in test.paths]
    asked = test_set_log.subject(folder.name, test, contents, scored.classifier, None)
    by = f"{card.method} on {card.backbone.name} ({folder.name})"
    opening = test_set_log.opened(contents, [asked], verb="run", by=by, when=folders.now())
    if len(opening.looks) > 1:
        say(f"Caution: some of these test images have been used in {len(opening.looks)} evaluations; see the report")
    return opening.as_data(float((test.y_pred == test.y_true).mean()), len(test))


def _describe(
    request: Request,
    found: Dataset,
    plan: Plan,
    climbed: Candidates,
    best: tuple[Candidate, Candidate],
    test: Predictions | None,
) -> dict[str, Any]:
    """Return the parts of run.json that are known after the test.

    Args:
        request: The options of the run.
        found: The images.
        plan: The plan.
        climbed: The fitted candidates.
        best: The chosen candidate as it was compared, and with its threshold.
        test: Its predictions on the test split; None if there is none.
    """
    candidates, (picked, chosen) = climbed.candidates, best
    usable, positive = found.catalog.usable(), chosen.classifier.card.positive
    shortcut = next((c.detail for c in candidates if METHODS[c.classifier.card.method].role == "shortcut_check"), None)
    leaked = {t for t, _ in found.leaks}
    clean = None
    if test is not None and leaked:
        clean = test.select(np.array([p not in leaked for p in test.paths], dtype=bool))
    ordered = sorted(candidates, key=lambda c: c.val_accuracy)
    skipped = [{"method": method, "backbone": backbone, "why": why} for method, backbone, why in climbed.skipped]

    def groups(answers: Predictions) -> np.ndarray:
        return folders.clusters_of(found.catalog, found.cluster, answers)

    def score(answers: Predictions | None) -> dict[str, Any] | None:
        if answers is None or not len(answers):
            return None
        return evaluation.score(answers, positive=positive, groups=groups(answers))

    common = shared_images(candidates)

    def rung(candidate: Candidate) -> dict[str, Any]:
        this = _same(candidate, picked)
        told = folders.rung(picked if this else candidate, this, groups(candidate.val), chosen if this else None)
        shared = _on(candidate, common)
        return {**told, "shared": {"n": len(shared.val), "accuracy": shared.val_accuracy} if len(shared.val) else None}

    return {
        "version": 1,
        "sightline": __version__,
        "kind": "run",
        "name": photos_name(request.photos),
        "created": folders.now(),
        "command": request.command,
        "photos": request.photos,
        "root": found.catalog.root.as_posix(),
        "seed": request.seed,
        "data": catalogs.summarise(found.catalog, found.twins),
        "split": _split_facts(request, found, usable),
        "plan": list(plan.lines),
        "ladder": [rung(c) for c in ordered],
        "skipped": skipped,
        "not_at_hand": list(plan.missing),
        "shortcut": shortcut,
        "val": score(chosen.val),
        "val_estimate": chosen.estimate,
        "test": score(test),
        "test_without_leaks": score(clean),
        "undecodable": chosen.undecodable,
        "answers_in": chosen.answers_name,
        "mistakes_in": "test" if test is not None and len(test) else chosen.answers_name,
        "rerun": [request.command] if request.command else [],
    }


def _same(a: Candidate, b: Candidate) -> bool:
    return a.label == b.label and a.classifier.card.recipe == b.classifier.card.recipe


def _split_facts(request: Request, found: Dataset, usable: Any) -> dict[str, Any]:
    """Return the `split` block of run.json."""
    counts: Mapping[str, int] = {s: len(usable.where(split=s)) for s in ("train", "val", "test")}
    return {
        "given": found.given,
        "moves": found.moves,
        "val": request.val,
        "test": request.test,
        "seed": request.seed,
        "group_by": request.group_by,
        "train": counts["train"],
        "val_n": counts["val"],
        "test_n": counts["test"],
        "clusters": len(found.twins.exact) + len(found.twins.near),
        "straddling": catalogs.straddling(found.catalog, found.twins),
        "leaks": [list(pair) for pair in found.leaks[: folders.MOST_LISTED]],
        "leaked": len({t for t, _ in found.leaks}),
    }
