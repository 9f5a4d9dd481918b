"""Cross-validation: every image answered by a classifier that has not seen it, nor anything that belongs together with it."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import evaluation
from sightline.errors import RequestError, unknown
from sightline.records import Catalog, Predictions, Recipe
from sightline.store import plain, stream
from sightline.training import methods
from sightline.training.context import Context, decided, folds_for

INNER = 7
"""A seventh of each training part is its own validation split."""


@dataclass(frozen=True, slots=True)
class Part:
    """One fold of one repeat.

    Args:
        repeat, fold: From 0.
        train, held: int64, rows of the catalog; no cluster is in both.
    """

    repeat: int
    fold: int
    train: np.ndarray
    held: np.ndarray

    @property
    def name(self) -> str:
        """Such as `r1-f3`, from 1."""
        return f"r{self.repeat + 1}-f{self.fold + 1}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one fold gave.

    Args:
        answers: Of the held-out images; what could not be read is in `errors`.
        facts: `head`, `settings`, `label`, `inner` (the accuracy by which it was chosen), `seconds`.
    """

    answers: Predictions
    facts: dict[str, Any]


def check(recipe: Recipe, folds: int, repeats: int) -> None:
    """Refuse what cannot be cross-validated.

    Raises:
        RequestError: A number is out of range, or the recipe begins with what has learnt from images already.
    """
    if not 2 <= folds <= 100:
        raise RequestError(f"--folds cannot be {folds}", "it lies between 2 and 100; 5 is usual")
    if not 1 <= repeats <= 100:
        raise RequestError(f"--repeats cannot be {repeats}", "it lies between 1 and 100")
    if recipe.method not in methods.METHODS:
        raise unknown("method", recipe.method, methods.METHODS)
    if methods.sources(recipe) or recipe.method == "ensemble":
        raise RequestError(
            f"{recipe.method} begins with classifiers that may have learnt from the very images that are held out",
            "cross-validate the recipes that those came from",
        )


def parts(context: Context, folds: int, repeats: int, seed: int) -> list[Part]:
    """The folds of every repeat: stratified, clusters whole, a function of the seed.

    Args:
        work: All images that take part.
        folds: So many, or fewer where no class has as many images.
        repeats: With other folds each time.
        seed: Of the draw.

    Raises:
        DataError: No class has an image that can be held out.
    """
    rows = np.arange(len(context.catalog))
    found = []
    for repeat in range(repeats):
        own = int(stream(seed, "cross-validation", repeat).integers(2**31))
        for fold, (train, held) in enumerate(folds_for(context, rows, folds, own)):
            found.append(Part(repeat, fold, rows[train], rows[held]))
    return found


def never_held_out(context: Context, found: Sequence[Part]) -> tuple[str, ...]:
    """Return the names of the classes of which no fold holds an image out."""
    held = np.unique(np.concatenate([context.labels[part.held] for part in found]))
    return tuple(name for k, name in enumerate(context.classes) if k not in held)


def fit_part(context: Context, recipe: Recipe, part: Part) -> Fitted:
    """Carry the recipe out on a fold's training part alone, every choice included, and answer what was held out.

    The head, its settings, its temperature and the threshold are all chosen inside: by cross-validation within the training
    part, or by the seventh of it that is its own validation split. Held-out images are the inner work's test split, of which
    only pixels are looked at.

    Args:
        work: All images that take part.
        recipe: Its seed is raised by one with each repeat.
        part: Which images learn and which are held out.
    """
    started = time.perf_counter()
    exact = dataclasses.replace(recipe, seed=recipe.seed + part.repeat)
    own = int(stream(recipe.seed, "inner validation", part.repeat, part.fold).integers(2**31))
    _, val = folds_for(context, part.train, INNER, own)[0]
    splits = np.full(len(context.catalog), "train", dtype=object)
    splits[part.held], splits[part.train[val]] = "test", "val"
    inner = dataclasses.replace(context, catalog=context.catalog.with_column("split", splits.tolist()))
    best = decided(methods.fit(inner, exact)[0], exact.positive, exact.threshold)
    card = best.classifier.card
    held = np.zeros(len(context.catalog), dtype=bool)
    held[part.held] = True
    answers = best.classifier.predict(
        context.catalog.rows(held), cache=context.cache, device=context.device, progress=context.progress
    )
    facts = {"head": card.head, "settings": plain(dict(card.head_settings)), "label": best.label, "inner": best.val_accuracy}
    return Fitted(answers, {**facts, "threshold": card.threshold, "seconds": time.perf_counter() - started})


