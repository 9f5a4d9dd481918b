"""The one training loop: a function with one visible `for`, deterministic in its seed, resumable at any step."""

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
from sightline.training.losses import Labels, Loss, balanced_weights, mixed
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
    "balanced_weights",
    "batches",
    "evaluate",
    "half_precision",
    "overfitting",
    "train",
]


FAR_OFF = 5.0
"""A validation loss so many times that of guessing comes of a training that diverged, not of one that learnt by heart."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why training is over.

    Args:
        note: In words; None where it came to its planned end, or where that was said before.
        stopped: Whether the deadline ended it.
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
    class_weights: np.ndarray | None = None,
    groups: Sequence[dict[str, Any]] | None = None,
    sides: Sequence[int] | None = None,
    device: str = "cpu",
    deadline: Deadline = UNLIMITED,
    progress: Progress = silent,
    watch: Watch | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Train a network, in place, on images in memory.

    The same arguments give the same bits on the same machine with the same number of threads: order, augmentation, mixing
    and dropout are functions of the seed and the step, and no choice is made by timing. Only the time budget looks at the
    clock; where it ends training early, that is said. Killed at any moment and called again with the same checkpoint, it ends
    with the same bits too.

    Several processes that have joined (`ranks.joined`) share every batch out, and all end with the same weights: those that
    one alone gets, but for the order of sums, for what the network draws itself (dropout), and on a CPU for BatchNorm, which
    there sees a process's share and keeps the mean of all shares' statistics; on CUDA it sees whole batches.

    Args:
        network: Normalised float (n, 3, h, w) → logits (n, k); in training mode it may give a tuple, the logits first, then
            those of auxiliary heads. It ends in eval mode with the best epoch's weights. What requires gradients learns.
        train: What it learns from; two images at least.
        val: What decides when to stop and which weights to keep; may be empty.
        plan: Epochs, rates and the like.
        policy: The augmentation.
        mean, std: The network's normalisation, per channel, for pixels in 0 to 1.
        seed: Every random draw is a function of it.
        class_weights: float (k,), how much an image of each class counts in the loss; None does as the plan says.
        groups: Parameter groups for torch, as `Network.parameter_groups` gives them, each with its own `lr`; every group keeps
            its ratio to the plan's rate on the whole course. None takes all that learns at the plan's rate.
        sides: The side of the square training images in each epoch, in pixels; None leaves them as they are. What goes on
            from an earlier run has been through that, and sees them as they are.
        device: Of torch.
        deadline: When to stop, looked at after each step: where the epoch at hand would overrun it by more than a tenth of the
            time, training ends with its last complete epoch. No epoch begins that does not fit at the measured pace.
        progress: Told after each step.
        watch: Told (share of the epochs, validation accuracy) after each epoch; may raise to give up.
        checkpoint: A folder in which the training is kept on disk; where it holds one, that goes on. None keeps nothing.

    Raises:
        DataError: Fewer than two training images, or a damaged checkpoint.
        RequestError: The plan names no number of epochs, or the checkpoint is another training's.
        SightlineError: The loss was no number from the first epoch on, at half the rate too, or memory does not suffice.
        OutOfTimeError: Not one epoch fits before the deadline.
    """
    epochs, where, team = _checked(train, plan), torch.device(device), process_group.here()
    team.check(batches(np.arange(len(train)), plan.batch_size))
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    feed = DataLoader(train, policy, mean, std, where, seed, plan.sampling)
    loss, half, epoch_steps = _loss(plan, train, class_weights, where), half_precision(where), _steps(train, plan)
    optimizer = optimizers.build(network, plan, groups)
    ratios, steps = [group["lr"] / plan.peak for group in optimizer.param_groups], epochs * epoch_steps
    state = State.begin(network, optimizer, where, averaged=plan.average > 0)
    identity = {} if checkpoint is None else _identity(state, plan, feed, val, class_weights, sides)

    with isolated(where), _together(network, where, team), Keeper(state, checkpoint, identity, where, team).open() as keeper:
        forward = forward_of(network, where, steps) if team.count == 1 else team.forward_of(network, where)
        state.pieces = state.pieces if team.count == 1 else 1
        share = team.share if team.count > 1 and not plan.mixup else None  # what is mixed in may be another one's
        course = _course(state, sides, epochs, int(train.images.shape[1]))
        pace = ProgressLine(state, course, len(train), epoch_steps, deadline)
        _tell_again(state, epochs, watch if len(val) else None)
        while (ending := _ending(state, plan, course, pace, team)) is None:
            network.train()
            side = course[state.epoch - state.first_epoch]
            made = feed.epoch(state.epoch + 1, plan.batch_size, skip=state.batch, side=side, share=share)
            with closing(made) as stream:
                for x, y in stream:
                    for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                        group["lr"] = ratio * state.slowed * plan.rate_at(state.step - state.first_step, steps)
                    x, labels = mixed(x, y, plan.mixup, seed, state.step)
                    value, right = _backward(forward, x, labels, loss, half, seed, state, team)
                    if measured(state.batch, epoch_steps):
                        state.measure()
                    if plan.clip_norm:
                        nn.utils.clip_grad_norm_(network.parameters(), plan.clip_norm)
                    optimizer.step()
                    team.average_statistics(network)
                    state.count(value, right, len(y))
                    state.take_average(plan.average)
                    progress(pace.told(), state.step - state.first_step, steps)
                    keeper.after_step()
                    pace.step_done()
                    if pace.limited and team.any(pace.hopeless()):
                        break
            if state.batch < epoch_steps:
                ending = _stopped_within(state, pace)
                break
            rate = state.slowed * plan.rate_at(state.step - 1 - state.first_step, steps)
            closed = _close_epoch(state, feed, val, loss, plan, rate, keeper.seconds, team)
            keeper.after_epoch()
            if closed and watch is not None and len(val):
                watch((state.epoch - state.first_epoch) / epochs, state.history[-1].val_accuracy)
        keeper.write()
        seconds = keeper.seconds - state.first_seconds

    network.load_state_dict(state.best)
    network.eval()
    return _trained(state, ending, half, seconds, _far_off(state, plan, train))


