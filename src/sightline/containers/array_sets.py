"""Arrays of images with labels: recognise images, labels, class names and splits by shapes and names; read single images."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.containers.array_files import ArrayFile, ArrayInfo, open_arrays
from sightline.errors import DataError, unknown
from sightline.files import LARGEST_BYTES

_CHANNELS = (1, 3, 4)
_SAMPLE = 64
_SMALLEST_PX = 2
_SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "te", "tst", "eval"), "test"),
}
_IMAGE_WORDS = frozenset(
    ["x", "image", "images", "img", "imgs", "data", "inputs", "input", "features", "pixels", "photos", "photo", "pictures"]
)
_LABEL_WORDS = frozenset(["y", "label", "labels", "target", "targets", "class", "classes", "category", "categories"])
_FIRST_LABEL_WORDS = frozenset(["y", "label", "labels", "target", "targets"])
_NAME_LISTS = re.compile(
    r"(list_?(of_?)?)?classes|(class|label|target|category)_?names?|categories|names|class_?labels|label_?map"
)
_NO_LABELS = frozenset(
    ["id", "ids", "index", "indices", "path", "paths", "file", "files", "filename", "filenames", "weight", "weights"]
)
_NO_IMAGES = frozenset(["mask", "masks", "segmentation", "segmentations", "depth", "box", "boxes", "embedding", "embeddings"])
_FILLERS = frozenset(["set", "all", "arr", "array", "orig", "the", "of", "dataset", "ds"])


@dataclass(frozen=True, slots=True)
class ImageArray:
    """Array of images in a file.

    Args:
        name: Name of the array.
        count: Number of images.
        channels_first: Whether images are stored as (channels, height, width).
        labels: Name of the array of labels, None without one.
        split: Split that the name says, None without one.
    """

    name: str
    count: int
    channels_first: bool
    labels: str | None
    split: str | None


@dataclass(frozen=True, slots=True)
class ArraySet:
    """Images of a file.

    Args:
        images: Arrays of images in the order of their numbers: train, val, test, others.
        class_names: Name of the array of class names, None without one.
        notes: What was recognised, for the user.
    """

    images: tuple[ImageArray, ...]
    class_names: str | None
    notes: tuple[str, ...]


# ----------------------------------------------------------------------------------------------------------- recognition


def _tokens(name: str) -> list[str]:
    """Return the words of a name: `Xtrain_orig` becomes x, train, orig.

    Example:
        >>> _tokens("train_set_x"), _tokens("X_train"), _tokens("ytest"), _tokens("valImages"), _tokens("arr_0")
        (['train', 'set', 'x'], ['x', 'train'], ['y', 'test'], ['val', 'images'], ['arr', '0'])
    """
    words = re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    tokens: list[str] = []
    for word in words:
        first, last = word[:1] in ("x", "y") and word[1:] in _SPLITS, word[-1:] in ("x", "y") and word[:-1] in _SPLITS
        tokens += [word[:1], word[1:]] if first else [word[:-1], word[-1:]] if last else [word]
    return tokens


def split_of(name: str) -> str | None:
    """Return the split that a name contains, None without one."""
    return next((_SPLITS[t] for t in _tokens(name) if t in _SPLITS), None)


def _rest(name: str) -> tuple[str, ...]:
    """Return the words of a name that say neither split nor role; images and labels that belong together share them."""
    return tuple(
        t
        for t in _tokens(name)
        if t not in _SPLITS | dict.fromkeys(_IMAGE_WORDS | _LABEL_WORDS | _FILLERS, "") and not t.isdigit()
    )


def _layout_of(info: ArrayInfo) -> bool | None:
    """Return whether an array's images have their channels first; None if it holds no images."""
    shape = info.shape
    if info.dtype.kind not in "buif" or len(shape) not in (3, 4) or 0 in shape:
        return None
    if len(shape) == 3:
        return False if min(shape[1:]) >= _SMALLEST_PX else None
    if shape[3] in _CHANNELS and min(shape[1:3]) >= _SMALLEST_PX:
        return False
    return True if shape[1] in _CHANNELS and min(shape[2:]) >= _SMALLEST_PX else None


