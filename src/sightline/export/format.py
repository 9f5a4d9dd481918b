"""The registry record of an export format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.classifier import Classifier
from sightline.export.agreement import FromFile, FromPixels
from sightline.records import Preprocess, Progress
from sightline.records.model_card import ModelCard
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Options of an export, and its target.

    Args:
        model: Classifier.
        folder: Existing folder for the files.
        stem: Name of the exported file, without its suffix.
        precision: One of the format's precisions.
        calibration: Training images, for int8.
        cache: Cache.
        progress: Progress callback.
        card: Card of the classifier, for formats that describe it.
    """

    model: Classifier
    folder: Path
    stem: str
    precision: str
    calibration: Sequence[Path]
    cache: Cache
    progress: Progress
    card: ModelCard | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Files of an export, and how to run them for the comparison with the classifier.

    Args:
        files: Names in the folder, the exported file first.
        counted: The names whose size is the size of the export.
        predict: Image file → probabilities (k,), as a user of the exported file computes them.
        inputs: Preprocessings of `run`.
        run: Preprocessed images → probabilities; None if the precision is lower than float32.
    """

    files: tuple[str, ...]
    counted: tuple[str, ...]
    predict: FromFile
    inputs: tuple[Preprocess, ...] = ()
    run: FromPixels | None = None


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """Format of an exported classifier.

    Args:
        name: Name on the command line, the key in FORMATS.
        title: Name for people.
        suffix: Suffix of the exported file.
        precisions: Supported precisions, the default first.
        write: Writes the files.
        note: What to know about precisions that are not supported.
    """

    name: str
    title: str
    suffix: str
    precisions: tuple[str, ...]
    write: Callable[[ExportRequest], Written]
    note: str = ""
