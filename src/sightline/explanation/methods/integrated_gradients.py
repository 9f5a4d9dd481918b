"""Integrated gradients with adaptive steps, so that they add up to the difference in score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sightline.explanation.methods.pixel_gradient import open_score
from sightline.explanation.methods.record import Attribution, Method
from sightline.explanation.score import Score

POINTS = 16
"""Number of steps per segment of the path from the baseline to the image; a segment that is too coarse is halved."""
SEGMENTS, COARSE = 48, 4
"""Maximum number of segments; the second where the heatmap only serves a comparison."""
COMPLETE = 0.01
"""Share of the difference in score that integrated gradients may miss before a segment is halved."""
CANCELLED = 0.05
"""Share that segments may miss individually, as long as their errors cancel."""


def integrated_gradients(score: Score) -> tuple[np.ndarray, float]:
    """Return the gradient integrated along the path from a baseline to the image, times the path, summed over channels.

    The baseline is the mean colour (0 after normalisation; black where the backbone is `pixels`). The values add up to the
    difference in score between image and baseline. The segment that misses most of its own difference is halved, until all
    together miss at most `COMPLETE` of the whole and individually at most `CANCELLED`: with a LayerNorm most of the score
    changes within a thousandth of the path, which equally spaced points miss. The trapezoidal rule lets both halves reuse the
    points of the whole.

    Source: Sundararajan et al., Axiomatic Attribution for Deep Networks (2017), eq. 1.

    Returns:
        float32 (h, w), and the share of the difference in score that it misses.
    """
    import torch

    with open_score(score) as (_, module, x):
        path = x.detach()

        def evaluate(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Return scores (m,), and gradient times path float32 (m, h, w), at positions given as shares of the path."""
            here = torch.as_tensor(shares, dtype=path.dtype, device=path.device).reshape(-1, 1, 1, 1) * path
            here.requires_grad_(True)
            scores = module(here)
            slopes = (torch.autograd.grad(scores.sum(), here)[0] * path).sum(dim=1)
            return scores.detach().double().cpu().numpy(), slopes.float().cpu().numpy()

        shares = np.linspace(0.0, 1.0, POINTS + 1)
        segments = [_Segment(shares, *evaluate(shares))]
        change = segments[0].change
        while len(segments) < (COARSE if score.coarse else SEGMENTS) and not _complete(segments, abs(change)):
            worst = segments.pop(max(range(len(segments)), key=lambda i: abs(segments[i].missed)))
            between = (worst.shares[:-1] + worst.shares[1:]) / 2
            segments += worst.halves(between, *evaluate(between))
        total = np.sum([s.heatmap() for s in segments], axis=0)
        missed = abs(float(total.sum()) - change)
        return total.astype(np.float32), missed / abs(change) if change else float(missed > 0)


def _complete(segments: Sequence[_Segment], change: float) -> bool:
    """Return whether the segments miss little of the change in score, together and without large errors that cancel."""
    missed = [s.missed for s in segments]
    return abs(sum(missed)) <= COMPLETE * change and sum(map(abs, missed)) <= CANCELLED * change


@dataclass(frozen=True, slots=True)
class _Segment:
    """Integrated gradients over one segment of the path.

    Args:
        shares: float64 (m,), positions from its start to its end, as shares of the path.
        scores: float64 (m,), at these positions.
        slopes: float32 (m, h, w), the gradient there times the path.
    """

    shares: np.ndarray
    scores: np.ndarray
    slopes: np.ndarray

    @property
    def change(self) -> float:
        """Return the difference in score over the segment."""
        return float(self.scores[-1] - self.scores[0])

    @property
    def missed(self) -> float:
        """Return the sum of the heatmap minus the difference in score."""
        return float(np.trapezoid(self.slopes.sum(axis=(1, 2), dtype=np.float64), self.shares)) - self.change

    def heatmap(self) -> np.ndarray:
        """Return the heatmap of the segment, float64 (h, w)."""
        return np.asarray(np.trapezoid(self.slopes.astype(np.float64), self.shares, axis=0))

    def halves(self, between: np.ndarray, scores: np.ndarray, slopes: np.ndarray) -> tuple[_Segment, _Segment]:
        """Return the two halves of the segment, refined by the points between its own, with as many steps each."""
        order = np.argsort(np.concatenate([self.shares, between]), kind="stable")
        old, new = (self.shares, self.scores, self.slopes), (between, scores, slopes)
        merged = [np.concatenate([a, b])[order] for a, b in zip(old, new, strict=True)]
        middle = len(between)
        return _Segment(*(m[: middle + 1] for m in merged)), _Segment(*(m[middle:] for m in merged))


def _explain(score: Score, _: np.ndarray) -> Attribution:
    heatmap, missed = integrated_gradients(score)
    return Attribution(heatmap, missed=missed)


METHOD = Method(
    explain=_explain,
    title="integrated gradients",
    needs="pixels",
    heads="gradient",
    unit="logit",
    shares=True,
    noisy=True,
    slow=True,
)