def _label_count(info: ArrayInfo, count: int) -> bool:
    """Return whether an array may hold one label, or one-hot labels, for each of `count` images."""
    shape = info.shape
    return math.prod(shape) == count or (len(shape) == 2 and count in shape and info.dtype.kind in "buif" and max(shape) > 1)


def recognise(file: Path, images: str | None = None, labels: str | None = None) -> ArraySet:
    """Find the arrays of images, labels and class names of a file.

    Args:
        file: .npz or HDF5 file.
        images, labels: Names of the arrays; None recognises them.

    Raises:
        RequestError: If there is no array of that name.
        DataError: If there are no images, or the choice is not clear.
    """
    arrays = open_arrays(file).arrays
    for name in (images, labels):
        if name is not None and name not in arrays:
            raise unknown(f"array in {file}", name, list(arrays))
    found = _image_arrays(arrays, file, images)
    chosen = [a.name for a in found]
    names = _names_array(arrays, chosen, labels)
    candidates = [n for n, a in arrays.items() if n not in chosen and n != names and a.dtype.kind in "buifSUO"]
    candidates = [n for n in candidates if _LABEL_WORDS & set(_tokens(n)) or not _NO_LABELS & set(_tokens(n))]
    paired = [replace(a, labels=labels or _labels_for(a.name, chosen, candidates, arrays, file)) for a in found]
    return ArraySet(tuple(paired), names, tuple(_notes(paired, names, arrays, file)))


def _image_arrays(arrays: Mapping[str, ArrayInfo], file: Path, images: str | None) -> list[ImageArray]:
    """Return the arrays of images among a file's arrays, or only that of a name, in the order of their numbers.

    Raises:
        DataError: If there are no images, or the choice is not clear.
    """
    chosen = [images] if images is not None else _image_names(arrays, file)
    layouts = {name: _layout_of(arrays[name]) for name in chosen}
    wrong = next((n for n, first in layouts.items() if first is None), None)
    if wrong is not None:
        raise DataError(f"{wrong} of {file} has the shape {arrays[wrong].shape}, which is not one of images", _SHAPES)
    several = len({split_of(n) for n in chosen}) > 1  # a single array called test is the whole set
    found = [ImageArray(n, arrays[n].shape[0], bool(layouts[n]), None, split_of(n) if several else None) for n in chosen]
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(found, key=lambda a: order.get(a.split or "", 3))


_SHAPES = "images have the shape (n, height, width) or (n, height, width, 1, 3 or 4)"


def _image_names(arrays: Mapping[str, ArrayInfo], file: Path) -> list[str]:
    """Return the names of the arrays of images; if several could be, those whose names say so, one for each split.

    Raises:
        DataError: If there are none, or several for one split.
    """
    possible = [n for n, a in arrays.items() if _layout_of(a) is not None and a.shape[0] >= 1]
    possible = [n for n in possible if not _NO_IMAGES & set(_tokens(n))] or possible
    possible = [
        n for n in possible if len(arrays[n].shape) == 4 and arrays[n].shape[1:].count(1) < 2
    ] or possible  # (n, 1, 1, 1)
    if not possible:
        shown = "; ".join(f"{n} {a.shape}" for n, a in list(arrays.items())[:8])
        flat = any(len(a.shape) == 2 and a.shape[1] >= 16 and a.dtype.kind in "buif" for a in arrays.values())
        hint = f"{_SHAPES}; reshape flat rows first: images.reshape(-1, height, width)" if flat else _SHAPES
        raise DataError(f"{file} has no array of images; it contains {shown}", hint)
    named = [n for n in possible if _IMAGE_WORDS & set(_tokens(n))] or possible
    places = Counter((_rest(n), split_of(n)) for n in named)
    plain = all(n.rpartition("/")[2].startswith("arr_") for n in named)
    splits = Counter(split_of(n) for n in named)
    if len(named) > 1 and not plain and (max(places.values()) > 1 or max(splits.values()) > 1):
        raise DataError(
            f"{file} has several arrays of images: {', '.join(f'{n} {arrays[n].shape}' for n in named[:8])}",
            f"name one of them: --path-column {named[0]!r}",
        )
    return named


