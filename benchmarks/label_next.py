"""Measure accuracy against the number of labels that `label-next` asks for, beside random choice.

Labels are revealed on request; accuracy is that of logistic regression on a quarter of the images that is never asked for.

    python benchmarks/label_next.py PHOTOS --network mobilenetv2_100 --seeds 20
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression

from sightline import catalog as catalogs
from sightline import networks
from sightline.audit.label_errors import unit
from sightline.audit.label_next import label_next
from sightline.commands.audit import features_of
from sightline.store import Cache


def fitted(x: np.ndarray, y: np.ndarray, k: int, asked: np.ndarray) -> np.ndarray:
    """Return the probabilities of all images after training on some, float64 (n, k)."""
    probs = np.zeros((len(x), k))
    if len(np.unique(y[asked])) < 2:
        probs[:, y[asked][0]] = 1
        return probs
    model = LogisticRegression(C=30, max_iter=200, tol=1e-3).fit(x[asked], y[asked])
    probs[:, model.classes_] = model.predict_proba(x)
    return probs


def curve(x: np.ndarray, y: np.ndarray, k: int, step: int, most: int, seed: int, *, random: bool) -> tuple[list[float], float]:
    """Return the accuracies after each batch of labels, and with all labels."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    test, pool = order[: len(y) // 4], order[len(y) // 4 :]
    final = float((fitted(x, y, k, pool)[test].argmax(axis=1) == y[test]).mean())
    asked, accuracies, probs = np.zeros(0, np.int64), [], None
    while len(asked) < most:
        rest = np.setdiff1d(pool, asked)
        if random:
            chosen = rng.choice(rest, step, replace=False)
        else:
            known, answers = (x[asked], probs[rest]) if probs is not None else (None, None)
            chosen = rest[[p.row for p in label_next(x[rest], step, labelled=known, probs=answers, seed=seed)]]
        asked = np.concatenate([asked, chosen])
        probs = fitted(x, y, k, asked)
        accuracies.append(float((probs[test].argmax(axis=1) == y[test]).mean()))
    return accuracies, final


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--step", type=int, default=15)
    parser.add_argument("--most", type=int, default=150)
    asked = parser.parse_args()
    cache = Cache()
    usable = catalogs.scan(asked.photos).usable()
    x = unit(features_of(usable, networks.describe(asked.network, cache=cache), cache, "cpu"))
    y, k = usable.labels(usable.classes), len(usable.classes)
    both = {
        name: [curve(x, y, k, asked.step, asked.most, seed, random=name == "random") for seed in range(asked.seeds)]
        for name in ("label-next", "random")
    }
    final = float(np.mean([f for _, f in both["random"]]))
    labels = np.arange(asked.step, asked.most + 1, asked.step)
    print(f"final accuracy {final:.3f} with all labels")
    for name, curves in both.items():
        mean = np.mean([c for c, _ in curves], axis=0)
        enough = next((n for n, a in zip(labels, mean, strict=True) if a >= 0.9 * final), None)
        points = "  ".join(f"{n}: {a:.3f}" for n, a in zip(labels, mean, strict=True))
        print(f"{name:<11} 90 % of it at {enough} labels   {points}")
    areas = [np.mean([c for c, _ in both[name]], axis=1) for name in ("label-next", "random")]
    print(
        f"mean accuracy {areas[0].mean():.3f} and {areas[1].mean():.3f}, paired t-test p = {stats.ttest_rel(*areas).pvalue:.2g}"
    )


if __name__ == "__main__":
    main()
