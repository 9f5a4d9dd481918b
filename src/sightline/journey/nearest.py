"""Which training images a mistake looks like to the classifier, from features that are there already where it did not train."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError, SightlineError
from sightline.evaluation import unlike
from sightline.records import Catalog, Progress
from sightline.store import Cache, stream, write_bytes

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
    learnt = model.seer.card.backbone.weights == "run"
    if learnt and len(training) > MOST_TRAINING:
        drawn = set(stream(0, "nearest").permutation(len(training))[:MOST_TRAINING].tolist())
        training = training.rows(i in drawn for i in range(len(training)))
    compared = wrong[:MOST_COMPARED]
    wanted = {m["path"] for m in compared}
    asked = rows.rows(p in wanted for p in rows.paths)
    found, known = (model.embed(c, cache=cache, device=device, progress=progress) for c in (asked, training))
    if not known.values.shape[1] or not known.ok.any():
        return
    place = {path: i for i, (path, ok) in enumerate(zip(asked.paths, found.ok, strict=True)) if ok}
    kept = np.flatnonzero(known.ok)
    bank = unlike.directions(known.values[kept])
    names, labels = training.paths, training.column("label")
    near, away = unlike.nearest(bank, unlike.directions(found.values), NEAREST + 1)
    for number, mistake in enumerate(compared):
        i = place.get(mistake["path"])
        if i is None:
            continue
        itself = asked.file(mistake["path"])
        pairs = [(int(kept[j]), float(d)) for j, d in zip(near[i], away[i], strict=True)]
        others = [(j, d) for j, d in pairs if training.file(names[j]) != itself][:NEAREST]
        mistake["nearest"] = [{"path": names[j], "label": labels[j], "distance": round(d, 6)} for j, d in others]
        if number < MOST_SHOWN:
            mistake["thumbnail"] = _thumbnail(folder, asked, mistake["path"], model)
            for (j, _), shown in zip(others, mistake["nearest"], strict=True):
                shown["thumbnail"] = _thumbnail(folder, training, names[j], model)


def _thumbnail(folder: Path, catalog: Catalog, path: str, model: Classifier) -> str | None:
    """A small picture of an image in the run's folder, once for each content: its name; None where it cannot be drawn."""
    from PIL import Image

    row = catalog.paths.index(path)
    name = f"mistakes/{catalog.column('content')[row][:16]}.jpg"
    if not (folder / name).is_file():
        try:
            array = pixels.upright(catalog.file(path), THUMBNAIL_PX, model.seer.card.backbone.preprocess)
        except (ImageError, OSError):
            return None
        data = io.BytesIO()
        Image.fromarray(array).save(data, "JPEG", quality=88)
        write_bytes(folder / name, data.getvalue())
    return name