def _names_array(arrays: Mapping[str, ArrayInfo], images: Sequence[str], labels: str | None) -> str | None:
    """Return the name of the array of class names, None without one."""
    counts = {arrays[n].shape[0] for n in images}
    named = [n for n in arrays if _NAME_LISTS.fullmatch(n.rpartition("/")[2].lower()) and n not in (*images, labels)]
    lists = [n for n in named if len(arrays[n].shape) == 1 and arrays[n].shape[0] >= 1]
    outside = [n for n in lists if arrays[n].shape[0] not in counts]
    others = any(_FIRST_LABEL_WORDS & set(_tokens(n)) for n in arrays if n not in lists)
    chosen = outside or (lists if others else [])
    chosen.sort(key=lambda n: not arrays[n].text)
    return chosen[0] if chosen else None


def _labels_for(
    images: str, all_images: Sequence[str], candidates: Sequence[str], arrays: Mapping[str, ArrayInfo], file: Path
) -> str | None:
    """Return the name of the array of labels of an array of images, None without one.

    Raises:
        DataError: If several could be, or the number of labels is not that of the images.
    """
    count, split = arrays[images].shape[0], split_of(images)
    fitting = [n for n in candidates if _label_count(arrays[n], count) and split_of(n) in (split, None)]
    fitting = [n for n in fitting if split_of(n) == split] or (fitting if len(all_images) == 1 else [])
    same = [n for n in candidates if split_of(n) == split and _FIRST_LABEL_WORDS & set(_tokens(n))]
    if not fitting:
        if same:
            what = f"{file} has {count:,} images in {images}, and labels of the shape {arrays[same[0]].shape} in {same[0]}"
            raise DataError(what, "save one label for each image")
        return None
    names = list(arrays)
    if all(n.rpartition("/")[2].startswith("arr_") for n in (images, *fitting)):  # numpy's own names: by position
        place = names.index(images)
        after = [n for n in fitting if names.index(n) > place]
        return min(after or fitting, key=lambda n: abs(names.index(n) - place))
    for wanted in (_FIRST_LABEL_WORDS, _LABEL_WORDS):
        named = [n for n in fitting if wanted & set(_tokens(n))]
        best = [n for n in named if _rest(n) == _rest(images)] or named
        flat = [n for n in best if len(arrays[n].shape) < 2 or 1 in arrays[n].shape] or best  # y before its one-hot form
        if len(flat) == 1:
            return flat[0]
        if flat:
            hint = f"name one of them: --label-column {flat[0]!r}"
            raise DataError(f"{file} has several arrays of labels for {images}: {', '.join(flat[:8])}", hint)
    return fitting[0] if len(fitting) == 1 else None


def _notes(found: Sequence[ImageArray], class_names: str | None, arrays: Mapping[str, ArrayInfo], file: Path) -> list[str]:
    """Return a note on what was recognised in a file."""
    texts, start = [], 0
    for array in found:
        numbers = f"#{start:,} to #{start + array.count - 1:,}".replace(",", "")
        labels = f"labels {array.labels}" if array.labels else "no labels"
        split = f", split {array.split}" if array.split else ""
        texts.append(f"{array.name} {arrays[array.name].shape} ({numbers}, {labels}{split})")
        start += array.count
    names = f"; class names {class_names}" if class_names else ""
    first = "; channels first" if any(a.channels_first for a in found) else ""
    return [f"{file.name}: images {', '.join(texts)}{names}{first}"]


# ---------------------------------------------------------------------------------------------------------------- labels


def labels_of(file: Path, found: ArraySet, array: ImageArray) -> list[str | None]:
    """Return the class of each image of an array; None if it has none.

    Raises:
        DataError: If an image has several labels, or the labels are no classes.
    """
    if array.labels is None:
        return [None] * array.count
    opened = open_arrays(file)
    where = f"{array.labels} of {file}"
    values = _one_per_image(opened.all(array.labels), array.count, where)
    if found.class_names is None:
        return [_text(v) for v in values]
    names = [_text(v) for v in np.ravel(opened.all(found.class_names))]
    return _named(values, names)


