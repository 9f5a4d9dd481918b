"""Heads: from features (n, d) to logits (n, k). Fitting may use scikit-learn or torch; asking needs numpy alone."""

from sightline.heads.registry import HEADS, Fit, Kind, check, fit, hidden, layers, linear, logits, probs
from sightline.heads.softmax import log_loss, log_probs, softmax, temperature

__all__ = [
    "HEADS",
    "Fit",
    "Kind",
    "check",
    "fit",
    "hidden",
    "layers",
    "linear",
    "log_loss",
    "log_probs",
    "logits",
    "probs",
    "softmax",
    "temperature",
]
