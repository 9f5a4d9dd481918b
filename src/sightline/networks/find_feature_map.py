"""Find the last feature map of a network and cut the network there into `map` and `tail` (see `network.Network`).

The rules, in this order:

1. A network with methods `map` and `tail` declares its cut. Its module `classifier`, if any, follows the tail.
2. A network with `forward_features` and `forward_head`, like all of timm's, is cut between the two, and the tail leaves out the
   classifier. If the map consists of tokens, the map is the *input* of the last block, because after it only the class token
   gets a gradient. If that cut does not reproduce the features, and the features do not depend on the patches after
   `forward_features`, the map is the output of the last module whose patches they do depend on.
3. In any other network, the classifier is the last linear layer whose output has the shape of the network's output or, without
   linear layers, the last 1×1 convolution of that width. The features are its input (the mean over positions for a
   convolution). The map is the last tensor (n, c, h, w) with more than one position that alone determines the features,
   except outputs of adaptive pooling. It is found in the traced graph or, if tracing fails, by a forward pass with hooks.
4. If there is no such tensor, the cut is at the image itself, and the network has no map.

Every cut is verified on a noise image: tail(map(x)) must equal the network's own features.
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
    Graph,
    Headed,
    LastBlock,
    Layout,
    Replay,
    StopForward,
    evaluation_mode,
    input_of,
    value_at,
    walk,
)
from sightline.networks.patch_tokens import patch_outputs, patches_are_read

_TOLERANCE = 2e-6  # low enough that a missing block shows even if its layer scale is 1e-5
_POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING_FUNCTIONS = (nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_max_pool2d)
_TRIES = 12
"""How many modules, from the last one back, are tried as the place of the map."""


@dataclass(frozen=True, slots=True)
class MeasuredCut:
    """A verified cut and the shapes of its map and features.

    Args:
        cut: The cut.
        layout: Layout of the map.
        prefix: Number of tokens before the patches.
        map_shape: (channels, height, width) of the map; None if its tokens form no grid.
        map_numbers: Number of values of one image's map.
        features: Number of features d.
        classifier: Name of the module that takes the features; "" if there is none.
    """

    cut: Cut
    layout: Layout
    prefix: int
    map_shape: tuple[int, int, int] | None
    map_numbers: int
    features: int
    classifier: str = ""


def find(net: nn.Module, size: tuple[int, int], *, scores: bool = False) -> MeasuredCut:
    """Find the cut of a network by the rules above. The network's mode, gradients and hooks are restored.

    Args:
        net: Any network that takes images (n, channels, h, w).
        size: (height, width) of the images in px.
        scores: Whether the features are the network's whole output, classifier included.

    Raises:
        RequestError: If the network does not accept such images, or does not return a tensor.
    """
    x = torch.randn((1, channels_of(net), *size), generator=torch.Generator().manual_seed(0))
    x = x.to(next((p.device for p in net.parameters()), torch.device("cpu")))
    with evaluation_mode(net):
        if not scores and callable(getattr(net, "map", None)) and callable(getattr(net, "tail", None)):
            return _declared(net, x)
        cut = None
        if hasattr(net, "forward_features") and hasattr(net, "forward_head"):
            cut = _headed(net, x, scores)
        if cut is None and not scores and all(hasattr(net, n) for n in ("_process_input", "class_token", "encoder", "heads")):
            features = value_at(net.get_submodule("heads"), net, x)
            cut = _measured(net, x, EncoderBlock(), features, layout="tokens", prefix=1, classifier="heads")
        return cut or _searched(net, x, scores)


def channels_of(net: nn.Module) -> int:
    """Return the number of input channels: the attribute `channels`; otherwise 1 if the first convolution takes 1, else 3."""
    channels = getattr(net, "channels", None)
    if isinstance(channels, int) and channels > 0:
        return channels
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


# -------------------------------------------------------------------------------------------------------- rules 1 and 2


def _declared(net: nn.Module, x: Tensor) -> MeasuredCut:
    """Return the cut of a network with methods `map` and `tail` (rule 1).

    Raises:
        RequestError: If the tail does not return features (n, d).
    """
    features = net.tail(net.map(x))  # type: ignore[operator]
    layout: Layout = getattr(net, "layout", "nchw")
    classifier = "classifier" if isinstance(getattr(net, "classifier", None), nn.Module) else ""
    prefix = int(getattr(net, "prefix", 0))
    cut = _measured(net, x, Declared(), features, layout=layout, prefix=prefix, classifier=classifier)
    if cut is None:
        raise RequestError(f"{type(net).__name__}'s method `tail` does not return one row of features per image")
    return cut


def _headed(net: nn.Module, x: Tensor, scores: bool) -> MeasuredCut | None:
    """Return the cut of a network with timm's methods (rule 2); None if they do not return one map and one row."""
    last: Any = net.forward_features(x)  # type: ignore[operator]
    if not isinstance(last, Tensor) or last.ndim not in (3, 4):
        return None
    features = net(x) if scores else net.forward_head(last, pre_logits=True)  # type: ignore[operator]
    if not isinstance(features, Tensor):
        return None
    features, classifier = features.flatten(1), "" if scores else _timm_classifier(net)
    if last.ndim == 4:
        width = getattr(net, "num_features", last.shape[1])
        layout: Layout = "nhwc" if last.shape[-1] == width != last.shape[1] else "nchw"
        return _measured(net, x, Headed(scores), features, layout=layout, classifier=classifier, last=last)
    prefix = int(getattr(net, "num_prefix_tokens", last.shape[1] - math.isqrt(last.shape[1]) ** 2))
    blocks = getattr(net, "blocks", None)
    if (
        isinstance(blocks, nn.Sequential | nn.ModuleList)
        and len(blocks) > 1
        and isinstance(getattr(net, "norm", None), nn.Module)
    ):
        last_block = _last_block(net, x, blocks[-1], scores)
        cut = last_block and _measured(net, x, last_block, features, layout="tokens", prefix=prefix, classifier=classifier)
        if cut:
            return cut
    cut = _measured(net, x, Headed(scores), features, layout="tokens", prefix=prefix, classifier=classifier, last=last)
    if cut is None or patches_are_read(net, x, cut.cut, prefix):
        return cut
    return _attended(net, x, features, classifier) or replace(cut, map_shape=None)


