"""A classifier as one ONNX graph: image → probabilities, and the distance from the training images.

Everything that `Classifier.predict` computes is in the graph: preprocessing, crops, networks, heads, calibration, the weights
of an ensemble. Members that share a network share its nodes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import heads, pixels
from sightline.classifier import Classifier
from sightline.engine.graph import Graph, Value, log_probs, softmax
from sightline.errors import RequestError
from sightline.evaluation import conformal, out_of_distribution
from sightline.export.network import network_model
from sightline.export.resize import crop_views, preprocess_image
from sightline.records import Preprocess
from sightline.store import Cache, canonical_json, digest, plain

if TYPE_CHECKING:
    import onnx

IMAGE = "image"
PROBABILITIES = "probabilities"
DISTANCE = "ood_score"
NETWORK_PREFIX = "network"


@dataclass(frozen=True, slots=True)
class GraphModel:
    """ONNX model of a classifier.

    Args:
        proto: The model.
        inputs: Preprocessing of each input, in order; empty if the input is an image of any size.
    """

    proto: onnx.ModelProto
    inputs: tuple[Preprocess, ...] = ()


@dataclass(slots=True)
class _Builder:
    """Graph under construction, with the values that members share."""

    graph: Graph
    cache: Cache
    image: Value | None
    pixels: dict[str, Value] = field(default_factory=dict)
    inputs: dict[str, Preprocess] = field(default_factory=dict)
    features: dict[str, Value] = field(default_factory=dict)
    networks: Mapping[str, onnx.ModelProto] = field(default_factory=dict)

    def decoded(self, preprocess: Preprocess) -> Value:
        """Return the preprocessed image, uint8 (1, height, width, 3)."""
        key = preprocess.id
        if key not in self.pixels:
            if self.image is None:
                self.inputs[key] = preprocess
                name = f"pixels_{len(self.inputs)}"
                self.pixels[key] = Value(self.graph, name, np.dtype(np.uint8))
            else:
                self.graph.prefix = "preprocess/"
                self.pixels[key] = preprocess_image(self.image, preprocess)
        return self.pixels[key]

    def embedded(self, member: Classifier) -> Value:
        """Return the features of a member, float32 (crops, d)."""
        backbone, crops = member.card.backbone, member.card.crops
        key = digest([backbone.id, backbone.preprocess.id, crops])
        if key not in self.features:
            preprocess = backbone.preprocess
            images = self.decoded(_decoded_as(member))
            self.graph.prefix = "preprocess/"
            if crops > 1:
                images = crop_views(images, preprocess, crops)
            if backbone.source == "pixels":
                self.features[key] = images.cast(np.float32).reshape(1, -1) / 255.0
            else:
                model = self.networks.get(key) or network_model(member, crops, self.cache)
                self.graph.prefix = ""
                self.features[key] = self.graph.embed(model, [images], NETWORK_PREFIX)[0]
        return self.features[key]

    def probs(self, member: Classifier) -> Value:
        """Return the probabilities of a classifier, real (1, k), in the order of its classes."""
        card = member.card
        if member.members:
            parts = []
            for part, weight in zip(member.members, card.weights, strict=True):
                order = self.graph.const([part.classes.index(c) for c in member.classes], np.int64)
                parts.append(self.probs(part).take(order, 1) * weight)
            mean = parts[0]
            for part_probs in parts[1:]:
                mean = mean + part_probs
            return softmax(log_probs(mean) / card.temperature)
        if card.backbone.source == "none":
            constant = heads.probs(member.head, np.zeros((1, 0), np.float32), card.temperature)
            return self.graph.const(constant, self.graph.real)
        features = self.embedded(member)
        self.graph.prefix = "head/"
        logits = heads.in_graph(member.head, features).cast(self.graph.real)
        if card.crops == 1:
            return softmax(logits / card.temperature)
        mean = softmax(logits).sum(0, keep=True) / float(card.crops)
        return softmax(log_probs(mean) / card.temperature)

    def distance(self, member: Classifier, bank: np.ndarray, *, small: bool) -> Value:
        """Return the distance from the training images, float32 (1,), as `evaluation.out_of_distribution` measures it."""
        embedding = member.embedding_model
        values = self.embedded(embedding).slice([0], [1], [0])
        self.graph.prefix = "ood/"
        graph, width = self.graph, embedding.card.backbone.features
        folded = out_of_distribution.folding(width)
        if folded is not None:
            order, signs = folded
            values = values.take(graph.const(order, np.int64), 1) * signs[order][None]
            missing = -width % out_of_distribution.WIDTH
            values = graph.op("Pad", values, graph.ints(0, 0, 0, missing), mode="constant")
            values = values.reshape(-1, out_of_distribution.WIDTH).sum(0, keep=True)
        values = values / (values * values).sum(1, keep=True).op("Sqrt").op("Max", 1e-12)
        rows = np.ascontiguousarray(bank.astype(np.float32).T)  # (w, m)
        if small:
            scale = np.abs(rows).max(axis=0, keepdims=True) / 127
            stored = graph.const(np.rint(rows / np.maximum(scale, 1e-12)), np.int8).cast(np.float32)
            alike = (values @ stored) * scale
        else:
            alike = values @ graph.const(rows, np.float16).cast(np.float32)
        count = min(out_of_distribution.NEIGHBOURS, rows.shape[1])
        near, _ = graph.smallest((1.0 - alike).op("Max", 0.0), count)
        return near.sum(1) / float(count)


def build(
    model: Classifier,
    cache: Cache,
    *,
    from_pixels: bool = False,
    real: type = np.float64,
    small: bool = False,
    networks: Mapping[str, onnx.ModelProto] | None = None,
) -> GraphModel:
    """Return a classifier as ONNX.

    Args:
        model: Classifier.
        cache: Cache of converted networks.
        from_pixels: Whether the inputs are preprocessed images, one for each preprocessing; else one image of any size.
        real: Type of geometry, distances and probabilities inside the graph.
        small: Whether the training features for OOD detection are stored in 8 bits.
        networks: Other ONNX models to use in place of the converted networks, by `network_keys`.

    Raises:
        RequestError: If the classifier uses file properties, which pixels don't have.
    """
    from onnx import TensorProto, helper

    check_exportable(model)
    graph = Graph(np.dtype(real))
    image = None if from_pixels else Value(graph, IMAGE, np.dtype(np.uint8))
    builder = _Builder(graph, cache, image, networks=networks or {})
    results = {PROBABILITIES: builder.probs(model).reshape(-1).cast(np.float32)}
    if "bank" in model.limits and model.embedding_model.card.backbone.source != "none":
        results[DISTANCE] = builder.distance(model, model.limits["bank"], small=small).reshape(-1)
    graph.prefix = ""
    for name, value in results.items():
        graph.nodes.append(helper.make_node("Identity", [value.name], [name], name=name))
    shapes = {PROBABILITIES: [len(model.classes)], DISTANCE: [1]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in results]
    if from_pixels:
        inputs = [
            helper.make_tensor_value_info(builder.pixels[key].name, TensorProto.UINT8, [1, *preprocess.size, 3])
            for key, preprocess in builder.inputs.items()
        ]
    else:
        inputs = [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["height", "width", 3])]
    return GraphModel(graph.model(inputs, outputs, metadata(model)), tuple(builder.inputs.values()))


def check_exportable(model: Classifier) -> None:
    """Check that a classifier depends on pixels alone.

    Raises:
        RequestError: If it, or a member, uses file properties.
    """
    for part in model.members or (model,):
        if part.card.backbone.source == "file":
            raise RequestError(
                "a classifier of file properties (size, quality) cannot be exported: a graph sees pixels alone",
                "export a classifier that looks at images",
            )


def networks_of(model: Classifier) -> dict[str, Classifier]:
    """Return the classifiers whose networks a graph holds, by the keys of `build`'s `networks`."""
    found = {}
    for part in model.members or (model,):
        if part.card.backbone.is_network:
            backbone = part.card.backbone
            found[digest([backbone.id, backbone.preprocess.id, part.card.crops])] = part
    return found


