"""One served classifier: decode uploads, predict them in batches, draw heatmaps, find similar training images."""

from __future__ import annotations

import base64
import contextlib
import io
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sightline import classifier, pixels
from sightline.classifier import Classifier, Decoded, Resident
from sightline.errors import ImageError, SightlineError
from sightline.evaluation import out_of_distribution
from sightline.explanation import cover_region
from sightline.pixels.batching import cores
from sightline.records import Catalog, silent
from sightline.serve.batching import Batcher
from sightline.serve.metrics import Metrics
from sightline.store import Cache, log

MOST_PIXELS = 100_000_000
"""Maximum number of pixels of an uploaded image."""
NEAREST = 4
THUMBNAIL_PX = 160
COVERED_PX = 640


@dataclass(frozen=True, slots=True)
class _Bank:
    """Features of the training images, for the most similar ones.

    Args:
        images: The training images.
        rows: int64 (m,), rows of `images` whose features are known.
        directions: float32 (m, w).
    """

    images: Catalog
    rows: np.ndarray
    directions: np.ndarray


class ServedModel:
    """Classifier that is ready to answer.

    Args:
        name: Name in requests.
        file: Classifier file, or run folder.
        code: `file.py:function` that builds a user-defined network.
        device: As in `Classifier.predict`.
        metrics: Counts batches and images.
    """

    def __init__(self, name: str, file: Path, *, code: str | None, device: str, metrics: Metrics) -> None:
        self.name, self.file, self.device = name, file, device
        self.cache = Cache()
        self.model: Classifier = classifier.load(file, code=code)
        self.resident = Resident(self.model, self.cache, device)
        self.resident.warm_up()
        self.batcher = Batcher(self.resident, metrics.batch)
        self.decoders = ThreadPoolExecutor(cores(), thread_name_prefix="sightline-decode")
        self.extras = ThreadPoolExecutor(1, thread_name_prefix="sightline-extras")
        self._bank: _Bank | None = None
        self._bank_read = False
        self._bank_lock = threading.Lock()

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self.decoders.shutdown(wait=True)
        self.batcher.close()
        self.extras.shutdown(wait=False, cancel_futures=True)

    def decode(self, stream: BinaryIO, name: str, crops: int | None) -> Decoded | ImageError:
        """Return a decoded upload, or the reason why it is not one."""
        try:
            stream.seek(0)
            data = stream.read()
            return self.resident.decode(data, name, crops=crops, max_pixels=MOST_PIXELS)
        except ImageError as error:
            return error

    def heatmap(self, stream: BinaryIO, name: str, target: int, *, method: str = "auto") -> dict[str, str | None]:
        """Return `heatmap` of a class over an upload as a `data:` URL with the `heatmap_method`, or the `heatmap_error`.

        Args:
            stream: The upload.
            name: Its name.
            target: Class index.
            method: Explanation method, or `auto`.
        """
        from sightline.explanation.draw import overlay
        from sightline.explanation.heatmaps import heatmaps_of
        from sightline.explanation.methods import METHODS
        from sightline.explanation.options import ExplainOptions

        with _as_file(stream) as file:
            try:
                options = ExplainOptions(method=method, cache=self.cache, device=self.device)
                explanations, errors = heatmaps_of(self.model, [file], [name], [target], options)
            except SightlineError as error:
                log.warning("no heatmap of %s: %s", name, error.message)
                return {"heatmap": None, "heatmap_error": error.message}
            if not explanations:
                return {"heatmap": None, "heatmap_error": errors.get(name)}
            preprocess = self.model.embedding_model.card.backbone.preprocess
            layers = overlay.layers_file(file, preprocess, explanations[0])
        used = METHODS.get(explanations[0].method)
        picture = _data_url(Image.fromarray(overlay.flatten(layers.photo, layers.heat)), "PNG")
        return {"heatmap": picture, "heatmap_method": explanations[0].method if used is None else used.title}

    def cover(self, stream: BinaryIO, name: str, target: int, region: str) -> dict[str, Any]:
        """Return the prediction of an upload with a region covered, as in `explain --json`, with the covered image.

        Args:
            stream: The upload.
            name: Its name.
            target: Index of the class that is predicted without the cover.
            region: Text for `parse_region`.
        """
        regions = [cover_region.parse_region(region)]
        with _as_file(stream) as file:
            try:
                hidden = cover_region.hide(self.model, file, regions, cache=self.cache, device=self.device)
            except SightlineError as error:
                return {"error": error.message.replace(str(file), name)}
        picture = Image.fromarray(hidden.image)
        picture.thumbnail((COVERED_PX, COVERED_PX))
        return {**hidden.as_data(self.model.classes, target, regions), "image": _data_url(picture, "JPEG")}

    def similar(self, decoded: Decoded, crops: int | None) -> list[dict[str, Any]]:
        """Return the most similar training images with thumbnails; none where the run's photographs are not at hand."""
        with self._bank_lock:
            if not self._bank_read:
                self._bank, self._bank_read = self._read_bank(), True
        if self._bank is None:
            return []
        query = out_of_distribution.directions(self.resident.embed([decoded], crops=crops))
        nearest, distances = out_of_distribution.nearest(self._bank.directions, query, NEAREST)
        images: list[dict[str, Any]] = []
        for place, distance in zip(nearest[0], distances[0], strict=True):
            row = int(self._bank.rows[place])
            path = self._bank.images.paths[row]
            try:
                preprocess = self.model.embedding_model.card.backbone.preprocess
                thumbnail = pixels.upright(self._bank.images.file(path), THUMBNAIL_PX, preprocess)
            except (ImageError, OSError):
                continue
            label = self._bank.images.column("label")[row]
            images.append({"path": path, "label": label, "distance": float(distance), "thumbnail": _picture_url(thumbnail)})
        return images

    def _read_bank(self) -> _Bank | None:
        """Return the features of the run's training images, None where they are not at hand."""
        from sightline.explanation.similar_images import training_of

        images = training_of(self.file)
        if images is None or not len(images) or not self.model.looks_at_images:
            return None
        if not any(file.is_file() for file in images.files()[:10]):
            return None
        try:
            embedded = self.model.embed(images, cache=self.cache, device=self.device, progress=silent)
        except SightlineError as error:
            log.warning("no similar training images: %s", error.message)
            return None
        rows = np.flatnonzero(embedded.ok)
        return _Bank(images, rows, out_of_distribution.directions(embedded.values[rows])) if len(rows) else None


@contextlib.contextmanager
def _as_file(stream: BinaryIO) -> Iterator[Path]:
    """Write an upload into a temporary file for the block."""
    stream.seek(0)
    with tempfile.TemporaryDirectory(prefix="sightline-serve-") as folder:
        file = Path(folder, "image")
        file.write_bytes(stream.read())
        yield file


def _picture_url(array: np.ndarray) -> str:
    """Return an image uint8 (h, w, 3) as a `data:` URL."""
    return _data_url(Image.fromarray(array), "JPEG")


def _data_url(picture: Any, form: str) -> str:
    """Return a Pillow image as a `data:` URL; it carries no metadata."""
    data = io.BytesIO()
    picture.save(data, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
