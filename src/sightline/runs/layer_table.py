"""Layer tables: the layers of a network, a recipe, a run or a classifier, and which of them are trainable."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline import classifier, heads, networks, studies
from sightline.errors import RequestError
from sightline.inputs import read_recipe
from sightline.networks import names, user
from sightline.networks.index import SPECIAL
from sightline.records import Backbone, Head, Recipe
from sightline.schema import from_json
from sightline.store import Cache
from sightline.training import methods
from sightline.training.methods import scratch, warmstart

if TYPE_CHECKING:
    from torch import nn

    from sightline.networks.anatomy import Anatomy, Layer
    from sightline.networks.network import Network
    from sightline.networks.transfer import Base

CLASSES = 2
"""Default number of classes of a recipe or a new head."""
NOTHING, ALL = "none", "all"
"""Values of `unfreeze` besides a number of stages and the name of a stage: no stage, all stages."""

Subject = str | Path | Callable[..., Any]
Units = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Layers of a network with their totals.

    Args:
        name: Name of the network.
        anatomy: Its layers, and their totals.
        net: The network; None if there is only a head.
        size: (height, width) of the images, in pixels; (0, 0) if no image is used.
        channels: Number of channels of its input.
        classes: Number of classes; 1 is one sigmoid unit for two classes.
        features: Width of the input of the last layer.
        own: For a base with a new head: number of parameters of the network with its original classifier.
        head: Number of parameters of the head; None if the network has its original classifier.
        notes: Notes, in sentences.
    """

    name: str
    anatomy: Anatomy
    net: nn.Module | None
    size: tuple[int, int]
    channels: int
    classes: int
    features: int | None
    own: int | None = None
    head: int | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class SummarySpec:
    """Options of a layer table beside the name of the network."""

    image_size: int | None
    classes: int | None
    pool: str | None
    head: Units | None
    code: str | None
    cache: Cache


def kind_of(subject: Subject) -> str:
    """Return the kind of a subject: `recipe`, `model` or `network`."""
    if not isinstance(subject, str | Path):
        return "network"
    path = Path(subject)
    if path.suffix.lower() == ".toml":
        return "recipe"
    if path.suffix.lower() == ".safetensors" or (path / "run.json").is_file() or (path / "classifier.safetensors").is_file():
        return "model"
    return "network"


def layer_table(subject: Subject, wish: SummarySpec) -> LayerTable:
    """Return the layer table of a network, recipe, run or classifier.

    Raises:
        RequestError: If the subject does not exist, or an option does not apply to it.
    """
    kind = kind_of(subject)
    if kind == "network":
        if isinstance(subject, str | Path) and Path(subject).is_dir():
            hint = "name a network, a recipe (.toml), a run's folder, or a classifier (.safetensors)"
            raise RequestError(f"{subject} is a folder without a classifier", hint)
        name = str(subject) if isinstance(subject, Path) else subject
        return _network(name, wish) if wish.head is None else _with_head(name, wish.head, wish)
    if wish.head is not None:
        raise RequestError(f"--head needs a network name; {subject} already has a head", "name its network instead")
    if kind == "recipe":
        return _recipe(read_recipe(Path(str(subject))), wish)
    for option, value in (("--classes", wish.classes), ("--image-size", wish.image_size)):
        if value is not None:
            raise RequestError(f"{option} {value} cannot be set for {subject}, which is already trained", f"leave out {option}")
    return _model(Path(str(subject)), wish)


def of_the_other(subject: Subject, wish: SummarySpec) -> SummarySpec:
    """Return the options that apply to the second subject of a comparison."""
    kind = kind_of(subject)
    if kind == "network":
        return wish
    without = dataclasses.replace(wish, head=None, pool=None)
    return without if kind == "recipe" else dataclasses.replace(without, classes=None, image_size=None)


def _network(name: str | Callable[..., Any], wish: SummarySpec, channels: int | None = None) -> LayerTable:
    """Return the layer table of a network with its original classifier."""
    from sightline.networks.anatomy import anatomy, feature_width

    def built(meta: bool) -> tuple[networks.RandomNetwork, Anatomy]:
        made = networks.random_network(
            name, image_size=wish.image_size, classes=wish.classes, channels=channels, meta=meta, cache=wish.cache
        )
        return made, anatomy(made.net, made.size, made.channels)

    own = not isinstance(name, str) or user.is_user(name)
    try:
        made, found = built(not own)
    except RequestError:
        if own:
            raise
        made, found = built(False)  # its shapes depend on numbers; or the error is the same
    width = feature_width(made.net, found)
    return LayerTable(made.name, found, made.net, size=made.size, channels=made.channels, classes=made.classes, features=width)


