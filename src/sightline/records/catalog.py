"""Catalog: the table of images, labels and splits from which everything starts."""

from __future__ import annotations

import dataclasses
import typing
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline import store
from sightline.errors import unknown
from sightline.records import display

if typing.TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

CATALOG_COLUMNS: dict[str, str] = {
    "path": "string",  # POSIX path relative to the root; the key
    "content": "string",  # SHA-256 of the bytes, "" if they could not be read
    "label": "string",  # class, null if unknown
    "split": "string",  # train, val, test, or null
    "group": "string",  # images of one group stay in one split
    "width": "int32",  # of the upright image, in pixels; null if the header could not be read
    "height": "int32",
    "format": "string",  # by content: JPEG, PNG, …
    "mode": "string",  # Pillow's: RGB, L, I;16, CMYK, …
    "orientation": "int8",  # EXIF, 1 to 8; 1 if there is none
    "size_bytes": "int64",
    "problem": "string",  # why the image is left out, null if it is used
    "note": "string",  # unusual but used: animated, wrong extension, …; several joined by "; "
}


@dataclass(frozen=True, slots=True)
class Catalog:
    """Table of images, one row per file: the single source of truth about images.

    Columns are those of CATALOG_COLUMNS, then those of the user's table. Rows are sorted by path.

    Args:
        table: `pyarrow.Table` of the rows.
        root: Absolute folder to which `path` is relative.
        notes: Remarks about the whole set for the user.
    """

    table: pa.Table
    root: Path
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return display.line("Catalog", self._facts())

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        return display.table("Catalog", self._facts())

    def _facts(self) -> dict[str, object]:
        """Return what identifies the catalog for people: its size, classes, splits, problems and root."""
        columns = set(self.table.column_names)
        labelled = {"label", "problem"} <= columns
        counts = Counter(s for s in self.column("split") if s is not None) if "split" in columns else {}
        return {
            "images": len(self),
            "classes": len(self.classes) if labelled else None,
            "splits": " / ".join(f"{name} {counts[name]:,}" for name in SPLITS if counts.get(name)) or None,
            "unusable": sum(p is not None for p in self.column("problem")) or None if labelled else None,
            "root": self.root,
        }

    def column(self, name: str) -> list[Any]:
        """Return one column as Python values, null as None.

        Raises:
            RequestError: If there is no such column.
        """
        if name not in self.table.column_names:
            raise unknown("column in the catalog", name, self.table.column_names)
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    @property
    def paths(self) -> list[str]:
        """Return the `path` of every row."""
        return self.column("path")

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes of the usable rows, sorted. Class indices follow this order everywhere."""
        pairs = zip(self.column("label"), self.column("problem"), strict=True)
        return tuple(sorted({label for label, problem in pairs if label is not None and problem is None}))

    def file(self, path: str) -> Path:
        """Return the absolute path of a row's file."""
        return self.root.joinpath(*path.split("/"))

    def files(self) -> list[Path]:
        """Return the absolute paths of all files."""
        return [self.file(p) for p in self.paths]

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Return the index in `classes` of every row's label, int64 (n,); -1 if the label is unknown or not among them."""
        index = {c: i for i, c in enumerate(classes)}
        return np.array([index.get(v, -1) for v in self.column("label")], dtype=np.int64)

    def rows(self, mask: Iterable[bool]) -> Catalog:
        """Return the catalog of the rows for which `mask` is true."""
        import pyarrow as pa

        return dataclasses.replace(self, table=self.table.filter(pa.array(list(mask), pa.bool_())))

    def where(self, *, split: str | None = None, label: str | None = None) -> Catalog:
        """Return the catalog of the rows of one split, of one class, or of both.

        Raises:
            RequestError: If `split` is not a split.
        """
        if split is not None and split not in SPLITS:
            raise unknown("split", split, SPLITS)
        pairs = zip(self.column("split"), self.column("label"), strict=True)
        return self.rows((split is None or s == split) and (label is None or c == label) for s, c in pairs)

    def usable(self) -> Catalog:
        """Return the catalog of the rows without a problem."""
        return self.rows(p is None for p in self.column("problem"))

    def with_column(self, name: str, values: Sequence[Any]) -> Catalog:
        """Return the catalog with a column added or replaced."""
        import pyarrow as pa

        kind = CATALOG_COLUMNS.get(name)
        column = pa.array(values, type=pa.type_for_alias(kind) if kind else None)
        index = self.table.column_names.index(name) if name in self.table.column_names else None
        table = self.table.append_column(name, column) if index is None else self.table.set_column(index, name, column)
        return dataclasses.replace(self, table=table)

    def with_notes(self, *notes: str) -> Catalog:
        """Return the catalog with notes added, without repetitions."""
        return dataclasses.replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def fingerprint(self) -> str:
        """Return a hash of content, label, split, group and problem of all rows, independent of their order."""
        names = ("content", "label", "split", "group", "problem")
        return store.digest(sorted(zip(*(["" if v is None else v for v in self.column(n)] for n in names), strict=True)))
