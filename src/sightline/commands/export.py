"""The command `export`: a classifier as a file that predicts without Sightline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline import classifier
from sightline.catalog import load as load_catalog
from sightline.classifier import Classifier, find_images
from sightline.commands.card import describe
from sightline.errors import RequestError, SightlineError
from sightline.explanation import similar_images
from sightline.export import FORMATS, ExportRequest, check_format, export_classifier
from sightline.records import Progress, Run, silent
from sightline.records.export import ExportRecord
from sightline.runs import folder as folders
from sightline.store import Cache

CALIBRATION_IMAGES = 200
"""Maximum number of training images on which int8 ranges are calibrated."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported classifier.

    Args:
        file: Exported file.
        record: What `card.json` beside it says.
    """

    file: Path
    record: ExportRecord


@folders.releasing
def export(
    model: Classifier | Run | str | Path,
    to: str = "onnx",
    out: str | Path = "exported",
    *,
    precision: str | None = None,
    images: Sequence[str | Path] = (),
    allow_difference: bool = False,
    code: str | None = None,
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Exported:
    """Export a classifier, and compare the exported file with it on photographs.

    Compared are the images of its run: validation images first, then training images. Their labels are not read, and the test
    split is not used.

    Args:
        model: Classifier, run, or the path of either.
        to: A name in `sightline.export.FORMATS`.
        out: Folder for the files, or a file name with the suffix of the format.
        precision: `f32` or `int8`; None for that of the format.
        images: Image files, or folders of them, to compare in place of those of the run; int8 is calibrated on them too.
        allow_difference: Whether to keep files that do not agree with the classifier.
        code: `file.py:function` that builds a user-defined network.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Raises:
        RequestError: If the classifier does not exist, cannot be exported, or an argument is wrong.
        SightlineError: If the exported file does not agree with the classifier.
    """
    kind, chosen = check_format(to, precision)
    if isinstance(model, Run):
        model = model.classifier_file
    loaded = model if isinstance(model, Classifier) else classifier.load(model, code=code)
    cache = Cache() if cache is None else cache
    folder, stem = Path(out), "model"
    if folder.suffix.lower() in {form.suffix for form in FORMATS.values()}:
        if folder.suffix.lower() != kind.suffix:
            raise RequestError(f"{out} is not a name for {kind.title}", f"name a file that ends in {kind.suffix}, or a folder")
        folder, stem = folder.parent, folder.stem
    val, train = ([], []) if isinstance(model, Classifier) else _images_of_run(Path(model))
    if images:
        named, unread = find_images(images)
        if not named:
            raise classifier.no_image(list(images), unread)
        val, train = named, named
    folders.lock(folder)
    request = ExportRequest(
        model=loaded,
        folder=folder,
        stem=stem,
        precision=chosen,
        calibration=train[:CALIBRATION_IMAGES] or val[:CALIBRATION_IMAGES],
        cache=cache,
        progress=progress,
        card=describe(loaded, _file(model)),
    )
    compared = list(dict.fromkeys([*val, *train]))
    record = export_classifier(request, kind, compared, allow_difference=allow_difference)
    return Exported(folder / record.file, record)


def _file(model: Classifier | str | Path) -> Path | None:
    """Return the file of a classifier; None for one in memory."""
    if isinstance(model, Classifier):
        return None
    return Path(model) / "classifier.safetensors" if Path(model).is_dir() else Path(model)


def _images_of_run(model: Path) -> tuple[list[Path], list[Path]]:
    """Return the validation and the training images of the run that a classifier belongs to, evenly spread; or none."""
    folder = model if model.is_dir() else model.parent
    if similar_images.training_of(model) is None:
        return [], []
    try:
        usable = load_catalog(folder / "catalog.csv").usable()
    except (SightlineError, OSError):
        return [], []
    files, splits = usable.files(), usable.column("split")
    chosen = []
    for split in ("val", "train"):
        rows = [file for file, name in zip(files, splits, strict=True) if name == split and file.is_file()]
        step = max(1, len(rows) // CALIBRATION_IMAGES)  # the rows are sorted by path, and so by class
        chosen.append([*rows[::step], *(row for i, row in enumerate(rows) if i % step)])
    return chosen[0], chosen[1]
