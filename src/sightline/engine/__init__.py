"""How a frozen network is run fast here: OpenVINO on a CPU, torch on an accelerator, the same answers from both.

torch in float32 is the definition of every network. A converted network is compared with it on the first images that it
sees, and only then kept in the cache, from where it is opened without importing torch.
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
