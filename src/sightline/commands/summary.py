"""Model summary: layers, shapes, parameters and multiply-accumulates of a network, alone or beside another one."""

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
    """Return the layers of a network in execution order, with shapes, parameters and multiply-accumulates.

    Args:
        subject: Network name, with or without arguments; `file.py:function`, or a callable that returns an `nn.Module`; a
            recipe (`.toml`), run folder or classifier file, whose frozen layers are marked.
        image_size: Side of the square input image in pixels. Default: that of the network.
        classes: Number of classes, 1 for one sigmoid unit. Default: that of the network, else 2.
        pool: With `head`: input of the head, `avg` for pooled features or `flatten` for the flattened feature map.
        head: Head that replaces the classifier of the network: (units, dropout) of each layer before the last, or the same as
            text, `512:0.3,128`.
        compare: Second network, in any form of `subject`.
        graph: File for a drawing of the network, `.svg` or `.png`.
        code: `file.py:function` that builds a user-defined network of a classifier.
        cache: Cache. Default: the user's cache.

    Returns:
        The value printed by `sightline summary --json`.

    Raises:
        RequestError: If the name is unknown, the image size is impossible, or the options do not fit together.
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
    """Check the options that need no network.

    Raises:
        RequestError: If one is wrong.
    """
    if pool is not None and pool not in ("avg", "flatten"):
        raise unknown("pool", pool, ["avg", "flatten"])
    if pool is not None and not head:
        raise RequestError(f"--pool {pool} needs --head", 'add a head, such as --head "256:0.5"')
    if graph is not None and Path(graph).suffix.lower() not in SUFFIXES:
        raise RequestError(f"{Path(graph).name} is not a name for a drawing", "end the name in .svg or .png")
    for key, value in numbers.items():
        if value is not None and value < 1:
            raise RequestError(f"{key} must be at least 1, not {value}", f"write {key} 2")


def read_head(text: str) -> tuple[tuple[int, float], ...]:
    """Return the hidden layers of a head as (units, dropout).

    Example:
        >>> read_head("512:0.3,128")
        ((512, 0.3), (128, 0.0))

    Raises:
        RequestError: If the text is not a list of units with optional dropout.
    """
    found = []
    for part in text.split(",") if text.strip() else []:
        match = _HEAD.fullmatch(part)
        units, dropout = (int(match[1]), float(match[2] or 0)) if match else (0, 0.0)
        if not 1 <= units <= 1_000_000 or dropout >= 1:
            hint = 'write units, and dropout after a colon: --head "512:0.3,128"'
            raise RequestError(f"the head {text!r} cannot be parsed at {part.strip()!r}", hint)
        found.append((units, dropout))
    return tuple(found)


# ------------------------------------------------------------------------------------------------------------- values


def _value(found: LayerTable) -> dict[str, Any]:
    """Return the summary as JSON."""
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
    """Return the parameters that a head adds to the backbone, and compared with the original classifier."""
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
    """Return the totals of the second network, with differences and ratios."""
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
        raise RequestError("there is no network to draw", "leave out --graph")
    from sightline.networks.picture import draw

    h, w = found.size
    draw(found.net, found.size, file, channels=found.channels, title=f"{found.name}, {h}×{w} px")
    return file
