"""The one training loop: a function with one visible `for`, deterministic in its seed, and its history as data."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sightline import store
from sightline.errors import DataError, SightlineError
from sightline.heads.problem import Watch
from sightline.records import Progress, silent
from sightline.training import augment

Weights = dict[str, Tensor]
AUXILIARY = 0.3
"""How much the loss of an auxiliary head counts. Source: Szegedy et al. 2014, "Going deeper with convolutions", section 5."""

# --------------------------------------------------------------------------------------------------- what goes in and out


@dataclass(frozen=True, slots=True)
class Pixels:
    """Labelled images in memory.

    Args:
        images: uint8 (n, h, w, 3).
        y: int64 (n,), class indices.
    """

    images: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. What is trained on what are arguments of `train`.

    Args:
        epochs: How often every image is seen, at most; the learning rate's course is laid out for all of them.
        batch_size: Images a step.
        learning_rate: The highest; AdamW's.
        weight_decay: AdamW's, on weights of convolutions and linear layers, not on biases and BatchNorm.
        warm_up: The share of all steps in which the rate rises from a tenth; then it falls along a cosine to nearly 0.
        label_smoothing: The share of the target that is spread over all classes.
        clip_norm: The gradient's largest norm.
        patience: Epochs without a better validation loss after which training stops; 0 never stops early.
        keep: Which epoch's weights are the result: the one with the best validation loss (the best of many accuracies on
            a few images is mostly luck), or accuracy (the loss decides between equals), or the last.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: float = 0.2
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    patience: int = 0
    keep: Literal["val_loss", "val_accuracy", "last"] = "val_loss"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the history. Training figures are those of the augmented images on the way, with dropout.

    Args:
        epoch: From 1.
        train_loss, train_accuracy: Means over the epoch.
        val_loss, val_accuracy: After the epoch, on unchanged images, in float32; NaN without validation images.
        learning_rate: Of the epoch's last step.
        seconds: Since training began.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What the loop did. The network itself holds the weights of `best_epoch`, in eval mode.

    Args:
        history: Every epoch that was finished with finite numbers.
        best_epoch: The one whose weights were kept, from 1.
        steps: Of the optimiser.
        seconds: In all.
        precision: What the convolutions were computed in.
        cut_by_time: Whether the time budget ended it: another machine might have gone further.
        notes: What a reader should know, in sentences.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    steps: int
    seconds: float
    precision: Literal["bf16", "f32"]
    cut_by_time: bool = False
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ rules


def half_precision(device: torch.device) -> bool:
    """Whether training there runs in bfloat16: by what the processor has, never by timing, so that bits are repeatable.

    On a CPU: AVX512_BF16 or AMX (without them bfloat16 is emulated, and slow). On CUDA: what torch says.
    """
    if device.type == "cpu":
        found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older torch: then float32
        units = found.get("avx512_bf16") or found.get("amx_bf16")
        return bool(units and torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """An order of images in batches as equal as they can be, none of one image: BatchNorm can't learn from that.

    Example:
        >>> [len(b) for b in batches(np.arange(9), 4)], [len(b) for b in batches(np.arange(3), 2)]
        ([3, 3, 3], [3])
    """
    return np.array_split(order, max(1, min(math.ceil(len(order) / batch_size), len(order) // 2)))


def rate_at(step: int, steps: int, plan: Plan) -> float:
    """The learning rate of a step (from 0): a straight rise from a tenth of the highest, then half a cosine down.

    Source: Smith 2018, "A disciplined approach to neural network hyper-parameters" (one cycle), with a cosine.
    """
    rise = max(1, round(plan.warm_up * steps))
    if step < rise:
        return plan.learning_rate * (0.1 + 0.9 * (step + 1) / rise)
    done = (step - rise + 1) / max(1, steps - rise)
    return plan.learning_rate * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done))) + 1e-3 * plan.learning_rate


def balanced_weights(y: np.ndarray, classes: int) -> np.ndarray:
    """float32 (k,): n / (k · images of the class), so that every class counts the same; 0 for an absent class."""
    count = np.bincount(y, minlength=classes)
    return np.where(count > 0, len(y) / (classes * np.maximum(count, 1)), 0).astype(np.float32)


def _optimiser(network: nn.Module, plan: Plan, groups: Sequence[dict[str, Any]] | None = None) -> torch.optim.AdamW:
    """AdamW, which decays weights alone; over the given groups, or over all that learns."""
    if groups is not None:
        return torch.optim.AdamW([dict(group) for group in groups], lr=plan.learning_rate, fused=True)
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


def _seed(seed: int, *purpose: str | int) -> int:
    """A seed for torch's own generator (dropout, initial weights) as a function of what it is for."""
    return int(store.stream(seed, *purpose).integers(2**63))


