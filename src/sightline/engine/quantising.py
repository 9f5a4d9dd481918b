"""int8: quantise a frozen network by NNCF, with ranges from photographs that the installation holds.

The ranges belong to the network: the calibration images are the same for every user and every run, so that a quantised network
is made once per set of weights and input size, and ten new photographs cost ten forward passes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sightline.engine.instructions import has_vnni
from sightline.engine.runtime import nncf, openvino, pack, package_version, unpack
from sightline.engine.session import network_key, open_session
from sightline.records import Backbone
from sightline.store import Cache, bytes_digest, digest, log, stream

CALIBRATION_IMAGES = 200
_SMALLEST_AREA = 0.08
"""Smallest share of a photograph's area that a calibration image shows, as in the training of most networks."""
_FORMAT = 2
"""Part of the name in the cache; raise it when networks are quantised in another way."""
_made: dict[str, bytes] = {}
"""Quantised networks of this process by name in the cache, for a cache that cannot be written."""


def calibration_images(size: tuple[int, int]) -> np.ndarray:
    """Return the calibration images: random crops of the two photographs that scikit-learn ships, resized and mirrored.

    Args:
        size: (height, width) in pixels.

    Returns:
        uint8 (200, height, width, 3), the same on every machine.
    """
    from PIL import Image

    photographs = _photographs()
    random = stream(0, "calibration images")
    images = []
    for i in range(CALIBRATION_IMAGES):
        photograph = photographs[i % len(photographs)]
        height, width = photograph.shape[:2]
        area = random.uniform(_SMALLEST_AREA, 1.0) * height * width
        aspect = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        h, w = min(height, int((area / aspect) ** 0.5)), min(width, int((area * aspect) ** 0.5))
        top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
        crop = Image.fromarray(photograph[top : top + h, left : left + w]).resize(size[::-1], Image.Resampling.BICUBIC)
        pixels = np.asarray(crop)
        images.append(pixels[:, ::-1] if random.random() < 0.5 else pixels)
    return np.stack(images)


def _photographs() -> list[np.ndarray]:
    """Return the photographs that scikit-learn ships, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_images

    return list(load_sample_images().images)


@functools.cache
def _photographs_digest() -> str:
    """Return the identity of the photographs."""
    return digest([bytes_digest(np.ascontiguousarray(photograph).tobytes()) for photograph in _photographs()])


def quantised(backbone: Backbone, cache: Cache, tensors: Mapping[str, np.ndarray] | None = None) -> bytes | None:
    """Return a network in int8, packed as by `runtime.pack`; from the cache if it was quantised before.

    Args:
        backbone: Network and weights.
        cache: Cache of networks.
        tensors: Weights by name; None loads them by the backbone's name and weights.

    Returns:
        The network, or None if OpenVINO cannot run it or NNCF is not installed; the reason is logged.
    """
    if openvino() is None or not backbone.is_network:
        return None
    made_from = [_photographs_digest(), package_version("nncf"), has_vnni(), _FORMAT]
    name = f"networks/{network_key(backbone)}/int8-{digest(made_from)}"
    payload = _made.get(name) or cache.read(name)
    if payload is None:
        payload = _quantise(backbone, cache, tensors)
        if payload is not None and not cache.write(name, payload):
            _made[name] = payload
    return payload


def _quantise(backbone: Backbone, cache: Cache, tensors: Mapping[str, np.ndarray] | None) -> bytes | None:
    """Quantise a network; None if OpenVINO or NNCF cannot.

    Without VNNI, products of 8-bit values are summed in 16 bits, which overflow: weights then have 7 bits.
    """
    try:
        with silent():
            quantiser = nncf()
    except ImportError as error:
        log.warning("NNCF cannot be imported (%s); networks don't run in int8", error)
        return None
    images = calibration_images(backbone.preprocess.size)
    session = open_session(backbone, cache=cache, tensors=tensors)
    session.run(images[:8])  # compares the converted network with torch
    if session.runtime != "openvino":
        return None
    model = unpack(session.packed())
    try:
        with silent():
            simplify(model.graph)
            made = quantiser.quantize(
                model.graph,
                quantiser.Dataset([image[None] for image in images]),
                subset_size=len(images),
                preset=quantiser.QuantizationPreset.MIXED,
                fast_bias_correction=True,
                ignored_scope=quantiser.IgnoredScope(names=_tail_names(model.graph), validate=False),
                advanced_parameters=quantiser.AdvancedQuantizationParameters(
                    overflow_fix=quantiser.OverflowFix.DISABLE if has_vnni() else quantiser.OverflowFix.ENABLE
                ),
            )
    except Exception as error:  # NNCF raises many types of errors; the network then runs in another precision
        log.warning("NNCF cannot quantise %s (%s)", backbone.name, str(error).strip().split("\n")[0][:200])
        return None
    for number, node in enumerate(made.get_ordered_ops()):  # names count the operations of the process
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
        if "fused_names_0" in node.get_rt_info():
            del node.get_rt_info()["fused_names_0"]
    made.set_friendly_name(backbone.name)
    made.set_rt_info("", ["nncf", "quantization", "ignored_scope", "names"])
    return pack(made)


def simplify(graph: Any) -> None:
    """Fold constants and fuse operations of a graph in place, as NNCF expects.

    Otherwise the padding of a network with "same" padding is computed in the graph, and NNCF quantises its weights twice.
    """
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(graph, cf=True)


def _tail_names(graph: Any) -> list[str]:
    """Return the names of the operations from the last map to the features, which stay in float32: heatmaps use both."""
    last, features = (result.input_value(0).get_node() for result in graph.get_results())
    names, waiting = set[str](), [features]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name != last.get_friendly_name() and name not in names:
            names.add(name)
            waiting += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return sorted(names)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hide the progress bars that NNCF prints to standard output, and warnings of torch, which NNCF imports."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
