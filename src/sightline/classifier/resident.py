"""Resident classifier: networks stay open, and images in memory are decoded and predicted as they arrive."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

import numpy as np

from sightline import features, pixels
from sightline.classifier.model import Classifier, Decoded, Sessions, _Batch, _first_crop, check_crops
from sightline.errors import ImageError
from sightline.evaluation import conformal
from sightline.records import Predictions, silent
from sightline.store import Cache


def _check_pixels(data: bytes, name: str, most: int) -> None:
    """Check the size of an image in its header.

    Raises:
        ImageError: If it has too many pixels, or is no image.
    """
    header = pixels.safe_header(data, name)
    if header.width * header.height > most:
        raise ImageError("too large", f"{name} has {header.width}×{header.height} pixels, more than the limit of {most:,}")


class Resident:
    """Classifier with open networks. Predictions are those of `Classifier.predict`, to the last bit on a CPU.

    All functions may be called from several threads at once.

    Args:
        classifier: Any classifier.
        cache: Cache of converted networks.
        device: As in `Classifier.predict`.
    """

    def __init__(self, classifier: Classifier, cache: Cache, device: str = "auto") -> None:
        limits = dict(classifier.limits)
        if "bank" in limits:  # stored as float16; converting it for each batch would cost a millisecond
            limits["bank"] = np.asarray(limits["bank"], dtype=np.float32)
        self.classifier = dataclasses.replace(classifier, limits=limits)
        self._cache, self._device = cache, device
        self._sessions: Sessions = {}
        self._lock = threading.Lock()  # a network runs one batch at a time
        self._limits: dict[float | None, conformal.UncertaintyLimits | None] = {}

    def decode(self, data: bytes, name: str, *, crops: int | None = None, max_pixels: int | None = None) -> Decoded:
        """Decode an image's bytes into the inputs of all networks of the classifier.

        Args:
            data: Bytes of an image file.
            name: Name for messages.
            crops: Crops per image; None for the classifier's own number.
            max_pixels: Maximum number of pixels; None for that of the preprocessing.

        Raises:
            ImageError: If it is not an image, has too many pixels, or cannot be decoded.
        """
        decoded: Decoded = {}
        if max_pixels is not None:
            _check_pixels(data, name, max_pixels)
        for part in self.classifier.members or (self.classifier,):
            backbone = part.card.backbone
            if backbone.source == "file":
                decoded["file"] = features.of_file_bytes(data, name)
            elif backbone.source != "none":
                views = part.card.crops if crops is None else crops
                preprocess = pixels.uncut(backbone.preprocess) if views > 1 else backbone.preprocess
                if preprocess.id not in decoded:
                    decoded[preprocess.id] = pixels.decode(data, preprocess, name)
        return decoded

    def check_crops(self, crops: int) -> None:
        """Check that a number of crops is possible.

        Raises:
            RequestError: If it is not 1, 5 or 10, or a network is missing.
        """
        for part in self.classifier.members or (self.classifier,):
            check_crops(crops, part.card.backbone)

    def predict(self, images: Sequence[Decoded], names: Sequence[str], *, crops: int | None = None) -> Predictions:
        """Predict decoded images.

        Args:
            images: n images from `decode`, with the same `crops`.
            names: n different names.
            crops: As in `decode`.
        """
        batch = _Batch(list(names), None, self._cache, self._device, silent, crops, decoded=images, sessions=self._sessions)
        with self._lock:
            return self.classifier._predictions(batch, names)

    def embed(self, images: Sequence[Decoded], *, crops: int | None = None) -> np.ndarray:
        """Return features float32 (n, d) of decoded images, for distances, as `Classifier.embed` does."""
        names = [str(i) for i in range(len(images))]
        batch = _Batch(names, None, self._cache, self._device, silent, crops, decoded=images, sessions=self._sessions)
        with self._lock:
            return _first_crop(self.classifier.embedding_model._features(batch))

    def uncertainty(self, predictions: Predictions, coverage: float | None = None) -> conformal.UncertaintyFit | None:
        """Return prediction sets, as `Classifier.uncertainty` does; thresholds are computed once for each coverage.

        Raises:
            RequestError: If there are too few held-out images for `coverage`.
        """
        limits = self.check_coverage(coverage)
        return None if limits is None else limits.of(predictions)

    def check_coverage(self, coverage: float | None) -> conformal.UncertaintyLimits | None:
        """Return the thresholds for a coverage, as `Classifier.uncertainty_limits` does, computed once.

        Raises:
            RequestError: If there are too few held-out images for it.
        """
        if coverage in self._limits:
            return self._limits[coverage]
        if len(self._limits) > 100:  # a client may ask for any number of coverages
            self._limits.clear()
        limits = self._limits[coverage] = self.classifier.uncertainty_limits(coverage)
        return limits

    def warm_up(self) -> None:
        """Open all networks and predict one grey image, so that the first request is not slower than the others."""
        decoded: Decoded = {}
        for part in self.classifier.members or (self.classifier,):
            backbone = part.card.backbone
            preprocess = pixels.uncut(backbone.preprocess) if part.card.crops > 1 else backbone.preprocess
            decoded |= {preprocess.id: np.full((*preprocess.size, 3), 128, np.uint8)}
        decoded["file"] = np.zeros(len(features.FILE_FEATURES), np.float32)
        self.predict([decoded], ["warm-up"])
        self.predict([decoded] * 2, ["warm-up 1", "warm-up 2"])
