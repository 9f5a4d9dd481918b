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
from sightline.training.method import Method

HEAD = "ensemble"
"""Value of `head` on the card of an ensemble."""
MOST_MEMBERS = 100
_ROUNDS = 500
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class EnsembleSettings:
    """Settings of `ensemble`: either `members`, or `recipe` and `seeds`.

    Args:
        members: Run folders or classifier files, 2 to 100, for the same classes.
        recipe: Recipe that is trained with several seeds: `{"method": "scratch", "backbone": "cnn"}`.
        seeds: Number of seeds, 2 to 100: the recipe's own seed and the following ones.
        weights: Weight of each member, not negative; `equal`; or `validation`, which minimises the log loss of the mean on
            held-out images.
    """

    members: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    weights: tuple[float, ...] | Literal["equal", "validation"] = "equal"

    def __post_init__(self) -> None:
        if bool(self.members) == bool(self.recipe):
            hint = 'set members = ["runs/a", "runs/b"], or recipe = {method = "scratch"} and seeds = 3'
            raise RequestError("an ensemble needs either members or one recipe that is trained with several seeds", hint)
        count = len(self.members) if self.members else self.seeds
        if not 2 <= count <= MOST_MEMBERS:
            raise RequestError(f"an ensemble cannot have {count} members", f"it has 2 to {MOST_MEMBERS}")
        if isinstance(self.weights, tuple):
            if len(self.weights) != count:
                raise RequestError(
                    f"{len(self.weights)} weights do not match {count} members", "give one weight for each member"
                )
            if not (all(0 <= w < float("inf") for w in self.weights) and sum(self.weights) > 0):
                raise RequestError(
                    f"the weights cannot be {list(self.weights)}", "weights are not negative, and at least one is positive"
                )


@dataclass(frozen=True, slots=True)
class Member:
    """Member of an ensemble and its predictions on images that it was not fitted on.

    Args:
        classifier: The classifier.
        probs: float64 (n, k), probabilities for the rows of the catalog, in the ensemble's order of classes; NaN without a
            prediction.
        note: Note for the user on these predictions.
        training: Candidate, if it was trained here; None for an existing classifier.
    """

    classifier: Classifier
    probs: np.ndarray
    note: str | None = None
    training: Candidate | None = None


def fit(context: Context, recipe: Recipe) -> list[Candidate]:
    """Average the probabilities of classifiers, and calibrate the mean."""
    started = time.perf_counter()
    settings = from_json(EnsembleSettings, recipe.settings, "settings of ensemble")
    members = [_loaded(context, name) for name in settings.members] or _seeds(context, recipe, settings)
    return [_average(context, recipe, members, settings.weights, started)]


def of_candidates(context: Context, recipe: Recipe, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the ensemble of candidates that one run fitted on the same splits.

    Raises:
        DataError: If fewer than two of them look at pixels.
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
    weighting: tuple[float, ...] | Literal["equal", "validation"],
    started: float,
) -> Candidate:
    """Return the candidate whose classifier is the ensemble of members."""
    usable = np.isfinite(np.stack([m.probs for m in members])).all(axis=(0, 2))
    rows = np.array([i for i in context.split("train", "val") if usable[i]], dtype=np.int64)
    if not len(rows):
        hint = "make the runs of all members from one catalog with splits (`sightline split`)"
        raise DataError("no image was held out from every member of the ensemble", hint)
    probs = np.stack([m.probs[rows] for m in members])  # (members, n, k)
    labels = context.labels[rows]
    weights, mean = _weigh(weighting, probs, labels, recipe.seed)
    logits = heads.log_probs(mean)
    temperature = heads.temperature(logits, labels)
    made = combine([m.classifier for m in members], weights.tolist(), context, recipe, temperature)
    notes = [*dict.fromkeys(m.note for m in members if m.note), *_training_notes(members)]
    if weighting == "validation":
        shares = ", ".join(f"{w:.2f}" for w in weights)
        notes.append(f"weights {shares} by the log loss on held-out images, evaluated by cross-validation")
    singles = [float((a.argmax(axis=1) == labels).mean()) for a in probs]
    notes.append("accuracy of its members alone on the same images: " + ", ".join(f"{s:.1%}" for s in singles))
    paths = tuple(context.catalog.paths[i] for i in rows)
    only_val = np.isin(rows, context.split("val")).all()
    return Candidate(
        classifier=made,
        label=f"ensemble of {len(members)}",
        val=Predictions(paths, context.classes, labels, heads.softmax(logits / temperature)),
        estimate=VAL if only_val else "train+val, held out from every member",
        seconds=time.perf_counter() - started,
        note="; ".join(notes),
        **_training_fields(members, {"weights": [float(w) for w in weights], "members": singles}),
    )