def _with_head(name: str | Callable[..., Any], units: Units, wish: SummarySpec) -> LayerTable:
    """Return the layer table of a network without its classifier and with a new head."""
    from sightline.networks.transfer import Transfer, dense, taken_apart

    whole = _network(name, dataclasses.replace(wish, classes=None))
    base, _ = _base(name, wish.image_size, wish.pool or "avg", wish.cache)
    classes = wish.classes or CLASSES
    head = dense(base.features, units, classes)
    net, found = taken_apart(Transfer(base, head), base)
    count = sum(p.numel() for p in head.parameters())
    notes = () if wish.classes else (f"the new head has {CLASSES} classes; set another number with --classes",)
    return LayerTable(
        whole.name,
        found,
        net,
        size=base.size,
        channels=base.channels,
        classes=classes,
        features=base.features,
        own=whole.anatomy.parameters,
        head=count,
        notes=notes,
    )


def _recipe(recipe: Recipe, wish: SummarySpec) -> LayerTable:
    """Return the layer table of a recipe, with the parameters that its method trains."""
    settings = studies.build(recipe)
    method = methods.method_of(recipe)
    if method.network == "members":
        return _ensemble(recipe, settings, wish)
    if method.network == "classifier":
        return _warmstart(recipe, settings, wish)
    classes, notes = wish.classes or CLASSES, []
    if wish.classes is None:
        notes.append(f"counted for {CLASSES} classes; set another number with --classes")
    if method.network == "random":
        found = _scratch(recipe, wish, classes)
        return dataclasses.replace(found, notes=(*found.notes, *notes))
    side = wish.image_size or recipe.image_size
    name = method.fixed_backbone or recipe.backbone
    learning = settings.get("unfreeze", NOTHING)
    backbone: Backbone | None = None
    base, names_ = None, None
    if name in SPECIAL:
        if method.by_epochs:
            raise RequestError(
                f"{recipe.method} needs a network, and {name!r} is not one", "name one that `sightline networks` lists"
            )
        backbone = networks.describe(name, image_size=side, cache=wish.cache)
        width = backbone.features
    else:
        base, names_ = _base(name, side, recipe.pool, wish.cache, learning)
        width = base.features
    kind = method.fixed_head or recipe.head
    if method.by_epochs:
        row = _layered_head(settings["head"] or (), width, max(classes, 2))
    else:
        if kind == "auto":
            kind = "logistic"
            notes.append('head = "auto" compares several heads; parameters are counted for logistic')
        row = _planned_head(kind, width, max(classes, 2), settings.get("head") or {})
    row = dataclasses.replace(row, trainable=0) if settings.get("head_rate") == 0 else row
    return _on_base(name, backbone, base, row, tuple(notes), names_)


def _ensemble(recipe: Recipe, settings: Mapping[str, Any], wish: SummarySpec) -> LayerTable:
    """Return the layer table of one member of an ensemble that is trained with several seeds."""
    if settings["members"]:
        named = ", ".join(settings["members"])
        raise RequestError(f"the recipe is an ensemble ({named}), which has no layers of its own", "name one of its members")
    given = {"seed": recipe.seed, "image_size": recipe.image_size, "fit": recipe.fit, **settings["recipe"]}
    found = _recipe(from_json(Recipe, given, "recipe of the ensemble"), wish)
    note = f"the ensemble has {settings['seeds']} of these, each trained with another seed"
    return dataclasses.replace(found, notes=(*found.notes, note))


def _warmstart(recipe: Recipe, settings: Mapping[str, Any], wish: SummarySpec) -> LayerTable:
    """Return the layer table of an earlier classifier's network with its head, which is trained further, or a new head."""
    warmstart.check_file(recipe)
    path = Path(recipe.backbone)
    loaded, network = _loaded(path, wish)
    if network is None:
        raise RequestError(f"the classifier {path} has no network", "name a classifier with a network")
    classes = wish.classes or len(loaded.classes)
    notes = () if wish.classes else (f"counted for the {classes} classes of {path}; set another number with --classes",)
    units = heads.hidden(loaded.head) if settings["head"] is None else settings["head"]
    row = _layered_head(units or (), network.features, classes)
    row = dataclasses.replace(row, trainable=0) if settings.get("head_rate") == 0 else row
    learning = _learning_names(network, settings.get("unfreeze", NOTHING))
    return _on_base(spelled(loaded.card.backbone), loaded.card.backbone, _base_of(network), row, notes, learning)


