"""Data flow of a network: every operation with its inputs and the module in which it ran.

The network runs once, on torch's meta device if possible. Functions are recorded by a torch function mode, modules by hooks,
and tensors are followed by identity. This also works for networks that `torch.fx` cannot trace.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sightline.errors import RequestError
from sightline.networks.feature_cut import evaluation_mode
from sightline.networks.picture import operations
from sightline.networks.picture.operations import Kind


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a module that has children.

    Args:
        name: Path of the module, "" for the network itself.
        type: Class of the module.
        parent: Index of the enclosing call, -1 for the network itself.
        heads: Its attribute `num_heads`, 0 without one.
    """

    name: str
    type: str
    parent: int
    heads: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """An operation: a module without children, or a function called outside such a module.

    Args:
        kind: See `operations.Kind`.
        label: Short label such as "7×7 conv, 64, /2".
        path: Path of the module, or of the module whose `forward` called the function.
        within: Indices of the enclosing calls, outermost first.
        shape: Shape of its (first) output without the batch dimension.
        inputs: Indices of the operations whose outputs it takes, in order of use, each once.
    """

    kind: Kind
    label: str
    path: str
    within: tuple[int, ...]
    shape: tuple[int, ...]
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """The data flow of a network as a directed acyclic graph.

    Args:
        nodes: Operations in order of execution; the first is the image.
        calls: Calls of modules with children, in order; the first is that of the network.
        outputs: Indices of the operations whose outputs the network returns.
    """

    nodes: tuple[Node, ...]
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]


def dataflow(net: nn.Module, size: tuple[int, int], channels: int = 3) -> Flow:
    """Record the data flow of a network in evaluation mode.

    Its mode, hooks, gradients and weights are restored, also after an error. Its own forward hooks only run if the network
    needs values.

    Args:
        net: A network on any device, including the meta device.
        size: (height, width) of the image in px.
        channels: Number of channels of the image.

    Raises:
        RequestError: If the network does not accept such an image.
    """
    real = next((t for t in itertools.chain(net.parameters(), net.buffers()) if t.is_floating_point()), torch.empty(0))
    try:
        with torch.device("meta"):
            return _record_flow(_on_meta(net), torch.zeros((1, channels, *size), dtype=real.dtype))
    except Exception as error:  # anything that needs values, such as `if x.max() > 1`
        if real.device.type == "meta":
            raise _wrong_size(net, size, channels, error) from error
    try:
        return _record_flow(net, torch.zeros((1, channels, *size), dtype=real.dtype, device=real.device))
    except Exception as error:  # `forward` may be user-defined code
        raise _wrong_size(net, size, channels, error) from error


def _wrong_size(net: nn.Module, size: tuple[int, int], channels: int, error: Exception) -> RequestError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    image = f"{size[0]}×{size[1]} px with {channels} channels"
    return RequestError(f"{type(net).__name__} does not accept images of {image} ({reason})", "choose another image size")


def _on_meta(net: nn.Module) -> nn.Module:
    """Copy a network to the meta device, without values and forward hooks; tensors are never copied."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(net.parameters(), net.buffers(), _unregistered(net)):
        bare = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare
    bare_net = copy.deepcopy(net, memo)
    for module in bare_net.modules():
        module._forward_hooks.clear()
        module._forward_hooks_with_kwargs.clear()
        module._forward_hooks_always_called.clear()
    return bare_net


def _unregistered(net: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors that are attributes of modules but neither parameters nor buffers."""
    for module in net.modules():
        yield from (v for v in vars(module).values() if isinstance(v, Tensor))