def gathered(catalog: Catalog, found: Sequence[tuple[Part, Fitted]]) -> list[Predictions]:
    """Out-of-fold answers of each repeat, in the catalog's order, each with the bar of its fold where folds have one.

    Bars turn the answers alone: probabilities stay what each fold's classifier gave.
    """
    order = {path: i for i, path in enumerate(catalog.paths)}
    tables = []
    for repeat in sorted({p.repeat for p, _ in found}):
        pieces = [f.answers for p, f in found if p.repeat == repeat]
        paths = [path for piece in pieces for path in piece.paths]
        whole = Predictions(
            tuple(paths),
            pieces[0].classes,
            np.concatenate([piece.y_true for piece in pieces]),
            np.concatenate([piece.probs for piece in pieces]),
            {path: why for piece in pieces for path, why in piece.errors.items()},
            _bars(pieces),
        )
        tables.append(whole.select(np.argsort([order[p] for p in paths], kind="stable")))
    return tables


def _bars(pieces: Sequence[Predictions]) -> tuple[str, np.ndarray] | None:
    """The bars of the folds, row by row; None where none has one."""
    named = {piece.threshold[0] for piece in pieces if piece.threshold is not None}
    if not named:
        return None
    assert len(named) == 1, "each fold has the same positive class"
    return named.pop(), np.concatenate([piece.thresholds for piece in pieces])


def summarise(
    tables: Sequence[Predictions], found: Sequence[tuple[Part, Fitted]], cluster: np.ndarray, paths: Sequence[str]
) -> dict[str, Any]:
    """The accuracy over all repeats with its interval, each repeat's, and each fold's, as plain data.

    Args:
        tables: As `gathered`.
        found: All folds.
        cluster: int64 (n,), of the catalog's rows.
        paths: Of the catalog's rows.
    """
    place = {path: i for i, path in enumerate(paths)}
    rows = np.array([place[p] for p in tables[0].paths], dtype=np.int64)
    right = np.array([t.y_pred == t.y_true for t in tables], dtype=np.float64)  # (repeats, n)
    each = right.mean(axis=1)
    low, high = interval(right.mean(axis=0), cluster[rows])
    heads = Counter(str(f.facts["head"]) for _, f in found)
    told: dict[str, Any] = plain(
        {
            "folds": max(p.fold for p, _ in found) + 1,
            "repeats": len(tables),
            "images": right.shape[1],
            "clusters": len(np.unique(cluster[rows])),
            "accuracy": float(each.mean()),
            "accuracy_low": low,
            "accuracy_high": high,
            "by_repeat": each.tolist(),
            "heads": dict(heads.most_common()),
            "parts": [_part(p, f) for p, f in found],
        }
    )
    return told


def _part(part: Part, fitted: Fitted) -> dict[str, Any]:
    """One fold's line."""
    answers = fitted.answers
    wins = int((answers.y_pred == answers.y_true).sum())
    low, high = evaluation.wilson(wins, len(answers))
    accuracy = wins / len(answers) if len(answers) else None
    numbers = {"n": len(answers), "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    return {"repeat": part.repeat + 1, "fold": part.fold + 1, "trained_on": len(part.train), **numbers, **fitted.facts}


def interval(share: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of an accuracy whose images come in clusters, or are answered several times.

    Wilson's interval at the effective number of images: as many independent ones as would leave the mean as uncertain as
    it is, given how much clusters differ. Repeats do not make images: it is never more than there are.

    Args:
        share: float (n,), the share of repeats in which an image was right.
        cluster: int (n,), images of one number count as one draw.

    Source: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data": the effective sample size; with Wilson's interval in place of the exact one.

    Example:
        >>> low, high = interval(np.array([1.0] * 90 + [0.0] * 10), np.arange(100))
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)
        >>> low, high = interval(np.repeat([1.0] * 9 + [0.0], 10), np.repeat(np.arange(10), 10))  # ten images of each thing
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    n, p = len(share), float(share.mean())
    _, number = np.unique(cluster, return_inverse=True)
    groups = int(number.max()) + 1
    excess = np.bincount(number, weights=share - p)  # (groups,)
    variance = float((excess**2).sum()) / n**2
    independent = p * (1 - p) / variance if variance > 0 else float(groups)
    whole = max(1, min(n, round(independent)))
    return _wilson(p, whole)


def _wilson(p: float, n: int) -> tuple[float, float]:
    """Wilson's interval at any share."""
    z = 1.959963984540054
    centre, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))
