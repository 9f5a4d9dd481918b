"""Measure how well changed labels are found: precision in the first b, recall in the first 2b, and of the likely errors.

Labels are changed at random to another class. Beside the ranking of `sightline audit`: a vote of ten neighbours, the
margin of out-of-fold logistic regression, and cleanlab with the same out-of-fold probabilities, if it is installed: its ranking
by self-confidence, and the labels that `find_label_issues` names.

    python benchmarks/label_errors.py PHOTOS --network mobilenetv2_100 --draws 10
    python benchmarks/label_errors.py PHOTOS --network tf_efficientnet_lite0 --first-draw 10
"""

from __future__ import annotations

import argparse
import importlib.util

import numpy as np

from sightline import catalog as catalogs
from sightline import heads, networks
from sightline.audit.label_errors import label_suspects, unit
from sightline.commands.audit import features_of
from sightline.store import Cache


def vote(features: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    similar = unit(features) @ unit(features).T
    np.fill_diagonal(similar, -2)
    near = np.argsort(-similar, axis=1)[:, :10]
    counts = np.stack([(y[near] == c).sum(axis=1) for c in range(k)], axis=1).astype(float)
    return margin(counts / 10, y)


def out_of_fold(features: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    """Return the out-of-fold probabilities of logistic regression, float64 (n, k)."""
    from sklearn.model_selection import StratifiedKFold

    folds = [(np.asarray(a), np.asarray(b)) for a, b in StratifiedKFold(5, shuffle=True, random_state=0).split(features, y)]
    fitted = heads.fit("logistic", features, y, k, folds=folds, refit=True, settings={"C": 1.0}, seed=0)
    return heads.softmax(fitted.logits)


def margin(estimate: np.ndarray, y: np.ndarray) -> np.ndarray:
    rows = np.arange(len(y))
    given, other = estimate[rows, y], estimate.copy()
    other[rows, y] = -np.inf
    return np.asarray(other.max(axis=1) - given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first-draw", type=int, default=0)
    asked = parser.parse_args()
    cache = Cache()
    usable = catalogs.scan(asked.photos).usable()
    x = features_of(usable, networks.describe(asked.network, cache=cache), cache, "cpu")
    true, k = usable.labels(usable.classes), len(usable.classes)
    print(f"{len(true)} images, unchanged: {label_suspects(x, true, k).likely.mean():.3f} named")
    for rate in (0.02, 0.05):
        rows: dict[str, list[tuple[float, ...]]] = {}
        for draw in range(asked.first_draw, asked.first_draw + asked.draws):
            rng = np.random.default_rng(draw)
            b = round(rate * len(true))
            changed = np.isin(np.arange(len(true)), rng.choice(len(true), b, replace=False))
            y = np.where(changed, (true + rng.integers(1, k, len(true))) % k, true)
            found = label_suspects(x, y, k)
            probs = out_of_fold(x, y, k)
            scores = {"sightline": found.score, "vote": vote(x, y, k), "logistic": margin(probs, y)}
            named = {"sightline names": found.likely}
            if importlib.util.find_spec("cleanlab") is not None:
                from cleanlab.filter import find_label_issues
                from cleanlab.rank import get_label_quality_scores

                scores["cleanlab"] = -get_label_quality_scores(y, probs)
                named["cleanlab names"] = find_label_issues(y, probs)
            for name, score in scores.items():
                order = np.argsort(-score, kind="stable")
                rows.setdefault(name, []).append((changed[order[:b]].mean(), changed[order[: 2 * b]].sum() / b))
            for name, picked in named.items():
                rows.setdefault(name, []).append((changed[picked].mean() if picked.any() else 1.0, changed[picked].sum() / b))
        for name, values in rows.items():
            precision, recall = np.mean(values, axis=0)
            print(f"{rate:.0%} changed, {name:<16} precision {precision:.3f}  recall {recall:.3f}")


if __name__ == "__main__":
    main()
