"""Heads: from features (n, d) to logits (n, k). Fitting may use scikit-learn or torch; prediction uses numpy alone.

Each kind of head is one file that ends in its record `HEAD`; `HEADS` lists them by name.
"""

from sightline.heads.kind import HeadKind, layer_parameters
from sightline.heads.registry import (
    AUTO,
    HEADS,
    Fit,
    check,
    check_name,
    fit,
    hidden,
    in_graph,
    layers,
    linear,
    logits,
    may_be_infinite,
    probs,
    probs_of_each,
    settings_of,
    to_compare,
    with_units,
)
from sightline.heads.softmax import log_loss, log_probs, softmax, temperature

__all__ = [
    "AUTO",
    "HEADS",
    "Fit",
    "HeadKind",
    "check",
    "check_name",
    "fit",
    "hidden",
    "in_graph",
    "layer_parameters",
    "layers",
    "linear",
    "log_loss",
    "log_probs",
    "logits",
    "may_be_infinite",
    "probs",
    "probs_of_each",
    "settings_of",
    "softmax",
    "temperature",
    "to_compare",
    "with_units",
]
