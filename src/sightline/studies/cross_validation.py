"""Cross-validation: predict every image with a classifier trained on neither it nor any image of its cluster."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import classifier, evaluation
from sightline.errors import RequestError
from sightline.records import Catalog, Predictions, Recipe
from sightline.records.cross_validation import CrossValidationSummary, FoldScore
from sightline.schema import from_json
from sightline.store import plain, stream
from sightline.training import methods
from sightline.training.context import Context, decided, folds_for

INNER = 7
"""The inner validation split is 1 / INNER of each training part."""


@dataclass(frozen=True, slots=True)
class Part:
    """One fold of one repeat.

    Args:
        repeat, fold: Indices from 0.
        train, held: Training and held-out rows of the catalog, int64; no cluster is in both.
    """

    repeat: int
    fold: int
    train: np.ndarray
    held: np.ndarray

    @property
    def name(self) -> str:
        """Name such as `r1-f3`, counted from 1."""
        return f"r{self.repeat + 1}-f{self.fold + 1}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Result of one fold.

    Args:
        answers: Predictions of the held-out images; unreadable ones are in their `errors`.
        facts: `head`, `settings`, `label`, `inner` (accuracy on the inner validation split), `threshold`, `seconds`.
    """

    answers: Predictions
    facts: dict[str, Any]


def check(recipe: Recipe, folds: int, repeats: int) -> None:
    """Check that a recipe can be cross-validated.

    Raises:
        RequestError: If a number is out of range, or the recipe combines finished classifiers.
    """
    if not 2 <= folds <= 100:
        raise RequestError(f"--folds cannot be {folds}", "give a number from 2 to 100; 5 is usual")
    if not 1 <= repeats <= 100:
        raise RequestError(f"--repeats cannot be {repeats}", "give a number from 1 to 100")
    if not methods.method_of(recipe).cross_validates:
        raise RequestError(
            f"{recipe.method} starts from classifiers that may have been trained on the held-out images",
            "cross-validate the recipes of those classifiers",
        )


def check_unseen(context: Context, recipe: Recipe) -> None:
    """Check that the classifiers that a recipe starts from were trained on none of the images.

    Raises:
        RequestError: If one was: it would know held-out images.
    """
    for name in methods.METHODS[recipe.method].source_files(recipe):
        seen = int(classifier.load(name).was_trained_on(context.catalog.column("content")).sum())
        if seen:
            n = len(context.catalog)
            message = f"{name} was trained on {seen:,} of the {n:,} images, so the score on held-out images would be too high"
            raise RequestError(message, f"cross-validate the recipe of {name}, or leave these images out")


def parts(context: Context, folds: int, repeats: int, seed: int) -> list[Part]:
    """Return the folds of every repeat: stratified, without splitting clusters, determined by the seed.

    Args:
        context: The images to cross-validate on.
        folds: Number of folds; fewer if no class has that many images.
        repeats: Number of repeats, each with different folds.
        seed: Random seed of the folds.

    Raises:
        DataError: If no class has an image that can be held out.
    """
    rows = np.arange(len(context.catalog))
    result = []
    for repeat in range(repeats):
        fold_seed = int(stream(seed, "cross-validation", repeat).integers(2**31))
        for fold, (train, held) in enumerate(folds_for(context, rows, folds, fold_seed)):
            result.append(Part(repeat, fold, rows[train], rows[held]))
    return result


def never_held_out(context: Context, folds: Sequence[Part]) -> tuple[str, ...]:
    """Return the names of the classes of which no fold holds an image out."""
    held = np.unique(np.concatenate([context.labels[part.held] for part in folds]))
    return tuple(name for k, name in enumerate(context.classes) if k not in held)


def fit_part(context: Context, recipe: Recipe, part: Part) -> Fitted:
    """Fit the recipe on a fold's training part, including all model selection, and predict the held-out images.

    The head, its settings, the temperature and the threshold are selected inside the training part: by cross-validation, or on
    its inner validation split. The held-out images are the test split of this inner fit; their labels are not used.

    Args:
        context: The images to cross-validate on.
        recipe: The recipe; its seed is raised by one with each repeat.
        part: The training and held-out rows.
    """
    started = time.perf_counter()
    exact = dataclasses.replace(recipe, seed=recipe.seed + part.repeat)
    inner_seed = int(stream(recipe.seed, "inner validation", part.repeat, part.fold).integers(2**31))
    _, val = folds_for(context, part.train, INNER, inner_seed)[0]
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


