"""Where a network is cut in two: its last map, and the tail that turns the map into features.

The rule, in this order:

1. A network with methods `map` and `tail` says it itself; its module `classifier`, where it has one, follows the tail.
2. One with `forward_features` and `forward_head`, as all of timm's: the map is what the first gives, the tail is the second
   without the classifier. Where the map is tokens, it is the *input* of the last block, since behind it no token but the
   class token gets a gradient; where that does not give the features and nothing reads the patches that the first gives,
   the output of the last module whose patches are read.
3. Any other: the classifier is the last linear layer whose output has the shape of the network's, or, in a network without
   one, the last 1×1 convolution of that width. Features are what goes into it (the mean over positions for a convolution).
   The map is the last tensor (n, c, h, w) with more than one position on which alone the features depend, adaptive
   pooling aside. It is looked for in the network's graph, and where that cannot be traced, by one forward pass under hooks.
4. Where nothing of the kind exists, the map is the image itself, which counts as none.

Every cut is measured before it is used: on a noise image, tail(map(x)) must be the network's own features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from sightline.errors import RequestError
from sightline.networks.feature_cut import (
    Cut,
    Declared,
    EncoderBlock,
    Enough,
    Graph,
    Headed,
    LastBlock,
    Layout,
    Replay,
    input_of,
    quiet,
    value_at,
    walk,
)
from sightline.networks.patch_tokens import outlooks, patches_are_read

_TOLERANCE = 2e-6  # the same operations give the same numbers; layer scales of 1e-5 must not hide a missing block
_POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING_FUNCTIONS = (nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_max_pool2d)
_TRIES = 12
"""How many modules, from the last one back, are tried as the place of the map."""


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


def find(net: nn.Module, size: tuple[int, int], *, scores: bool = False) -> Found:
    """Where a network is cut, by the rule above; its mode, gradients and hooks stay as they are.

    Args:
        net: Any network that takes (n, channels, h, w).
        size: (height, width) of the images that it will see.
        scores: Whether the network's whole output is to be its features, classifier included.

    Raises:
        RequestError: It cannot see such images, or gives no tensor.
    """
    x = torch.randn((1, channels_of(net), *size), generator=torch.Generator().manual_seed(0))
    x = x.to(next((p.device for p in net.parameters()), torch.device("cpu")))
    with quiet(net):
        if not scores and callable(getattr(net, "map", None)) and callable(getattr(net, "tail", None)):
            return _declared(net, x)
        found = None
        if hasattr(net, "forward_features") and hasattr(net, "forward_head"):
            found = _headed(net, x, scores)
        if found is None and not scores and all(hasattr(net, n) for n in ("_process_input", "class_token", "encoder", "heads")):
            found = _measured(net, x, EncoderBlock(), value_at(net.get_submodule("heads"), net, x), "tokens", 1, "heads")
        return found or _searched(net, x, scores)


def channels_of(net: nn.Module) -> int:
    """How many channels the images of a network have: its attribute `channels`, else what its first convolution takes."""
    told = getattr(net, "channels", None)
    if isinstance(told, int) and told > 0:
        return told
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


# -------------------------------------------------------------------------------------------------------- rules 1 and 2


def _declared(net: nn.Module, x: Tensor) -> Found:
    last = net.map(x)  # type: ignore[operator]
    layout: Layout = getattr(net, "layout", "nchw")
    behind = "classifier" if isinstance(getattr(net, "classifier", None), nn.Module) else ""
    prefix = int(getattr(net, "prefix", 0))
    found = _measured(net, x, Declared(), net.tail(last), layout, prefix, behind)  # type: ignore[operator]
    if found is None:
        raise RequestError(f"{type(net).__name__}'s tail does not give one row of features per image")
    return found


def _headed(net: nn.Module, x: Tensor, scores: bool) -> Found | None:
    """timm's kind; None where its halves give something else than one map and one row."""
    last: Any = net.forward_features(x)  # type: ignore[operator]
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        return None
    features = net(x) if scores else net.forward_head(last, pre_logits=True)  # type: ignore[operator]
    if not isinstance(features, Tensor):
        return None
    features, behind = features.flatten(1), "" if scores else _own_classifier(net)
    if last.ndim == 4:
        width = getattr(net, "num_features", last.shape[1])
        layout: Layout = "nhwc" if last.shape[-1] == width != last.shape[1] else "nchw"
        return _measured(net, x, Headed(scores), features, layout, 0, behind, last)
    prefix = int(getattr(net, "num_prefix_tokens", last.shape[1] - math.isqrt(last.shape[1]) ** 2))
    blocks = getattr(net, "blocks", None)
    if (
        isinstance(blocks, nn.Sequential | nn.ModuleList)
        and len(blocks) > 1
        and isinstance(getattr(net, "norm", None), nn.Module)
    ):
        cut = _last_block(net, x, blocks[-1], scores)
        found = cut and _measured(net, x, cut, features, "tokens", prefix, behind)
        if found:
            return found
    found = _measured(net, x, Headed(scores), features, "tokens", prefix, behind, last)
    if found is None or patches_are_read(net, x, found.cut, prefix):
        return found
    return _attended(net, x, features, behind) or replace(found, map_shape=None)


