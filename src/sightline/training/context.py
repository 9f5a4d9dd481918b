"""What every method is given, and what every method gives back."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import engine, evaluation, features, heads, pixels
from sightline.classifier import Classifier, backbone_tensors, content_keys, versions
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, unknown
from sightline.heads.problem import Watch
from sightline.records import Backbone, Card, Catalog, Head, Predictions, Preprocess, Progress, Recipe, silent
from sightline.store import Cache

CROSS_VALIDATE_BELOW = 1000
"""With fewer validation images than this, heads are chosen by cross-validation over training and validation together."""
VAL = "val"
"""The `estimate` of answers of one classifier to the images of the validation split."""
UNBALANCED = 3.0
"""Classes are weighted where the largest has more than this many times the images of the smallest."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a method may use. Test images are among the catalog's, so that all features come from one pass; only their
    pixels are ever looked at here, never their labels.

    Args:
        catalog: Rows that are usable and have a split.
        cluster: int64 (n,), rows of one number are duplicates or one group, and stay together in every fold.
        classes: Names, in the order of class indices.
        cache: Features and converted networks.
        device: `cpu`, `cuda` or `mps`.
        deadline: When the method has to end: what trains by epochs stops at its last complete epoch before that.
        progress: Told how far it is.
        allow_truncated: Use what truncated images still show.
        watch: Told how good a fit is as it goes; it may raise, to give the fit up.
        checkpoint: A folder in which a training is kept on disk as it goes; where it holds one, that goes on.
    """

    catalog: Catalog
    cluster: np.ndarray
    classes: tuple[str, ...]
    cache: Cache
    device: str = "cpu"
    deadline: Deadline = UNLIMITED
    progress: Progress = silent
    allow_truncated: bool = False
    watch: Watch | None = None
    checkpoint: Path | None = None

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): class indices of all rows."""
        return self.catalog.labels(self.classes)

    def split(self, *names: str) -> np.ndarray:
        """int64: the rows of these splits whose class is known."""
        splits = self.catalog.column("split")
        labels = self.labels
        return np.array([i for i, s in enumerate(splits) if s in names and labels[i] >= 0], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One fitted classifier and what is known of it before the test split is opened.

    Args:
        classifier: The thing itself.
        label: What people call it, such as "mobilenetv2_100 + logistic".
        val: Its answers on images that it was not fitted on.
        estimate: How these came about: `VAL`, or what `cv_estimate` names.
        seconds: What it cost, features included.
        undecodable: Split → files that gave no pixels, with the reason.
        note: What the user should know about it.
        detail: The method's own findings, such as the path of a hyper-parameter.
        history: Rows per epoch, for methods that train.
        gradients: The gradient norm of every layer in every epoch, as rows of epoch, layer and norm.
        steps: Optimizer steps.
    """

    classifier: Classifier
    label: str
    val: Predictions
    estimate: str
    seconds: float
    undecodable: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    note: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    gradients: Sequence[Mapping[str, Any]] = ()
    overfitting: str | None = None
    steps: int = 0

    @property
    def answers_name(self) -> str:
        """The name of the table of its held-out answers: `val` for those of the val split, else `cross_validated`."""
        return "val" if self.estimate == VAL else "cross_validated"

    @property
    def val_accuracy(self) -> float:
        """The share of right answers on held-out images."""
        return float((self.val.y_pred == self.val.y_true).mean())

    @property
    def course(self) -> str | None:
        """Which epoch was kept and what ended the training, in sentences; None for what has no history of its own."""
        rows = [row for row in self.history if row.get("epoch", 0) > 0]
        best = self.detail.get("best_epoch")
        kept = next((row for row in rows if row["epoch"] == best), None)
        if kept is None or self.classifier.card.method == "ensemble":
            return None
        last = f", the last epoch's {rows[-1]['val_accuracy']:.2f}" if kept is not rows[-1] else ""
        told = f"epoch {best:.0f} of {rows[-1]['epoch']:.0f} (val accuracy {kept['val_accuracy']:.2f}{last})."
        alone = self.detail.get("gain", {}).get("kept") == "head alone"
        told = f"Kept the head alone; fine-tuning was best in {told}" if alone else f"Kept {told}"
        stopped = [part.capitalize() for part in (self.note or "").split("; ") if part.startswith("stopped ")]
        return ". ".join([*stopped, told])

    @property
    def val_log_loss(self) -> float:
        """The mean negative logarithm of the probability of the right answer."""
        picked = self.val.probs[np.arange(len(self.val)), self.val.y_true]
        return float(-np.log(np.clip(picked, 1e-15, 1)).mean())


def cv_estimate(folds: int) -> str:
    """Return the `estimate` of answers to train and val by classifiers of so many folds."""
    return f"CV (train+val, {folds} folds)"


def check_validation(context: Context, what: str) -> None:
    """Refuse a training that has nothing to be judged on, before anything is decoded.

    Args:
        work: With its splits.
        what: What would be trained, such as `training from scratch`.

    Raises:
        DataError: No image of the validation split has a class.
    """
    if not len(context.split("val")):
        hint = "`sightline split CATALOG --val 0.15 -o new.csv` takes some out of train; or write val into column split"
        raise DataError(f"{what} needs validation images, and the table has none", hint)


def folds_for(context: Context, rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return stratified folds over `rows` in which no cluster is torn apart.

    The images of a class that has one cluster only are in every fold's training part and never held out. A class with fewer
    clusters than folds is held out in as many folds as it has clusters.

    Args:
        work: With the labels and clusters.
        rows: int64 (n,), rows of the catalog.
        count: Folds, at least 2; fewer where no class has so many clusters.
        seed: Of the draw.

    Returns:
        (training positions, held-out positions) in `rows` for each fold, int64.

    Raises:
        DataError: No class has two clusters, so that nothing can be held out.
    """
    labels, cluster = context.labels[rows], context.cluster[rows]
    sizes = {int(k): len(np.unique(cluster[labels == k])) for k in np.unique(labels)}
    single = [k for k, size in sizes.items() if size == 1]
    # A cluster may hold images of several classes: all of it stays in training, so that it is not torn apart.
    always = np.isin(cluster, cluster[np.isin(labels, single)])
    drawn, fixed = np.flatnonzero(~always), np.flatnonzero(always)
    count = min(count, max((len(np.unique(cluster[drawn][labels[drawn] == k])) for k in np.unique(labels[drawn])), default=0))
    if count < 2:
        raise DataError(
            "every class has only one image (or one group of duplicates) outside the test split, so none can be held out",
            "add photographs",
        )
    folds = _drawn_folds(labels[drawn], cluster[drawn], count, seed)
    return [(np.sort(np.concatenate([drawn[a], fixed])), drawn[b]) for a, b in folds]


def _drawn_folds(labels: np.ndarray, cluster: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return scikit-learn's stratified folds, by cluster where a cluster has more than one image."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    plain = len(np.unique(cluster)) == len(cluster)
    kind = StratifiedKFold if plain else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        found = kind(count, shuffle=True, random_state=seed).split(labels, labels, None if plain else cluster)
        return [(np.asarray(a), np.asarray(b)) for a, b in found]


def never_held_out(context: Context, answers: Predictions) -> str | None:
    """Return a note that names the classes of which no image was held out; None where there are none.

    Args:
        work: With all images of train and val.
        answers: Of the held-out images.
    """
    labels = context.labels
    learnt = np.unique(labels[context.split("train", "val")])
    missing = [context.classes[k] for k in learnt if not (answers.y_true == k).any()]
    if not missing:
        return None
    named = ", ".join(repr(name) for name in missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    which = "this class" if len(missing) == 1 else "these classes"
    return f"no image of {named} was held out, so nothing is known of how well {which} can be told apart"


def extract(
    context: Context,
    backbone: Backbone,
    precision: engine.Precision,
    rows: np.ndarray | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    looks: features.CropFeatures | None = None,
) -> features.Features:
    """Features of the catalog's rows, all of them or some; with the weights given, or those that the record names.

    With `looks` several of each image, float32 (n, looks, d).
    """
    index = np.arange(len(context.catalog)) if rows is None else rows
    files, contents = context.catalog.files(), context.catalog.column("content")

    def session(count: int) -> engine.Session:
        return engine.open_session(
            backbone, cache=context.cache, tensors=tensors, precision=precision, device=context.device, expected=count
        )

    some, hashes = [files[i] for i in index], [contents[i] for i in index]
    own: dict[str, Any] = {"session": session, "precision": precision, "cache": context.cache, "progress": context.progress}
    if looks is not None:
        return features.extract_crops(some, hashes, backbone, looks, **own)
    return features.extract(some, hashes, backbone, **own)


def adapted(context: Context, preprocess: Preprocess) -> Preprocess:
    """A preprocess as these images need it: the range of what has more than 8 bits, taken from the training images."""
    modes = context.catalog.column("mode")
    deep = [context.catalog.files()[i] for i in context.split("train") if modes[i] in pixels.DEEP_MODES]
    found = pixels.value_range(deep) if deep else None
    return dataclasses.replace(preprocess, value_range=found, allow_truncated=context.allow_truncated)


def undecodable(context: Context, found: features.Features) -> dict[str, list[dict[str, str]]]:
    """Split → the files whose pixels could not be read, with the reason."""
    paths, splits = context.catalog.paths, context.catalog.column("split")
    listed: dict[str, list[dict[str, str]]] = {}
    for row, (_, why) in found.problems.items():
        listed.setdefault(splits[row], []).append({"path": paths[row], "problem": why})
    return listed


def make_classifier(
    context: Context,
    recipe: Recipe,
    backbone: Backbone,
    head: Head,
    *,
    temperature: float = 1.0,
    precision: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    crops: int = 1,
) -> Classifier:
    """A classifier with its card; the weights of a named backbone are looked up where they are not given."""
    rows = context.split("train", "val", "test")
    splits, labels = context.catalog.column("split"), context.labels
    counts = {c: {"train": 0, "val": 0, "test": 0} for c in context.classes}
    for i in rows:
        counts[context.classes[labels[i]]][splits[i]] += 1
    card = Card(
        classes=context.classes,
        backbone=backbone,
        head=head.kind,
        head_settings=dict(head.settings),
        method=recipe.method,
        recipe=recipe,
        temperature=temperature,
        data={"fingerprint": context.catalog.fingerprint(), "images": counts},
        precision=dict(precision or {"used": "f32"}),
        software=versions(),
        crops=crops,
    )
    if tensors is None:
        tensors = backbone_tensors(backbone, context.cache) if backbone.is_network else {}
    contents = context.catalog.column("content")
    seen = np.unique(content_keys([contents[i] for i in context.split("train", "val")]))
    return Classifier(card, head, tensors, seen, backbone.name if backbone.source == "user" else None)


def with_card(classifier: Classifier, **changes: Any) -> Classifier:
    """The same classifier with parts of its card replaced."""
    return dataclasses.replace(classifier, card=dataclasses.replace(classifier.card, **changes))


def calibrated(context: Context, classifier: Classifier) -> tuple[Classifier, Predictions]:
    """A classifier with the temperature that its own answers on validation call for, crops included, and these answers.

    Args:
        work: With the validation images.
        classifier: Its temperature is not looked at.
    """
    rows = context.catalog.where(split="val")
    plain = with_card(classifier, temperature=1.0)
    answers = plain.predict(rows, cache=context.cache, device=context.device, progress=context.progress)
    answers = answers.select(answers.y_true >= 0)
    logits = heads.log_probs(answers.probs)
    temperature = heads.temperature(logits, answers.y_true)
    done = dataclasses.replace(answers, probs=heads.softmax(logits / temperature), errors={})
    return with_card(classifier, temperature=temperature), done


def decided(candidate: Candidate, positive: str | None, criterion: str) -> Candidate:
    """The candidate with its positive class and its threshold, chosen on the images that it was held out from.

    Args:
        candidate: The chosen one, calibrated.
        positive: For two classes; None takes the rarer one.
        criterion: Of `evaluation.threshold`.

    Raises:
        RequestError: The class or the criterion is not known.
        DataError: The criterion needs two classes.
    """
    classes = candidate.classifier.classes
    if positive is not None and positive not in classes:
        raise unknown("class", positive, classes)
    if positive is None and len(classes) == 2:
        positive = evaluation.rarer_class(candidate.val)
    if criterion == evaluation.HALF:
        return dataclasses.replace(candidate, classifier=with_card(candidate.classifier, positive=positive))
    value = evaluation.threshold(candidate.val, positive or classes[0], criterion)
    classifier = with_card(candidate.classifier, positive=positive, threshold=value, threshold_by=criterion)
    return dataclasses.replace(
        candidate, classifier=classifier, val=dataclasses.replace(candidate.val, threshold=classifier.card.decision)
    )
