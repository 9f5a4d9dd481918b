"""The main job: scan → duplicates → split → the ladder of methods → the test, once → heatmaps → report."""

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
"""Files with a problem that the console names; the report and catalog.csv name more."""


@folders.releasing
def run(
    request: Request,
    *,
    progress: Progress = silent,
    say: Say = lambda line: None,
    cache: Cache | None = None,
    clock: Clock = time.perf_counter,
) -> Run:
    """From photographs to a finished run with its report.

    The report is written as soon as the test split was scored; then heatmaps and pictures of mistakes are filled in, as far as
    the budget allows. `run.json` comes last: a folder without it is an unfinished run, which the same request goes on with.

    Args:
        request: What is asked for.
        progress: Told how far the long stages are.
        say: Given the plan and what happens, line by line.
        cache: The user's own if None.
        clock: Tells the seconds that the budget is measured by.

    Returns:
        The run; one that is finished and unchanged is given back as it is.

    Raises:
        RequestError: A name, a number or a path is wrong.
        DataError: The photographs do not allow it.
        WeightsError: A named network's weights cannot be had.
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
    found = _crop_told(found, plan, say)
    laps.lap("looking for networks, plan")
    identity = plan.id(request, found.catalog)
    folder = Path(request.out) / f"{photos_name(request.photos)}-{identity[:8]}"
    if request.resume and not folder.is_dir():
        raise RequestError(f"there is no interrupted run of this request in {request.out}", "leave out --resume")
    folders.lock(folder)
    earlier = reuse(folder)
    if earlier is not None:
        say(f"nothing has changed since {earlier.data['created']}: that run is given back, the test is not opened again")
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
        scored = _score(folder, request, found, plan, context, ends, laps, say)
    else:
        say("an interrupted run of this request has scored the test split: that is gone on with")
        laps.laps |= scored.laps
    data = {**scored.data, **_look(scored, usable, folder, say), "environment": environment(device), "id": identity}
    return _fill(folder, request, context, scored, data, ends, laps, say)


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
    """Fit, choose, and score the test split, the one time that it is looked at; all of that is kept in the folder."""
    methods_end = ends.sooner(request.time_s - methods_s(request))
    climbed = fit_candidates(plan, context, methods_end, say, clock_decides=request.budget_s is not None)
    laps.lap("methods")
    picked = choose(climbed.candidates)
    say(_why_chosen(picked, climbed.candidates))
    unknown_classes = never_held_out(context, picked.val)
    if unknown_classes is not None:
        say(f"note: {unknown_classes}")
    if METHODS[picked.classifier.card.method].role == "reference" and climbed.skipped:
        say("CAUTION: no method that looks at the photographs was finished; raise --budget (computed features are kept)")
    curve_ends = ends.within(CURVE_SHARE * request.time_s)
    curve = learning_curve.of_run(folder, context, climbed.candidates, picked, curve_ends, laps.total(), say)
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
    """Write the report, then draw what makes the numbers understood, write the report again, and last `run.json`.

    Args:
        folder: The run's.
        request: What is asked for.
        work: The images, and the means.
        scored: The classifier and its predictions.
        data: What is known so far, of `run.json`.
        ends: When the run has to end.
        laps: Seconds by stage.
        say: Takes lines for people.
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
        data["left_out"] = ["the training images that mistakes resemble, and the groups with more mistakes"]
    laps.lap("mistakes")
    write()
    laps.lap("report, with pictures")
    done = folders.finish(folder, _timed(data, laps))
    if context.checkpoint is not None:
        resume.finish_run(context.checkpoint)
    return done


def _say_heatmaps(data: Mapping[str, Any], say: Say) -> None:
    """Say how many heatmaps were drawn, where not all of them were."""
    told = data.get("heatmaps") or {}
    drawn, of, budget_s = told.get("drawn", 0), told.get("of", 0), told.get("budget_s")
    if told.get("asked") != "none" and drawn < of and budget_s is not None:
        say(f"heatmaps: {drawn} of {of} were drawn in their share of the budget ({budget_s:.0f} s)")


def _timed(data: Mapping[str, Any], laps: _Laps) -> dict[str, Any]:
    """The content of `run.json` with the seconds by stage, in JSON's types."""
    told: dict[str, Any] = plain({**data, "timings": laps.laps, "seconds": sum(laps.laps.values())})
    return told