def _one_per_image(values: np.ndarray, count: int, where: str) -> list[Any]:
    """Return one value per image; one-hot rows or columns become the number of the class.

    Raises:
        DataError: If a row has several ones or none, or the values are no labels.
    """
    if values.size == count:
        flat: list[Any] = np.ravel(values).tolist()
        wrong = next((v for v in flat if isinstance(v, float) and math.isfinite(v) and not v.is_integer()), None)
        if wrong is not None:
            raise DataError(f"{where} contains {wrong:g}, which is no class", "a label is a whole number or a text")
        several = next((v for v in flat if isinstance(v, list | tuple | np.ndarray)), None)
        if several is not None:
            raise DataError(f"{where} has several labels for one image, such as {several}", _ONE)
        return flat
    rows = values if values.shape[0] == count else values.T
    binary = np.isin(rows, (0, 1)).all()
    ones = (rows == 1).sum(axis=1)
    if not binary or (ones != 1).any():
        first = int(np.flatnonzero(ones != 1)[0]) if binary else 0
        counted = "it contains values other than 0 and 1"
        if binary:
            counted = f"{(ones > 1).sum():,} images have several ones and {(ones == 0).sum():,} have none"
        what = f"{where} has the shape {values.shape}, one column per class, and {counted}, such as image {first}"
        raise DataError(f"{what}: Sightline supports one class per image", _ONE)
    return list(rows.argmax(axis=1).tolist())


_ONE = "save one label for each image, as a number or a text"


def _text(value: Any) -> str | None:
    """Return a label as text; 1.0 and True become 1; None for NaN and empty texts."""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    if isinstance(value, bool | np.bool_):
        value = int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return None
        value = int(value) if float(value).is_integer() else value
    return str(value).strip("\0 \t\r\n") or None


def _named(values: Sequence[Any], names: Sequence[str | None]) -> list[str | None]:
    """Return labels as class names: labels that are names themselves stay, whole numbers are positions in the list."""
    texts = [_text(v) for v in values]
    if {t for t in texts if t is not None} <= set(names):
        return texts

    def name(text: str | None) -> str | None:
        if text is None or not re.fullmatch(r"\d+", text):
            return None
        return names[int(text)] if int(text) < len(names) else None

    return [name(t) for t in texts]


# ---------------------------------------------------------------------------------------------------------------- images


def image(file: Path, array: ImageArray, row: int) -> np.ndarray:
    """Return one image of an array, (h, w) or (h, w, 1 | 3 | 4), in native byte order.

    Whole numbers from 0 to 255 of any type, and floats from 0 to 1 or 0 to 255, become uint8, as a sample of images decides.

    Raises:
        IndexError: If the array has fewer images.
        DataError: If the file is damaged, the image is too large, or its values lie outside the range of the others.
    """
    opened = open_arrays(file)
    info = opened.arrays[array.name]
    if row >= info.shape[0]:
        raise IndexError(row)
    if info.dtype.itemsize * math.prod(info.shape[1:]) > LARGEST_BYTES:
        raise DataError(f"an image of {array.name} in {file} has more than 2 GB", "make the images smaller")
    values = opened.rows(array.name, row, row + 1)[0]
    if array.channels_first and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    kind, scale = _conversion(opened, info)
    if kind is not None:
        values = _converted(values, kind, scale, f"{array.name} of {file}")
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def _converted(values: np.ndarray, kind: str, scale: float, where: str) -> np.ndarray:
    """Return an image of another dtype, multiplied by `scale`.

    Raises:
        DataError: If a value is outside the range of the new dtype.
    """
    if kind == "float32" or not np.isfinite(values).all():  # NaN is treated when it is scaled to 8 bits
        return (values * (scale / 255 if kind == "uint8" else 1)).astype(np.float32)
    scaled = np.rint(values.astype(np.float64) * scale) if values.dtype.kind == "f" else values
    limits = np.iinfo(np.dtype(kind))
    if scaled.min() < limits.min or scaled.max() > limits.max:
        what = f"the image has values from {values.min():g} to {values.max():g}, outside the range of other images in {where}"
        raise DataError(what, "store all images with one range of values")
    return scaled.astype(kind)