def _record_flow(net: nn.Module, x: Tensor) -> Flow:
    """Run a network on `x` and record its data flow. Hooks are removed, also after an error."""
    recorder = _Recorder(net, x)
    handles = []
    try:
        for module in net.modules():
            handles.append(module.register_forward_pre_hook(recorder.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(recorder.leave, with_kwargs=True))
        with evaluation_mode(net), recorder:
            output = net(x)
    finally:
        for handle in handles:
            handle.remove()
    return Flow(tuple(recorder.nodes), tuple(recorder.calls), tuple(recorder.sources(output)))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from _tensors(v)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from _tensors(v)


def _shape(value: Any) -> tuple[int, ...]:
    first = next(_tensors(value), None)
    return () if first is None else tuple(first.shape[1:])


def _versions(value: Any) -> dict[int, int]:
    """Return the version counter of each tensor in a value, which in-place operations raise, by the tensor's id."""
    return {id(t): t._version for t in _tensors(value)}


@dataclass(slots=True)
class _Frame:
    """A running module.

    Args:
        module: The module.
        call: Index of its call, -1 if it has no children.
        closed: Whether it has no children, so that everything inside it is one operation.
        kinds: Kinds of the functions that ran inside a closed module.
        versions: Version counters of its inputs, see `_versions`.
    """

    module: nn.Module
    call: int
    closed: bool
    kinds: list[Kind]
    versions: dict[int, int]


class _Recorder(TorchFunctionMode):
    """Mode that records operations, and for each tensor the operation that created it or last wrote into it."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.net = net
        self.names = {m: n for n, m in net.named_modules()}
        self.nodes = [Node("image", "image", "", (), tuple(x.shape[1:]), ())]
        self.calls: list[Call] = []
        self.made = {id(x): 0}
        self.learned = {id(p): n for n, p in net.named_parameters()}
        self.alive: list[Tensor] = [x]  # references that keep Python from reusing the ids of tensors
        self.stack: list[_Frame] = []
        self.paused = False

    def sources(self, value: Any) -> list[int]:
        """Return the indices of the operations that made the tensors in a value, each once."""
        return list(dict.fromkeys(self.made[id(t)] for t in _tensors(value) if id(t) in self.made))

    # ------------------------------------------------------------------------------------------------------------ modules

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Record the start of a module (forward pre-hook)."""
        closed = bool(self.stack) and (isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None)
        call = -1
        if not closed:
            parent = self.stack[-1].call if self.stack else -1
            heads = getattr(module, "num_heads", 0)
            heads = heads if isinstance(heads, int) else 0
            call = len(self.calls)
            self.calls.append(Call(self.names.get(module, ""), type(module).__name__, parent, heads))
        self.stack.append(_Frame(module, call, closed, [], _versions((args, kwargs))))

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Record the end of a module (forward hook).

        If a module without children returns its input unchanged, the output is replaced by an alias, which has its own id.
        """
        while self.stack and self.stack[-1].module is not module:  # left by an exception that the network caught
            self.stack.pop()
        if not self.stack:
            return None
        frame = self.stack.pop()
        if any(f.closed for f in self.stack):
            return None
        inputs = (args, kwargs)
        if not frame.closed:
            unknown = [t for t in _tensors(output) if id(t) not in self.made]
            if unknown and self.sources(inputs):  # made where neither mode nor hooks apply, such as compiled code
                name = operations.readable(type(module).__name__)
                self._record("module", name, self.names.get(module, ""), self.sources(inputs), unknown)
            return None
        alias = None
        if isinstance(output, Tensor) and frame.versions.get(id(output)) == _versions(output)[id(output)]:
            self.paused = True
            output = alias = output.detach()
            self.paused = False
        kind, label = operations.of_module(module, frame.kinds, _shape(inputs), _shape(output))
        if alias is not None and kind != "dropout":
            kind = "identity"
        self._record(kind, label, self.names.get(module, ""), self.sources(inputs), output)
        return alias

    # ---------------------------------------------------------------------------------------------------------- functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function and record it."""
        named = kwargs or {}
        if self.paused or not self.stack:
            return func(*args, **named)
        before = _versions((args, named))
        output = func(*args, **named)
        self._function(getattr(func, "__name__", "function"), args, named, output, before)
        return output

    def _function(self, name: str, args: Any, named: dict[str, Any], output: Any, before: dict[int, int]) -> None:
        result = args[0] if name == "__setitem__" else output
        made = list(_tensors(result))
        if not made:
            return
        learned = next((self.learned[id(t)] for t in _tensors((args, named)) if id(t) in self.learned), "")
        inputs = self.sources((args, named))
        if learned and not inputs:  # a reshaped parameter is still that parameter
            for tensor in made:
                self.alive.append(tensor)
                self.learned[id(tensor)] = learned
            return
        unchanged = before.get(id(made[0])) == _versions(made[0]).get(id(made[0]), -1)
        if not inputs or unchanged:
            return
        kind, label = operations.of_function(
            operations.base_name(name),
            inputs=len(inputs),
            learned=learned,
            input_shape=_shape((args, named)),
            output_shape=_shape(result),
            args=args,
            named=named,
        )
        if self.stack[-1].closed:
            self.stack[-1].kinds.append(kind)
            return
        self._record(kind, label, self.names.get(self.stack[-1].module, ""), inputs, made)

    def _record(self, kind: Kind, label: str, path: str, inputs: Sequence[int], output: Any) -> None:
        within = tuple(f.call for f in self.stack if not f.closed)
        for tensor in _tensors(output):
            self.alive.append(tensor)
            self.made[id(tensor)] = len(self.nodes)
        self.nodes.append(Node(kind, label, path, within, _shape(output), tuple(inputs)))
