"""Inference engine: run frozen networks with OpenVINO on a CPU and torch on an accelerator, with the same results.

torch in float32 is the reference. A converted network is compared with it on the first images, and only then saved in the
cache, from which it is loaded without importing torch.
"""

from sightline.engine.augmented import quick_features
from sightline.engine.measures import cosines, is_mean
from sightline.engine.runtime import Precision, allowed_precision, choose_device, fast_precision
from sightline.engine.session import Session, open_session

__all__ = [
    "Precision",
    "Session",
    "allowed_precision",
    "choose_device",
    "cosines",
    "fast_precision",
    "is_mean",
    "open_session",
    "quick_features",
]
