"""Layer tables: the layers of a network in order of execution, with output shapes, parameter counts and MACs."""

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
"""Layers that get a row of their own even if they contain other modules, such as timm's BatchNorm with its activation."""
_STATISTICS = ("running_mean", "running_var")
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of a layer table.

    Args:
        name: Name in the network's state dict, such as `layer1.0.conv1`.
        type: Class of the module; `parameter` for a parameter held by a block itself, such as a class token.
        output: Shape of the output for one image, without the batch dimension; with it if the batch holds something other than
            images, such as windows. None if the layer does not run in evaluation mode.
        parameters: Number of parameters, trainable and frozen; 0 if an earlier row counts them.
        trainable: Number of trainable parameters.
        statistics: Number of means and variances of BatchNorm.
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
    """The layers of a network with totals.

    Args:
        layers: Layers in order of execution: each module without children, once per call, except identities; then the layers
            that never run in evaluation mode.
        parameters: Number of parameters, trainable and frozen.
        trainable: Number of trainable parameters.
        statistics: Number of means and variances of BatchNorm, without its batch counters.
        macs: Multiply–accumulates for one image, including operations outside layers (the two products of attention).
        activation_bytes: Bytes of the outputs of all layers for one image in float32; in-place operations count again.
        only_in_training: Parameters that are unused in evaluation mode, such as those of auxiliary classifiers.
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
        """Build the table of layers with its totals."""
        return cls(
            layers=tuple(layers),
            parameters=sum(layer.parameters for layer in layers),
            trainable=sum(layer.trainable for layer in layers),
            statistics=sum(layer.statistics for layer in layers),
            macs=macs,
            activation_bytes=activation_bytes,
            only_in_training=sum(layer.parameters for layer in layers if layer.output is None),
        )

    @property
    def macs_between(self) -> int:
        """Multiply–accumulates of operations outside layers."""
        return self.macs - sum(layer.macs for layer in self.layers)


def anatomy(net: nn.Module, size: tuple[int, int], channels: int = 3) -> Anatomy:
    """List a network's layers by one forward pass in evaluation mode.

    The pass runs on a copy on torch's meta device, which holds shapes but no values. If the network needs values, the pass
    runs on the network itself, and its mode, gradients and hooks are restored.

    Args:
        net: Any network.
        size: (height, width) of the images in px.
        channels: Number of input channels.

    Raises:
        RequestError: If the network does not accept such images.
    """
    try:
        return _list_layers(on_meta(net), torch.zeros((1, channels, *size), device="meta"))
    except Exception as error:  # user-defined code may raise anything for tensors without values
        device = next((t.device for t in (*net.parameters(), *net.buffers())), torch.device("cpu"))
        if device.type == "meta":
            raise _wrong_size(net, size, error) from error
    try:
        return _list_layers(net, torch.zeros((1, channels, *size), device=device))
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise _wrong_size(net, size, error) from error


def _wrong_size(net: nn.Module, size: tuple[int, int], error: Exception) -> RequestError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    message = f"{type(net).__name__} does not accept images of {size[0]}×{size[1]} px ({reason})"
    return RequestError(message, "check the image size")


def on_meta(net: nn.Module) -> nn.Module:
    """Copy a network to torch's meta device, without values."""
    memo: dict[int, Any] = {}
    for module in net.modules():
        unregistered = (v for v in vars(module).values() if isinstance(v, Tensor))
        for tensor in (*module._parameters.values(), *module._buffers.values(), *unregistered):
            if tensor is None or id(tensor) in memo:
                continue
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(net, memo)


# ------------------------------------------------------------------------------------------------------- one forward pass


@dataclass(slots=True)
class _Call:
    """A call of a module, with the shape and size of its output and its MACs without those of inner calls.

    `leaf` tells whether it called no other modules.
    """

    module: nn.Module
    leaf: bool
    output: tuple[int, ...] | None = None
    numbers: int = 0
    macs: int = 0


@dataclass(slots=True)
class _Frame:
    """A running call: events and MACs recorded before it (`start`, `before`), and MACs and number of inner calls."""

    module: nn.Module
    start: int
    before: int
    inside: int = 0
    calls: int = 0


@dataclass(slots=True)
class _Record:
    """The events of a forward pass in order: calls of modules, and the first use of each of the network's tensors."""

    counter: Counter
    events: list[_Call | Tensor] = field(default_factory=list)
    called: set[nn.Module] = field(default_factory=set)
    frames: list[_Frame] = field(default_factory=list)

    def begin(self, module: nn.Module, _: Any) -> None:
        """Record the start of a call (forward pre-hook)."""
        if self.frames:
            self.frames[-1].calls += 1
        self.called.add(module)
        self.frames.append(_Frame(module, len(self.events), self.counter.macs))

    def end(self, module: nn.Module, _: Any, result: Any) -> None:
        """Record the end of a call (forward hook)."""
        while self.frames[-1].module is not module:  # left by an exception that the network caught
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
            # Inner layers come after it.
            place = len(self.events) if frame.calls == 0 else frame.start
            self.events.insert(place, _Call(module, frame.calls == 0, shape, numbers, spent - frame.inside))


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode that records the first use of each of the network's tensors, also in functions called outside their module."""

    def __init__(self, record: _Record, tensors: Mapping[int, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = record
        self.waiting = dict(tensors)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and id(value) in self.waiting:
                self.record.events.append(self.waiting.pop(id(value)))
        return function(*args, **(kwargs or {}))


def _list_layers(net: nn.Module, x: Tensor) -> Anatomy:
    """List a network's layers by a forward pass on `x`. Hooks are removed, also after an error."""
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
    """Return parameters and statistics by name, each tensor once."""
    statistics = {n: b for n, b in net.named_buffers() if n.rpartition(".")[2] in _STATISTICS}
    return {**dict(net.named_parameters()), **statistics}


# ---------------------------------------------------------------------------------------------------------------- rows


def _rows(net: nn.Module, record: _Record) -> tuple[list[Layer], list[Layer]]:
    """Return the layers that ran and those that did not; each tensor is counted in one row."""
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
    """Yield the tensors of a called module, and those of uncalled modules inside it that it used directly."""
    yield from (t for t in (*call.module._parameters.values(), *call.module._buffers.values()) if t is not None)
    if call.leaf:
        yield from (t for t in _own(call.module).values() if id(t) in used)


def _layer(name: str, kind: str, output: tuple[int, ...] | None, tensors: list[Tensor], macs: int = 0) -> Layer:
    parameters = [t for t in tensors if isinstance(t, nn.Parameter)]
    return Layer(
        name=name,
        type=kind,
        output=output,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        statistics=sum(t.numel() for t in tensors if not isinstance(t, nn.Parameter)),
        macs=macs,
    )


def feature_width(net: nn.Module, table: Anatomy) -> int | None:
    """Return the number of inputs of a network's last linear layer or of the 1×1 convolution in its place; None without one."""
    features = getattr(net, "features", None)
    if isinstance(features, int):
        return features
    modules = dict(net.named_modules())
    used = (modules.get(layer.name) for layer in reversed(table.layers) if layer.output is not None and layer.parameters)
    last = next((m for m in used if m is not None), None)
    if isinstance(last, nn.Conv2d):
        return last.in_channels if last.kernel_size == (1, 1) else None
    return last.in_features if isinstance(last, nn.Linear) else None
