"""Cuts: ways to split a network at its last feature map into `map` (before) and `tail` (map → features)."""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, fx, nn

from sightline.errors import RequestError

Layout = Literal["nchw", "nhwc", "tokens"]


class Cut(Protocol):
    """A way to split one kind of network. It holds no module, so that copies of the network can use the same cut."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """Return the last feature map of normalised images (n, channels, h, w)."""
        ...

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """Return the features (n, d) of a last feature map."""
        ...


@contextlib.contextmanager
def evaluation_mode(net: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients inside the block, and restore every module's mode, also after an error."""
    modes = {m: m.training for m in net.modules()}
    try:
        net.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


# --------------------------------------------------------------------------------------------------------- kinds of cuts


@dataclass(frozen=True, slots=True)
class Declared:
    """Cut of a network with methods `map` and `tail`."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        return net.map(x)  # type: ignore[no-any-return, operator]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        return net.tail(last)  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class Headed:
    """Cut between timm's `forward_features` and `forward_head`, which runs up to the classifier.

    Args:
        scores: Whether the tail includes the classifier.
    """

    scores: bool = False

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        return net.forward_features(x)  # type: ignore[no-any-return, operator]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        return net.forward_head(last, pre_logits=not self.scores).flatten(1)  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class LastBlock:
    """Cut before the last block of a timm transformer: the tail is the last block, the norm and the head.

    Args:
        arguments: Further positional arguments of the last block, such as rotary embeddings; constant for one image size.
        named: Its further keyword arguments.
        scores: Whether the tail includes the classifier.
    """

    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    scores: bool = False

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        body = copy.copy(net)  # shares all parameters, but has its own table of modules
        body._modules = dict(net._modules)
        blocks: Any = net.blocks
        body._modules["blocks"] = type(blocks)(*_constructor_arguments(list(blocks)[:-1], type(blocks)))
        body._modules["norm"] = nn.Identity()
        return body.forward_features(x)  # type: ignore[no-any-return, operator]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        arguments = [_to_device(a, last) for a in self.arguments]
        named = {k: _to_device(v, last) for k, v in self.named.items()}
        x = net.blocks[-1](last, *arguments, **named)  # type: ignore[index, operator]
        return net.forward_head(net.norm(x), pre_logits=not self.scores)  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class EncoderBlock:
    """Cut before the last block of torchvision's VisionTransformer, the counterpart of `LastBlock`."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        encoder: Any = net.encoder
        tokens = net._process_input(x)  # type: ignore[operator]  # (n, h·w, c)
        tokens = torch.cat([net.class_token.expand(len(tokens), -1, -1), tokens], dim=1)  # type: ignore[operator]
        tokens = encoder.dropout(tokens + encoder.pos_embedding)
        for layer in list(encoder.layers)[:-1]:
            tokens = layer(tokens)
        return tokens  # type: ignore[no-any-return]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        encoder: Any = net.encoder
        return encoder.ln(encoder.layers[-1](last))[:, 0]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Graph:
    """Cut at a node of a network's traced graph.

    Args:
        graph: Traced graph of the network.
        map_at, features_at: Indices of the nodes whose values are the map and the features.
        mean: Whether the features are the mean over positions of the value at `features_at`.
    """

    graph: fx.Graph
    map_at: int
    features_at: int
    mean: bool = False

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        nodes = list(self.graph.nodes)
        return walk(net, nodes, {nodes[input_of(nodes)]: x}, self.map_at)  # type: ignore[no-any-return]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        nodes = list(self.graph.nodes)
        # A copy, since later operations may work in place.
        value = walk(net, nodes, {nodes[self.map_at]: last.clone()}, self.features_at)
        return value.mean(dim=(2, 3)) if self.mean else value.flatten(1)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Replay:
    """Cut at a module of a network that cannot be traced. The tail runs the whole network on zeros and inserts the map.

    Args:
        module: Name of the module whose output is the map; "" for the image itself.
        classifier: Name of the module whose input is the features; "" for the network's output.
        size: (height, width) of the images in px.
        mean: Whether the features are the mean over positions of that value.
    """

    module: str
    classifier: str
    size: tuple[int, int]
    mean: bool = False

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        return x if not self.module else value_at(net.get_submodule(self.module), net, x, output=True)

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        if not self.module:
            value = value_at(net.get_submodule(self.classifier), net, last) if self.classifier else net(last)
        else:
            x = last.new_zeros((len(last), 3, *self.size))
            handle = net.get_submodule(self.module).register_forward_hook(lambda *_: last.clone())
            try:
                value = value_at(net.get_submodule(self.classifier), net, x) if self.classifier else net(x)
            finally:
                handle.remove()
        return self._features(value)

    def both(self, net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map and the features in one forward pass."""
        if not self.module:
            return x, self.tail(net, x)
        maps: list[Tensor] = []
        # A copy, since later operations may work in place.
        handle = net.get_submodule(self.module).register_forward_hook(lambda _, __, output: maps.append(output.clone()))
        try:
            value = value_at(net.get_submodule(self.classifier), net, x) if self.classifier else net(x)
        finally:
            handle.remove()
        return maps[-1], self._features(value)

    def _features(self, value: Tensor) -> Tensor:
        return value.mean(dim=(2, 3)) if self.mean or value.ndim == 4 else value.flatten(1)


class StopForward(Exception):  # noqa: N818  (not an error)
    """Raised by a hook to end a forward pass once the wanted value is recorded."""


def value_at(module: nn.Module, net: nn.Module, x: Tensor, *, output: bool = False) -> Tensor:
    """Run `net` on `x` and return the input (or, with `output`, the output) of one of its modules. The hook is removed."""
    values: list[Tensor] = []

    def record(_: nn.Module, arguments: Any, result: Any = None) -> None:
        values.append(result if output else arguments[0])
        raise StopForward

    handle = module.register_forward_hook(record) if output else module.register_forward_pre_hook(record)
    try:
        net(x)
    except StopForward:
        pass
    finally:
        handle.remove()
    return values[0]


def _constructor_arguments(blocks: list[nn.Module], container: type[nn.Module]) -> Sequence[Any]:
    """Return the arguments that build a container of these blocks: separate for Sequential, one list for ModuleList."""
    return blocks if issubclass(container, nn.Sequential) else [blocks]


def _to_device(value: Any, like: Tensor) -> Any:
    return value.to(like.device) if isinstance(value, Tensor) else value


def walk(
    net: nn.Module,
    nodes: Sequence[fx.Node],
    known: dict[fx.Node, Any],
    end: int,
    record: Callable[[fx.Node, Any], None] | None = None,
) -> Any:
    """Compute the value of a graph's node from the known values of other nodes.

    Args:
        net: The network whose modules and parameters the nodes name.
        nodes: All nodes of the graph, in order.
        known: Known values.
        end: Index of the node to compute.
        record: Called with each node and its value.

    Raises:
        RequestError: If the network's forward has a required argument other than the images.
    """
    needed: set[fx.Node] = set()
    stack = [nodes[end]]
    while stack:
        node = stack.pop()
        if node not in needed and node not in known:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    values = dict(known)
    for node in nodes[: end + 1]:
        if node not in needed:
            continue
        values[node] = _step(net, node, values)
        if record is not None:
            record(node, values[node])
    return values[nodes[end]]


def _step(net: nn.Module, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    arguments = fx.map_arg(node.args, lambda n: values[n])
    named = fx.map_arg(node.kwargs, lambda n: values[n])
    if node.op == "placeholder":
        if node.args:
            return node.args[0]  # the default value
        raise RequestError(f"the network's forward requires the argument {node.target!r}", "give it a default value")
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(net)
    if node.op == "call_module":
        return net.get_submodule(str(node.target))(*arguments, **named)
    if node.op == "call_method":
        return getattr(arguments[0], str(node.target))(*arguments[1:], **named)
    if node.op == "output":
        return arguments[0]
    return node.target(*arguments, **named)  # type: ignore[operator]


def input_of(nodes: Sequence[fx.Node]) -> int:
    """Return the index of the node that receives the images."""
    return next(i for i, n in enumerate(nodes) if n.op == "placeholder")
