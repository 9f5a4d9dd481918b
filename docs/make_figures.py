"""Draw the figures of the concept pages with Sightline: `python docs/make_figures.py [NAME…]`.

The images are scikit-learn's digits and the drawn discs and rings of the gallery.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from make_gallery import shape
from PIL import Image, ImageDraw, ImageEnhance
from scipy.signal import correlate2d
from scipy.special import softmax
from sklearn.datasets import load_digits

import sightline as sl
from sightline import evaluation
from sightline.explanation.draw.overlay import overlay

FOLDER = Path(__file__).parent / "figures"
BLUE, ORANGE, GREEN, GREY = "#10598f", "#b3470f", "#3c7a3c", "#5f5d57"
FILTERS = {
    "horizontal edge": [[1, 1, 1], [0, 0, 0], [-1, -1, -1]],
    "vertical edge": [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
    "blur": [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    "centre": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
}
CONVOLUTIONS = """
from torch import nn
def standard(image_size=32, channels=3, classes=2):
    return nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def separable(image_size=32, channels=3, classes=2):
    layers = nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.Conv2d(3, 64, 1, bias=False)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def save(figure: plt.Figure, name: str) -> None:
    """Write a figure as SVG without a date, so that the file changes only with its content."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def save_picture(picture: Image.Image, name: str) -> None:
    """Write a picture as PNG with 128 colours."""
    picture.convert("RGB").quantize(128).save(FOLDER / f"{name}.png", optimize=True)


def write_shapes(folder: Path, per_class: int = 160, mark: bool = False) -> Path:
    """Write discs and rings; with `mark`, a white label in the corner of every ring."""
    rng = np.random.default_rng(1)
    for kind in ("disc", "ring"):
        (folder / kind).mkdir(parents=True)
        for number in range(per_class):
            image = shape(kind, rng)
            if mark and kind == "ring":
                ImageDraw.Draw(image).rectangle((92, 112, 124, 124), fill=(250, 250, 250))
            image.save(folder / kind / f"{number:03d}.png")
    return folder


def feature_maps(work: Path) -> None:
    """Draw one digit and its feature maps under four filters, after ReLU."""
    image = load_digits().images[5]
    figure, axes = plt.subplots(1, 5, figsize=(8, 2))
    for axis, (name, weights) in zip(axes, {"image": None, **FILTERS}.items(), strict=True):
        shown = image if weights is None else np.maximum(correlate2d(image, np.asarray(weights, float), mode="same"), 0)
        axis.imshow(shown, cmap="gray")
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    save(figure, "feature_maps")


def separable(work: Path) -> None:
    """Draw the number of weights of a standard and of a separable convolution, as `sightline summary` counts them."""
    (work / "convolutions.py").write_text(CONVOLUTIONS, encoding="utf-8")
    counts = {}
    for name in ("standard", "separable"):
        layers = sl.summary(f"{work / 'convolutions.py'}:{name}", image_size=32)["layers"]
        counts[name] = [layer["parameters"] for layer in layers if layer["type"] == "Conv2d"]
    (whole,), (depthwise, pointwise) = counts["standard"], counts["separable"]
    figure, axis = plt.subplots(figsize=(6, 1.5))
    axis.barh(["standard"], [whole], color=GREY)
    axis.barh(["separable"], [depthwise], color=BLUE, label=f"depthwise {depthwise}")
    axis.barh(["separable"], [pointwise], left=[depthwise], color=ORANGE, label=f"pointwise {pointwise}")
    axis.text(whole + 12, 0, f"{whole:,}", va="center")
    axis.text(depthwise + pointwise + 12, 1, f"{depthwise + pointwise}", va="center")
    axis.invert_yaxis()
    axis.set_xlabel("weights")
    axis.legend(frameon=False, loc="lower right", fontsize=9)
    save(figure, "separable")


def drawings(work: Path) -> None:
    """Draw ResNet-18 and the first inception modules of GoogLeNet with `sightline summary --graph`."""
    for name in ("resnet18", "googlenet"):
        sl.summary(name, image_size=64, graph=str(FOLDER / f"{name}.svg"))


def transfer(work: Path) -> None:
    """Draw the accuracy by number of training images for pretrained features, random features and pixels."""
    photos = write_shapes(work / "transfer", 120)
    curves = {
        "pretrained network": (sl.Recipe(backbone="tf_efficientnet_lite0", head="logistic"), BLUE),
        "same network, random weights": (
            sl.Recipe(backbone="tf_efficientnet_lite0", weights="random", head="logistic"),
            ORANGE,
        ),
        "pixels": (sl.Recipe(backbone="pixels", head="logistic"), GREY),
    }
    figure, axis = plt.subplots(figsize=(5, 2.8))
    for name, (recipe, colour) in curves.items():
        folder = sl.learning_curve(sl.scan(photos), recipe, out=work / f"curve {name}").folder
        points = json.loads((folder / "learning-curve.json").read_text(encoding="utf-8"))["points"]
        axis.plot([p["images"] for p in points], [100 * p["measured"] for p in points], "o-", color=colour, label=name)
    axis.set_xscale("log")
    axis.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axis.minorticks_off()
    axis.set_xlabel("training images")
    axis.set_ylabel("accuracy on other images (%)")
    axis.legend(frameon=False, fontsize=9)
    save(figure, "transfer")


def best_of_k(work: Path) -> None:
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
    axis.legend(frameon=False, fontsize=9)
    save(figure, "best_of_k")


def leak(work: Path) -> None:
    """Draw the test accuracy on digits with random labels and three copies each, split at random and by Sightline."""
    rng = np.random.default_rng(0)
    rows = []
    (work / "copies").mkdir()
    for number, digit in enumerate(load_digits().images[:150]):
        label = ("a", "b")[rng.integers(2)]
        image = Image.fromarray(np.kron(digit * 15, np.ones((16, 16))).astype(np.uint8))
        copies = (image, image.resize((96, 96)), ImageEnhance.Brightness(image).enhance(1.1))
        for copy, picture in enumerate(copies):
            picture.save(work / "copies" / f"{number}-{copy}.jpg", quality=(95, 70, 85)[copy])
            rows.append([f"copies/{number}-{copy}.jpg", label])
    splits = rng.permutation(np.resize(["train", "train", "train", "val", "test"], len(rows)))
    naive = ["path,label,split", *(f"{path},{label},{split}" for (path, label), split in zip(rows, splits, strict=True))]
    (work / "naive.csv").write_text("\n".join(naive) + "\n", encoding="utf-8")
    (work / "own.csv").write_text("\n".join(["path,label", *map(",".join, rows)]) + "\n", encoding="utf-8")
    recipe = sl.Recipe(backbone="pixels", head="knn", image_size=16, settings={"head": {"neighbours": 1}})
    scores = []
    for table in ("naive", "own"):
        catalog = sl.scan(work / f"{table}.csv")
        catalog = catalog if table == "naive" else sl.split(catalog, val=0.2, test=0.2, seed=0)
        run = sl.fit(catalog, recipe, out=work / f"leak {table}")
        scores.append(sl.evaluate(run, catalog, out=work / f"leak {table} test", heatmaps="none").data["test"])
    figure, axis = plt.subplots(figsize=(5, 1.7))
    for row, score in enumerate(scores):
        value, low, high = (100 * score[key] for key in ("accuracy", "accuracy_low", "accuracy_high"))
        axis.errorbar([value], [row], xerr=[[value - low], [high - value]], fmt="o", color=(ORANGE, BLUE)[row], capsize=4)
        axis.text(value, row - 0.2, f"{value:.0f} %", ha="center", fontsize=9)
    axis.axvline(50, color=GREY, linestyle=":")
    axis.set_yticks([0, 1], ["random split", "split by Sightline"])
    axis.set_ylim(1.5, -0.6)
    axis.set_xlim(30, 101)
    axis.set_xlabel("test accuracy on labels drawn at random (%), 95 % interval")
    save(figure, "leak")


def intervals(work: Path) -> None:
    """Draw the 95 % interval of an accuracy of 90 % by the number of test images."""
    counts = np.array([10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    low, high = np.array([evaluation.wilson(0.9 * n, n) for n in counts]).T * 100
    figure, axis = plt.subplots(figsize=(5, 2.6))
    axis.fill_between(counts, low, high, color=BLUE, alpha=0.25, linewidth=0)
    axis.axhline(90, color=BLUE)
    for n in (20, 100, 1000):
        i = int(np.flatnonzero(counts == n)[0])
        axis.annotate(
            f"{low[i]:.0f}–{high[i]:.0f} %", (n, low[i]), xytext=(0, -12), textcoords="offset points", ha="center", fontsize=9
        )
    axis.set_xscale("log")
    axis.set_xticks([10, 20, 50, 100, 200, 500, 1000, 5000], ["10", "20", "50", "100", "200", "500", "1,000", "5,000"])
    axis.minorticks_off()
    axis.set_ylim(45, 101)
    axis.set_xlabel("test images")
    axis.set_ylabel("accuracy (%)")
    save(figure, "intervals")


def mirror(work: Path) -> None:
    """Draw the ROC curve of a classifier of threes and eights, by the score of the right and of the wrong class."""
    predictions = noisy_digits(work, ("3", "8"))
    positive = predictions.y_true == 1
    figure, axis = plt.subplots(figsize=(3.2, 3.2))
    for column, colour in ((1, BLUE), (0, ORANGE)):
        false, true, _ = evaluation.roc_curve(positive, predictions.probs[:, column])
        area = evaluation.auc(positive, predictions.probs[:, column])
        axis.plot(false, true, color=colour, label=f"score of class {predictions.classes[column]}: AUC {area:.3f}")
    axis.plot([0, 1], [0, 1], ":", color=GREY)
    axis.set_xlabel("false positive rate of class 8")
    axis.set_ylabel("true positive rate of class 8")
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    save(figure, "mirror")


def noisy_digits(work: Path, classes: tuple[str, ...]) -> sl.Predictions:
    """Return held-out predictions of a logistic head on the pixels of noisy digits, without calibration where C is large."""
    folder = work / f"noisy {'-'.join(classes)}"
    if not folder.exists():
        rng = np.random.default_rng(0)
        for number, (digit, label) in enumerate(zip(load_digits().images, load_digits().target, strict=True)):
            if str(label) in classes:
                (folder / str(label)).mkdir(parents=True, exist_ok=True)
                pixels = np.clip(digit * 10 + 48 + rng.normal(0, 60, digit.shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / str(label) / f"{number}.png")
    recipe = sl.Recipe(backbone="pixels", head="logistic", image_size=8, settings={"head": {"C": 100.0}})
    return sl.fit(sl.split(sl.scan(folder), seed=0), recipe, out=work / f"{folder.name} run").held_out


def calibration(work: Path) -> None:
    """Draw confidence against accuracy of an overconfident classifier of noisy digits, before and after its temperature."""
    predictions = noisy_digits(work, tuple("0123456789"))
    temperature = json.loads((work / "noisy 0-1-2-3-4-5-6-7-8-9 run" / "run.json").read_text(encoding="utf-8"))["calibration"][
        "temperature"
    ]
    figure, axis = plt.subplots(figsize=(3.6, 3.4))
    axis.plot([0, 100], [0, 100], ":", color=GREY, label="perfect")
    logits = temperature * np.log(predictions.probs)
    for scale, colour, label in ((1.0, ORANGE, "before"), (temperature, BLUE, f"after (temperature {temperature:.1f})")):
        probs = softmax(logits / scale, axis=1)
        correct = probs.argmax(axis=1) == predictions.y_true
        bins = [b for b in evaluation.calibration_curve(correct, probs.max(axis=1), 8) if b.n >= 10]
        axis.plot([100 * b.confidence for b in bins], [100 * b.accuracy for b in bins], "o-", color=colour, label=label)
    axis.set_xlabel("confidence (%)")
    axis.set_ylabel("accuracy (%)")
    axis.legend(frameon=False, fontsize=9)
    save(figure, "calibration")


def out_of_distribution(work: Path) -> None:
    """Draw the distance from the training images of discs and rings, and of digits."""
    catalog = sl.split(sl.scan(write_shapes(work / "ood")), seed=0)
    run = sl.fit(catalog, sl.Recipe(backbone="tf_efficientnet_lite0", head="logistic"), out=work / "ood run")
    digits = work / "digits"
    digits.mkdir()
    for number, digit in enumerate(load_digits().images[:60]):
        Image.fromarray(np.kron(digit * 15, np.ones((16, 16))).astype(np.uint8)).save(digits / f"{number}.png")
    test = [catalog.files()[i] for i in np.flatnonzero(np.asarray(catalog.column("split")) == "test")]
    figure, axis = plt.subplots(figsize=(5, 2.2))
    for files, colour, label in ((test, BLUE, "discs and rings of the test split"), ([digits], ORANGE, "digits")):
        predictions = sl.predict(run, files)
        axis.hist(predictions.ood_score, bins=np.linspace(0, 0.8, 41), color=colour, alpha=0.7, label=label)
    axis.axvline(predictions.ood_threshold, color=GREY, linestyle=":", label="threshold")
    axis.set_xlabel("distance from the training images")
    axis.set_ylabel("images")
    axis.legend(frameon=False, fontsize=9)
    save(figure, "out_of_distribution")


def heatmaps(work: Path) -> None:
    """Draw one ring under several heatmap methods, and heatmaps of a classifier that learned a label in the corner."""
    pictures = []
    for name, mark in (("plain", False), ("marked", True)):
        photos = write_shapes(work / name, mark=mark)
        run = sl.fit(
            sl.split(sl.scan(photos), seed=0),
            sl.Recipe(backbone="tf_efficientnet_lite0", head="logistic"),
            out=work / f"{name} run",
        )
        file = photos / "ring" / "007.png"
        image = np.asarray(Image.open(file).convert("RGB"))
        methods = ("gradcam",) if mark else ("gradcam", "masks", "occlusion", "saliency", "activation")
        found = [sl.explain(run, [str(file)], method=method, target="ring")[0] for method in methods]
        pictures += [overlay(image, explanation, side_px=300) for explanation in found]
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    sheet = Image.new("RGB", (3 * width, 2 * height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % 3 * width, number // 3 * height))
    save_picture(sheet, "heatmaps")


FIGURES = (
    *(feature_maps, separable, drawings, transfer, best_of_k, leak, intervals, mirror, calibration, out_of_distribution),
    heatmaps,
)


def main() -> None:
    """Draw the figures that are named, or all."""
    FOLDER.mkdir(exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "sightline", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10})
    for draw in FIGURES:
        if not sys.argv[1:] or draw.__name__ in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                draw(Path(folder))


if __name__ == "__main__":
    main()