def metadata(model: Classifier) -> dict[str, str]:
    """Return what a user of the exported file needs to know, as JSON texts by name."""
    card = model.card
    parts = model.members or (model,)
    facts: dict[str, Any] = {
        "classes": card.classes,
        "input": "uint8 (height, width, 3): RGB pixels of any size, upright. EXIF orientation and alpha are the caller's.",
        "temperature": card.temperature,
        "positive": card.positive,
        "positive_index": None if card.decision is None else card.classes.index(card.decision[0]),
        "threshold": card.threshold,
        "draft": _draft([_decoded_as(part) for part in parts]),
        "value_range": model.embedding_model.card.backbone.preprocess.value_range,
        "background": model.embedding_model.card.backbone.preprocess.background,
        "ood_threshold": card.uncertainty.ood_threshold,
        "prediction_set": None,
        "crops": [part.card.crops for part in parts],
        "licence": sorted({part.card.backbone.licence for part in parts if part.card.backbone.is_network}),
        "preprocess": [dataclasses.asdict(part.card.backbone.preprocess) for part in parts],
        "recipe": card.recipe.id,
        "software": card.software,
    }
    thresholds = model.set_thresholds()
    if thresholds is not None:
        unsure = conformal.confidence_threshold(model.limits["answers"], model.limits["right"] > 0, conformal.COVERAGE)
        facts["prediction_set"] = {
            "coverage": conformal.COVERAGE,
            "thresholds": [min(float(t), 2.0) for t in thresholds],
            "confidence": min(unsure, 2.0),
            "images": card.uncertainty.images,
        }
    return {f"sightline.{name}": text(value) for name, value in facts.items()}


def _decoded_as(member: Classifier) -> Preprocess:
    """Return the preprocessing with which a member's images are decoded."""
    preprocess = member.card.backbone.preprocess
    return pixels.uncut(preprocess) if member.card.crops > 1 else preprocess


def _draft(preprocesses: Sequence[Preprocess]) -> tuple[float, float, str]:
    """Return (height, width, `min` or `max`): how many times a JPEG may be reduced is the ratio of its sides to these.

    It is the rule of `pixels.geometry.draft_scale`; with several preprocessings the one that needs most pixels counts.
    """
    sizes = []
    for p in preprocesses:
        fraction = p.crop_fraction if p.fit == "crop" else 1.0
        never = 1e9 if p.interpolation == "nearest" else 0.0
        sizes.append([max(never, math.floor(side / fraction)) for side in p.size])
    height, width = (float(max(sides)) for sides in zip(*sizes, strict=True))
    return height, width, "max" if all(p.fit == "pad" for p in preprocesses) else "min"


def text(value: Any) -> str:
    """Return a value as JSON with sorted keys."""
    return json.dumps(json.loads(canonical_json(plain(value))), ensure_ascii=False)
