"""Training loop: one function with one visible `for`, deterministic in its seed, resumable at any step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sightline import store
from sightline.deadline import UNLIMITED, Deadline, OutOfTimeError
from sightline.errors import DataError, RequestError, SightlineError
from sightline.evaluation import METRICS, metric_of
from sightline.heads.problem import Watch
from sightline.networks.sync_batchnorm import synchronised
from sightline.records import Progress, silent
from sightline.training import augment, optimizers, process_group
from sightline.training.checkpoint import Keeper
from sightline.training.dataloader import DataLoader, Pixels, batches, evaluate
from sightline.training.gradients import measured
from sightline.training.hardware import forward_of, half_precision, isolated
from sightline.training.history import Epoch, GradientNorm, Trained, as_rows, best_of, overfitting, rank
from sightline.training.losses import Labels, Loss, loss_of, mixed
from sightline.training.plan import WATCHED, Plan
from sightline.training.process_group import ProcessGroup
from sightline.training.progress import ProgressLine
from sightline.training.state import State, weights_of

__all__ = [
    "DataLoader",
    "Epoch",
    "GradientNorm",
    "Pixels",
    "Plan",
    "Trained",
    "as_rows",
    "batches",
    "evaluate",
    "half_precision",
    "overfitting",
    "train",
]


FAR_OFF = 5.0
"""Ratio of the validation loss to that of uniform probabilities above which training counts as diverged, not as overfitted."""


@dataclass(frozen=True, slots=True)
class Ending:
    """End of a training.

    Args:
        note: Reason for the user; None for the planned end, or if a note was given before.
        stopped: Whether the deadline ended training.
    """

    note: str | None = None
    stopped: bool = False


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
    groups: Sequence[dict[str, Any]] | None = None,
    sides: Sequence[int] | None = None,
    device: str = "cpu",
    deadline: Deadline = UNLIMITED,
    progress: Progress = silent,
    watch: Watch | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Train a network, in place, on images in memory.

    The same arguments give the same bits on the same machine with the same number of threads: order, augmentation, mixup and
    dropout are functions of the seed and the step, and no choice depends on timing. Only the deadline reads the clock; if it
    ends training early, a note says so. A training that is killed at any moment and called again with the same checkpoint
    folder ends with the same bits too.

    Processes that have joined a group (`process_group.joined`) share every batch, and all end with the same weights. These
    differ from those of a single process by the order of sums, by the dropout masks, and on a CPU by BatchNorm, which sees the
    share of one process and averages the statistics of all; on CUDA it sees whole batches.

    Args:
        network: Normalised float (n, 3, h, w) → logits (n, k); in training mode it may return a tuple: the logits, then those
            of auxiliary heads. It ends in eval mode with the weights of the best epoch. Parameters that require gradients are
            trained.
        train: Training images, at least two.
        val: Validation images, which decide when to stop and which weights to keep; may be empty.
        plan: Epochs, learning rates and other settings.
        policy: Augmentation.
        mean, std: Normalisation of the network, per channel, for pixels in 0 to 1.
        seed: Random seed.
        groups: Parameter groups for torch, as `Network.parameter_groups` returns them, each with its own `lr`; every group
            keeps its ratio to the learning rate of the plan. None trains all trainable parameters at the rate of the plan.
        sides: Side of the square training images in each epoch, in pixels; None uses the full size. A training that continues
            an earlier run uses the full size.
        device: Device of torch.
        deadline: Time to stop, checked after each step: if the current epoch would exceed it by more than a tenth of the time,
            training ends with its last complete epoch. An epoch that does not fit at the measured speed is not begun.
        progress: Called after each step.
        watch: Called with (share of the epochs, validation accuracy) after each epoch; may raise to stop training.
        checkpoint: Folder for checkpoints; a training whose checkpoint it holds is resumed. None writes none.

    Raises:
        DataError: If there are fewer than two training images.
        FailedWorkError: If the checkpoint is damaged.
        RequestError: If the plan has no number of epochs, or the checkpoint belongs to another training.
        SightlineError: If the loss is NaN or infinite in the first epoch, also at half the learning rate, or memory is too
            small.
        OutOfTimeError: If not one epoch fits before the deadline.
    """
    epochs, where, processes = _checked(train, plan), torch.device(device), process_group.here()
    processes.check(batches(np.arange(len(train)), plan.batch_size))
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = DataLoader(train, policy, mean=mean, std=std, device=where, seed=seed, sampling=plan.sampling)
    loss, half, epoch_steps = loss_of(plan, train.y, where), half_precision(where), _steps(train, plan)
    optimizer, steps = optimizers.build(network, plan, groups), epochs * epoch_steps
    ratios = [group["lr"] / plan.peak for group in optimizer.param_groups]
    state = State.begin(network, optimizer, where, averaged=plan.average > 0)
    identity = {} if checkpoint is None else _identity(state, plan, loader, val, sides)
    with (
        isolated(where),
        _together(network, where, processes),
        Keeper(state, checkpoint, identity, where, processes).open() as keeper,
    ):
        forward = forward_of(network, where, steps) if processes.count == 1 else processes.forward_of(network, where)
        passes = _Passes(forward, loss, half, seed, processes)
        share = processes.share if processes.count > 1 and not plan.mixup else None  # mixup needs all images of the batch
        course = _course(state, sides, epochs, int(train.images.shape[1]))
        progress_line = ProgressLine(state, course, len(train), epoch_steps, deadline)
        _tell_again(state, epochs, watch if len(val) else None)
        while (ending := _ending(state, plan, course, progress_line, processes)) is None:
            network.train()
            side = course[state.epoch - state.first_epoch]
            with closing(loader.epoch(state.epoch + 1, plan.batch_size, skip=state.batch, side=side, share=share)) as stream:
                for x, y in stream:
                    rate = state.slowed * plan.rate_at(state.step - state.first_step, steps)
                    _set_rates(optimizer, ratios, rate)
                    value, right = _backward(passes, *mixed(x, y, plan.mixup, seed, state.step), state)
                    if measured(state.batch, epoch_steps):
                        state.measure()
                    _update(state, plan, processes)
                    state.count(value, right, len(y))
                    state.take_average(plan.average)
                    progress(progress_line.message(), state.step - state.first_step, steps)
                    keeper.after_step()
                    progress_line.step_done()
                    if progress_line.limited and processes.any(progress_line.hopeless()):
                        break
            if state.batch < epoch_steps:
                ending = _stopped_within(state, progress_line)
                break
            rate = state.slowed * plan.rate_at(state.step - 1 - state.first_step, steps)
            good = _close_epoch(passes, state, loader, val, plan=plan, rate=rate, seconds=keeper.seconds)
            keeper.after_epoch()
            if good and watch is not None and len(val):
                watch((state.epoch - state.first_epoch) / epochs, state.history[-1].val_accuracy)
        keeper.write()
        seconds = keeper.seconds - state.first_seconds
    network.load_state_dict(state.best)
    network.eval()
    return _trained(state, ending, half, seconds, _far_off(state, plan, train))


