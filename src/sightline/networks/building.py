"""Build a network and load its weights: random, published, from a file, or from the tensors of a classifier."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from sightline.errors import RequestError, SightlineError, WeightsError
from sightline.networks import backbones, hub, installed, names, user, weights
from sightline.networks.classics import CLASSICS, check_arguments
from sightline.networks.entry import NetworkEntry
from sightline.networks.installed import InstalledWeights
from sightline.networks.network import Network, Pixels, parse, tensors
from sightline.records import Preprocess
from sightline.store import Cache, log


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Specification of a network to build.

    Args:
        name: Name of the network.
        source: What builds it.
        entry: Library entry, for timm's and torchvision's networks.
        size: (height, width) of the images in px; None for the size that a user-defined network declares.
        pool: `avg`, `flatten` or `scores`; see `network.Network`.
        arguments: Arguments of the builder; for a library's network only `classes`.
        classifier: Whether to keep the network's own classifier.
    """

    name: str
    source: Literal["timm", "torchvision", "sightline", "user", "pixels"]
    entry: NetworkEntry | None
    size: tuple[int, int] | None
    pool: Literal["avg", "flatten", "scores"] = "avg"
    arguments: Mapping[str, Any] | None = None
    classifier: bool = False


def random(spec: NetworkSpec, seed: int) -> Network:
    """Build a network with random weights drawn from the seed."""
    with backbones.seeded(seed):
        net = _uncut(spec)
    return _cut(net, spec, classifier=spec.classifier)


def published(spec: NetworkSpec) -> Network:
    """Build a network with its published weights, downloaded if needed; a user-defined network as its code builds it.

    Raises:
        WeightsError: If no weights were published, or they are not on this machine and cannot be downloaded.
    """
    if spec.entry is None:
        if spec.source == "user":
            return random(spec, 0)
        hint = "train it with --methods scratch, or use --weights random or FILE"
        raise WeightsError(f"no weights of {spec.name} were published", hint)  # only timm and torchvision publish weights
    hub.check(spec.entry, spec.name)
    file = hub.here(spec.entry) or hub.fetch(spec.entry, spec.name)
    classifier = spec.classifier or spec.pool == "scores"
    net = backbones.create(spec.entry, _size(spec), classifier=classifier, file=str(file))
    return _cut(net, spec, classifier=spec.classifier)


def from_file(spec: NetworkSpec, file: Path) -> tuple[Network, int]:
    """Build a network with the weights of a file; also return the number of classes of the file's classifier (0 for none).

    Raises:
        WeightsError: If the file is damaged, or its tensors do not fit the network.
    """
    state = weights.read(file)
    network = _with_tensors(spec, state, str(file))
    modules = _classifier_modules(spec, network.classifier)
    classes = next((int(v.shape[0]) for k, v in state.items() if _in(k, modules) and k.endswith("weight")), 0)
    return network, classes


def from_package(spec: NetworkSpec, packaged: InstalledWeights, cache: Cache) -> Network:
    """Build a network with the weights in an installed package.

    Raises:
        WeightsError: If the package is missing, its file is not the expected one, or its tensors do not fit the network.
    """
    return _with_tensors(spec, installed.read(packaged, cache), packaged.requirement)


def from_tensors(spec: NetworkSpec, arrays: Mapping[str, np.ndarray]) -> Network:
    """Build a network with the weights stored in a classifier's file.

    Raises:
        WeightsError: If they do not fit the network.
    """
    return _with_tensors(spec, parse(dict(arrays)), "the classifier's file")


def _with_tensors(spec: NetworkSpec, state: dict[str, Tensor], source: str) -> Network:
    """Build a network and load tensors by name; `source` names them in error messages."""
    if spec.source == "timm" and spec.entry is not None and spec.pool != "scores":
        net = backbones.create(spec.entry, _size(spec), classifier=spec.classifier, drawn=False)
        _load(net, spec, state, source, optional=() if spec.classifier else _classifier_modules(spec, ""))
        return _cut(net, spec, classifier=spec.classifier)
    with backbones.seeded(0):
        net = _uncut(spec)
    network = _cut(net, spec, classifier=spec.classifier)
    _load(net, spec, state, source, optional=() if spec.classifier else _classifier_modules(spec, network.classifier))
    return network


