"""From a `Backbone` record, or from a request, to a network with its weights in. The part of `networks` that imports torch."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from sightline.errors import RequestError, SightlineError, WeightsError, unknown
from sightline.networks import backbones, hub, names, user, weights
from sightline.networks.index import NetworkEntry
from sightline.networks.network import Network, Pixels, parse, tensors
from sightline.records import Preprocess
from sightline.schema import check_value
from sightline.store import log


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network to build.

    Args:
        name: Its name.
        source: Who builds it.
        entry: What the library says of it, for timm's and torchvision's.
        size: (height, width) of the images, None for a user's network's own.
        pool: `avg`, `flatten` or `scores`.
        arguments: Of the builder; for a library's network only `classes`.
        classifier: Whether its own classifier is wanted.
    """

    name: str
    source: Literal["timm", "torchvision", "sightline", "user", "pixels"]
    entry: NetworkEntry | None
    size: tuple[int, int] | None
    pool: Literal["avg", "flatten", "scores"] = "avg"
    arguments: Mapping[str, Any] | None = None
    classifier: bool = False


def random(wish: NetworkSpec, seed: int) -> Network:
    """The network with random weights, a function of the seed."""
    with backbones.seeded(seed):
        net = _bare(wish)
    return _cut(net, wish, classifier=wish.classifier)


def published(wish: NetworkSpec) -> Network:
    """The network with its published weights, fetched where they are not here; a user's network with its own.

    Raises:
        WeightsError: They are not here and cannot be fetched, or there are none.
    """
    if wish.entry is None:
        if wish.source == "user":
            return random(wish, 0)
        hint = "train it with --methods scratch, or use --weights random or FILE"
        raise WeightsError(f"no weights of {wish.name} were published", hint)
    hub.check(wish.entry, wish.name)
    file = hub.here(wish.entry) or hub.fetch(wish.entry, wish.name)
    classifier = wish.classifier or wish.pool == "scores"
    net = backbones.create(wish.entry, _size(wish), classifier=classifier, file=str(file))
    return _cut(net, wish, classifier=wish.classifier)


def from_file(wish: NetworkSpec, file: Path) -> tuple[Network, int]:
    """The network with the weights of a file, and how many classes the file's own classifier has (0: it has none).

    Raises:
        WeightsError: The file is damaged, or does not fit.
    """
    found = weights.read(file)
    network = _filled(wish, found, str(file))
    behind = _behind(wish, network.classifier)
    classes = next((int(v.shape[0]) for k, v in found.items() if _in(k, behind) and k.endswith("weight")), 0)
    return network, classes


def from_tensors(wish: NetworkSpec, arrays: Mapping[str, np.ndarray]) -> Network:
    """The network with the weights of a classifier's file.

    Raises:
        WeightsError: They do not fit.
    """
    return _filled(wish, parse(dict(arrays)), "the classifier's file")


def _filled(wish: NetworkSpec, found: dict[str, Tensor], what: str) -> Network:
    """The network with these tensors in it."""
    if wish.source == "timm" and wish.entry is not None and wish.pool != "scores":
        net = backbones.create(wish.entry, _size(wish), classifier=wish.classifier, drawn=False)
        _load(net, wish, found, what, optional=() if wish.classifier else _behind(wish, ""))
        return _cut(net, wish, classifier=wish.classifier)
    with backbones.seeded(0):
        net = _bare(wish)
    network = _cut(net, wish, classifier=wish.classifier)
    _load(net, wish, found, what, optional=() if wish.classifier else _behind(wish, network.classifier))
    return network


def _size(wish: NetworkSpec) -> tuple[int, int]:
    return wish.size if wish.size is not None else Preprocess().size


