"""Agreement of an exported file with its classifier: from the same resized pixels, and from image files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sightline import heads, pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError, SightlineError
from sightline.records import Preprocess, Progress
from sightline.records.export import Agreement, ChangedPrediction
from sightline.store import Cache

MOST_IMAGES = 200
"""Maximum number of compared images."""
MOST_PIXEL_IMAGES = 32
"""Maximum number of images compared from the same resized pixels; torch computes them in float32."""
PIXEL_TOLERANCE = 1e-3
"""Maximum difference of a probability from the same resized pixels in float32."""
TIE = 2e-3
"""Difference of the two most probable classes within which another class is no change."""
MOST_CHANGED = {"f32": 0.005, "f16": 0.01, "int8": 0.01}
"""Maximum share of images with another class, by precision."""

FromPixels = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Preprocessed images, one uint8 (1, h, w, 3) for each input of the graph → probabilities (k,)."""
FromFile = Callable[[Path], np.ndarray]


def from_files(
    model: Classifier,
    files: Sequence[Path],
    predict: FromFile,
    *,
    cache: Cache,
    progress: Progress,
) -> Agreement:
    """Compare predictions of files with those of `Classifier.predict`. Files that either cannot read are left out."""
    reference = model.predict(list(files), cache=cache, progress=progress) if files else None
    if reference is None or not len(reference):
        return Agreement()
    rows, probs = [], []
    for row, path in enumerate(reference.paths):
        try:
            probs.append(predict(Path(path)))
            rows.append(row)
        except (OSError, ValueError, SyntaxError, ImageError):  # what Pillow raises for files that it cannot read
            continue
        progress("comparing", row + 1, len(reference))
    compared = reference.select(np.array(rows, dtype=np.int64))
    exported = dataclasses.replace(compared, probs=np.array(probs, dtype=np.float64).reshape(len(rows), -1))
    difference = np.abs(exported.probs - compared.probs).max(axis=1, initial=0)
    other = np.flatnonzero(exported.y_pred != compared.y_pred)
    changed = [
        ChangedPrediction(compared.paths[i], compared.labels[i], exported.labels[i], float(difference[i])) for i in other
    ]
    return Agreement(
        images=len(rows),
        same_class=len(rows) - len(changed),
        max_difference=float(difference.max()) if len(rows) else None,
        changed=tuple(changed),
    )


def from_pixels(
    model: Classifier, files: Sequence[Path], inputs: Sequence[Preprocess], run: FromPixels, *, cache: Cache
) -> tuple[int, float | None, int]:
    """Compare predictions from the same resized pixels with torch in float32.

    Returns:
        The number of images, the largest difference of a probability, and the number of changed classes beyond `TIE`.
    """
    decoded: list[list[np.ndarray]] = []
    for file in files[:MOST_PIXEL_IMAGES]:
        try:
            decoded.append([pixels.decode(file, preprocess)[None] for preprocess in inputs])
        except ImageError:
            continue
    if not decoded or not inputs:
        return 0, None, 0
    by_id = {p.id: np.concatenate([row[i] for row in decoded]) for i, p in enumerate(inputs)}
    reference = reference_probs(model, by_id, cache)
    exported = np.stack([run(row) for row in decoded]).astype(np.float64)
    top = np.sort(reference, axis=1)
    apart = top[:, -1] - top[:, -2] > TIE if reference.shape[1] > 1 else np.ones(len(top), dtype=bool)
    changes = int(((reference.argmax(axis=1) != exported.argmax(axis=1)) & apart).sum())
    return len(decoded), float(np.abs(reference - exported).max()), changes


def reference_probs(model: Classifier, decoded: Mapping[str, np.ndarray], cache: Cache) -> np.ndarray:
    """Return the probabilities of preprocessed images with networks in torch and float32, float64 (n, k).

    Args:
        model: Classifier.
        decoded: Images uint8 (n, h, w, 3) by the id of their preprocessing.
        cache: Cache.
    """
    if model.members:
        mean = sum(
            weight * reference_probs(part, decoded, cache)[:, [part.classes.index(c) for c in model.classes]]
            for part, weight in zip(model.members, model.card.weights, strict=True)
        )
        return heads.softmax(heads.log_probs(np.asarray(mean)) / model.card.temperature)
    backbone, crops = model.card.backbone, model.card.crops
    if backbone.source == "none":
        return model.probs(np.zeros((len(next(iter(decoded.values()))), 0), np.float32))
    images = decoded[(pixels.uncut(backbone.preprocess) if crops > 1 else backbone.preprocess).id]
    if backbone.source == "pixels":
        return model.probs(images.reshape(len(images), -1).astype(np.float32) / 255)
    views = [pixels.cut(images, backbone.preprocess.size, i) for i in range(crops)] if crops > 1 else [images]
    module = model.session(cache, device="cpu", expected=1).reference()
    features = np.stack([_features(module, view) for view in views], axis=1)
    return model.probs(features if crops > 1 else features[:, 0])


def _features(module: Callable[..., tuple[object, object]], images: np.ndarray) -> np.ndarray:
    """Return features float32 (n, d) in torch."""
    import torch

    with torch.inference_mode():
        parts = [module(torch.from_numpy(images[i : i + 8].copy()))[1] for i in range(0, len(images), 8)]
        return np.asarray(torch.cat(parts).float().cpu().numpy())  # type: ignore[arg-type]


def check(agreement: Agreement, precision: str, *, allow_difference: bool) -> None:
    """Check that an exported file agrees with its classifier.

    Raises:
        SightlineError: If it does not, and `allow_difference` is not set.
    """
    if allow_difference:
        return
    hint = "--allow-difference writes it all the same and lists the differences in card.json"
    if not agreement.images:
        raise SightlineError("there are no photographs to compare the exported file with", f"name some with --images; {hint}")
    difference = agreement.pixel_difference or 0.0
    if precision == "f32" and (agreement.pixel_changes or difference > PIXEL_TOLERANCE):
        changes = f", and {agreement.pixel_changes} classes change" if agreement.pixel_changes else ""
        message = (
            f"from the same pixels a probability differs by {difference:.2g} from that in torch{changes}; "
            f"at most {PIXEL_TOLERANCE:g} is allowed"
        )
        raise SightlineError(message, hint)
    changed = agreement.images - agreement.same_class
    if changed > MOST_CHANGED[precision] * agreement.images:
        first = agreement.changed[0]
        message = (
            f"{changed:,} of {agreement.images:,} photographs get another class from the exported file, such as {first.path} "
            f"({first.exported} instead of {first.predicted}); at most {MOST_CHANGED[precision]:.1%} is allowed"
        )
        raise SightlineError(message, hint)
