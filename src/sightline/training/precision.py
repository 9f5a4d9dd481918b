"""Precision of a frozen network: the fastest one whose features classify the user's images as float32 features do."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import engine, evaluation, features, heads, networks
from sightline.classifier import Classifier
from sightline.errors import DataError, RequestError
from sightline.files import is_file, read_text
from sightline.records import Backbone, Head
from sightline.store import bytes_digest, log, plain, write_json
from sightline.training.context import Context, extract, folds_for, with_card

JUDGED_IMAGES = 256
"""Number of images of train and val on which precisions are compared."""
MAP_IMAGES = 32
"""Number of these images on which heatmaps are compared."""
QUANTISING_S = 60.0
"""Seconds that quantising a network may take: int8 is not tried where a deadline leaves less."""
MOST_MACS = 5e9
"""Multiply–accumulates per image above which int8 is not tried unless demanded: quantising costs some 600 forward passes."""
MAP_CORRELATION = 0.98
"""Minimum mean rank correlation of heatmaps from int8 maps with those from float32 maps."""
FILE = "precision.json"
"""Decisions of an interrupted run, in its checkpoint folder."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits that a precision has to keep.

    Args:
        least_images: Minimum number of images on which it is compared with float32.
        changed_share: Maximum share of out-of-fold predictions that change; one may always change.
        mean_cosine: Minimum mean cosine similarity of features with float32 features.
    """

    least_images: int
    changed_share: float
    mean_cosine: float


GATES: dict[str, Gate] = {
    "int8": Gate(least_images=JUDGED_IMAGES, changed_share=0.02, mean_cosine=0.0),
    "bf16": Gate(least_images=1, changed_share=0.005, mean_cosine=0.998),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The precision of a network, and the facts that the classifier's card states.

    Args:
        precision: Precision to use.
        facts: `Card.precision`.
        quantised: The network in int8, if that is used.
    """

    precision: engine.Precision
    facts: Mapping[str, Any]
    quantised: bytes = b""


_FLOAT32 = Choice("f32", {"used": "f32", "why": "all features were computed in float32"})


def choose(
    context: Context,
    backbone: Backbone,
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    tried: Sequence[engine.Precision] | None = None,
) -> Choice:
    """Return the first precision, the fastest first, that passes its gate on up to 256 images of train and val.

    A linear head is fitted on the features in float32 and in the other precision, with the same folds. The precision passes if
    its out-of-fold accuracy is not significantly worse (McNemar's test), and features and predictions keep the limits of GATES.
    A precision that the user demands is used whether or not it passes. A resumed run keeps the precision of its first part.

    Args:
        context: Images, labels, and the demanded precision.
        backbone: Network.
        tensors: Weights of the network; None loads those that the record names.
        tried: Precisions to try, the fastest first; None takes those of the machine.

    Raises:
        RequestError: If the user demands a precision that is not available.
    """
    if not backbone.is_network:
        return _FLOAT32
    demanded = context.precision != "auto"
    available = engine.precisions(context.device) if tried is None else tuple(tried)
    order = available if context.precision == "auto" else (engine.allowed_precision(context.precision),)
    earlier = _read(context, backbone)
    if earlier is not None and engine.allowed_precision(earlier["used"]) == earlier["used"]:
        quantised = (engine.quantised(backbone, context.cache, tensors) or b"") if earlier["used"] == "int8" else b""
        return Choice(earlier["used"], earlier, quantised)
    if order[0] == "f32":
        return _FLOAT32
    choice = _first_passing(context, backbone, tensors, [p for p in order if p != "f32"], demanded)
    _write(context, backbone, choice)
    return choice


