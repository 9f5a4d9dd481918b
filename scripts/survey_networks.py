"""Script that writes the shipped table of networks: builds every architecture on torch's meta device and measures it.

`python scripts/survey_networks.py` writes `src/sightline/networks/table.json`. Measurements are cached, so that an interrupted
run continues where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sightline import store
from sightline.errors import SightlineError
from sightline.networks import backbones, building, index
from sightline.networks.classics import CLASSICS
from sightline.networks.counting import macs
from sightline.networks.entry import NetworkEntry
from sightline.networks.feature_cut import evaluation_mode
from sightline.networks.network import Network
from sightline.schema import from_json

_FORMAT = 1
_LIMIT_S = 300
"""Time limit for one network."""
_STEP_PX = 8
_COARSER = (1, 2, 4, 8, 16)
"""Factors of the step between tried sizes: networks that halve maps five times and add upsampled ones need multiples of 32."""
_NEXT = 2
"""How many sizes after the smallest must work too, since some networks accept a size by coincidence."""
_FAILURES = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError, NotImplementedError)
"""Errors that networks raise for an image size that they do not accept."""


_IN_PLACE = ("normal_", "uniform_", "trunc_normal_", "erfinv_", "mul_", "add_", "div_", "clamp_", "fill_", "zero_", "copy_")
_SAME_SHAPE = ("batch_norm", "group_norm", "rms_norm", "relu", "relu6", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid")


class _ShapesOnly(TorchFunctionMode):
    """Mode that skips operations that keep the shape on the meta device, where they take most of the time."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, first = getattr(function, "__name__", ""), args[0] if args else None
        if isinstance(first, Tensor) and first.is_meta:
            if name in _IN_PLACE or name in _SAME_SHAPE:
                return first
            if name == "layer_norm" and first.shape[-len(args[1]) :] == tuple(args[1]):
                return first
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True)
class Facts:
    """Measurements of a network; None for those that failed.

    Args:
        parameters: Trainable parameters of the whole network including its classifier.
        macs: Multiply–accumulates for one image of its default size.
        features: Number of features before the classifier.
        smallest: Side of the smallest square image that it accepts in px; see `smallest`.
    """

    parameters: int | None = None
    macs: int | None = None
    features: int | None = None
    smallest: int | None = None


# --------------------------------------------------------------------------------------------------------------- measure


def measure(entry: NetworkEntry) -> Facts:
    """Measure a library's network on the meta device.

    Args:
        entry: The default weights of the architecture, which give the image size.
    """
    size = entry.preprocess.size
    net = _or_none(lambda: _built(lambda: backbones.create_with_classifier(entry, size)))
    if net is None:
        return Facts()
    parameters = sum(p.numel() for p in net.parameters())
    x = _images(3, size)
    work = _or_none(lambda: _work(net, x))
    return Facts(parameters, work, _or_none(lambda: _features(entry)), _smallest_of(entry, net))


def measure_classic(name: str) -> Facts:
    """Measure a classic network on the meta device; its smallest image is taken from its record."""
    classic = CLASSICS[name]
    arguments = {"image_size": classic.image_size, "channels": classic.channels, "classes": classic.classes}
    net = _built(lambda: building.classic(name, arguments))
    x = _images(classic.channels, (classic.image_size, classic.image_size))
    parameters = sum(p.numel() for p in net.parameters())
    return Facts(parameters, _work(net, x), int(net.features), classic.smallest)  # type: ignore[arg-type]


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the meta device, in evaluation mode and without gradients."""
    try:
        with torch.device("meta"), _ShapesOnly():
            net = build()
    except (RuntimeError, NotImplementedError):  # its constructor needs values
        net = build().to("meta")
    return net.eval().requires_grad_(False)


def _images(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.empty((1, channels, *size), device="meta")


def _work(net: nn.Module, x: Tensor) -> int:
    """Count the multiply–accumulates of a network on the meta device."""
    with _ShapesOnly():
        return macs(net, x)


def _or_none(work: Callable[[], Any]) -> Any:
    """Return the result of a call, or None if the network fails."""
    try:
        return work()
    except (SightlineError, *_FAILURES):
        return None


def _features(entry: NetworkEntry) -> int | None:
    """Return the number of features as `Network` finds it; builds a `Network` with weights only if timm's methods fail."""
    size = entry.preprocess.size
    if entry.source == "torchvision":
        return _classifier_width(_built(lambda: backbones.create_with_classifier(entry, size)))
    net: Any = _built(lambda: backbones.create(entry, size))
    with evaluation_mode(net), _ShapesOnly():
        width = _or_none(lambda: _width(net, _images(3, size)))
        output = None if width else net(_images(3, size))
    if width is not None or not isinstance(output, Tensor) or output.ndim not in (2, 4):
        return width  # type: ignore[no-any-return]
    with backbones.seeded(0):
        return Network(backbones.create(entry, size), size).features


def _classifier_width(net: nn.Module) -> int:
    """Return the input width of the last linear layer or, without one, of the last convolution."""
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    return linear[-1].in_features if linear else [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1].in_channels


def _width(net: Any, x: Tensor) -> int | None:
    """Return the number of features that timm's head returns; None if `forward_features` does not return one map."""
    last = net.forward_features(x)
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        return None
    features = net.forward_head(last, pre_logits=True)
    return int(features.flatten(1).shape[1]) if isinstance(features, Tensor) else None


# -------------------------------------------------------------------------------------------------------------- smallest