# ------------------------------------------------------------------------------------------------------------- one step


@dataclass(frozen=True, slots=True)
class _Passes:
    """Parts of a forward and backward pass that stay the same for all batches.

    Args:
        forward: The network, or its compiled or distributed form.
        loss: The loss.
        half: Whether the forward pass uses bfloat16.
        seed: Random seed of dropout.
        processes: The processes that share each batch.
    """

    forward: Callable[[Tensor], Any]
    loss: Loss
    half: bool
    seed: int
    processes: ProcessGroup


def _set_rates(optimizer: torch.optim.Optimizer, ratios: Sequence[float], rate: float) -> None:
    """Set the learning rate of each parameter group to its ratio to that of the plan."""
    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
        group["lr"] = ratio * rate


def _update(state: State, plan: Plan, processes: ProcessGroup) -> None:
    """Clip the gradients, take one step of the optimizer, and average the BatchNorm statistics of all processes."""
    if plan.clip_norm:
        nn.utils.clip_grad_norm_(state.network.parameters(), plan.clip_norm)
    state.optimizer.step()
    processes.average_statistics(state.network)


def _backward(passes: _Passes, x: Tensor, labels: Labels, state: State) -> tuple[Tensor, Tensor]:
    """Compute the gradients of one batch; if memory runs short, split this batch and all that follow into parts.

    Returns:
        The mean loss of the batch and its number of correct predictions, both detached.

    Raises:
        SightlineError: If memory does not suffice for two images.
    """
    state.pieces = state.pieces if passes.processes.count == 1 else 1
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        drawn = ("dropout", state.step) if passes.processes.first else ("dropout", state.step, passes.processes.rank)
        torch.manual_seed(int(store.stream(passes.seed, *drawn).integers(2**63)))
        try:
            return _by_parts(passes, x, labels, state.pieces)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            smaller = len(x) // (2 * state.pieces)
            if smaller < 2 or passes.processes.count > 1:  # BatchNorm needs two images; other processes would not retry
                message = f"memory does not suffice to train on {len(x) // state.pieces} images of this size at once"
                raise SightlineError(message, "use a smaller batch_size, image_size or network") from error
        state.pieces *= 2
        state.optimizer.zero_grad(set_to_none=True)
        if x.device.type == "cuda":
            torch.cuda.empty_cache()
        state.notes.append(f"memory ran short: each batch is processed in {state.pieces} parts of about {smaller} images")


