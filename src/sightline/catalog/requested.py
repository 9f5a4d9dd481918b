"""Images that the user names for prediction: files, folders, globs, tables, and lists on standard input, in their order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline import containers
from sightline.catalog import tables
from sightline.catalog.sources import image_files
from sightline.catalog.walking import passed_over, writable
from sightline.containers.array_sets import order_of
from sightline.errors import RequestError
from sightline.files import NotReadableError
from sightline.store import log

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class RequestedImage:
    """One image to predict.

    Args:
        file: The file.
        path: Its name in the results.
        problem: Why it cannot be opened; None if that is not known yet.
        columns: The other cells of its row in a table, by column.
    """

    file: Path
    path: str
    problem: str | None = None
    columns: dict[str, str] | None = None


def requested_images(
    paths: Sequence[str | Path], lines: Iterable[str] = (), *, path_column: str | None = None
) -> Iterator[RequestedImage]:
    """Yield the images that the user names, in the order of `paths`; those of a folder are sorted, those of a table are not.

    Args:
        paths: Files; folders, archives and files of arrays, searched for images; patterns such as `day*/*.jpg`; tables with a
            column of paths; `-`.
        lines: Lines of standard input, which stands for `-`: one path per line. They are read as they are needed.
        path_column: Column of the tables with the paths; None detects it.

    Raises:
        RequestError: If a path does not exist, a pattern matches nothing, or a table has no column of paths.
    """
    for path in map(str, paths):
        if path == STANDARD_INPUT:
            for line in lines:
                if line.strip("\r\n"):
                    yield from _of_line(line.strip("\r\n"))
        elif os.path.isdir(path) or _holds_images(path):
            yield from _of_folder(path)
        elif Path(path).suffix.lower() in tables.SUFFIXES:
            yield from _of_table(Path(path), path_column)
        elif os.path.lexists(path) or not glob.has_magic(path):
            yield from _of_source(path)
        else:
            yield from _of_pattern(path)


def _holds_images(path: str) -> bool:
    """Return whether a path is an archive, a folder in one, or a file of arrays; a pipe or device is reported as an image."""
    try:
        return containers.holds_images(path)
    except NotReadableError:
        return False


def _of_source(path: str) -> Iterator[RequestedImage]:
    """Yield one named file.

    Raises:
        RequestError: If it does not exist.
    """
    if not os.path.lexists(path) and not containers.is_file(path):
        hint = "pass image files, folders, archives, files of arrays, tables or patterns such as 'day*/*.jpg'"
        raise RequestError(f"{path} does not exist", hint)
    yield RequestedImage(Path(path), path)


def _of_line(path: str) -> Iterator[RequestedImage]:
    """Yield the images of one line of standard input; a missing file is a problem of that line alone."""
    shown, problem = writable(path)
    if problem is None and (os.path.isdir(path) or _holds_images(path)):
        yield from _of_folder(path)
    elif problem is None and not os.path.lexists(path) and not containers.is_file(path):
        yield RequestedImage(Path(path), path, f"{path} does not exist")
    else:
        yield RequestedImage(Path(shown), shown, problem)


def _of_folder(path: str) -> Iterator[RequestedImage]:
    """Yield the images of a folder, an archive or a file of arrays in the order of their paths, unusable ones included."""
    files, problems = image_files(Path(path))
    unusable = ((str(file), problem) for file, problem in problems.items())
    both = [*((str(file), None) for file in files), *unusable]
    listed = sorted(both, key=lambda pair: order_of(pair[0])) if problems else ((str(file), None) for file in files)
    for file, problem in listed:
        yield RequestedImage(Path(file), file, problem)


def _of_pattern(pattern: str) -> Iterator[RequestedImage]:
    """Yield the images that match a pattern, sorted; other files are counted in a warning.

    Raises:
        RequestError: If nothing matches.
    """
    found = sorted(glob.iglob(pattern, recursive=True))
    if not found:
        raise RequestError(
            f"no file matches {pattern}", "check the pattern; `**` stands for any folders, as in 'photos/**/*.jpg'"
        )
    others = 0
    for path in found:
        if os.path.isdir(path):
            if "**" not in pattern:  # with **, its files match too
                yield from _of_folder(path)
        elif passed_over(os.path.basename(path)) is None:
            yield RequestedImage(Path(path), path)
        else:
            others += 1
    if others:
        log.warning("%s: %d other files were ignored", pattern, others)


def _of_table(file: Path, path_column: str | None) -> Iterator[RequestedImage]:
    """Yield the images of a table in the order of its rows, each with the other cells of its row.

    Raises:
        RequestError: If the table does not exist.
        DataError: If it cannot be read, or has no column of paths.
    """
    table, notes = tables.read_table(file)
    for note in notes:
        log.warning("%s", note)
    name, files = tables.files_of(table, file, path_column)
    others = [n for n in table.column_names if n != name]
    cells = [tables.cells_of(table, n, file) for n in others]
    for row, path in enumerate(files):
        columns = {n: column[row] or "" for n, column in zip(others, cells, strict=True)}
        if path is None:
            yield RequestedImage(file, f"{file} row {row + 2}", "the row has no path", columns)
            continue
        shown, problem = writable(path)
        yield RequestedImage(Path(shown), shown, problem, columns)
