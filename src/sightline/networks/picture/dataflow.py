"""What happens to an image inside a network: every operation, what it takes from which other, and in which module it ran.

The network runs once, without numbers (on torch's meta device) where it can, and what it does is watched: functions by a
torch function mode, modules by hooks, tensors by identity. So it works for networks whose Python cannot be traced.
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
    """One call of a module that has parts.

    Args:
        name: The module's path in the network, "" for the network itself.
        type: Its class.
        parent: Index of the call around it, -1 for the network itself.
        heads: Its attribute `num_heads`, 0 without.
    """

    name: str
    type: str
    parent: int
    heads: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: a module without parts, or a function called outside such a module.

    Args:
        kind: See `operations.Kind`.
        label: In a few words, such as "7×7 conv, 64, /2".
        path: The module itself, or the module whose `forward` called the function.
        within: Indices of the calls around it, outermost first.
        shape: Of its (first) result, without the batch.
        inputs: Indices of the operations whose results it takes, in the order in which it takes them, each once.
    """

    kind: Kind
    label: str
    path: str
    within: tuple[int, ...]
    shape: tuple[int, ...]
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """A directed graph without cycles.

    Args:
        nodes: In order of execution; the first is the image.
        calls: Of modules with parts, in order; the first is the network's own.
        outputs: Indices of the operations whose results the network gives.
    """

    nodes: tuple[Node, ...]
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]


def dataflow(net: nn.Module, size: tuple[int, int], channels: int = 3) -> Flow:
    """What a network does with an image in evaluation mode.

    Its mode, hooks, gradients and weights stay as they are, also after an error. Its own forward hooks do not run, unless
    it needs real numbers.

    Args:
        net: On any device, the meta device too.
        size: (height, width) of the image in pixels.
        channels: Of the image.

    Raises:
        RequestError: It cannot see such an image.
    """
    real = next((t for t in itertools.chain(net.parameters(), net.buffers()) if t.is_floating_point()), torch.empty(0))
    try:
        with torch.device("meta"):
            return _watch(_on_meta(net), torch.zeros((1, channels, *size), dtype=real.dtype))
    except Exception as error:  # whatever a network does that needs numbers, such as `if x.max() > 1`
        if real.device.type == "meta":
            raise _unseen(net, size, channels, error) from error
    try:
        return _watch(net, torch.zeros((1, channels, *size), dtype=real.dtype, device=real.device))
    except Exception as error:  # a network's `forward` is anybody's code
        raise _unseen(net, size, channels, error) from error


def _unseen(net: nn.Module, size: tuple[int, int], channels: int, error: Exception) -> RequestError:
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    what = f"{size[0]}×{size[1]} px with {channels} channels"
    return RequestError(f"{type(net).__name__} does not accept images of {what} ({why})", "choose another image size")


def _on_meta(net: nn.Module) -> nn.Module:
    """A copy without numbers and without forward hooks; nothing large is copied on the way."""
    memo: dict[int, Any] = {}
    for tensor in itertools.chain(net.parameters(), net.buffers(), _loose(net)):
        bare = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare
    bare_net = copy.deepcopy(net, memo)
    for module in bare_net.modules():
        module._forward_hooks.clear()
        module._forward_hooks_with_kwargs.clear()
        module._forward_hooks_always_called.clear()
    return bare_net


def _loose(net: nn.Module) -> Iterator[Tensor]:
    """Tensors that are attributes of a module without being registered."""
    for module in net.modules():
        yield from (v for v in vars(module).values() if isinstance(v, Tensor))


