"""The registry record of a head: everything that the rest of the program knows about one kind of head."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.heads.problem import Arrays, Outcome, Problem, expect
from sightline.search_space import Space

if TYPE_CHECKING:
    from sightline.engine.graph import Value

Layers = list[tuple[np.ndarray, np.ndarray]]
"""Weights float32 (out, in) and bias float32 (out,) of linear layers with a ReLU between any two."""
Units = Sequence[tuple[int, float]]
"""(width, dropout) of each hidden layer."""


@dataclass(frozen=True, slots=True)
class HeadKind:
    """Record of one kind of head in HEADS.

    Args:
        name: Name in recipes and files, the key in HEADS.
        title: Name in the field, for people.
        settings: Dataclass of its settings; the defaults are those of `head = "NAME"` in a recipe.
        fit: (problem, settings) → the fitted arrays and their held-out logits.
        logits: (arrays, features float32 (n, d)) → float64 (n, k); uses numpy alone.
        check: (arrays, k, d) → None; raises ModelFileError if the arrays cannot be used.
        layers: arrays → its linear layers; None for a head that has none.
        in_graph: (arrays, features (n, d) in an ONNX graph) → logits (n, k) there; None for a head of linear layers.
        width: arrays → d, the number of features that the head takes; None if its layers tell, or if it takes any number.
        hidden: settings → its hidden layers; None for a head without linear layers.
        complexity: Rank by flexibility: one linear layer, then neighbours, then trees and hidden layers. Among heads whose
            held-out accuracies are within one standard error, the one of the lowest rank is preferred.
        trained: Whether its layers count as trained parameters (class means do not).
        needs_features: Whether it needs at least one feature.
        by_row: Whether the logits of an image may differ in their last bits with the number of rows, as matrix products do.
        infinite: Arrays that may hold infinity; all others must be finite.
        quick: Whether the 35 fits of a learning curve take seconds.
        auto_settings: Settings under which `head = "auto"` tries it; None if it does not.
        auto_order: `head = "auto"` fits heads in this order, quick ones first, so that a slow machine has at least one.
        search_space: What a search may draw, by name; empty if the head is not searched.
        from_search: Drawn values by name → settings.
    """

    name: str
    title: str
    settings: type
    fit: Callable[[Problem, Any], Outcome]
    logits: Callable[[Arrays, np.ndarray], np.ndarray]
    check: Callable[[Arrays, int, int], None]
    layers: Callable[[Arrays], Layers] | None = None
    in_graph: Callable[[Arrays, Value], Value] | None = None
    width: Callable[[Arrays], int] | None = None
    hidden: Callable[[Any], Units] | None = None
    complexity: int = 0
    trained: bool = False
    needs_features: bool = True
    by_row: bool = True
    infinite: tuple[str, ...] = ()
    quick: bool = False
    auto_settings: Mapping[str, Any] | None = None
    auto_order: int = 0
    search_space: Mapping[str, Space] = field(default_factory=dict)
    from_search: Callable[[dict[str, Any]], dict[str, Any]] = dict

    @property
    def linear(self) -> bool:
        """Whether its logits are one linear layer of the features, with the arrays `weights` (k, d) and `bias` (k,)."""
        return self.layers is linear_layers

    def count_parameters(self, settings: Any, width: int, classes: int) -> int:
        """Return the number of trained weights and biases on `width` features; 0 for means, neighbours and trees."""
        if self.hidden is None or not self.trained:
            return 0
        return layer_parameters([width, *(units for units, _ in self.hidden(settings)), classes])


def layer_parameters(widths: Sequence[int]) -> int:
    """Return the number of weights and biases of linear layers, given the widths from the features to the classes.

    Example:
        >>> layer_parameters([10, 5, 2])
        67
    """
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(widths))


def linear_layers(arrays: Arrays) -> Layers:
    """Return the one layer of a linear head."""
    return [(arrays["weights"], arrays["bias"])]


def linear_logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return weights · x + bias, float64 (n, k), in float64, so that a row gives the same alone and in a batch."""
    weights, bias = arrays["weights"].astype(np.float64), arrays["bias"].astype(np.float64)
    out = np.empty((len(features), len(bias)))
    for start in range(0, len(features), 4096):
        out[start : start + 4096] = features[start : start + 4096].astype(np.float64) @ weights.T + bias
    return out


def check_linear(arrays: Arrays, classes: int, width: int) -> None:
    """Check the arrays of a linear head: `weights` (classes, width) and `bias` (classes,).

    Raises:
        ModelFileError: If one is missing or has another shape.
    """
    expect(arrays, "weights", (classes, width))
    expect(arrays, "bias", (classes,))


def no_hidden_layers(settings: object) -> Units:
    """Return (): a linear head has no hidden layers."""
    return ()
