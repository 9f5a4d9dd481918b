"""Inference engine: run frozen networks with OpenVINO on a CPU and torch on an accelerator, with the same results.

torch in float32 is the reference. A converted network is compared with it on the first images, and only then saved in the
cache, from which it is loaded without importing torch.
"""

from sightline.engine.augmented import quick_features
from sightline.engine.instructions import has_vnni, instruction_class
from sightline.engine.measures import cosines, is_mean
from sightline.engine.quantising import quantised
from sightline.engine.runtime import (
    PRECISIONS,
    Precision,
    allowed_precision,
    choose_device,
    fast_precision,
    identities,
    precisions,
)
from sightline.engine.session import PATIENCE_IMAGES, Session, open_session

__all__ = [
    "PATIENCE_IMAGES",
    "PRECISIONS",
    "Precision",
    "Session",
    "allowed_precision",
    "choose_device",
    "cosines",
    "fast_precision",
    "has_vnni",
    "identities",
    "instruction_class",
    "is_mean",
    "open_session",
    "precisions",
    "quantised",
    "quick_features",
]
