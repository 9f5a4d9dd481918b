"""Output files of predictions: CSV, JSON lines and Parquet, written in bounded memory."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sightline.classifier import Classifier
from sightline.commands.prediction_rows import remark_columns
from sightline.errors import RequestError
from sightline.schema import csv_escape
from sightline.store import atomic_file

_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
_ROWS = 10_000
_KNOWN = ("time", "event", "images", "unreadable", "last_time", "heatmap", "copy")
"""Fields of entries that become columns as they are, where any entry has them."""

Entries = Callable[[], Iterator[dict[str, Any]]]


def check_name(file: Path) -> None:
    """Check the name of an output file.

    Raises:
        RequestError: If its suffix is not that of CSV, JSON lines or Parquet.
    """
    if file.suffix.lower() not in (".csv", *_LINES, *_PARQUET):
        raise RequestError(f"cannot write predictions as {file.name!r}", "use a name that ends with .csv, .jsonl or .parquet")


def write(file: Path, entries: Entries, model: Classifier, *, any_failed: bool) -> None:
    """Write predictions, atomically.

    Args:
        file: Output file; its suffix tells the format.
        entries: Yields the entries in order, each time from the first one.
        model: The classifier.
        any_failed: Whether any entry has an error, so that tables have a column `problem`.
    """
    suffix = file.suffix.lower()
    with atomic_file(file) as stream:
        if suffix in _LINES:
            for entry in entries():
                stream.write((json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
            return
        header = _header(entries, model, any_failed)
        rows = (_cells(entry, header) for entry in entries())
        (_write_parquet if suffix in _PARQUET else _write_csv)(stream, header, rows)


def _header(entries: Entries, model: Classifier, any_failed: bool) -> dict[str, str]:
    """Return column → key of its values in `_cells`, in order: path, label, prediction, probabilities, remarks, own columns."""
    own: dict[str, None] = {}
    fields: dict[str, None] = {}
    remarks: dict[str, None] = {}
    most = 0
    for entry in entries():
        own.update(dict.fromkeys(entry.get("columns") or ()))
        fields.update(dict.fromkeys(key for key in _KNOWN if entry.get(key) is not None))
        if "error" not in entry and not remarks:
            remarks = dict.fromkeys(remark_columns([entry]))
            most = len(entry.get("top") or ())
    decision = model.card.decision
    names = ["path", "label", "predicted", "probability", *(f"p:{c}" for c in model.classes)]
    names += [] if decision is None else [f"bar:{decision[0]}"]
    names += remarks
    names += [name for n in range(1, most + 1) for name in (f"top {n}", f"top {n} probability")]
    names += [name for name in _KNOWN if name in fields] + (["problem"] if any_failed else [])
    header = {name: name for name in names}
    for name in own:
        if name == "label":
            header["label"] = "columns.label"
        else:
            header[name if name not in header else f"{name} (input)"] = f"columns.{name}"
    if decision is not None:
        header[f"bar:{decision[0]}"] = f"= {decision[1]!r}"
    return header


def _cells(entry: Mapping[str, Any], header: Mapping[str, str]) -> list[Any]:
    """Return the cells of one entry, None for empty ones; numbers stay numbers."""
    own = entry.get("columns") or {}
    values: dict[str, Any] = {key: entry.get(key) for key in ("path", *_KNOWN)} | {"problem": entry.get("error")}
    failed = "error" in entry
    if not failed:
        values |= {"predicted": entry["label"], "probability": entry["probability"]}
        values |= {n: entry[n] if isinstance(entry[n], float) else v[0] for n, v in remark_columns([entry]).items()}
        values |= {f"p:{name}": value for name, value in entry["probabilities"].items()}
        for n, one in enumerate(entry.get("top") or (), 1):
            values |= {f"top {n}": one["class"], f"top {n} probability": one["probability"]}
    cells: list[Any] = []
    for key in header.values():
        if key.startswith("columns."):
            cells.append(own.get(key.removeprefix("columns.")) or None)
        elif key.startswith("= "):
            cells.append(None if failed else float(key[2:]))
        else:
            cells.append(values.get(key))
    return cells


def _write_csv(stream: IO[bytes], header: Mapping[str, str], rows: Iterator[list[Any]]) -> None:
    """Write a CSV table; text is escaped so that spreadsheets do not run it as a formula."""
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    table = csv.writer(text, lineterminator="\n")
    table.writerow([csv_escape(name) for name in header])
    for cells in rows:
        table.writerow(["" if c is None else csv_escape(c) if isinstance(c, str) else repr(c) for c in cells])
    text.detach()


def _write_parquet(stream: IO[bytes], header: Mapping[str, str], rows: Iterator[list[Any]]) -> None:
    """Write a Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet

    numbers = ("p:", "bar:", "probability", "coverage", "unlike")
    kinds = [
        pa.float64()
        if not key.startswith("columns.") and (name.startswith(numbers) or name.endswith(" probability"))
        else pa.int64()
        if key in ("images", "unreadable")
        else pa.string()
        for name, key in header.items()
    ]
    schema = pa.schema(list(zip(header, kinds, strict=True)))
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        while block := list(itertools.islice(rows, _ROWS)):
            columns = [pa.array(list(column), kind) for column, kind in zip(zip(*block, strict=True), kinds, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
