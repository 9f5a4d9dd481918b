"""From a name to the `Backbone` record that says what it is. Answered from the cache, without torch, once it was asked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline.errors import RequestError, WeightsError, closest, unknown
from sightline.files import is_file
from sightline.networks import hub, index, names, user, weights
from sightline.networks.index import SPECIAL
from sightline.records import Backbone, Preprocess
from sightline.schema import from_json
from sightline.store import Cache, digest, plain

if TYPE_CHECKING:
    from sightline.networks.building import NetworkSpec
    from sightline.networks.network import Network

_FORMAT = 1
FILE_FEATURES = 5
"""What `file` tells of an image: size in bytes, width, height, brightness, JPEG quality."""
PIXELS_PX = 16
"""The side of the image for `pixels`: small, so that a fit is quick and its heatmap readable."""
_recent: dict[str, Network] = {}
"""The network that was measured last, by its description's identity: who asked what it is builds it next."""
_files: dict[str, Path] = {}
"""Files of weights that this process was given, by the hash of their tensors."""


@dataclass(frozen=True, slots=True)
class Default:
    """A network of the short list.

    Args:
        role: What it is there for.
        licence: Of its weights.
        why: Why this one.
    """

    role: Literal["quick", "strong", "foundation"]
    licence: str
    why: str


