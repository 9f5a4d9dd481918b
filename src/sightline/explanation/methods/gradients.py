"""Attributions to the image's own pixels: gradients of the whole network in float32, and covering of pixels, most by captum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import store
from sightline.errors import RequestError
from sightline.explanation.layers import as_seen, borrowed
from sightline.explanation.score import Score as Subject

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLES = 32
"""Noisy copies that SmoothGrad averages over."""
NOISE = 0.15
"""Their noise: its standard deviation as a share of the range of the image's values."""
POINTS = 16
"""Into how many parts each stretch of the way from the baseline to the image is cut; it is halved where that is too coarse."""
STRETCHES, COARSE = 48, 4
"""Into how many stretches the way is cut at most; and where a map is only compared with another one."""
COMPLETE = 0.01
"""The share of the score's difference that integrated gradients may miss before a stretch is halved."""
CANCELLED = 0.05
"""The share that stretches may miss one by one, as long as they make up for each other."""
WINDOW = 8
"""The covering square's side is the image's divided by this; it moves by half of it."""


def _captum() -> Any:
    """`captum.attr`, which tells of things on import and on use that are none of the user's business."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import captum.attr
    except ImportError as error:
        hint = "pip install captum, or use --method gradcam or --method masks"
        raise RequestError("this method needs the package captum, which is not installed", hint) from error
    return captum.attr


def score_module(subject: Subject, network: Any) -> nn.Module:
    """Normalised images (n, 3, h, w) → the score that is explained (n,), in torch from end to end.

    Raises:
        RequestError: The head has no gradient.
    """
    import torch
    from torch import nn

    layers = [(torch.from_numpy(np.array(w)).float(), torch.from_numpy(np.array(b)).float()) for w, b in subject.layers()]
    parts = torch.from_numpy(subject.coefficients()).float()

    class Score(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)  # about twice as fast on a CPU
            value = network.tail(network.map(x)).float()
            for number, (weights, bias) in enumerate(layers):
                value = torch.relu(value) if number else value
                value = torch.nn.functional.linear(value, weights.to(value.device), bias.to(value.device))
            return torch.mv(value, parts.to(value.device))

    return Score().eval()


@contextmanager
def _asked(subject: Subject) -> Iterator[tuple[Any, nn.Module, Tensor]]:
    """captum, the score, and the image as the network takes it; the network is left as it was."""
    attr, image = _captum(), subject.pixels
    network = torch_network(subject)
    with borrowed(network), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = score_module(subject, network)
        yield attr, score, as_seen(image[None], subject.session.backbone, network).requires_grad_(True)


def torch_network(subject: Subject) -> Any:
    """The network of a subject in torch; for `pixels` the image itself."""
    if subject.session.backbone.source == "pixels":
        from sightline.networks.network import Pixels

        return Pixels().eval()
    return subject.session.network()


def _numbers(values: Tensor) -> np.ndarray:
    """float32 (c, h, w) of one image."""
    return np.asarray(values.detach()[0].float().cpu().numpy())


def saliency(subject: Subject) -> np.ndarray:
    """How much the score moves when a pixel does: the largest |∂score/∂x| of its three channels, float32 (h, w).

    Source: Simonyan et al., Deep Inside Convolutional Networks (2013), section 3.1.
    """
    with _asked(subject) as (attr, score, x):
        return np.asarray(np.abs(_numbers(attr.Saliency(score).attribute(x, abs=False))).max(axis=0))


def gradient_input(subject: Subject) -> np.ndarray:
    """Gradient × input, summed over channels, float32 (h, w); the input counts from the mean colour, the network's zero.

    Source: Shrikumar et al., Not Just a Black Box (2016).
    """
    with _asked(subject) as (attr, score, x):
        return np.asarray(_numbers(attr.InputXGradient(score).attribute(x)).sum(axis=0))


def smoothgrad(subject: Subject) -> np.ndarray:
    """The gradient's mean over noisy copies, then the largest absolute value of the three channels, float32 (h, w).

    The noise depends on the seed alone: an image explained by itself and one in a batch get the same heat.

    Source: Smilkov et al., SmoothGrad (2017), eq. 1, with its noise level of 15 %.
    """
    import torch

    with _asked(subject) as (attr, score, x):
        drawn = int(store.stream(subject.seed, "explanation smoothgrad").integers(2**62))
        spread = NOISE * float((x.max() - x.min()).detach())
        total = torch.zeros_like(x)
        generator = torch.Generator().manual_seed(drawn)
        for _ in range(SAMPLES):
            noise = torch.randn(x.shape, generator=generator).to(x.device)
            noisy = (x.detach() + spread * noise).requires_grad_(True)
            total += attr.Saliency(score).attribute(noisy, abs=False).detach()
        return np.asarray(np.abs(_numbers(total / SAMPLES)).max(axis=0))


def integrated_gradients(subject: Subject) -> tuple[np.ndarray, float]:
    """Gradients collected on the straight way from a baseline to the image, times that way, summed over channels.

    The baseline is the mean colour, the network's zero (black where the image itself is the network). The heat adds up to the
    score's difference between image and baseline. A stretch of the way that misses its own difference most is halved, until all
    together miss no more than `COMPLETE` of the whole, and one by one than `CANCELLED`: a layer norm turns most of the score
    within a thousandth of the way from an even colour, where points at even distances miss all of it. The trapezoidal rule
    lets both halves keep the points of the whole.

    Source: Sundararajan et al., Axiomatic Attribution for Deep Networks (2017), eq. 1.

    Returns:
        float32 (h, w), and the share of the score's difference that it misses.
    """
    import torch

    with _asked(subject) as (_, score, x):
        way = x.detach()

        def at(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Scores (m,), and gradient times way float32 (m, h, w)."""
            here = torch.as_tensor(shares, dtype=way.dtype, device=way.device).reshape(-1, 1, 1, 1) * way
            here.requires_grad_(True)
            said = score(here)
            slopes = (torch.autograd.grad(said.sum(), here)[0] * way).sum(dim=1)
            return said.detach().double().cpu().numpy(), slopes.float().cpu().numpy()

        shares = np.linspace(0.0, 1.0, POINTS + 1)
        parts = [_Stretch(shares, *at(shares))]
        change = parts[0].change
        while len(parts) < (COARSE if subject.coarse else STRETCHES) and not _complete(parts, abs(change)):
            worst = parts.pop(max(range(len(parts)), key=lambda i: abs(parts[i].missed)))
            between = (worst.shares[:-1] + worst.shares[1:]) / 2
            parts += worst.halves(between, *at(between))
        total = np.sum([p.heat() for p in parts], axis=0)
        missed = abs(float(total.sum()) - change)
        return total.astype(np.float32), missed / abs(change) if change else float(missed > 0)


