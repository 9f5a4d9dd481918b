"""Data sets in memory: write the images of Hugging Face and torchvision data sets to the cache once, with a table of labels.

The classes are recognised by what they can do, so neither library has to be installed.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.catalog.layout import split_name
from sightline.containers import array_sets
from sightline.errors import DataError, ImageError, RequestError
from sightline.files import read_bytes
from sightline.records import CATALOG_COLUMNS, Catalog, Progress, silent
from sightline.schema import csv_escape
from sightline.store import UNPACKED, Cache, atomic_file, bytes_digest, file_digest, log

_TELL_EVERY = 200
_OWN_COLUMNS = frozenset(CATALOG_COLUMNS) - {"label", "group"}
_LABELS = ("label", "labels", "target", "class", "category")
_ONE_LABEL = "Sightline supports one class per image: choose one label per image before"
_NO_TRANSFORM = "pass the data set without transform: Sightline resizes and normalises images itself"

Row = tuple[Any, dict[str, Any]]
"""Image and its columns."""


def is_dataset(value: object) -> bool:
    """Return whether a value is a data set of Hugging Face or torchvision, or a mapping of those by split.

    Anything counts that has a length and items by number, other than sequences of Python, arrays, paths and catalogs.
    """
    if isinstance(value, Mapping):
        return bool(value) and all(is_dataset(v) for v in value.values())
    if isinstance(value, str | bytes | os.PathLike | Sequence | np.ndarray | Catalog | type):
        return False
    return hasattr(value, "__getitem__") or _is_hugging_face(value)


def _is_hugging_face(dataset: object) -> bool:
    """Return whether a data set has columns with features, as those of Hugging Face have."""
    return hasattr(dataset, "features") and (hasattr(dataset, "column_names") or hasattr(dataset, "__iter__"))


def store_dataset(dataset: Any, progress: Progress = silent) -> Path:
    """Write the images of a data set to the cache, under the hash of images and labels, and return the table of them.

    Files keep their bytes where the data set has them; other images are stored without loss. Scalar columns are kept.

    Args:
        dataset: A data set, or a mapping split → data set.
        progress: Progress callback.

    Returns:
        CSV file with the columns path, label, split, and those of the data set.

    Raises:
        DataError: If there are no images, an image has several labels, or an item is not an image.
        RequestError: If it is a stream without a length.
    """
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    total = sum(_length(part) for part in parts.values())
    cache = Cache()
    temporary = cache.root / UNPACKED[1] / f".{secrets.token_hex(8)}.tmp"
    temporary.mkdir(parents=True)
    try:
        rows, hashes = _written(parts, temporary, total, progress)
        if not rows:
            raise DataError("the data set contains no images", "pass one with images")
        table = temporary / f"{_name_of(parts)}.csv"
        _write_table(table, rows)
        hashes[table.name] = file_digest(table)
        key = hashlib.sha256(repr(sorted(hashes.items())).encode("utf-8")).hexdigest()
        folder = cache.root / UNPACKED[1] / key
        if not folder.is_dir():
            os.rename(temporary, folder)
            cache.write_json(f"manifests/{key}", hashes)
            cache.evict(keep=f"{UNPACKED[1]}/{key}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / table.name


def _length(dataset: Any) -> int:
    """Return the number of images of a data set.

    Raises:
        RequestError: If it is a stream.
    """
    try:
        return len(dataset)
    except TypeError as error:
        raise RequestError("the data set is a stream without a length", "load it without streaming=True") from error


def _name_of(parts: Mapping[str, Any]) -> str:
    """Return a name for the table of a data set: that of Hugging Face, or the name of its class."""
    first = next(iter(parts.values()))
    while hasattr(first, "dataset") and not _is_hugging_face(first):  # torch.utils.data.Subset
        first = first.dataset
    name = getattr(getattr(first, "info", None), "dataset_name", None) or type(first).__name__
    return re.sub(r"[^\w-]+", "-", str(name))[:60] or "dataset"


# ----------------------------------------------------------------------------------------------------------------- images


def _written(
    parts: Mapping[str, Any], folder: Path, total: int, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Write all images; return the rows of the table, and path → SHA-256 of the files."""
    rows: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    for part, dataset in parts.items():
        if part and split_name(part) is None:
            log.warning("the data set has a part %r, which is no split; its images are assigned a split at random", part)
        items = _hugging_face(dataset) if _is_hugging_face(dataset) else _map_style(dataset)
        for number, (image, columns) in enumerate(items):
            where = f"image {number}{f' of {part!r}' if part else ''} of the data set"
            path = image if isinstance(image, Path) else None
            if path is None:
                data, suffix = _encoded(image, where)
                name = f"{part or 'images'}/{number:07d}{suffix}".replace("..", "_")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(folder / name, sync=False) as file:
                    file.write(data)
                hashes[name] = bytes_digest(data)
            rows.append({"path": name if path is None else str(path), **columns, **({"split": part} if part else {})})
            if len(rows) % _TELL_EVERY == 0:
                progress("storing images", len(rows), total)
    return rows, hashes


