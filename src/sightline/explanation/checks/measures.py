"""Whether heat can be believed, in numbers: the answer when hot cells are covered, the map under other weights and under noise.

Everything here is arrays and a callable that asks the real classifier. `verdict` puts the numbers into words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.evaluation import wilson
from sightline.explanation.feature_map import overlap
from sightline.store import stream

Answer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Images uint8 (n, h, w, 3), targets int64 (n,) → the target's probability float64 (n,), as the classifier itself gives it."""

MOST_CELLS_A_SIDE = 14
"""Cells that are covered one after the other; finer heat is added up over blocks, so that every method is asked the same."""
SHARES = (0.02, 0.1, 0.3, 0.7, 0.9, 0.98)
"""Shares of cells covered at which the classifier is asked: dense where one hot cell decides, the same from either end."""
CERTAIN = 1e-4
"""Log odds are cut at this probability and at 1 less it: beyond, certainty has no degrees that mean anything."""
LEVEL = 0.05
"""One-sided p below which an order of cells is called better than another."""
RANDOM_ORDERS = 48
"""Random orders in all, shared among the images: how far chance reaches is estimated from them."""
ORDERS_AT_ONCE, MOST_ORDERS = 18, 72
"""Random orders of one image, or of few images, are drawn so many at once, until p is clearly on one side of `LEVEL`."""
NOISE = 4.0
"""Standard deviation of the noise that heat must survive, in grey levels of 255: what a camera adds in a dim room."""
FEW = 6
"""With fewer images a rank test cannot reach the level: the order is then held against random orders, one by one."""
_MOST_COMBINED = 4_000_000
"""Combinations of the random orders of several images that are held in memory at once."""
BLUR = 0.12
"""Standard deviation of the blur that covers a cell, as a share of the image's shorter side."""


@dataclass(frozen=True, slots=True)
class Areas:
    """What covering cells in an order did to the answer of each image.

    Args:
        deletion: float64 (n,), the mean probability left while cells are covered, the first of the order first; low is good.
        insertion: float64 (n,), the mean probability while cells of a covered image are shown again, in the same order.
        gain: float64 (n,), insertion less deletion in log odds, which tests compare: of a sure answer half may be covered
            before its probability moves. Over random orders its expectation is 0, whatever the classifier.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    gain: np.ndarray

    def row(self, i: int) -> dict[str, float]:
        """One image's, as JSON."""
        return {name: float(getattr(self, name)[i]) for name in ("deletion", "insertion", "gain")}


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Deletion and insertion in the order of the heat, at random, and in the order of an edge filter.

    Args:
        heat, random, edges: Of the same n images.
        chance: float64 (n, r), gains of r random orders of each image; the reverse of each would gain as much less.
    """

    heat: Areas
    random: Areas
    edges: Areas
    chance: np.ndarray


def blocks(heat: np.ndarray, most: int = MOST_CELLS_A_SIDE) -> np.ndarray:
    """Heat (h, w) as means over equal blocks, at most `most` a side, float64."""
    down, across = overlap(heat.shape[0], most), overlap(heat.shape[1], most)
    down, across = down / down.sum(axis=1, keepdims=True), across / across.sum(axis=1, keepdims=True)
    return np.asarray(down @ heat.astype(np.float64) @ across.T)


def edge_heat(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What an edge filter gives for heat: it knows the photograph, and nothing of any classifier.

    Args:
        images: uint8 (n, h, w, 3).
        size: (rows, columns) of the cells.

    Returns:
        float64 (n, rows, columns), the mean length of the grey image's gradient in each cell.
    """
    grey = images.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    down, across = np.zeros_like(grey), np.zeros_like(grey)
    down[:, 1:-1] = (grey[:, 2:] - grey[:, :-2]) / 2
    across[:, :, 1:-1] = (grey[:, :, 2:] - grey[:, :, :-2]) / 2
    length = np.hypot(down, across)
    down_to, across_to = (np.eye(cells)[:, _cell_of(side, cells)] for side, cells in zip(length.shape[1:], size, strict=True))
    summed = down_to @ length @ across_to.T
    return np.asarray(summed / np.maximum(np.outer(down_to.sum(axis=1), across_to.sum(axis=1)), 1))


def _cell_of(pixels: int, cells: int) -> np.ndarray:
    """int64 (pixels,): the cell that each pixel of a side lies in."""
    return (np.arange(pixels) * cells) // pixels


def covered(images: np.ndarray) -> np.ndarray:
    """What a covered cell shows: the image itself, blurred until no shape is left.

    A grey or black patch has edges and a colour that no photograph of the training set had, and networks answer to those; blur
    keeps the place's colour and light, and takes its detail. So a classifier that goes by colour alone changes little, and its
    heat is judged weak rather than good.

    Args:
        images: uint8 (n, h, w, 3).

    Returns:
        uint8 (n, h, w, 3).
    """
    from PIL import Image, ImageFilter

    blur = ImageFilter.GaussianBlur(BLUR * min(images.shape[1:3]))
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images])


