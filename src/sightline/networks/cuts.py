"""Where a network is cut in two: its last map, and the tail that turns the map into features.

The rule, in this order:

1. A network with methods `map` and `tail` says it itself.
2. One with `forward_features` and `forward_head`, as all of timm's: the map is what the first gives, the tail is the second
   without the classifier. Where the map is tokens, it is the *input* of the last block, since behind it no token but the
   class token gets a gradient.
3. Any other: the classifier is the last linear layer whose output has the shape of the network's, or, in a network without
   one, the last 1×1 convolution of that width. Features are what goes into it (the mean over positions for a convolution).
   The map is the last tensor (n, c, h, w) with more than one position on which alone the features depend, adaptive
   pooling aside. It is looked for in the network's graph, and where that cannot be traced, by one forward pass under hooks.
4. Where nothing of the kind exists, the map is the image itself.

Every cut is measured before it is used: on a noise image, tail(map(x)) must be the network's own features.
"""

from __future__ import annotations

import contextlib
import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, fx, nn

from sightline.errors import RequestError

Layout = Literal["nchw", "nhwc", "tokens"]
_TOLERANCE = 2e-6  # the same operations give the same numbers; layer scales of 1e-5 must not hide a missing block
_POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING_FUNCTIONS = (nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_max_pool2d)


class Cut(Protocol):
    """How one kind of network is cut. It holds no module, so that a copy of the network can use the same cut."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """Normalised images (n, 3, h, w) → the last map."""
        ...

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """The last map → features (n, d)."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A cut and what was measured of it.

    Args:
        cut: Where.
        layout: How the map lies in memory.
        prefix: Tokens before the patches.
        map_shape: (channels, height, width) on its grid; None where the tokens form none.
        map_numbers: How many numbers one map has.
        features: d.
        classifier: The name of the module behind the features, "" where there is none.
    """

    cut: Cut
    layout: Layout
    prefix: int
    map_shape: tuple[int, int, int] | None
    map_numbers: int
    features: int
    classifier: str = ""


def find(net: nn.Module, size: tuple[int, int]) -> Found:
    """Where a network is cut, by the rule above; its mode, gradients and hooks stay as they are.

    Args:
        net: Any network that takes (n, 3, h, w).
        size: (height, width) of the images that it will see.

    Raises:
        RequestError: It cannot see such images, or gives no tensor.
    """
    x = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(0))
    x = x.to(next((p.device for p in net.parameters()), torch.device("cpu")))
    with quiet(net):
        if callable(getattr(net, "map", None)) and callable(getattr(net, "tail", None)):
            return _declared(net, x)
        found = None
        if hasattr(net, "forward_features") and hasattr(net, "forward_head"):
            found = _headed(net, x)
        if found is None and all(hasattr(net, n) for n in ("_process_input", "class_token", "encoder", "heads")):
            found = _measured(net, x, EncoderBlock(), _value(net.get_submodule("heads"), net, x), "tokens", 1, "heads")
        return found or _searched(net, x)


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
    """timm's two halves: `forward_features`, and `forward_head` up to the classifier."""

    def map(self, net: nn.Module, x: Tensor) -> Tensor:
        """See `Cut`."""
        return net.forward_features(x)  # type: ignore[no-any-return, operator]

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        return net.forward_head(last, pre_logits=True).flatten(1)  # type: ignore[no-any-return, operator]


@dataclass(frozen=True, slots=True)
class LastBlock:
    """A transformer of timm's: all blocks but the last, then the last block, the norm and the head.

    Args:
        arguments: What the last block gets beside the tokens, such as rotary positions; constants at one image size.
    """

    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

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
        return net.forward_head(net.norm(x), pre_logits=True)  # type: ignore[no-any-return, operator]


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
        return walk(net, nodes, {nodes[_input(nodes)]: x}, self.map_at)  # type: ignore[no-any-return]

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
        return x if not self.module else _value(net.get_submodule(self.module), net, x, output=True)

    def tail(self, net: nn.Module, last: Tensor) -> Tensor:
        """See `Cut`."""
        if not self.module:
            value = _value(net.get_submodule(self.classifier), net, last) if self.classifier else net(last)
        else:
            x = last.new_zeros((len(last), 3, *self.size))
            handle = net.get_submodule(self.module).register_forward_hook(lambda *_: last.clone())
            try:
                value = _value(net.get_submodule(self.classifier), net, x) if self.classifier else net(x)
            finally:
                handle.remove()
        return value.mean(dim=(2, 3)) if self.mean or value.ndim == 4 else value.flatten(1)


class _Enough(Exception):  # noqa: N818  (it is no error)
    """What was looked for has been seen; the rest of the forward pass is not needed."""


def _value(module: nn.Module, net: nn.Module, x: Tensor, *, output: bool = False) -> Tensor:
    """What goes into a module (or comes out of it) when `net` sees `x`. The hook is removed again."""
    seen: list[Tensor] = []

    def look(_: nn.Module, arguments: Any, result: Any = None) -> None:
        seen.append(result if output else arguments[0])
        raise _Enough

    handle = module.register_forward_hook(look) if output else module.register_forward_pre_hook(look)
    try:
        net(x)
    except _Enough:
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


