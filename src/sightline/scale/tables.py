"""Catalogs in partitions: scan a Parquet table, and split it by cluster, without a table of all images in one process.

Each partition is read, and written as one Parquet file, by a task. Between the tasks go arrays of 64-bit hashes, in Ray's
object store: about 50 bytes per image, none of them in the driver.
"""

from __future__ import annotations

import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import remote, store
from sightline.catalog import confirmation, looks, near_duplicates, phash, scanning, splitting, windows
from sightline.catalog.layout import Entry
from sightline.catalog.splitting import Unit
from sightline.errors import DataError, RequestError
from sightline.records import CATALOG_COLUMNS, SPLITS, Progress, silent
from sightline.scale.scanning import read

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 10_000
"""Largest number of rows per partition."""
HASH_COLUMN = "phash"
"""Column of the perceptual hash of the whole image; null for blank and unusable ones."""
RADIUS = 3
"""Largest number of differing bits of candidates for near duplicates. Two such hashes of 64 bits agree in one of four bands."""
_BANDS = 4
_NEIGHBOURS = 64
"""Number of images of the same band with which an image is compared: bounds the time for very similar images."""
_PAIRS_PER_TASK = 256
_BLANK_SD = 2.0

Arrays = tuple[np.ndarray, ...]
UnitRows = tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]
"""Unit, draw and class index of rows, and the classes; see `units_of`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a Parquet file that become one partition.

    Args:
        file: Path or URI.
        start, count: First row, and number of rows.
    """

    file: str
    start: int
    count: int

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return these rows, of some columns or all; only the row groups that hold them are read."""
        parquet = _parquet(self.file)
        tables, first = [], 0
        for number in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(number).num_rows
            start, end = max(self.start, first), min(self.start + self.count, first + size)
            if start < end:
                tables.append(parquet.read_row_group(number, columns=columns).slice(start - first, end - start))
            first += size
        import pyarrow as pa

        return pa.concat_tables(tables)


def _parquet(file: str) -> Any:
    """Open a Parquet file, local or remote."""
    from pyarrow import parquet

    filesystem, inside = remote.open_filesystem(file)
    return parquet.ParquetFile(filesystem.open_input_file(inside))


def parts_of(source: str | Path) -> list[Rows]:
    """Return the partitions of a Parquet file, or of a folder of such files.

    Raises:
        RequestError: If there is none.
    """
    shown = os.fspath(source)
    names = [n for n in remote.list_files(shown) if n.endswith((".parquet", ".pq"))] if is_partitioned(shown) else [""]
    if not names or not (remote.is_uri(shown) or os.path.exists(shown)):
        raise RequestError(f"{shown} is no Parquet file and no folder of Parquet files", "name a table that ends with .parquet")
    parts = []
    for name in names:
        file = f"{shown}/{name}" if name else shown
        rows = _parquet(file).metadata.num_rows
        parts += [Rows(file, start, min(PART_ROWS, rows - start)) for start in range(0, rows, PART_ROWS)]
    return parts


def is_partitioned(source: str | Path) -> bool:
    """Return whether a path is a folder, local or remote."""
    return remote.is_folder(source) if remote.is_uri(source) else os.path.isdir(source)


def _written(out: str, number: int, table: pa.Table) -> None:
    """Write a partition, atomically."""
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(table, stream)
    remote.write_bytes(f"{out}/part-{number:06d}.parquet", stream.getvalue())


def _each(tasks: Sequence[Any], stage: str, progress: Progress) -> Iterator[Any]:
    """Yield the results of tasks as they are done."""
    import ray

    left = list(tasks)
    while left:
        done, left = ray.wait(left, num_returns=1)
        progress(stage, len(tasks) - len(left), len(tasks))
        yield ray.get(done[0])


def _remote(function: Callable[..., Any]) -> Any:
    """Return a function as a Ray task of one CPU, which runs again if its machine is lost."""
    import ray

    return ray.remote(function).options(num_cpus=1, max_retries=3)


# ------------------------------------------------------------------------------------------------------------------ scan


def scan(
    source: str | Path, out: str | Path, *, path_column: str = "path", label_column: str = "label", progress: Progress = silent
) -> Counter[str]:
    """Read the files that a Parquet table names, and write a catalog in partitions. A partition that exists is kept.

    Args:
        source: Parquet file or folder of such files; its paths are absolute, URIs, or relative to the file's folder.
        out: Folder or URI for the partitions.
        path_column, label_column: Columns of the table; the others are kept.
        progress: Progress callback.

    Returns:
        Numbers of `images` and of `problems`.

    Raises:
        RequestError: If the table or a column does not exist.
    """
    parts, folder = parts_of(source), _absolute(out)
    names = _parquet(parts[0].file).schema_arrow.names
    for column in (path_column, label_column):
        if column not in names:
            raise RequestError(f"{source} has no column {column!r}", f"its columns are {', '.join(names)}")
    task = _remote(scan_part)
    total: Counter[str] = Counter()
    for counts in _each(
        [task.remote(p, folder, i, path_column, label_column) for i, p in enumerate(parts)], "reading files", progress
    ):
        total.update(counts)
    return total


def _absolute(path: str | Path) -> str:
    """Return a URI as it is, and any other path in absolute form."""
    return os.fspath(path) if remote.is_uri(path) else os.path.abspath(path)


def scan_part(part: Rows, out: str, number: int, path_column: str, label_column: str) -> dict[str, int]:
    """Read the files of one partition and write it; return the numbers of images and problems."""
    import pyarrow as pa

    done = f"{out}/part-{number:06d}.parquet"
    if remote.is_file(done) if remote.is_uri(done) else os.path.isfile(done):
        problems = _parquet(done).read(columns=["problem"]).column("problem")
        return {"images": len(problems), "problems": len(problems) - problems.null_count}
    table = part.table()
    base = os.path.dirname(os.path.abspath(part.file)) if not remote.is_uri(part.file) else ""
    paths = [_absolute(p if remote.is_uri(p) else os.path.join(base, p)) for p in table.column(path_column).to_pylist()]
    labels = [None if v is None else str(v) for v in table.column(label_column).to_pylist()]
    problem = "no class: the label is empty in the table"
    splits = table.column("split").to_pylist() if "split" in table.column_names else [None] * len(paths)
    entries = [
        Entry(p, label, split if split in SPLITS else None, None if label else problem, row)
        for row, (p, label, split) in enumerate(zip(paths, labels, splits, strict=True))
    ]
    found = read(paths, [p.rpartition("/")[2] for p in paths], False)
    extras = table.drop_columns(
        [n for n in {path_column, label_column, *CATALOG_COLUMNS} - {"group"} if n in table.column_names]
    )
    made = scanning.table_of(entries, [reading for reading, _ in found], extras)
    hashes = pa.array([None if look is None else _hash(look[0]) for _, look in found], pa.int64())
    _written(out, number, made.append_column(HASH_COLUMN, hashes))
    failed = len(made) - made.column("problem").null_count
    return {"images": len(made), "problems": failed}


def _hash(luma: np.ndarray) -> int | None:
    """Return the perceptual hash of a thumbnail as a signed integer, None for a blank one."""
    if luma.std() <= _BLANK_SD:
        return None
    return int(phash.phash(windows.resampled(luma[None], windows.WINDOWS[0], 32)).view(np.int64)[0])


# ------------------------------------------------------------------------------------------------------------- duplicates


def hashes_of(part: Rows) -> Arrays:
    """Return, of the usable rows of a partition, their rows int64, and 64-bit hashes of content, picture and group, uint64.

    The hash of a picture or group is 0 if there is none.
    """
    table = part.table(["content", "problem", "group", HASH_COLUMN])
    usable = np.flatnonzero([p is None for p in table.column("problem").to_pylist()])
    contents = table.column("content").to_pylist()
    groups = table.column("group").to_pylist()
    pictures = table.column(HASH_COLUMN).fill_null(0).to_numpy().astype(np.int64).view(np.uint64)
    content = np.array([int(contents[i][:16], 16) for i in usable], np.uint64)
    group = np.array([0 if groups[i] is None else _hash_of(f"group {groups[i]}") for i in usable], np.uint64)
    return usable.astype(np.int64), content, pictures[usable], group


def _hash_of(text: str) -> int:
    """Return 64 bits of the hash of a text."""
    return int(store.digest(text)[:16], 16)


def band_pairs(band: int, offsets: Sequence[int], *parts: Arrays) -> np.ndarray:
    """Return pairs of rows, int64 (m, 2), whose pictures' hashes agree in a band, and in no band before, and differ little.

    Args:
        band: Number of the band, 0 to 3: 16 of 64 bits.
        offsets: First row of each partition among all rows.
        parts: Results of `hashes_of`.
    """
    rows = np.concatenate([p[0] + offset for p, offset in zip(parts, offsets, strict=True)])
    content, picture = (np.concatenate([p[k] for p in parts]) for k in (1, 2))
    _, first = np.unique(content, return_index=True)
    first = first[picture[first] != 0]
    rows, picture = rows[first], picture[first]
    value = _band(picture, band)
    order = np.lexsort((picture, value))
    rows, picture, value = rows[order], picture[order], value[order]
    found = [np.zeros((0, 2), np.int64)]
    for step in range(1, _NEIGHBOURS + 1):
        left, right = slice(0, -step), slice(step, None)
        same = np.flatnonzero(value[left] == value[right]) if len(value) > step else np.zeros(0, np.int64)
        if not len(same):
            break
        a, b = picture[same], picture[same + step]
        close = np.bitwise_count(a ^ b) <= RADIUS
        for earlier in range(band):
            close &= _band(a, earlier) != _band(b, earlier)
        found.append(np.stack([rows[same[close]], rows[same[close] + step]], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def _band(picture: np.ndarray, band: int) -> np.ndarray:
    """Return a band of hashes, uint64 (n,), below 2¹⁶."""
    return (picture >> np.uint64(16 * band)) & np.uint64(0xFFFF)


def confirm_pairs(pairs: np.ndarray, parts: Sequence[Rows]) -> tuple[np.ndarray, list[tuple[float, int]]]:
    """Return the pairs of rows whose pixels show the same picture or scene, with strength and verdict."""
    offsets = np.cumsum([0, *(p.count for p in parts)])
    unique, place = np.unique(pairs, return_inverse=True)
    files: dict[int, tuple[str, str, int]] = {}
    for number in np.unique(np.searchsorted(offsets, unique, side="right") - 1).tolist():
        table = parts[number].table(["path", "content", "width", "height"])
        for row in unique[(unique >= offsets[number]) & (unique < offsets[number + 1])].tolist():
            path, content, *sides = (table.column(n)[row - int(offsets[number])].as_py() for n in table.column_names)
            files[row] = path, content, min(side or 0 for side in sides)
    found = [looks.look_at(Path(files[row][0])) for row in unique.tolist()]
    if any(look is None for look in found):
        raise DataError(f"{files[int(unique[[look is None for look in found].index(True)])][0]} cannot be read any more")
    luma, colour, numbers = (np.stack(arrays) for arrays in zip(*(look for look in found if look is not None), strict=True))
    look = looks.Looks(luma, colour, numbers, True)
    side = np.array([files[row][2] for row in unique.tolist()], np.int64)
    good = confirmation.confirm(look, side, windows.locate(luma, place.reshape(-1, 2)))
    strengths = [(round(float(s), 6), int(v)) for s, v in zip(good.strength, good.verdict, strict=True)]
    return unique[np.sort(good.pairs, axis=1)], strengths


def links_of(pairs: np.ndarray, verdicts: Sequence[tuple[float, int]], offsets: Sequence[int], *parts: Arrays) -> Arrays:
    """Return the hashes of contents that belong together with others, sorted, and the unit of each, uint64 (m,) both.

    Args:
        pairs: int64 (k, 2), rows that show the same picture or scene.
        verdicts: Strength and verdict of each pair.
        offsets: First row of each partition.
        parts: Results of `hashes_of`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.concatenate([p[0] + offset for p, offset in zip(parts, offsets, strict=True)])
    content, group = (np.concatenate([p[k] for p in parts]) for k in (1, 3))
    nodes, place = np.unique(pairs, return_inverse=True)
    place = place.reshape(-1, 2)
    quads = [(int(a), int(b), s, v) for (a, b), (s, v) in zip(place, verdicts, strict=True)]
    alike, scenes = near_duplicates.settled(len(nodes), quads)
    linked = [(a, b) for a, b, _ in alike] + _bound(len(nodes), scenes, len(rows))
    at = np.searchsorted(rows, nodes)
    ends = content[at][np.array(linked, np.int64).reshape(-1, 2)]
    grouped = group != 0
    left = np.concatenate([ends[:, 0], content[grouped]])
    right = np.concatenate([ends[:, 1], group[grouped]])
    names, index = np.unique(np.concatenate([left, right]), return_inverse=True)
    half = len(left)
    graph = coo_array((np.ones(half, np.int8), (index[:half], index[half:])), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    first = np.unique(component, return_index=True)[1]
    return names, names[first][component]


def _bound(n: int, scenes: Sequence[tuple[int, int]], images: int) -> list[tuple[int, int]]:
    """Return the pairs of scenes that a split keeps together: those with at most 10 % of the images."""
    number = near_duplicates.components(n, scenes)
    size = Counter(number[node] for node in {node for pair in scenes for node in pair})
    most = near_duplicates.largest_scene(images)
    return [pair for pair in scenes if size[number[pair[0]]] <= most]


# ------------------------------------------------------------------------------------------------------------------ split


def unit_of(content: np.ndarray, links: Arrays) -> np.ndarray:
    """Return the unit of each content, uint64 (n,): that of `links`, or the content itself."""
    names, units = links
    if not len(names):
        return content
    place = np.minimum(np.searchsorted(names, content), len(names) - 1)
    return np.where(names[place] == content, units[place], content)


def units_of(part: Rows, links: Arrays, seed: int) -> UnitRows:
    """Return unit and draw, uint64 (n,), and class index int32 (n,) of the usable rows of a partition, and the classes."""
    table = part.table(["content", "problem", "label"])
    contents, problems, labels = (table.column(n).to_pylist() for n in ("content", "problem", "label"))
    rows = [i for i in range(len(contents)) if problems[i] is None and labels[i] is not None]
    content = np.array([int(contents[i][:16], 16) for i in rows], np.uint64)
    draw = np.array([int(store.digest([seed, "split", contents[i]])[:16], 16) for i in rows], np.uint64)
    classes = sorted({labels[i] for i in rows})
    index = {name: k for k, name in enumerate(classes)}
    return unit_of(content, links), draw, np.array([index[labels[i]] for i in rows], np.int32), classes


def count_units(
    *parts: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]],
) -> tuple[Counter[str], Counter[str], list[list[str]]]:
    """Return class → images, class → units, and the classes in lists that no unit links."""
    classes = sorted({name for *_, names in parts for name in names})
    unit, code = np.concatenate([p[0] for p in parts]), _codes(parts, classes)
    pairs = np.unique(np.stack([unit, code.astype(np.uint64)], axis=1), axis=0)
    images = Counter({classes[k]: int(n) for k, n in enumerate(np.bincount(code, minlength=len(classes)))})
    sets = Counter(
        {classes[k]: int(n) for k, n in enumerate(np.bincount(pairs[:, 1].astype(np.int64), minlength=len(classes)))}
    )
    mixed = np.flatnonzero(pairs[1:, 0] == pairs[:-1, 0])
    links = np.unique(np.stack([pairs[mixed, 1], pairs[mixed + 1, 1]], axis=1).astype(np.int64), axis=0)
    number = near_duplicates.components(len(classes), links.tolist())
    return images, sets, [[classes[k] for k in range(len(classes)) if number[k] == n] for n in sorted(set(number))]