def gathered(catalog: Catalog, folds: Sequence[tuple[Part, Fitted]]) -> list[Predictions]:
    """Return the out-of-fold predictions of each repeat, in the catalog's order.

    If the folds have decision thresholds, each row has that of its fold. Thresholds change the predicted classes only; the
    probabilities are those of each fold's classifier.
    """
    order = {path: i for i, path in enumerate(catalog.paths)}
    tables = []
    for repeat in sorted({p.repeat for p, _ in folds}):
        pieces = [f.answers for p, f in folds if p.repeat == repeat]
        paths = [path for piece in pieces for path in piece.paths]
        joined = Predictions(
            tuple(paths),
            pieces[0].classes,
            np.concatenate([piece.y_true for piece in pieces]),
            np.concatenate([piece.probs for piece in pieces]),
            {path: why for piece in pieces for path, why in piece.errors.items()},
            _thresholds(pieces),
        )
        tables.append(joined.select(np.argsort([order[p] for p in paths], kind="stable")))
    return tables


def _thresholds(pieces: Sequence[Predictions]) -> tuple[str, np.ndarray] | None:
    """Return the positive class and each row's threshold; None if no fold has one."""
    positive = {piece.threshold[0] for piece in pieces if piece.threshold is not None}
    if not positive:
        return None
    assert len(positive) == 1, "each fold has the same positive class"
    return positive.pop(), np.concatenate([piece.thresholds for piece in pieces])


def summarise(
    tables: Sequence[Predictions], folds: Sequence[tuple[Part, Fitted]], cluster: np.ndarray, paths: Sequence[str]
) -> CrossValidationSummary:
    """Return the accuracy over all repeats with its interval, of each repeat, and of each fold.

    Args:
        tables: Predictions of each repeat, as `gathered` returns them.
        folds: All folds with their results.
        cluster: Cluster of each of the catalog's rows, int64 (n,).
        paths: Paths of the catalog's rows.
    """
    index = {path: i for i, path in enumerate(paths)}
    rows = np.array([index[p] for p in tables[0].paths], dtype=np.int64)
    correct = np.array([t.y_pred == t.y_true for t in tables], dtype=np.float64)  # (repeats, n)
    by_repeat = correct.mean(axis=1)
    low, high = interval(correct.mean(axis=0), cluster[rows])
    heads = Counter(str(f.facts["head"]) for _, f in folds)
    return CrossValidationSummary(
        folds=max(p.fold for p, _ in folds) + 1,
        repeats=len(tables),
        by_repeat=by_repeat.tolist(),
        images=correct.shape[1],
        clusters=len(np.unique(cluster[rows])),
        accuracy=float(by_repeat.mean()),
        accuracy_low=low,
        accuracy_high=high,
        heads=dict(heads.most_common()),
        parts=[_part(p, f) for p, f in folds],
    )


def _part(part: Part, fitted: Fitted) -> FoldScore:
    """Return the table row of one fold."""
    answers = fitted.answers
    correct = int((answers.y_pred == answers.y_true).sum())
    low, high = evaluation.wilson(correct, len(answers))
    accuracy = correct / len(answers) if len(answers) else None
    numbers = {"n": len(answers), "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    facts = {"repeat": part.repeat + 1, "fold": part.fold + 1, "trained_on": len(part.train), **numbers, **fitted.facts}
    return from_json(FoldScore, plain(facts), "fold")


def interval(share: np.ndarray, cluster: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy whose images come in clusters or are predicted several times.

    Wilson's interval at the effective sample size: the number of independent images that would give the same standard error,
    given how much clusters differ. Repeats add no images: the effective sample size is at most n.

    Args:
        share: float (n,), the fraction of repeats in which an image was predicted correctly.
        cluster: Cluster of each image, int (n,).

    Source: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data": the effective sample size; here with Wilson's interval instead of the exact one.

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
    effective = p * (1 - p) / variance if variance > 0 else float(groups)
    return _wilson(p, max(1, min(n, round(effective))))


def _wilson(p: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a fraction p of n, where p · n need not be a whole number."""
    z = 1.959963984540054
    centre, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))