def _smallest_of(entry: NetworkEntry, net: nn.Module) -> int | None:
    """Return the smallest image side of a library's network; a network of fixed size is rebuilt for each tried size."""
    default = min(entry.preprocess.size)

    def works(side: int) -> bool:
        def run() -> bool:
            fitted = net
            if entry.fixed_size and side != default:
                fitted = _built(lambda: backbones.create_with_classifier(entry, (side, side)))
            with evaluation_mode(fitted), _ShapesOnly():
                fitted(_images(3, (side, side)))
            return True

        return bool(_or_none(run))

    return smallest(works, default, _patch(net))


def _patch(net: nn.Module) -> int:
    """Return the patch size of a network's first patch embedding in px; 1 without patches."""
    sizes = [m.patch_size for m in net.modules() if hasattr(m, "patch_size")]
    first = sizes[0] if sizes else 1
    return int(first[0] if isinstance(first, tuple | list) else first)  # type: ignore[arg-type]


def smallest(works: Callable[[int], bool], default: int, patch: int = 1) -> int | None:
    """Return the side of the smallest square image that a network accepts, in px.

    Tried sizes are multiples of a step: the smallest multiple of the patch size from 8 px on or, if the network accepts only
    coarser sizes, 2, 4, 8 or 16 times that. The result is the smallest tried size that works together with the next two; the
    size below it fails. If no such size works, the result is the default size, or None if that fails too.

    Args:
        works: Function that tells whether the network accepts a square image of a given side.
        default: Side that the network was designed for.
        patch: Patch size.

    Example:
        >>> smallest(lambda side: side >= 30, 224)
        32
        >>> smallest(lambda side: side % 32 == 0 and side > 32, 224)
        64
        >>> smallest(lambda side: side == 224, 224)
        224
    """
    finest = patch * -(-_STEP_PX // patch)
    for step in [finest * c for c in _COARSER]:
        top = default // step
        odd = top - 1 + top % 2  # an even multiple would also be a multiple of the next coarser step
        if odd >= 1 and works(odd * step) and (odd < 3 or works((odd - 2) * step)):
            return step * _first(lambda count, step=step: works(count * step), odd)  # type: ignore[misc]
    return default if works(default) else None


def _first(works: Callable[[int], bool], top: int) -> int:
    """Return the smallest number from 1 that works and whose `_NEXT` successors work, by bisection; `top` is known to work."""
    fails, first = 0, 1 if works(1) else top
    while True:
        while first - fails > 1:
            middle = (fails + first) // 2
            fails, first = (fails, middle) if works(middle) else (middle, first)
        bad = [n for n in range(first + 1, min(first + _NEXT, top - 1) + 1) if not works(n)]
        if not bad:
            return first
        fails, first = bad[-1], top


# ----------------------------------------------------------------------------------------------------------------- table


def rows(library: Mapping[str, list[dict[str, Any]]], facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Return the rows of the table by name: measurements and weights, without default values."""
    table: dict[str, Any] = {}
    for name in sorted(facts):
        measured = {k: v for k, v in store.plain(facts[name]).items() if v is not None}
        if name in library:
            table[name] = measured | {"source": library[name][0]["source"]}
            table[name]["weights"] = [index.shortened(e, name) for e in library[name]]
        else:
            classic = CLASSICS[name]
            table[name] = measured | {"source": "sightline", "image_size": classic.image_size}
            table[name] |= {"year": classic.year, "paper": classic.paper}
    return table


def text(networks: Mapping[str, Any]) -> str:
    """Return the text of the table's file, one network per line for readable diffs."""
    lines = [f"{json.dumps(n)}: {store.canonical_json(row).decode('utf-8')}" for n, row in sorted(networks.items())]
    versions = {p: index.version(p) for p in index.LIBRARIES}
    head = store.canonical_json(versions).decode("utf-8")
    return f'{{"versions": {head}, "networks": {{\n' + ",\n".join(lines) + "\n}}\n"


# ---------------------------------------------------------------------------------------------------------------- script


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer than `seconds`."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _measured(task: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Return a network's name and measurements, cached. Runs in a worker process."""
    name, entry = task
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cache = store.Cache()
    key = store.digest([_FORMAT, entry, *(index.version(p) for p in ("torch", *index.LIBRARIES))])

    def work() -> Any:
        try:
            with _limited(_LIMIT_S):
                return store.plain(measure(from_json(NetworkEntry, entry, "survey")))
        except TimeoutError:
            return store.plain(Facts())

    return name, cache.remember(f"networks/facts/{key}", work)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all networks and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=index.TABLE)
    options = parser.parse_args(arguments)
    library = backbones.survey()
    facts: dict[str, Facts] = {}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        tasks = [(name, entries[0]) for name, entries in sorted(library.items())]
        for name, row in pool.imap_unordered(_measured, tasks):
            facts[name] = from_json(Facts, row, "facts")
            print(f"{len(facts):>5} / {len(tasks)}  {name}", file=sys.stderr, flush=True)
    facts |= {name: measure_classic(name) for name in CLASSICS if name not in library and name not in index.ALIASES}
    store.write_text(options.out, text(rows(library, facts)))
    missing = [n for n, f in sorted(facts.items()) if None in (f.parameters, f.macs, f.features, f.smallest)]
    print(f"{len(facts):,} networks; {len(missing)} with missing measurements: {', '.join(missing)}")


if __name__ == "__main__":
    main()
