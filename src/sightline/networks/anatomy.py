"""What a network is made of: its layers in the order in which they run, their shapes, numbers and work."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sightline.errors import RequestError
from sightline.networks.counting import Counter, counted_attention
from sightline.networks.feature_cut import evaluation_mode

_LAYERS = (
    *(nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm),
    *(nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase),
)
"""Layers that stay one row where a library has put others inside, such as timm's BatchNorm with its activation."""
_STATISTICS = ("running_mean", "running_var")
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of a layer table.

    Args:
        name: As the network's state dict has it, such as `layer1.0.conv1`.
        type: The class of the module; `parameter` for one that a block of layers holds itself, such as a class token.
        output: Its shape for one image, without the batch; where the batch holds something else (windows), with it. None
            where nothing comes out in evaluation.
        parameters: Trainable and frozen numbers; 0 where an earlier row has them.
        trainable: Those of them that learn.
        statistics: Means and variances of BatchNorm.
        macs: Multiply–accumulates for one image.
    """

    name: str
    type: str
    output: tuple[int, ...] | None
    parameters: int = 0
    trainable: int = 0
    statistics: int = 0
    macs: int = 0


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The layers of a network, and their sums.

    Args:
        layers: In order of execution: each module without modules inside, once for each call, the identity left out; then
            what never runs in evaluation.
        parameters: Trainable and frozen numbers, the sum over the layers.
        trainable: Those that learn.
        statistics: Means and variances of BatchNorm; its counters of batches are counted nowhere.
        macs: Multiply–accumulates for one image; what no layer has is done between them (attention's two products).
        activation_bytes: Of the outputs of all layers for one image in float32; what a layer works on in place counts again.
        only_in_training: Parameters of what never runs in evaluation, such as auxiliary classifiers.
    """

    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    statistics: int
    macs: int
    activation_bytes: int
    only_in_training: int

    @classmethod
    def of(cls, layers: Sequence[Layer], macs: int, activation_bytes: int) -> Anatomy:
        """Layers with their sums."""
        return cls(
            tuple(layers),
            sum(layer.parameters for layer in layers),
            sum(layer.trainable for layer in layers),
            sum(layer.statistics for layer in layers),
            macs,
            activation_bytes,
            sum(layer.parameters for layer in layers if layer.output is None),
        )

    @property
    def macs_between(self) -> int:
        """Multiply–accumulates of operations that belong to no layer."""
        return self.macs - sum(layer.macs for layer in self.layers)


def anatomy(net: nn.Module, size: tuple[int, int], channels: int = 3) -> Anatomy:
    """Take a network apart by one forward pass in evaluation mode, on shapes alone where it can be done so.

    The pass runs on a copy on torch's meta device, which holds no numbers; a network whose shapes depend on numbers runs
    itself, and its mode, gradients and hooks are afterwards as they were.

    Args:
        net: Any network.
        size: (height, width) of the images.
        channels: Of the images.

    Raises:
        RequestError: It cannot see such images.
    """
    try:
        return _taken_apart(on_meta(net), torch.zeros((1, channels, *size), device="meta"))
    except Exception as error:  # whatever the network's own code raises about tensors without numbers
        device = next((t.device for t in (*net.parameters(), *net.buffers())), torch.device("cpu"))
        if device.type == "meta":
            raise _blind(net, size, error) from error
    try:
        return _taken_apart(net, torch.zeros((1, channels, *size), device=device))
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise _blind(net, size, error) from error


def _blind(net: nn.Module, size: tuple[int, int], error: Exception) -> RequestError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    what = f"{type(net).__name__} does not accept images of {size[0]}×{size[1]} px ({reason})"
    return RequestError(what, "is the image size right?")


def on_meta(net: nn.Module) -> nn.Module:
    """A copy of a network on torch's meta device: it shares nothing and holds no numbers."""
    memo: dict[int, Any] = {}
    for module in net.modules():
        plain = (v for v in vars(module).values() if isinstance(v, Tensor))
        for tensor in (*module._parameters.values(), *module._buffers.values(), *plain):
            if tensor is None or id(tensor) in memo:
                continue
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(net, memo)


# ------------------------------------------------------------------------------------------------------- one forward pass


@dataclass(slots=True)
class _Call:
    """One call of a module: what came out, and its own work."""

    module: nn.Module
    alone: bool
    output: tuple[int, ...] | None = None
    numbers: int = 0
    macs: int = 0


@dataclass(slots=True)
class _Frame:
    """A call that has begun: how much was recorded and counted before it, and what calls inside it counted."""

    module: nn.Module
    start: int
    before: int
    inside: int = 0
    calls: int = 0


