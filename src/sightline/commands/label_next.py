"""Which unlabelled images to label next, as a table and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, containers, engine, pixels
from sightline.audit import label_next as proposing
from sightline.classifier import Classifier
from sightline.commands.audit import default_network, features_of
from sightline.errors import DataError, ImageError, RequestError
from sightline.explanation import similar_images
from sightline.explanation.draw.contact_sheets import contact_sheet
from sightline.explanation.draw.lettering import INK, PAPER, SMALL_PX, font, shorten
from sightline.records import Backbone, Catalog, Progress, silent
from sightline.runs import executor
from sightline.runs import folder as folders
from sightline.store import Cache, atomic_file, slug, write_json, write_text

_CELL_PX = 160


@dataclass(frozen=True, slots=True)
class Proposals:
    """Images to label.

    Args:
        rows: {"path", "rank", "reason", "predicted", "probability"} each, the most useful first.
        folder: Folder with `label_next.csv`, `label_next.json` and `label_next.png`.
    """

    rows: list[dict[str, Any]]
    folder: Path


@folders.releasing
def label_next(
    model: str | Path | Classifier | None,
    photos: str | Path | Catalog,
    *,
    count: int = 50,
    out: str | Path | None = None,
    backbone: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Proposals:
    """Propose images to label: such that cover the whole set first, then uncertain ones in dense regions.

    Args:
        model: Run, classifier file or classifier; None without any label, which chooses by coverage.
        photos: Folder, table or catalog of unlabelled images; images that the classifier was trained on are left out.
        count: Number of images.
        out: Folder to write; one below `runs` if None.
        backbone: Network of the features without a classifier. Default: the first default network that is available.
        seed: Random seed of the clustering.
        device, progress, cache: As in `evaluate`.

    Raises:
        RequestError: If `count` is below 1 or a path does not exist.
        DataError: If there is no image to propose.
    """
    if count < 1:
        raise RequestError(f"--n must be at least 1, not {count}", "write -n 50")
    cache = Cache() if cache is None else cache
    name = str(photos.root if isinstance(photos, Catalog) else photos)
    asked = {"photos": name, "count": count}
    folder = Path(out) if out is not None else folders.default(f"{slug(Path(name).name)}-label-next", "label_next.json", asked)
    folders.lock(folder)
    found = None if model is None else (model if isinstance(model, Classifier) else classifier.load(model))
    unlabelled = _unlabelled(photos, found, progress)
    network = _network(found, backbone, cache)
    compute = engine.choose_device(device)
    values = features_of(unlabelled, network, cache, compute, progress, tensors=None if found is None else found.tensors)
    if not np.isfinite(values).all(axis=1).any():
        raise DataError(f"{name} has no image that can be decoded", "`sightline scan` lists the problem of each image")
    training = None if model is None or isinstance(model, Classifier) else similar_images.training_of(model)
    labelled = None
    if found is not None and training is not None:
        labelled = features_of(training, network, cache, compute, progress, tensors=found.tensors)
    probs = None if found is None else _probabilities(found, unlabelled, cache, device, progress)
    group = catalogs.together(unlabelled, catalogs.find_duplicates(unlabelled, cache, progress, features=values))
    if probs is not None and labelled is None:  # the number of labelled images is unknown: trust the classifier
        labelled = np.zeros((proposing.COVERAGE_LABELS * probs.shape[1], values.shape[1]), np.float32)
    chosen = proposing.label_next(values, count, labelled=labelled, probs=probs, group=group, seed=seed)
    rows = [_row(rank, p, unlabelled.paths, found, probs) for rank, p in enumerate(chosen, 1)]
    _write(folder, unlabelled, rows, asked)
    return Proposals(rows, folder)


def open_photographs(photos: str | Path | Catalog, progress: Progress) -> Catalog:
    """Return the catalog of photographs that need no labels, unusable ones included.

    Args:
        photos: Folder, archive, array file, table or catalog.
        progress: Progress callback.

    Raises:
        RequestError: If the path does not exist.
    """
    if isinstance(photos, Catalog):
        return photos
    path = Path(photos)
    if not path.exists():
        raise RequestError(f"{photos} does not exist", "name a folder of photographs")
    if path.is_dir() or containers.holds_images(path):
        return executor.current().scan(path, label_from="(.?)", progress=progress)
    return catalogs.load(path)


def _unlabelled(photos: str | Path | Catalog, model: Classifier | None, progress: Progress) -> Catalog:
    """Return the usable images that the classifier was not trained on.

    Raises:
        DataError: If there are none.
    """
    usable = open_photographs(photos, progress).usable()
    if model is not None and model.seen is not None:
        keys = classifier.content_keys([content or "" for content in usable.column("content")])
        usable = usable.rows(~np.isin(keys, model.seen))
    if not len(usable):
        raise DataError(f"{photos} has no usable image that is not labelled yet", "name a folder of other photographs")
    return usable


def _network(model: Classifier | None, name: str | None, cache: Cache) -> Backbone:
    """Return the network of the features: that of the classifier, or a default one.

    Raises:
        RequestError: If a network is named beside a classifier.
    """
    if model is not None:
        if name is not None:
            raise RequestError("--backbone needs a FOLDER alone", "leave it out: the classifier's own network is used")
        return model.embedding_model.card.backbone
    return default_network(name, cache)


def _probabilities(model: Classifier, images: Catalog, cache: Cache, device: str, progress: Progress) -> np.ndarray:
    """Return the predicted probabilities of all images, float64 (n, k); those of unreadable ones are equal."""
    answers = model.predict(images, cache=cache, device=device, progress=progress)
    place = {path: i for i, path in enumerate(images.paths)}
    probs = np.full((len(images), len(model.classes)), 1 / len(model.classes))
    probs[[place[path] for path in answers.paths]] = answers.probs
    return probs


def _row(
    rank: int, proposal: proposing.Proposal, paths: Sequence[str], model: Classifier | None, probs: np.ndarray | None
) -> dict[str, Any]:
    """Return the JSON row of a proposal."""
    predicted, probability = None, None
    if model is not None and probs is not None:
        best = int(probs[proposal.row].argmax())
        predicted, probability = model.classes[best], float(probs[proposal.row, best])
    row = {"path": paths[proposal.row], "rank": rank, "reason": proposal.reason}
    return {**row, "predicted": predicted, "probability": probability}


def _write(folder: Path, images: Catalog, rows: list[dict[str, Any]], asked: dict[str, Any]) -> None:
    """Write the table, the contact sheet and the JSON file."""
    write_text(folder / "label_next.csv", folders.table(rows))
    cells = [_cell(images, row) for row in rows[:200]]
    sheet = contact_sheet(cells, title=f"{len(rows)} photographs to label")
    with atomic_file(folder / "label_next.png") as stream:
        sheet.save(stream, "PNG")
    write_json(folder / "label_next.json", {**asked, "images": rows})


def _cell(images: Catalog, row: dict[str, Any]) -> Any:
    """Return a picture of the contact sheet: the photograph with its rank, prediction and name below."""
    from PIL import Image, ImageDraw

    cell = Image.new("RGB", (_CELL_PX, _CELL_PX + 2 * SMALL_PX + 10), PAPER)
    try:
        small = Image.fromarray(pixels.upright(images.file(row["path"]), _CELL_PX))
        cell.paste(small, ((_CELL_PX - small.width) // 2, (_CELL_PX - small.height) // 2))
    except (ImageError, OSError):
        pass
    pen, letters = ImageDraw.Draw(cell), font(SMALL_PX)
    what = "" if row["predicted"] is None else f" · {row['predicted']} {row['probability']:.0%}"
    for line, text in enumerate((f"{row['rank']}{what}", row["path"])):
        fitted = shorten(text, _CELL_PX, SMALL_PX)
        pen.text((0, _CELL_PX + 4 + line * (SMALL_PX + 3)), fitted, fill=INK, font=letters, anchor="la")
    return cell
