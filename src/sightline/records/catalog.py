"""What is known of a set of images: the catalog, the table that everything starts from."""

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
    "path": "string",  # relative to the root, POSIX; the key
    "content": "string",  # SHA-256 of the bytes, "" where they could not be read
    "label": "string",  # the class, null where it is not known
    "split": "string",  # train, val, test, or null
    "group": "string",  # images of one group stay in one split
    "width": "int32",  # of the upright image, in pixels; null where the header could not be read
    "height": "int32",
    "format": "string",  # by content: JPEG, PNG, …
    "mode": "string",  # Pillow's: RGB, L, I;16, CMYK, …
    "orientation": "int8",  # EXIF, 1 to 8; 1 where there is none
    "size_bytes": "int64",
    "problem": "string",  # why the image is left out, null where it is used
    "note": "string",  # odd but used: animated, wrong extension, …; several joined by "; "
}


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that is known of a set of images: a table whose rows are files. The single source of truth about images.

    Columns are those of CATALOG_COLUMNS, then whatever the user's own table brought. Rows are sorted by path.

    Args:
        table: The rows, a `pyarrow.Table`.
        root: The absolute folder to which `path` is relative.
        notes: Sentences about the whole set that the user should read.
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
        """One column as Python values, null as None."""
        if name not in self.table.column_names:
            raise unknown("column in the catalog", name, self.table.column_names)
        values: list[Any] = self.table.column(name).to_pylist()
        return values

    @property
    def paths(self) -> list[str]:
        """`path` of every row."""
        return self.column("path")

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the usable rows, sorted. Their order is the order of class indices everywhere."""
        pairs = zip(self.column("label"), self.column("problem"), strict=True)
        return tuple(sorted({label for label, problem in pairs if label is not None and problem is None}))

    def file(self, path: str) -> Path:
        """Where the file of a row lies."""
        return self.root.joinpath(*path.split("/"))

    def files(self) -> list[Path]:
        """Where the file of every row lies."""
        return [self.file(p) for p in self.paths]

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """The class index of every row in `classes`, int64 (n,), -1 where the label is unknown or not among them."""
        index = {c: i for i, c in enumerate(classes)}
        return np.array([index.get(v, -1) for v in self.column("label")], dtype=np.int64)

    def rows(self, mask: Iterable[bool]) -> Catalog:
        """The rows for which `mask` is true."""
        import pyarrow as pa

        return dataclasses.replace(self, table=self.table.filter(pa.array(list(mask), pa.bool_())))

    def where(self, *, split: str | None = None, label: str | None = None) -> Catalog:
        """The rows of one split, of one class, or both."""
        if split is not None and split not in SPLITS:
            raise unknown("split", split, SPLITS)
        pairs = zip(self.column("split"), self.column("label"), strict=True)
        return self.rows((split is None or s == split) and (label is None or c == label) for s, c in pairs)

    def usable(self) -> Catalog:
        """The rows without a problem."""
        return self.rows(p is None for p in self.column("problem"))

    def with_column(self, name: str, values: Sequence[Any]) -> Catalog:
        """The same catalog with a column set."""
        import pyarrow as pa

        kind = CATALOG_COLUMNS.get(name)
        column = pa.array(values, type=pa.type_for_alias(kind) if kind else None)
        index = self.table.column_names.index(name) if name in self.table.column_names else None
        table = self.table.append_column(name, column) if index is None else self.table.set_column(index, name, column)
        return dataclasses.replace(self, table=table)

    def with_notes(self, *notes: str) -> Catalog:
        """The same catalog with sentences added, each once."""
        return dataclasses.replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def fingerprint(self) -> str:
        """A hash of what a result depends on: content, label, split and problem of every row, in any order."""
        names = ("content", "label", "split", "group", "problem")
        return store.digest(sorted(zip(*(["" if v is None else v for v in self.column(n)] for n in names), strict=True)))