def _complete(parts: Sequence[_Stretch], change: float) -> bool:
    """Whether stretches together miss little of the score's change, and not only because large misses cancel."""
    missed = [p.missed for p in parts]
    return abs(sum(missed)) <= COMPLETE * change and sum(map(abs, missed)) <= CANCELLED * change


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Integrated gradients over one stretch of the way.

    Args:
        shares: float64 (m,), places from its beginning to its end, as shares of the way.
        scores: float64 (m,), there.
        slopes: float32 (m, h, w), the gradient there times the way.
    """

    shares: np.ndarray
    scores: np.ndarray
    slopes: np.ndarray

    @property
    def change(self) -> float:
        """The score's difference over it."""
        return float(self.scores[-1] - self.scores[0])

    @property
    def missed(self) -> float:
        """Its heat less the score's difference."""
        return float(np.trapezoid(self.slopes.sum(axis=(1, 2), dtype=np.float64), self.shares)) - self.change

    def heat(self) -> np.ndarray:
        """float64 (h, w)."""
        return np.asarray(np.trapezoid(self.slopes.astype(np.float64), self.shares, axis=0))

    def halves(self, between: np.ndarray, scores: np.ndarray, slopes: np.ndarray) -> tuple[_Stretch, _Stretch]:
        """Its two halves, with as many parts each: its own places, and one between any two of them."""
        order = np.argsort(np.concatenate([self.shares, between]), kind="stable")
        mine, new = (self.shares, self.scores, self.slopes), (between, scores, slopes)
        merged = [np.concatenate([a, b])[order] for a, b in zip(mine, new, strict=True)]
        middle = len(between)
        return _Stretch(*(m[: middle + 1] for m in merged)), _Stretch(*(m[middle:] for m in merged))


def occlusion(subject: Subject) -> np.ndarray:
    """How much a square of mean colour lowers the answer where it lies; each pixel has the mean of the squares that cover it.

    All three channels are covered at once. It asks the classifier as it is used, so any head will do.

    Source: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks (2013), section 4.2.

    Returns:
        float32 (h, w), in log odds.
    """
    import torch

    attr, session, image = _captum(), subject.session, subject.pixels
    height, width = image.shape[:2]
    sides = (max(height // WINDOW, 1), max(width // WINDOW, 1))
    steps = (max(sides[0] // 2, 1), max(sides[1] // 2, 1))
    mean = (0.0,) * 3 if session.backbone.source == "pixels" else session.backbone.preprocess.mean
    cover = torch.tensor([round(255 * m) for m in mean], dtype=torch.float32).reshape(1, 3, 1, 1)

    def answer(values: Tensor) -> Tensor:
        shown = values.permute(0, 2, 3, 1).to(torch.uint8).numpy()
        return torch.from_numpy(subject.answer(session.run(shown)[0]))

    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = attr.Occlusion(answer).attribute(
            x, (3, *sides), strides=(3, *steps), baselines=cover.expand_as(x), perturbations_per_eval=16
        )
    return np.asarray(found[0, 0].float().numpy())
