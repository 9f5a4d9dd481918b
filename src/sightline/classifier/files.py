"""Classifier files: load a `.safetensors` file and verify its digest, tensors and card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sightline import networks
from sightline.classifier import checking
from sightline.classifier.model import BLANK_DIGEST, Classifier, digest_field, prefixes
from sightline.errors import ForeignFileError, ModelFileError, RequestError
from sightline.files import is_file, open_regular
from sightline.records import Card, Head
from sightline.schema import from_json
from sightline.store import bytes_digest

_MOST_HEADER_BYTES = 100 << 20
_MOST_DEPTH = 64
"""Maximum nesting of lists and objects in a header or card."""
_CHUNK_BYTES = 4 << 20
_AGAIN = "copy the file again, or train the classifier again"


def load(file: str | Path, *, code: str | None = None) -> Classifier:
    """Load a classifier. No code from the file is ever run.

    The digest of the file, the shape and values of every tensor, and every card field that predictions depend on are
    verified.

    Args:
        file: File written by `Classifier.save`, or a run folder.
        code: `file.py:function` that builds the network, for a user-defined network.

    Raises:
        RequestError: If the file does not exist.
        ModelFileError: If it is damaged, not from Sightline, or of another version; the message names the tensor or field.
    """
    path = Path(file)
    if path.is_dir():
        path = path / "classifier.safetensors"
    if not is_file(path) and path.with_name("run.json").is_file():
        hint = "pass the run that was evaluated, or train one with `sightline train CATALOG RECIPE`"
        raise RequestError(f"{path.parent} contains scores but no classifier", hint)
    if not is_file(path) and path.with_name("best.toml").is_file():
        hint = f"pass a run inside it, or train the best recipe: sightline train CATALOG {path.with_name('best.toml')}"
        raise RequestError(f"{path.parent} is a sweep or a search, which has several classifiers", hint)
    if not is_file(path):
        raise RequestError(f"{path} does not exist", "pass a classifier.safetensors or a run folder")
    card, digest, header_bytes = _read_card(path)
    try:
        classifier = _checked(card, _arrays(path), code)
    except ModelFileError as error:
        raise ModelFileError(f"{path} is damaged: {error.message}", error.hint or _AGAIN) from error
    if _digest(path, header_bytes, digest) != digest:
        raise ModelFileError(f"{path} is damaged: its digest does not match its content", _AGAIN)
    return classifier


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all tensors of a file by name."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, OSError) as error:
        raise ModelFileError(f"its tensors cannot be read ({error})") from error


def _checked(card: Card, arrays: Mapping[str, np.ndarray], code: str | None) -> Classifier:
    """Return the classifier of a card and tensors, after validation.

    Raises:
        ModelFileError: If a tensor or field is invalid; the message names it.
    """
    checking.check_card(card)
    checking.check_finite(arrays)
    members = tuple(_part(c, arrays, i, code) for i, c in enumerate(card.members))
    whole = _part(card, {} if members else arrays, None, code)
    limits = {n.removeprefix("limits."): a for n, a in arrays.items() if n.startswith("limits.")}
    seen = arrays.get("data.seen", np.zeros(0, dtype=np.uint64))
    if seen.ndim != 1 or seen.dtype != np.uint64:
        raise ModelFileError(f"the tensor data.seen has the shape {seen.shape} of {seen.dtype}, expected (any) of uint64")
    classifier = dataclasses.replace(whole, seen=seen, members=members, limits=limits)
    checking.check_limits(limits, card.uncertainty, len(card.classes), classifier.embedding_model.card.backbone)
    return classifier


def _part(card: Card, arrays: Mapping[str, np.ndarray], number: int | None, code: str | None) -> Classifier:
    """Return a classifier, or a member of an ensemble, from the arrays of a file."""
    weights, head = prefixes(card, number)
    tensors = {n.removeprefix(weights): a for n, a in arrays.items() if n.startswith(weights)}
    head_arrays = {n.removeprefix(head): a for n, a in arrays.items() if n.startswith(head)}
    if tensors and card.backbone.weights_hash != networks.weights_hash(tensors):
        raise ModelFileError("the weights of its network do not match the hash in its card")
    fitted = Head(card.head, len(card.classes), card.head_settings, head_arrays)
    if not card.members:
        try:
            checking.check_part(card, fitted, tensors)
        except ModelFileError as error:
            raise ModelFileError(f"{'' if number is None else f'member {number}: '}{error.message}", error.hint) from error
    quantised = arrays.get(f"int8.{weights}", np.zeros(0, dtype=np.uint8)).tobytes()
    if card.precision.get("used") == "int8" and card.precision.get("ranges") != bytes_digest(quantised)[:32]:
        raise ModelFileError("its network in int8 does not match the hash in its card")
    named = code if card.backbone.source == "user" or number is None else None
    return Classifier(card, fitted, tensors, code=named, quantised=quantised)


def _read_card(path: Path) -> tuple[Card, str, int]:
    """Return the card and the digest in a file's metadata and the length of its header, without reading tensors."""
    foreign = ForeignFileError(
        f"{path} is not a Sightline classifier", "pass a file that `sightline run` or `sightline train` wrote"
    )
    with open_regular(path) as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(path.stat().st_size, _MOST_HEADER_BYTES):
            raise foreign
        try:
            value = _parsed(_parsed(stream.read(length))["__metadata__"]["sightline"])
            version = int(value["format"])
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise foreign from error
    if version != Card.FORMAT:
        newer = "a newer Sightline" if version > Card.FORMAT else "an older Sightline"
        hint = "pip install --upgrade sightline" if version > Card.FORMAT else "train it again"
        raise ModelFileError(f"{path} was written by {newer} (file format {version}, this one reads {Card.FORMAT})", hint)
    digest = value.pop("digest", None)
    if not isinstance(digest, str) or len(digest) != len(BLANK_DIGEST):
        raise ModelFileError(f"{path} is damaged: it has no digest", _AGAIN)
    try:
        return from_json(Card, value, "card"), digest, 8 + length
    except (RequestError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        reason = error.message if isinstance(error, RequestError) else str(error)
        raise ModelFileError(f"{path} has a card that cannot be read ({reason})", _AGAIN) from error


def _parsed(text: str | bytes) -> Any:
    """Parse JSON of limited depth.

    Raises:
        ValueError: If it is not JSON, contains NaN or infinity, or is nested too deep.
        RecursionError: If it is nested far too deep.
    """

    def refuse(name: str) -> float:
        raise ValueError(f"{name} is not a finite number")

    value = json.loads(text, parse_constant=refuse)
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
    return value


def _digest(path: Path, header_bytes: int, digest: str) -> str:
    """Return the SHA-256 of a file's bytes with zeros in place of its digest, in bounded memory."""
    with open_regular(path) as stream:
        sha = hashlib.sha256(stream.read(header_bytes).replace(digest_field(digest), digest_field(BLANK_DIGEST), 1))
        while chunk := stream.read(_CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()
