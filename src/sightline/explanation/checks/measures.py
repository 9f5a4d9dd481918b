"""Measures of heatmaps: the effect of covering cells, and similarity under other weights and noise.

Everything here is arrays and a callable that runs the classifier. `verdict` puts the numbers into words.
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
"""Images uint8 (n, h, w, 3), targets int64 (n,) → the target's probability float64 (n,), as the classifier predicts it."""

MOST_CELLS_A_SIDE = 14
"""Maximum number of cells per side; finer heatmaps are averaged over blocks, so that all methods are tested alike."""
SHARES = (0.02, 0.1, 0.3, 0.7, 0.9, 0.98)
"""Shares of cells covered: dense at both ends, where a single high-attribution cell matters."""
CERTAIN = 1e-4
"""Probabilities are clipped to [CERTAIN, 1 - CERTAIN] for log odds: differences beyond are meaningless."""
LEVEL = 0.05
"""One-sided p-value below which an order of cells counts as better than another."""
RANDOM_ORDERS = 48
"""Number of random orders in all, shared among the images, from which the scatter of gains is estimated."""
ORDERS_AT_ONCE, MOST_ORDERS = 18, 72
"""Number of random orders drawn at once, and at most, for one image or few, until p is clearly on one side of `LEVEL`."""
NOISE = 4.0
"""Standard deviation of the noise in grey levels of 255: that of a camera in a dim room."""
FEW = 6
"""With fewer images a rank test cannot reach the level: the order is then compared with random orders."""
_MOST_COMBINED = 4_000_000
"""Maximum number of combinations of random orders of several images in memory at once."""
BLUR = 0.12
"""Standard deviation of the blur that covers a cell, as a share of the image's shorter side."""


@dataclass(frozen=True, slots=True)
class Areas:
    """The effect of covering cells in an order on the prediction of each image.

    Args:
        deletion: float64 (n,), the mean probability while cells are covered in order; low is good.
        insertion: float64 (n,), the mean probability while cells of a covered image are shown in the same order.
        gain: float64 (n,), insertion minus deletion in log odds, for tests: half of a confident image may be covered before its
            probability changes. Its expectation over random orders is 0 for any classifier.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    gain: np.ndarray

    def row(self, i: int) -> dict[str, float]:
        """Return the values of one image, as JSON."""
        return {name: float(getattr(self, name)[i]) for name in ("deletion", "insertion", "gain")}


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Deletion and insertion in the order of the heatmap, at random, and in the order of an edge filter.

    Args:
        heat, random, edges: For the same n images.
        chance: float64 (n, r), gains of r random orders of each image; each reversed order has the negative gain.
    """

    heat: Areas
    random: Areas
    edges: Areas
    chance: np.ndarray


def blocks(heatmap: np.ndarray, most: int = MOST_CELLS_A_SIDE) -> np.ndarray:
    """Return means of a heatmap (h, w) over equal blocks, at most `most` per side, float64."""
    down, across = overlap(heatmap.shape[0], most), overlap(heatmap.shape[1], most)
    down, across = down / down.sum(axis=1, keepdims=True), across / across.sum(axis=1, keepdims=True)
    return np.asarray(down @ heatmap.astype(np.float64) @ across.T)


