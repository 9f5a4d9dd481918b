"""What was answered: predictions, explanations, and the folder of a run that holds them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import ModelFileError, RequestError
from sightline.files import is_file, read_text
from sightline.records import display
from sightline.schema import csv_escape


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a classifier said of images. The torch boundary: everything after it is a pure function of arrays.

    Args:
        paths: n names, as the catalog or the user gave them.
        classes: k class names, in the order of the columns of `probs`.
        y_true: int64 (n,), the class index, -1 where it is not known.
        probs: float64 (n, k), rows that sum to 1.
        errors: Files that gave no answer, and why: path → reason. They are not among `paths`.
        bar: For two classes: (positive class, the probability from which on it is the answer); None for one half. Where not
            all answers have one bar, as after a cross-validation, float64 (n,) of each row's own.
        unlike: float64 (n,), how far each image lies from those of the training, as `sightline.evaluation.out_of_distribution` measures it;
            None where the classifier cannot tell.
        unlike_bar: The distance beyond which an image is unlike anything in training.
        test_contents: SHA-256 of each image that is a labelled test image of a catalog, "" for each other; empty where none
            is. `sightline.score` counts a look at them.
        in_training: bool (n,), which images the classifier was made from (train or val), by their bytes; None where that
            is not known, as of arrays and of tables.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    y_true: np.ndarray
    probs: np.ndarray
    errors: Mapping[str, str] = field(default_factory=dict)
    bar: tuple[str, float | np.ndarray] | None = None
    unlike: np.ndarray | None = None
    unlike_bar: float | None = None
    test_contents: tuple[str, ...] = ()
    in_training: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return display.line("Predictions", self._facts())

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        return display.table("Predictions", self._facts())

    def _facts(self) -> dict[str, object]:
        """Return what identifies the predictions for people: their size, and the accuracy if labels are known."""
        known = self.y_true >= 0
        right = float((self.y_pred == self.y_true)[known].mean()) if known.any() else None
        return {
            "images": len(self),
            "classes": len(self.classes),
            "labelled": int(known.sum()),
            "accuracy": None if right is None else f"{right:.3f}",
            "unreadable": len(self.errors) or None,
        }

    @property
    def y_pred(self) -> np.ndarray:
        """int64 (n,): the class with the highest probability, the first of equals; for two classes with a bar, by that."""
        if self.bar is None:
            return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)
        positive = self.classes.index(self.bar[0])
        return np.where(self.probs[:, positive] >= self.bar[1], positive, 1 - positive).astype(np.int64)

    @property
    def bars(self) -> np.ndarray:
        """float64 (n,): each answer's bar, of the class that `bar` names; one half where there is none."""
        return np.broadcast_to(np.asarray(0.5 if self.bar is None else self.bar[1], dtype=np.float64), len(self))

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
            bar=(self.bar[0], self.bar[1][index]) if self.bar is not None and isinstance(self.bar[1], np.ndarray) else self.bar,
            unlike=None if self.unlike is None else self.unlike[index],
            test_contents=tuple(self.test_contents[i] for i in index) if self.test_contents else (),
            in_training=None if self.in_training is None else self.in_training[index],
        )

    def to_csv(self, more: Mapping[str, Sequence[str]] | None = None, *, with_errors: bool = False) -> str:
        """A table for people: path, label, predicted, probability, `p:CLASS` for every class, `bar:CLASS` if it has a bar.

        Args:
            more: Further columns by name, n cells each; who reads the table back as predictions passes over them.
            with_errors: Append a row for every file without an answer: its path, the reason in the column `problem`, and
                nothing else. The column is there only if there are such files.
        """
        text, more = io.StringIO(), more or {}
        rows = csv.writer(text, lineterminator="\n")
        head = [] if self.bar is None else [f"bar:{self.bar[0]}"]
        failed = self.errors if with_errors else {}
        if failed:
            more = {**more, "problem": [""] * len(self)}
        bars = self.bars.tolist()
        rows.writerow(["path", "label", "predicted", "probability", *(f"p:{c}" for c in self.classes), *head, *more])
        for i, (path, true, pred, probs) in enumerate(zip(self.paths, self.y_true, self.y_pred, self.probs, strict=True)):
            label = self.classes[true] if true >= 0 else ""
            cells = [csv_escape(path), csv_escape(label), csv_escape(self.classes[pred])]
            further = (csv_escape(column[i]) for column in more.values())
            end = [repr(bars[i])] if head else []
            rows.writerow([*cells, repr(float(probs[pred])), *(repr(float(p)) for p in probs), *end, *further])
        empty = [""] * (2 + len(self.classes) + len(head) + len(more))
        for path, problem in failed.items():
            rows.writerow([csv_escape(path), *empty, csv_escape(problem)])
        return text.getvalue()