def _conversion(opened: ArrayFile, info: ArrayInfo) -> tuple[str | None, float]:
    """Return (dtype, factor) for an array's images, which depend on the range of up to 64 of them; None keeps the dtype."""
    key = f"conversion {info.name}"
    if key not in opened.known:
        opened.known[key] = _measured(opened, info)
    conversion: tuple[str | None, float] = opened.known[key]
    return conversion


def _measured(opened: ArrayFile, info: ArrayInfo) -> tuple[str | None, float]:
    """Return `_conversion`, measured."""
    if info.dtype.kind == "b" or info.dtype == np.uint8:
        return None, 1.0
    rows = sorted({i * info.shape[0] // _SAMPLE for i in range(_SAMPLE)})
    sample = [opened.rows(info.name, i, i + 1) for i in rows]
    finite = [s[np.isfinite(s)] for s in sample]
    low, high = min(float(f.min(initial=0)) for f in finite), max(float(f.max(initial=0)) for f in finite)
    if info.dtype.kind in "iu":
        kind = "uint8" if low >= 0 and high <= 255 else "uint16" if low >= 0 and high <= 65535 else "int32"
        return kind, 1.0
    if low < 0 or high > 255.5:
        return "float32", 1.0
    return "uint8", 255.0 if high <= 1.001 else 1.0


def to_bytes(values: np.ndarray) -> bytes:
    """Return an image in numpy's file format, version 1: the same bytes for the same dtype, shape and pixels."""
    stream = io.BytesIO()
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    np.lib.format.write_array(stream, little, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


_ITEM = re.compile(r"(?P<file>.+)#(?:(?P<array>.+)/)?(?P<row>\d+)", re.DOTALL)


def split_item(path: str) -> tuple[str, str | None, int] | None:
    """Return (file, array or None, number) of the path of an image in a file of arrays; None for any other path.

    Example:
        >>> split_item("data/x.h5#12"), split_item("x.npz#train/images/3"), split_item("cat/1.jpg")
        (('data/x.h5', None, 12), ('x.npz', 'train/images', 3), None)
    """
    match = _ITEM.fullmatch(path)
    return (match["file"], match["array"], int(match["row"])) if match else None


def order_of(path: str) -> tuple[str, str, int]:
    """Return the sort key of a path: images of a file of arrays by their number, everything else by text.

    Example:
        >>> sorted(["x.h5#10", "x.h5#9", "a.jpg"], key=order_of)
        ['a.jpg', 'x.h5#9', 'x.h5#10']
    """
    item = split_item(path)
    return (path, "", 0) if item is None else (item[0], item[1] or "", item[2])


def _locate(arrays: Sequence[ImageArray], number: int) -> tuple[ImageArray, int]:
    """Return the array and the row of an image's number in the file.

    Raises:
        IndexError: If the file has fewer images.
    """
    for array in arrays:
        if number < array.count:
            return array, number
        number -= array.count
    raise IndexError(number)


def read_item(file: Path, name: str | None, number: int) -> bytes:
    """Return an image of a file of arrays, in numpy's file format.

    Args:
        file: .npz or HDF5 file.
        name: Name of the array; None if `number` counts the images of all arrays.
        number: Number of the image, from 0.

    Raises:
        FileNotFoundError: If there is no such image or array.
        DataError, RequestError: As in `open_arrays` and `recognise`.
    """
    opened = open_arrays(file)
    try:
        if name is not None and name not in opened.arrays:
            raise IndexError(name)
        key = f"images {name}"
        if key not in opened.known:
            opened.known[key] = _image_arrays(opened.arrays, file, name)
        return to_bytes(image(file, *_locate(opened.known[key], number)))
    except IndexError as error:
        raise FileNotFoundError(f"{file}#{name + '/' if name else ''}{number}") from error