def _first_passing(
    context: Context,
    backbone: Backbone,
    tensors: Mapping[str, np.ndarray] | None,
    order: Sequence[Any],
    demanded: bool,
) -> Choice:
    """Return the first precision that passes its gate, or the demanded one; float32 if there is none."""
    rows = _judged_rows(context)
    facts: dict[str, Any] = {}
    for precision in order:
        too_long = precision == "int8" and not _quick_to_quantise(context, backbone)
        if not demanded and (too_long or len(rows) < GATES[precision].least_images):
            continue
        quantised = b""
        if precision == "int8":
            quantised = engine.quantised(backbone, context.cache, tensors) or b""
            if not quantised:
                if demanded:
                    raise RequestError(f"{backbone.name} cannot run in int8 here", "leave out --precision")
                continue
        quick = extract(context, backbone, precision, rows, tensors)
        if quick.precision != precision:
            if demanded:
                raise RequestError(f"{backbone.name} cannot run in {precision} here", "leave out --precision")
            continue
        facts = _compare(context, rows, quick, extract(context, backbone, "f32", rows, tensors), demanded)
        if facts["used"] != precision:
            log.info("%s: %s", backbone.name, facts["why"])
            continue
        if quantised:
            correlation = _map_correlation(context, backbone, tensors, rows=rows, quantised=quantised, quick=quick)
            facts |= {
                "ranges": bytes_digest(quantised)[:32],
                "instructions": engine.instruction_class(),
                "map_correlation": correlation,
                "int8_maps": correlation is not None and correlation >= MAP_CORRELATION,
            }
        return Choice(precision, facts, quantised)
    return Choice("f32", facts) if facts else _FLOAT32


def _quick_to_quantise(context: Context, backbone: Backbone) -> bool:
    """Return whether a network is small enough to be quantised in a run, and the deadline leaves the time."""
    macs = networks.macs_of(backbone.name, backbone.preprocess.size) or 0.0
    return macs <= MOST_MACS and context.deadline.left() >= QUANTISING_S


def _judged_rows(context: Context) -> np.ndarray:
    """Return the rows of train and val with the lowest content hashes, so that the parts of a cross-validation share most."""
    rows = context.split("train", "val")
    contents = context.catalog.column("content")
    return np.sort(np.array(sorted(rows, key=lambda i: (contents[i], i))[:JUDGED_IMAGES], dtype=np.int64))


def _compare(
    context: Context, rows: np.ndarray, quick: features.Features, exact: features.Features, demanded: bool
) -> dict[str, Any]:
    """Compare features, and the out-of-fold predictions of a linear head fitted on each; return the facts."""
    precision = quick.precision
    gate = GATES[precision]
    both = quick.ok & exact.ok
    if quick.fast is not None:
        both &= quick.fast
    n = int(both.sum())
    cosine = engine.cosines(quick.values[both], exact.values[both])
    try:
        folds = folds_for(context, rows[both], 5, 0)
    except DataError:  # no image can be held out
        folds = []
    y = context.labels[rows[both]]
    predicted = [_out_of_fold(f.values[both], y, len(context.classes), folds) for f in (exact, quick)]
    held = [p >= 0 for p in predicted]
    held_out = held[0] & held[1]
    right = [p[held_out] == y[held_out] for p in predicted]
    changed = int((predicted[0] != predicted[1])[held_out].sum())
    limit = max(1, math.floor(gate.changed_share * int(held_out.sum())))
    p_value = evaluation.mcnemar(*right)
    accuracies = [float(r.mean()) if len(r) else 0.0 for r in right]
    worse = accuracies[1] < accuracies[0] and p_value < evaluation.SIGNIFICANT
    mean = float(cosine.mean()) if n else 0.0
    passed = bool(held_out.any()) and not worse and changed <= limit and mean >= gate.mean_cosine
    outcome = "passes" if passed else "does not pass, and is used because it was demanded" if demanded else "does not pass"
    return {
        "used": precision if passed or demanded else "f32",
        "judged_on": int(held_out.sum()),
        "mean_cosine": mean,
        "min_cosine": float(cosine.min()) if n else 0.0,
        "answers_changed": changed,
        "limit": limit,
        "accuracy_f32": accuracies[0],
        "accuracy_fast": accuracies[1],
        "p_value": p_value,
        "why": f"{precision} {outcome} the comparison with float32 (mean cosine similarity {mean:.5f}, {changed} of "
        f"{int(held_out.sum())} out-of-fold predictions changed, accuracy {accuracies[1]:.3f} instead of {accuracies[0]:.3f})",
    }