def _by_parts(passes: _Passes, x: Tensor, labels: Labels, pieces: int) -> tuple[Tensor, Tensor]:
    """Run forward and backward passes of this process's share of a batch, part by part; the gradients of all parts add up to
    those of the batch."""
    processes = passes.processes
    share = processes.share(len(labels))
    own_labels, x = labels.rows(share), x if len(x) < len(labels) else x[share]
    values, right = [], []
    for rows in np.array_split(np.arange(len(x)), pieces):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=passes.half):
            output = passes.forward(x[part])
        value = passes.loss(output, own_labels.rows(part), labels if pieces * processes.count > 1 else None)
        (value if processes.count == 1 else value * processes.count).backward()  # type: ignore[no-untyped-call]
        values.append(value.detach())
        logits = (output[0] if isinstance(output, tuple) else output).detach()
        right.append((logits.argmax(dim=1) == own_labels.y[part]).sum())
    if pieces * processes.count == 1:
        return values[0], right[0]
    both = processes.add_up(torch.stack([torch.stack(values).sum(), torch.stack(right).sum().float()]))
    return both[0], both[1]


# ------------------------------------------------------------------------------------------------------------- one epoch


def _score(passes: _Passes, network: nn.Module, loader: DataLoader, val: Pixels, keep: str) -> tuple[float, float, float]:
    """Return loss, accuracy and the watched metric on the validation images, which processes share; NaN without images."""
    if not len(val):
        return math.nan, math.nan, math.nan
    processes, weight = passes.processes, passes.loss.weight
    rows = processes.share(len(val)) if len(val) >= processes.count else slice(None)
    logits = evaluate(network, Pixels(val.images[rows], val.y[rows]), loader.mean, loader.std, loader.device)
    if len(logits) < len(val):
        whole = torch.zeros((len(val), logits.shape[1]))
        whole[rows] = logits
        logits = processes.add_up(whole)
    y, plain = torch.from_numpy(val.y), Loss(None if weight is None else weight.cpu())
    watched = math.nan
    if keep not in (*WATCHED, "last") and bool(torch.isfinite(logits).all()):
        watched = metric_of(keep.removeprefix("val_"), val.y, torch.softmax(logits.double(), dim=1).numpy())
    return float(plain(logits, Labels(y))), float((logits.argmax(dim=1) == y).double().mean()), watched


