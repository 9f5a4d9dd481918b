"""FORMATS, and the export itself: write the files, compare them with the classifier, and keep them if they agree."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sightline.classifier import versions
from sightline.errors import RequestError, unknown
from sightline.export import agreement, html_format, huggingface_format, onnx_format, openvino_format
from sightline.export.format import ExportFormat, ExportRequest, Written
from sightline.export.model import check_exportable, metadata
from sightline.records.export import Agreement, ExportRecord
from sightline.store import file_digest, output_folder, plain, replace, write_json

FORMATS: dict[str, ExportFormat] = {
    "onnx": onnx_format.FORMAT,
    "openvino": openvino_format.FORMAT,
    "html": html_format.FORMAT,
    "huggingface": huggingface_format.FORMAT,
}


def check_format(name: str, precision: str | None) -> tuple[ExportFormat, str]:
    """Return a format by its name, and the precision to use.

    Raises:
        RequestError: If the format is unknown or does not support the precision.
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    kind = FORMATS[name]
    chosen = kind.precisions[0] if precision is None else precision
    if chosen not in kind.precisions:
        hint = f"use --precision {' or '.join(kind.precisions)}" + (f"; {kind.note}" if kind.note else "")
        raise RequestError(f"{name} cannot be exported with precision {chosen!r}", hint)
    return kind, chosen


def export_classifier(
    request: ExportRequest, kind: ExportFormat, compared: Sequence[Path], *, allow_difference: bool = False
) -> ExportRecord:
    """Export a classifier, and return the record that `card.json` holds.

    The files are written into the request's folder only if their predictions agree with the classifier's.

    Args:
        request: What to export, and where.
        kind: Format.
        compared: Image files to compare, of which at most `agreement.MOST_IMAGES` are used.
        allow_difference: Whether to keep the files if they do not agree.

    Raises:
        SightlineError: If the files do not agree with the classifier, or a package is missing.
    """
    check_exportable(request.model)
    files = list(compared)[: agreement.MOST_IMAGES]
    folder = output_folder(request.folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        inside = dataclasses.replace(request, folder=Path(scratch))
        written = kind.write(inside)
        agreed = agreement.from_files(request.model, files, written.predict, cache=request.cache, progress=request.progress)
        if written.run is not None:
            count, difference, changes = agreement.from_pixels(
                request.model, files, written.inputs, written.run, cache=request.cache
            )
            agreed = dataclasses.replace(agreed, pixel_images=count, pixel_difference=difference, pixel_changes=changes)
        agreement.check(agreed, request.precision, allow_difference=allow_difference)
        record = _record(inside, kind, written, agreed)
        write_json(Path(scratch, "card.json"), record)
        for name in (*written.files, "card.json"):
            replace(Path(scratch, name), folder / name)
    return record


def _record(request: ExportRequest, kind: ExportFormat, written: Written, agreed: Agreement) -> ExportRecord:
    """Return the record of the files in a folder."""
    main = request.folder / written.files[0]
    facts = {name.removeprefix("sightline."): json.loads(text) for name, text in metadata(request.model).items()}
    return ExportRecord(
        file=main.name,
        format=kind.name,
        precision=request.precision,
        bytes=sum(os.path.getsize(request.folder / name) for name in written.counted),
        sha256=file_digest(main),
        agreement=agreed,
        card=plain(request.model.card),
        facts=facts,
        software=versions(),
    )
