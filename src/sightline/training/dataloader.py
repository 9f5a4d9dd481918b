"""Labelled images in memory, and the batches that are made of them: order, augmentation, and one batch ahead of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sightline import store
from sightline.training import augment
from sightline.training.hardware import fits
from sightline.training.progressive_resizing import resized

Batch = tuple[Tensor, Tensor]
SCORED_AT_ONCE = 64
"""Images that are scored in one pass."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Labelled images in memory, or in a memory-mapped file.

    Args:
        images: uint8 (n, h, w, 3).
        y: int64 (n,), class indices.
    """

    images: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """An order of images in batches as equal as they can be, none of one image: BatchNorm can't learn from that.

    Example:
        >>> [len(b) for b in batches(np.arange(9), 4)], [len(b) for b in batches(np.arange(3), 2)]
        ([3, 3, 3], [3])
    """
    return np.array_split(order, max(1, min(math.ceil(len(order) / batch_size), len(order) // 2)))


def balanced_rows(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 (n,): which images an epoch shows so that every class has equally many of the n places, within one.

    The images of a class take turns: none is shown once more before all of its class were shown as often.

    Args:
        y: int64 (n,), class indices.
        rng: What decides which ones are shown once more, and which classes get the places that are left over.
    """
    present = rng.permutation(np.unique(y))
    rows = []
    for place, label in enumerate(present):
        members = np.flatnonzero(y == label)
        wanted = len(y) // len(present) + (place < len(y) % len(present))
        turns = [rng.permutation(members) for _ in range(math.ceil(wanted / len(members)))]
        rows.append(np.concatenate([members[:0], *turns])[:wanted])
    return np.concatenate(rows)


@dataclass(frozen=True, slots=True)
class DataLoader:
    """Training images, ready to be augmented: one warp and one colour matrix an image and epoch.

    Args:
        data: The images.
        policy: How they are changed.
        mean, std: The network's normalisation, for pixels in 0 to 1.
        device: Where the network is; the images are put there once where they take less than `hardware.SHARE` of its free
            memory, else batch by batch.
        seed: Of the order and the changes.
        sampling: Whether an epoch shows every image once, or every class equally often.
    """

    data: Pixels
    policy: augment.Policy
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device
    seed: int
    sampling: Literal["plain", "balanced"] = "plain"
    images: Tensor = field(init=False)
    mean_rgb: np.ndarray = field(init=False)
    principal: np.ndarray | None = field(init=False)

    def __post_init__(self) -> None:
        images = torch.from_numpy(np.ascontiguousarray(self.data.images))
        object.__setattr__(self, "images", images.to(self.device) if fits(images.nbytes, self.device) else images)
        colours = [image.mean(axis=(0, 1), dtype=np.float64) for image in self.data.images]
        object.__setattr__(self, "mean_rgb", np.array(colours).reshape(-1, 3))
        principal = augment.principal_colours(self.data.images) if self.policy.pca else None
        object.__setattr__(self, "principal", principal)

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        *,
        skip: int = 0,
        side: int | None = None,
        share: Callable[[int], slice] | None = None,
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch, (n, 3, h, w) float32 and (n,) int64, each made while the one before is learnt from.

        Order and changes are functions of seed, epoch and place in the epoch's list of images, so that skipped batches are
        not computed and change nothing in the others.

        Args:
            epoch: From 1.
            batch_size: Images a batch, as nearly as they go.
            skip: So many of the first batches are left out.
            side: Of the square images, in pixels, where they are to be smaller; None leaves them as they are.
            share: Which of a batch's n images are made; all labels come along. None makes all of them.
        """
        n = len(self.data)
        shown = np.arange(n)
        if self.sampling == "balanced":
            shown = balanced_rows(self.data.y, store.stream(self.seed, "sampling", epoch))
        full = self.data.images.shape[1]
        side = full if side is None else side
        changes = self._changes(shown, epoch).at(side / full)
        plan = batches(store.stream(self.seed, "order", epoch).permutation(n), batch_size)[skip:]

        def make(places: np.ndarray) -> Batch:
            own = places if share is None else places[share(len(places))]
            pixels = self.images[torch.from_numpy(shown[own]).to(self.images.device)].to(self.device)
            x = augment.apply(resized(pixels, side), changes.rows(own).to(self.device))
            return x, torch.from_numpy(self.data.y[shown[places]]).to(self.device)

        if plan:
            yield from _ahead(plan, make)

    def _changes(self, shown: np.ndarray, epoch: int) -> augment.Changes:
        """What the images of an epoch go through."""
        drawn = augment.draw(self.policy, len(shown), seed=self.seed, epoch=epoch)
        height, width = self.data.images.shape[1:3]
        return augment.prepare(
            drawn,
            (height, width),
            self.mean_rgb[shown],
            self.mean,
            self.std,
            padding=self.policy.padding,
            principal=self.principal,
        )


def _ahead(plan: Sequence[np.ndarray], make: Callable[[np.ndarray], Batch]) -> Generator[Batch, None, None]:
    """The batches of a plan, each made in the background while the one before it is used."""
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
        for start in range(0, len(data), SCORED_AT_ONCE):
            images = torch.from_numpy(np.ascontiguousarray(data.images[start : start + SCORED_AT_ONCE])).to(device)
            same = augment.unchanged(len(images), mean, std).to(device)
            out.append(network(augment.apply(images, same)).float().cpu())
        return torch.cat(out)
    finally:
        network.train(mode)
