"""Inference sessions: open a frozen network, convert it to OpenVINO, compare it with torch, and run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline import networks
from sightline.engine.measures import cosines, is_mean
from sightline.engine.runtime import (
    Precision,
    compile_packed,
    convert,
    fast_precision,
    identity,
    openvino,
    pack,
    package_version,
)
from sightline.records import Backbone
from sightline.store import Cache, bytes_digest, digest, log

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

CHECKED_IMAGES = 8
"""Number of images on which a converted network is compared with torch."""
WORST_COSINE = 0.9999
"""Minimum cosine similarity with torch's features on each of these images; below it the converted network is not used."""
PATIENCE_IMAGES = 24
"""Number of images in torch after which a network is converted: by then torch has cost as much time as the conversion."""
_FORMAT = 3


@dataclass(slots=True)
class Session:
    """Frozen network, ready to run. Created by `open_session`; it has mutable state.

    Attributes:
        backbone: Backbone that it computes.
        precision: Precision in use, which may be float32 where bf16 was requested. It can change from bf16 to float32 at the
            first `run`, when the converted network is compared with torch, and is final from then on.
        ranges: Identity of the quantised network, for int8; else "".
        provisional: Whether it runs in torch only because few images were expected.
        runtime: `openvino`, `torch`, or `numpy` for the `pixels` backbone.
        device: `cpu`, `cuda` or `mps`.
        tail_is_mean: Whether the pooled features are the spatial mean of the last map, as measured on real images.
        difference: 1 - the lowest cosine similarity between its float32 features and torch's on the checked images.
    """

    backbone: Backbone
    precision: Precision
    runtime: Literal["openvino", "torch", "numpy"]
    device: str
    _cache: Cache
    _key: str
    _load: Callable[[], nn.Module]
    ranges: str = ""
    provisional: bool = False
    tail_is_mean: bool = False
    difference: float | None = None
    _payload: bytes = b""
    _compiled: Any = None
    _tail: Any = None
    _unchecked: bool = False
    _torch: Any = None
    _one_by_one: bool | None = None

    @property
    def identity(self) -> str:
        """Return what its features depend on beside image, preprocessing and weights; final after the first `run`."""
        return identity(self.runtime, self.precision, self.device, self.ranges)

    def packed(self) -> bytes:
        """Return the OpenVINO model that it runs, as `runtime.pack` does."""
        return pack(self._compiled.model.graph)

    @property
    def batch_size(self) -> int:
        """Return the batch size; on a CPU small networks are fastest with 4 images, large ones with 16."""
        if self.device != "cpu":
            return 256
        return 4 if self.backbone.parameters < 10_000_000 else 16

    def run(self, images: np.ndarray, maps: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Run one forward pass. On a CPU, the result for an image does not depend on the other images, to the last bit.

        Args:
            images: uint8 (n, height, width, 3), from `pixels.decode` with the backbone's preprocess.
            maps: Whether to return the last map too.

        Returns:
            Features float32 (n, d), and the last map float32 in the network's layout, or None.
        """
        if self.runtime == "numpy":
            grid = images.astype(np.float32) / 255
            return grid.reshape(len(images), -1), grid if maps else None
        if self._unchecked and len(images):
            self._check(images[:CHECKED_IMAGES])
        if self._one_by_one is None and self.device == "cpu" and len(images) > 1:
            return self._first_batch(images, maps)
        if self._one_by_one and len(images) > 1:
            return self._each(images, maps)
        return self._forward(images, maps)

    def _forward(self, images: np.ndarray, maps: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Run all images as one batch."""
        if self.runtime == "torch":
            last, features = self._run_torch(images, self.precision == "bf16")
        else:
            result = self._compiled(images)
            last, features = result[0], result[1]
        return np.array(features, dtype=np.float32), np.array(last, dtype=np.float32) if maps else None

    def _each(self, images: np.ndarray, maps: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Run each image alone."""
        parts = [self._forward(images[i : i + 1], maps) for i in range(len(images))]
        grids = [grid for _, grid in parts if grid is not None]
        return np.concatenate([features for features, _ in parts]), np.concatenate(grids) if grids else None

    def _first_batch(self, images: np.ndarray, maps: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Run the first batch both together and image by image, to decide how the following ones run.

        Matrix products may round differently for another number of rows: then the images of a batch run one by one.
        """
        together, alone = self._forward(images, maps), self._each(images, maps)
        self._one_by_one = not np.array_equal(together[0], alone[0], equal_nan=True)
        return alone if self._one_by_one else together

    def tail(self, maps: np.ndarray) -> np.ndarray:
        """Return features float32 (n, d) of last maps float32, computed by the network's tail."""
        if self.backbone.pool == "flatten":
            return maps.reshape(len(maps), -1)
        if self.tail_is_mean:
            return np.asarray(maps.mean(axis=(2, 3) if self.backbone.layout == "nchw" else (1, 2)), dtype=np.float32)
        if self.runtime == "torch":
            import torch

            with torch.inference_mode():
                values = torch.from_numpy(np.ascontiguousarray(maps)).to(self.device)
                return np.asarray(self._network().tail(values).float().cpu().numpy())
        if self._tail is None:
            self._tail = compile_packed(self._tail_payload(maps[:1]), "f32")
        return np.array(self._tail(np.ascontiguousarray(maps))[0], dtype=np.float32)

    def tail_gradient(self, last: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the gradient of weights · tail(map) with respect to the map, by torch through the tail alone.

        Args:
            last: float32 (1, …), last map of one image.
            weights: float32 (d,).

        Returns:
            float32, of the shape of `last`.
        """
        if self.backbone.pool == "flatten":
            return np.asarray(weights, dtype=np.float32).reshape(last.shape)
        import torch

        with torch.enable_grad():
            value = torch.from_numpy(np.array(last)).to(self.device).requires_grad_(True)
            direction = torch.from_numpy(np.array(weights, dtype=np.float32)).to(self.device)
            score = self._network().tail(value.clone())[0].float() @ direction  # a tail may begin with an in-place operation
            (gradient,) = torch.autograd.grad(score, value)
        return np.asarray(gradient.float().cpu().numpy())

    def network(self) -> Any:
        """Return the torch network, float32, in evaluation mode, for gradients and layers. Restore any change made to it."""
        return self._network()

    def reference(self) -> nn.Module:
        """Return the float32 torch module that defines the results: uint8 (n, h, w, 3) → (last map, features)."""
        return _whole(self._network(), self.backbone)

    def _network(self) -> Any:
        if self._torch is None:
            self._torch = self._load().to(self.device).eval()
        return self._torch

    def _run_torch(self, images: np.ndarray, fast: bool) -> tuple[np.ndarray, np.ndarray]:
        import torch

        x = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        module = _whole(self._network(), self.backbone)
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=fast):
            last, features = module(x)
        return last.float().cpu().numpy(), features.float().cpu().numpy()

    def _tail_payload(self, example: np.ndarray) -> bytes:
        payload = self._cache.read(f"networks/{self._key}/tail")
        if payload is None:
            import torch
            from torch import nn

            class Tail(nn.Module):
                def __init__(self, network: Any) -> None:
                    super().__init__()
                    self.network = network

                def forward(self, last: torch.Tensor) -> torch.Tensor:
                    return self.network.tail(last)  # type: ignore[no-any-return]

            payload = convert(Tail(self._network()).eval(), torch.from_numpy(np.array(example)))
            self._cache.write(f"networks/{self._key}/tail", payload)
        return payload

    def _check(self, images: np.ndarray) -> None:
        """Compare the converted float32 network with torch on real images; save it if they agree, else use torch."""
        self._unchecked = False
        compiled = compile_packed(self._payload, "f32")
        result = compiled(images)  # a view of memory owned by `compiled`
        module = _whole(self._network(), self.backbone)
        import torch

        with torch.inference_mode():
            last, features = (t.float().cpu().numpy() for t in module(torch.from_numpy(np.ascontiguousarray(images))))
        worst = float(cosines(np.asarray(result[1]), features).min())
        self.difference = 1 - worst
        self.tail_is_mean = is_mean(last, features, self.backbone)
        if not worst >= WORST_COSINE:
            log.warning("OpenVINO and torch disagree on %s (cosine %.5f); it runs in torch", self.backbone.name, worst)
            self.runtime, self.precision = "torch", "f32"
            return
        meta = {"tail_is_mean": self.tail_is_mean, "difference": self.difference}
        self._cache.write(f"networks/{self._key}/whole", self._payload)
        self._cache.write_json(f"networks/{self._key}/meta", meta)
        self._payload = b""


def _whole(network: Any, backbone: Backbone) -> nn.Module:
    """Return the reference module, which is traced: uint8 (n, h, w, 3) → (last map, features), with normalisation."""
    import torch
    from torch import nn

    class Whole(nn.Module):
        mean: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            mean = 255 * torch.tensor(backbone.preprocess.mean).reshape(1, 3, 1, 1)
            std = 255 * torch.tensor(backbone.preprocess.std).reshape(1, 3, 1, 1)
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
            self.register_buffer("mean", mean.to(device), persistent=False)
            self.register_buffer("scale", (1 / std).to(device), persistent=False)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = images.permute(0, 3, 1, 2).to(torch.float32)
            last = self.network.map((x - self.mean) * self.scale)
            return last, self.network.tail(last)

    return Whole().eval()


def open_session(
    backbone: Backbone,
    *,
    cache: Cache,
    tensors: Mapping[str, np.ndarray] | None = None,
    precision: Precision = "f32",
    quantised: bytes | None = None,
    device: str = "cpu",
    expected: int = 1_000_000,
) -> Session:
    """Open a network, from its converted form if the cache has it.

    Args:
        backbone: Network and weights.
        cache: Cache of converted networks.
        tensors: Weights by name; None loads them by the backbone's name and weights.
        precision: Requested precision. The session uses float32 instead if the processor doesn't support bf16, if OpenVINO
            cannot run the network, or while the network isn't converted yet.
        quantised: The network in int8, as `quantised` returns it; needed for int8, else ignored.
        device: `cpu`, `cuda` or `mps`.
        expected: Approximate number of images to run. For a few dozen in all, converting takes longer than it saves.

    Raises:
        WeightsError: If the weights are missing or do not fit.
    """
    key = network_key(backbone)

    def load() -> nn.Module:
        return networks.build(backbone, tensors=tensors)

    if backbone.source == "pixels":
        return Session(backbone, "f32", "numpy", "cpu", _cache=cache, _key=key, _load=load)
    if precision == "int8":
        session = None
        if quantised and device == "cpu" and openvino() is not None:
            session = _int8_session(backbone, quantised, cache, key, load)
        if session is not None:
            return session
        precision = "f32"
    if precision == "bf16" and fast_precision(device) != "bf16":
        precision = "f32"
    if device != "cpu" or openvino() is None:
        return _torch_session(backbone, precision, device, cache, key, load)
    meta, payload = cache.read_json(f"networks/{key}/meta"), cache.read(f"networks/{key}/whole")
    if meta is not None and payload is not None:
        compiled = compile_packed(payload, precision)
        state: dict[str, Any] = {**meta, "_cache": cache, "_key": key, "_load": load, "_compiled": compiled}
        return Session(backbone, compiled.precision, "openvino", "cpu", **state)
    done = int(cache.read_json(f"networks/{key}/waited") or 0)
    if done + expected <= PATIENCE_IMAGES:
        cache.write_json(f"networks/{key}/waited", done + expected)
        session = _torch_session(backbone, "f32", "cpu", cache, key, load)
        session.provisional = True
        return session
    return _converted_session(backbone, precision, cache, key, load)


def network_key(backbone: Backbone) -> str:
    """Return the name of a network's folder in the cache."""
    return digest([backbone.id, _FORMAT, package_version("openvino")])


def _int8_session(
    backbone: Backbone, quantised: bytes, cache: Cache, key: str, load: Callable[[], nn.Module]
) -> Session | None:
    """Return the session of a quantised network, which needs no torch; None if OpenVINO cannot run it."""
    try:
        compiled = compile_packed(quantised, "int8")
    except Exception as error:  # OpenVINO raises many types of errors; the network then runs in float32
        log.warning("OpenVINO cannot run %s in int8 (%s)", backbone.name, str(error).strip().split("\n")[0][:200])
        return None
    state: dict[str, Any] = {"_cache": cache, "_key": key, "_load": load, "_compiled": compiled}
    session = Session(backbone, "int8", "openvino", "cpu", ranges=bytes_digest(quantised)[:32], **state)
    last, features = session._forward(_noise(backbone), True)[::-1]
    session.tail_is_mean = last is not None and is_mean(last, features, backbone)
    return session


def _noise(backbone: Backbone) -> np.ndarray:
    """Return one image of noise, uint8 (1, height, width, 3)."""
    return np.random.default_rng(0).integers(0, 256, (1, *backbone.preprocess.size, 3), dtype=np.uint8)


def _converted_session(
    backbone: Backbone, precision: Precision, cache: Cache, key: str, load: Callable[[], nn.Module]
) -> Session:
    """Convert a network and return its session, which compares it with torch on the first images."""
    import torch

    network = load().eval()
    example = torch.zeros((1, *backbone.preprocess.size, 3), dtype=torch.uint8)
    try:
        payload = convert(_whole(network, backbone), example)
        compiled = compile_packed(payload, precision)
    except Exception as error:  # OpenVINO raises many types of errors; torch can run what OpenVINO can't
        log.warning("OpenVINO cannot run %s (%s); it runs in torch", backbone.name, str(error).strip().split("\n")[0][:200])
        return _torch_session(backbone, "f32", "cpu", cache, key, lambda: network)
    state: dict[str, Any] = {"_cache": cache, "_key": key, "_load": load, "_payload": payload, "_compiled": compiled}
    session = Session(backbone, compiled.precision, "openvino", "cpu", **state)
    session._unchecked, session._torch = True, network
    return session


def _torch_session(
    backbone: Backbone, precision: Precision, device: str, cache: Cache, key: str, load: Callable[[], nn.Module]
) -> Session:
    """Return a session in torch; whether its tail is a mean is measured on one image of noise."""
    session = Session(backbone, precision, "torch", device, _cache=cache, _key=key, _load=load, difference=0.0)
    last, features = session._run_torch(_noise(backbone), False)
    session.tail_is_mean = is_mean(last, features, backbone)
    return session