def _size(spec: NetworkSpec) -> tuple[int, int]:
    return spec.size if spec.size is not None else Preprocess().size


def _uncut(spec: NetworkSpec) -> nn.Module:
    """Build the uncut network with random weights."""
    if spec.source == "pixels":
        return Pixels()
    if spec.entry is not None and spec.pool == "scores":
        return backbones.create_with_classifier(spec.entry, _size(spec), classes=(spec.arguments or {}).get("classes"))
    if spec.entry is not None:
        return backbones.create(spec.entry, _size(spec), classifier=spec.classifier)
    if spec.source == "user":
        classes = (spec.arguments or {}).get("classes")
        return user.build(spec.name, None if spec.size is None else spec.size[0], classes)
    return classic(spec.name, {"image_size": _size(spec)[0], "channels": 3, **(spec.arguments or {})})


def classic(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build one of `CLASSICS` with random weights.

    Raises:
        RequestError: If an argument has an unknown name, or a type or value that the network does not accept.
    """
    check_arguments(name, arguments)
    try:
        return CLASSICS[name].build(**arguments)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{names.spell(name, arguments)} cannot be built ({error})", "see `sightline networks`") from error


def _cut(net: nn.Module, spec: NetworkSpec, *, classifier: bool) -> Network:
    """Wrap a network in `Network`, in evaluation mode.

    Raises:
        RequestError: If the network does not accept images of that size.
    """
    size = spec.size or own_size(net) or Preprocess().size
    patch = backbones.patch_px(net)
    if spec.entry is not None and (size[0] % patch or size[1] % patch):
        raise backbones.too_small_or_fixed(spec.entry, size, f"its patch size is {patch} px", patch)
    try:
        network = Network(net, size, pool=spec.pool, classifier=classifier)
    except SightlineError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        if spec.entry is not None:
            raise backbones.too_small_or_fixed(spec.entry, size, str(error) or type(error).__name__) from error
        raise RequestError(f"{spec.name} does not accept images of {size[0]}×{size[1]} px ({error})") from error
    return network.eval()


def own_size(net: nn.Module) -> tuple[int, int] | None:
    """Return the (height, width) in a user-defined network's attribute `image_size`, or None without one."""
    size = getattr(net, "image_size", None)
    if isinstance(size, int):
        return size, size
    return (int(size[-2]), int(size[-1])) if isinstance(size, tuple | list) and len(size) >= 2 else None


def _classifier_modules(spec: NetworkSpec, classifier: str) -> tuple[str, ...]:
    """Return the names of the modules of the classifier: those of the library entry, and the one that the cut found."""
    modules = spec.entry.classifier if spec.entry is not None and spec.source == "timm" else ()
    return (*modules, classifier) if classifier else modules


def _in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{m}.") for m in modules)


def _load(net: nn.Module, spec: NetworkSpec, state: dict[str, Tensor], source: str, optional: tuple[str, ...]) -> None:
    """Load tensors whose names follow timm or torchvision; modules in `optional` may be missing.

    Raises:
        WeightsError: If a tensor does not fit.
    """
    renamings: list[Callable[[dict[str, Tensor]], dict[str, Tensor] | None]] = []
    if spec.entry is not None:
        renamings.append(functools.partial(_renamed, spec.entry))
        renamings.append(functools.partial(backbones.filtered, net))
    fitted = weights.fit(net.state_dict(), state, source, classifier=optional, renamings=renamings)
    net.load_state_dict(fitted, strict=False)


def _renamed(entry: NetworkEntry, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Rename tensors from the other library's key names to this one's; None if most names are not the other library's."""
    names = backbones.other_library_names(entry)
    if sum(n in names for n in state) < len(state) / 2:
        return None
    return {names.get(n, n): v for n, v in state.items()}


def checked(network: Network, expected: str, name: str) -> Network:
    """Return the network after checking the hash of its weights; an empty `expected` is not checked.

    Raises:
        WeightsError: If the hash differs.
    """
    actual = weights.weights_hash(tensors(network))
    if expected and actual != expected:
        log.debug("%s: expected %s, found %s", name, expected, actual)
        raise WeightsError(f"the weights of {name} are not the ones that were used before", "describe or train it again")
    return network
