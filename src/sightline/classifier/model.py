"""A classifier as data, and what is asked of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog, engine, features, heads, networks, pixels
from sightline.errors import ModelFileError, RequestError
from sightline.evaluation import conformal, out_of_distribution
from sightline.records import Backbone, Card, Catalog, Head, Predictions, Progress, silent
from sightline.store import Cache, atomic_file, bytes_digest, canonical_json, digest, file_digest, plain

BLANK_DIGEST = "0" * 64
"""Stands in place of a file's digest while that is computed."""


@dataclass(slots=True)
class _Asked:
    """Images that a classifier and all its members are asked about, and the features that one of them has computed for all.

    Args:
        sources: n files or arrays.
        contents: SHA-256 of each file; None for arrays.
        cache, device, progress: As in `Classifier.predict`.
        crops: How many looks at each image; None as each classifier's card says.
        known: Features by what computes them.
    """

    sources: Sequence[Path] | Sequence[np.ndarray]
    contents: Sequence[str] | None
    cache: Cache
    device: str
    progress: Progress
    crops: int | None = None
    known: dict[str, features.Features] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Classifier:
    """What every method returns; used in one way whatever it is made of.

    Args:
        card: What it is, as data.
        head: From features to logits; of an ensemble an empty one.
        tensors: The backbone's weights by name, float32; empty where the backbone has none.
        seen: uint64 (m,), sorted: the first 64 bits of the hashes of the images that it was fitted on.
        code: For a network of the user's own: `file.py:function`, given by the one who loads it. Never taken from a file.
        members: Of an ensemble: the classifiers whose weighted mean it answers with.
        limits: What `card.limits` speaks of: of m held-out images `scores` float64 (nonconformity), `labels` int32, `answers`
            float64 (the answer's probability) and `right` uint8; `bank` float16 (b, w), the directions of training images.
            Empty where nothing is known.
    """

    card: Card
    head: Head
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    code: str | None = None
    members: tuple[Classifier, ...] = ()
    limits: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.card.classes

    @property
    def looks_at_images(self) -> bool:
        """Whether its answers depend on what an image shows, so that there is something to explain."""
        return self.card.backbone.source not in ("none", "file")

    @property
    def precision(self) -> engine.Precision:
        """What its features are computed in: as it was judged in training, float32 where `SIGHTLINE_PRECISION` asks for it."""
        return engine.allowed_precision(self.card.precision.get("used", "f32"))

    def session(self, cache: Cache, *, device: str = "auto", expected: int = 1_000_000) -> engine.Session:
        """Its network, loaded and ready, in the precision that it was judged in.

        Raises:
            RequestError: It is an ensemble, which has a network for each member.
        """
        if self.members:
            raise RequestError("an ensemble has no network of its own", "open the session of one of its members")
        return engine.open_session(
            self._backbone(),
            cache=cache,
            tensors=self.tensors or None,
            precision=self.precision,
            device=engine.choose_device(device),
            expected=expected,
        )

    def _backbone(self) -> Backbone:
        backbone = self.card.backbone
        if backbone.source != "user":
            return backbone
        if self.code is None:
            hint = f"pass the code that you trust: --code {backbone.name}, or load(file, code={backbone.name!r})"
            raise ModelFileError(f"this classifier's network is your own code ({backbone.name}), which no file carries", hint)
        return dataclasses.replace(backbone, name=self.code)

    def probs(self, values: np.ndarray) -> np.ndarray:
        """Probabilities float64 (n, k) of features, calibrated.

        Args:
            values: float32 (n, d); or (n, looks, d), of which the mean probability is taken before it is calibrated.
        """
        if values.ndim == 2:
            return heads.probs(self.head, values, self.card.temperature)
        n, looks, width = values.shape
        each = heads.probs(self.head, values.reshape(n * looks, width)).reshape(n, looks, -1)
        return heads.softmax(heads.log_probs(each.mean(axis=1)) / self.card.temperature)

    def predict(
        self,
        sources: Catalog | np.ndarray | str | Path | Sequence[str | Path | np.ndarray],
        *,
        crops: int | None = None,
        cache: Cache | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> Predictions:
        """Ask it about images.

        Args:
            sources: A catalog; files and folders (searched for images); or arrays, uint8 or float in 0 to 1, one
                (n, h, w[, c]) or a list of (h, w[, c]).
            crops: The mean over so many looks at each image, 1, 5 (centre and corners) or 10 (and their mirror images); None
                as its card says. Its calibration is the card's own.
            cache: Where features are kept; the user's own cache if None.
            device: `auto`, `cpu`, `cuda`, or `mps`.
            progress: Told as images are done.

        Returns:
            Predictions in the order given; what could not be read is in `errors`.

        Raises:
            RequestError: A path does not exist, or there are no such crops.
        """
        cache = Cache() if cache is None else cache
        unread: dict[str, str] = {}
        contents: list[str] = []
        counts = np.zeros(0, dtype=bool)
        if isinstance(sources, str | Path):
            sources = [sources]
        if isinstance(sources, Catalog):
            names, files = sources.paths, sources.files()
            true, contents = sources.labels(self.classes), [c or "" for c in sources.column("content")]
            splits = sources.column("split") if "split" in sources.table.column_names else [None] * len(names)
            counts = (true >= 0) & self.counts_as_test(contents, splits)
            asked = _Asked(files, sources.column("content"), cache, device, progress, crops)
        elif len(sources) and isinstance(sources[0], np.ndarray):
            names, true = [f"array {i}" for i in range(len(sources))], np.full(len(sources), -1, dtype=np.int64)
            asked = _Asked(list(sources), None, cache, device, progress, crops)
        else:
            files, unread = find_images(sources)  # type: ignore[arg-type]
            if not files and sources:
                raise no_image(sources, unread)
            names, true = [str(f) for f in files], np.full(len(files), -1, dtype=np.int64)
            asked = _Asked(files, [_digest_or_none(f) for f in files], cache, device, progress, crops)
        probs, problems = self._answer(asked)
        kept = np.array([i for i in range(len(names)) if i not in problems], dtype=np.int64)
        errors = {names[i]: why for i, why in sorted(problems.items())} | unread
        told = tuple(names[i] for i in kept)
        tests = tuple(contents[i] if counts[i] else "" for i in kept) if counts.any() else ()
        seen = None if asked.contents is None else self.was_trained_on([asked.contents[i] for i in kept])
        known: dict[str, Any] = {"test_contents": tests, "in_training": seen}
        if "bank" not in self.limits:
            return Predictions(told, self.classes, true[kept], probs[kept], errors, self.card.bar, **known)
        away = out_of_distribution.distances(
            self.limits["bank"], out_of_distribution.directions(_plain_look(self.embedding_model._features(asked))[kept])
        )
        bar = self.card.limits.unlike_bar
        return Predictions(told, self.classes, true[kept], probs[kept], errors, self.card.bar, away, bar, **known)

    @property
    def embedding_model(self) -> Classifier:
        """In whose features distances between images are measured: itself; of an ensemble the first member with a network."""
        return next((m for m in self.members if m.card.backbone.is_network), self.members[0]) if self.members else self

    def embed(
        self,
        images: Catalog | Sequence[Path],
        *,
        cache: Cache | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> features.Features:
        """Features in which distances between images are measured: those of `seer`.

        Args:
            images: Whatever images, as a catalog or as files.
            cache, device, progress: As of `predict`.

        Returns:
            One row per image in order, float32 (n, d); d is 0 for a classifier that does not look at pixels.
        """
        embedding_model = self.embedding_model
        if embedding_model.card.backbone.source in ("none", "file"):
            return features.Features(np.zeros((len(images), 0), np.float32))
        files = images.files() if isinstance(images, Catalog) else list(images)
        contents = images.column("content") if isinstance(images, Catalog) else [_digest_or_none(f) for f in files]
        asked = _Asked(files, contents, Cache() if cache is None else cache, device, progress)
        found = embedding_model._features(asked)
        return dataclasses.replace(found, values=_plain_look(found))

    def bars(self, coverage: float = conformal.COVERAGE) -> np.ndarray | None:
        """The bar of every class for `evaluation.conformal.sets`, float64 (k,); None where it cannot promise that much.

        Raises:
            RequestError: The coverage is no share.
        """
        if self.card.limits.images < conformal.needed(coverage):
            return None
        scores, labels = self.limits["scores"], self.limits["labels"]
        return conformal.quantiles(scores, labels, len(self.classes), coverage, by_class=self.card.limits.by_class)

    def doubts(self, answers: Predictions, coverage: float | None = None) -> conformal.UncertaintyFit | None:
        """What its answers leave open: their sets, and which of them are unsure.

        Args:
            answers: Its own.
            coverage: How often the right class is to be in the set; `conformal.COVERAGE` if None, and then None is returned
                where it cannot promise that much.

        Raises:
            RequestError: It cannot promise what was asked for.
        """
        promised = conformal.COVERAGE if coverage is None else coverage
        bars = self.bars(promised)
        if bars is None:
            if coverage is None:
                return None
            n = self.card.limits.images
            what = f"needs {conformal.needed(promised):,} held-out images, and this classifier has {n:,}"
            hint = (
                f"ask for at most --sets {math.floor(1000 * n / (n + 1)) / 1000:g}"
                if n
                else "train it again: older files keep none"
            )
            raise RequestError(f"a promise of {promised:g} {what}", hint)
        chosen = conformal.sets(answers.probs, bars)
        bar = conformal.confidence_threshold(self.limits["answers"], self.limits["right"] > 0, promised)
        return conformal.UncertaintyFit(
            promised, chosen, conformal.unsure(answers.probs, answers.y_pred, chosen, bar, promised)
        )

    def _answer(self, asked: _Asked) -> tuple[np.ndarray, dict[int, str]]:
        """Probabilities float64 (n, k), whatever in the rows that have a problem; and the problems by row."""
        if self.members:
            mean = np.zeros((len(asked.sources), len(self.classes)))
            problems: dict[int, str] = {}
            for member, weight in zip(self.members, self.card.weights, strict=True):
                probs, wrong = member._answer(asked)
                mean += weight * probs[:, [member.classes.index(c) for c in self.classes]]
                problems |= wrong
            return heads.softmax(heads.log_probs(mean) / self.card.temperature), problems
        found = self._features(asked)
        kept = np.flatnonzero(found.ok)
        probs = np.zeros((len(asked.sources), len(self.classes)))
        probs[kept] = self.probs(found.values[kept])
        return probs, {i: why for i, (_, why) in found.problems.items()}

    def _features(self, asked: _Asked) -> features.Features:
        """What its head is to look at, computed once for all that share it."""
        backbone, used = self.card.backbone, self.precision
        crops = self.card.crops if asked.crops is None else asked.crops
        check_crops(crops, backbone)
        key = digest([backbone.id, backbone.preprocess.id, used, crops])
        if key not in asked.known:

            def session(count: int) -> engine.Session:
                return self.session(asked.cache, device=asked.device, expected=count)

            looks = features.crop_looks(backbone.preprocess, crops) if crops > 1 else None
            if asked.contents is None:
                asked.known[key] = _of_arrays(asked, backbone, looks, session)
            else:
                own: dict[str, Any] = {"session": session, "precision": used, "cache": asked.cache, "progress": asked.progress}
                files: Sequence[Path] = asked.sources  # type: ignore[assignment]
                if looks is None:
                    asked.known[key] = features.extract(files, asked.contents, backbone, **own)
                else:
                    asked.known[key] = features.extract_crops(files, asked.contents, backbone, looks, **own)
        return asked.known[key]

    def was_trained_on(self, contents: Sequence[str]) -> np.ndarray:
        """bool (n,): which of these contents (SHA-256 of files) it was fitted on."""
        return np.isin(content_keys(contents), self.seen)

    def counts_as_test(self, contents: Sequence[str], splits: Sequence[str | None]) -> np.ndarray:
        """bool (n,): which labelled images are test images: in no train or val split, and not what it was fitted on.

        Args:
            contents: SHA-256 of each file; "" where it is not known.
            splits: The split of each image; None where it has none.
        """
        outside = np.array([split not in ("train", "val") for split in splits], dtype=bool)
        return np.asarray(outside & ~self.was_trained_on(contents), dtype=bool)

    def save(self, file: str | Path) -> Path:
        """Write it as one `.safetensors` file, atomically. The same classifier gives the same bytes.

        Beside the card stands the SHA-256 of the whole file, computed with 64 zeros in its own place.
        """
        from safetensors.numpy import save

        parts = self.members or (self,)
        arrays: dict[str, np.ndarray] = {}
        for number, part in enumerate(parts):
            weights, head = prefixes(part.card, number if self.members else None)
            arrays |= {f"{weights}{n}": np.ascontiguousarray(a) for n, a in sorted(part.tensors.items())}
            arrays |= {f"{head}{n}": np.ascontiguousarray(a) for n, a in sorted(part.head.arrays.items())}
        arrays |= {f"limits.{n}": np.ascontiguousarray(a) for n, a in sorted(self.limits.items())}
        arrays["data.seen"] = np.ascontiguousarray(self.seen)
        card = canonical_json({**plain(self.card), "digest": BLANK_DIGEST}).decode("utf-8")
        data = save(arrays, metadata={"sightline": card})
        start = data.index(digest_field(BLANK_DIGEST))
        field = digest_field(bytes_digest(data))
        with atomic_file(Path(file)) as stream:
            stream.write(data[:start] + field)
            stream.write(memoryview(data)[start + len(field) :])
        return Path(file)


def digest_field(digest: str) -> bytes:
    """Return how a digest stands in a file's header: as a field of JSON that is a string of JSON."""
    return f'\\"digest\\":\\"{digest}\\"'.encode()


def prefixes(card: Card, number: int | None) -> tuple[str, str]:
    """How the names of a classifier's tensors begin in a file: its backbone's, and its head's.

    Members of an ensemble with one and the same backbone share its tensors.
    """
    if number is None:
        return "backbone.", "head."
    return f"backbone.{card.backbone.weights_hash[:32]}.", f"head.{number}."


def check_crops(crops: int, backbone: Backbone) -> None:
    """Refuse crops that there are not, or that this backbone cannot look at.

    Raises:
        RequestError: So it is.
    """
    pixels.check_crops(crops)
    if crops > 1 and not backbone.is_network:
        what = {"pixels": "the whole image, made small", "file": "the file alone"}.get(backbone.source, "nothing")
        raise RequestError(
            f"{crops} crops are not for a classifier that looks at {what}", "take crops for what has a network, or 1"
        )


def _of_arrays(
    asked: _Asked, backbone: Backbone, looks: features.CropFeatures | None, session: Callable[[int], engine.Session]
) -> features.Features:
    """Features of arrays, in their order; of several looks where `looks` are given."""
    arrays: list[np.ndarray] = list(asked.sources)  # type: ignore[arg-type]
    if backbone.source == "file":
        raise RequestError("this classifier looks at files, not at pixels: arrays have no file size")
    if backbone.source == "none":
        return features.Features(np.zeros((len(arrays), 0), np.float32))
    run = session(len(arrays) * (1 if looks is None else len(looks.names)))
    if looks is None:
        rows, some, _, errors = features.compute(arrays, backbone.preprocess, run, progress=asked.progress)
    else:
        rows, some, errors = features.compute_crops(arrays, looks, run, progress=asked.progress)
    values = np.zeros((len(arrays), *some.shape[1:]), dtype=np.float32)
    values[rows] = some
    return features.Features(values, {i: (e.kind, e.message) for i, e in errors.items()})


def _plain_look(found: features.Features) -> np.ndarray:
    """Features float32 (n, d) of the first look, the centre, where there are several."""
    return found.values[:, 0] if found.values.ndim == 3 else found.values


def content_keys(contents: Sequence[str]) -> np.ndarray:
    """uint64 (n,): the first 64 bits of hashes; 0 for the empty one."""
    return np.array([int(c[:16] or "0", 16) for c in contents], dtype=np.uint64)


def find_images(paths: Sequence[str | Path]) -> tuple[list[Path], dict[str, str]]:
    """The image files among paths: files as they are, folders searched (hidden files and other formats left out).

    Returns:
        Files, and why what stands in a folder beside them cannot be opened, such as a link that leads out of it, by path.

    Raises:
        RequestError: A path does not exist.
    """
    found: list[Path] = []
    problems: dict[str, str] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files, unread = catalog.image_files(path)
            found.extend(files)
            problems |= unread
        elif path.exists():
            found.append(path)
        else:
            raise RequestError(f"{path} does not exist", "name image files or folders")
    return found, problems


def no_image(where: Sequence[object] | np.ndarray, unread: Mapping[str, str]) -> RequestError:
    """What to raise where nothing can be opened, with the first of the reasons."""
    why = next((f"; {len(unread):,} cannot be opened, such as {path}: {problem}" for path, problem in unread.items()), "")
    hint = "name image files or folders with images"
    return RequestError(f"there is no image in {', '.join(map(str, where))}{why}", hint)


def backbone_tensors(backbone: Backbone, cache: Cache) -> dict[str, np.ndarray]:
    """The weights of a backbone by name, from the cache without torch where they were read before."""
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
    """The hash of a file's bytes, "" where it cannot be read (decoding then says why)."""
    try:
        return file_digest(file)
    except OSError:
        return ""