def edge_heat(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the response of an edge filter as a heatmap: it depends on the photograph and on no classifier.

    Args:
        images: uint8 (n, h, w, 3).
        size: (rows, columns) of the cells.

    Returns:
        float64 (n, rows, columns), the mean gradient magnitude of the grey image in each cell.
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
    """Return the cell of each pixel of a side, int64 (pixels,)."""
    return (np.arange(pixels) * cells) // pixels


def covered(images: np.ndarray) -> np.ndarray:
    """Return what covered cells show: the image blurred until no shape is left.

    A grey or black patch has edges and a colour that no training photograph had, and networks respond to those; blur keeps the
    colour and brightness of a place and removes its detail. A classifier that uses colour only changes little, and its heatmap
    is judged weak rather than good.

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
    """Return deletion and insertion through the classifier itself, for the heatmap, random orders and the photograph's edges.

    Insertion in an order is deletion in the reverse order read backwards, so one random order gives two, and the mean gain of
    the
    two is 0: the expected gain at random is known exactly, and only its scatter is estimated.

    Source: Petsiuk et al., RISE (2018), section 4.2; the edge filter as a baseline after Adebayo et al. (2018).

    Args:
        answer: The classifier.
        images: uint8 (n, h, w, 3).
        targets: int64 (n,).
        heats: n heatmaps over the whole image; of any size.
        seed: Seed of the random orders.
        proceed: Called before each image but the first; if it returns False, the result covers the images so far.
    """
    cells = [blocks(h) for h in heats]
    neutral = covered(images)
    per_image = max(1, -(-(RANDOM_ORDERS if len(images) >= FEW else ORDERS_AT_ONCE) // len(images)))
    by_heat, by_edges, by_chance, gains = [], [], [], []
    for i, heatmap in enumerate(cells):
        if i and not proceed():
            break
        edges = edge_heat(images[i : i + 1], (heatmap.shape[0], heatmap.shape[1]))[0]
        draws = [stream(seed, "order of cells", i, r).permutation(heatmap.size) for r in range(per_image)]
        orders = [_descending(heatmap), _descending(edges), *draws]
        areas = _areas(answer, images[i], neutral[i], int(targets[i]), orders, (heatmap.shape[0], heatmap.shape[1]))
        by_heat.append(areas[0])
        by_edges.append(areas[1])
        both = areas[2:]
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
        for i, heatmap in enumerate(cells[:n]):
            drawn = range(len(gains[i]), len(gains[i]) + per_image)
            draws = [stream(seed, "order of cells", i, r).permutation(heatmap.size) for r in drawn]
            areas = _areas(answer, images[i], neutral[i], int(targets[i]), draws, (heatmap.shape[0], heatmap.shape[1]))
            gains[i] += [gain for _, _, gain in areas]
    return Faithfulness(_stack(by_heat), _stack(by_chance), _stack(by_edges), np.array(gains))


def unclear(chance: np.ndarray, gain: float) -> bool:
    """Return whether the random orders leave open on which side of `LEVEL` the p-value of a gain lies (95 % interval).

    Args:
        chance: float64 (r,), gains of random orders; those of the reversed orders have the opposite sign.
        gain: The gain to test.
    """
    low, high = _interval(chance, gain)
    return low <= 2 * LEVEL <= high


def beats(chance: np.ndarray, gain: float) -> bool:
    """Return whether a gain is clearly above those of random orders; arguments as in `unclear`."""
    return gain > 0 and _interval(chance, gain)[1] < 2 * LEVEL


def _interval(chance: np.ndarray, gain: float) -> tuple[float, float]:
    """Return the 95 % interval of the share of random orders with at least this absolute gain: twice the one-sided p-value."""
    return wilson(int((np.abs(chance) >= abs(gain)).sum()), chance.size)


def random_gains(
    answer: Answer,
    image: np.ndarray,
    target: int,
    heatmap: np.ndarray,
    *,
    gain: float,
    seed: int,
    most: int = MOST_ORDERS,
    proceed: Callable[[], bool] = lambda: True,
) -> np.ndarray:
    """Return the gains of random orders of one image's cells, float64 (r,), until the p-value of its own order is clear.

    Args:
        answer: The classifier.
        image: uint8 (h, w, 3).
        target: The class index.
        heatmap: float (a, b), whose cells are ordered.
        gain: The gain of the heatmap's order.
        seed: Seed of the orders, which depend on it and on the image.
        most: Maximum number of random orders, rounded up to a multiple of `ORDERS_AT_ONCE`.
        proceed: Called before more orders are drawn; if it returns False, no more are drawn.
    """
    cells, neutral = blocks(heatmap), covered(image[None])[0]
    key = hashlib.sha256(image.tobytes()).hexdigest()
    gains: list[float] = []
    while not gains or (len(gains) < most and unclear(np.array(gains), gain) and proceed()):
        drawn = range(len(gains), len(gains) + ORDERS_AT_ONCE)
        draws = [stream(seed, "orders of a picture", key, r).permutation(cells.size) for r in drawn]
        gains += [g for _, _, g in _areas(answer, image, neutral, target, draws, (cells.shape[0], cells.shape[1]))]
    return np.array(gains)


def own_orders(answer: Answer, images: np.ndarray, targets: np.ndarray, heats: Sequence[np.ndarray]) -> Areas:
    """Return the effect of each image's own order only, as `faithfulness` does in `heat`; arguments as there."""
    areas = []
    for image, target, heatmap in zip(images, targets, heats, strict=True):
        cells, neutral = blocks(heatmap), covered(image[None])[0]
        size = (cells.shape[0], cells.shape[1])
        areas += _areas(answer, image, neutral, int(target), [_descending(cells)], size)
    return _stack(areas)


def _descending(cells: np.ndarray) -> np.ndarray:
    """Return the cells (row by row) from the highest value down; ties in their own order."""
    return np.argsort(-cells.ravel(), kind="stable")


def _stack(rows: Sequence[tuple[float, float, float]]) -> Areas:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Areas(table[:, 0], table[:, 1], table[:, 2])


def _areas(
    answer: Answer, image: np.ndarray, neutral: np.ndarray, target: int, orders: Sequence[np.ndarray], size: tuple[int, int]
) -> list[tuple[float, float, float]]:
    """Return (deletion, insertion, gain) of one image for each order of its cells."""
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
    probs = answer(np.stack(pictures), np.full(len(pictures), target))
    whole, none, rest = probs[0], probs[1], probs[2:].reshape(len(orders), 2, len(counts))
    at_share = np.concatenate([[0], counts, [total]]) / total
    areas = []
    for deleted, inserted in rest:
        down, up = np.concatenate([[whole], deleted, [none]]), np.concatenate([[none], inserted, [whole]])
        gain = float(np.trapezoid(log_odds(up) - log_odds(down), at_share))
        areas.append((float(np.trapezoid(down, at_share)), float(np.trapezoid(up, at_share)), gain))
    return areas


def log_odds(probs: np.ndarray) -> np.ndarray:
    """Return log odds of probabilities, clipped to [CERTAIN, 1 - CERTAIN]."""
    cut = np.clip(probs, CERTAIN, 1 - CERTAIN)
    return np.asarray(np.log(cut) - np.log1p(-cut))


def likeness(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Return Spearman's rank correlation over cells between pairs of heatmaps, float64 (n,); 0 where one is constant.

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
    """Return images uint8 with camera noise: normal, `NOISE` grey levels, independent in every pixel and channel."""
    drawn = [stream(seed, "noise", i).normal(0.0, NOISE, images.shape[1:]) for i in range(len(images))]
    return np.asarray(np.clip(np.rint(images + np.stack(drawn)), 0, 255), dtype=np.uint8)


def pointing(peaks: Sequence[tuple[int, int]], boxes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """Return whether each peak (row, column) lies in its box (x, y, width, height), all in pixels of the original, bool (n,).

    Source: Zhang et al., Top-down Neural Attention by Excitation Backprop (2016), the pointing game, without a margin.

    Example:
        >>> pointing([(5, 5), (5, 50)], [(0, 0, 10, 10), (0, 0, 10, 10)]).tolist()
        [True, False]
    """
    hits = [x <= column < x + w and y <= row < y + h for (row, column), (x, y, w, h) in zip(peaks, boxes, strict=True)]
    return np.array(hits, dtype=bool)