def _close_epoch(
    passes: _Passes, state: State, loader: DataLoader, val: Pixels, *, plan: Plan, rate: float, seconds: float
) -> bool:
    """Evaluate an epoch and add it to the history; if a number is NaN or infinite, return to the state before it."""
    current = None
    if state.average is not None:
        current = weights_of(state.network)
        state.network.load_state_dict(state.average)
    train_loss, train_accuracy = float(state.total) / len(loader.data), float(state.right) / len(loader.data)
    val_loss, val_accuracy, watched = _score(passes, state.network, loader, val, plan.keep)
    line = Epoch(
        state.epoch + 1,
        train_loss,
        train_accuracy=train_accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        learning_rate=rate,
        seconds=seconds,
        val_watched=watched,
    )
    good = math.isfinite(train_loss) and state.finite() and (not len(val) or math.isfinite(val_loss))
    if good:
        earlier = {past.epoch: past for past in state.history}.get(state.best_epoch)
        state.finish_epoch(line, best=earlier is None or rank(line, plan.keep) > rank(earlier, plan.keep))
    if current is not None:
        state.network.load_state_dict(current)
    if good:
        state.keep_good()
    else:
        _retreat(state, plan)
    return good


def _retreat(state: State, plan: Plan) -> None:
    """Return to the last good state and continue at half the learning rate; the second time, end training.

    Raises:
        SightlineError: If no epoch was completed before.
    """
    state.go_back()
    epoch, hint = state.epoch + 1, f"use a smaller learning rate than {plan.peak:g}, such as {plan.peak / 10:g}"
    if state.slowed == 1:
        state.slowed = 0.5
        place = f"the end of epoch {state.epoch}" if state.epoch else "the beginning"
        state.notes.append(
            f"the loss became NaN or infinite in epoch {epoch}: training resumed from {place} at half the learning rate"
        )
        return
    if state.best_epoch == 0:
        raise SightlineError(
            "training diverged: the loss became NaN or infinite in the first epoch, also at half the learning rate", hint
        )
    state.slowed = 0.0
    outcome = f"the weights of epoch {state.best_epoch} are kept"
    state.notes.append(
        f"training diverged in epoch {epoch} (NaN or infinite loss, also at half the learning rate); {outcome}; {hint}"
    )


# ------------------------------------------------------------------------------------------------- beginning and end


def _tell_again(state: State, epochs: int, watch: Watch | None) -> None:
    """Report the epochs before a resume to the watch, so that it decides as in an uninterrupted training."""
    if watch is None:
        return
    for line in state.history:
        if line.epoch > state.first_epoch:
            watch((line.epoch - state.first_epoch) / epochs, line.val_accuracy)


def _checked(train: Pixels, plan: Plan) -> int:
    """Check images and plan, and return the number of epochs.

    Raises:
        DataError, RequestError: As in `train`.
    """
    if len(train) < 2:
        raise DataError(f"a network cannot be trained on {len(train)} image(s)", "give at least two, of different classes")
    if plan.epochs is None:
        raise RequestError("the plan has no number of epochs", "set epochs, such as epochs = 12")
    name, classes = plan.keep.removeprefix("val_"), int(train.y.max()) + 1
    metric = METRICS.get(name)
    if metric is not None and metric.two_classes_only and classes > 2:
        raise RequestError(f"keep cannot be {plan.keep!r} here: it is defined for two classes", "set keep = 'val_roc_auc', say")
    if metric is not None and classes < metric.least_classes:
        raise RequestError(f"keep cannot be {plan.keep!r} here: there are only {classes} classes", "set keep = 'val_accuracy'")
    return plan.epochs


def _together(network: nn.Module, device: torch.device, processes: ProcessGroup) -> AbstractContextManager[None]:
    """Compute BatchNorm statistics over the images of all processes, on CUDA."""
    return synchronised(network) if processes.count > 1 and device.type == "cuda" else nullcontext()


def _course(state: State, sides: Sequence[int] | None, epochs: int, full: int) -> tuple[int, ...]:
    """Return the side of the training images in each epoch of the plan, in pixels."""
    return (full,) * epochs if sides is None or state.first_epoch else tuple(sides)


def _steps(train: Pixels, plan: Plan) -> int:
    """Return the number of batches per epoch."""
    return len(batches(np.arange(len(train)), plan.batch_size))