# ------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, slots=True)
class Feed:
    """Training images, ready to be augmented: one warp and one colour matrix an image and epoch.

    Args:
        data: The images.
        policy: How they are changed.
        mean, std: The network's normalisation, for pixels in 0 to 1.
        device: Where the network is; the images are put there once.
        seed: Of the order and the changes.
    """

    data: Pixels
    policy: augment.Policy
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device
    seed: int
    images: Tensor = field(init=False)
    mean_rgb: np.ndarray = field(init=False)
    principal: np.ndarray | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", torch.from_numpy(np.ascontiguousarray(self.data.images)).to(self.device))
        colours = [image.mean(axis=(0, 1), dtype=np.float64) for image in self.data.images]
        object.__setattr__(self, "mean_rgb", np.array(colours).reshape(-1, 3))
        principal = augment.principal_colours(self.data.images) if self.policy.pca else None
        object.__setattr__(self, "principal", principal)

    def epoch(self, epoch: int, batch_size: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of an epoch, (n, 3, h, w) float32 and (n,) int64, each made while the one before is learnt from."""
        n, height, width, _ = self.data.images.shape
        drawn = augment.draw(self.policy, n, seed=self.seed, epoch=epoch)
        changes = augment.prepare(
            drawn,
            (height, width),
            self.mean_rgb,
            self.mean,
            self.std,
            padding=self.policy.padding,
            principal=self.principal,
        )
        order = store.stream(self.seed, "order", epoch).permutation(n)

        def make(rows: np.ndarray) -> tuple[Tensor, Tensor]:
            index = torch.from_numpy(rows).to(self.device)
            x = augment.apply(self.images[index], changes.rows(rows).to(self.device))
            return x, torch.from_numpy(self.data.y[rows]).to(self.device)

        plan = batches(order, batch_size)
        # The worker keeps to one thread of its own: with a second team of threads beside the step's, both wait in turn.
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(1, "augment", initializer=torch.set_num_threads, initargs=(1,)) as worker:
                ahead = worker.submit(make, plan[0])
                for following in plan[1:]:
                    ready, ahead = ahead, worker.submit(make, following)
                    yield ready.result()
                yield ahead.result()
        finally:
            torch.set_num_threads(threads)


@torch.no_grad()
def evaluate(network: nn.Module, data: Pixels, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """The network's logits on unchanged images: float32 (n, k), computed in float32 and eval mode, on the CPU.

    The network's mode is left as it was.
    """
    mode = network.training
    network.eval()
    try:
        out = []
        for start in range(0, len(data), 64):
            images = torch.from_numpy(np.ascontiguousarray(data.images[start : start + 64])).to(device)
            same = augment.unchanged(len(images), mean, std).to(device)
            out.append(network(augment.apply(images, same)).float().cpu())
        return torch.cat(out)
    finally:
        network.train(mode)


def _score(network: nn.Module, feed: Feed, val: Pixels, weight: Tensor | None) -> tuple[float, float]:
    """Loss and accuracy on the validation images; NaN without any."""
    if not len(val):
        return math.nan, math.nan
    logits, y = evaluate(network, val, feed.mean, feed.std, feed.device), torch.from_numpy(val.y)
    loss = F.cross_entropy(logits, y, weight=None if weight is None else weight.cpu())
    return float(loss), float((logits.argmax(dim=1) == y).double().mean())


# --------------------------------------------------------------------------------------------------------- the loop


def _weights(network: nn.Module) -> Weights:
    """A copy of all weights and statistics."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _finite(network: nn.Module, loss: float) -> bool:
    """Whether the loss and every weight and statistic is a number."""
    tensors = (t for t in network.state_dict().values() if t.is_floating_point())
    return math.isfinite(loss) and all(bool(torch.isfinite(t).all()) for t in tensors)


def _rank(line: Epoch, plan: Plan) -> tuple[float, float]:
    """How good an epoch is by what the plan keeps; higher is better. Without validation images the last is the best."""
    if plan.keep == "last" or math.isnan(line.val_loss):
        return float(line.epoch), 0.0
    if plan.keep == "val_loss":
        return -line.val_loss, line.val_accuracy
    return line.val_accuracy, -line.val_loss


def train(
    network: nn.Module,
    train: Pixels,
    val: Pixels,
    *,
    plan: Plan,
    policy: augment.Policy,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    class_weights: np.ndarray | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    device: str = "cpu",
    budget_s: float = math.inf,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Trained:
    """Train a network, in place, on images in memory.

    The same arguments give the same bits on the same machine with the same number of threads: order, augmentation and
    dropout are functions of the seed and the step, and no choice is made by timing. Only the time budget looks at the
    clock; where it ends training early, that is said.

    Args:
        network: Normalised float (n, 3, h, w) → logits (n, k); in training mode it may give a tuple, the logits first, then
            those of auxiliary heads, whose losses count `AUXILIARY`. It ends in eval mode with the best epoch's weights.
        train: What it learns from; two images at least.
        val: What decides when to stop and which weights to keep; may be empty.
        plan: Epochs, rates and the like.
        policy: The augmentation.
        mean, std: The network's normalisation, per channel, for pixels in 0 to 1.
        seed: Every random draw is a function of it.
        class_weights: float (k,), how much an image of each class counts in the loss; None counts all the same.
        groups: Parameter groups for torch, as `Network.parameter_groups` gives them, each with its own `lr`; every group keeps
            its ratio to the plan's rate on the whole course. None takes all that learns at the plan's rate.
        device: Of torch.
        budget_s: When to stop, in seconds, looked at after each epoch.
        progress: Told after each step.
        watch: Told (share of the epochs, validation accuracy) after each epoch; may raise to give up.

    Raises:
        DataError: Fewer than two training images.
        SightlineError: The loss was not a number already in the first epoch.
    """
    if len(train) < 2:
        raise DataError(f"a network cannot be trained on {len(train)} image(s)", "give at least two, of different classes")
    began, where = time.monotonic(), torch.device(device)
    feed = Feed(train, policy, mean, std, where, seed)
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, half = _optimiser(network, plan, groups), half_precision(where)
    ratios = [group["lr"] / plan.learning_rate for group in optimiser.param_groups]
    weight = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32, device=where)
    epoch_steps = len(batches(np.arange(len(train)), plan.batch_size))
    history: list[Epoch] = []
    notes: list[str] = []
    best, best_rank, best_epoch, lowest, cut, step = _weights(network), (-math.inf, 0.0), 0, (math.inf, 0), False, 0

    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        for epoch in range(1, plan.epochs + 1):
            network.train()
            total, right = torch.zeros((), device=where), torch.zeros((), device=where)
            with closing(feed.epoch(epoch, plan.batch_size)) as stream:
                for x, y in stream:
                    torch.manual_seed(_seed(seed, "dropout", step))
                    rate = rate_at(step, plan.epochs * epoch_steps, plan)
                    for group, ratio in zip(optimiser.param_groups, ratios, strict=True):
                        group["lr"] = rate * ratio
                    with torch.autocast(where.type, dtype=torch.bfloat16, enabled=half):
                        output = network(x)
                    logits, *auxiliary = (t.float() for t in (output if isinstance(output, tuple) else (output,)))
                    loss = F.cross_entropy(logits, y, weight=weight, label_smoothing=plan.label_smoothing)
                    for scores in auxiliary:
                        loss = loss + AUXILIARY * F.cross_entropy(
                            scores, y, weight=weight, label_smoothing=plan.label_smoothing
                        )
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    nn.utils.clip_grad_norm_(network.parameters(), plan.clip_norm)
                    optimiser.step()
                    total += loss.detach() * len(y)
                    right += (logits.detach().argmax(dim=1) == y).sum()
                    step += 1
                    progress("training", step, plan.epochs * epoch_steps)

            train_loss, train_accuracy = float(total) / len(train), float(right) / len(train)
            val_loss, val_accuracy = _score(network, feed, val, weight)
            seconds = time.monotonic() - began
            if not _finite(network, train_loss) or (len(val) and not math.isfinite(val_loss)):
                notes.append(_diverged(epoch, best_epoch, plan))
                break
            line = Epoch(epoch, train_loss, train_accuracy, val_loss, val_accuracy, rate, seconds)
            history.append(line)
            if watch is not None and len(val):
                watch(epoch / plan.epochs, val_accuracy)
            if _rank(line, plan) > best_rank:
                best, best_rank, best_epoch = _weights(network), _rank(line, plan), epoch
            if not val_loss >= lowest[0]:
                lowest = (val_loss, epoch)
            if epoch == plan.epochs:
                break
            if plan.patience and epoch - lowest[1] >= plan.patience:
                notes.append(f"stopped after epoch {epoch}: the validation loss was lowest in epoch {lowest[1]}")
                break
            if seconds + seconds / epoch > budget_s:
                cut = True
                notes.append(f"cut by the time budget of {budget_s:.0f} s after epoch {epoch} of {plan.epochs}")
                break

    network.load_state_dict(best)
    network.eval()
    precision: Literal["bf16", "f32"] = "bf16" if half else "f32"
    return Trained(tuple(history), best_epoch, step, time.monotonic() - began, precision, cut, tuple(notes))


def _diverged(epoch: int, best_epoch: int, plan: Plan) -> str:
    """What to say of a loss that is no number, or an error where there is nothing to return to."""
    hint = f"take a smaller learning rate than {plan.learning_rate:g}, such as {plan.learning_rate / 10:g}"
    if best_epoch == 0:
        raise SightlineError("training diverged: the loss was not a number in the first epoch", hint)
    return f"training diverged in epoch {epoch} (the loss was not a number); the weights of epoch {best_epoch} are kept; {hint}"


# ---------------------------------------------------------------------------------------------------------- history


def overfitting(history: Sequence[Epoch], gap: float = 0.1) -> str | None:
    """Where overfitting starts, in words, such as "from epoch 7: train 0.98, val 0.64"; None where it doesn't.

    It starts with the epoch from which on the training accuracy stays more than `gap` above the validation accuracy; the
    numbers are the last epoch's.
    """
    start = None
    for line in reversed(history):
        if not line.train_accuracy - line.val_accuracy > gap:
            break
        start = line.epoch
    if start is None:
        return None
    last = history[-1]
    return f"from epoch {start}: train {last.train_accuracy:.2f}, val {last.val_accuracy:.2f}"
