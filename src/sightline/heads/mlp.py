"""Multilayer perceptron on features: trained with torch, evaluated with numpy."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline import store
from sightline.errors import SightlineError
from sightline.heads.kind import HeadKind, Layers
from sightline.heads.problem import (
    Arrays,
    Outcome,
    Problem,
    Scale,
    check_settings,
    expect,
    scale_of,
    side_by_side,
    with_absent,
)
from sightline.heads.selection import gather
from sightline.heads.softmax import log_loss
from sightline.search_space import Range

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class MlpSettings:
    """Settings of the mlp head.

    Args:
        units: (width, dropout) of each hidden layer, such as `[[1024, 0.3], [512, 0.3]]`: 1 to 65,536 units, dropout 0 to
            0.95. An empty list gives a linear head.
        optimizer: Optimizer of torch.
        learning_rate: Learning rate, 1e-7 to 10.
        weight_decay: Weight decay, 0 to 10; decoupled from the gradient with `adamw`.
        epochs: Maximum number of epochs, 1 to 10,000.
        patience: Number of epochs without a lower held-out log loss after which training stops, 1 to 10,000.
        batch_size: Number of images per step, 1 to 65,536.
    """

    units: tuple[tuple[int, float], ...] = ((256, 0.3),)
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    epochs: int = 60
    patience: int = 8
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.units:
            widths, dropouts = tuple(u for u, _ in self.units), tuple(p for _, p in self.units)
            check_settings("mlp", units=(widths, 1, 65_536), dropout=(dropouts, 0, 0.95))
        check_settings("mlp", learning_rate=(self.learning_rate, 1e-7, 10), weight_decay=(self.weight_decay, 0, 10))
        check_settings("mlp", epochs=(self.epochs, 1, 10_000), patience=(self.patience, 1, 10_000))
        check_settings("mlp", batch_size=(self.batch_size, 1, 65_536))


class Training:
    """A network being trained on some rows of a problem.

    Args:
        problem: The data.
        settings: The layers and the optimizer.
        rows: The training rows.
        stream: Index of the random stream: one per fold, and one for the final network.
    """

    def __init__(self, problem: Problem, settings: MlpSettings, rows: np.ndarray, stream: int) -> None:
        import torch

        self.settings = settings
        self.scale = scale_of(problem.features[rows])
        self.unit = math.sqrt(max(problem.features.shape[1], 1))  # so that inputs are about 1
        self.values = torch.from_numpy(self.scale.apply(problem.features[rows]) * np.float32(self.unit))
        self.present, target = np.unique(problem.y[rows], return_inverse=True)
        self.classes = problem.classes
        self.target = torch.from_numpy(target.astype(np.int64))
        self.weights = torch.from_numpy(problem.weights(rows).astype(np.float32))
        self.generator = torch.Generator().manual_seed(int(store.stream(problem.seed, "mlp", stream).integers(2**63)))
        widths = [problem.features.shape[1], *(u for u, _ in settings.units), len(self.present)]
        self.layers = [self._layer(a, b) for a, b in itertools.pairwise(widths)]
        self.optimizer = _optimizer(settings, [p for layer in self.layers for p in layer])

    def _layer(self, inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights (outputs, inputs) and bias, initialised as in torch.nn.Linear."""
        import torch

        bound = 1 / math.sqrt(max(inputs, 1))
        weights = (torch.rand(outputs, inputs, generator=self.generator) * 2 - 1) * bound
        bias = (torch.rand(outputs, generator=self.generator) * 2 - 1) * bound
        return weights.requires_grad_(), bias.requires_grad_()

    def epoch(self) -> float:
        """Train for one epoch, in a new random order.

        Returns:
            The mean training loss, with dropout.
        """
        import torch

        torch.set_num_threads(1)  # torch keeps this setting per thread
        order = torch.randperm(len(self.values), generator=self.generator)
        total = 0.0
        for batch in torch.split(order, self.settings.batch_size):
            hidden = self.values[batch]
            for (weights, bias), (_, dropout) in zip(self.layers[:-1], self.settings.units, strict=True):
                hidden = torch.relu(torch.nn.functional.linear(hidden, weights, bias))
                if dropout:
                    hidden = hidden * (torch.rand(hidden.shape, generator=self.generator) >= dropout) / (1 - dropout)
            out = torch.nn.functional.linear(hidden, *self.layers[-1])
            losses = torch.nn.functional.cross_entropy(out, self.target[batch], reduction="none")
            loss = (losses * self.weights[batch]).mean()
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += float(loss.detach()) * len(batch)
        return total / len(order)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the current network as arrays, with the scale folded into its first layer."""
        layers = [(w.detach().numpy().astype(np.float64), b.detach().numpy().astype(np.float64)) for w, b in self.layers]
        layers[-1] = with_absent(*layers[-1], self.present, self.classes)
        return folded(layers, self.scale, self.unit)


def folded(layers: list[tuple[np.ndarray, np.ndarray]], scale: Scale, unit: float) -> dict[str, np.ndarray]:
    """Return layers on scaled features as float32 arrays `weights.0`, `bias.0`, … on unscaled features."""
    first = scale.fold(layers[0][0] * unit, layers[0][1])
    arrays = {"weights.0": first["weights"], "bias.0": first["bias"]}
    for i, (weights, bias) in enumerate(layers[1:], 1):
        arrays |= {f"weights.{i}": weights.astype(np.float32), f"bias.{i}": bias.astype(np.float32)}
    return arrays


def fit(problem: Problem, settings: MlpSettings) -> Outcome:
    """Train all folds in parallel, epoch by epoch, until their mean held-out log loss stops falling; keep the best epoch.

    With one fold this is early stopping with the best weights restored. With several folds, the stopping epoch is common to
    all, so that no fold selects its epoch on the rows that evaluate it; the final network is trained on all rows for that
    number of epochs.

    Raises:
        SightlineError: If the loss becomes NaN or infinite.
        OutOfTimeError: If the deadline has passed.
    """
    with one_torch_thread():
        trainings = [Training(problem, settings, rows, i) for i, (rows, _) in enumerate(problem.folds)]
        best_loss, best_epoch, best = math.inf, 0, trainings[0].arrays()
        best_logits = np.full((len(problem.y), problem.classes), np.nan)
        path: list[dict[str, Any]] = []
        for epoch in range(1, settings.epochs + 1):
            train_loss = float(np.mean([_checked(loss, epoch) for loss in side_by_side(Training.epoch, trainings)]))
            models = [t.arrays() for t in trainings]
            parts = [logits(m, problem.features[held])[None] for m, (_, held) in zip(models, problem.folds, strict=True)]
            out = gather(problem, parts, 1)[0]
            entry = {"epoch": epoch, "train_loss": train_loss, **_held_out_scores(problem, out)}
            path.append(entry)
            problem.deadline.check()
            if problem.watch is not None and entry["accuracy"] is not None:
                problem.watch(epoch / settings.epochs, entry["accuracy"])
            loss = train_loss if entry["weighted"] is None else entry["weighted"]
            if loss < best_loss:
                best_loss, best_epoch, best, best_logits = loss, epoch, models[0], out
            elif epoch - best_epoch >= settings.patience:
                break
        if problem.refit:
            final = Training(problem, settings, problem.rows, len(trainings))
            for epoch in range(1, best_epoch + 1):
                _checked(final.epoch(), epoch)
            best = final.arrays()
    for entry in path:
        del entry["weighted"]
        entry["chosen"] = entry["epoch"] == best_epoch
    chosen = {**store.plain(settings), "epochs": best_epoch}
    return Outcome(best, chosen, best_logits, path)


def check(arrays: Arrays, classes: int, width: int) -> None:
    """Check that the layers connect, from the features to the classes.

    Raises:
        ModelFileError: If a layer is missing or has another shape.
    """
    depth = max(_depth(arrays), 1)
    for i in range(depth):
        weights = expect(arrays, f"weights.{i}", (classes if i == depth - 1 else None, width))
        width = len(weights)
        expect(arrays, f"bias.{i}", (width,))


def layers(arrays: Arrays) -> Layers:
    """Return the linear layers, float32."""
    return [(arrays[f"weights.{i}"], arrays[f"bias.{i}"]) for i in range(_depth(arrays))]


def _depth(arrays: Arrays) -> int:
    """Return the number of linear layers."""
    return sum(name.startswith("weights.") for name in arrays)


def logits(arrays: Arrays, features: np.ndarray) -> np.ndarray:
    """Return the logits, float64 (n, k)."""
    exact = [(weights.astype(np.float64), bias.astype(np.float64)) for weights, bias in layers(arrays)]
    out = np.empty((len(features), len(exact[-1][1])))
    for start in range(0, len(features), 4096):
        hidden = features[start : start + 4096].astype(np.float64)
        for weights, bias in exact[:-1]:
            hidden = np.maximum(hidden @ weights.T + bias, 0)
        out[start : start + 4096] = hidden @ exact[-1][0].T + exact[-1][1]
    return out


def hidden_layers(count: int, width: int, dropout: float) -> list[list[Any]]:
    """Return `units` of a number of hidden layers, each half as wide as the one before, at least 8 wide.

    Example:
        >>> hidden_layers(2, 64, 0.3)
        [[64, 0.3], [32, 0.3]]
    """
    return [[max(8, width >> i), dropout] for i in range(count)]


def _from_search(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings from drawn values: `layers`, `units` and `dropout` describe the hidden layers."""
    rest = {name: value for name, value in values.items() if name not in ("layers", "units", "dropout")}
    return {"units": hidden_layers(values["layers"], values["units"], values["dropout"]), **rest}