def _watch(net: nn.Module, x: Tensor) -> Flow:
    recorder = _Recorder(net, x)
    handles = []
    try:
        for module in net.modules():
            handles.append(module.register_forward_pre_hook(recorder.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(recorder.leave, with_kwargs=True))
        with evaluation_mode(net), recorder:
            given = net(x)
    finally:
        for handle in handles:
            handle.remove()
    return Flow(tuple(recorder.nodes), tuple(recorder.calls), tuple(recorder.sources(given)))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
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
    """How often each tensor in a value has been written to."""
    return {id(t): t._version for t in _tensors(value)}


@dataclass(slots=True)
class _Frame:
    """A module that is running.

    Args:
        module: It.
        call: Index of its call, -1 if it has no parts.
        closed: Whether it has no parts: what happens inside is one operation.
        kinds: Of the functions that ran inside a closed one.
        versions: Of the tensors that it took, see `_versions`.
    """

    module: nn.Module
    call: int
    closed: bool
    kinds: list[Kind]
    versions: dict[int, int]


class _Recorder(TorchFunctionMode):
    """Follows tensors by identity: which operation made them, or last wrote into them."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.net = net
        self.names = {m: n for n, m in net.named_modules()}
        self.nodes = [Node("image", "image", "", (), tuple(x.shape[1:]), ())]
        self.calls: list[Call] = []
        self.made = {id(x): 0}
        self.learned = {id(p): n for n, p in net.named_parameters()}
        self.kept: list[Tensor] = [x]  # alive, so that no identity is given twice
        self.stack: list[_Frame] = []
        self.resting = False

    def sources(self, value: Any) -> list[int]:
        """The operations that made the tensors in a value, each once."""
        return list(dict.fromkeys(self.made[id(t)] for t in _tensors(value) if id(t) in self.made))

    # ------------------------------------------------------------------------------------------------------------ modules

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A module starts."""
        closed = bool(self.stack) and (isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None)
        call = -1
        if not closed:
            parent = self.stack[-1].call if self.stack else -1
            heads = getattr(module, "num_heads", 0)
            heads = heads if isinstance(heads, int) else 0
            call = len(self.calls)
            self.calls.append(Call(self.names.get(module, ""), type(module).__name__, parent, heads))
        self.stack.append(_Frame(module, call, closed, [], _versions((args, kwargs))))

    def leave(self, module: nn.Module, args: Any, kwargs: Any, given: Any) -> Any:
        """A module ends. What passed a module without parts untouched becomes a tensor of its own, to be told apart."""
        while self.stack and self.stack[-1].module is not module:  # an error inside that the network caught
            self.stack.pop()
        if not self.stack:
            return None
        frame = self.stack.pop()
        if any(f.closed for f in self.stack):
            return None
        taken = (args, kwargs)
        if not frame.closed:
            unknown = [t for t in _tensors(given) if id(t) not in self.made]
            if unknown and self.sources(taken):  # made where no mode and no hook sees it, such as compiled code
                name = operations.readable(type(module).__name__)
                self._record("module", name, self.names.get(module, ""), self.sources(taken), unknown)
            return None
        replaced = None
        if isinstance(given, Tensor) and frame.versions.get(id(given)) == _versions(given)[id(given)]:
            self.resting = True
            given = replaced = given.detach()
            self.resting = False
        kind, label = operations.of_module(module, frame.kinds, _shape(taken), _shape(given))
        if replaced is not None and kind != "dropout":
            kind = "identity"
        self._record(kind, label, self.names.get(module, ""), self.sources(taken), given)
        return replaced

    # ---------------------------------------------------------------------------------------------------------- functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """A function runs."""
        named = kwargs or {}
        if self.resting or not self.stack:
            return func(*args, **named)
        before = _versions((args, named))
        given = func(*args, **named)
        self._function(getattr(func, "__name__", "function"), args, named, given, before)
        return given

    def _function(self, name: str, args: Any, named: dict[str, Any], given: Any, before: dict[int, int]) -> None:
        result = args[0] if name == "__setitem__" else given
        made = list(_tensors(result))
        if not made:
            return
        learned = next((self.learned[id(t)] for t in _tensors((args, named)) if id(t) in self.learned), "")
        inputs = self.sources((args, named))
        plain = operations.words(name)
        if learned and not inputs:  # learned numbers in another shape are still these
            for tensor in made:
                self.kept.append(tensor)
                self.learned[id(tensor)] = learned
            return
        untouched = before.get(id(made[0])) == _versions(made[0]).get(id(made[0]), -1)
        if not inputs or untouched:
            return
        kind, label = operations.of_function(plain, len(inputs), learned, _taken(args, named), _shape(result), args, named)
        if self.stack[-1].closed:
            self.stack[-1].kinds.append(kind)
            return
        self._record(kind, label, self.names.get(self.stack[-1].module, ""), inputs, made)

    def _record(self, kind: Kind, label: str, path: str, inputs: Sequence[int], given: Any) -> None:
        within = tuple(f.call for f in self.stack if not f.closed)
        for tensor in _tensors(given):
            self.kept.append(tensor)
            self.made[id(tensor)] = len(self.nodes)
        self.nodes.append(Node(kind, label, path, within, _shape(given), tuple(inputs)))


def _taken(args: Any, named: dict[str, Any]) -> tuple[int, ...]:
    return _shape((args, named))