def _attended(net: nn.Module, x: Tensor, features: Tensor, classifier: str) -> MeasuredCut | None:
    """Return the cut at the last module whose patches influence the features; None if no module determines them alone.

    That is the input of class attention (CaiT, XCiT, VOLO), or the block before the last one.
    """
    size = (int(x.shape[2]), int(x.shape[3]))
    for place in patch_outputs(net, x, classifier)[:_TRIES]:
        replay = Replay(place.module, classifier, size)
        cut = _measured(net, x, replay, features, layout=place.layout, prefix=place.prefix, classifier=classifier)
        if cut is not None:
            return cut
    return None


def _timm_classifier(net: nn.Module) -> str:
    """Return the name of the module that timm's `get_classifier` returns; "" if there is none."""
    if not callable(getattr(net, "get_classifier", None)):
        return ""
    try:
        module = net.get_classifier()  # type: ignore[operator]
    except AttributeError:  # some of timm's networks fail if built without classifier
        return ""
    if not isinstance(module, nn.Module) or isinstance(module, nn.Identity):
        return ""
    return next((n for n, m in net.named_modules() if m is module), "")


def _last_block(net: nn.Module, x: Tensor, block: nn.Module, scores: bool) -> LastBlock | None:
    """Return the cut before the last block with the block's further arguments; None if these depend on parameters."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append((arguments[1:], named))
        raise StopForward

    handle = block.register_forward_pre_hook(record, with_kwargs=True)
    try:
        with torch.enable_grad():  # so that values that depend on a parameter require gradients
            net.forward_features(x)  # type: ignore[operator]
    except StopForward:
        pass
    finally:
        handle.remove()
    if len(calls) != 1:
        return None
    arguments, named = calls[0]
    tensors = [v for v in (*arguments, *named.values()) if isinstance(v, Tensor)]
    return None if any(t.requires_grad for t in tensors) else LastBlock(arguments, named, scores)


def _measured(
    net: nn.Module,
    x: Tensor,
    cut: Cut,
    features: Tensor,
    *,
    layout: Layout = "nchw",
    prefix: int = 0,
    classifier: str = "",
    last: Tensor | None = None,
) -> MeasuredCut | None:
    """Verify a cut and measure its map; None if its tail does not return the network's own features.

    Args:
        net: The network.
        x: Noise image (1, channels, h, w).
        cut: The cut.
        features: The network's own features (1, d) of `x`.
        layout: Layout of the map.
        prefix: Number of tokens before the patches.
        classifier: Name of the module that takes the features.
        last: The map of `x` if it was computed before.
    """
    try:
        last = cut.map(net, x) if last is None else last
        tail_features = cut.tail(net, last)
    except (RuntimeError, TypeError, AttributeError, ValueError, IndexError, KeyError):
        return None
    if tail_features.ndim != 2 or tail_features.shape != features.shape:
        return None
    scale = float(features.abs().max()) or 1.0
    if not float((tail_features - features).abs().max()) <= _TOLERANCE * scale:
        return None
    return MeasuredCut(
        cut=cut,
        layout=layout,
        prefix=prefix,
        map_shape=_grid(x, last, layout, prefix),
        map_numbers=last[0].numel(),
        features=int(features.shape[1]),
        classifier=classifier,
    )


def _grid(x: Tensor, last: Tensor, layout: Layout, prefix: int) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of a map; None if its tokens form no grid."""
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


def _searched(net: nn.Module, x: Tensor, scores: bool = False) -> MeasuredCut:
    """Search for the cut in the traced graph, then with hooks (rules 3 and 4)."""
    graph = _traced(net)
    cut = in_graph(net, x, graph, scores) if graph is not None else None
    return cut or under_hooks(net, x, scores)


