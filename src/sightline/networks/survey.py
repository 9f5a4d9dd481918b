"""How the shipped table of networks is made: every architecture built on torch's meta device and measured.

`python -m sightline.networks.survey` writes `table.json` beside this file. What was measured is kept in the cache, so that
a run that was stopped goes on where it was.
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
"""How long one network may take."""
_STEP_PX = 8
_COARSER = (1, 2, 4, 8, 16)
"""A network that halves an image five times and adds what it enlarged again takes only multiples of 32, and so on."""
_NEXT = 2
"""How many sizes after the smallest must work too: some networks take a size by luck, and not the next one."""
_FAILURES = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError, NotImplementedError)
"""What networks raise for an image that they cannot see."""


_IN_PLACE = ("normal_", "uniform_", "trunc_normal_", "erfinv_", "mul_", "add_", "div_", "clamp_", "fill_", "zero_", "copy_")
_SAME_SHAPE = ("batch_norm", "group_norm", "rms_norm", "relu", "relu6", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid")


class _Shapes(TorchFunctionMode):
    """Inside it, what changes no shape is left out on the meta device, where it has no effect and takes most of the time."""

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
    """What was measured of a network; None for what could not be.

    Args:
        parameters: Trainable numbers of the whole network with its own classifier.
        macs: Multiply–accumulates for one image of its own size.
        features: Width of the features in front of the classifier.
        smallest: Side of the smallest square image that it takes, in pixels; see `smallest`.
    """

    parameters: int | None = None
    macs: int | None = None
    features: int | None = None
    smallest: int | None = None


# --------------------------------------------------------------------------------------------------------------- measure


def measure(entry: NetworkEntry) -> Facts:
    """Build a library's network on the meta device, and count.

    Args:
        entry: The default weights of the architecture, which say the size that it sees.
    """
    size = entry.preprocess.size
    net = _or_none(lambda: _built(lambda: backbones.create_whole(entry, size)))
    if net is None:
        return Facts()
    parameters = sum(p.numel() for p in net.parameters())
    x = _images(3, size)
    work = _or_none(lambda: _work(net, x))
    return Facts(parameters, work, _or_none(lambda: _features(entry)), _smallest_of(entry, net))


def measure_classic(name: str) -> Facts:
    """Build one of our own networks on the meta device, and count; the smallest image is what it says itself."""
    classic = CLASSICS[name]
    arguments = {"image_size": classic.image_size, "channels": classic.channels, "classes": classic.classes}
    net = _built(lambda: building.classic(name, arguments))
    x = _images(classic.channels, (classic.image_size, classic.image_size))
    parameters = sum(p.numel() for p in net.parameters())
    return Facts(parameters, _work(net, x), int(net.features), classic.smallest)  # type: ignore[arg-type]


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    """What a builder gives, on the meta device, in evaluation mode, nothing of it to be learnt."""
    try:
        with torch.device("meta"), _Shapes():
            net = build()
    except (RuntimeError, NotImplementedError):  # its constructor looks at numbers
        net = build().to("meta")
    return net.eval().requires_grad_(False)


def _images(channels: int, size: tuple[int, int]) -> Tensor:
    return torch.empty((1, channels, *size), device="meta")


def _work(net: nn.Module, x: Tensor) -> int:
    """The multiply–accumulates of a network on the meta device."""
    with _Shapes():
        return macs(net, x)


def _or_none(work: Callable[[], Any]) -> Any:
    """What a piece of work gives, None where the network cannot do it."""
    try:
        return work()
    except (SightlineError, *_FAILURES):
        return None


def _features(entry: NetworkEntry) -> int | None:
    """The width that `Network` finds; it is asked itself, with numbers, only where timm's two halves do not say it."""
    size = entry.preprocess.size
    if entry.source == "torchvision":
        return _classifier_width(_built(lambda: backbones.create_whole(entry, size)))
    net: Any = _built(lambda: backbones.create(entry, size))
    with evaluation_mode(net), _Shapes():
        width = _or_none(lambda: _width(net, _images(3, size)))
        given = None if width else net(_images(3, size))
    if width is not None or not isinstance(given, Tensor) or given.ndim not in (2, 4):
        return width  # type: ignore[no-any-return]
    with backbones.seeded(0):
        return Network(backbones.create(entry, size), size).features


def _classifier_width(net: nn.Module) -> int:
    """What the last linear layer takes, or in a network without one the last convolution."""
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    return linear[-1].in_features if linear else [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1].in_channels


def _width(net: Any, x: Tensor) -> int | None:
    """How many features timm's head gives; None where its body gives anything but one map."""
    last = net.forward_features(x)
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        return None
    features = net.forward_head(last, pre_logits=True)
    return int(features.flatten(1).shape[1]) if isinstance(features, Tensor) else None