# ------------------------------------------------------------------------------------------------------------- one step


def _backward(
    forward: Callable[[Tensor], Any],
    x: Tensor,
    labels: Labels,
    loss: Loss,
    half: bool,
    seed: int,
    state: State,
    team: ProcessGroup,
) -> tuple[Tensor, Tensor]:
    """The gradients of one batch, in as many parts as memory asks for, which it is then learnt from from now on.

    Returns:
        The batch's mean loss, and how many of its answers are right, neither with a graph.

    Raises:
        SightlineError: Memory does not suffice for two images.
    """
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        drawn = ("dropout", state.step) if team.first else ("dropout", state.step, team.rank)
        torch.manual_seed(int(store.stream(seed, *drawn).integers(2**63)))
        try:
            return _by_parts(forward, x, labels, loss, half, state.pieces, team)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            smaller = len(x) // (2 * state.pieces)
            if smaller < 2 or team.count > 1:  # BatchNorm cannot learn from one image; others do not wait for another try
                short = f"the memory does not suffice to learn from {len(x) // state.pieces} images of this size at once"
                raise SightlineError(short, "take a smaller batch_size, image_size, or network") from error
        state.pieces *= 2
        state.optimizer.zero_grad(set_to_none=True)
        if x.device.type == "cuda":
            torch.cuda.empty_cache()
        state.notes.append(f"memory ran short: batches are learnt from in {state.pieces} parts of about {smaller} images")


def _by_parts(
    forward: Callable[[Tensor], Any], x: Tensor, labels: Labels, loss: Loss, half: bool, pieces: int, team: ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Forward and backward of a batch, or of this process's share of it; of parts one after the other, whose gradients add up
    to the batch's."""
    share = team.share(len(labels))
    own, x = labels.rows(share), x if len(x) < len(labels) else x[share]
    values, right = [], []
    for rows in np.array_split(np.arange(len(x)), pieces):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=half):
            output = forward(x[part])
        value = loss(output, own.rows(part), labels if pieces * team.count > 1 else None)
        (value if team.count == 1 else value * team.count).backward()  # type: ignore[no-untyped-call]
        values.append(value.detach())
        logits = (output[0] if isinstance(output, tuple) else output).detach()
        right.append((logits.argmax(dim=1) == own.y[part]).sum())
    if pieces * team.count == 1:
        return values[0], right[0]
    both = team.add_up(torch.stack([torch.stack(values).sum(), torch.stack(right).sum().float()]))
    return both[0], both[1]


# ------------------------------------------------------------------------------------------------------------- one epoch