def _scratch(recipe: Recipe, wish: SummarySpec, classes: int) -> LayerTable:
    from sightline.training import fit_network

    settings = scratch.settings_of(recipe)
    side = wish.image_size or recipe.image_size
    if side is None and names.parse(settings.network)[0] == "cnn":
        side = fit_network.IMAGE_SIZE
    name = fit_network.called(settings.network, side) if side is not None else settings.network
    bare, arguments = names.parse(name)
    channels = None if "channels" in arguments or user.is_user(bare) else 3
    return _network(name, dataclasses.replace(wish, image_size=side, classes=classes), channels)


def _base(
    name: str | Callable[..., Any], side: int | None, pool: str, cache: Cache, learning: int | str = NOTHING
) -> tuple[Base, frozenset[str] | None]:
    """Return a network up to its features, without pretrained weights, and its trainable parameters as in `_learning_names`."""
    from sightline.networks import transfer

    made = networks.random_network(name, image_size=side, meta=True, cache=cache)
    found = transfer.declared(made.net, made.size, flat=pool == "flatten")
    if found is not None and learning in (NOTHING, ALL):
        return found, frozenset() if learning == NOTHING else None
    # Without a declared cut, the cut and the stages are found by forward passes, which need weights.
    made = networks.random_network(name, image_size=side, cache=cache)
    network = networks.Network(made.net, made.size, pool=pool)  # type: ignore[arg-type]
    return _base_of(network), _learning_names(network, learning)


def _base_of(network: Network) -> Base:
    """Return the base of a network: its layers up to the features."""
    from sightline.networks.transfer import base_of

    return base_of(network)


def _learning_names(network: Network, learning: int | str) -> frozenset[str] | None:
    """Return the names of the trainable parameters of a network; None for all.

    Args:
        network: The network; `requires_grad` of its parameters is set.
        learning: As `unfreeze` in `finetune`: a number of stages or the name of one; or `NOTHING`, or `ALL`.

    Raises:
        RequestError: If there is no such stage.
    """
    if learning == ALL:
        return None
    if learning == NOTHING:
        return frozenset()
    network.unfreeze(learning)
    return frozenset(name for name, parameter in network.net.named_parameters() if parameter.requires_grad)


def _loaded(path: Path, wish: SummarySpec) -> tuple[classifier.Classifier, Network | None]:
    """Return the classifier in a file, and its network if it has one.

    Raises:
        RequestError: If it is an ensemble, or its network is user-defined code and no code is given.
    """
    loaded = classifier.load(path, code=wish.code)
    card, backbone = loaded.card, loaded.card.backbone
    if loaded.members:
        members = ", ".join(c.backbone.name for c in card.members)
        raise RequestError(f"{path} is an ensemble ({members}), which has no layers of its own", "name one of its members")
    if not backbone.is_network:
        return loaded, None
    if backbone.source == "user" and wish.code is None:
        hint = f"pass the code if you trust it: --code {backbone.name}"
        raise RequestError(
            f"the network in {path} is user-defined code ({backbone.name}), which is not stored in the file", hint
        )
    named = backbone if wish.code is None or backbone.source != "user" else dataclasses.replace(backbone, name=wish.code)
    return loaded, networks.build(named, tensors=loaded.tensors or None, cache=wish.cache)


def spelled(backbone: Backbone) -> str:
    """The name and arguments of a classifier's network."""
    arguments = {k: v for k, v in backbone.arguments.items() if k not in ("channels", "classes", "image_size")}
    return names.spell(backbone.name, arguments)


def _model(path: Path, wish: SummarySpec) -> LayerTable:
    """Return the layer table of a classifier file, with the parameters that its training changed."""
    loaded, network = _loaded(path, wish)
    card, backbone = loaded.card, loaded.card.backbone
    row = _fitted_head(loaded.head, sigmoid=backbone.arguments.get("classes") == 1)
    if network is None:
        return _on_base(spelled(backbone), backbone, None, row, (), None)
    settings = studies.build(card.recipe)
    learning = settings.get("unfreeze", ALL if methods.METHODS[card.method].network == "random" else NOTHING)
    if backbone.weights != "run":  # fine-tuning did not help, so the network is the one that it began with
        learning = NOTHING
    row = dataclasses.replace(row, trainable=0) if settings.get("head_rate") == 0 else row
    return _on_base(spelled(backbone), backbone, _base_of(network), row, (), _learning_names(network, learning))


