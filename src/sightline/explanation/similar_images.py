"""Which training images a mistake looks like to the classifier, from features that are there already where it did not train."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError, SightlineError
from sightline.evaluation import out_of_distribution
from sightline.records import Catalog, Progress
from sightline.store import Cache, slug, stream, write_bytes

NEAREST = 3
MOST_COMPARED = 400
"""So many mistakes, the most confident ones, are told what they look like."""
MOST_SHOWN = 36
"""So many of them with pictures."""
MOST_TRAINING = 5_000
"""Training images that are compared with where their features are not there yet: a network that learnt here."""
THUMBNAIL_PX = 160


def training_of(subject: str | Path) -> Catalog | None:
    """The images that a run's classifier was fitted on, by the catalog that lies beside it; None where there is none."""
    path = Path(subject)
    folder = path if path.is_dir() else path.parent
    if not ((folder / "run.json").is_file() and (folder / "catalog.csv").is_file()):
        return None
    try:
        return learnt_from(catalogs.load(folder / "catalog.csv"))
    except (SightlineError, OSError):
        return None


def learnt_from(catalog: Catalog) -> Catalog:
    """The usable rows of train and val."""
    usable = catalog.usable()
    return usable.rows(s in ("train", "val") for s in usable.column("split"))


def add(
    folder: Path,
    model: Classifier,
    wrong: list[dict[str, Any]],
    rows: Catalog,
    training: Catalog,
    *,
    cache: Cache,
    device: str,
    progress: Progress,
) -> None:
    """Add to mistakes, in place, the training images that they look like to the classifier: `nearest`, at most NEAREST each.

    An image is never its own neighbour; a copy of it under another name may be, and explains much.
    """
    compared = wrong[:MOST_COMPARED]
    files = [rows.file(m["path"]) for m in compared]
    names, labels = training.paths, training.column("label")
    found = lookalikes(model, files, training, cache=cache, device=device, progress=progress)
    for number, (mistake, others) in enumerate(zip(compared, found, strict=True)):
        if others is None:
            continue
        mistake["nearest"] = [{"path": names[j], "label": labels[j], "distance": round(d, 6)} for j, d in others]
        if number < MOST_SHOWN:
            mistake["thumbnail"] = _thumbnail(folder, rows, mistake["path"], model)
            for (j, _), shown in zip(others, mistake["nearest"], strict=True):
                shown["thumbnail"] = _thumbnail(folder, training, names[j], model)


def lookalikes(
    model: Classifier, files: Sequence[Path], training: Catalog, *, cache: Cache, device: str, progress: Progress
) -> list[list[tuple[int, float]] | None]:
    """The training images that images look like to a classifier, by the cosine of their features.

    Args:
        model: Any.
        files: n images.
        training: What it was fitted on.
        cache, device, progress: As everywhere.

    Returns:
        For each file (row of `training`, distance), the nearest first, at most NEAREST, the file itself left out; None where it
        cannot be read, or the classifier looks at no pixels.
    """
    drawn = np.arange(len(training))
    if model.embedding_model.card.backbone.weights == "run" and len(training) > MOST_TRAINING:
        drawn = np.sort(stream(0, "nearest").permutation(len(training))[:MOST_TRAINING])
        chosen = set(drawn.tolist())
        training = training.rows(i in chosen for i in range(len(training)))
    known = model.embed(training, cache=cache, device=device, progress=progress)
    if not known.values.shape[1] or not known.ok.any():
        return [None] * len(files)
    found = model.embed(files, cache=cache, device=device, progress=progress)
    kept = np.flatnonzero(known.ok)
    bank = out_of_distribution.directions(known.values[kept])
    near, away = out_of_distribution.nearest(bank, out_of_distribution.directions(found.values), NEAREST + 1)
    paths = [os.path.abspath(file) for file in training.files()]
    told: list[list[tuple[int, float]] | None] = []
    for i, file in enumerate(files):
        pairs = [(int(kept[j]), float(d)) for j, d in zip(near[i], away[i], strict=True)]
        others = [(int(drawn[j]), d) for j, d in pairs if paths[j] != os.path.abspath(file)]
        told.append(others[:NEAREST] if found.ok[i] else None)
    return told


def _thumbnail(folder: Path, catalog: Catalog, path: str, model: Classifier) -> str | None:
    """A small picture of an image in the run's folder, once for each content: its name; None where it cannot be drawn."""
    from PIL import Image

    row = catalog.paths.index(path)
    name = f"mistakes/{slug(Path(path).stem)}-{catalog.column('content')[row][:8]}.jpg"
    if not (folder / name).is_file():
        try:
            array = pixels.upright(catalog.file(path), THUMBNAIL_PX, model.embedding_model.card.backbone.preprocess)
        except (ImageError, OSError):
            return None
        data = io.BytesIO()
        Image.fromarray(array).save(data, "JPEG", quality=88)
        write_bytes(folder / name, data.getvalue())
    return name
