"""Similar training images of a misclassified image, by the cosine distance of features."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline import catalog as catalogs
from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError, SightlineError
from sightline.evaluation import out_of_distribution
from sightline.records import Catalog, Progress
from sightline.records.error_analysis import Mistake, SimilarImage
from sightline.store import Cache, slug, stream, write_bytes

NEAREST = 3
MOST_COMPARED = 400
"""Maximum number of mistakes, the most confident first, whose similar images are found."""
MOST_SHOWN = 36
"""Maximum number of mistakes with thumbnails."""
MOST_TRAINING = 5_000
"""Maximum number of training images for a network trained here, whose features are not cached."""
THUMBNAIL_PX = 160


def training_of(subject: str | Path) -> Catalog | None:
    """Return the images that a run's classifier was fitted on, by the catalog beside it; None where there is none."""
    path = Path(subject)
    folder = path if path.is_dir() else path.parent
    if not ((folder / "run.json").is_file() and (folder / "catalog.csv").is_file()):
        return None
    try:
        return learnt_from(catalogs.load(folder / "catalog.csv"))
    except (SightlineError, OSError):
        return None


def learnt_from(catalog: Catalog) -> Catalog:
    """Return the usable rows of train and val."""
    usable = catalog.usable()
    return usable.rows(s in ("train", "val") for s in usable.column("split"))


def with_nearest(
    folder: Path,
    model: Classifier,
    mistakes: Sequence[Mistake],
    rows: Catalog,
    training: Catalog,
    *,
    cache: Cache,
    device: str,
    progress: Progress,
) -> list[Mistake]:
    """Return mistakes with the most similar training images, at most `NEAREST` each; write thumbnails of the first ones.

    An image is never its own neighbour; a copy of it under another name may be, and explains much.

    Args:
        folder: The run's folder, for thumbnails.
        model: The classifier.
        mistakes: The mistakes.
        rows: The catalog of the mistakes.
        training: The images that the classifier was fitted on.
        cache, device, progress: As in `Classifier.embed`.
    """
    files = [rows.file(m.path) for m in mistakes[:MOST_COMPARED]]
    names, labels = training.paths, training.column("label")
    found = lookalikes(model, files, training, cache=cache, device=device, progress=progress)
    result = list(mistakes)
    for number, (mistake, others) in enumerate(zip(mistakes, found, strict=False)):
        if others is None:
            continue
        shown = number < MOST_SHOWN
        thumbnail = _thumbnail(folder, rows, mistake.path, model) if shown else None
        nearest = [
            SimilarImage(names[j], labels[j], round(d, 6), _thumbnail(folder, training, names[j], model) if shown else None)
            for j, d in others
        ]
        result[number] = dataclasses.replace(mistake, nearest=nearest, thumbnail=thumbnail)
    return result


def lookalikes(
    model: Classifier, files: Sequence[Path], training: Catalog, *, cache: Cache, device: str, progress: Progress
) -> list[list[tuple[int, float]] | None]:
    """Return the training images that are most similar to images, by the cosine distance of the classifier's features.

    Args:
        model: Any classifier.
        files: n images.
        training: The images that it was fitted on.
        cache, device, progress: As in `Classifier.embed`.

    Returns:
        For each file (row of `training`, distance), the nearest first, at most NEAREST, without the file itself; None where it
        cannot be read, or the classifier uses no pixels.
    """
    sampled = np.arange(len(training))
    if model.embedding_model.card.backbone.weights == "run" and len(training) > MOST_TRAINING:
        sampled = np.sort(stream(0, "nearest").permutation(len(training))[:MOST_TRAINING])
        rows = set(sampled.tolist())
        training = training.rows(i in rows for i in range(len(training)))
    bank_features = model.embed(training, cache=cache, device=device, progress=progress)
    if not bank_features.values.shape[1] or not bank_features.ok.any():
        return [None] * len(files)
    queried = model.embed(files, cache=cache, device=device, progress=progress)
    readable = np.flatnonzero(bank_features.ok)
    bank = out_of_distribution.directions(bank_features.values[readable])
    nearest, distances = out_of_distribution.nearest(bank, out_of_distribution.directions(queried.values), NEAREST + 1)
    paths = [os.path.abspath(file) for file in training.files()]
    neighbours: list[list[tuple[int, float]] | None] = []
    for i, file in enumerate(files):
        pairs = [(int(readable[j]), float(d)) for j, d in zip(nearest[i], distances[i], strict=True)]
        others = [(int(sampled[j]), d) for j, d in pairs if paths[j] != os.path.abspath(file)]
        neighbours.append(others[:NEAREST] if queried.ok[i] else None)
    return neighbours


def _thumbnail(folder: Path, catalog: Catalog, path: str, model: Classifier) -> str | None:
    """Write a thumbnail to the run's folder, once per content, and return its name; None where the image cannot be read."""
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
