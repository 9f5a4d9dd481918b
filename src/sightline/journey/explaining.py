"""Images explained: an overlay and the raw heat of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import classifier
from sightline.errors import RequestError, unknown
from sightline.journey import gallery
from sightline.journey.heats import heats_of
from sightline.journey.request import slug
from sightline.records import Progress, silent
from sightline.store import Cache, atomic_file

if TYPE_CHECKING:
    pass


def explain(
    subject: str,
    images: Sequence[str],
    *,
    out: str = "explanations",
    target: str | None = None,
    method: str = "auto",
    seed: int = 0,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Heatmaps of images: an overlay and the raw heat of each.

    Args:
        subject: A run's folder or a classifier's file.
        images: Files or folders.
        out: Where the pictures go.
        target: The class to explain; the predicted one if None.
        method: `auto`, `gradcam` or `masks`.

    Returns:
        One entry per image as `explain --json` prints it; an unreadable image has `error`.
    """
    cache = Cache() if cache is None else cache
    model = classifier.load(subject, code=code)
    if not model.looks_at_images:
        raise RequestError(f"{subject} ({model.card.method}) never looks at the photograph: there is nothing to explain")
    if target is not None and target not in model.classes:
        raise unknown("class", target, model.classes)
    files = classifier.find_images(list(images))
    names = [str(f) for f in files]
    answers = model.predict(list(files), cache=cache, device=device, progress=progress)
    probs = dict(zip(answers.paths, answers.probs, strict=True))
    said = dict(zip(answers.paths, answers.y_pred, strict=True))
    kept = [i for i, n in enumerate(names) if n in probs]
    targets = [model.classes.index(target) if target is not None else int(said[names[i]]) for i in kept]
    found, errors = heats_of(
        model,
        [files[i] for i in kept],
        [names[i] for i in kept],
        targets,
        cache=cache,
        device=device,
        method=method,
        seed=seed,
        progress=progress,
    )
    entries: list[dict[str, Any]] = []
    folder = Path(out)
    for number, item in enumerate(found, 1):
        stem = f"{number:03d}-{slug(Path(item.path).stem)}"
        shown = probs[item.path][model.classes.index(item.target)]
        picture, preprocess = folder / f"{stem}.png", model.card.backbone.preprocess
        gallery.write_overlay(picture, Path(item.path), preprocess, item, f"{item.target} ({shown:.0%})")
        with atomic_file(folder / f"{stem}.npy") as file:
            np.save(file, item.heat)
        entries.append(
            {
                "path": item.path,
                "target": item.target,
                "probability": float(shown),
                "method": item.method,
                "layer": item.layer,
                "overlay": str(picture),
                "heat": str(folder / f"{stem}.npy"),
                "peak": list(item.peak()),
                "check": None,
            }
        )
    failed: Mapping[str, str] = {**answers.errors, **errors}
    return entries + [{"path": n, "error": why} for n, why in failed.items()]
