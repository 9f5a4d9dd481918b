"""The nouns: a plain, frozen record for all that is written to disk. Read this first."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from sightline import store
from sightline.errors import ModelFileError, RequestError, unknown
from sightline.plain import csv_safe

if typing.TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

Progress = Callable[[str, int, int], None]
"""How long work tells how far it is: (stage in words, done, total); total 0 where it is not known yet."""


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that says nothing."""


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


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to do. People write it as TOML; its identity is the hash of its canonical JSON.

    Args:
        method: A name of `sightline.training.methods.METHODS`.
        backbone: A network's name, `pixels`, or `file.py:function` for a network of the user's own.
        weights: `pretrained`, `random`, or a file.
        head: A name of `sightline.heads.HEADS`; `auto` compares the quick ones on validation.
        image_size: Side of the square that the network sees, in pixels; None takes the one its weights were trained at.
        fit: How an image that is not square becomes one; None takes the weights' own.
        pool: What becomes of the last map: its mean, or all of it.
        positive: For two classes: the one that curves and threshold are about; None takes the rarer one.
        threshold: For two classes: how the probability is chosen from which on the answer is `positive`, on held-out images;
            a criterion of `sightline.evaluation.thresholds.CRITERIA`.
        seed: Every random draw is a function of it.
        settings: The method's own, checked against the method's dataclass.
    """

    method: str = "features"
    backbone: str = "mobilenetv2_100"
    weights: str = "pretrained"
    head: str = "auto"
    image_size: int | None = None
    fit: Literal["crop", "pad", "squash"] | None = None
    pool: Literal["avg", "flatten"] = "avg"
    positive: str | None = None
    threshold: str = "half"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The recipe's identity."""
        return store.digest(self)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The one contract between a file and a network. There is no second way to turn a file into a tensor.

    The decoder gives upright RGB uint8 (height, width, 3); the network's own first step is
    `(pixels / 255 - mean) / std`.

    Args:
        size: (height, width) of what the network sees, in pixels.
        fit: `crop`: resize so that the centre square of `crop_fraction` fills the size; `pad`: resize to fit inside, mean
            grey around; `squash`: resize both sides, whatever their ratio.
        crop_fraction: Side of the centre crop as a fraction of the resized image's shorter side (224 / 256 = 0.875).
        interpolation: The resize filter that the weights were trained with.
        mean, std: Per channel, for pixels in 0 to 1.
        value_range: The (low, high) stored values that become 0 and 255, for 16-bit and float images, taken from the
            training set; None where it holds none.
        background: The grey level that transparent pixels are laid on, 0 to 255.
        max_pixels: An image with more is refused from its header.
        allow_truncated: Use what a truncated JPEG still shows.
        decoder: The version of the decoder; another one is another preprocess.
    """

    size: tuple[int, int] = (224, 224)
    fit: Literal["crop", "pad", "squash"] = "crop"
    crop_fraction: float = 0.875
    interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    value_range: tuple[float, float] | None = None
    background: int = 255
    max_pixels: int = 178_956_970
    allow_truncated: bool = False
    decoder: str = "pillow-1"

    @property
    def id(self) -> str:
        """The identity of what it does to a file."""
        return store.digest(self)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A network that turns an image into features: what it is, where its weights come from, how its last map lies.

    Args:
        name: Its name, such as `resnet50`, or `my_net.py:build`.
        source: Who builds it. `none` gives no features, `file` the file's statistics, `pixels` the resized image itself;
            `ensemble` stands for those of its members.
        weights: Where the weights came from: a file's name, a hub tag, `random:<seed>`, or `run` for trained here.
        weights_hash: SHA-256 of the tensors (name, shape, bytes); "" where there are none.
        preprocess: What its weights expect.
        features: The width d of the pooled features.
        pool: `avg`: the network's own tail; `flatten`: the map, flattened; `scores`: the network's own output, where that is
            no linear function of any features.
        map_shape: (channels, height, width) of the last map on its grid; None where there is none.
        layout: How the last map lies in memory: (n, c, h, w), (n, h, w, c), or (n, prefix + h·w, c).
        prefix: Tokens before the patches, in the `tokens` layout.
        arguments: Keyword arguments of the builder, for networks of ours.
        parameters: How many trainable numbers it has.
        licence, origin, pretrained_on: Of the weights, as far as they are known.
    """

    name: str
    source: Literal["none", "file", "pixels", "ensemble", "timm", "torchvision", "sightline", "user"]
    preprocess: Preprocess
    features: int
    weights: str = ""
    weights_hash: str = ""
    pool: Literal["avg", "flatten", "scores"] = "avg"
    map_shape: tuple[int, int, int] | None = None
    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    licence: str = "unknown"
    origin: str = "unknown"
    pretrained_on: str = "nothing"

    @property
    def is_network(self) -> bool:
        """Whether it is a network, with weights."""
        return self.source in ("timm", "torchvision", "sightline", "user")

    @property
    def id(self) -> str:
        """The identity of what it computes from pixels: network, weights, size, normalisation, pooling."""
        p = self.preprocess
        return store.digest([self.name, self.source, self.weights_hash, self.pool, p.size, p.mean, p.std, self.arguments])


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head as data: what turns features (n, d) into logits (n, k).

    Args:
        kind: A name of `sightline.heads.HEADS`.
        classes: k, the number of classes.
        settings: What it was fitted with, the chosen ones included.
        arrays: Everything that prediction needs.
    """

    kind: str
    classes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a classifier said of images. The torch boundary: everything after it is a pure function of arrays.

    Args:
        paths: n names, as the catalog or the user gave them.
        classes: k class names, in the order of the columns of `probs`.
        y_true: int64 (n,), the class index, -1 where it is not known.
        probs: float64 (n, k), rows that sum to 1.
        errors: Files that gave no answer, and why: path → reason. They are not among `paths`.
        bar: For two classes: (positive class, the probability from which on it is the answer); None for one half.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    y_true: np.ndarray
    probs: np.ndarray
    errors: Mapping[str, str] = field(default_factory=dict)
    bar: tuple[str, float] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def y_pred(self) -> np.ndarray:
        """int64 (n,): the class with the highest probability, the first of equals; for two classes with a bar, by that."""
        if self.bar is None:
            return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)
        positive = self.classes.index(self.bar[0])
        return np.where(self.probs[:, positive] >= self.bar[1], positive, 1 - positive).astype(np.int64)

    @property
    def labels(self) -> list[str]:
        """The predicted class names."""
        return [self.classes[i] for i in self.y_pred]

    def select(self, rows: np.ndarray) -> Predictions:
        """The rows that a boolean mask or an index array picks."""
        index = np.arange(len(self))[rows]
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            y_true=self.y_true[index],
            probs=self.probs[index],
        )

    def to_csv(self) -> str:
        """A table for people: path, label, predicted, probability, `p:CLASS` for every class, `bar:CLASS` if it has a bar."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        head, end = ([], []) if self.bar is None else ([f"bar:{self.bar[0]}"], [repr(self.bar[1])])
        rows.writerow(["path", "label", "predicted", "probability", *(f"p:{c}" for c in self.classes), *head])
        for path, true, pred, probs in zip(self.paths, self.y_true, self.y_pred, self.probs, strict=True):
            label = self.classes[true] if true >= 0 else ""
            cells = [csv_safe(path), csv_safe(label), csv_safe(self.classes[pred])]
            rows.writerow([*cells, repr(float(probs[pred])), *(repr(float(p)) for p in probs), *end])
        return text.getvalue()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a classifier looked, for one image and one class.

    Args:
        path: The image.
        target: The class whose score is explained.
        method: A name of `sightline.explanation.METHODS`.
        layer: Where the map was taken.
        heat: float32 (h, w), raw and signed: positive speaks for the target. Scaled only when drawn.
        box: (top, left, height, width) of the upright image's pixels that `heat` covers; beyond it the network saw nothing.
        neutral: The heat of a cell that speaks neither for nor against the target; drawn as zero.
    """

    path: str
    target: str
    method: str
    layer: str
    heat: np.ndarray
    box: tuple[float, float, float, float]
    neutral: float = 0.0

    def peak(self) -> tuple[int, int]:
        """(row, column) of the centre of the hottest cell, in pixels of the upright image."""
        row, column = np.unravel_index(int(np.argmax(self.heat)), self.heat.shape)
        top, left, height, width = self.box
        h, w = self.heat.shape
        return int(top + (row + 0.5) * height / h), int(left + (column + 0.5) * width / w)


@dataclass(frozen=True, slots=True)
class Card:
    """What a classifier's file says of itself, as JSON in its metadata.

    Args:
        classes: In the order of the logits.
        backbone: The network, its preprocess included.
        head: The head's kind and settings (its arrays are tensors of the file).
        method: How it was trained.
        recipe: The recipe it came from.
        temperature: Logits are divided by it before the softmax; 1 where it is not calibrated.
        positive: For two classes: the one whose score is drawn in curves.
        threshold: For two classes: the probability of `positive` from which on that is the answer; None for one half.
        threshold_by: The criterion that it was chosen by.
        data: Fingerprint of the catalog, images per class and split.
        scores: What was measured when it was made.
        precision: What the features were computed in, and how that was judged.
        software: Versions.
        crops: How many looks at an image its answer is the mean of: 1, 5 or 10, see `sightline.pixels.crops`.
        members: Of an ensemble: the cards of its members, whose mean it answers with.
        weights: Of an ensemble: how much each member counts; they sum to 1.
        format: The version of this file format.
    """

    FORMAT: ClassVar[int] = 1

    classes: tuple[str, ...]
    backbone: Backbone
    head: str
    head_settings: Mapping[str, Any]
    method: str
    recipe: Recipe
    temperature: float = 1.0
    positive: str | None = None
    threshold: float | None = None
    threshold_by: str = "half"
    data: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    precision: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    crops: int = 1
    members: tuple[Card, ...] = ()
    weights: tuple[float, ...] = ()
    format: int = 1

    @property
    def bar(self) -> tuple[str, float] | None:
        """What `Predictions.bar` is for its answers."""
        return None if self.threshold is None or self.positive is None else (self.positive, self.threshold)


@dataclass(frozen=True, slots=True)
class Run:
    """One finished folder: recipe, catalog, classifier, history, predictions, scores, explanations, environment.

    Args:
        folder: Where it lies.
        data: The content of `run.json`, which is written last.
        classifier: The `sightline.Classifier` itself, where `sightline.fit` has just made it; else None, and `sightline.load`
            reads it from the folder.
    """

    folder: Path
    data: Mapping[str, Any]
    classifier: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's folder.

        Raises:
            RequestError: There is no such folder, or it is not a finished run.
            ModelFileError: `run.json` is damaged.
        """
        file = Path(folder) / "run.json"
        if not file.is_file():
            started = Path(folder).is_dir()
            what = "has no run.json: it is not a finished run" if started else "does not exist"
            raise RequestError(f"{folder} {what}", "name a folder that `sightline run` or `sightline train` made")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelFileError(f"{file} is damaged ({error})", "make the run again") from error
        return cls(Path(folder), data)

    @property
    def classifier_file(self) -> Path:
        """Where its classifier lies."""
        return self.folder / "classifier.safetensors"
