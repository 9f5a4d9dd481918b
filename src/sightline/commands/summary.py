"""What a network is made of, and what of it learns: its layers, its sums, what a head adds, and another beside it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.errors import RequestError, unknown
from sightline.runs.layer_table import LayerTable, Subject, SummarySpec, Units, layer_table, of_the_other
from sightline.store import Cache

if TYPE_CHECKING:
    from sightline.networks.anatomy import Layer

SUFFIXES = (".svg", ".png")
COMPARED = ("parameters", "macs", "activation_bytes", "features", "layers")
_HEAD = re.compile(r"\s*(\d+)\s*(?::\s*(\d*\.?\d+)\s*)?")


def summary(
    subject: Subject,
    *,
    image_size: int | None = None,
    classes: int | None = None,
    pool: str | None = None,
    head: str | Units | None = None,
    compare: Subject | None = None,
    graph: str | Path | None = None,
    code: str | None = None,
    cache: Cache | None = None,
) -> dict[str, Any]:
    """Take a network apart: its layers in order, their shapes, parameters and work.

    Args:
        subject: A network's name, with arguments or not; `file.py:function`, or a callable that returns an `nn.Module`; a
            recipe (`.toml`), a run's folder, or a classifier's file, of which the frozen part counts as frozen.
        image_size: Side of the square that it sees, in pixels; None takes its own.
        classes: How many it tells apart, 1 for one sigmoid unit; None takes a network's own number, else 2.
        pool: With `head`: what it gets, `avg` for the network's features, `flatten` for all of its last map.
        head: Take a new head on the bare base instead of the network's own classifier: (units, dropout) of each layer before
            the last, or the same as text, `512:0.3,128`.
        compare: Another one, of which the same is asked.
        graph: Draw it into this file, `.svg` or `.png`.
        code: For a classifier on a network of the user's own: `file.py:function`.
        cache: The user's own if None.

    Returns:
        What `summary --json` prints.

    Raises:
        RequestError: The name is not known, it cannot see such images, or the options do not go together.
    """
    _check(pool, head is not None, graph, {"--classes": classes, "--image-size": image_size})
    units = read_head(head) if isinstance(head, str) else head
    wish = SummarySpec(image_size, classes, pool, units, code, Cache() if cache is None else cache)
    found = layer_table(subject, wish)
    other = None if compare is None else layer_table(compare, of_the_other(compare, wish))
    value = _value(found)
    value["compare"] = None if other is None else _compared(found, other)
    if other is not None and other.own is not None:
        value["notes"].append(f"{other.name} has the same new head")
    value["graph"] = None if graph is None else str(_drawn(found, Path(graph)))
    return value


def _check(pool: str | None, head: bool, graph: str | Path | None, numbers: Mapping[str, int | None]) -> None:
    """Refuse options that are wrong in themselves, before any work."""
    if pool is not None and pool not in ("avg", "flatten"):
        raise unknown("pool", pool, ["avg", "flatten"])
    if pool is not None and not head:
        raise RequestError(f"--pool {pool} says what a new head gets, and there is none", 'add one, such as --head "256:0.5"')
    if graph is not None and Path(graph).suffix.lower() not in SUFFIXES:
        raise RequestError(f"a drawing cannot be written as {Path(graph).name}", "name a file that ends in .svg or .png")
    for key, value in numbers.items():
        if value is not None and value < 1:
            raise RequestError(f"{key} cannot be {value}", "it is at least 1")


def read_head(text: str) -> tuple[tuple[int, float], ...]:
    """The layers of a head before its last one, as (units, dropout).

    Example:
        >>> read_head("512:0.3,128")
        ((512, 0.3), (128, 0.0))

    Raises:
        RequestError: It is no list of units with or without dropout.
    """
    found = []
    for part in text.split(",") if text.strip() else []:
        match = _HEAD.fullmatch(part)
        units, dropout = (int(match[1]), float(match[2] or 0)) if match else (0, 0.0)
        if not 1 <= units <= 1_000_000 or dropout >= 1:
            hint = 'write units, with dropout behind a colon where there is any: --head "512:0.3,128"'
            raise RequestError(f"the head {text!r} cannot be read at {part.strip()!r}", hint)
        found.append((units, dropout))
    return tuple(found)


# ------------------------------------------------------------------------------------------------------------- values


def _value(found: LayerTable) -> dict[str, Any]:
    """The answer as JSON has it."""
    a = found.anatomy
    h, w = found.size
    return {
        "network": found.name,
        "image_size": (h if h == w else [h, w]) or None,
        "channels": found.channels,
        "classes": found.classes,
        "features": found.features,
        "parameters": a.parameters,
        "trainable": a.trainable,
        "frozen": a.parameters - a.trainable,
        "statistics": a.statistics,
        "only_in_training": a.only_in_training,
        "macs": a.macs,
        "macs_between": a.macs_between,
        "activation_bytes": a.activation_bytes,
        "layers": [_row(layer) for layer in a.layers],
        "head": _added(found),
        "notes": list(found.notes),
    }


def _row(layer: Layer) -> dict[str, Any]:
    return dataclasses.asdict(layer) | {"output": None if layer.output is None else list(layer.output)}


def _added(found: LayerTable) -> dict[str, Any] | None:
    """What a head adds to the bare base, and to the network with its own."""
    if found.head is None:
        return None
    base = found.anatomy.parameters - found.head
    more = None if found.own is None else found.anatomy.parameters - found.own
    return {
        "parameters": found.head,
        "base": base,
        "over_base": found.head / base if base else None,
        "published": found.own,
        "more": more,
        "over_published": None if more is None or not found.own else more / found.own,
    }


def _compared(found: LayerTable, other: LayerTable) -> dict[str, Any]:
    """The other one's sums, and this one's beside them."""
    ours, theirs = _sums(found), _sums(other)
    pairs = {k: (ours[k], theirs[k]) for k in COMPARED}
    return {
        "network": other.name,
        **theirs,
        "difference": {k: None if a is None or b is None else a - b for k, (a, b) in pairs.items()},
        "ratio": {k: None if a is None or not b else a / b for k, (a, b) in pairs.items()},
    }


def _sums(found: LayerTable) -> dict[str, int | None]:
    a = found.anatomy
    return {
        "parameters": a.parameters,
        "macs": a.macs,
        "activation_bytes": a.activation_bytes,
        "features": found.features,
        "layers": len(a.layers),
    }


def _drawn(found: LayerTable, file: Path) -> Path:
    if found.net is None:
        raise RequestError("there is no network to draw", "leave --graph out")
    from sightline.networks.picture import draw

    h, w = found.size
    draw(found.net, found.size, file, channels=found.channels, title=f"{found.name}, {h}×{w} px")
    return file