def _open_choice(climbed: Candidates, chosen: Candidate) -> Recipe | None:
    """The chosen recipe with its head left open, where the run has chosen among heads; None where it has not."""
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
    """Refuse what these images do not allow.

    Raises:
        RequestError: A class is not known.
        DataError: There is one class only, or not the two that a threshold needs.
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
        raise DataError(f"a threshold needs two classes, here are {len(usable.classes)}", "leave out --threshold")


def reuse(folder: Path) -> Run | None:
    """The finished run in a folder, its report written again where it is missing; None where it is not whole."""
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
    """The best on held-out images: heads of one backbone by all of theirs, methods by those that all were held out on.

    `shortcut` is never chosen: it does not look at photographs.
    """
    final, common = finalists(candidates), shared_images(candidates)

    def rank(c: Candidate) -> tuple[float, float]:
        shared = _on(c, common) if common else c
        return -shared.val_accuracy, shared.val_log_loss

    best = min(final, key=rank)
    higher = [c for c in final if c.val_accuracy > best.val_accuracy]
    if not higher or not common:
        return best
    # A higher number on other images: say what decided.
    told = ", ".join(f"{c.label} {_on(c, common).val_accuracy:.1%}" for c in higher)
    mine = f"on the {len(common):,} images that all were held out on: {_on(best, common).val_accuracy:.1%}; {told}"
    return dataclasses.replace(best, note=f"{best.note}; {mine}" if best.note else mine)


def shared_images(candidates: Sequence[Candidate]) -> set[str]:
    """Return the paths of the images that all methods were held out on: those of val where a network is among them.

    Empty where each was held out on the same images, or no image is common to all.
    """
    each = [set(c.val.paths) for c in finalists(candidates)]
    common = set.intersection(*each)
    return common if any(paths != common for paths in each) else set()


def _why_chosen(picked: Candidate, candidates: Sequence[Candidate]) -> str:
    """The line that says what was chosen, and on which images."""
    common = shared_images(candidates)
    if common:
        accuracy = _on(picked, common).val_accuracy
        return (
            f"chosen: {picked.label}, accuracy {accuracy:.3f} on the {len(common):,} images that all methods were held out on"
        )
    return f"chosen: {picked.label}, accuracy {picked.val_accuracy:.3f} on {picked.estimate}"


def _on(candidate: Candidate, paths: set[str]) -> Candidate:
    """A candidate with its held-out answers on some images only."""
    rows = np.array([p in paths for p in candidate.val.paths], dtype=bool)
    return dataclasses.replace(candidate, val=candidate.val.select(rows))


class _Laps:
    """Seconds by stage."""

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
    """The same with a note on columns that no pointing game can be played with, before anything is trained."""
    _, notes = read_places(found.catalog.usable())
    return dataclasses.replace(found, catalog=found.catalog.with_notes(*notes))


def _say_data(found: Dataset, say: Say) -> None:
    """What was found, before anything is computed."""
    for note in found.catalog.notes:
        say(catalogs.line_of(note))
    wrong = [
        (path, why) for path, why in zip(found.catalog.paths, found.catalog.column("problem"), strict=True) if why is not None
    ]
    if wrong:
        where = "the report names them" if len(wrong) <= folders.MOST_LISTED else "catalog.csv in the run's folder names them"
        first = "; ".join(f"{path} ({why})" for path, why in wrong[:MOST_NAMED])
        say(
            f"note: {len(wrong):,} files are left out, such as {first}; {where}"
            if len(wrong) > MOST_NAMED
            else f"note: left out: {first}"
        )
    if found.leaks:
        tests = len({t for t, _ in found.leaks})
        say(f"note: {tests:,} test images are also in train; the score is given with and without them")


def _crop_told(found: Dataset, plan: Plan, say: Say) -> Dataset:
    """Say where a network of the plan does not see most of wide or tall images; the same with a note on it."""
    fits = [backbone.preprocess for backbone in plan.backbones.values()]
    fits += [Preprocess(fit=s.recipe.fit or "crop") for s in plan.steps if METHODS[s.recipe.method].network == "random"]
    notes = [note for how in fits for note in [catalogs.of_crop(found.catalog, how)] if note is not None]
    for note in notes[:1]:
        say(catalogs.line_of(note))
    return dataclasses.replace(found, catalog=found.catalog.with_notes(*notes[:1]))


def _decided(chosen: Candidate, request: Request) -> Candidate:
    """The chosen classifier with its positive class, its threshold and its validation scores in the card.

    The recipe in the card says what was asked for, so that it gives this very classifier again.
    """
    recipe = _asked(chosen.classifier.card.recipe, request)
    chosen = decided(chosen, recipe.positive, recipe.threshold)
    scores = {"val": {"n": len(chosen.val), "accuracy": chosen.val_accuracy, "estimate": chosen.estimate}}
    return dataclasses.replace(chosen, classifier=with_card(chosen.classifier, scores=scores, recipe=recipe))


def _asked(recipe: Recipe, request: Request) -> Recipe:
    """A recipe with the positive class and the threshold that the run was asked for."""
    positive, threshold = request.positive or recipe.positive, request.threshold or recipe.threshold
    return dataclasses.replace(recipe, positive=positive, threshold=threshold)


def _predict_test(chosen: Candidate, context: Context) -> Predictions | None:
    """The chosen classifier's predictions on the test split. None where there is none."""
    tests = context.catalog.where(split="test")
    if not len(tests):
        return None
    answers = chosen.classifier.predict(tests, cache=context.cache, device=context.device, progress=context.progress)
    return answers.select(answers.y_true >= 0)


def _look(scored: scored_run.Opened, usable: Catalog, folder: Path, say: Say) -> dict[str, Any]:
    """Count the opening of the test split, once for one classifier; the keys of run.json that speak of it."""
    test, card = scored.test, scored.classifier.card
    if test is None or not len(test):
        return {"test_openings": []}
    content = dict(zip(usable.paths, usable.column("content"), strict=True))
    contents = [content[p] for p in test.paths]
    asked = test_set_log.subject(folder.name, test, contents, scored.classifier, None)
    by = f"{card.method} on {card.backbone.name} ({folder.name})"
    opening = test_set_log.opened(contents, [asked], verb="run", by=by, when=folders.now())
    if len(opening.looks) > 1:
        say(f"note: these test images, or some of them, have been looked at {len(opening.looks)} times; see the report")
    return opening.as_data(float((test.y_pred == test.y_true).mean()), len(test))


def _describe(
    request: Request,
    found: Dataset,
    plan: Plan,
    climbed: Candidates,
    best: tuple[Candidate, Candidate],
    test: Predictions | None,
) -> dict[str, Any]:
    """The parts of run.json that are known once the test was opened.

    Args:
        best: What was chosen, as it was compared, and with its threshold.
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
    """The `split` block of run.json."""
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
