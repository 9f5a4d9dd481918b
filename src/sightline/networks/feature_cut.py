"""The kinds of cuts through a network: its last map in front, and behind it the tail that turns the map into features."""

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
    """How one kind of network is cut. It holds no module, so that a copy of the network can use the same cut."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """Normalised images (n, 3, h, w) → the last map."""
        ...

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """The last map → features (n, d)."""
        ...


@contextlib.contextmanager
def quiet(net: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; every module's own mode afterwards, also after an error."""
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
    """The network has methods `map` and `tail`."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        return net.map(x)  # type: ignore[no-any-return, operator]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        return net.tail(last)  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class Headed:
    """timm's two halves: `forward_features`, and `forward_head` up to the classifier.

    Args:
        scores: Whether the classifier belongs to the tail.
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
    """A transformer of timm's: all blocks but the last, then the last block, the norm and the head.

    Args:
        arguments: What the last block gets beside the tokens, such as rotary positions; constants at one image size.
        scores: Whether the classifier belongs to the tail.
    """

    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    scores: bool = False

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        body = copy.copy(net)  # shares every parameter; only its table of modules is its own
        body._modules = dict(net._modules)
        blocks: Any = net.blocks
        body._modules["blocks"] = type(blocks)(*_listed(blocks, -1))
        body._modules["norm"] = nn.Identity()
        return body.forward_features(x)  # type: ignore[no-any-return, operator]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        arguments = [_on(a, last) for a in self.arguments]
        x = net.blocks[-1](last, *arguments, **{k: _on(v, last) for k, v in self.named.items()})  # type: ignore[index, operator]
        return net.forward_head(net.norm(x), pre_logits=not self.scores)  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class EncoderBlock:
    """torchvision's VisionTransformer: the same cut as `LastBlock`, by its own names."""

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
    """A cut at one node of a traced graph.

    Args:
        graph: The network's computation.
        map_at, features_at: Indices of nodes.
        mean: Whether the features are the mean over positions of the second node's value.
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
        # A copy: what follows may work in place.
        value = walk(net, nodes, {nodes[self.map_at]: last.clone()}, self.features_at)
        return value.mean(dim=(2, 3)) if self.mean else value.flatten(1)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Replay:
    """A cut at a module of a network that cannot be traced. Its tail runs the whole network on nothing, with the map put in.

    Args:
        module: The map is its output; "" for the image itself.
        classifier: The features are its input; "" for the network's output.
        size: Of the images.
        mean: Whether the features are the mean over positions of that.
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
        """The map and the features in one pass over the network."""
        if not self.module:
            return x, self.tail(net, x)
        seen: list[Tensor] = []
        # A copy: what follows may work in place.
        handle = net.get_submodule(self.module).register_forward_hook(lambda _, __, output: seen.append(output.clone()))
        try:
            value = value_at(net.get_submodule(self.classifier), net, x) if self.classifier else net(x)
        finally:
            handle.remove()
        return seen[-1], self._features(value)

    def _features(self, value: Tensor) -> Tensor:
        return value.mean(dim=(2, 3)) if self.mean or value.ndim == 4 else value.flatten(1)


class Enough(Exception):  # noqa: N818  (it is no error)
    """What was looked for has been seen; the rest of the forward pass is not needed."""


def value_at(module: nn.Module, net: nn.Module, x: Tensor, *, output: bool = False) -> Tensor:
    """What goes into a module (or comes out of it) when `net` sees `x`. The hook is removed again."""
    seen: list[Tensor] = []

    def look(_: nn.Module, arguments: Any, result: Any = None) -> None:
        seen.append(result if output else arguments[0])
        raise Enough

    handle = module.register_forward_hook(look) if output else module.register_forward_pre_hook(look)
    try:
        net(x)
    except Enough:
        pass
    finally:
        handle.remove()
    return seen[0]


def _listed(blocks: Any, end: int) -> Sequence[Any]:
    """All blocks up to `end`, as the constructor of their container takes them."""
    kept = list(blocks)[:end]
    return kept if isinstance(blocks, nn.Sequential) else [kept]


def _on(value: Any, like: Tensor) -> Any:
    return value.to(like.device) if isinstance(value, Tensor) else value


def walk(
    net: nn.Module,
    nodes: Sequence[fx.Node],
    known: dict[fx.Node, Any],
    end: int,
    record: Callable[[fx.Node, Any], None] | None = None,
) -> Any:
    """The value of node `end`, from the values of some nodes, by running what lies between.

    Args:
        net: Whose modules and parameters the nodes name.
        nodes: All nodes of the graph, in order.
        known: Values to start from.
        end: Index of the wanted node.
        record: Told each value.
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
            return node.args[0]  # a default
        raise RequestError(f"the network's forward needs {node.target!r} beside the images", "give it a default")
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
    """Where the images come in."""
    return next(i for i, n in enumerate(nodes) if n.op == "placeholder")
