"""Any module of a network as the place of the feature map, with the rest of the network as its tail.

A hook reads the module's output, or replaces it, while the network runs on the unchanged image: connections around the
module, such as skip connections, keep their values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline.engine import is_mean
from sightline.errors import RequestError, unknown
from sightline.explanation.feature_map import MapSession
from sightline.records import Backbone

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["nchw", "nhwc", "tokens"]
_TOLERANCE = 1e-3
"""Largest accepted relative difference between features of the complete network and those of its map and tail."""


@contextlib.contextmanager
def borrowed(network: Any) -> Iterator[Any]:
    """Yield the network in evaluation mode without parameter gradients; restore everything afterwards, also after an error.

    Args:
        network: A torch module.
    """
    import torch

    modes = {m: m.training for m in network.modules()}
    flags = {p: (p.requires_grad, p.grad) for p in network.parameters()}
    try:
        network.eval()
        for parameter in flags:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield network
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, (flag, gradient) in flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = gradient


def as_seen(images: np.ndarray, backbone: Backbone, network: Any) -> Tensor:
    """Normalise images uint8 (n, h, w, 3) to float32 (n, 3, h, w) on the device of the network's weights."""
    import torch

    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).to(torch.float32)
    if backbone.source == "pixels":
        return x / 255
    mean, std = (255 * x.new_tensor(v).reshape(1, 3, 1, 1) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    return (x - mean) / std


def through_cut(network: Any, x: Tensor) -> Tensor:
    """Return features (n, d) by map and tail, which defines them."""
    return network.tail(network.map(x))  # type: ignore[no-any-return]


def as_whole(network: Any, x: Tensor) -> Tensor:
    """Return features (n, d) by the network's own forward pass, up to its classifier.

    A network that is cut in a traced graph runs the graph's steps, so that the hooks of the containers around them do not fire.
    """
    from sightline.networks.feature_cut import value_at

    net, behind = network.net, network.classifier
    value = value_at(net.get_submodule(behind), net, x) if behind else net(x)
    return value.mean(dim=(2, 3)) if value.ndim == 4 else value.flatten(1)


@contextlib.contextmanager
def _hook(module: Any, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Call `function` on each output of the module; a value that it returns replaces the output."""
    handle = module.register_forward_hook(lambda _module, _arguments, output: function(output))
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class Place:
    """A module whose output is a feature map.

    Args:
        name: Its name in the network.
        run: How the network is run so that the module's hook fires.
        calls: Number of calls in one pass; the last call counts.
        backbone: The session's backbone, with this module's map in place of the last one.
    """

    name: str
    run: Callable[[Any, Tensor], Tensor]
    calls: int
    backbone: Backbone


@dataclass(frozen=True, slots=True)
class AtLayer:
    """A `MapSession` whose map is the output of one module, for one image.

    Args:
        session: The network.
        place: The module.
        image: uint8 (h, w, 3).
        last: float32 (1, …), the module's output for it.
        tail_is_mean: Whether the features are the plain mean of that output, as measured on this image.
    """

    session: MapSession
    place: Place
    image: np.ndarray
    last: np.ndarray
    tail_is_mean: bool

    @property
    def backbone(self) -> Backbone:
        """Return the backbone with this module's map."""
        return self.place.backbone

    def network(self) -> Any:
        """Return the torch network; see `MapSession`."""
        return self.session.network()

    def run(self, images: np.ndarray, maps: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Return features and maps of images; see `MapSession`."""
        each = [open_layer(self.session, self.place, image) for image in images]
        features = np.concatenate([one.tail(one.last) for one in each])
        return features, np.concatenate([one.last for one in each]) if maps else None

    def tail(self, maps: np.ndarray) -> np.ndarray:
        """Return the features of this image with these maps as the module's output; see `MapSession`."""
        import torch

        if self.tail_is_mean:
            return np.asarray(maps.mean(axis=(2, 3) if self.backbone.layout == "nchw" else (1, 2)), dtype=np.float32)
        with borrowed(self.network()) as network, torch.no_grad():
            x = as_seen(self.image[None], self.session.backbone, network)
            value = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32)).to(x.device)
            return np.asarray(self._replaced(network, x.expand(len(maps), -1, -1, -1), value).cpu().numpy())

    def tail_gradient(self, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the gradient of weights · tail(last); see `MapSession`."""
        import torch

        with borrowed(self.network()) as network:
            x = as_seen(self.image[None], self.session.backbone, network)
            value = torch.from_numpy(np.array(last, dtype=np.float32)).to(x.device).requires_grad_(True)
            score = self._replaced(network, x, value)[0] @ torch.from_numpy(np.array(weights, dtype=np.float32)).to(x.device)
            if not score.requires_grad:
                return np.zeros_like(last)
            (gradient,) = torch.autograd.grad(score, value, allow_unused=True)
            return np.zeros_like(last) if gradient is None else np.asarray(gradient.cpu().numpy())

    def _replaced(self, network: Any, x: Tensor, value: Tensor) -> Tensor:
        """Return features (n, d) of images with `value` as the module's output."""
        calls = 0

        def observe(output: Tensor) -> Tensor | None:
            nonlocal calls
            calls += 1
            return value.clone() if calls == self.place.calls else None  # a copy: the next module may work in place

        with _hook(_module(network, self.place.name), observe):
            return self.place.run(network, x)


def find_layer(session: MapSession, name: str, image: np.ndarray) -> Place:
    """Find a module by its name, how the network is run so that its hook fires, and the layout of its map.

    Args:
        session: The network.
        name: Its name in torch, such as `layer3.1.conv2`.
        image: uint8 (h, w, 3), used for a trial run.

    Raises:
        RequestError: If there is no such module, it does not run, or its output has no spatial positions.
    """
    backbone = session.backbone
    if not backbone.is_network:
        raise RequestError(f"the backbone {backbone.name!r} has no layers to choose from", "leave out --layer")
    names = [n for n, _ in session.network().net.named_modules() if n]
    listed = f"`sightline summary {shlex.quote(backbone.name)}` lists its layers"
    if name not in names:
        error = unknown("layer", name, names)
        close = error.hint or ""
        raise RequestError(error.message, f"{close}{'' if close.endswith('?') else ';'} {listed}")
    run, outputs = _observed(session, name, image)
    if not outputs:
        hint = f"{listed}; or leave out --layer"
        raise RequestError(f"the layer {name!r} of {backbone.name} does not run before the features", hint)
    shape = tuple(outputs[-1].shape)
    placed = _layout_of(shape, (image.shape[0], image.shape[1]), backbone)
    if placed is None:
        hint = "name a layer before pooling, whose output is (n, channels, height, width) or tokens; or leave out --layer"
        raise RequestError(f"the layer {name!r} of {backbone.name} outputs {list(shape)}, which has no spatial positions", hint)
    layout, prefix, grid = placed
    return Place(name, run, len(outputs), dataclasses.replace(backbone, layout=layout, prefix=prefix, map_shape=grid))


def open_layer(session: MapSession, place: Place, image: np.ndarray) -> AtLayer:
    """Return the map of one image at a module, with the network after it."""
    outputs, features = _outputs(session, place.run, place.name, image)
    last = outputs[-1]
    return AtLayer(session, place, image, last, is_mean(last, features, place.backbone))


def behind_norm(session: MapSession, image: np.ndarray) -> str | None:
    """Return the first normalisation between the map's tokens and the features; None where there is none.

    Args:
        session: The network.
        image: uint8 (h, w, 3), used for a trial run.
    """
    import torch

    called: list[str] = []
    with borrowed(session.network()) as network, torch.no_grad():
        x = as_seen(image[None], session.backbone, network)
        last = network.map(x)
        handles = [
            module.register_forward_hook(lambda _, __, ___, name=name: called.append(name))
            for name, module in network.net.named_modules()
            if name
        ]
        try:
            network.tail(last)
        finally:
            for handle in handles:
                handle.remove()
        cut = getattr(network.cut, "module", "")  # a replayed tail also runs the modules before the map
        after = called[called.index(cut) + 1 :] if cut in called else called
        norms = [n for n in after if "norm" in type(_module(network, n)).__name__.lower()]
    return norms[0] if norms else None


def _observed(session: MapSession, name: str, image: np.ndarray) -> tuple[Callable[[Any, Tensor], Tensor], list[np.ndarray]]:
    """Return how the network is run so that a module's hook fires, and the module's outputs."""
    outputs, features = _outputs(session, through_cut, name, image)
    if outputs or session.backbone.pool != "avg":
        return through_cut, outputs
    try:
        outputs, whole = _outputs(session, as_whole, name, image)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return through_cut, []
    scale = float(np.abs(features).max()) or 1.0
    same = whole.shape == features.shape and float(np.abs(whole - features).max()) <= _TOLERANCE * scale
    return (as_whole, outputs) if same else (through_cut, [])


def _outputs(
    session: MapSession, run: Callable[[Any, Tensor], Tensor], name: str, image: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return a module's outputs in one pass, float32 (1, …) for each call, and the features."""
    import torch

    outputs: list[np.ndarray] = []

    def observe(output: Any) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append(np.array(output.detach().float().cpu().numpy()))

    with borrowed(session.network()) as network, torch.no_grad(), _hook(_module(network, name), observe):
        features = run(network, as_seen(image[None], session.backbone, network))
    return outputs, np.asarray(features.float().cpu().numpy())


def _module(network: Any, name: str) -> Any:
    return network.net.get_submodule(name)


def _layout_of(
    shape: tuple[int, ...], size: tuple[int, int], backbone: Backbone
) -> tuple[Layout, int, tuple[int, int, int]] | None:
    """Return (layout, tokens before the patches, (c, h, w)) of an output of this shape; None where it has no spatial positions.

    The channel axis is found by the image's proportions; where both axes fit, it is that of the network's last map.

    Example:
        >>> from sightline.records import Preprocess
        >>> swin = Backbone("swin", "timm", Preprocess(), 8, layout="nhwc")
        >>> _layout_of((1, 7, 7, 768), (224, 224), swin), _layout_of((1, 197, 192), (224, 224), swin)
        (('nhwc', 0, (768, 7, 7)), ('tokens', 1, (192, 14, 14)))
        >>> _layout_of((1, 2048, 1, 1), (224, 224), swin) is None
        True
    """
    if len(shape) == 4:
        fits = {"nchw": _mismatch(shape[2], shape[3], size), "nhwc": _mismatch(shape[1], shape[2], size)}
        preferred: Layout = "nhwc" if backbone.layout == "nhwc" else "nchw"
        other: Layout = "nchw" if preferred == "nhwc" else "nhwc"
        layout = other if fits[other] < fits[preferred] else preferred
        c, h, w = (shape[1], shape[2], shape[3]) if layout == "nchw" else (shape[3], shape[1], shape[2])
        return (layout, 0, (c, h, w)) if h * w > 1 else None
    if len(shape) != 3:
        return None
    for prefix in dict.fromkeys([backbone.prefix, 0, 1, 5]):
        count = shape[1] - prefix
        height = round(math.sqrt(max(count, 0) * size[0] / size[1]))
        if height and count > 1 and count % height == 0 and _mismatch(height, count // height, size) < 0.1:
            return "tokens", prefix, (shape[2], height, count // height)
    return None


def _mismatch(height: int, width: int, size: tuple[int, int]) -> float:
    """Return the log ratio between a grid's and the image's proportions; 0 if they are the same."""
    return abs(math.log(height * size[1] / (width * size[0])))