def describe(
    name: str | Callable[..., Any],
    *,
    weights: str | Path = "pretrained",
    image_size: int | None = None,
    fit: str | None = None,
    pool: str = "avg",
    seed: int = 0,
    cache: Cache | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Backbone:
    """What a network is: its preprocessing, map, features, weights, licence.

    The first time on a machine the network is built and measured; after that the cache answers without importing torch.

    Args:
        name: timm's or torchvision's name (`resnet50`, `resnet50.a1_in1k`), one of ours with arguments or without (`cnn`,
            `cnn(filters=[32, 64])`), `file.py:function`, a callable that returns an `nn.Module`, or `pixels`, `file`, `none`.
        weights: `pretrained` (a file in the folders of SIGHTLINE_WEIGHTS, else the published ones; what a network of the
            user's own comes with), `random`, or a file.
        image_size: Side of the square that it sees, in pixels; None takes the one its weights were trained at.
        fit: `crop`, `pad` or `squash`; None takes the weights' own.
        pool: `avg` for the network's own tail, `flatten` for the flattened map.
        seed: For random weights.
        cache: Where answers are kept; the user's own cache if None.
        arguments: Of the builder, for networks of ours.

    Raises:
        RequestError: The name is not known, or the network cannot see such images.
        WeightsError: The weights are absent, damaged, or do not fit.
    """
    cache = Cache() if cache is None else cache
    name, called = names.parse(name if isinstance(name, str) else user.register(name))
    arguments = {**called, **(arguments or {})}
    if fit not in (None, "crop", "pad", "squash"):
        raise unknown("fit", str(fit), ["crop", "pad", "squash"])
    if pool not in ("avg", "flatten"):
        raise unknown("pool", pool, ["avg", "flatten"])
    if image_size is not None and image_size < 1:
        raise RequestError(f"an image size of {image_size} px is not usable", "it is at least 1")
    if name in SPECIAL:
        return _fitted(_special(name, image_size), fit)
    file = _weights_file(name, weights)
    asked = _Question(name, str(weights), file, image_size, pool, seed, arguments)
    key = asked.key(cache)
    found = cache.read_json(f"networks/described/{key}") if key else None
    if found is None:
        backbone = _measure(asked, cache)
        if key:
            cache.write_json(f"networks/described/{key}", backbone)
    else:
        backbone = from_json(Backbone, found, "description of a network")
    if file is not None:
        _noted(backbone, file, cache)
    return _fitted(backbone, fit)


@dataclass(frozen=True, slots=True)
class _Question:
    """What decides an answer."""

    name: str
    weights: str
    file: Path | None
    image_size: int | None
    pool: str
    seed: int
    arguments: dict[str, Any]

    def key(self, cache: Cache) -> str | None:
        """Its identity; None where the code behind it has none, as for a callable."""
        code = user.code_identity(self.name) if user.is_user(self.name) else ""
        if code is None:
            return None
        source: list[Any] = [self.weights, self.seed]
        if self.file is not None:
            source = [self.file.name, weights.identity(self.file, cache)]
        versions = [index.version(p) for p in ("torch", "torchvision", "timm")]
        return digest([_FORMAT, self.name, source, self.image_size, self.pool, self.arguments, code, versions])


def _weights_file(name: str, wanted: str | Path) -> Path | None:
    """The file that the weights come from, None where they come from elsewhere."""
    if wanted == "random":
        return None
    if wanted == "pretrained":
        return None if user.is_user(name) else weights.look_up(name)
    file = Path(wanted)
    if is_file(file):
        return file
    match = closest(str(wanted), ["pretrained", "random"])
    hint = f"did you mean {match!r}?" if match else "it is `pretrained`, `random`, or a .safetensors or .pth file"
    raise WeightsError(f"there is no file of weights {wanted}", hint)


def _fitted(backbone: Backbone, fit: str | None) -> Backbone:
    if fit is None or fit == backbone.preprocess.fit:
        return backbone
    return replace(backbone, preprocess=replace(backbone.preprocess, fit=fit))  # type: ignore[arg-type]


def _special(name: str, image_size: int | None) -> Backbone:
    """The backbones that are no networks."""
    if name == "none":
        return Backbone("none", "none", Preprocess(), 0)
    if name == "file":
        return Backbone("file", "file", Preprocess(), FILE_FEATURES)
    side = image_size or PIXELS_PX
    seen = Preprocess(size=(side, side), crop_fraction=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    count = 3 * side * side
    return Backbone("pixels", "pixels", seen, count, pool="flatten", map_shape=(3, side, side), layout="nhwc")


# ------------------------------------------------------------------------------------------------------------- measuring


def _measure(asked: _Question, cache: Cache) -> Backbone:
    """Build the network, and write down what it is."""
    source, entry = names.source_of(asked.name, asked.arguments, cache)
    if entry is not None and asked.weights == "pretrained" and asked.file is None:
        hub.check(entry, asked.name)  # before torch is imported
    from sightline.networks import building

    seen = entry.preprocess if entry is not None else Preprocess(interpolation="bilinear")
    size = (asked.image_size, asked.image_size) if asked.image_size else None
    if size is None and source != "user":
        size = seen.size
    wish = building.NetworkSpec(asked.name, source, entry, size, asked.pool, asked.arguments)  # type: ignore[arg-type]
    network, told = _built(wish, asked)
    if source == "user":
        seen = _seen_by(network.net, seen)
        size = size or building.own_size(network.net) or seen.size
    from sightline.networks.network import tensors

    backbone = Backbone(
        name=asked.name,
        source=source,
        preprocess=replace(seen, size=size or seen.size),
        features=network.features,
        weights_hash=weights.weights_hash(tensors(network)),
        pool=network.pool,
        map_shape=network.map_shape,
        layout=network.layout,
        prefix=network.prefix,
        arguments=dict(plain(asked.arguments)),
        parameters=network.own_parameters(),
        **told,
    )
    _recent.clear()
    _recent[backbone.id] = network
    return backbone


def _built(wish: NetworkSpec, asked: _Question) -> tuple[Network, dict[str, str]]:
    """The network, and what is known of its weights: where from, licence, data."""
    from sightline.networks import building

    entry = wish.entry
    if asked.file is not None:
        network, classes = building.from_file(wish, asked.file)
        own = f"; its classifier of {classes:,} classes is not used" if classes else ""
        data = {1000: "probably ImageNet-1k (a classifier of 1,000 classes)"}.get(classes, "unknown")
        return network, {"weights": asked.file.name, "origin": f"the file {asked.file.name}{own}", "pretrained_on": data}
    if asked.weights == "random":
        told = {
            "weights": f"random:{asked.seed}",
            "licence": "none needed",
            "origin": "random numbers",
            "pretrained_on": "nothing",
        }
        return building.random(wish, asked.seed), told
    network = building.published(wish)
    if entry is None:
        return network, {"weights": "own", "origin": f"the code of {wish.name}", "pretrained_on": "unknown"}
    told = {"weights": f"{entry.source}:{entry.tag}", "licence": entry.licence, "pretrained_on": entry.pretrained_on}
    return network, told | {"origin": hub.address(entry)}


def _seen_by(net: Any, seen: Preprocess) -> Preprocess:
    """What a user's network says of its input: timm's `pretrained_cfg`, or attributes `mean` and `std`."""
    config = getattr(net, "pretrained_cfg", None) or {}
    values: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = getattr(net, key, None)
        value = value if isinstance(value, tuple | list) else config.get(key)
        if value is not None and len(value) == 3:
            values[key] = tuple(float(np.float64(v)) for v in value)
    if config.get("interpolation") in ("bilinear", "bicubic", "lanczos", "nearest"):
        values["interpolation"] = config["interpolation"]
    if "crop_pct" in config:
        values["crop_fraction"] = float(config["crop_pct"])
    if "input_size" in config:
        values["size"] = tuple(config["input_size"][1:])
    return replace(seen, **values)


# -------------------------------------------------------------------------------------------------------------- building


def build(
    backbone: Backbone,
    *,
    weights_file: str | Path | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    classifier: bool = False,
    cache: Cache | None = None,
) -> Network:
    """The network that a record names, in evaluation mode, weights in.

    Args:
        backbone: What `describe` gave, or a classifier's card.
        weights_file: A file to take the weights from.
        tensors: The weights themselves, as `tensors(network)` gave them. Without either they are found again by what the
            record says of them, and must be the very same.
        classifier: Whether to keep the network's own classifier, for `Network.logits`.
        cache: Where it was noted where files lie; the user's own cache if None.

    Raises:
        WeightsError: The weights are absent, do not fit, or are not the ones that the record names.
    """
    if backbone.source in ("none", "file", "ensemble"):
        raise RequestError(f"the backbone {backbone.name!r} is no network", "there is nothing to build")
    if tensors is None and weights_file is None and not classifier and backbone.id in _recent:
        return _recent.pop(backbone.id).eval()
    from sightline.networks import building

    cache = Cache() if cache is None else cache
    entry = index.find(backbone.name, cache) if backbone.source in ("timm", "torchvision") else None
    if entry is None and backbone.source in ("timm", "torchvision"):
        raise RequestError(
            f"this {backbone.source} knows no network {backbone.name!r}", f"pip install --upgrade {backbone.source}"
        )
    wish = building.NetworkSpec(
        backbone.name,
        backbone.source,  # type: ignore[arg-type]
        entry,
        backbone.preprocess.size,
        backbone.pool,
        backbone.arguments,
        classifier,
    )
    if backbone.source == "pixels":
        return building.random(wish, 0)
    if tensors is not None:
        return building.from_tensors(wish, tensors)
    if weights_file is not None:
        return building.from_file(wish, Path(weights_file))[0]
    return _found_again(wish, backbone, cache)


def whole(backbone: Backbone, *, cache: Cache | None = None) -> tuple[Backbone, Network]:
    """The same network with its own classifier as a part of its tail: its features are its scores.

    Args:
        backbone: As `describe` gave it.
        cache: Where it is noted where files lie; the user's own cache if None.

    Raises:
        WeightsError: The weights are absent, do not fit, or bring no classifier.
    """
    from sightline.networks.network import tensors

    cache = Cache() if cache is None else cache
    network = build(replace(backbone, pool="scores"), classifier=True, cache=cache)
    described = replace(
        backbone,
        pool="scores",
        features=network.features,
        weights_hash=weights.weights_hash(tensors(network)),
        map_shape=network.map_shape,
        layout=network.layout,
        prefix=network.prefix,
        parameters=network.own_parameters(),
    )
    if backbone.weights_hash in _files:
        _noted(described, _files[backbone.weights_hash], cache)
    return described, network


def _noted(backbone: Backbone, file: Path, cache: Cache) -> None:
    """Note where the file of a network's weights lies."""
    _files[backbone.weights_hash] = file
    place = f"networks/places/{backbone.weights_hash}"
    if cache.read_json(place) != str(file.resolve()):
        cache.write_json(place, str(file.resolve()))


def _found_again(wish: NetworkSpec, backbone: Backbone, cache: Cache) -> Network:
    """The network with the weights that a record names, which are looked for where they were."""
    from sightline.networks import building

    what = backbone.weights
    if what.startswith("random:"):
        network = building.random(wish, int(what.removeprefix("random:")))
    elif what == "own" or what.startswith(("timm:", "torchvision:")):
        network = building.published(wish)
    elif what.endswith(weights.SUFFIXES):
        network = building.from_file(wish, _place(backbone, cache))[0]
    else:
        hint = "load the classifier that was trained with them"
        raise WeightsError(f"the weights of {backbone.name} ({what or 'none named'}) exist only in a classifier's file", hint)
    # With its own classifier in, the tensors are more than the record names.
    return network if wish.classifier else building.checked(network, backbone.weights_hash, f"{backbone.name} ({what})")


def _place(backbone: Backbone, cache: Cache) -> Path:
    """The file that a record names, where it was when it was described, or in the named folders."""
    noted = cache.read_json(f"networks/places/{backbone.weights_hash}")
    for file in (_files.get(backbone.weights_hash), Path(noted) if noted else None, weights.look_up(backbone.weights)):
        if file is not None and file.is_file():
            return file
    hint = f"put {backbone.weights} in a folder, and set {weights.VARIABLE} to that folder"
    raise WeightsError(f"the weights of {backbone.name} ({backbone.weights}) are not on this machine", hint)


DEFAULTS: dict[str, Default] = {
    "mobilenetv2_100": Default(
        "quick",
        "apache-2.0",
        "3.5 M parameters; the fastest here at its accuracy; its tail is a mean, so heatmaps are exact and free",
    ),
    "convnext_tiny.in12k_ft_in1k": Default(
        "strong",
        "apache-2.0",
        "28 M parameters; 84 % on ImageNet at 224 px after pretraining on 12,000 classes: broad features, still fit for a CPU",
    ),
    "vit_small_patch14_reg4_dinov2.lvd142m": Default(
        "foundation",
        "apache-2.0",
        "22 M parameters; trained on 142 M images without labels; strong under a linear head, at 224 px affordable on a CPU",
    ),
}