@dataclass(slots=True)
class _Record:
    """What happens in a forward pass, in order: calls of modules, and the first use of each tensor of the network's own."""

    counter: Counter
    events: list[_Call | Tensor] = field(default_factory=list)
    called: set[nn.Module] = field(default_factory=set)
    frames: list[_Frame] = field(default_factory=list)

    def begin(self, module: nn.Module, _: Any) -> None:
        """A module is called."""
        if self.frames:
            self.frames[-1].calls += 1
        self.called.add(module)
        self.frames.append(_Frame(module, len(self.events), self.counter.macs))

    def end(self, module: nn.Module, _: Any, result: Any) -> None:
        """It has given its result."""
        while self.frames[-1].module is not module:  # those left by an exception that the network itself caught
            self.frames.pop()
        frame = self.frames.pop()
        spent = self.counter.macs - frame.before
        if self.frames:
            self.frames[-1].inside += spent
        if isinstance(module, nn.Identity) or (isinstance(module, nn.Sequential) and not len(module)):
            return
        if frame.calls == 0 or (isinstance(module, _LAYERS) and any(p is not None for p in module._parameters.values())):
            out = next((t for t in tree_leaves(result) if isinstance(t, Tensor)), None)
            shape = None if out is None else tuple(out.shape[1:] if out.ndim and out.shape[0] == 1 else out.shape)
            numbers = 0 if out is None else out.numel()
            # Before the layers inside it: it works first, they on what it gives.
            place = len(self.events) if frame.calls == 0 else frame.start
            self.events.insert(place, _Call(module, frame.calls == 0, shape, numbers, spent - frame.inside))


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records when tensors of the network's own are first used, also by functions that get them without their module."""

    def __init__(self, record: _Record, tensors: Mapping[int, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = record
        self.waiting = dict(tensors)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and id(value) in self.waiting:
                self.record.events.append(self.waiting.pop(id(value)))
        return function(*args, **(kwargs or {}))


def _taken_apart(net: nn.Module, x: Tensor) -> Anatomy:
    """The anatomy of a network that sees `x`; hooks are removed, also after an error."""
    counter = Counter()
    record = _Record(counter)
    handles = []
    try:
        for module in net.modules():
            handles.append(module.register_forward_pre_hook(record.begin))
            handles.append(module.register_forward_hook(record.end))
        with evaluation_mode(net), counted_attention(), counter, _Uses(record, {id(t): t for t in _own(net).values()}):
            net(x)
    finally:
        for handle in handles:
            handle.remove()
    layers, unused = _rows(net, record)
    numbers = sum(event.numbers for event in record.events if isinstance(event, _Call))
    return Anatomy.of((*layers, *unused), counter.macs, numbers * _FLOAT32_BYTES)


def _own(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics by name, each tensor once."""
    statistics = {n: b for n, b in net.named_buffers() if n.rpartition(".")[2] in _STATISTICS}
    return {**dict(net.named_parameters()), **statistics}


# ---------------------------------------------------------------------------------------------------------------- rows


def _rows(net: nn.Module, record: _Record) -> tuple[list[Layer], list[Layer]]:
    """What ran, and what did not; each tensor is in one row."""
    names = {id(t): n for n, t in _own(net).items()}
    modules = {m: n for n, m in net.named_modules()}
    used = {id(e) for e in record.events if isinstance(e, Tensor)}
    left = {id(t): t for t in _own(net).values()}
    claimed: dict[int, list[Tensor]] = {}
    for index, event in enumerate(record.events):
        if isinstance(event, _Call):
            claimed[index] = [left.pop(id(t)) for t in _tensors_of(event, used) if id(t) in left]
    rows: list[Layer] = []
    for index, event in enumerate(record.events):
        if isinstance(event, _Call):
            name = modules[event.module] or type(event.module).__name__
            rows.append(_layer(name, type(event.module).__name__, event.output, claimed[index], event.macs))
        elif id(event) in left:
            rows.append(_layer(names[id(event)], "parameter", tuple(event.shape), [left.pop(id(event))]))
    unused: dict[tuple[str, str], list[Tensor]] = {}
    for tensor in left.values():
        owner = net.get_submodule(names[id(tensor)].rpartition(".")[0])
        of_block = owner in record.called
        key = (names[id(tensor)], "parameter") if of_block else (modules[owner], type(owner).__name__)
        unused.setdefault(key, []).append(tensor)
    return rows, [_layer(name, kind, None, tensors) for (name, kind), tensors in unused.items()]


def _tensors_of(call: _Call, used: set[int]) -> Iterator[Tensor]:
    """What counts as a called module's own: its tensors, and of modules inside that were not called those it used itself."""
    yield from (t for t in (*call.module._parameters.values(), *call.module._buffers.values()) if t is not None)
    if call.alone:
        yield from (t for t in _own(call.module).values() if id(t) in used)


def _layer(name: str, kind: str, output: tuple[int, ...] | None, tensors: list[Tensor], macs: int = 0) -> Layer:
    parameters = [t for t in tensors if isinstance(t, nn.Parameter)]
    return Layer(
        name,
        kind,
        output,
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        sum(t.numel() for t in tensors if not isinstance(t, nn.Parameter)),
        macs,
    )


def feature_width(net: nn.Module, found: Anatomy) -> int | None:
    """How many numbers go into a network's last linear layer, or into the 1×1 convolution that stands for it."""
    told = getattr(net, "features", None)
    if isinstance(told, int):
        return told
    modules = dict(net.named_modules())
    named = (modules.get(layer.name) for layer in reversed(found.layers) if layer.output is not None and layer.parameters)
    last = next((m for m in named if m is not None), None)
    if isinstance(last, nn.Conv2d):
        return last.in_channels if last.kernel_size == (1, 1) else None
    return last.in_features if isinstance(last, nn.Linear) else None