def _training_fields(members: Sequence[Member], detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return the candidate's fields on training: the history of the first member, and the optimizer steps of all."""
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


def _training_notes(members: Sequence[Member]) -> list[str]:
    """Return the notes of each training, by seed, and a note on which training the history belongs to."""
    made = [m.training for m in members if m.training is not None]
    seeds = [c.classifier.card.recipe.seed for c in made]
    if len({c.note for c in made}) == 1:
        notes = [f"every seed: {note}" for note in [made[0].note] if note]
    else:
        notes = [f"seed {seed}: {c.note}" for seed, c in zip(seeds, made, strict=True) if c.note]
    notes += [f"seed {s}: overfitting {c.overfitting}" for s, c in zip(seeds[1:], made[1:], strict=True) if c.overfitting]
    if any(c.history for c in made):
        notes.append(f"history, gradients and overfitting are those of seed {seeds[0]}, the steps those of all seeds")
    return notes


def combine(
    members: Sequence[Classifier], weights: Sequence[float], context: Context, recipe: Recipe, temperature: float = 1.0
) -> Classifier:
    """Return the ensemble of classifiers, with its card. Backbones that members share are stored and run once."""
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
        head=HEAD,
        head_settings={"members": [f"{c.backbone.name} + {c.head}" for c in cards]},
        method=METHOD.name,
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
    return Classifier(card, Head(HEAD, len(context.classes)), seen=seen, members=bare)


def _one_precision(members: Sequence[Classifier]) -> list[Classifier]:
    """Set members that share a network to float32 if one of them needs it: in two precisions the network would run twice."""

    def network(member: Classifier) -> tuple[str, str]:
        return member.card.backbone.id, member.card.backbone.preprocess.id

    exact = {network(m) for m in members if m.card.precision.get("used", "f32") == "f32"}
    verdict = {"used": "f32", "why": "another member of the ensemble needs float32 features of the same network"}
    return [
        dataclasses.replace(with_card(m, precision={**m.card.precision, **verdict}), quantised=b"")
        if network(m) in exact and m.card.precision.get("used", "f32") != "f32"
        else m
        for m in members
    ]


def mixture(probs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the weights, float64 (members,), that minimise the log loss of the mean probabilities: a convex problem, by EM.

    Args:
        probs: float64 (members, n, k), probabilities.
        y: int64 (n,), class indices.

    Source: Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm", section 4.3, with
    the members as fixed components.

    Example:
        >>> mixture(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]), np.array([0])).round(3).tolist()
        [1.0, 0.0]
    """
    right = np.maximum(probs[:, np.arange(len(y)), y], 1e-15)  # (members, n)
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(_ROUNDS):
        shares = weights[:, None] * right
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return np.asarray(weights)


def _weigh(
    weighting: tuple[float, ...] | str, probs: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights and the mean probabilities; weights that are fitted here are applied to other images than they are
    fitted on."""
    count = len(probs)
    if weighting != "validation":
        weights = np.full(count, 1 / count) if weighting == "equal" else np.asarray(weighting, dtype=np.float64)
        weights = weights / weights.sum()
        return weights, np.tensordot(weights, probs, 1)
    order = stream(seed, "ensemble folds").permutation(len(labels))
    mean = np.empty(probs.shape[1:])
    for held in np.array_split(order, min(_FOLDS, len(order))):
        others = np.setdiff1d(order, held)
        mean[held] = np.tensordot(mixture(probs[:, others], labels[others]), probs[:, held], 1)
    return mixture(probs, labels), mean


# ------------------------------------------------------------------------------------------------------------- members


