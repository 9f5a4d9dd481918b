"""Fast precision: use bf16 features only if they agree with float32 on the user's images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sightline import engine
from sightline.classifier import Classifier
from sightline.store import stream
from sightline.training.context import Context, extract, with_card

JUDGED_IMAGES = 256
MEAN_COSINE = 0.998
CHANGED_SHARE = 0.005
_FLOAT32: dict[str, Any] = {"used": "f32", "why": "all features were computed in float32"}


def judge(context: Context, classifier: Classifier, fast: engine.Precision) -> dict[str, Any]:
    """Compare fast features with float32 features, and the predictions of the fitted head on both.

    The fast precision is used if the mean cosine similarity is at least 0.998 and at most max(1, 0.5 %) of the predictions
    change, on up to 256 images of train and val.

    Returns:
        The precision that is used, the reason, and the numbers. It is float32 if no image was computed in bf16: the processor
        does not support it, `SIGHTLINE_PRECISION` disables it, or there are too few images to convert the network.
    """
    backbone = classifier.card.backbone
    if fast == "f32":
        return _FLOAT32
    rows = context.split("train", "val")
    order = stream(0, "precision").permutation(len(rows))
    rows = np.sort(rows[order[:JUDGED_IMAGES]])
    tensors = classifier.tensors or None
    quick, exact = extract(context, backbone, fast, rows, tensors), extract(context, backbone, "f32", rows, tensors)
    if quick.fast is None or not quick.fast.any():
        return _FLOAT32
    both = quick.ok & exact.ok & quick.fast
    cosine = engine.cosines(quick.values[both], exact.values[both])
    predicted = [classifier.probs(f.values[both]).argmax(axis=1) for f in (quick, exact)]
    changed, limit = int((predicted[0] != predicted[1]).sum()), max(1, math.floor(CHANGED_SHARE * both.sum()))
    mean = float(cosine.mean()) if both.any() else 0.0
    trusted = mean >= MEAN_COSINE and changed <= limit
    return {
        "used": fast if trusted else "f32",
        "judged_on": int(both.sum()),
        "mean_cosine": mean,
        "min_cosine": float(cosine.min()) if both.any() else 0.0,
        "answers_changed": changed,
        "limit": limit,
        "why": f"{fast} gives {'nearly the same features as' if trusted else 'other features than'} float32 "
        f"on these photographs (mean cosine {mean:.5f}, {changed} of {int(both.sum())} predictions changed)",
    }


def record(classifier: Classifier, verdict: Mapping[str, Any]) -> Classifier:
    """Return the classifier with the result of `judge` in its card."""
    return with_card(classifier, precision=dict(verdict))