def _attended(net: nn.Module, x: Tensor, features: Tensor, behind: str) -> Found | None:
    """The last module whose patches the features still read, such as what class attention looks at (CaiT, XCiT, VOLO), or the
    block before the last one; None where no module's output decides them alone."""
    size = (int(x.shape[2]), int(x.shape[3]))
    for place in outlooks(net, x, behind)[:_TRIES]:
        cut = Replay(place.module, behind, size)
        found = _measured(net, x, cut, features, place.layout, place.prefix, behind)
        if found is not None:
            return found
    return None


def _own_classifier(net: nn.Module) -> str:
    """The name of the module that timm calls a network's classifier; "" where it has none."""
    if not callable(getattr(net, "get_classifier", None)):
        return ""
    try:
        module = net.get_classifier()  # type: ignore[operator]
    except AttributeError:  # some of timm's fail where the classifier was left out
        return ""
    if not isinstance(module, nn.Module) or isinstance(module, nn.Identity):
        return ""
    return next((n for n, m in net.named_modules() if m is module), "")


def _last_block(net: nn.Module, x: Tensor, block: nn.Module, scores: bool) -> LastBlock | None:
    """The cut before the last block, with what it gets beside the tokens; None where that is learned."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def look(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append((arguments[1:], named))
        raise Enough

    handle = block.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with torch.enable_grad():  # so that what depends on a parameter shows it
            net.forward_features(x)  # type: ignore[operator]
    except Enough:
        pass
    finally:
        handle.remove()
    if len(seen) != 1:
        return None
    arguments, named = seen[0]
    tensors = [v for v in (*arguments, *named.values()) if isinstance(v, Tensor)]
    return None if any(t.requires_grad for t in tensors) else LastBlock(arguments, named, scores)


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


def _searched(net: nn.Module, x: Tensor, scores: bool = False) -> Found:
    """Look for the cut in the graph, then under hooks; the image itself where there is none."""
    graph = _traced(net)
    found = in_graph(net, x, graph, scores) if graph is not None else None
    return found or under_hooks(net, x, scores)


def _traced(net: nn.Module) -> fx.Graph | None:
    """The network's graph, or None where its Python cannot be followed. Nothing of the network is changed."""
    try:
        return fx.Tracer().trace(net)
    except Exception:  # tracing runs the user's own code on stand-ins for tensors: anything may be raised
        return None


def in_graph(net: nn.Module, x: Tensor, graph: fx.Graph, scores: bool = False) -> Found | None:
    """The cut at a node of a traced graph, or None where the features depend on more than any one map."""
    nodes = list(graph.nodes)
    shapes: dict[fx.Node, tuple[int, ...]] = {nodes[input_of(nodes)]: tuple(x.shape)}

    def record(node: fx.Node, value: Any) -> None:
        if isinstance(value, Tensor):
            shapes[node] = tuple(value.shape)

    try:
        output = walk(net, nodes, {nodes[input_of(nodes)]: x}, len(nodes) - 1, record)
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError):
        return None
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        return None
    index = {n: i for i, n in enumerate(nodes)}
    classifier, at = "", index[nodes[-1].all_input_nodes[0]]
    node = None if scores else _classifier_node(net, nodes, shapes, tuple(output.shape))
    if node is not None:
        classifier, at = str(node.target), index[node.all_input_nodes[0]]
    mean = len(shapes.get(nodes[at], ())) == 4
    features = walk(net, nodes, {nodes[input_of(nodes)]: x}, at)
    features = features.mean(dim=(2, 3)) if mean else features.flatten(1)
    for place in reversed(_bottlenecks(nodes, at)):
        shape = shapes.get(nodes[place], ())
        if len(shape) == 4 and shape[2] * shape[3] > 1 and not _is_pooling(net, nodes[place]) and place != input_of(nodes):
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
    start = input_of(nodes)
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


def under_hooks(net: nn.Module, x: Tensor, scores: bool = False) -> Found:
    """The cut at a module's output, found by one forward pass; the image itself where no module will do.

    Raises:
        RequestError: The network cannot see such images, or gives no tensor (n, k) or (n, c, h, w).
    """
    calls, output = _calls(net, x)
    size = (int(x.shape[2]), int(x.shape[3]))
    linear = [c for c in calls if isinstance(c.module, nn.Linear)]
    classifier, mean = "", False
    if scores:
        linear = []
    elif linear and linear[-1].output == tuple(output.shape):
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
    places = [c for c in places if c.name and not _is_pooling_module(c.module)]
    for call in places[::-1][:_TRIES]:
        cut = Replay(call.name, classifier, size, mean)
        found = _measured(net, x, cut, features, "nchw", 0, classifier)
        # The map must decide the features: another map, other features.
        if found is not None and not _same(cut.tail(net, -cut.map(net, x) - 1), features):
            return found
    return Found(whole, "nchw", 0, None, x[0].numel(), int(features.shape[1]), classifier)  # an image is no map of features


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


def _is_pooling(net: nn.Module, node: fx.Node) -> bool:
    """Whether a node is adaptive pooling."""
    if node.op == "call_module":
        return isinstance(net.get_submodule(str(node.target)), _POOLINGS)
    return node.op == "call_function" and node.target in _POOLING_FUNCTIONS


def _is_pooling_module(module: nn.Module) -> bool:
    """Whether a module is adaptive pooling."""
    return isinstance(module, _POOLINGS)