MOST_CELLS = 64
"""Heat with more cells along its shorter side lies on pixels."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a classifier looked, for one image and one class.

    Args:
        path: The image.
        target: The class whose score is explained.
        method: A name of `sightline.explanation.METHODS`.
        layer: Where the map was taken.
        heat: float32 (h, w), raw: positive speaks for the target, unless the method has no sign. Scaled only when drawn.
        box: (top, left, height, width) of the upright image's pixels that `heat` covers; beyond it the network saw nothing.
        neutral: The heat of a cell that speaks neither for nor against the target; drawn as zero.
        contrast: The class that the target is set against; "" for all others together.
        missed: For integrated gradients: the share of the score's difference that the heat does not add up to.
    """

    path: str
    target: str
    method: str
    layer: str
    heat: np.ndarray
    box: tuple[float, float, float, float]
    neutral: float = 0.0
    contrast: str = ""
    missed: float | None = None

    @property
    def flat(self) -> bool:
        """Whether the heat is the same everywhere, to float32's accuracy, as of an all-zero map: it points at no place."""
        low, high = float(self.heat.min()), float(self.heat.max())
        return high - low <= 1e-6 * max(abs(low), abs(high))

    def peak(self) -> tuple[int, int]:
        """(row, column) of the hottest place, in pixels of the upright image.

        Of a map of cells that is the centre of the hottest cell. Heat on single pixels goes up and down from one to the next,
        and what a place adds up to is lost among them: there it is where the heat is highest under a Gaussian whose standard
        deviation is a sixth of the shorter side.
        """
        heat = self.heat
        if min(heat.shape) > MOST_CELLS:
            from scipy.ndimage import gaussian_filter

            heat = gaussian_filter(heat.astype(np.float64), min(heat.shape) / 6, mode="constant")
        row, column = np.unravel_index(int(np.argmax(heat)), heat.shape)
        top, left, height, width = self.box
        h, w = self.heat.shape
        return int(top + (row + 0.5) * height / h), int(left + (column + 0.5) * width / w)


@dataclass(frozen=True, slots=True)
class Run:
    """One finished folder: recipe, catalog, classifier, history, predictions, scores, explanations, environment.

    Args:
        folder: Where it lies.
        data: The content of `run.json`, which is written last.
        classifier: The `sightline.Classifier` itself, where `sightline.fit` has just made it; else None, and `sightline.load`
            reads it from the folder.
        held_out: Likewise its answers to images that it was not fitted on, the honest estimate where there is no test split:
            out-of-fold answers to train and val where it was cross-validated, else answers to the val split.
    """

    folder: Path
    data: Mapping[str, Any]
    classifier: Any = field(default=None, compare=False, repr=False)
    held_out: Predictions | None = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's folder.

        Raises:
            RequestError: There is no such folder, or it is not a finished run.
            ModelFileError: `run.json` is damaged.
        """
        file = Path(folder) / "run.json"
        if not is_file(file):
            what = "is a file" if Path(folder).exists() else "does not exist"
            what = "has no run.json: it is not a finished run" if Path(folder).is_dir() else what
            raise RequestError(f"{folder} {what}", "name a folder that `sightline run` or `sightline train` made")
        try:
            data = json.loads(read_text(file))
        except ValueError as error:
            raise ModelFileError(f"{file} is damaged ({error})", "make the run again") from error
        return cls(Path(folder), data)

    def __repr__(self) -> str:
        return display.line("Run", self._facts())

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        return display.table("Run", self._facts())

    def _facts(self) -> dict[str, object]:
        """Return what identifies the run for people: its folder, method, backbone, head and accuracy."""
        return {
            "folder": self.folder,
            **{key: self.data.get(key) or None for key in ("kind", "method", "backbone", "head")},
            "validation accuracy": display.accuracy(self.data.get("val")),
            "test accuracy": display.accuracy(self.data.get("test")),
        }

    @property
    def held_out_file(self) -> Path:
        """The table of its answers to images that it was not fitted on: out-of-fold ones, else those to the val split."""
        files = [self.folder / "predictions" / f"{name}.csv" for name in ("cross_validated", "val")]
        return next((file for file in files if file.is_file()), files[-1])

    @property
    def classifier_file(self) -> Path:
        """Where its classifier lies."""
        return self.folder / "classifier.safetensors"