def _held_out_scores(problem: Problem, out: np.ndarray) -> dict[str, Any]:
    """Return `accuracy`, `log_loss` and `weighted` (class-weighted log loss) of held-out logits; None without such rows."""
    held = np.flatnonzero(np.isfinite(out).all(axis=1))
    if not len(held):
        return {"accuracy": None, "log_loss": None, "weighted": None}
    y = problem.y[held]
    weighted = log_loss(out[held], y, problem.weights(held))
    return {
        "accuracy": float((out[held].argmax(axis=1) == y).mean()),
        "log_loss": log_loss(out[held], y),
        "weighted": weighted,
    }


def _checked(loss: float, epoch: int) -> float:
    """Return the loss.

    Raises:
        SightlineError: If it is NaN or infinite.
    """
    if not math.isfinite(loss):
        hint = "set a lower learning_rate in the settings of the head"
        raise SightlineError(f"the loss of the mlp head became NaN or infinite in epoch {epoch}", hint)
    return loss


def _optimizer(settings: MlpSettings, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    """Return torch's optimizer; sgd uses Nesterov momentum 0.9."""
    import torch

    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True, fused=True)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=decay, fused=True)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread within the block: results don't depend on the number of cores, and folds run in parallel."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


HEAD = HeadKind(
    name="mlp",
    title="multilayer perceptron",
    settings=MlpSettings,
    fit=fit,
    logits=logits,
    check=check,
    layers=layers,
    hidden=lambda settings: settings.units,
    complexity=6,
    trained=True,
    search_space={
        "layers": Range(0, 2, whole=True),
        "units": Range(32, 1024, log=True, whole=True),
        "dropout": Range(0, 0.6),
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "weight_decay": Range(1e-4, 0.3, log=True),
    },
    from_search=_from_search,
)
