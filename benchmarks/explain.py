"""Measure the cost of heatmaps: Grad-CAM relative to features only, to the packages grad-cam and captum, and masks of a forest.

From files: the same loop decodes, runs the network and a linear head, with and without Grad-CAM of the prediction. From decoded
arrays: Sightline beside grad-cam and captum's LayerGradCam, torch in float32, batches of 16. The explanation of a forest by
random masks is timed without the forward pass. The variants take turns for several rounds; medians are compared. Weights are
random, since the time does not depend on them.

    python benchmarks/explain.py PHOTOS --network resnet50 --limit 1000 --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline import catalog, engine, explanation, features, heads, networks
from sightline.demo import write_digits
from sightline.explanation.layers import as_seen
from sightline.records import Head
from sightline.store import Cache

CLASSES = ("one", "two", "three")
BOX = (0.0, 0.0, 224.0, 224.0)
BATCH = 16
TREES = 300


def main() -> None:
    """Read the options and find photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of images; without it the demo's digits")
    parser.add_argument("--network", nargs="+", default=["resnet50", "mobilenetv2_100"])
    parser.add_argument("--precision", choices=engine.PRECISIONS, help="the first of this machine's order if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1000, help="images from files")
    parser.add_argument("--peers", type=int, default=128, help="images for the comparison with other packages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = catalog.image_files(options.photos or write_digits(Path(folder) / "digits"))[0][: options.limit]
        for name in options.network:
            measure(name, files, options, Cache(Path(folder) / "cache"))


def measure(name: str, files: list[Path], options: argparse.Namespace, cache: Cache) -> None:
    """Run all measurements for one network."""
    backbone = networks.describe(name, weights="random", cache=cache)
    precision = options.precision or engine.precisions()[0]
    quantised = engine.quantised(backbone, cache) if precision == "int8" else None
    session = engine.open_session(backbone, cache=cache, precision=precision, quantised=quantised)
    index, images, maps, _ = features.compute(files[:BATCH], backbone.preprocess, session, maps=True)  # converts and checks
    _, images, maps, _ = features.compute(files[: options.peers], backbone.preprocess, session, maps=True)
    assert maps is not None and len(index)
    random = np.random.default_rng(0)
    weights, bias = random.normal(size=(3, backbone.features)).astype(np.float32), np.zeros(3, np.float32)
    linear = Head("logistic", 3, {}, {"weights": weights, "bias": bias})

    def from_files(heat: bool) -> Callable[[], None]:
        return lambda: with_heat(files, session, linear, heat)

    bare, drawn = in_turn({"features": from_files(False), "heatmaps": from_files(True)}, options.rounds).values()
    print(f"{name}, {len(files)} files, {session.runtime} {session.precision}, {torch.get_num_threads()} threads in torch")
    print(f"  features {len(files) / bare:.1f} images/s, with Grad-CAM {len(files) / drawn:.1f}: {drawn / bare:.3f} × the time")
    network = networks.build(backbone).eval()
    peers = {
        "sightline": lambda: ours(session, linear, images),
        "grad-cam": lambda: grad_cam(network, weights, images, backbone),
        "captum": lambda: captum_cam(network, weights, images, backbone),
    }
    taken = in_turn(peers, options.rounds)
    for peer in ("grad-cam", "captum"):
        print(f"  {len(images)} arrays: {peer} {taken[peer]:.2f} s, Sightline {taken['sightline']:.2f} s: ", end="")
        print(f"{taken[peer] / taken['sightline']:.1f} × faster")
    forest_masks(session, images, maps, options.rounds)


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each variant; they take turns in alternating order, after a warm-up round."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            sides[name]()
            if number:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def with_heat(files: list[Path], session: engine.Session, head: Head, heat: bool) -> None:
    """Predict from files in the batches of `sightline predict`, optionally with Grad-CAM of each prediction."""
    from sightline import pixels

    for batch in pixels.batches(files, session.backbone.preprocess, batch_size=session.batch_size):
        values, maps = session.run(batch.images, maps=heat)
        said = heads.logits(head, values).argmax(axis=1)
        if heat:
            cam(session, head, batch.images, said.tolist(), maps)


def cam(session: engine.Session, head: Head, images: np.ndarray, targets: list[int], maps: np.ndarray | None) -> None:
    """Compute Grad-CAM of a batch."""
    names = [str(i) for i in range(len(images))]
    options = explanation.ExplainOptions(method="gradcam")
    boxes = [BOX] * len(names)
    explanation.explain(
        session, head, images, paths=names, targets=targets, classes=CLASSES, boxes=boxes, options=options, maps=maps
    )


def ours(session: engine.Session, head: Head, images: np.ndarray) -> None:
    """Compute Grad-CAM of class 1 from arrays with Sightline."""
    size = session.batch_size
    for start in range(0, len(images), size):
        part = images[start : start + size]
        cam(session, head, part, [1] * len(part), session.run(part, maps=True)[1])


class Whole(torch.nn.Module):
    """Network from normalised images to logits whose map passes through a separate module, for the hooks of the peers."""

    def __init__(self, network: Any, weights: np.ndarray) -> None:
        super().__init__()
        self.network, self.last, self.weights = network, torch.nn.Identity(), torch.from_numpy(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (n, k) of images (n, 3, h, w)."""
        return self.network.tail(self.last(self.network.map(x))) @ self.weights.T


def grad_cam(network: Any, weights: np.ndarray, images: np.ndarray, backbone: Any) -> None:
    """Compute Grad-CAM with the package grad-cam, as in its documentation."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    whole = Whole(network, weights).eval()
    with GradCAM(model=whole, target_layers=[whole.last]) as cam:
        for start in range(0, len(images), BATCH):
            x = as_seen(images[start : start + BATCH], backbone, network)
            cam(input_tensor=x, targets=[ClassifierOutputTarget(1)] * len(x))


def captum_cam(network: Any, weights: np.ndarray, images: np.ndarray, backbone: Any) -> None:
    """Compute Grad-CAM with captum's LayerGradCam."""
    from captum.attr import LayerGradCam

    whole = Whole(network, weights).eval()
    layer = LayerGradCam(whole, whole.last)
    for start in range(0, len(images), BATCH):
        x = as_seen(images[start : start + BATCH], backbone, network)
        layer.attribute(x, target=1).detach().numpy()


def forest_masks(session: engine.Session, images: np.ndarray, maps: np.ndarray, rounds: int) -> None:
    """Return the milliseconds per image of a forest's explanation by random masks, from a given map."""
    count = len(images)
    values = session.tail(maps)
    y = np.arange(count) % 3
    rows = np.arange(count)
    settings = {"trees": TREES}
    folds = [(rows[: count // 2], rows[count // 2 :])]
    head = heads.fit("forest", values, y, 3, folds=folds, refit=True, settings=settings, seed=0).head
    few = min(count, 32)
    names, options = [str(i) for i in range(few)], explanation.ExplainOptions(method="masks")
    shown: dict[str, Any] = {"paths": names, "targets": [1] * few, "classes": CLASSES, "boxes": [BOX] * few}

    def masks() -> None:
        explanation.explain(session, head, images[:few], options=options, maps=maps[:few], **shown)

    taken = in_turn({"masks": masks}, rounds)["masks"]
    print(f"  forest of {TREES} trees: {1000 * taken / few:.1f} ms an image for its masks, after the forward pass")


if __name__ == "__main__":
    main()
