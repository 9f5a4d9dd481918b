"""Loss function: cross-entropy with label smoothing, class weights, mixup and auxiliary heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sightline import store
from sightline.training.plan import Plan

AUXILIARY = 0.3
"""Weight of the loss of an auxiliary head. Source: Szegedy et al. 2014, "Going deeper with convolutions", section 5."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of a batch.

    Args:
        y: int64 (n,), class indices.
        other: int64 (n,), class indices of the images that are mixed in; None without mixup.
        share: Weight of `y`, 0.5 to 1; `other` has the rest.
    """

    y: Tensor
    other: Tensor | None = None
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: slice) -> Labels:
        """Return the labels of some of the images."""
        return Labels(self.y[index], None if self.other is None else self.other[index], self.share)


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy. For one sigmoid unit, given as the two columns (0, z), it is the binary cross-entropy, since the softmax
    over (0, z) is the sigmoid of z.

    Args:
        weight: float32 (k,), weight of each class; None weights all classes equally. Classes beyond its end, which have no
            images, have weight 0.
        smoothing: Label smoothing: share of the target that is spread over all classes.
    """

    weight: Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, output: Tensor | tuple[Tensor, ...], labels: Labels, batch: Labels | None = None) -> Tensor:
        """Return the mean loss of a batch, or the contribution of a part to it.

        Args:
            output: Logits (n, k), or a tuple of these and those of auxiliary heads, whose loss has the weight `AUXILIARY`.
            labels: Labels of these n images.
            batch: Labels of the whole batch, if these are a part of it; the contributions of all parts sum to its mean.
        """
        logits, *auxiliary = (t.float() for t in (output if isinstance(output, tuple) else (output,)))
        value = self._mixed(logits, labels, batch)
        for scores in auxiliary:
            value = value + AUXILIARY * self._mixed(scores, labels, batch)
        return value

    def _mixed(self, scores: Tensor, labels: Labels, batch: Labels | None) -> Tensor:
        """Return the loss for both labels of mixed images."""
        first = self._mean(scores, labels.y, None if batch is None else batch.y)
        if labels.other is None:
            return first
        second = self._mean(scores, labels.other, None if batch is None else batch.other)
        return labels.share * first + (1 - labels.share) * second

    def _mean(self, scores: Tensor, y: Tensor, whole: Tensor | None) -> Tensor:
        """Return the weighted mean over these images, or over the whole batch."""
        weight = self.weight
        if weight is not None and len(weight) < scores.shape[1]:
            weight = F.pad(weight, (0, scores.shape[1] - len(weight)))
        mean = F.cross_entropy(scores, y, weight=weight, label_smoothing=self.smoothing)
        if whole is None:
            return mean
        return mean * (len(y) / len(whole) if weight is None else weight[y].sum() / weight[whole].sum())


def mixed(x: Tensor, y: Tensor, alpha: float, seed: int, step: int) -> tuple[Tensor, Labels]:
    """Mix every image of a batch with another one, all with the same share (mixup); return the batch unchanged if `alpha` is 0.

    The share is the larger of the drawn one and its complement, so that `y` always has the larger weight; mixing is symmetric.

    Source: Zhang et al. 2018, "mixup: beyond empirical risk minimization", equation 2.

    Args:
        x: float32 (n, 3, h, w).
        y: int64 (n,), class indices.
        alpha: Both parameters of the Beta distribution.
        seed, step: Random seed and step, which determine share and partners.
    """
    if alpha == 0:
        return x, Labels(y)
    rng = store.stream(seed, "mixup", step)
    share = float(rng.beta(alpha, alpha))
    share = max(share, 1 - share)
    partners = torch.from_numpy(rng.permutation(len(y))).to(y.device)
    return torch.lerp(x[partners], x, share), Labels(y, y[partners], share)


def loss_of(plan: Plan, y: np.ndarray, device: torch.device) -> Loss:
    """Return the loss of a plan for training images of the classes `y`, int64 (n,)."""
    weights = balanced_weights(y, int(y.max()) + 1) if plan.class_weight == "balanced" else None
    weight = None if weights is None else torch.as_tensor(weights, dtype=torch.float32, device=device)
    return Loss(weight, plan.label_smoothing)


def balanced_weights(y: np.ndarray, classes: int) -> np.ndarray:
    """Return balanced class weights, float32 (k,): n / (k · images of the class); 0 for a class without images."""
    count = np.bincount(y, minlength=classes)
    return np.where(count > 0, len(y) / (classes * np.maximum(count, 1)), 0).astype(np.float32)