def _on_base(
    name: str,
    backbone: Backbone | None,
    base: Base | None,
    head: Layer,
    notes: tuple[str, ...],
    learning: frozenset[str] | None,
) -> LayerTable:
    """Return the layer table of a base and a head.

    Args:
        name: Name of the network.
        backbone: Record of the backbone, if there is one.
        base: The base; None if there is no network.
        head: Row of the head.
        notes: Notes, in sentences.
        learning: Names of the trainable parameters of the base; None for all.
    """
    from sightline.networks.anatomy import Anatomy
    from sightline.networks.transfer import Transfer, taken_apart

    assert head.output is not None
    classes = head.output[0]
    if base is None:
        assert backbone is not None
        inputs = {"none": "no features", "file": "properties of the file"}.get(backbone.source, "the pixels of the image")
        notes = (f"there is no network: the head is fitted on {inputs}", *notes)
        size = backbone.preprocess.size if backbone.source == "pixels" else (0, 0)
        only = Anatomy.of([head], head.macs, 4 * classes)
        width, own = backbone.features, head.parameters
        return LayerTable(name, only, None, size=size, channels=3, classes=classes, features=width, head=own, notes=notes)
    sizes = {n: p.numel() for n, p in base.net.named_parameters()}
    net, found = taken_apart(Transfer(base), base)
    count: int | None = None
    rows = [dataclasses.replace(row, trainable=_learnt(row, sizes, learning)) for row in found.layers]
    if heads.HEADS[head.type].layers is None:
        notes = (*notes, f"the stored values of a {head.type} head are not counted as parameters")
    if backbone is None or backbone.pool != "scores":  # with "scores", the scores of the network are the logits
        found = Anatomy.of([*rows, head], found.macs + head.macs, found.activation_bytes + 4 * classes)
        count = head.parameters
    else:
        found = Anatomy.of(rows, found.macs, found.activation_bytes)
    return LayerTable(
        name,
        found,
        net,
        size=base.size,
        channels=base.channels,
        classes=classes,
        features=base.features,
        head=count,
        notes=notes,
    )


def _learnt(row: Layer, sizes: Mapping[str, int], learning: frozenset[str] | None) -> int:
    """Return the number of trainable parameters of a layer.

    Args:
        row: The layer; if it runs again, its second row has none.
        sizes: Number of values of each parameter of the network, by name.
        learning: Names of the trainable parameters; None for all.
    """
    if learning is None or not row.parameters:
        return row.parameters
    return sum(size for n, size in sizes.items() if n in learning and (n == row.name or n.startswith(f"{row.name}.")))


# ------------------------------------------------------------------------------------------------------------- heads


def _head_row(kind: str, classes: int, widths: Sequence[int]) -> Layer:
    """Return the row of a head with these widths from features to classes; () for a head without parameters."""
    from sightline.networks.anatomy import Layer

    count = heads.layer_parameters(widths)
    macs = sum(a * b for a, b in itertools.pairwise(widths))
    return Layer("head", kind, (classes,), parameters=count, trainable=count, macs=macs)


def _planned_head(kind: str, width: int, classes: int, settings: Mapping[str, Any]) -> Layer:
    """Return the row of the head that a recipe will fit."""
    heads.check_name(kind)
    parsed, hidden = heads.settings_of(kind, settings), heads.HEADS[kind].hidden
    return _head_row(kind, classes, () if hidden is None else [width, *(u for u, _ in hidden(parsed)), classes])


def _layered_head(units: Units, width: int, classes: int) -> Layer:
    """Return the row of the head of linear layers that training on pixels will fit."""
    return _head_row(heads.with_units(units)[0], classes, [width, *(u for u, _ in units), classes])


def _fitted_head(head: Head, *, sigmoid: bool) -> Layer:
    """Return the row of a classifier's head; for one trained as a single sigmoid unit that unit alone, without its zeros."""
    weights = [layer for layer, _ in heads.layers(head) or ()]
    if not weights:
        return _head_row(head.kind, head.classes, ())
    return _head_row(head.kind, head.classes, [int(weights[0].shape[1]), *(1 if sigmoid else int(w.shape[0]) for w in weights)])