def _identity(state: State, plan: Plan, loader: DataLoader, val: Pixels, sides: Sequence[int] | None) -> dict[str, Any]:
    """Return the identity of a training: a checkpoint can only be resumed by a training with the same one."""

    def content(pixels: Pixels) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(pixels.images).data)
        digest.update(np.ascontiguousarray(pixels.y).data)
        return digest.hexdigest()

    groups = [[len(g["params"]), g["lr"], g["weight_decay"]] for g in state.optimizer.param_groups]
    return {
        "plan": plan,
        "augmentation": loader.policy,
        "sides": None if sides is None else list(sides),
        "seed": loader.seed,
        "mean": list(loader.mean),
        "std": list(loader.std),
        "network": store.digest([[name, list(t.shape)] for name, t in state.network.state_dict().items()]),
        "optimizer": groups,
        "train": content(loader.data),
        "val": content(val),
    }


def _ending(
    state: State, plan: Plan, course: Sequence[int], progress_line: ProgressLine, processes: ProcessGroup
) -> Ending | None:
    """Return the end of training if it is over, else None. Patience counts epochs with images of full size."""
    done, epochs = state.epoch - state.first_epoch, len(course)
    if done >= epochs or state.slowed == 0:
        return Ending()
    if done == 0:
        return None
    watched = "val_loss" if plan.keep == "last" else plan.keep
    best = max(best_of(state.history[state.compared_from :], watched), state.first_epoch)
    since = max(best, state.first_epoch + course.index(course[-1]))
    if plan.patience and state.epoch - since >= plan.patience:
        metric = watched.partition("_")[2]
        score = f"the {'validation' if watched.startswith('val') else 'training'} {metric.replace('_', ' ')}"
        way = "lowest" if metric == "loss" or not METRICS[metric].higher_is_better else "highest"
        return Ending(f"stopped after epoch {state.epoch}: {score} was {way} in epoch {best}")
    if progress_line.limited and processes.any(not progress_line.next_fits()):
        return _stopped(state, progress_line)
    return None


def _stopped(state: State, progress_line: ProgressLine) -> Ending:
    """Return the end of training by the deadline after a complete epoch."""
    done, epochs = state.epoch - state.first_epoch, len(progress_line.course)
    return Ending(f"stopped by the time budget ({progress_line.allotted_s:.0f} s) after epoch {done} of {epochs}", stopped=True)


def _stopped_within(state: State, progress_line: ProgressLine) -> Ending:
    """Return the end of training by the deadline within an epoch, which is discarded.

    Raises:
        OutOfTimeError: If no epoch was completed before.
    """
    if state.epoch == state.first_epoch:
        epoch_s, left = progress_line.epoch_s(), progress_line.deadline.left()
        takes = "takes longer" if epoch_s is None else f"takes about {epoch_s:.0f} s here"
        raise OutOfTimeError(f"not enough time to train: one epoch {takes}, {left:.0f} s are left", "raise --budget")
    state.go_back()
    return _stopped(state, progress_line)


def _far_off(state: State, plan: Plan, train: Pixels) -> str | None:
    """Return a note if the validation loss of the best epoch is far above that of uniform probabilities; else None."""
    best = next(line for line in state.history if line.epoch == state.best_epoch)
    uniform_loss = math.log(max(2, int(train.y.max()) + 1))
    if not best.val_loss > FAR_OFF * uniform_loss:
        return None
    losses = f"the kept epoch, {best.epoch}, has validation loss {best.val_loss:.3g}, uniform probabilities {uniform_loss:.3g}"
    return f"training diverged: {losses}; use a smaller learning rate than {plan.peak:g}, such as {plan.peak / 10:g}"


def _trained(state: State, ending: Ending, half: bool, seconds: float, far_off: str | None) -> Trained:
    """Return the result of a training."""
    precision: Literal["bf16", "f32"] = "bf16" if half else "f32"
    notes = (*state.notes, *(note for note in (ending.note, far_off) if note is not None))
    stopped = ending.note if ending.stopped else None
    return Trained(
        tuple(state.history),
        state.best_epoch,
        steps=state.step,
        seconds=seconds,
        precision=precision,
        stopped=stopped,
        notes=notes,
        gradients=state.gradient_norms(),
    )