# -------------------------------------------------------------------------------------------------------------- smallest


def _smallest_of(entry: NetworkEntry, net: nn.Module) -> int | None:
    """The smallest image of a library's network, which is built anew for each size where it is built for one."""
    own = min(entry.preprocess.size)

    def works(side: int) -> bool:
        def see() -> bool:
            fitted = net
            if entry.fixed_size and side != own:
                fitted = _built(lambda: backbones.create_whole(entry, (side, side)))
            with evaluation_mode(fitted), _Shapes():
                fitted(_images(3, (side, side)))
            return True

        return bool(_or_none(see))

    return smallest(works, own, _patch(net))


def _patch(net: nn.Module) -> int:
    """The side of the first patches that a network cuts images into; 1 where it cuts none."""
    sizes = [m.patch_size for m in net.modules() if hasattr(m, "patch_size")]
    first = sizes[0] if sizes else 1
    return int(first[0] if isinstance(first, tuple | list) else first)  # type: ignore[arg-type]


def smallest(works: Callable[[int], bool], own: int, patch: int = 1) -> int | None:
    """The side of the smallest square image that a network takes, as far as it is asked.

    Whole patches are asked for, of at least 8 px together; where the network takes only multiples of 2, 4, 8 or 16 times
    that, those. The answer is the smallest of these sizes that works and whose two successors work as well; the one below
    is known to fail, or there is none. Where nothing of the kind works, it is its own size.

    Args:
        works: Whether it takes a square image of a side.
        own: The side it was made for.
        patch: Side of the patches that it cuts images into.

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
        top = own // step
        odd = top - 1 + top % 2  # an even multiple would be one of the next coarser step too
        if odd >= 1 and works(odd * step) and (odd < 3 or works((odd - 2) * step)):
            return step * _first(lambda count, step=step: works(count * step), odd)  # type: ignore[misc]
    return own if works(own) else None


def _first(works: Callable[[int], bool], top: int) -> int:
    """The smallest number from 1 that works and whose next ones work too; `top` does."""
    fails, found = 0, 1 if works(1) else top
    while True:
        while found - fails > 1:
            middle = (fails + found) // 2
            fails, found = (fails, middle) if works(middle) else (middle, found)
        bad = [n for n in range(found + 1, min(found + _NEXT, top - 1) + 1) if not works(n)]
        if not bad:
            return found
        fails, found = bad[-1], top


# ----------------------------------------------------------------------------------------------------------------- table


def rows(library: Mapping[str, list[dict[str, Any]]], facts: Mapping[str, Facts]) -> dict[str, Any]:
    """The networks of the table by name: what was measured, and their weights, without what goes without saying."""
    found: dict[str, Any] = {}
    for name in sorted(facts):
        measured = {k: v for k, v in store.plain(facts[name]).items() if v is not None}
        if name in library:
            found[name] = measured | {"source": library[name][0]["source"]}
            found[name]["weights"] = [index.shortened(e, name) for e in library[name]]
        else:
            classic = CLASSICS[name]
            found[name] = measured | {"source": "sightline", "image_size": classic.image_size}
            found[name] |= {"year": classic.year, "paper": classic.paper}
    return found


def text(networks: Mapping[str, Any]) -> str:
    """The table's file: one network per line, so that two versions of it can be compared."""
    lines = [f"{json.dumps(n)}: {store.canonical_json(row).decode('utf-8')}" for n, row in sorted(networks.items())]
    versions = {p: index.version(p) for p in index.LIBRARIES}
    head = store.canonical_json(versions).decode("utf-8")
    return f'{{"versions": {head}, "networks": {{\n' + ",\n".join(lines) + "\n}}\n"


# ---------------------------------------------------------------------------------------------------------------- script


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """An error in the block after that time."""

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
    """One network's name and facts, from the cache where they were measured before. Runs in a process of its own."""
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
    """Measure all networks, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m sightline.networks.survey", description=main.__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=index.TABLE)
    chosen = parser.parse_args(arguments)
    library = backbones.survey()
    facts: dict[str, Facts] = {}
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        tasks = [(name, entries[0]) for name, entries in sorted(library.items())]
        for name, found in pool.imap_unordered(_measured, tasks):
            facts[name] = from_json(Facts, found, "facts")
            print(f"{len(facts):>5} / {len(tasks)}  {name}", file=sys.stderr, flush=True)
    facts |= {name: measure_classic(name) for name in CLASSICS if name not in library and name not in index.ALIASES}
    store.write_text(chosen.out, text(rows(library, facts)))
    missing = [n for n, f in sorted(facts.items()) if None in (f.parameters, f.macs, f.features, f.smallest)]
    print(f"{len(facts):,} networks; not all could be measured of {len(missing)}: {', '.join(missing)}")


if __name__ == "__main__":
    main()
