"""Which method explains which classifier, and the verb that explains images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sightline import heads
from sightline.errors import RequestError, SightlineError, unknown
from sightline.explanation.gradcam import contrast, contribution, gradcam_linear, gradcam_tail
from sightline.explanation.maps import IMAGE_SIDE, MapSession, grid_size, sum_blocks, to_grid
from sightline.explanation.masks import cell_masks
from sightline.records import Explanation, Head, Progress, silent

_BATCH = 16
_SURE = math.log(999)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explained: a network, a head, one of its classes.

    Args:
        session: The network.
        head: What turns its features into logits.
        target: The class index.
        seed: Of whatever the method draws.
    """

    session: MapSession
    head: Head
    target: int
    seed: int

    @property
    def mean_features(self) -> np.ndarray | None:
        """float32 (d,): the mean of the training images' features, where the head keeps it."""
        return self.head.arrays.get("feature_mean")

    def score(self) -> tuple[np.ndarray, float]:
        """What is explained, the target's logit minus the mean of the others': weights float32 (d,) on the features, and bias.

        Raises:
            RequestError: The head is not linear.
        """
        found = heads.linear(self.head)
        if found is None:
            hint = "use --method masks, which explains any head"
            raise RequestError(f"a head of kind {self.head.kind!r} has no gradient in closed form", hint)
        weights, bias = found
        return contrast(weights, self.target), float(contrast(bias[:, None], self.target)[0])


def explain_gradcam(subject: Subject, last: np.ndarray) -> tuple[np.ndarray, float]:
    """Grad-CAM: closed form where the tail is a mean (measured, not listed), else through the tail alone.

    In closed form the heat adds up to the score but its bias, so a cell is undecided where it makes up for its share of that
    bias. Without this the pictures of one class would be all warm and those of another empty: of 100 cats and dogs 42
    had no cold cell at all, with it 21.
    """
    session = subject.session
    weights, bias = subject.score()
    if not session.tail_is_mean:
        return gradcam_tail(session, last, weights), 0.0
    heat = gradcam_linear(to_grid(last, session.backbone)[0], weights)
    return heat, -bias / heat.size


def explain_contribution(subject: Subject, last: np.ndarray) -> tuple[np.ndarray, float]:
    """Each place's exact share of the score, for features that are the map itself."""
    session = subject.session
    if session.backbone.pool != "flatten":
        hint = 'use --method gradcam, or train with pool = "flatten"'
        raise RequestError("shares of places are defined where the features are the map itself, unpooled", hint)
    weights = subject.score()[0].reshape(1, *last.shape[1:])
    mean = subject.mean_features
    reference = np.zeros_like(last) if mean is None else np.asarray(mean, dtype=np.float32).reshape(last.shape)
    heat = contribution(last, weights, reference, session.backbone)
    return (sum_blocks(heat, IMAGE_SIDE) if session.backbone.source == "pixels" else heat), 0.0


def explain_masks(subject: Subject, last: np.ndarray) -> tuple[np.ndarray, float]:
    """Random cell masks and a ridge over the log odds of the head's answers."""

    def answer(features: np.ndarray) -> np.ndarray:
        return log_odds(heads.logits(subject.head, features), subject.target)

    return cell_masks(subject.session, last, answer, subject.seed, mean=subject.mean_features), 0.0


def log_odds(logits: np.ndarray, target: int) -> np.ndarray:
    """How sure answers are of a class, without the ceiling that a probability has: of a sure one half may be hidden unnoticed.

    Args:
        logits: float64 (m, k). Heads that count votes give log probabilities, whose certainty has no degrees: of these the
            log odds are cut at those of 0.1 % and 99.9 %.
        target: The class index.

    Returns:
        float64 (m,).

    Example:
        >>> log_odds(np.array([[2.0, -1.0], [0.0, 30.0]]), 1).tolist()
        [-3.0, 30.0]
    """
    odds = np.asarray(logits[:, target] - np.logaddexp.reduce(np.delete(logits, target, axis=1), axis=1))
    counted = bool(np.abs(np.logaddexp.reduce(logits, axis=1)).max() < 0.1)
    return np.clip(odds, -_SURE, _SURE) if counted else odds


def choose_method(session: MapSession, head: Head) -> str:
    """The method that `auto` means: exact where the head is linear, random masks for any other."""
    if heads.linear(head) is None:
        return "masks"
    return "contribution" if session.backbone.pool == "flatten" else "gradcam"


def layer(session: MapSession) -> str:
    """Where the map is taken, in words."""
    channels, height, width = grid_size(session.backbone)
    if session.backbone.source == "pixels":
        return f"the image itself, {height}×{width}"
    where = "input of the last block" if session.backbone.layout == "tokens" else "last map"
    return f"{where}, {channels} channels of {height}×{width}"


def explain(
    session: MapSession,
    head: Head,
    images: np.ndarray,
    paths: Sequence[str],
    targets: Sequence[int],
    classes: Sequence[str],
    boxes: Sequence[tuple[float, float, float, float]],
    *,
    method: str = "auto",
    seed: int = 0,
    maps: np.ndarray | None = None,
    progress: Progress = silent,
) -> list[Explanation]:
    """Where the classifier looked, for each image and the class that is asked about.

    Args:
        session: The network.
        head: The head on its features.
        images: uint8 (n, height, width, 3), as `pixels.decode` gives them; not looked at where `maps` is given.
        paths: n names.
        targets: n class indices.
        classes: k names.
        boxes: n times (top, left, height, width), what the network sees in pixels of the upright original.
        method: A name of `METHODS`, or `auto`.
        seed: Of the random masks.
        maps: The last maps of these images, float32 (n, …), where they are at hand: then nothing goes through the network.
        progress: Told after each image.

    Returns:
        n explanations, raw and signed. An image alone and one in a batch give the same.

    Raises:
        RequestError: An unknown method, a head or backbone that it does not fit, or a target that is no class.
        SightlineError: The network's answer is not finite, so there is nothing to draw.
    """
    if method == "auto":
        method = choose_method(session, head)
    if method not in METHODS:
        raise unknown("method", method, ["auto", *METHODS])
    grid_size(session.backbone)
    found: list[Explanation] = []
    for start in range(0, len(paths), _BATCH):
        part = slice(start, start + _BATCH)
        last = session.run(images[part], maps=True)[1] if maps is None else maps[part]
        assert last is not None
        for path, target, box, one in zip(paths[part], targets[part], boxes[part], last, strict=True):
            if not 0 <= target < len(classes):
                raise RequestError(f"class {target} of {path} is not one of the {len(classes)} classes")
            heat, neutral = METHODS[method](Subject(session, head, target, seed), one[None])
            if not np.isfinite(heat).all():
                raise SightlineError(f"the heat of {path} is not finite", "the weights or the image hold NaN or infinity")
            found.append(Explanation(path, classes[target], method, layer(session), heat, box, neutral))
            progress("explaining", len(found), len(paths))
    return found


METHODS: Mapping[str, Callable[[Subject, np.ndarray], tuple[np.ndarray, float]]] = {
    "gradcam": explain_gradcam,
    "contribution": explain_contribution,
    "masks": explain_masks,
}
