"""Classifier = preprocess ∘ backbone ∘ head (∘ calibration): data that is saved, loaded, and asked."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog, engine, features, heads, networks
from sightline.errors import ModelFileError, RequestError
from sightline.plain import from_plain
from sightline.records import Backbone, Card, Catalog, Head, Predictions, Progress, silent
from sightline.store import Cache, canonical_json, file_digest, write_bytes

_PACKAGES = ("sightline", "torch", "torchvision", "timm", "openvino", "numpy", "scikit-learn", "pillow")


@dataclass(frozen=True, slots=True)
class Classifier:
    """What every method returns; used in one way whatever it is made of.

    Args:
        card: What it is, as data.
        head: From features to logits.
        tensors: The backbone's weights by name, float32; empty where the backbone has none.
        seen: uint64 (m,), sorted: the first 64 bits of the hashes of the images that it was fitted on.
        code: For a network of the user's own: `file.py:function`, given by the one who loads it. Never taken from a file.
    """

    card: Card
    head: Head
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    code: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.card.classes

    def session(self, cache: Cache, *, device: str = "auto", expected: int = 1_000_000) -> engine.Session:
        """Its network, loaded and ready, in the precision that it was judged in."""
        precision = self.card.precision.get("used", "f32")
        return engine.open_session(
            self._backbone(),
            cache=cache,
            tensors=self.tensors or None,
            precision=precision,
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
        """Probabilities float64 (n, k) of features float32 (n, d), calibrated."""
        return heads.probs(self.head, values, self.card.temperature)

    def predict(
        self,
        sources: Catalog | np.ndarray | str | Path | Sequence[str | Path | np.ndarray],
        *,
        cache: Cache | None = None,
        device: str = "auto",
        progress: Progress = silent,
    ) -> Predictions:
        """Ask it about images.

        Args:
            sources: A catalog; files and folders (searched for images); or arrays, uint8 or float in 0 to 1, one
                (n, h, w[, c]) or a list of (h, w[, c]).
            cache: Where features are kept; the user's own cache if None.
            device: `auto`, `cpu`, `cuda`, or `mps`.
            progress: Told as images are done.

        Returns:
            Predictions in the order given; what could not be read is in `errors`.

        Raises:
            RequestError: A path does not exist.
        """
        cache = Cache() if cache is None else cache
        if isinstance(sources, str | Path):
            sources = [sources]
        if isinstance(sources, Catalog):
            names, files = sources.paths, sources.files()
            contents, true = sources.column("content"), sources.labels(self.classes)
        elif len(sources) and isinstance(sources[0], np.ndarray):
            return self._predict_arrays(sources, cache, device, progress)  # type: ignore[arg-type]
        else:
            files = find_images(sources)  # type: ignore[arg-type]
            names, true = [str(f) for f in files], np.full(len(files), -1, dtype=np.int64)
            contents = [_digest_or_none(f) for f in files]

        def session(count: int) -> engine.Session:
            return self.session(cache, device=device, expected=count)

        found = features.extract(
            files,
            contents,
            self.card.backbone,
            session=session,
            precision=self.card.precision.get("used", "f32"),
            cache=cache,
            progress=progress,
        )
        errors = {names[i]: why for i, (_, why) in found.problems.items()}
        kept = np.flatnonzero(found.ok)
        probs = self.probs(found.values[kept])
        return Predictions(tuple(names[i] for i in kept), self.classes, true[kept], probs, errors, self.card.bar)

    def _predict_arrays(self, arrays: Sequence[np.ndarray], cache: Cache, device: str, progress: Progress) -> Predictions:
        if self.card.backbone.source == "file":
            raise RequestError("this classifier looks at files, not at pixels: arrays have no file size")
        names = tuple(f"array {i}" for i in range(len(arrays)))
        true = np.full(len(arrays), -1, dtype=np.int64)
        if self.card.backbone.source == "none":
            probs = self.probs(np.zeros((len(arrays), 0), np.float32))
            return Predictions(names, self.classes, true, probs, bar=self.card.bar)
        run = self.session(cache, device=device, expected=len(arrays))
        rows, values, _, errors = features.compute(list(arrays), self.card.backbone.preprocess, run, progress=progress)
        reasons = {names[i]: e.message for i, e in errors.items()}
        probs = self.probs(values)
        return Predictions(tuple(names[i] for i in rows), self.classes, true[rows], probs, reasons, self.card.bar)

    def was_trained_on(self, contents: Sequence[str]) -> np.ndarray:
        """bool (n,): which of these contents (SHA-256 of files) it was fitted on."""
        return np.isin(content_keys(contents), self.seen)

    def save(self, file: str | Path) -> Path:
        """Write it as one `.safetensors` file, atomically. The same classifier gives the same bytes."""
        from safetensors.numpy import save

        arrays = {f"backbone.{n}": np.ascontiguousarray(a) for n, a in sorted(self.tensors.items())}
        arrays |= {f"head.{n}": np.ascontiguousarray(a) for n, a in sorted(self.head.arrays.items())}
        arrays["data.seen"] = np.ascontiguousarray(self.seen)
        write_bytes(Path(file), save(arrays, metadata={"sightline": canonical_json(self.card).decode("utf-8")}))
        return Path(file)


def load(file: str | Path, *, code: str | None = None) -> Classifier:
    """Read a classifier; no code is ever run from the file.

    Args:
        file: What `Classifier.save` wrote, or a run's folder.
        code: `file.py:function` that builds the network, for one of the user's own.

    Raises:
        RequestError: There is no such file.
        ModelFileError: It is damaged, foreign, or of another version.
    """
    path = Path(file)
    if path.is_dir():
        path = path / "classifier.safetensors"
    if not path.is_file():
        raise RequestError(f"{path} does not exist", "name a classifier.safetensors, or the folder of a run")
    card = _read_card(path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelFileError(f"{path} is damaged ({error})", "copy it again, or train it again") from error
    tensors = {n.removeprefix("backbone."): a for n, a in arrays.items() if n.startswith("backbone.")}
    head = {n.removeprefix("head."): a for n, a in arrays.items() if n.startswith("head.")}
    for name, values in arrays.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ModelFileError(f"{path} holds a weight that is not a number (tensor {name})", "train it again")
    if tensors and card.backbone.weights_hash != networks.weights_hash(tensors):
        raise ModelFileError(f"{path} is damaged: its weights are not the ones that its card names", "copy it again")
    seen = arrays.get("data.seen", np.zeros(0, dtype=np.uint64))
    return Classifier(card, Head(card.head, len(card.classes), card.head_settings, head), tensors, seen, code)


def content_keys(contents: Sequence[str]) -> np.ndarray:
    """uint64 (n,): the first 64 bits of hashes; 0 for the empty one."""
    return np.array([int(c[:16] or "0", 16) for c in contents], dtype=np.uint64)


def _read_card(path: Path) -> Card:
    """The card in a file's metadata, without reading its tensors."""
    foreign = ModelFileError(f"{path} is not a Sightline classifier", "name a file that `sightline run` or `train` wrote")
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(path.stat().st_size, 100 << 20):
            raise foreign
        try:
            text = json.loads(stream.read(length))["__metadata__"]["sightline"]
            value = json.loads(text)
            version = int(value["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise foreign from error
    if version != Card.FORMAT:
        newer = "a newer Sightline" if version > Card.FORMAT else "an older Sightline"
        hint = "pip install --upgrade sightline" if version > Card.FORMAT else "train it again"
        raise ModelFileError(f"{path} was written by {newer} (file format {version}, this one reads {Card.FORMAT})", hint)
    try:
        return from_plain(Card, value, "card")
    except RequestError as error:
        raise ModelFileError(f"{path} has a card that cannot be read ({error.message})", "train it again") from error


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


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The image files among paths: files as they are, folders searched (hidden files and other formats left out).

    Raises:
        RequestError: A path does not exist.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found.extend(catalog.image_files(path))
        elif path.exists():
            found.append(path)
        else:
            raise RequestError(f"{path} does not exist", "name image files or folders")
    return found


def environment(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were made with: Python, platform, processor, cores, device, versions."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "device": device,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of the packages that a result depends on; what is not installed is left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _digest_or_none(file: Path) -> str:
    """The hash of a file's bytes, "" where it cannot be read (decoding then says why)."""
    try:
        return file_digest(file)
    except OSError:
        return ""
