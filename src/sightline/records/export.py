"""Record of an exported classifier: what was written, and how far its predictions agree with those of the classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class ChangedPrediction:
    """An image whose predicted class differs.

    Args:
        path: Path of the image.
        predicted: Class predicted by the classifier.
        exported: Class predicted by the exported file.
        difference: Largest difference of a probability, 0–1.
    """

    path: str
    predicted: str
    exported: str
    difference: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Comparison of an exported file with its classifier; no label is read.

    Args:
        images: Number of compared image files: validation images first, then training images, never test images.
        same_class: Number of them with the same predicted class.
        max_difference: Largest difference of a probability; None without images.
        changed: Images whose predicted class differs.
        pixel_images: Number of images compared from the same resized pixels with torch in float32.
        pixel_difference: Largest difference of a probability there; None without images.
        pixel_changes: Number of them with another class although the two most probable classes differ by more than 0.002.
    """

    images: int = 0
    same_class: int = 0
    max_difference: float | None = None
    changed: Sequence[ChangedPrediction] = ()
    pixel_images: int = 0
    pixel_difference: float | None = None
    pixel_changes: int = 0


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """Content of `card.json` beside an exported file.

    Args:
        file: Name of the exported file.
        format: `onnx`, `openvino` or `html`.
        precision: `f32`, `f16` (weights) or `int8`.
        bytes: Size of the exported files.
        sha256: SHA-256 of `file`.
        agreement: Comparison with the classifier.
        card: Card of the classifier, as `sightline card --json` prints it.
        facts: Metadata in the file: class names, threshold, prediction sets, licence, input.
        software: Versions of the packages that wrote it.
        version: Version of this format.
    """

    VERSION: ClassVar[int] = 1

    file: str
    format: str
    precision: str
    bytes: int
    sha256: str
    agreement: Agreement
    card: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
