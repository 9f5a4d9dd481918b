"""Rule 3 of `cuts`: finding the map and the classifier of a network that says nothing about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from sightline.errors import RequestError
from sightline.networks.cuts import Found, Graph, Replay, _grid, _input, _measured, is_pooling, is_pooling_module, walk

_TRIES = 12
"""How many modules, from the last one back, are tried as the place of the map."""


def in_graph(net: nn.Module, x: Tensor, graph: fx.Graph) -> Found | None:
    """The cut at a node of a traced graph, or None where the features depend on more than any one map."""
    nodes = list(graph.nodes)
    shapes: dict[fx.Node, tuple[int, ...]] = {nodes[_input(nodes)]: tuple(x.shape)}

    def record(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor):
            shapes[node] = tuple(value.shape)

    try:
        output = walk(net, nodes, {nodes[_input(nodes)]: x}, len(nodes) - 1, record)
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError):
        return None
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        return None
    index = {n: i for i, n in enumerate(nodes)}
    classifier, at = "", index[nodes[-1].all_input_nodes[0]]
    node = _classifier_node(net, nodes, shapes, tuple(output.shape))
    if node is not None:
        classifier, at = str(node.target), index[node.all_input_nodes[0]]
    mean = len(shapes.get(nodes[at], ())) == 4
    features = walk(net, nodes, {nodes[_input(nodes)]: x}, at)
    features = features.mean(dim=(2, 3)) if mean else features.flatten(1)
    for place in reversed(_bottlenecks(nodes, at)):
        shape = shapes.get(nodes[place], ())
        if len(shape) == 4 and shape[2] * shape[3] > 1 and not is_pooling(net, nodes[place]) and place != _input(nodes):
            found = _measured(net, x, Graph(graph, place, at, mean), features, "nchw", 0, classifier)
            if found is not None:
                return found
    return None


def _classifier_node(
    net: nn.Module, nodes: Sequence[fx.Node], shapes: dict[fx.Node, tuple[int, ...]], output: tuple[int, ...]
) -> fx.Node | None:
    """The node that turns features into the network's output."""
    calls = [n for n in nodes if n.op == "call_module" and len(n.all_input_nodes) == 1]
    linear = [n for n in calls if isinstance(net.get_submodule(str(n.target)), nn.Linear)]
    if linear:
        return linear[-1] if shapes.get(linear[-1]) == output else None
    if len(output) != 2:
        return None
    convolutions = [n for n in calls if isinstance(net.get_submodule(str(n.target)), nn.Conv2d)]
    return (
        convolutions[-1] if convolutions and _is_classifier(net.get_submodule(str(convolutions[-1].target)), output) else None
    )


def _is_classifier(module: nn.Module, output: tuple[int, ...]) -> bool:
    """Whether a convolution does what a linear layer would: one position at a time, as wide as the network's output."""
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == output[1]


def _bottlenecks(nodes: Sequence[fx.Node], end: int) -> list[int]:
    """Indices of the nodes that everything between the images and node `end` passes through."""
    index = {n: i for i, n in enumerate(nodes)}
    needed, stack = set(), [nodes[end]]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    start = _input(nodes)
    varying = {nodes[start]}  # what depends on the images
    for node in nodes[start + 1 :]:
        if any(n in varying for n in node.all_input_nodes):
            varying.add(node)
    found, reach = [], start
    for i in range(start, end + 1):
        node = nodes[i]
        if node not in needed or node not in varying:
            continue
        if reach <= i:  # nothing before it is used after it
            found.append(i)
        uses = [index[u] for u in node.users if u in needed]
        reach = max([reach, *uses])
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a module in a forward pass."""

    name: str
    module: nn.Module
    output: tuple[int, ...]


def under_hooks(net: nn.Module, x: Tensor) -> Found:
    """The cut at a module's output, found by one forward pass; the image itself where no module will do.

    Raises:
        RequestError: The network cannot see such images, or gives no tensor (n, k) or (n, c, h, w).
    """
    calls, output = _calls(net, x)
    size = (int(x.shape[2]), int(x.shape[3]))
    linear = [c for c in calls if isinstance(c.module, nn.Linear)]
    classifier, mean = "", False
    if linear and linear[-1].output == tuple(output.shape):
        classifier = linear[-1].name
    elif not linear and output.ndim == 2:
        convolutions = [c for c in calls if isinstance(c.module, nn.Conv2d)]
        if convolutions and _is_classifier(convolutions[-1].module, tuple(output.shape)):
            classifier, mean = convolutions[-1].name, True
    whole = Replay("", classifier, size, mean)
    features = whole.tail(net, x)
    once = {c.name for c in calls if sum(o.module is c.module for o in calls) == 1}
    before = calls[: next((i for i, c in enumerate(calls) if c.name == classifier), len(calls))]
    places = [c for c in before if c.name in once and len(c.output) == 4 and c.output[2] * c.output[3] > 1]
    places = [c for c in places if c.name and not is_pooling_module(c.module)]
    for call in places[::-1][:_TRIES]:
        cut = Replay(call.name, classifier, size, mean)
        found = _measured(net, x, cut, features, "nchw", 0, classifier)
        # The map must decide the features: another map, other features.
        if found is not None and not _same(cut.tail(net, -cut.map(net, x) - 1), features):
            return found
    return Found(whole, "nchw", 0, _grid(net, x, x, "nchw", 0), x[0].numel(), int(features.shape[1]), classifier)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-6 * (b.abs().max() + 1e-12))


def _calls(net: nn.Module, x: Tensor) -> tuple[list[_Call], Tensor]:
    """Every call of a module in one forward pass, in the order in which they end; hooks are removed, also after an error."""
    calls: list[_Call] = []
    handles = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, _: Any, result: Any) -> None:
            if isinstance(result, Tensor):
                calls.append(_Call(name, module, tuple(result.shape)))

        return look

    try:
        handles = [m.register_forward_hook(hook(n)) for n, m in net.named_modules() if n]
        output = net(x)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        hint = "its forward takes float images (n, 3, height, width); is the image size right?"
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        what = f"{type(net).__name__} cannot see images of {x.shape[2]}×{x.shape[3]} px ({reason})"
        raise RequestError(what, hint) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        hint = "let its forward return features or logits (n, k), or a map (n, c, h, w)"
        raise RequestError(f"{type(net).__name__} gives {shape} for one image", hint)
    return calls, output