def _encoded(image: Any, where: str) -> tuple[bytes, str]:
    """Return the bytes of an image file, and its extension: given bytes as they are, pixels in numpy's format.

    Raises:
        DataError: If it is not an image.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        try:
            return data, f".{pixels.read_header(data, where).format.lower()}"
        except ImageError:
            return data, ".bin"  # the scan reports the problem
    if hasattr(image, "getbands"):  # Pillow
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
        palette = upright.mode in ("P", "PA")
        wanted = "RGBA" if palette and ("transparency" in upright.info or upright.mode == "PA") else "RGB" if palette else None
        wanted = wanted or {"1": "L", "LA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB"}.get(upright.mode)
        image = upright if wanted is None else upright.convert(wanted)
    elif hasattr(image, "detach"):  # torch
        image = image.detach().cpu()
    values = np.asarray(image)
    if values.ndim == 3 and values.shape[0] in pixels.CHANNELS and values.shape[2] not in pixels.CHANNELS:
        values = values.transpose(1, 2, 0)
    fault = pixels.array_fault(values)
    if fault is not None:
        raise DataError(f"{where} {fault}: it is not an image", "each item is a pair of image and label")
    return array_sets.to_bytes(_eight_bits(values, where)), ".npy"


def _eight_bits(values: np.ndarray, where: str) -> np.ndarray:
    """Return floats from 0 to 1, and integers from 0 to 255, as uint8; other values as they are.

    Raises:
        DataError: If floats are outside that range, as after normalisation.
    """
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1.001:
            what = f"{where} has values from {np.nanmin(values):g} to {np.nanmax(values):g}, not from 0 to 1"
            raise DataError(what, _NO_TRANSFORM)
        return np.asarray(np.rint(values.astype(np.float64) * 255).clip(0, 255).astype(np.uint8))
    small = values.dtype.kind in "iu" and values.dtype.itemsize > 1 and values.min() >= 0 and values.max() <= 255
    return values.astype(np.uint8) if small else values


# ----------------------------------------------------------------------------------------------------------- Hugging Face


def _hugging_face(dataset: Any) -> Iterator[Row]:
    """Yield the images of a data set of Hugging Face as bytes, paths or images, with its scalar columns.

    Raises:
        DataError: If no column holds images, or an image has several labels.
    """
    features: Mapping[str, Any] = getattr(dataset, "features", None) or {}
    names = list(features) or list(getattr(dataset, "column_names", None) or [])
    first = dataset[0] if _length(dataset) else {}
    image_column = _image_column(features, names, first)
    classes = {n: list(f.names) for n, f in features.items() if getattr(f, "names", None) and n != image_column}
    renamed = _label_name(classes, names)
    undecoded = _undecoded(dataset, image_column, features)
    for number in range(_length(dataset)):
        item = undecoded[number]
        columns: dict[str, Any] = {}
        for name in names:
            value = item.get(name)
            if name == image_column:
                continue
            key = renamed.get(name, name)
            if isinstance(value, list | tuple | np.ndarray) and (name in classes or key.lower() in _LABELS):
                raise DataError(f"image {number} of the data set has several labels ({key}: {list(value)})", _ONE_LABEL)
            if name in classes:
                columns[key] = _class_name(value, classes[name])
            elif isinstance(value, str | int | float | bool | np.generic) and key not in _OWN_COLUMNS:
                columns[key] = value
        yield _as_file(item.get(image_column)), columns


def _image_column(features: Mapping[str, Any], names: Sequence[str], first: Mapping[str, Any]) -> str:
    """Return the name of the column of images.

    Raises:
        DataError: If there is none.
    """
    typed = [n for n, f in features.items() if type(f).__name__ == "Image" or getattr(f, "_type", None) == "Image"]
    pictures = [n for n in names if hasattr(first.get(n), "getbands")]
    usual = [n for n in names if n.lower() in ("image", "img", "picture", "pixels")]
    found = typed or pictures or usual
    if not found:
        raise DataError(
            f"the data set has no column of images; its columns: {', '.join(names)}", "cast one to datasets.Image()"
        )
    return next((n for n in found if n in usual), found[0])


def _label_name(classes: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    """Return {column: "label"} for the only column of classes if it has another name."""
    if len(classes) == 1 and "label" not in names:
        return {next(iter(classes)): "label"}
    return {}


def _class_name(value: Any, names: Sequence[str]) -> str | None:
    """Return the name of a class from its number; None if it has none, as in test sets without labels (-1)."""
    if value is None:
        return None
    if isinstance(value, str):
        return value
    return names[int(value)] if 0 <= int(value) < len(names) else None


def _undecoded(dataset: Any, column: str, features: Mapping[str, Any]) -> Any:
    """Return the data set with files instead of decoded images, if it can be had."""
    try:
        plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
        return plain.cast_column(column, type(features[column])(decode=False))
    except (AttributeError, KeyError, TypeError, ValueError):
        return dataset


def _as_file(value: Any) -> Any:
    """Return the bytes or the path of an undecoded image, or the decoded image."""
    if not isinstance(value, Mapping):
        return value
    if value.get("bytes") is not None:
        return value["bytes"]
    path = value.get("path")
    if path is None:
        raise DataError("the data set contains an empty image", "leave it out: dataset.filter(...)")
    return Path(os.path.abspath(path))


# ------------------------------------------------------------------------------------------------------------ torchvision


def _map_style(dataset: Any) -> Iterator[Row]:
    """Yield the images of a data set of torchvision, or of any other with items (image, label), without its transforms.

    Raises:
        DataError: If an item is not such a pair, or has several labels.
    """
    plain = _without_transforms(dataset)
    names = _class_names(dataset)
    files = getattr(plain, "samples", None) or getattr(plain, "imgs", None)
    for number in range(_length(plain)):
        if isinstance(files, list) and len(files) == _length(plain) and isinstance(files[number][0], str | os.PathLike):
            image, label = Path(os.path.abspath(files[number][0])), files[number][1]
        else:
            image, label = _pair(plain[number], number)
        yield image, {"label": _label(label, names, number)}


def _pair(item: Any, number: int) -> tuple[Any, Any]:
    """Return (image, label) of an item.

    Raises:
        DataError: If it is neither a pair nor a mapping with these keys.
    """
    if isinstance(item, Mapping):
        image = next((item[k] for k in ("image", "img", "pixel_values", "x") if k in item), None)
        label = next((item[k] for k in (*_LABELS, "y") if k in item), None)
        if image is not None:
            return image, label
    elif isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    what = f"item {number} of the data set is of type {type(item).__name__}, not a pair of image and label"
    raise DataError(what, "pass a data set whose items are (image, label)")


def _without_transforms(dataset: Any) -> Any:
    """Return a shallow copy of a data set that does not transform its images; also of the data sets inside a subset."""
    plain = copy.copy(dataset)
    for name in ("transform", "transforms"):
        if getattr(plain, name, None) is not None:
            setattr(plain, name, None)
    if hasattr(plain, "dataset") and hasattr(plain, "indices"):
        plain.dataset = _without_transforms(plain.dataset)
    if isinstance(getattr(plain, "datasets", None), list | tuple):
        plain.datasets = [_without_transforms(part) for part in plain.datasets]
    return plain


def _class_names(dataset: Any) -> list[str]:
    """Return the class names of a data set, or of the one inside a subset or a concatenation; none if it has no names."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and names:
        return [" / ".join(map(str, n)) if isinstance(n, list | tuple) else str(n) for n in names]
    index = getattr(dataset, "class_to_idx", None)
    if isinstance(index, Mapping) and index:
        return [str(n) for n, _ in sorted(index.items(), key=lambda pair: pair[1])]
    inner = getattr(dataset, "dataset", None) or next(iter(getattr(dataset, "datasets", [])), None)
    return [] if inner is None else _class_names(inner)