def _bare(wish: NetworkSpec) -> nn.Module:
    """The network as its library builds it, weights at random."""
    if wish.source == "pixels":
        return Pixels()
    if wish.entry is not None and wish.pool == "scores":
        return backbones.create_whole(wish.entry, _size(wish), classes=(wish.arguments or {}).get("classes"))
    if wish.entry is not None:
        return backbones.create(wish.entry, _size(wish), classifier=wish.classifier)
    if wish.source == "user":
        classes = (wish.arguments or {}).get("classes")
        return user.build(wish.name, None if wish.size is None else wish.size[0], classes)
    return classic(wish.name, {"image_size": _size(wish)[0], "channels": 3, **(wish.arguments or {})})


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of one of `CLASSICS` by name and type, without building it.

    Raises:
        RequestError: It takes no argument of that name, or none of that type.
    """
    from sightline.networks.classics import CLASSICS

    build = CLASSICS[name].build
    takes = inspect.signature(build).parameters
    hints = typing.get_type_hints(build)
    for key, value in arguments.items():
        if key not in takes:
            raise unknown(f"argument of {name}", key, takes)
        check_value(hints[key], value, f"{key} of {name}", takes[key].default)


def classic(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """One of `CLASSICS`.

    Raises:
        RequestError: It takes no argument of that name, or not that value.
    """
    from sightline.networks.classics import CLASSICS

    check_arguments(name, arguments)
    try:
        return CLASSICS[name].build(**arguments)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{names.spell(name, arguments)} cannot be built ({error})", "see `sightline networks`") from error


def _cut(net: nn.Module, wish: NetworkSpec, *, classifier: bool) -> Network:
    size = wish.size or own_size(net) or Preprocess().size
    patch = backbones.patch_px(net)
    if wish.entry is not None and (size[0] % patch or size[1] % patch):
        raise backbones.too_small_or_fixed(wish.entry, size, f"it cuts them into patches of {patch} px", patch)
    try:
        network = Network(net, size, pool=wish.pool, classifier=classifier)
    except SightlineError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        if wish.entry is not None:
            raise backbones.too_small_or_fixed(wish.entry, size, str(error) or type(error).__name__) from error
        raise RequestError(f"{wish.name} cannot see images of {size[0]}×{size[1]} px ({error})") from error
    return network.eval()


def own_size(net: nn.Module) -> tuple[int, int] | None:
    """The (height, width) that a user's network says it sees, by its attribute `image_size`."""
    size = getattr(net, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[-2]), int(size[-1])) if isinstance(size, tuple | list) and len(size) >= 2 else None


def _behind(wish: NetworkSpec, found: str) -> tuple[str, ...]:
    """The modules that hold the classifier: as the library says, and as the cut found."""
    named = wish.entry.classifier if wish.entry is not None and wish.source == "timm" else ()
    return (*named, found) if found else named


def _in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{m}.") for m in modules)


def _load(net: nn.Module, wish: NetworkSpec, found: dict[str, Tensor], what: str, optional: tuple[str, ...]) -> None:
    """Put tensors in, under whichever library's names they come.

    Raises:
        WeightsError: A tensor does not fit.
    """
    renamings: list[Callable[[dict[str, Tensor]], dict[str, Tensor] | None]] = []
    if wish.entry is not None:
        renamings.append(functools.partial(_renamed, wish.entry))
        renamings.append(functools.partial(backbones.filtered, net))
    fitted = weights.fit(net.state_dict(), found, what, classifier=optional, renamings=renamings)
    net.load_state_dict(fitted, strict=False)


def _renamed(entry: NetworkEntry, found: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of the other library's twin under this library's names."""
    names = backbones.twin_names(entry)
    if sum(n in names for n in found) < len(found) / 2:
        return None
    return {names.get(n, n): v for n, v in found.items()}


def checked(network: Network, expected: str, what: str) -> Network:
    """The network, if its weights are the ones that a record names.

    Raises:
        WeightsError: They are others.
    """
    actual = weights.weights_hash(tensors(network))
    if expected and actual != expected:
        log.debug("%s: expected %s, found %s", what, expected, actual)
        raise WeightsError(f"the weights of {what} are not the ones that were used before", "describe or train it again")
    return network
