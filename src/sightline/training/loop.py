"""The one training loop: one visible `for`, the same bits for the same seed, machine and number of threads."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sightline.errors import DataError
from sightline.records import Progress, silent
from sightline.store import stream
from sightline.training import augment
from sightline.training.settings import ScratchSettings

IMAGES_SHOWN = 40_000
WARM_UP = 0.15
"""Share of the steps in which the learning rate rises; then it falls to 0 as a cosine."""
CLIP_NORM = 2.0
GAP = 0.1
"""Training is called overfitted where its accuracy ends this far above validation's."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images. Losses are cross-entropies in nats; training's are measured as it goes on."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Data:
    """Images uint8 (n, h, w, 3) and class indices int64 (n,), for training and for validation; normalisation per channel."""

    images: np.ndarray
    labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True, slots=True)
class Trained:
    """What the loop leaves beside the network's weights.

    Attributes:
        history: One row per epoch.
        steps: Optimiser steps.
        best_epoch: The epoch whose weights were kept.
        notes: Sentences for the user.
    """

    history: tuple[Epoch, ...]
    steps: int
    best_epoch: int
    notes: tuple[str, ...]


def bf16_by_rule(device: str) -> bool:
    """Whether training computes in bf16: by what the processor has, never by timing, so that bits do not depend on load."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _has_bf16_units()


def _has_bf16_units() -> bool:
    """Whether the CPU multiplies bf16 itself; where it only converts, float32 is quicker."""
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test() for test in tests if test is not None)


def epochs_for(n: int, settings: ScratchSettings) -> int:
    """How many epochs: as asked, or so that about 40,000 images are shown."""
    return settings.epochs or int(np.clip(round(IMAGES_SHOWN / max(n, 1)), 10, 60))


def train(
    network: nn.Module,
    data: Data,
    settings: ScratchSettings,
    *,
    seed: int,
    device: str = "cpu",
    budget_s: float = math.inf,
    progress: Progress = silent,
) -> Trained:
    """Train a network in place; it ends with the weights of the epoch with the lowest validation loss, in float32.

    AdamW, warm-up and cosine, gradients clipped, bf16 autocast where the processor multiplies it. Order and augmentation
    are functions of (seed, epoch, image); the next batch is augmented while a step runs. Stops early where validation
    gets no better, where the budget is spent (then bits depend on the machine's speed, and a note says so), and where the
    loss is no longer a number (the last good weights stay).

    Args:
        network: Normalised float (n, 3, h, w) → logits (n, k).
        data: Images and labels.
        settings: Of the method.
        seed: Of order and augmentation.
        device: `cpu`, `cuda` or `mps`.
        budget_s: Checked after each epoch.
        progress: Told after each epoch.

    Raises:
        DataError: There are fewer than 2 training images.
    """
    n = len(data.images)
    if n < 2:
        raise DataError(f"{n} training images are too few to train a network", "add photographs")
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(_groups(network, settings.weight_decay), lr=settings.learning_rate)
    epochs = epochs_for(n, settings)
    batches = max(1, round(n / settings.batch_size))
    _, policy = augment.policy_for(settings.augment, data.images)
    labels = torch.from_numpy(data.labels).to(device)
    weight = _class_weights(data.labels, settings, device)
    fast = bf16_by_rule(device)
    history: list[Epoch] = []
    notes: list[str] = []
    best, best_loss, best_epoch, step = copy.deepcopy(network.state_dict()), math.inf, 0, 0
    started = time.perf_counter()
    for epoch in range(epochs):
        epoch_started, losses, right = time.perf_counter(), 0.0, 0
        network.train()
        for x, rows in _augmented(data, policy, batches, seed, epoch, device):
            rate = learning_rate(step, epochs * batches, settings.learning_rate)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(device, torch.bfloat16, enabled=fast):
                logits = network(x)
            target = labels[rows]
            loss = F.cross_entropy(logits.float(), target, weight, label_smoothing=settings.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
            optimiser.step()
            losses += loss.item() * len(rows)
            right += int((logits.argmax(1) == target).sum())
            step += 1
        val_loss, val_accuracy = judge(network, data, device, fast)
        if not (math.isfinite(losses) and math.isfinite(val_loss)):
            notes.append(f"the loss was not a number in epoch {epoch + 1}: training stopped, epoch {best_epoch}'s weights are kept")
            break
        row = Epoch(epoch + 1, losses / n, right / n, val_loss, val_accuracy, rate, time.perf_counter() - epoch_started)
        history.append(row)
        progress(f"training (validation {val_accuracy:.3f})", epoch + 1, epochs)
        if val_loss < best_loss:
            best, best_loss, best_epoch = copy.deepcopy(network.state_dict()), val_loss, epoch + 1
        elif epoch + 1 - best_epoch >= settings.patience:
            notes.append(f"stopped at epoch {epoch + 1}: validation had not got better for {settings.patience} epochs")
            break
        if time.perf_counter() - started > budget_s and epoch + 1 < epochs:
            notes.append(f"stopped at epoch {epoch + 1} of {epochs}: the time was spent, so another machine may stop elsewhere")
            break
    network.load_state_dict(best)
    network.eval()
    return Trained(tuple(history), step, best_epoch, tuple(notes))


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Linear warm-up, then a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def judge(network: nn.Module, data: Data, device: str, fast: bool) -> tuple[float, float]:
    """Loss and accuracy on the validation images, in inference mode."""
    network.eval()
    with torch.autocast(device, torch.bfloat16, enabled=fast):
        found = logits(network, data.val_images, data, device).float()
    target = torch.from_numpy(data.val_labels).to(found.device)
    return float(F.cross_entropy(found, target)), float((found.argmax(1) == target).float().mean())


@torch.no_grad()
def logits(network: nn.Module, images: np.ndarray, data: Data, device: str) -> Tensor:
    """Logits (n, k) of images uint8 (n, h, w, 3), on the CPU."""
    found = []
    for start in range(0, len(images), 256):
        part = torch.from_numpy(images[start : start + 256]).to(device)
        colour = augment.colour_matrices(augment.identity(len(part)), np.zeros((len(part), 3)), data.mean, data.std)
        found.append(network(augment.apply(part, None, torch.from_numpy(colour).to(device))).cpu())
    return torch.cat(found) if found else torch.zeros((0, 1))


def overfitting(history: Sequence[Epoch]) -> str | None:
    """Where memorising starts, in words: `from epoch 7: train 0.98, val 0.64`; None where it does not."""
    if len(history) < 3:
        return None
    best = min(history, key=lambda e: e.val_loss)
    last = history[-1]
    if last.train_accuracy - last.val_accuracy < GAP or best.epoch == last.epoch:
        return None
    return f"from epoch {best.epoch + 1}: train {last.train_accuracy:.2f}, val {last.val_accuracy:.2f}"


def _augmented(
    data: Data, policy: augment.Policy, batches: int, seed: int, epoch: int, device: str
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Batches of one epoch: normalised images and their rows. No batch is of one image: they are as equal as they can be."""
    n, (height, width) = len(data.images), data.images.shape[1:3]
    order = np.array_split(stream(seed, "order", epoch).permutation(n), batches)
    drawn = augment.draw(policy, n, seed=seed, epoch=epoch)
    warp = torch.from_numpy(augment.warp_matrices(drawn, height, width)) if policy.warps else None

    def make(rows: np.ndarray) -> Tensor:
        pixels = data.images[rows]
        mine = augment.Draw(*(getattr(drawn, f)[rows] for f in augment.Draw.__slots__))
        colour = augment.colour_matrices(mine, pixels.mean(axis=(1, 2)), data.mean, data.std)
        part = torch.from_numpy(pixels).to(device)
        moved = None if warp is None else warp[torch.from_numpy(rows)].to(device)
        return augment.apply(part, moved, torch.from_numpy(colour).to(device), padding=policy.padding)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, order[0])
        for i, rows in enumerate(order):
            x = waiting.result()
            if i + 1 < len(order):
                waiting = pool.submit(make, order[i + 1])
            yield x, rows


def _groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and BatchNorm's scales do not."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _class_weights(labels: np.ndarray, settings: ScratchSettings, device: str) -> Tensor | None:
    """Inverse class frequencies with a mean of 1 over the images, or None."""
    if not settings.class_weights:
        return None
    counts = np.bincount(labels)
    weights = np.where(counts > 0, len(labels) / (np.maximum(counts, 1) * (counts > 0).sum()), 0.0)
    return torch.from_numpy(weights.astype(np.float32)).to(device)