def _label(label: Any, names: Sequence[str], number: int) -> str | None:
    """Return a label as a class name.

    Raises:
        DataError: If it is several labels, or no label.
    """
    if label is None:
        return None
    if isinstance(label, str):
        return label
    values = np.asarray(label.detach().cpu() if hasattr(label, "detach") else label)
    if values.size != 1 or values.dtype.kind not in "iufbU":
        if values.ndim == 1 and values.dtype.kind in "iufb" and np.isin(values, (0, 1)).all() and (values == 1).sum() == 1:
            return _label(int(values.argmax()), names, number)  # one-hot
        raise DataError(f"image {number} of the data set has several labels ({str(label)[:60]})", _ONE_LABEL)
    value = values.reshape(()).item()
    if isinstance(value, str):
        return value
    if float(value) != int(value):
        raise DataError(f"image {number} of the data set has the label {value:g}, which is no class", "pass whole numbers")
    return names[int(value)] if 0 <= int(value) < len(names) else str(int(value))


# ------------------------------------------------------------------------------------------------------------------ table


def _write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of images."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_file(file, sync=False) as stream:
        lines = ([("" if row.get(c) is None else csv_escape(str(row[c]))) for c in columns] for row in rows)
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        csv.writer(text, lineterminator="\n").writerows([columns, *lines])
        text.detach()


def dataset_files(dataset: Any, progress: Progress = silent) -> list[Path]:
    """Return the files of a data set's images, written to the cache, in order.

    Raises:
        DataError, RequestError: As in `store_dataset`.
    """
    table = store_dataset(dataset, progress)
    lines = csv.DictReader(read_bytes(table).decode("utf-8").splitlines(keepends=True))
    return [table.parent.joinpath(row["path"]) for row in lines]
