"""Compare pretrained networks as frozen backbones: cross-validated accuracy on each data set, speed, and size of the weights.

Accuracy: `features` with a logistic head, 5 folds, near duplicates in one fold. Speed: forward passes of decoded images of the
first data set; the networks take turns for several rounds, and medians are compared with the first network's.

    python benchmarks/backbones.py PHOTOS PHOTOS --network tf_efficientnet_lite0 tf_efficientnet_lite2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import sightline as sl
from sightline import catalog, engine, features, networks
from sightline.demo import write_digits
from sightline.store import Cache


def main() -> None:
    """Read the options and print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", help="folders with a folder per class; without any, the demo's digits")
    parser.add_argument("--network", nargs="+", default=["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=32, help="images for the measurement of speed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = options.photos or [write_digits(Path(folder) / "digits")]
        speed(options.network, catalog.image_files(sets[0])[0][: options.images], options.rounds)
        for photos in sets:
            for name in options.network:
                accuracy(name, photos)


def speed(names: list[str], files: list[Path], rounds: int) -> None:
    """Print images per second of each network, its ratio to the first, and the megabytes of its weights."""
    cache, seconds = Cache(), {name: [] for name in names}
    prepared = {}
    for name in names:
        backbone = networks.describe(name, cache=cache)
        session = engine.open_session(backbone, cache=cache, precision=engine.fast_precision())
        _, images, _, _ = features.compute(files, backbone.preprocess, session, maps=True)
        prepared[name] = backbone, session, images
    for _ in range(rounds):
        for name, (_, session, images) in prepared.items():
            started = time.perf_counter()
            for first in range(0, len(images), session.batch_size):
                session.run(images[first : first + session.batch_size])
            seconds[name].append(time.perf_counter() - started)
    for name, (backbone, session, images) in prepared.items():
        rates = [len(images) / s for s in seconds[name]]
        ratio = statistics.median(a / b for a, b in zip(seconds[names[0]], seconds[name], strict=True))
        print(
            f"{name}: {statistics.median(rates):.1f} images/s [{min(rates):.1f}, {max(rates):.1f}], {ratio:.2f} × {names[0]}, "
            f"{4 * backbone.parameters / 1e6:.1f} MB without classifier, {session.runtime} {session.precision}, "
            f"1 - cosine {session.difference}",
            flush=True,
        )


def accuracy(name: str, photos: Path) -> None:
    """Print the cross-validated accuracy of a logistic head on a network's features."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = sl.Recipe(method="features", backbone=name, head="logistic")
        scores = sl.cross_validate(photos, recipe, Path(folder) / "run", folds=5).data["val"]
    low, high = scores["accuracy_low"], scores["accuracy_high"]
    print(f"{photos.name} {name}: {scores['accuracy']:.4f} [{low:.3f}, {high:.3f}] on {scores['n']:,}", flush=True)


if __name__ == "__main__":
    main()