def _linear_head() -> tuple[str, Mapping[str, Any]]:
    """Return the first linear head that `auto` compares, and its settings."""
    compared = heads.to_compare(heads.AUTO, {})
    return next((name, settings) for name, settings in compared.items() if heads.HEADS[name].linear)


def _out_of_fold(values: np.ndarray, y: np.ndarray, classes: int, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return out-of-fold predictions of a linear head, int64 (n,); -1 for images that were never held out."""
    if not folds:
        return np.full(len(y), -1)
    name, settings = _linear_head()
    logits = heads.fit(name, values, y, classes, folds=folds, settings=settings).logits
    finite = np.isfinite(logits).all(axis=1)
    return np.where(finite, np.where(finite[:, None], logits, 0).argmax(axis=1), -1)


def _map_correlation(
    context: Context,
    backbone: Backbone,
    tensors: Mapping[str, np.ndarray] | None,
    *,
    rows: np.ndarray,
    quantised: bytes,
    quick: features.Features,
) -> float | None:
    """Return the mean rank correlation of class activation maps in int8 and float32; None if the tail is not a mean.

    Source: Zhou et al. 2016, "Learning deep features for discriminative localization", for the maps.
    """
    name, settings = _linear_head()
    ok = np.flatnonzero(quick.ok)
    y = context.labels[rows[ok]]
    n = len(ok)
    everything = [(np.arange(n), np.arange(n))]
    head = heads.fit(name, quick.values[ok], y, len(context.classes), folds=everything, settings=settings, refit=False).head
    files = context.catalog.files()
    sources = [files[i] for i in rows[ok][:: max(1, n // MAP_IMAGES)][:MAP_IMAGES]]
    shared: dict[str, Any] = {"cache": context.cache, "tensors": tensors, "device": context.device}
    found = []
    for session in (
        engine.open_session(backbone, **shared),
        engine.open_session(backbone, precision="int8", quantised=quantised, **shared),
    ):
        index, _, maps, _ = features.compute(sources, backbone.preprocess, session, maps=True)
        if maps is None or not session.tail_is_mean:
            return None
        found.append(_activation_maps(maps, head, backbone.layout, y[:: max(1, n // MAP_IMAGES)][:MAP_IMAGES][index]))
    return _rank_correlation(*found)


def _activation_maps(maps: np.ndarray, head: Head, layout: str, classes: np.ndarray) -> np.ndarray:
    """Return the class activation map of each image for its class, float64 (n, cells)."""
    channels_first = maps if layout == "nchw" else np.moveaxis(maps, 3, 1)
    weights = np.asarray(head.arrays["weights"], dtype=np.float64)[classes]  # (n, d)
    return np.asarray(np.einsum("nd,ndhw->nhw", weights, channels_first.astype(np.float64))).reshape(len(maps), -1)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over rows of Spearman's rank correlation; 1 for a row that is constant in both, 0 in one."""
    from scipy.stats import rankdata

    first, second = (rankdata(x, axis=1) - (x.shape[1] + 1) / 2 for x in (a, b))
    norms = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    constant = ~first.any(axis=1) & ~second.any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.where(norms > 0, (first * second).sum(axis=1) / norms, constant).mean())


def _read(context: Context, backbone: Backbone) -> dict[str, Any] | None:
    """Return the facts that the first part of a resumed run decided by."""
    if context.checkpoint is None or not is_file(context.checkpoint / FILE):
        return None
    saved: dict[str, dict[str, Any]] = json.loads(read_text(context.checkpoint / FILE))
    return saved.get(backbone.id)


def _write(context: Context, backbone: Backbone, choice: Choice) -> None:
    """Save a decision for a resumed run."""
    if context.checkpoint is None:
        return
    file = context.checkpoint / FILE
    saved = json.loads(read_text(file)) if is_file(file) else {}
    write_json(file, {**saved, backbone.id: plain(choice.facts)})


def record(classifier: Classifier, choice: Choice) -> Classifier:
    """Return the classifier with the facts of a choice in its card, and with the quantised network if that is used."""
    stated = with_card(classifier, precision=dict(choice.facts))
    return dataclasses.replace(stated, quantised=choice.quantised)
