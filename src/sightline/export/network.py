"""Convert a classifier's network from torch to ONNX."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from sightline.classifier import Classifier
from sightline.engine.graph import OPSET
from sightline.errors import SightlineError
from sightline.store import Cache, digest

if TYPE_CHECKING:
    import onnx

_FORMAT = 1


def network_model(member: Classifier, crops: int, cache: Cache) -> onnx.ModelProto:
    """Return a network as ONNX: uint8 (crops, height, width, 3) → features float32 (crops, d), with normalisation.

    Args:
        member: Classifier with a single network.
        crops: Batch size.
        cache: Cache of converted networks; a user-defined network is not cached, as its code may change.

    Raises:
        SightlineError: If torch cannot convert the network.
    """
    import onnx
    import torch

    backbone = member.card.backbone
    name = f"networks/{digest([backbone.id, 'onnx', _FORMAT, torch.__version__])}/{crops}"
    saved = None if backbone.source == "user" else cache.read(name)
    if saved is not None:
        return onnx.load_model_from_string(saved)
    module = member.session(cache, device="cpu", expected=1).reference()

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.module(images)[1]  # type: ignore[no-any-return]

    example = torch.zeros((crops, *backbone.preprocess.size, 3), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(Features().eval(), (example,), dynamo=True, verbose=False, opset_version=OPSET)
        assert program is not None
        model: onnx.ModelProto = program.model_proto
    except Exception as error:  # the exporter raises many types of errors
        reason = str(error).strip().split("\n")[0][:300]
        raise SightlineError(f"torch cannot convert {backbone.name} to ONNX ({reason})") from error
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    cache.write(name, model.SerializeToString())
    return model