def _traced(net: nn.Module) -> fx.Graph | None:
    """Trace a network's graph without changing the network; None if it cannot be traced."""
    try:
        return fx.Tracer().trace(net)
    except Exception:  # tracing runs arbitrary code on proxies of tensors, which may raise anything
        return None


def in_graph(net: nn.Module, x: Tensor, graph: fx.Graph, scores: bool = False) -> MeasuredCut | None:
    """Return the cut at a node of a traced graph; None if no single map determines the features."""
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
            cut = _measured(net, x, Graph(graph, place, at, mean), features, classifier=classifier)
            if cut is not None:
                return cut
    return None


def _classifier_node(
    net: nn.Module, nodes: Sequence[fx.Node], shapes: dict[fx.Node, tuple[int, ...]], output: tuple[int, ...]
) -> fx.Node | None:
    """Return the node of the classifier, which turns features into the network's output."""
    calls = [n for n in nodes if n.op == "call_module" and len(n.all_input_nodes) == 1]
    linear = [n for n in calls if isinstance(net.get_submodule(str(n.target)), nn.Linear)]
    if linear:
        return linear[-1] if shapes.get(linear[-1]) == output else None
    if len(output) != 2:
        return None
    convolutions = [n for n in calls if isinstance(net.get_submodule(str(n.target)), nn.Conv2d)]
    if convolutions and _is_classifier(net.get_submodule(str(convolutions[-1].target)), output):
        return convolutions[-1]
    return None


def _is_classifier(module: nn.Module, output: tuple[int, ...]) -> bool:
    """Return whether a 1×1 convolution acts as a linear classifier: it is as wide as the network's output."""
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.out_channels == output[1]


def _bottlenecks(nodes: Sequence[fx.Node], end: int) -> list[int]:
    """Return the indices of the nodes through which all data flow from the images to node `end` passes."""
    index = {n: i for i, n in enumerate(nodes)}
    needed, stack = set(), [nodes[end]]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    start = input_of(nodes)
    varying = {nodes[start]}  # nodes that depend on the images
    for node in nodes[start + 1 :]:
        if any(n in varying for n in node.all_input_nodes):
            varying.add(node)
    bottlenecks, reach = [], start
    for i in range(start, end + 1):
        node = nodes[i]
        if node not in needed or node not in varying:
            continue
        if reach <= i:  # no earlier node is used after it
            bottlenecks.append(i)
        uses = [index[u] for u in node.users if u in needed]
        reach = max([reach, *uses])
    return bottlenecks


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a module in a forward pass, with the shape of its output."""

    name: str
    module: nn.Module
    output: tuple[int, ...]


def under_hooks(net: nn.Module, x: Tensor, scores: bool = False) -> MeasuredCut:
    """Find the cut at a module's output by a forward pass with hooks; at the image itself if no module qualifies.

    Raises:
        RequestError: If the network does not accept such images, or does not return a tensor (n, k) or (n, c, h, w).
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
    places = [c for c in places if c.name and not isinstance(c.module, _POOLINGS)]
    for call in places[::-1][:_TRIES]:
        replay = Replay(call.name, classifier, size, mean)
        cut = _measured(net, x, replay, features, classifier=classifier)
        # The map must determine the features: a different map must give different features.
        if cut is not None and not _same(replay.tail(net, -replay.map(net, x) - 1), features):
            return cut
    return MeasuredCut(
        cut=whole,
        layout="nchw",
        prefix=0,
        map_shape=None,  # the image itself does not count as a feature map
        map_numbers=x[0].numel(),
        features=int(features.shape[1]),
        classifier=classifier,
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-6 * (b.abs().max() + 1e-12))


def _calls(net: nn.Module, x: Tensor) -> tuple[list[_Call], Tensor]:
    """Run one forward pass and return the module calls in the order in which they end, and the network's output.

    Hooks are removed, also after an error.
    """
    calls: list[_Call] = []
    handles = []

    def hook(name: str) -> Any:
        def record(module: nn.Module, _: Any, result: Any) -> None:
            if isinstance(result, Tensor):
                calls.append(_Call(name, module, tuple(result.shape)))

        return record

    try:
        handles = [m.register_forward_hook(hook(n)) for n, m in net.named_modules() if n]
        output = net(x)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        hint = "its forward must accept float images (n, 3, height, width); check the image size"
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        what = f"{type(net).__name__} does not accept images of {x.shape[2]}×{x.shape[3]} px ({reason})"
        raise RequestError(what, hint) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, Tensor) or output.ndim not in (2, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        hint = "its forward must return features or logits (n, k), or a map (n, c, h, w)"
        raise RequestError(f"{type(net).__name__} returns {shape} for one image", hint)
    return calls, output


def _is_pooling(net: nn.Module, node: fx.Node) -> bool:
    """Return whether a node is adaptive pooling."""
    if node.op == "call_module":
        return isinstance(net.get_submodule(str(node.target)), _POOLINGS)
    return node.op == "call_function" and node.target in _POOLING_FUNCTIONS