def _score(
    network: nn.Module, feed: DataLoader, val: Pixels, loss: Loss, keep: str, team: ProcessGroup
) -> tuple[float, float, float]:
    """Loss, accuracy and what else is watched on the validation images, which the processes share out; NaN without any."""
    if not len(val):
        return math.nan, math.nan, math.nan
    rows = team.share(len(val)) if len(val) >= team.count else slice(None)
    logits = evaluate(network, Pixels(val.images[rows], val.y[rows]), feed.mean, feed.std, feed.device)
    if len(logits) < len(val):
        whole = torch.zeros((len(val), logits.shape[1]))
        whole[rows] = logits
        logits = team.add_up(whole)
    y, plain = torch.from_numpy(val.y), Loss(None if loss.weight is None else loss.weight.cpu())
    watched = math.nan
    if keep not in (*WATCHED, "last") and bool(torch.isfinite(logits).all()):
        watched = metric_of(keep.removeprefix("val_"), val.y, torch.softmax(logits.double(), dim=1).numpy())
    return float(plain(logits, Labels(y))), float((logits.argmax(dim=1) == y).double().mean()), watched


def _close_epoch(
    state: State, feed: DataLoader, val: Pixels, loss: Loss, plan: Plan, rate: float, seconds: float, team: ProcessGroup
) -> bool:
    """Score an epoch and take it into the history, or go back to where it began where its numbers are none."""
    own = None
    if state.average is not None:
        own = weights_of(state.network)
        state.network.load_state_dict(state.average)
    train_loss, train_accuracy = float(state.total) / len(feed.data), float(state.right) / len(feed.data)
    val_loss, val_accuracy, watched = _score(state.network, feed, val, loss, plan.keep, team)
    line = Epoch(state.epoch + 1, train_loss, train_accuracy, val_loss, val_accuracy, rate, seconds, watched)
    good = math.isfinite(train_loss) and state.finite() and (not len(val) or math.isfinite(val_loss))
    if good:
        earlier = {past.epoch: past for past in state.history}.get(state.best_epoch)
        state.finish_epoch(line, best=earlier is None or rank(line, plan.keep) > rank(earlier, plan.keep))
    if own is not None:
        state.network.load_state_dict(own)
    if good:
        state.keep_good()
    else:
        _retreat(state, plan)
    return good


def _retreat(state: State, plan: Plan) -> None:
    """Go back to the last good state, and on from there at half the rate; the second time it is the end.

    Raises:
        SightlineError: There is nothing good to end with.
    """
    state.go_back()
    epoch, hint = state.epoch + 1, f"take a smaller learning rate than {plan.peak:g}, such as {plan.peak / 10:g}"
    if state.slowed == 1:
        state.slowed = 0.5
        place = f"the end of epoch {state.epoch}" if state.epoch else "the beginning"
        state.notes.append(
            f"the loss was not a number in epoch {epoch}: training went back to {place} and on at half the learning rate"
        )
        return
    if state.best_epoch == 0:
        raise SightlineError("training diverged: the loss was not a number in the first epoch, at half the rate too", hint)
    state.slowed = 0.0
    kept = f"the weights of epoch {state.best_epoch} are kept"
    state.notes.append(f"training diverged in epoch {epoch} (the loss was not a number, at half the rate too); {kept}; {hint}")


# ------------------------------------------------------------------------------------------------- beginning and end


def _tell_again(state: State, epochs: int, watch: Watch | None) -> None:
    """Tell the watch of the epochs that a training which goes on had finished before: it decides as it would have then."""
    if watch is None:
        return
    for line in state.history:
        if line.epoch > state.first_epoch:
            watch((line.epoch - state.first_epoch) / epochs, line.val_accuracy)


def _checked(train: Pixels, plan: Plan) -> int:
    """The number of epochs.

    Raises:
        DataError, RequestError: As `train` says.
    """
    if len(train) < 2:
        raise DataError(f"a network cannot be trained on {len(train)} image(s)", "give at least two, of different classes")
    if plan.epochs is None:
        raise RequestError("the plan names no number of epochs", "set epochs, such as epochs = 12")
    name, classes = plan.keep.removeprefix("val_"), int(train.y.max()) + 1
    metric = METRICS.get(name)
    if metric is not None and metric.two_classes_only and classes > 2:
        raise RequestError(f"keep cannot be {plan.keep!r} here: it is defined for two classes", "set keep = 'val_roc_auc', say")
    if metric is not None and classes < metric.least_classes:
        raise RequestError(f"keep cannot be {plan.keep!r} here: there are only {classes} classes", "set keep = 'val_accuracy'")
    return plan.epochs


def _together(network: nn.Module, device: torch.device, team: ProcessGroup) -> AbstractContextManager[None]:
    """BatchNorm over all processes' images, where that can be."""
    return synchronised(network) if team.count > 1 and device.type == "cuda" else nullcontext()