# -------------------------------------------------------------------------------------------------------- rules 1 and 2


def _declared(net: nn.Module, x: Tensor) -> Found:
    last = net.map(x)  # type: ignore[operator]
    layout: Layout = getattr(net, "layout", "nchw")
    found = _measured(net, x, Declared(), net.tail(last), layout, int(getattr(net, "prefix", 0)))  # type: ignore[operator]
    if found is None:
        raise RequestError(f"{type(net).__name__}'s tail does not give one row of features per image")
    return found


def _headed(net: nn.Module, x: Tensor) -> Found | None:
    """timm's kind; None where its halves give something else than one map and one row."""
    last: Any = net.forward_features(x)  # type: ignore[operator]
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        return None
    features = net.forward_head(last, pre_logits=True)  # type: ignore[operator]
    if not isinstance(features, Tensor):
        return None
    features = features.flatten(1)
    if last.ndim == 4:
        width = getattr(net, "num_features", last.shape[1])
        layout: Layout = "nhwc" if last.shape[-1] == width != last.shape[1] else "nchw"
        return _measured(net, x, Headed(), features, layout, 0, last=last)
    prefix = int(getattr(net, "num_prefix_tokens", last.shape[1] - math.isqrt(last.shape[1]) ** 2))
    blocks = getattr(net, "blocks", None)
    if (
        isinstance(blocks, nn.Sequential | nn.ModuleList)
        and len(blocks) > 1
        and isinstance(getattr(net, "norm", None), nn.Module)
    ):
        cut = _last_block(net, x, blocks[-1])
        found = cut and _measured(net, x, cut, features, "tokens", prefix)
        if found:
            return found
    return _measured(net, x, Headed(), features, "tokens", prefix, last=last)


def _last_block(net: nn.Module, x: Tensor, block: nn.Module) -> LastBlock | None:
    """The cut before the last block, with what it gets beside the tokens; None where that is learned."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def look(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((arguments[1:], named))
        raise _Enough

    handle = block.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with torch.enable_grad():  # so that what depends on a parameter shows it
            net.forward_features(x)  # type: ignore[operator]
    except _Enough:
        pass
    finally:
        handle.remove()
    if len(seen) != 1:
        return None
    arguments, named = seen[0]
    tensors = [v for v in (*arguments, *named.values()) if isinstance(v, Tensor)]
    return None if any(t.requires_grad for t in tensors) else LastBlock(arguments, named)


def _measured(
    net: nn.Module,
    x: Tensor,
    cut: Cut,
    features: Tensor,
    layout: Layout,
    prefix: int,
    classifier: str = "",
    last: Tensor | None = None,
) -> Found | None:
    """The cut with what is known of its map; None where its tail does not give the network's own features."""
    try:
        last = cut.map(net, x) if last is None else last
        again = cut.tail(net, last)
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError, KeyError):
        return None
    if again.ndim != 2 or again.shape != features.shape:
        return None
    scale = float(features.abs().max()) or 1.0
    if not float((again - features).abs().max()) <= _TOLERANCE * scale:
        return None
    return Found(cut, layout, prefix, _grid(net, x, last, layout, prefix), last[0].numel(), int(features.shape[1]), classifier)


def _grid(net: nn.Module, x: Tensor, last: Tensor, layout: Layout, prefix: int) -> tuple[int, int, int] | None:
    """(channels, height, width) of a map; None where its tokens form no grid."""
    if last.ndim == 4:
        c, h, w = last.shape[1:] if layout == "nchw" else (last.shape[3], last.shape[1], last.shape[2])
        return int(c), int(h), int(w)
    if last.ndim != 3:
        return None
    count = int(last.shape[1]) - prefix
    height = round(math.sqrt(count * x.shape[2] / x.shape[3]))
    if height < 1 or count % height:
        return None
    return int(last.shape[2]), height, count // height


# -------------------------------------------------------------------------------------------------------------- rule 3


def _searched(net: nn.Module, x: Tensor) -> Found:
    """Look for the cut in the graph, then under hooks; the image itself where there is none."""
    from sightline.networks import search

    graph = _traced(net)
    found = search.in_graph(net, x, graph) if graph is not None else None
    return found or search.under_hooks(net, x)


def _traced(net: nn.Module) -> fx.Graph | None:
    """The network's graph, or None where its Python cannot be followed. Nothing of the network is changed."""
    try:
        return fx.Tracer().trace(net)
    except Exception:  # tracing runs the user's own code on stand-ins for tensors: anything may be raised
        return None


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


def _input(nodes: Sequence[fx.Node]) -> int:
    """Where the images come in."""
    return next(i for i, n in enumerate(nodes) if n.op == "placeholder")


def is_pooling(net: nn.Module, node: fx.Node) -> bool:
    """Whether a node is adaptive pooling."""
    if node.op == "call_module":
        return isinstance(net.get_submodule(str(node.target)), _POOLINGS)
    return node.op == "call_function" and node.target in _POOLING_FUNCTIONS


def is_pooling_module(module: nn.Module) -> bool:
    """Whether a module is adaptive pooling."""
    return isinstance(module, _POOLINGS)
