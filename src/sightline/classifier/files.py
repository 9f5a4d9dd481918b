"""A classifier read from its file."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sightline import networks
from sightline.classifier.model import Classifier, prefixes
from sightline.errors import ModelFileError, RequestError
from sightline.plain import from_plain
from sightline.records import Card, Head


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
    if not path.is_file() and path.with_name("run.json").is_file():
        hint = "name the run that it is about, or make one with `sightline train CATALOG RECIPE`"
        raise RequestError(f"{path.parent} keeps scores and no classifier", hint)
    if not path.is_file():
        raise RequestError(f"{path} does not exist", "name a classifier.safetensors, or the folder of a run")
    card = _read_card(path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelFileError(f"{path} is damaged ({error})", "copy it again, or train it again") from error
    for name, values in arrays.items():
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise ModelFileError(f"{path} holds a weight that is not a number (tensor {name})", "train it again")
    members = tuple(_part(path, c, arrays, i, code) for i, c in enumerate(card.members))
    if members and len(card.weights) != len(members):
        raise ModelFileError(f"{path} is damaged: {len(members)} members with {len(card.weights)} weights", "copy it again")
    whole = _part(path, card, {} if members else arrays, None, code)
    limits = {n.removeprefix("limits."): a for n, a in arrays.items() if n.startswith("limits.")}
    torn = any(len(limits.get(n, ())) != card.limits.images for n in ("scores", "labels", "answers", "right"))
    if torn or ("bank" in limits) != (card.limits.unlike_bar is not None):
        raise ModelFileError(f"{path} is damaged: what it measures its limits by is not what its card names", "copy it again")
    seen = arrays.get("data.seen", np.zeros(0, dtype=np.uint64))
    return dataclasses.replace(whole, seen=seen, members=members, limits=limits)


def _part(path: Path, card: Card, arrays: Mapping[str, np.ndarray], number: int | None, code: str | None) -> Classifier:
    """A classifier or a member of one, from the arrays of a file."""
    weights, head = prefixes(card, number)
    tensors = {n.removeprefix(weights): a for n, a in arrays.items() if n.startswith(weights)}
    own = {n.removeprefix(head): a for n, a in arrays.items() if n.startswith(head)}
    if tensors and card.backbone.weights_hash != networks.weights_hash(tensors):
        raise ModelFileError(f"{path} is damaged: its weights are not the ones that its card names", "copy it again")
    found = Head(card.head, len(card.classes), card.head_settings, own)
    return Classifier(card, found, tensors, code=code if card.backbone.source == "user" or number is None else None)


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