def _course(state: State, sides: Sequence[int] | None, epochs: int, full: int) -> tuple[int, ...]:
    """The side of the training images in each epoch of the plan."""
    return (full,) * epochs if sides is None or state.first_epoch else tuple(sides)


def _steps(train: Pixels, plan: Plan) -> int:
    """Batches an epoch."""
    return len(batches(np.arange(len(train)), plan.batch_size))


def _loss(plan: Plan, train: Pixels, class_weights: np.ndarray | None, device: torch.device) -> Loss:
    """What is lowered, by the plan."""
    if class_weights is None and plan.class_weight == "balanced":
        class_weights = balanced_weights(train.y, int(train.y.max()) + 1)
    weight = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32, device=device)
    return Loss(weight, plan.label_smoothing)


def _identity(
    state: State, plan: Plan, feed: DataLoader, val: Pixels, class_weights: np.ndarray | None, sides: Sequence[int] | None
) -> dict[str, Any]:
    """What makes a training this one: another one cannot go on from its checkpoint."""

    def content(pixels: Pixels) -> str:
        found = hashlib.sha256(np.ascontiguousarray(pixels.images).data)
        found.update(np.ascontiguousarray(pixels.y).data)
        return found.hexdigest()

    groups = [[len(g["params"]), g["lr"], g["weight_decay"]] for g in state.optimizer.param_groups]
    return {
        "plan": plan,
        "augmentation": feed.policy,
        "sides": None if sides is None else list(sides),
        "seed": feed.seed,
        "mean": list(feed.mean),
        "std": list(feed.std),
        "class_weights": class_weights,
        "network": store.digest([[name, list(t.shape)] for name, t in state.network.state_dict().items()]),
        "optimizer": groups,
        "train": content(feed.data),
        "val": content(val),
    }


def _ending(state: State, plan: Plan, course: Sequence[int], pace: ProgressLine, team: ProcessGroup) -> Ending | None:
    """Why training is over; None while it is not. Patience begins where images are of full size."""
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
        told = f"the {'validation' if watched.startswith('val') else 'training'} {metric.replace('_', ' ')}"
        way = "lowest" if metric == "loss" or not METRICS[metric].higher_is_better else "highest"
        return Ending(f"stopped after epoch {state.epoch}: {told} was {way} in epoch {best}")
    if pace.limited and team.any(not pace.next_fits()):
        return _stopped(state, pace)
    return None


def _stopped(state: State, pace: ProgressLine) -> Ending:
    """The deadline ends training behind a complete epoch."""
    done, epochs = state.epoch - state.first_epoch, len(pace.course)
    return Ending(f"stopped by the time budget ({pace.allotted_s:.0f} s) after epoch {done} of {epochs}", stopped=True)


def _stopped_within(state: State, pace: ProgressLine) -> Ending:
    """The deadline ends training within an epoch, of which nothing is kept.

    Raises:
        OutOfTimeError: No epoch was finished before.
    """
    if state.epoch == state.first_epoch:
        epoch_s, left = pace.epoch_s(), pace.deadline.left()
        takes = "takes longer" if epoch_s is None else f"takes about {epoch_s:.0f} s here"
        raise OutOfTimeError(f"not enough time to train: one epoch {takes}, {left:.0f} s are left", "raise --budget")
    state.go_back()
    return _stopped(state, pace)


def _far_off(state: State, plan: Plan, train: Pixels) -> str | None:
    """What to say of kept weights whose validation loss is far above that of guessing; None where it is not."""
    kept = next(line for line in state.history if line.epoch == state.best_epoch)
    guessing = math.log(max(2, int(train.y.max()) + 1))
    if not kept.val_loss > FAR_OFF * guessing:
        return None
    told = f"epoch {kept.epoch}, which is kept, has a validation loss of {kept.val_loss:.3g}, and guessing {guessing:.3g}"
    return f"training diverged: {told}; take a smaller learning rate than {plan.peak:g}, such as {plan.peak / 10:g}"


def _trained(state: State, ending: Ending, half: bool, seconds: float, far_off: str | None) -> Trained:
    """What there is to tell."""
    precision: Literal["bf16", "f32"] = "bf16" if half else "f32"
    notes = (*state.notes, *(note for note in (ending.note, far_off) if note is not None))
    stopped = ending.note if ending.stopped else None
    return Trained(
        tuple(state.history), state.best_epoch, state.step, seconds, precision, stopped, notes, state.gradient_norms()
    )
