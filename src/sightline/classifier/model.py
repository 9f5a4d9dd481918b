"""Trained classifier: predict, embed, prediction sets, and save."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline import catalog, containers, engine, features, heads, networks, pixels
from sightline.errors import ModelFileError, RequestError, SightlineError
from sightline.evaluation import conformal, out_of_distribution
from sightline.records import Backbone, Card, Catalog, Head, Predictions, Preprocess, Progress, silent
from sightline.store import Cache, atomic_file, bytes_digest, canonical_json

BLANK_DIGEST = "0" * 64
"""Placeholder for a file's digest while it is computed."""


Decoded = dict[Preprocess | Literal["file"], np.ndarray]
"""One image in memory as its networks expect it: preprocessing → uint8 (h, w, 3), or "file" → file properties."""
Sessions = dict[tuple[Any, ...], engine.Session]
"""Open networks by what identifies backbone and precision, which batches share."""


@dataclass(slots=True)
class _Batch:
    """Images to predict, with the features computed so far, which members of an ensemble share.

    Args:
        sources: n files or arrays.
        contents: SHA-256 of each file; None for arrays.
        cache, device, progress: As in `Classifier.predict`.
        crops: Number of crops per image; None for that of each classifier's card.
        decoded: For images that are decoded already: each image's network inputs by preprocessing, see `decode`.
        sessions: Open networks by backbone and precision, kept for the next batch.
        computed: Features by backbone, preprocessing, precision and crops.
    """

    sources: Sequence[Path] | Sequence[np.ndarray] | Sequence[str]
    contents: Sequence[str] | None
    cache: Cache
    device: str
    progress: Progress
    crops: int | None = None
    decoded: Sequence[Decoded] | None = None
    sessions: Sessions = field(default_factory=dict)
    computed: dict[tuple[Any, ...], features.Features] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Classifier:
    """Trained classifier, with the same interface for every method.

    Args:
        card: Description saved in the file's metadata.
        head: Maps features to logits; empty for an ensemble.
        tensors: Weights of the backbone by name, float32; empty if it has none.
        seen: uint64 (m,), sorted: first 64 bits of the hashes of the images that it was fitted on.
        code: For a user-defined network: `file.py:function`, passed when loading. Never read from a file.
        members: For an ensemble: the classifiers whose weighted mean it predicts.
        limits: Arrays that `card.uncertainty` describes: for m held-out images `scores` float64, `labels` int32,
            `answers` float64 (probability of the predicted class), `right` uint8 and `predicted` int32; `bank` float16 (b, w),
            unit feature vectors of training images; `statistics` float32 (s, 5), file features of a sample of the training
            images. Empty if there are none.
        quantised: Its network in int8, as `engine.quantised` returns it, if its features were computed in int8; else empty.
    """

    card: Card
    head: Head
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    code: str | None = None
    members: tuple[Classifier, ...] = ()
    limits: Mapping[str, np.ndarray] = field(default_factory=dict)
    quantised: bytes = b""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, in the order of the probabilities."""
        return self.card.classes

    @property
    def looks_at_images(self) -> bool:
        """Return whether its predictions depend on pixels, so that heatmaps are possible."""
        return self.card.backbone.source not in ("none", "file")

    @property
    def precision(self) -> engine.Precision:
        """Return the precision of its features on this machine: as validated in training, or float32.

        It is float32 if `SIGHTLINE_PRECISION` demands it, and instead of int8 on a processor without VNNI, unless its
        instructions are those of the machine of the training.
        """
        used = engine.allowed_precision(self.card.precision.get("used", "f32"))
        here = engine.has_vnni() or self.card.precision.get("instructions") == engine.instruction_class()
        return "f32" if used == "int8" and not (self.quantised and here) else used

    def session(
        self,
        cache: Cache,
        *,
        device: str = "auto",
        expected: int = 1_000_000,
        maps: bool = False,
        opened: Sessions | None = None,
    ) -> engine.Session:
        """Return its network, ready to run, in the precision validated in training.

        Args:
            cache: Cache of converted networks.
            device: `auto`, `cpu`, `cuda` or `mps`.
            expected: Approximate number of images to run.
            maps: Whether heatmaps are drawn from its last map: they use float32 if int8 maps did not agree with float32's.
            opened: Open networks, from which it is taken and to which it is added.

        Raises:
            RequestError: If it is an ensemble, whose members have a network each.
        """
        if self.members:
            raise RequestError("an ensemble has no single network", "open the session of one of its members")
        used, facts = self.precision, self.card.precision
        if maps and used == "int8" and not facts.get("int8_maps"):
            used = "f32"
        key = (*_network_key(self.card.backbone), used, facts.get("ranges"))
        held = {} if opened is None else opened
        if key not in held or (held[key].provisional and expected > engine.PATIENCE_IMAGES):
            held[key] = engine.open_session(
                self._backbone(),
                cache=cache,
                tensors=self.tensors or None,
                precision=used,
                quantised=self.quantised,
                device=engine.choose_device(device),
                expected=expected,
            )
        return held[key]

    def _backbone(self) -> Backbone:
        backbone = self.card.backbone
        if backbone.source != "user":
            return backbone
        if self.code is None:
            hint = f"if you trust the code, pass --code {backbone.name}, or load(file, code={backbone.name!r})"
            raise ModelFileError(
                f"the network of this classifier is user-defined code ({backbone.name}), not in the file", hint
            )
        return dataclasses.replace(backbone, name=self.code)

    def feature_requests(self, crops: int | None = None) -> list[features.FeatureRequest]:
        """Return the features that `predict` needs, of every member once; none for a classifier that doesn't use images.

        Args:
            crops: As in `predict`.
        """
        requests: dict[tuple[Any, ...], features.FeatureRequest] = {}
        for model in self.members or (self,):
            backbone = model.card.backbone
            count = model.card.crops if crops is None else crops
            if backbone.source != "none":
                views = features.crop_views(backbone.preprocess, count) if count > 1 else None
                key = (*_network_key(backbone), model.precision, model.card.precision.get("ranges"), count)
                weights = model.tensors or None
                requests[key] = features.FeatureRequest(model._backbone(), model.precision, weights, views, model.quantised)
        return list(requests.values())

    def probs(self, values: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities float64 (n, k) of features; each row is the same alone and among others.

        Args:
            values: float32 (n, d); or (n, crops, d), where probabilities are averaged over crops before calibration.
        """
        if values.ndim == 2:
            return heads.probs_of_each(self.head, values, self.card.temperature)
        n, crops, width = values.shape
        each = heads.probs_of_each(self.head, values.reshape(n * crops, width)).reshape(n, crops, -1)
        return heads.softmax(heads.log_probs(each.mean(axis=1)) / self.card.temperature)

    def predict(
        self,
        sources: Catalog | np.ndarray | str | Path | Sequence[str | Path | np.ndarray],
        *,
        crops: int | None = None,
        cache: Cache | None = None,
        device: str = "auto",
        progress: Progress = silent,
        contents: Sequence[str] | None = None,
        sessions: Sessions | None = None,
    ) -> Predictions:
        """Predict the classes of images. The result for an image does not depend on the others.

        Args:
            sources: Catalog; files and folders (searched for images); or arrays, uint8 or float in 0–1, one of shape
                (n, h, w[, c]) or a list of shape (h, w[, c]).
            crops: Average over this number of crops per image: 1, 5 (centre and corners) or 10 (and their mirror images); None
                for the card's number. The calibration is that of the card.
            cache: Cache of features; the user's cache if None.
            device: `auto`, `cpu`, `cuda`, or `mps`.
            progress: Progress callback.
            contents: For a list of files: the SHA-256 of each, "" for files whose features are not cached; None computes it.
            sessions: Networks opened by earlier calls; those opened by this call are added.

        Returns:
            Predictions in the order of the images; files that could not be read are in `errors`.

        Raises:
            RequestError: If a path does not exist, or the number of crops is invalid.
        """
        cache = Cache() if cache is None else cache
        settings: dict[str, Any] = {"crops": crops, "sessions": {} if sessions is None else sessions}
        if isinstance(sources, str | Path):
            sources = [sources]
        if isinstance(sources, Catalog):
            return self._predict_catalog(
                sources, _Batch(sources.files(), sources.column("content"), cache, device, progress, **settings)
            )
        if len(sources) and isinstance(sources[0], np.ndarray):
            names = [f"array {i}" for i in range(len(sources))]
            return self._predictions(_Batch(list(sources), None, cache, device, progress, **settings), names)
        if contents is not None:
            files: list[Path] = list(sources)  # type: ignore[arg-type]
            return self._predictions(_Batch(files, contents, cache, device, progress, **settings), list(map(str, files)))
        files, unread = find_images(sources)  # type: ignore[arg-type]
        if not files and sources:
            raise no_image(sources, unread)
        batch = _Batch(files, [_digest_or_none(f) for f in files], cache, device, progress, **settings)
        predictions = self._predictions(batch, [str(f) for f in files])
        return dataclasses.replace(predictions, errors={**predictions.errors, **unread})

    def _predict_catalog(self, images: Catalog, batch: _Batch) -> Predictions:
        """Return the predictions of a catalog's images, with their labels, and which of them are test images."""
        true, contents = images.labels(self.classes), [c or "" for c in images.column("content")]
        splits = images.column("split") if "split" in images.table.column_names else [None] * len(images)
        counts = (true >= 0) & self.counts_as_test(contents, splits)
        predictions = self._predictions(batch, images.paths, true)
        rows = [i for i, path in enumerate(images.paths) if path not in predictions.errors]
        tests = tuple(contents[i] if counts[i] else "" for i in rows) if counts.any() else ()
        return dataclasses.replace(predictions, test_contents=tests)

    def _predictions(self, batch: _Batch, names: Sequence[str], true: np.ndarray | None = None) -> Predictions:
        """Return the predictions of a batch: the one function that every interface uses.

        Args:
            batch: n images.
            names: Their names; names of unreadable images are keys of `errors`.
            true: int64 (n,), their classes; None if unknown.
        """
        probs, problems = self._predict(batch)
        rows = np.array([i for i in range(len(names)) if i not in problems], dtype=np.int64)
        true = np.full(len(names), -1, dtype=np.int64) if true is None else true
        seen = None if batch.contents is None else self.was_trained_on([batch.contents[i] for i in rows])
        predictions = Predictions(
            tuple(names[i] for i in rows),
            self.classes,
            true[rows],
            probs[rows],
            errors={names[i]: why for i, why in sorted(problems.items())},
            threshold=self.card.decision,
            in_training=seen,
        )
        if "bank" not in self.limits:
            return predictions
        embedded = out_of_distribution.directions(_first_crop(self.embedding_model._features(batch))[rows])
        distance = out_of_distribution.distances(self.limits["bank"], embedded)
        return dataclasses.replace(predictions, ood_score=distance, ood_threshold=self.card.uncertainty.ood_threshold)

    @property
    def embedding_model(self) -> Classifier:
        """Return the classifier whose features measure distances: itself, or an ensemble's first member with a network."""
        return next((m for m in self.members if m.card.backbone.is_network), self.members[0]) if self.members else self

    def embed(
        self,
        images: Catalog | Sequence[Path],
        *,
        cache: Cache | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> features.Features:
        """Return features of images from `embedding_model`, for distances between images.

        Args:
            images: Catalog or files.
            cache, device, progress: As for `predict`.

        Returns:
            One row per image in order, float32 (n, d); d is 0 for a classifier that doesn't use pixels.
        """
        embedding_model = self.embedding_model
        if embedding_model.card.backbone.source in ("none", "file"):
            return features.Features(np.zeros((len(images), 0), np.float32))
        files = images.files() if isinstance(images, Catalog) else list(images)
        contents = images.column("content") if isinstance(images, Catalog) else [_digest_or_none(f) for f in files]
        batch = _Batch(files, contents, Cache() if cache is None else cache, device, progress)
        embedded = embedding_model._features(batch)
        return dataclasses.replace(embedded, values=_first_crop(embedded))

    def set_thresholds(self, coverage: float = conformal.COVERAGE) -> np.ndarray | None:
        """Return each class's threshold for `evaluation.conformal.sets`, float64 (k,); None with too few held-out images.

        Raises:
            RequestError: If the coverage is not between 0 and 1.
        """
        if self.card.uncertainty.images < conformal.needed(coverage):
            return None
        scores, labels = self.limits["scores"], self.limits["labels"]
        return conformal.quantiles(scores, labels, len(self.classes), coverage, by_class=self.card.uncertainty.by_class)

    def uncertainty(self, predictions: Predictions, coverage: float | None = None) -> conformal.UncertaintyFit | None:
        """Return the prediction sets of predictions, and which predictions are unsure.

        Args:
            predictions: Predictions of this classifier.
            coverage: Frequency with which a set contains the true class, 0–1; `conformal.COVERAGE` if None, and then the result
                is None with too few held-out images.

        Raises:
            RequestError: If there are too few held-out images for `coverage`.
        """
        limits = self.uncertainty_limits(coverage)
        return None if limits is None else limits.of(predictions)

    def uncertainty_limits(self, coverage: float | None = None) -> conformal.UncertaintyLimits | None:
        """Return what prediction sets and unsure predictions of any images follow from; see `uncertainty`.

        Raises:
            RequestError: If there are too few held-out images for `coverage`.
        """
        target = conformal.COVERAGE if coverage is None else coverage
        thresholds = self.set_thresholds(target)
        if thresholds is None:
            if coverage is None:
                return None
            n = self.card.uncertainty.images
            message = f"a coverage of {target:g} needs {conformal.needed(target):,} held-out images; this classifier has {n:,}"
            hint = (
                f"use at most --sets {math.floor(1000 * n / (n + 1)) / 1000:g}"
                if n
                else "train it again: files of older versions have none"
            )
            raise RequestError(message, hint)
        threshold = conformal.confidence_threshold(self.limits["answers"], self.limits["right"] > 0, target)
        return conformal.UncertaintyLimits(target, thresholds, threshold)

    def _predict(self, batch: _Batch) -> tuple[np.ndarray, dict[int, str]]:
        """Return probabilities float64 (n, k), undefined in rows with a problem, and the problems by row."""
        if self.members:
            mean = np.zeros((len(batch.sources), len(self.classes)))
            problems: dict[int, str] = {}
            for member, weight in zip(self.members, self.card.weights, strict=True):
                probs, failed = member._predict(batch)
                mean += weight * probs[:, [member.classes.index(c) for c in self.classes]]
                problems |= failed
            return heads.softmax(heads.log_probs(mean) / self.card.temperature), problems
        extracted = self._features(batch)
        rows = np.flatnonzero(extracted.ok)
        probs = np.zeros((len(batch.sources), len(self.classes)))
        probs[rows] = self.probs(extracted.values[rows])
        return probs, {i: why for i, (_, why) in extracted.problems.items()}

    def _features(self, batch: _Batch) -> features.Features:
        """Return the features for its head, computed once for all members that share them."""
        backbone, used = self.card.backbone, self.precision
        crops = self.card.crops if batch.crops is None else batch.crops
        check_crops(crops, backbone)
        key = (*_network_key(backbone), used, self.card.precision.get("ranges"), crops)
        if key not in batch.computed:
            batch.computed[key] = self._compute(batch, crops)
        return batch.computed[key]

    def _compute(self, batch: _Batch, crops: int) -> features.Features:
        """Return the features of a batch: of decoded images, of arrays, or of files, from the cache if they are in it."""
        backbone, used = self.card.backbone, self.precision

        def session(count: int) -> engine.Session:
            return self.session(batch.cache, device=batch.device, opened=batch.sessions)

        settings: dict[str, Any] = {
            "session": session,
            "precision": used,
            "cache": batch.cache,
            "device": engine.choose_device(batch.device),
            "ranges": self.card.precision.get("ranges", ""),
            "progress": batch.progress,
        }
        views = features.crop_views(backbone.preprocess, crops) if crops > 1 else None
        if batch.decoded is not None:
            return _of_decoded(batch.decoded, backbone, views, session)
        if batch.contents is None:
            return _of_arrays(batch, backbone, views, settings)
        files: Sequence[Path] = batch.sources  # type: ignore[assignment]
        if views is None:
            return features.extract(files, batch.contents, backbone, **settings)
        return features.extract_crops(files, batch.contents, backbone, views, **settings)

    def was_trained_on(self, contents: Sequence[str]) -> np.ndarray:
        """Return which of these contents (SHA-256 of files) it was fitted on, bool (n,)."""
        return np.isin(content_keys(contents), self.seen)

    def counts_as_test(self, contents: Sequence[str], splits: Sequence[str | None]) -> np.ndarray:
        """Return which labelled images are test images: not in a train or val split, and not fitted on; bool (n,).

        Args:
            contents: SHA-256 of each file; "" if unknown.
            splits: Split of each image, or None.
        """
        outside = np.array([split not in ("train", "val") for split in splits], dtype=bool)
        return np.asarray(outside & ~self.was_trained_on(contents), dtype=bool)

    def save(self, file: str | Path) -> Path:
        """Write it as one `.safetensors` file, atomically. The same classifier gives the same bytes.

        The metadata holds the card and the SHA-256 of the whole file, computed with 64 zeros in place of the digest.
        """
        from safetensors.numpy import save

        parts = self.members or (self,)
        arrays: dict[str, np.ndarray] = {}
        for number, part in enumerate(parts):
            weights, head = prefixes(part.card, number if self.members else None)
            arrays |= {f"{weights}{n}": np.ascontiguousarray(a) for n, a in sorted(part.tensors.items())}
            arrays |= {f"{head}{n}": np.ascontiguousarray(a) for n, a in sorted(part.head.arrays.items())}
            if part.quantised:
                arrays[f"int8.{weights}"] = np.frombuffer(part.quantised, dtype=np.uint8)
        arrays |= {f"limits.{n}": np.ascontiguousarray(a) for n, a in sorted(self.limits.items())}
        arrays["data.seen"] = np.ascontiguousarray(self.seen)
        card = canonical_json({**self.card.to_json(), "digest": BLANK_DIGEST}).decode("utf-8")
        data = save(arrays, metadata={"sightline": card})
        start = data.index(digest_field(BLANK_DIGEST))
        field = digest_field(bytes_digest(data))
        with atomic_file(Path(file)) as stream:
            stream.write(data[:start] + field)
            stream.write(memoryview(data)[start + len(field) :])
        return Path(file)


def digest_field(digest: str) -> bytes:
    """Return the bytes of a digest in a file's header: a field of JSON within a JSON string."""
    return f'\\"digest\\":\\"{digest}\\"'.encode()


def prefixes(card: Card, number: int | None) -> tuple[str, str]:
    """Return the name prefixes of a classifier's tensors in a file: of its backbone and of its head.

    Members of an ensemble with the same backbone share its tensors.
    """
    if number is None:
        return "backbone.", "head."
    return f"backbone.{card.backbone.weights_hash[:32]}.", f"head.{number}."


def check_crops(crops: int, backbone: Backbone) -> None:
    """Check that a number of crops is valid for a backbone.

    Raises:
        RequestError: If it is not 1, 5 or 10, or the backbone isn't a network.
    """
    pixels.check_crops(crops)
    if crops > 1 and not backbone.is_network:
        inputs = {"pixels": "the resized whole image", "file": "file properties alone"}.get(backbone.source, "no input")
        raise RequestError(f"{crops} crops are not possible for a classifier that uses {inputs}", "leave out --crops")


def _of_arrays(
    batch: _Batch,
    backbone: Backbone,
    views: features.CropFeatures | None,
    settings: Mapping[str, Any],
) -> features.Features:
    """Return features of arrays, in their order; of several views per image if `views` are given."""
    arrays: list[np.ndarray] = list(batch.sources)  # type: ignore[arg-type]
    if views is None:
        contents = [features.content(a) for a in arrays]
        return features.extract(arrays, contents, backbone, **settings)
    run = settings["session"](len(arrays) * len(views.names))
    rows, computed, errors = features.compute_crops(arrays, views, run, progress=batch.progress)
    values = np.zeros((len(arrays), *computed.shape[1:]), dtype=np.float32)
    values[rows] = computed
    return features.Features(values, {i: (e.kind, e.message) for i, e in errors.items()})


def _network_key(backbone: Backbone) -> tuple[Any, ...]:
    """Return what identifies a backbone's features, hashable; `Backbone.id` would cost a tenth of a millisecond."""
    arguments = repr(sorted(backbone.arguments.items()))
    return backbone.name, backbone.source, backbone.weights_hash, backbone.pool, backbone.preprocess, arguments


def _of_decoded(
    images: Sequence[Decoded], backbone: Backbone, views: features.CropFeatures | None, session: Callable[[int], engine.Session]
) -> features.Features:
    """Return features of decoded images, in their order; of several views per image if `views` are given."""
    if backbone.source == "none":
        return features.Features(np.zeros((len(images), 0), np.float32))
    if backbone.source == "file":
        return features.Features(np.stack([image["file"] for image in images]))
    preprocess = backbone.preprocess if views is None else views.preprocess
    inputs, run = np.stack([image[preprocess] for image in images]), session(len(images))
    parts = [inputs[i : i + run.batch_size] for i in range(0, len(inputs), run.batch_size)]
    if views is None:
        values = np.concatenate([run.run(part)[0] for part in parts])
    else:
        values = np.concatenate([features.of_views(part, views, run) for part in parts])
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return features.Features(values, {int(i): features.NOT_FINITE for i in np.flatnonzero(~finite)})


def _first_crop(extracted: features.Features) -> np.ndarray:
    """Return features float32 (n, d), of the centre crop if there are several crops."""
    return extracted.values[:, 0] if extracted.values.ndim == 3 else extracted.values


def content_keys(contents: Sequence[str]) -> np.ndarray:
    """Return the first 64 bits of hashes, uint64 (n,); 0 for an empty one."""
    return np.array([int(c[:16] or "0", 16) for c in contents], dtype=np.uint64)


def find_images(paths: Sequence[str | Path]) -> tuple[list[Path], dict[str, str]]:
    """Return image files: given files as they are; folders, archives and files of arrays searched.

    Returns:
        The files, and by path the reasons why others in a folder cannot be opened, such as a link that leads out of it.

    Raises:
        RequestError: If a path does not exist.
    """
    images: list[Path] = []
    problems: dict[str, str] = {}
    for path in map(Path, paths):
        if path.is_dir() or containers.holds_images(path):
            files, unread = catalog.image_files(path)
            images.extend(files)
            problems |= unread
        elif path.exists() or containers.is_file(path):
            images.append(path)
        else:
            raise RequestError(f"{path} does not exist", "pass image files, folders, archives, or files of arrays")
    return images, problems


def no_image(where: Sequence[object] | np.ndarray, unread: Mapping[str, str]) -> RequestError:
    """Return the error for the case that no image can be opened, with the first of the reasons."""
    why = next((f"; {len(unread):,} cannot be opened, such as {path}: {problem}" for path, problem in unread.items()), "")
    hint = "pass image files or folders with images"
    return RequestError(f"there is no image in {', '.join(map(str, where))}{why}", hint)


def backbone_tensors(backbone: Backbone, cache: Cache) -> dict[str, np.ndarray]:
    """Return the weights of a backbone by name; from the cache, without torch, if they were read before."""
    if not backbone.weights_hash:
        return {}
    from safetensors.numpy import load as parse
    from safetensors.numpy import save

    name = f"networks/tensors/{backbone.weights_hash}"
    payload = cache.read(name)
    if payload is not None:
        return dict(parse(payload))
    tensors = networks.tensors(networks.build(backbone))
    cache.write(name, save(tensors))
    return tensors


def _digest_or_none(file: Path) -> str:
    """Return the hash of a file's bytes, or "" if it cannot be read (decoding then reports why)."""
    try:
        return containers.digest(file)
    except (OSError, SightlineError):
        return ""
