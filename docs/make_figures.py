"""Draw the figures of the concept pages: `python docs/make_figures.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.signal import correlate2d
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

FOLDER = Path(__file__).parent / "figures"
BLUE, ORANGE, GREY = "#10598f", "#b3470f", "#5f5d57"
FILTERS = {
    "horizontal edge": [[1, 1, 1], [0, 0, 0], [-1, -1, -1]],
    "vertical edge": [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
    "blur": [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    "centre": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
}


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure as SVG without a date, so that the file changes only with its content."""
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def feature_maps() -> None:
    """Draw one digit and its feature maps under four filters, after ReLU."""
    image = load_digits().images[5]
    figure, axes = plt.subplots(1, 5, figsize=(8, 2))
    for axis, (name, weights) in zip(axes, {"image": None, **FILTERS}.items(), strict=True):
        shown = image if weights is None else np.maximum(correlate2d(image, np.asarray(weights, float), mode="same"), 0)
        axis.imshow(shown, cmap="gray")
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    save(figure, "feature_maps")


def separable() -> None:
    """Draw the number of weights of a standard and of a separable convolution, 3 to 64 channels, 3 × 3."""
    figure, axis = plt.subplots(figsize=(6, 1.5))
    axis.barh(["standard"], [1728], color=GREY)
    axis.barh(["separable"], [27], color=BLUE, label="depthwise 27")
    axis.barh(["separable"], [192], left=[27], color=ORANGE, label="pointwise 192")
    axis.text(1740, 0, "1,728", va="center")
    axis.text(230, 1, "219", va="center")
    axis.invert_yaxis()
    axis.set_xlabel("weights")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower right", fontsize=9)
    save(figure, "separable")


def best_of_k() -> None:
    """Draw the expected accuracy of the best of k classifiers that are all right on 80 % of images, on 100 and 1,000 images."""
    rng = np.random.default_rng(0)
    counts = np.array([1, 2, 3, 5, 10, 20, 50])
    figure, axis = plt.subplots(figsize=(5, 2.8))
    for images, colour in ((100, ORANGE), (1000, BLUE)):
        draws = rng.binomial(images, 0.8, size=(4000, counts.max())) / images
        best = [100 * draws[:, :k].max(axis=1).mean() for k in counts]
        axis.plot(counts, best, "o-", color=colour, label=f"{images:,} test images")
    axis.axhline(80, color=GREY, linestyle=":", label="true accuracy")
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(k) for k in counts])
    axis.minorticks_off()
    axis.set_xlabel("classifiers compared on the test images")
    axis.set_ylabel("accuracy of the best (%)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    save(figure, "best_of_k")


def calibration() -> None:
    """Draw confidence against accuracy of an overconfident classifier on noisy digits, before and after temperature scaling."""
    data = load_digits()
    noisy = data.data + np.random.default_rng(0).normal(0, 7, data.data.shape)
    model = LogisticRegression(C=10, max_iter=3000)
    logits = cross_val_predict(model, noisy / 16, data.target, cv=5, method="decision_function")
    fit, held_out = np.arange(len(logits)) % 2 == 0, np.arange(len(logits)) % 2 == 1

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits[fit] / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(fit.sum()), data.target[fit]].mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    figure, axis = plt.subplots(figsize=(3.6, 3.4))
    axis.plot([0, 100], [0, 100], ":", color=GREY, label="perfect")
    for scale, colour, label in ((1.0, ORANGE, "before"), (temperature, BLUE, f"after (temperature {temperature:.1f})")):
        probs = softmax(logits[held_out] / scale, axis=1)
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == data.target[held_out]
        bins = np.array_split(np.argsort(confidence), 8)
        curve = [[100 * values[b].mean() for b in bins] for values in (confidence, right)]
        axis.plot(*curve, "o-", color=colour, label=label)
    axis.set_xlabel("confidence (%)")
    axis.set_ylabel("accuracy (%)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    save(figure, "calibration")


def main() -> None:
    """Draw all figures."""
    FOLDER.mkdir(exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "sightline", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10})
    for draw in (feature_maps, separable, best_of_k, calibration):
        draw()
    graph = [
        sys.executable,
        "-m",
        "sightline",
        "summary",
        "resnet18",
        "--image-size",
        "64",
        "--graph",
        str(FOLDER / "resnet18.svg"),
    ]
    subprocess.run(graph, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
