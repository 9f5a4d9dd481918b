"""`ensemble`: the weighted mean of several classifiers' probabilities, of runs or of one recipe under several seeds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, heads
from sightline.classifier import Classifier, versions
from sightline.errors import DataError, RequestError, SightlineError
from sightline.inputs import read_predictions
from sightline.records import Backbone, Card, Head, Predictions, Recipe, Run
from sightline.schema import from_json
from sightline.store import stream
from sightline.training.context import VAL, Candidate, Context, with_card

MOST_MEMBERS = 100
_ROUNDS = 500
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class EnsembleSettings:
    """Settings of `ensemble`: either `members`, or `recipe` and `seeds`.

    Args:
        members: Folders of runs, or classifiers' files, 2 to 100, of the same classes.
        recipe: What is trained under several seeds, as in a recipe's file: `{"method": "scratch", "backbone": "cnn"}`.
        seeds: How many, 2 to 100: the recipe's own seed and those that follow.
        weights: How much each member counts, not negative; `equal`; or `validation`, those whose mean has the least log loss on
            held-out images.
    """

    members: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    weights: tuple[float, ...] | Literal["equal", "validation"] = "equal"

    def __post_init__(self) -> None:
        if bool(self.members) == bool(self.recipe):
            hint = 'set members = ["runs/a", "runs/b"], or recipe = {method = "scratch"} and seeds = 3'
            raise RequestError("an ensemble is of members or of one recipe under several seeds, one of the two", hint)
        count = len(self.members) if self.members else self.seeds
        if not 2 <= count <= MOST_MEMBERS:
            raise RequestError(f"an ensemble of {count} makes no sense", f"it has 2 to {MOST_MEMBERS} members")
        if isinstance(self.weights, tuple):
            if len(self.weights) != count:
                raise RequestError(f"{len(self.weights)} weights do not fit {count} members", "give one for each")
            if not (all(0 <= w < float("inf") for w in self.weights) and sum(self.weights) > 0):
                raise RequestError(f"the weights {list(self.weights)} cannot be", "they are not negative, and one is positive")


@dataclass(frozen=True, slots=True)
class Member:
    """One classifier and what it said of images that it was not fitted on.

    Args:
        classifier: It.
        answers: float64 (n, k) for the catalog's rows, in the ensemble's order of classes; NaN where there is none.
        note: What a reader should know of these answers.
        training: What was trained here to make it; None of what was there already.
    """

    classifier: Classifier
    answers: np.ndarray
    note: str | None = None
    training: Candidate | None = None


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Average classifiers, and calibrate the mean last."""
    started = time.perf_counter()
    settings = from_json(EnsembleSettings, recipe.settings, "settings of ensemble")
    members = [_loaded(context, name) for name in settings.members] or _seeds(context, recipe, settings)
    return [_average(context, recipe, members, settings.weights, started)]


