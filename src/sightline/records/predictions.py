"""Data types of results: predictions, heatmaps, and run folders."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import ModelFileError, RequestError
from sightline.files import is_file
from sightline.records import display
from sightline.records.run import RunRecord
from sightline.records.versions import read_record
from sightline.schema import csv_escape


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted probabilities for a set of images.

    Everything computed from them needs arrays alone, no torch.

    Args:
        paths: n paths or names, as in the catalog or as passed by the user.
        classes: k class names, in the order of the columns of `probs`.
        y_true: int64 (n,), true class indices, -1 if unknown.
        probs: float64 (n, k), rows that sum to 1.
        errors: Files without a prediction: path → reason. They are not in `paths`.
        threshold: Decision threshold for two classes: (positive class, threshold); None for 0.5. If thresholds differ between
            rows, as after cross-validation, float64 (n,).
        ood_score: float64 (n,), distance of each image from the training images, see
            `sightline.evaluation.out_of_distribution`; None if the classifier has no OOD detection.
        ood_threshold: An image with a larger score is out of distribution.
        test_contents: SHA-256 of each image that is a labelled test image of a catalog, "" for the others; empty if none is.
            `sightline.score` records an access to the test set for them.
        in_training: bool (n,), which images the classifier was fitted or selected on (train or val), by their bytes; None if
            unknown, as for arrays and tables.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    y_true: np.ndarray
    probs: np.ndarray
    errors: Mapping[str, str] = field(default_factory=dict)
    threshold: tuple[str, float | np.ndarray] | None = None
    ood_score: np.ndarray | None = None
    ood_threshold: float | None = None
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
        """Return predicted class indices, int64 (n,): by the threshold if there is one, else the most probable class."""
        if self.threshold is None:
            return np.asarray(self.probs.argmax(axis=1), dtype=np.int64)
        positive = self.classes.index(self.threshold[0])
        return np.where(self.probs[:, positive] >= self.threshold[1], positive, 1 - positive).astype(np.int64)

    @property
    def thresholds(self) -> np.ndarray:
        """Return the decision threshold of each row, float64 (n,); 0.5 by default."""
        return np.broadcast_to(np.asarray(0.5 if self.threshold is None else self.threshold[1], dtype=np.float64), len(self))

    @property
    def labels(self) -> list[str]:
        """Return the predicted class names."""
        return [self.classes[i] for i in self.y_pred]

    def select(self, rows: np.ndarray) -> Predictions:
        """Return the predictions of the rows of a boolean mask or an index array."""
        index, threshold = np.arange(len(self))[rows], self.threshold
        if threshold is not None and isinstance(threshold[1], np.ndarray):
            threshold = (threshold[0], threshold[1][index])
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            y_true=self.y_true[index],
            probs=self.probs[index],
            threshold=threshold,
            ood_score=None if self.ood_score is None else self.ood_score[index],
            test_contents=tuple(self.test_contents[i] for i in index) if self.test_contents else (),
            in_training=None if self.in_training is None else self.in_training[index],
        )

    def to_csv(self) -> str:
        """Return a CSV table: path, label, predicted, probability, `p:CLASS` for every class, `bar:CLASS` for a threshold."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        head = [] if self.threshold is None else [f"bar:{self.threshold[0]}"]
        thresholds = self.thresholds.tolist()
        rows.writerow(["path", "label", "predicted", "probability", *(f"p:{c}" for c in self.classes), *head])
        for i, (path, true, pred, probs) in enumerate(zip(self.paths, self.y_true, self.y_pred, self.probs, strict=True)):
            label = self.classes[true] if true >= 0 else ""
            cells = [csv_escape(path), csv_escape(label), csv_escape(self.classes[pred])]
            end = [repr(thresholds[i])] if head else []
            rows.writerow([*cells, repr(float(probs[pred])), *(repr(float(p)) for p in probs), *end])
        return text.getvalue()


MOST_CELLS = 64
"""A heatmap with more cells along its shorter side is a heatmap of pixels."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Heatmap of one image and one class.

    Args:
        path: Path of the image.
        target: Class whose score is explained.
        method: Name in `sightline.explanation.METHODS`.
        layer: Layer of the feature map.
        heat: float32 (h, w), raw attribution: positive is evidence for the target, unless the method is unsigned. Scaled only
            when drawn.
        box: (top, left, height, width) in pixels of the upright image that `heat` covers; the network's input ends there.
        neutral: Attribution of a cell that is evidence neither for nor against the target; drawn as zero.
        contrast: Class that the target is compared with; "" for all others together.
        missed: For integrated gradients: share of the score difference that the attributions do not add up to.
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

    def _repr_html_(self) -> str:
        """Return a small table and the heatmap in grey for notebooks: white is the highest attribution."""
        facts = {"image": self.path, "class": self.target, "against": self.contrast or None, "method": self.method}
        return display.table("Explanation", {**facts, "layer": self.layer or None}) + display.picture(self.heat)

    @property
    def flat(self) -> bool:
        """Return whether the heatmap is constant, to the accuracy of float32, and so highlights no region."""
        low, high = float(self.heat.min()), float(self.heat.max())
        return high - low <= 1e-6 * max(abs(low), abs(high))

    def peak(self) -> tuple[int, int]:
        """Return (row, column) of the heatmap's maximum, in pixels of the upright image.

        For a map of cells it is the centre of the cell with the highest attribution. A heatmap of pixels is noisy, so it is
        first smoothed with a Gaussian whose standard deviation is a sixth of the shorter side.
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
    """Finished run folder: recipe, catalog, classifier, history, predictions, scores, heatmaps, environment.

    Args:
        folder: Path of the folder.
        data: Content of `run.json`, which is written last.
        classifier: `sightline.Classifier` if `sightline.fit` has just fitted it; else None, and `sightline.load` reads it from
            the folder.
        held_out: Predictions for images that the classifier was not fitted on, if it has just been fitted: out-of-fold
            predictions for train and val if it was cross-validated, else predictions for the val split. They estimate
            accuracy if there is no test split.
    """

    folder: Path
    data: Mapping[str, Any]
    classifier: Any = field(default=None, compare=False, repr=False)
    held_out: Predictions | None = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Load a run from its folder.

        Raises:
            RequestError: If the folder does not exist, or is not a finished run.
            ModelFileError: If `run.json` is damaged, of another version, or has unknown keys or values of another type.
        """
        file = Path(folder) / "run.json"
        if not is_file(file):
            what = "is a file" if Path(folder).exists() else "does not exist"
            what = "has no run.json: it is not a finished run" if Path(folder).is_dir() else what
            raise RequestError(f"{folder} {what}", "pass a folder that `sightline run` or `sightline train` created")
        run = cls(Path(folder), read_record(file))
        try:
            _ = run.record
        except RequestError as error:
            raise ModelFileError(f"{file} cannot be read: {error.message}", "repeat the run") from error
        return run

    @property
    def record(self) -> RunRecord:
        """Typed content of `run.json`.

        Raises:
            RequestError: If a key is unknown or a value has another type.
        """
        return RunRecord.from_json(self.data)

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
        """Return the path of its predictions for held-out images: out-of-fold predictions, else those of the val split."""
        files = [self.folder / "predictions" / f"{name}.csv" for name in ("cross_validated", "val")]
        return next((file for file in files if file.is_file()), files[-1])

    @property
    def classifier_file(self) -> Path:
        """Return the path of its classifier."""
        return self.folder / "classifier.safetensors"