def faithfulness(
    answer: Answer,
    images: np.ndarray,
    targets: np.ndarray,
    heats: Sequence[np.ndarray],
    seed: int,
    proceed: Callable[[], bool] = lambda: True,
) -> Faithfulness:
    """Deletion and insertion through the classifier itself, against chance and against the photograph's own edges.

    Insertion in an order is deletion in the reverse order read backwards, so one random order gives two, and the mean gain of
    the two is 0: what chance gives is known exactly, and only how far it scatters is estimated.

    Source: Petsiuk et al., RISE (2018), section 4.2; the edge filter as a baseline after Adebayo et al. (2018).

    Args:
        answer: The classifier.
        images: uint8 (n, h, w, 3).
        targets: int64 (n,).
        heats: n heats over the whole image; of any size.
        seed: Of the random orders.
        proceed: Asked before each image but the first; where it returns False, the result is of the images before.
    """
    cells = [blocks(h) for h in heats]
    neutral = covered(images)
    per_image = max(1, -(-(RANDOM_ORDERS if len(images) >= FEW else ORDERS_AT_ONCE) // len(images)))
    by_heat, by_edges, by_chance, gains = [], [], [], []
    for i, heat in enumerate(cells):
        if i and not proceed():
            break
        edges = edge_heat(images[i : i + 1], (heat.shape[0], heat.shape[1]))[0]
        draws = [stream(seed, "order of cells", i, r).permutation(heat.size) for r in range(per_image)]
        orders = [_descending(heat), _descending(edges), *draws]
        found = _areas(answer, images[i], neutral[i], int(targets[i]), orders, (heat.shape[0], heat.shape[1]))
        by_heat.append(found[0])
        by_edges.append(found[1])
        both = found[2:]
        middle = float(np.mean([(d + a) / 2 for d, a, _ in both]))
        by_chance.append((middle, middle, 0.0))
        gains.append([gain for _, _, gain in both])
    n, total = len(gains), float(sum(gain for _, _, gain in by_heat))
    while (
        n < FEW
        and n * len(gains[0]) < MOST_ORDERS
        and (2 * (len(gains[0]) + per_image)) ** n < _MOST_COMBINED
        and unclear(np.array(gains).sum(axis=0), total)
        and proceed()
    ):
        for i, heat in enumerate(cells[:n]):
            drawn = range(len(gains[i]), len(gains[i]) + per_image)
            draws = [stream(seed, "order of cells", i, r).permutation(heat.size) for r in drawn]
            found = _areas(answer, images[i], neutral[i], int(targets[i]), draws, (heat.shape[0], heat.shape[1]))
            gains[i] += [gain for _, _, gain in found]
    return Faithfulness(_stack(by_heat), _stack(by_chance), _stack(by_edges), np.array(gains))


def unclear(chance: np.ndarray, gain: float) -> bool:
    """Return whether so many random orders leave open on which side of `LEVEL` the p of a gain lies, 95 % interval.

    Args:
        chance: float64 (r,), gains of random orders; those of the reversed orders are the same with the sign turned.
        gain: The gain in question.
    """
    low, high = _interval(chance, gain)
    return low <= 2 * LEVEL <= high


def beats(chance: np.ndarray, gain: float) -> bool:
    """Return whether a gain is clearly above those of random orders; the arguments as of `unclear`."""
    return gain > 0 and _interval(chance, gain)[1] < 2 * LEVEL


def _interval(chance: np.ndarray, gain: float) -> tuple[float, float]:
    """95 % interval of the share of random orders whose gain is at least as far from 0: twice the one-sided p."""
    return wilson(int((np.abs(chance) >= abs(gain)).sum()), chance.size)


def random_gains(
    answer: Answer,
    image: np.ndarray,
    target: int,
    heat: np.ndarray,
    gain: float,
    seed: int,
    most: int = MOST_ORDERS,
    proceed: Callable[[], bool] = lambda: True,
) -> np.ndarray:
    """Return the gains of random orders of one image's cells, float64 (r,), until the p of its own order is clear.

    Args:
        answer: The classifier.
        image: uint8 (h, w, 3).
        target: The class index.
        heat: float (a, b), whose cells are ordered.
        gain: Of the order of the heat.
        seed: Of the orders, which are a function of it and of the image.
        most: No more orders than this are drawn, rounded up to a multiple of `ORDERS_AT_ONCE`.
        proceed: Asked before further orders are drawn; where it returns False, those so far have to do.
    """
    cells, neutral = blocks(heat), covered(image[None])[0]
    key = hashlib.sha256(image.tobytes()).hexdigest()
    gains: list[float] = []
    while not gains or (len(gains) < most and unclear(np.array(gains), gain) and proceed()):
        drawn = range(len(gains), len(gains) + ORDERS_AT_ONCE)
        draws = [stream(seed, "orders of a picture", key, r).permutation(cells.size) for r in drawn]
        gains += [g for _, _, g in _areas(answer, image, neutral, target, draws, (cells.shape[0], cells.shape[1]))]
    return np.array(gains)


def own_orders(answer: Answer, images: np.ndarray, targets: np.ndarray, heats: Sequence[np.ndarray]) -> Areas:
    """What each image's own order does, as `faithfulness` has it in `heat`, and nothing else; the arguments as there."""
    found = []
    for image, target, heat in zip(images, targets, heats, strict=True):
        cells, neutral = blocks(heat), covered(image[None])[0]
        size = (cells.shape[0], cells.shape[1])
        found += _areas(answer, image, neutral, int(target), [_descending(cells)], size)
    return _stack(found)


def _descending(cells: np.ndarray) -> np.ndarray:
    """The order of cells (row by row) from the hottest on; equals in the order in which they lie."""
    return np.argsort(-cells.ravel(), kind="stable")


def _stack(rows: Sequence[tuple[float, float, float]]) -> Areas:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Areas(table[:, 0], table[:, 1], table[:, 2])


def _areas(
    answer: Answer, image: np.ndarray, neutral: np.ndarray, target: int, orders: Sequence[np.ndarray], size: tuple[int, int]
) -> list[tuple[float, float, float]]:
    """(deletion, insertion, gain) of one image for each order of its cells."""
    total = size[0] * size[1]
    counts = np.unique([max(1, min(total - 1, round(share * total))) for share in SHARES])
    rows, columns = _cell_of(image.shape[0], size[0]), _cell_of(image.shape[1], size[1])
    pictures = [image, neutral]
    for order in orders:
        rank = np.empty(total, dtype=np.int64)
        rank[order] = np.arange(total)
        at = rank.reshape(size)[rows][:, columns, None]
        pictures += [np.where(at < c, neutral, image) for c in counts]
        pictures += [np.where(at < c, image, neutral) for c in counts]
    said = answer(np.stack(pictures), np.full(len(pictures), target))
    whole, none, rest = said[0], said[1], said[2:].reshape(len(orders), 2, len(counts))
    at_share = np.concatenate([[0], counts, [total]]) / total
    found = []
    for deleted, inserted in rest:
        down, up = np.concatenate([[whole], deleted, [none]]), np.concatenate([[none], inserted, [whole]])
        gain = float(np.trapezoid(log_odds(up) - log_odds(down), at_share))
        found.append((float(np.trapezoid(down, at_share)), float(np.trapezoid(up, at_share)), gain))
    return found


def log_odds(probs: np.ndarray) -> np.ndarray:
    """Return log odds of probabilities, which are cut at `CERTAIN` and 1 less it."""
    cut = np.clip(probs, CERTAIN, 1 - CERTAIN)
    return np.asarray(np.log(cut) - np.log1p(-cut))


def likeness(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """float64 (n,): Spearman's rank correlation between pairs of heats, over cells; 0 where one is the same everywhere.

    Example:
        >>> likeness([np.array([[1.0, 2.0, 3.0]])], [np.array([[10.0, 20.0, 90.0]])]).tolist()
        [1.0]
    """
    return np.array([_spearman(blocks(x).ravel(), blocks(y).ravel()) for x, y in zip(a, b, strict=True)])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    if a.size != b.size or not np.isfinite(a).all() or not np.isfinite(b).all():
        return 0.0
    x, y = rankdata(a) - (a.size + 1) / 2, rankdata(b) - (b.size + 1) / 2
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length > 0 else 0.0


def noisy(images: np.ndarray, seed: int) -> np.ndarray:
    """Images uint8 with the noise of a camera: normal, `NOISE` grey levels, independent in every pixel and channel."""
    drawn = [stream(seed, "noise", i).normal(0.0, NOISE, images.shape[1:]) for i in range(len(images))]
    return np.asarray(np.clip(np.rint(images + np.stack(drawn)), 0, 255), dtype=np.uint8)


def completeness(total: np.ndarray, expected: np.ndarray) -> float:
    """How far heats that promise to add up to a difference of scores miss it: the median over images of the relative error.

    Args:
        total: float (n,), the sums of the heats.
        expected: float (n,), score of the image less score of the method's baseline.

    Example:
        >>> completeness(np.array([1.01, -2.0]), np.array([1.0, -2.0])) < 0.01
        True
    """
    scale = np.maximum(np.abs(expected), 1e-6 + 0.01 * float(np.abs(expected).max(initial=0.0)))
    return float(np.median(np.abs(total - expected) / scale))


def pointing(peaks: Sequence[tuple[int, int]], boxes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """bool (n,): whether the peak (row, column) lies in the box (x, y, width, height), all in pixels of the upright original.

    Source: Zhang et al., Top-down Neural Attention by Excitation Backprop (2016), the pointing game, without a margin.

    Example:
        >>> pointing([(5, 5), (5, 50)], [(0, 0, 10, 10), (0, 0, 10, 10)]).tolist()
        [True, False]
    """
    hits = [x <= column < x + w and y <= row < y + h for (row, column), (x, y, w, h) in zip(peaks, boxes, strict=True)]
    return np.array(hits, dtype=bool)