def of_candidates(context: Context, recipe: Recipe, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The mean of what was fitted in one run on the same splits.

    Raises:
        DataError: Fewer than two look at images.
    """
    started = time.perf_counter()
    chosen = [c for c in candidates if c.classifier.looks_at_images]
    if len(chosen) < 2:
        raise DataError("an ensemble needs two classifiers that look at images", "name more methods or networks")
    paths = dict(enumerate(context.catalog.paths))
    members = [Member(c.classifier, _placed(context, c.val, paths)) for c in chosen]
    return [_average(context, recipe, members, "equal", started)]


def _average(
    context: Context,
    recipe: Recipe,
    members: Sequence[Member],
    asked: tuple[float, ...] | Literal["equal", "validation"],
    started: float,
) -> Candidate:
    """The ensemble of members as a candidate."""
    usable = np.isfinite(np.stack([m.answers for m in members])).all(axis=(0, 2))
    rows = np.array([i for i in context.split("train", "val") if usable[i]], dtype=np.int64)
    if not len(rows):
        hint = "make the members' runs from one table with splits (`sightline split`)"
        raise DataError("no image was held out from every member of the ensemble", hint)
    answers = np.stack([m.answers[rows] for m in members])  # (members, n, k)
    labels = context.labels[rows]
    weights, mean = _weigh(asked, answers, labels, recipe.seed)
    logits = heads.log_probs(mean)
    temperature = heads.temperature(logits, labels)
    made = combine([m.classifier for m in members], weights.tolist(), context, recipe, temperature)
    notes = [*dict.fromkeys(m.note for m in members if m.note), *_course(members)]
    if asked == "validation":
        shares = ", ".join(f"{w:.2f}" for w in weights)
        notes.append(f"weights {shares} by the log loss on held-out images, judged crosswise")
    singles = [float((a.argmax(axis=1) == labels).mean()) for a in answers]
    notes.append("alone its members have " + ", ".join(f"{s:.1%}" for s in singles) + " of the same images right")
    paths = tuple(context.catalog.paths[i] for i in rows)
    only_val = np.isin(rows, context.split("val")).all()
    return Candidate(
        classifier=made,
        label=f"ensemble of {len(members)}",
        val=Predictions(paths, context.classes, labels, heads.softmax(logits / temperature)),
        estimate=VAL if only_val else "train+val, held out from every member",
        seconds=time.perf_counter() - started,
        note="; ".join(notes),
        **_told(members, {"weights": [float(w) for w in weights], "members": singles}),
    )


def _told(members: Sequence[Member], detail: Mapping[str, Any]) -> dict[str, Any]:
    """What the ensemble tells of its members' training: the first one's course, and all optimizer steps."""
    made = [m.training for m in members if m.training is not None]
    if not made:
        return {"detail": detail}
    first = made[0]
    return {
        "undecodable": first.undecodable,
        "detail": {"best_epoch": first.detail.get("best_epoch"), **detail},
        "history": first.history,
        "gradients": first.gradients,
        "overfitting": first.overfitting,
        "steps": sum(c.steps for c in made),
    }


def _course(members: Sequence[Member]) -> list[str]:
    """What was said of each training by its seed, and whose epochs the history is of."""
    made = [m.training for m in members if m.training is not None]
    seeds = [c.classifier.card.recipe.seed for c in made]
    if len({c.note for c in made}) == 1:
        notes = [f"every seed: {note}" for note in [made[0].note] if note]
    else:
        notes = [f"seed {seed}: {c.note}" for seed, c in zip(seeds, made, strict=True) if c.note]
    notes += [f"seed {s}: overfitting {c.overfitting}" for s, c in zip(seeds[1:], made[1:], strict=True) if c.overfitting]
    if any(c.history for c in made):
        notes.append(f"the history, its gradients and its overfitting are those of seed {seeds[0]}, the steps those of all")
    return notes


def combine(
    members: Sequence[Classifier], weights: Sequence[float], context: Context, recipe: Recipe, temperature: float = 1.0
) -> Classifier:
    """The ensemble of classifiers, with its card. Backbones that several share are stored once, and run once for all."""
    members = _one_precision(members)
    cards = [m.card for m in members]
    distinct = {b.weights_hash or b.id: b for b in (c.backbone for c in cards)}
    backbone = Backbone(
        name=f"ensemble of {len(cards)}",
        source="ensemble",
        preprocess=cards[0].backbone.preprocess,
        features=sum(c.backbone.features for c in cards),
        parameters=sum(b.parameters for b in distinct.values()),
        licence=", ".join(dict.fromkeys(b.licence for b in distinct.values())),
        origin=", ".join(dict.fromkeys(b.name for b in distinct.values())),
        pretrained_on=", ".join(dict.fromkeys(b.pretrained_on for b in distinct.values())),
    )
    card = Card(
        classes=context.classes,
        backbone=backbone,
        head="ensemble",
        head_settings={"members": [f"{c.backbone.name} + {c.head}" for c in cards]},
        method="ensemble",
        recipe=recipe,
        temperature=temperature,
        data={"fingerprint": context.catalog.fingerprint(), "members": [dict(c.data) for c in cards]},
        precision={"used": ", ".join(dict.fromkeys(str(c.precision.get("used", "f32")) for c in cards))},
        software=versions(),
        members=tuple(cards),
        weights=tuple(float(w) for w in weights),
    )
    seen = np.unique(np.concatenate([m.seen for m in members]))
    bare = tuple(dataclasses.replace(m, seen=np.zeros(0, dtype=np.uint64)) for m in members)
    return Classifier(card, Head("ensemble", len(context.classes)), seen=seen, members=bare)


def _one_precision(members: Sequence[Classifier]) -> list[Classifier]:
    """Members that share a network, all in float32 where one of them needs it: in two precisions it would run twice."""

    def network(member: Classifier) -> tuple[str, str]:
        return member.card.backbone.id, member.card.backbone.preprocess.id

    exact = {network(m) for m in members if m.card.precision.get("used", "f32") == "f32"}
    verdict = {"used": "f32", "why": "another member of the ensemble needs float32 features of the same network"}
    return [
        with_card(m, precision={**m.card.precision, **verdict})
        if network(m) in exact and m.card.precision.get("used", "f32") != "f32"
        else m
        for m in members
    ]


def mixture(answers: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The weights, float64 (members,), whose mean of probabilities has the least log loss: a convex problem, by EM.

    Args:
        answers: float64 (members, n, k), probabilities.
        y: int64 (n,).

    Source: Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm", section 4.3, with
    the members as fixed components.

    Example:
        >>> mixture(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]), np.array([0])).round(3).tolist()
        [1.0, 0.0]
    """
    right = np.maximum(answers[:, np.arange(len(y)), y], 1e-15)  # (members, n)
    weights = np.full(len(answers), 1 / len(answers))
    for _ in range(_ROUNDS):
        shares = weights[:, None] * right
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return np.asarray(weights)


def _weigh(asked: tuple[float, ...] | str, answers: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights, and the mean answers by which they are judged: by weights from other images where they are chosen here."""
    count = len(answers)
    if asked != "validation":
        weights = np.full(count, 1 / count) if asked == "equal" else np.asarray(asked, dtype=np.float64)
        weights = weights / weights.sum()
        return weights, np.tensordot(weights, answers, 1)
    order = stream(seed, "ensemble folds").permutation(len(labels))
    mean = np.empty(answers.shape[1:])
    for held in np.array_split(order, min(_FOLDS, len(order))):
        others = np.setdiff1d(order, held)
        mean[held] = np.tensordot(mixture(answers[:, others], labels[others]), answers[:, held], 1)
    return mixture(answers, labels), mean


# ------------------------------------------------------------------------------------------------------------- members


def _seeds(context: Context, recipe: Recipe, settings: EnsembleSettings) -> list[Member]:
    """The members that one recipe gives under several seeds."""
    from sightline.training import methods

    given = {"seed": recipe.seed, "image_size": recipe.image_size, "fit": recipe.fit, **settings.recipe}
    inner = from_json(Recipe, given, "recipe of the ensemble")
    if inner.method == "ensemble":
        raise RequestError("an ensemble cannot be a member of one", "name another method in its recipe")
    found = []
    for number in range(settings.seeds):
        share = context.deadline.within(context.deadline.left() / (settings.seeds - number))
        own = dataclasses.replace(inner, seed=inner.seed + number)
        kept = None if context.checkpoint is None else context.checkpoint / f"seed-{own.seed}"
        best = methods.fit(dataclasses.replace(context, deadline=share, checkpoint=kept), own)[0]
        found.append(Member(best.classifier, _placed(context, best.val, dict(enumerate(context.catalog.paths))), training=best))
    return found


def _loaded(context: Context, name: str) -> Member:
    """A run or a classifier's file, with the answers to images that it was held out from.

    Those are what its run wrote down, found by the images' bytes. Where there is no run, it is asked about the validation
    images; of what it was fitted on nobody can know then, and that is said.
    """
    model = classifier.load(name)
    if model.members:
        raise RequestError(f"{name} is an ensemble itself", "name its members")
    if set(model.classes) != set(context.classes):
        differ = sorted(set(model.classes) ^ set(context.classes))
        shown = ", ".join(differ[:4])
        raise RequestError(f"{name} does not know the same classes as the images ({shown})", "members have the same classes")
    if model.card.backbone.source == "user":
        raise RequestError(f"the network of {name} is your own code, which no file carries", "leave it out")
    folder = Path(name) if Path(name).is_dir() else Path(name).parent
    notes = _leaks(context, model, name)
    held = _written_down(folder)
    if held is not None:
        answers, contents = held
        rows = {i: contents[c] for i, c in enumerate(context.catalog.column("content")) if c in contents}
        return Member(model, _placed(context, answers, rows), notes)
    val = context.catalog.where(split="val")
    said = model.predict(val, cache=context.cache, device=context.device, progress=context.progress)
    placed = _placed(context, said, dict(enumerate(context.catalog.paths)))
    seen = int(model.was_trained_on(val.column("content")).sum())
    if seen:
        told = f"{name} has no run beside it, and may have been fitted on {seen:,} validation images: the score may flatter"
        notes = f"{notes}; {told}" if notes else told
    return Member(model, placed, notes)


def _leaks(context: Context, model: Classifier, name: str) -> str | None:
    """What to say where a member has learnt from what is in test here."""
    contents = context.catalog.column("content")
    tests = context.split("test")
    count = int(model.was_trained_on([contents[i] for i in tests]).sum())
    return f"{count:,} of the {len(tests):,} test images were in train or val of {name}" if count else None


def _written_down(folder: Path) -> tuple[Predictions, dict[str, str]] | None:
    """A run's answers to held-out images, and path by content; None where the folder is no run."""
    file = Run(folder, {}).held_out_file
    if not (folder / "run.json").is_file() or not file.is_file():
        return None
    try:
        run, answers = Run.load(folder), read_predictions(file)
    except SightlineError:
        return None
    table = catalogs.load_beside(folder / "catalog.csv", run.data.get("root"), answers.paths)
    if table is None:
        return None
    kept = set(answers.paths)
    return answers, {c: p for c, p in zip(table.column("content"), table.paths, strict=True) if p in kept}


def _placed(context: Context, answers: Predictions, rows: Mapping[int, str]) -> np.ndarray:
    """Answers float64 (n, k) by the catalog's rows and in its order of classes; NaN where there is none.

    Args:
        work: Whose catalog.
        answers: By path.
        rows: Row → the path that it has there.
    """
    out = np.full((len(context.catalog), len(context.classes)), np.nan)
    where = {p: i for i, p in enumerate(answers.paths)}
    order = [answers.classes.index(c) for c in context.classes]
    for row, path in rows.items():
        if path in where:
            out[row] = answers.probs[where[path], order]
    return out
