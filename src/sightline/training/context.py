"""Context and Candidate: the input and output of every training method, and steps that methods share."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline import engine, evaluation, features, heads, pixels
from sightline.classifier import Classifier, backbone_tensors, content_keys, versions
from sightline.deadline import UNLIMITED, Deadline
from sightline.errors import DataError, unknown
from sightline.heads.problem import Watch
from sightline.records import Backbone, Card, Catalog, Head, Predictions, Preprocess, Progress, Recipe, silent
from sightline.records.data_summary import FileProblem
from sightline.store import Cache, bytes_digest

CROSS_VALIDATE_BELOW = 1000
"""With fewer validation images, heads are chosen by cross-validation on train and val together."""
VAL = "val"
"""Value of `estimate` for predictions of one classifier on the validation split."""
UNBALANCED = 3.0
"""Ratio of the largest class to the smallest one above which classes are weighted."""


@dataclass(frozen=True, slots=True)
class Context:
    """Data and environment of a training method.

    The catalog includes the test images, so that all features are extracted in one pass; methods never read their labels.

    Args:
        catalog: Usable rows that have a split.
        cluster: int64 (n,), cluster of each row: duplicates or a group, which stay together in every fold.
        classes: Class names, in the order of class indices.
        cache: Cache of features and converted networks.
        device: `cpu`, `cuda` or `mps`.
        deadline: Time at which the method has to end; training stops with the last complete epoch before it.
        progress: Called with the progress.
        allow_truncated: Use the readable part of truncated images.
        watch: Called with the score of a fit as it proceeds; it may raise to stop the fit.
        checkpoint: Folder for checkpoints of a training; a training whose checkpoint it holds is resumed.
        precision: Precision of frozen networks: `auto` takes the fastest that passes `precision.choose`.
        fit_recipe: Carries out another recipe on the same images; `methods.fit` sets it, for methods that are made of others.
        compute_features: Called with files, their contents and the features that are needed, before `extract` looks them up in
            the cache; an executor sets it, to compute them on other machines.
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
    precision: engine.Precision | Literal["auto"] = "auto"
    fit_recipe: Callable[[Context, Recipe], list[Candidate]] | None = None
    compute_features: Callable[[Sequence[Path], Sequence[str], features.FeatureRequest], None] | None = None

    @property
    def labels(self) -> np.ndarray:
        """Class indices of all rows, int64 (n,)."""
        return self.catalog.labels(self.classes)

    def split(self, *names: str) -> np.ndarray:
        """Return the rows of these splits whose class is known, int64."""
        splits = self.catalog.column("split")
        labels = self.labels
        return np.array([i for i, s in enumerate(splits) if s in names and labels[i] >= 0], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Fitted classifier and its evaluation on held-out images, before the test split is used.

    Args:
        classifier: The classifier.
        label: Name for display, such as "mobilenetv2_100 + logistic".
        val: Predictions on images that it was not fitted on.
        estimate: Origin of these predictions: `VAL`, or the result of `cv_estimate`.
        seconds: Duration, including feature extraction.
        undecodable: Split → files that cannot be decoded, with the reason.
        note: Note for the user.
        detail: Results that are specific to the method, such as the scores of the hyperparameters tried.
        history: One row per epoch, for methods that train by epochs.
        gradients: Gradient norm of every layer in every epoch, as rows of epoch, layer and norm.
        overfitting: Epoch from which the classifier overfits, with scores; None if it does not.
        steps: Number of optimizer steps.
    """

    classifier: Classifier
    label: str
    val: Predictions
    estimate: str
    seconds: float
    undecodable: Mapping[str, Sequence[FileProblem]] = field(default_factory=dict)
    note: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    gradients: Sequence[Mapping[str, Any]] = ()
    overfitting: str | None = None
    steps: int = 0

    @property
    def answers_name(self) -> str:
        """Name of the table of held-out predictions: `val` for those on the val split, else `cross_validated`."""
        return "val" if self.estimate == VAL else "cross_validated"

    @property
    def val_accuracy(self) -> float:
        """Accuracy on held-out images."""
        return float((self.val.y_pred == self.val.y_true).mean())

    @property
    def course(self) -> str | None:
        """Sentences on which epoch was kept and why training ended; None without a history."""
        rows = [row for row in self.history if row.get("epoch", 0) > 0]
        best = self.detail.get("best_epoch")
        best_row = next((row for row in rows if row["epoch"] == best), None)
        if best_row is None or self.classifier.card.members:
            return None
        last = f", the last epoch's {rows[-1]['val_accuracy']:.2f}" if best_row is not rows[-1] else ""
        sentence = f"epoch {best:.0f} of {rows[-1]['epoch']:.0f} (val accuracy {best_row['val_accuracy']:.2f}{last})."
        alone = self.detail.get("gain", {}).get("kept") == "head alone"
        sentence = f"Kept the head alone; fine-tuning was best in {sentence}" if alone else f"Kept {sentence}"
        stopped = [part.capitalize() for part in (self.note or "").split("; ") if part.startswith("stopped ")]
        return ". ".join([*stopped, sentence])

    @property
    def val_log_loss(self) -> float:
        """Log loss on held-out images."""
        picked = self.val.probs[np.arange(len(self.val)), self.val.y_true]
        return float(-np.log(np.clip(picked, 1e-15, 1)).mean())


def cv_estimate(folds: int) -> str:
    """Return the value of `estimate` for out-of-fold predictions on train and val."""
    return f"CV (train+val, {folds} folds)"


def check_validation(context: Context, what: str) -> None:
    """Check that there are labelled validation images, before any image is decoded.

    Args:
        context: Holds the splits.
        what: Name of the training for the message, such as `training from scratch`.

    Raises:
        DataError: If the validation split has no labelled image.
    """
    if not len(context.split("val")):
        hint = "`sightline split CATALOG --val 0.15 -o new.csv` moves some from train to val; or set column split to val"
        raise DataError(f"{what} needs validation images, and the catalog has none", hint)


def folds_for(context: Context, rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return stratified folds over `rows` that keep every cluster together.

    The images of a class with a single cluster are in the training part of every fold and never held out. A class with fewer
    clusters than folds is held out in as many folds as it has clusters.

    Args:
        context: Holds labels and clusters.
        rows: int64 (n,), rows of the catalog.
        count: Number of folds, at least 2; reduced if no class has that many clusters.
        seed: Random seed.

    Returns:
        (training positions, held-out positions) in `rows` for each fold, int64.

    Raises:
        DataError: If no class has two clusters, so that no image can be held out.
    """
    return folds_of(context.labels[rows], context.cluster[rows], count, seed)


def folds_of(labels: np.ndarray, cluster: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return stratified folds of labelled rows that keep every cluster together, as `folds_for` does.

    Args:
        labels: int64 (n,), class indices.
        cluster: int64 (n,), cluster of each row.
        count: Number of folds, at least 2; reduced if no class has that many clusters.
        seed: Random seed.

    Raises:
        DataError: If no class has two clusters, so that no image can be held out.
    """
    sizes = {int(k): len(np.unique(cluster[labels == k])) for k in np.unique(labels)}
    single = [k for k, size in sizes.items() if size == 1]
    # A cluster may hold images of several classes: all of them stay in training, so that it is kept together.
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
    """Return scikit-learn's stratified folds, grouped by cluster if a cluster has more than one image."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    plain = len(np.unique(cluster)) == len(cluster)
    kind = StratifiedKFold if plain else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        splits = kind(count, shuffle=True, random_state=seed).split(labels, labels, None if plain else cluster)
        return [(np.asarray(a), np.asarray(b)) for a, b in splits]


def never_held_out(context: Context, held_out: Predictions) -> str | None:
    """Return a note that names the classes without a held-out image; None if every class has one.

    Args:
        context: Holds all images of train and val.
        held_out: Predictions on held-out images.
    """
    labels = context.labels
    trained = np.unique(labels[context.split("train", "val")])
    missing = [context.classes[k] for k in trained if not (held_out.y_true == k).any()]
    if not missing:
        return None
    named = ", ".join(repr(name) for name in missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    which = "this class" if len(missing) == 1 else "these classes"
    return f"no image of {named} was held out, so the accuracy on {which} is not known"


def extract(
    context: Context,
    backbone: Backbone,
    precision: engine.Precision,
    rows: np.ndarray | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    looks: features.CropFeatures | None = None,
) -> features.Features:
    """Extract features of all rows of the catalog or of some.

    Args:
        context: Holds the catalog.
        backbone: The network.
        precision: Precision of the network; for int8 it is quantised, or taken from the cache.
        rows: int64, rows of the catalog; None takes all.
        tensors: Weights of the network; None loads those that the record names.
        looks: Crops or views of each image; the features are then float32 (n, crops, d).
    """
    index = np.arange(len(context.catalog)) if rows is None else rows
    files, contents = context.catalog.files(), context.catalog.column("content")

    quantised = engine.quantised(backbone, context.cache, tensors) if precision == "int8" else None

    def session(count: int) -> engine.Session:
        where: dict[str, Any] = {"cache": context.cache, "device": context.device}
        return engine.open_session(backbone, tensors=tensors, precision=precision, quantised=quantised, expected=count, **where)

    some, hashes = [files[i] for i in index], [contents[i] for i in index]
    if context.compute_features is not None:
        request = features.FeatureRequest(backbone, precision, tensors, looks, quantised or b"")
        context.compute_features(some, hashes, request)
    options: dict[str, Any] = {
        "session": session,
        "precision": precision,
        "cache": context.cache,
        "device": context.device,
        "ranges": bytes_digest(quantised)[:32] if quantised else "",
        "progress": context.progress,
    }
    if looks is not None:
        return features.extract_crops(some, hashes, backbone, looks, **options)
    return features.extract(some, hashes, backbone, **options)


def adapted(context: Context, preprocess: Preprocess) -> Preprocess:
    """Return the preprocessing with the value range of the training images, if some have more than 8 bits."""
    modes = context.catalog.column("mode")
    deep = [context.catalog.files()[i] for i in context.split("train") if modes[i] in pixels.DEEP_MODES]
    value_range = pixels.value_range(deep) if deep else None
    return dataclasses.replace(preprocess, value_range=value_range, allow_truncated=context.allow_truncated)


def undecodable(context: Context, extracted: features.Features) -> dict[str, list[FileProblem]]:
    """Return split → files whose pixels cannot be decoded, with the reason."""
    paths, splits = context.catalog.paths, context.catalog.column("split")
    listed: dict[str, list[FileProblem]] = {}
    for row, (_, why) in extracted.problems.items():
        listed.setdefault(splits[row], []).append(FileProblem(paths[row], why))
    return listed


def make_classifier(
    context: Context,
    recipe: Recipe,
    backbone: Backbone,
    head: Head,
    *,
    temperature: float = 1.0,
    tensors: Mapping[str, np.ndarray] | None = None,
    crops: int = 1,
) -> Classifier:
    """Return a classifier with its card; without `tensors` the weights of the backbone are loaded by its record."""
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
        precision={"used": "f32"},
        software=versions(),
        crops=crops,
    )
    if tensors is None:
        tensors = backbone_tensors(backbone, context.cache) if backbone.is_network else {}
    contents = context.catalog.column("content")
    seen = np.unique(content_keys([contents[i] for i in context.split("train", "val")]))
    return Classifier(card, head, tensors, seen, backbone.name if backbone.source == "user" else None)


def with_card(classifier: Classifier, **changes: Any) -> Classifier:
    """Return the classifier with some fields of its card replaced."""
    return dataclasses.replace(classifier, card=dataclasses.replace(classifier.card, **changes))


def calibrated(context: Context, classifier: Classifier) -> tuple[Classifier, Predictions]:
    """Calibrate a classifier by temperature scaling on its validation predictions, crops included; return these as well.

    Args:
        context: Holds the validation images.
        classifier: The classifier; its present temperature is ignored.
    """
    rows = context.catalog.where(split="val")
    plain = with_card(classifier, temperature=1.0)
    predictions = plain.predict(rows, cache=context.cache, device=context.device, progress=context.progress)
    predictions = predictions.select(predictions.y_true >= 0)
    logits = heads.log_probs(predictions.probs)
    temperature = heads.temperature(logits, predictions.y_true)
    scaled = dataclasses.replace(predictions, probs=heads.softmax(logits / temperature), errors={})
    return with_card(classifier, temperature=temperature), scaled


def decided(candidate: Candidate, positive: str | None, criterion: str) -> Candidate:
    """Return the candidate with its positive class and its decision threshold, chosen on held-out images.

    Args:
        candidate: The chosen candidate, calibrated.
        positive: Positive class of two; None takes the rarer one.
        criterion: Criterion of `evaluation.threshold`.

    Raises:
        RequestError: If the class or the criterion is not known.
        DataError: If the criterion needs two classes.
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