def _codes(parts: Sequence[UnitRows], classes: Sequence[str]) -> np.ndarray:
    """Return the index in `classes` of every row, int64; -1 for others."""
    index = {name: k for k, name in enumerate(classes)}
    return np.concatenate([np.array([*(index.get(n, -1) for n in p[3]), -1], np.int64)[p[2]] for p in parts])


def deal(classes: Sequence[str], need: Mapping[str, Counter[str]], *parts: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the units, uint64, that become val and test, of classes that no unit links with others."""
    code = _codes(parts, classes)
    chosen = code >= 0
    unit, draw = (np.concatenate([p[k] for p in parts])[chosen] for k in (0, 1))
    code = code[chosen]
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=unit[order][:1] ^ np.uint64(1)))
    drawn = np.minimum.reduceat(draw[order], starts) if len(starts) else draw[:0]
    ends = [*starts[1:].tolist(), len(order)]
    codes = code[order].tolist()
    units = []
    for start, end in zip(starts.tolist(), ends, strict=True):
        units.append(Unit(list(range(end - start)), Counter(classes[k] for k in codes[start:end])))
    sequence = np.argsort(drawn, kind="stable")
    have: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    assigned = splitting.assign([units[i] for i in sequence.tolist()], {k: Counter(v) for k, v in need.items()}, have)
    names = unit[order][starts][sequence]
    val, test = (np.sort(names[[i for i, s in assigned.items() if s == name]]) for name in ("val", "test"))
    return val, test


def split_part(part: Rows, number: int, out: str, links: Arrays, *dealt: tuple[np.ndarray, np.ndarray]) -> Counter[str]:
    """Write one partition with its splits, and return their numbers of images."""
    import pyarrow as pa

    table = part.table()
    contents, problems, labels = (table.column(n).to_pylist() for n in ("content", "problem", "label"))
    usable = np.array([p is None and label is not None for p, label in zip(problems, labels, strict=True)], dtype=bool)
    unit = unit_of(np.array([int(c[:16] or "0", 16) for c in contents], np.uint64), links)
    split = np.array(["train" if fine else None for fine in usable], dtype=object)
    for k, name in enumerate(("val", "test")):
        split[usable & np.isin(unit, np.concatenate([d[k] for d in dealt]))] = name
    column = pa.array(split.tolist(), pa.string())
    _written(out, number, table.set_column(table.column_names.index("split"), "split", column))
    return Counter(name for name in split.tolist() if name is not None)


def split(
    source: str | Path,
    out: str | Path,
    *,
    val: float | int = 0.15,
    test: float | int = 0.2,
    seed: int = 0,
    group_by: str | None = None,
    progress: Progress = silent,
) -> Counter[str]:
    """Split a catalog in partitions by cluster: the assignment of `catalog.split` for the same duplicates.

    Near duplicates are pairs of whole images whose perceptual hashes differ in at most `RADIUS` of 64 bits, confirmed by their
    pixels; copies that are cropped or turned are not looked for.

    Args:
        source: Catalog in partitions, from `scan`, without splits.
        out: Folder or URI for the new partitions.
        val, test, seed: As in `catalog.split`.
        group_by: Column whose equal cells stay together; None for the column `group`.
        progress: Progress callback.

    Returns:
        Split → number of images.

    Raises:
        RequestError: If it is not such a catalog, a column is missing, or no training images would be left.
    """
    parts, folder = parts_of(source), _absolute(out)
    _check(parts, source, folder, group_by)
    offsets = [0, *itertools.accumulate(p.count for p in parts)][:-1]
    hashes = [_remote(_grouped_hashes).remote(p, group_by) for p in parts]
    candidates = [_remote(band_pairs).remote(band, offsets, *hashes) for band in range(_BANDS)]
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *_each(candidates, "comparing hashes", progress)])
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    chunks = [pairs[i : i + _PAIRS_PER_TASK] for i in range(0, len(pairs), _PAIRS_PER_TASK)]
    confirmed = list(_each([_remote(confirm_pairs).remote(c, parts) for c in chunks], "confirming duplicates", progress))
    joined = np.concatenate([np.zeros((0, 2), np.int64), *(found for found, _ in confirmed)])
    links = _remote(links_of).remote(joined, [v for _, verdicts in confirmed for v in verdicts], offsets, *hashes)
    units = [_remote(units_of).remote(p, links, seed) for p in parts]
    images, sets, lists = next(_each([_remote(count_units).remote(*units)], "splitting", silent))
    need = splitting.needs(images, sets, {"val": val, "test": test}, {name: Counter() for name in SPLITS})
    dealt = [_remote(deal).remote(names, {s: Counter({n: need[s][n] for n in names}) for s in need}, *units) for names in lists]
    task = _remote(split_part)
    tasks = [task.remote(p, number, folder, links, *dealt) for number, p in enumerate(parts)]
    return sum(_each(tasks, "splitting", progress), Counter[str]())


def _check(parts: Sequence[Rows], source: str | Path, out: str, group_by: str | None) -> None:
    """Check that a source is a catalog in partitions without splits.

    Raises:
        RequestError: If it is not, or the target is the source.
    """
    names = _parquet(parts[0].file).schema_arrow.names
    lacking = [n for n in ("content", "problem", "label", HASH_COLUMN) if n not in names]
    if lacking:
        hint = "write it with `sightline scan TABLE.parquet -o FOLDER --partitions --on ray`"
        raise RequestError(f"{source} is no catalog in partitions: it has no column {lacking[0]!r}", hint)
    if group_by is not None and group_by not in names:
        raise RequestError(f"--group-by {group_by!r} is not a column of {source}", f"its columns are {', '.join(names)}")
    if _absolute(source) == out:
        raise RequestError(f"{source} cannot be split into itself", "name another folder with -o")
    if any(p.table(["split"]).column("split").null_count < p.count for p in parts[:1]):
        raise RequestError(f"the images of {source} have splits already", "use them as they are, or drop the column split")


def _grouped_hashes(part: Rows, group_by: str | None) -> Arrays:
    """Return `hashes_of` a partition, with groups from another column."""
    found = hashes_of(part)
    if group_by is None:
        return found
    cells = part.table([group_by]).column(group_by).to_pylist()
    values = [0 if cells[i] is None else _hash_of(f"group {cells[i]}") for i in found[0].tolist()]
    return (*found[:3], np.array(values, np.uint64))
