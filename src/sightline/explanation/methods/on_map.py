"""The methods that explain on a map: from what is asked about and the map to the heat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sightline import heads
from sightline.errors import RequestError
from sightline.explanation.feature_map import IMAGE_SIDE, grid_size, sum_blocks, to_grid
from sightline.explanation.layers import AtLayer
from sightline.explanation.methods import gradcam as form
from sightline.explanation.methods.activation import energy_map
from sightline.explanation.methods.masks import cell_masks
from sightline.explanation.score import Score

_CANCELLED = 1e-3
"""Up to this share of what is added up, a sum is taken for rounding and for LayerNorm's epsilon."""


@dataclass(frozen=True, slots=True)
class Heat:
    """What a method gives for one image.

    Args:
        values: float32 (h, w), raw.
        neutral: The value of a cell that speaks neither for nor against the target.
        missed: For integrated gradients: the share of the score's difference that the heat does not add up to.
    """

    values: np.ndarray
    neutral: float = 0.0
    missed: float | None = None


def _plane(subject: Score, last: np.ndarray) -> tuple[np.ndarray, float]:
    """The score as a plane over the features: float32 (d,) and the rest; where it is curved, the one at this image."""
    if heads.linear(subject.head) is not None:
        return subject.direction(np.zeros(len(subject.head.arrays["weights"][0]), dtype=np.float32))
    return subject.direction(subject.session.tail(last)[0])


def _gradient(subject: Score, last: np.ndarray) -> tuple[np.ndarray, float]:
    """The score's gradient on the grid, float32 (c, h, w): closed form where the tail is a mean, else through the tail alone;
    and the heat of an undecided cell for methods whose heat adds up to the score."""
    session = subject.session
    direction, rest = _plane(subject, last)
    if not session.tail_is_mean:
        return to_grid(session.tail_gradient(last, direction), session.backbone)[0], 0.0
    channels, height, width = grid_size(session.backbone)
    cells = height * width
    return np.broadcast_to((direction / np.float32(cells))[:, None, None], (channels, height, width)), -rest / cells


def gradcam(subject: Score, last: np.ndarray) -> Heat:
    """Grad-CAM: closed form where the tail is a mean (measured, not listed), else through the tail alone.

    In closed form the heat adds up to the score but its bias, so a cell is undecided where it makes up for its share of that
    bias. Without this the pictures of one class would be all warm and those of another empty: of 100 cats and dogs 42
    had no cold cell at all, with it 21.
    """
    session = subject.session
    direction, rest = _plane(subject, last)
    if not session.tail_is_mean:
        return Heat(form.gradcam_tail(session, last, direction))
    heat = form.gradcam_linear(to_grid(last, session.backbone)[0], direction)
    return Heat(heat, -rest / heat.size)


def gradcam_plus_plus(subject: Score, last: np.ndarray) -> Heat:
    """Grad-CAM++ on the same map and gradient."""
    grid = to_grid(last, subject.session.backbone)[0]
    return Heat(form.gradcam_plus_plus(grid, _gradient(subject, last)[0]))


def cancels(subject: Score, last: np.ndarray) -> bool:
    """Whether gradient × map adds up to nothing over the channels of each place, but for rounding.

    So it is of a transformer's patches where all that reads them is a LayerNorm: it gives the same for patches of any size, and
    then the slope along a patch is 0 (Euler's theorem on homogeneous functions).
    """
    shares = to_grid(last, subject.session.backbone)[0] * _gradient(subject, last)[0]
    return bool(np.abs(shares.sum(axis=0)).max() <= _CANCELLED * np.abs(shares).sum(axis=0).max())


def hirescam(subject: Score, last: np.ndarray) -> Heat:
    """HiResCAM on the same map and gradient; a transformer's patches are taken behind their LayerNorm, see `cancels`."""
    gradient, neutral = _gradient(subject, last)
    return Heat(form.hirescam(to_grid(last, subject.session.backbone)[0], gradient), neutral)


def patches(subject: Score, last: np.ndarray) -> Heat:
    """A transformer's last patches that are read (at the input of its last block), against their mean.

    Raises:
        RequestError: The map does not consist of tokens.
    """
    backbone = subject.session.backbone
    if backbone.layout != "tokens":
        raise RequestError(f"{backbone.name} has no patch tokens: it is no transformer", "use --method gradcam or hirescam")
    return Heat(form.patch_map(to_grid(last, backbone)[0], _gradient(subject, last)[0]))


def contribution(subject: Score, last: np.ndarray) -> Heat:
    """Each place's exact share of the score, for features that are the map itself.

    Raises:
        RequestError: They are not.
    """
    session = subject.session
    if session.backbone.pool != "flatten" or subject.session.tail(last).size != last.size:
        hint = 'use --method gradcam, or train with pool = "flatten"'
        raise RequestError("shares of places are defined where the features are the map itself, unpooled", hint)
    if heads.linear(subject.head) is None:
        hint = "use --method masks, which explains any head"
        raise RequestError(f"exact shares are defined for linear heads, not for one of kind {subject.head.kind!r}", hint)
    weights = _plane(subject, last)[0].reshape(1, *last.shape[1:])
    mean = subject.mean_features
    reference = np.zeros_like(last) if mean is None else np.asarray(mean, dtype=np.float32).reshape(last.shape)
    heat = form.contribution(last, weights, reference, session.backbone)
    return Heat(sum_blocks(heat, IMAGE_SIDE) if session.backbone.source == "pixels" else heat)


def masks(subject: Score, last: np.ndarray) -> Heat:
    """Random cell masks and a ridge over what the head answers."""
    session = subject.session
    # The head's mean is that of features: at an inner layer it is another map's, even where it is as long.
    known = None if isinstance(session, AtLayer) and not session.tail_is_mean else subject.mean_features
    return Heat(cell_masks(session, last, subject.answer, subject.seed, mean=known))


def activation(subject: Score, last: np.ndarray) -> Heat:
    """How strongly each place of the map answers, whatever the class."""
    return Heat(energy_map(to_grid(last, subject.session.backbone)[0]))