def _seeds(context: Context, recipe: Recipe, settings: EnsembleSettings) -> list[Member]:
    """Train one recipe with several seeds."""
    given = {"seed": recipe.seed, "image_size": recipe.image_size, "fit": recipe.fit, **settings.recipe}
    inner = from_json(Recipe, given, "recipe of the ensemble")
    if inner.method == METHOD.name:
        raise RequestError("an ensemble cannot be a member of an ensemble", "name another method in its recipe")
    assert context.fit_recipe is not None, "carry recipes out with methods.fit"
    members = []
    for number in range(settings.seeds):
        share = context.deadline.within(context.deadline.left() / (settings.seeds - number))
        seeded = dataclasses.replace(inner, seed=inner.seed + number)
        checkpoint = None if context.checkpoint is None else context.checkpoint / f"seed-{seeded.seed}"
        best = context.fit_recipe(dataclasses.replace(context, deadline=share, checkpoint=checkpoint), seeded)[0]
        members.append(
            Member(best.classifier, _placed(context, best.val, dict(enumerate(context.catalog.paths))), training=best)
        )
    return members


def _loaded(context: Context, name: str) -> Member:
    """Return a run or a classifier's file, with predictions on images that it was not fitted on.

    Those are the predictions that its run saved, matched by the content of the images. Without a run it predicts the validation
    images; a note says how many of these it may have been fitted on.
    """
    model = classifier.load(name)
    if model.members:
        raise RequestError(f"{name} is an ensemble itself", "name its members instead")
    if set(model.classes) != set(context.classes):
        differ = sorted(set(model.classes) ^ set(context.classes))
        shown = ", ".join(differ[:4])
        raise RequestError(f"the classes of {name} differ from those of the images ({shown})", "members need the same classes")
    if model.card.backbone.source == "user":
        raise RequestError(f"the network of {name} is user-defined code, which is not stored in its file", "leave it out")
    folder = Path(name) if Path(name).is_dir() else Path(name).parent
    notes = _leaks(context, model, name)
    saved = _saved_predictions(folder)
    if saved is not None:
        predictions, contents = saved
        rows = {i: contents[c] for i, c in enumerate(context.catalog.column("content")) if c in contents}
        return Member(model, _placed(context, predictions, rows), notes)
    val = context.catalog.where(split="val")
    predictions = model.predict(val, cache=context.cache, device=context.device, progress=context.progress)
    placed = _placed(context, predictions, dict(enumerate(context.catalog.paths)))
    seen = int(model.was_trained_on(val.column("content")).sum())
    if seen:
        note = (
            f"{name} is not in a run folder and may have been fitted on {seen:,} validation images: the score may be too high"
        )
        notes = f"{notes}; {note}" if notes else note
    return Member(model, placed, notes)


def _leaks(context: Context, model: Classifier, name: str) -> str | None:
    """Return a note if a member was fitted on images of the test split; else None."""
    contents = context.catalog.column("content")
    tests = context.split("test")
    count = int(model.was_trained_on([contents[i] for i in tests]).sum())
    return f"{count:,} of the {len(tests):,} test images were in train or val of {name}" if count else None


def _saved_predictions(folder: Path) -> tuple[Predictions, dict[str, str]] | None:
    """Return a run's predictions on held-out images, and content → path; None if the folder is not a run."""
    file = Run(folder, {}).held_out_file
    if not (folder / "run.json").is_file() or not file.is_file():
        return None
    try:
        run, predictions = Run.load(folder), read_predictions(file)
    except SightlineError:
        return None
    table = catalogs.load_beside(folder / "catalog.csv", run.data.get("root"), predictions.paths)
    if table is None:
        return None
    paths = set(predictions.paths)
    return predictions, {c: p for c, p in zip(table.column("content"), table.paths, strict=True) if p in paths}


def _placed(context: Context, predictions: Predictions, rows: Mapping[int, str]) -> np.ndarray:
    """Return probabilities, float64 (n, k), for the rows of the catalog in its order of classes; NaN without a prediction.

    Args:
        context: Holds the catalog.
        predictions: Predictions by path.
        rows: Row of the catalog → path in the predictions.
    """
    out = np.full((len(context.catalog), len(context.classes)), np.nan)
    where = {p: i for i, p in enumerate(predictions.paths)}
    order = [predictions.classes.index(c) for c in context.classes]
    for row, path in rows.items():
        if path in where:
            out[row] = predictions.probs[where[path], order]
    return out


METHOD = Method(
    name="ensemble",
    title="Mean of several classifiers",
    settings=EnsembleSettings,
    fit=fit,
    network="members",
    source_files=lambda recipe: tuple(map(str, recipe.settings.get("members", ()))),
    distributed=True,
    cross_validates=False,
)
