"""Compare the training throughput, in images/s, of Sightline, a plain PyTorch loop, Keras' `fit`, and fastai.

Each runs in its own process; the peers may have their own Python environments. They take turns for several rounds. The first
epoch, with compilation and decoding, is not counted. Medians are compared, and the accuracies are printed.

    python benchmarks/training.py PHOTOS --keras-python KERAS_ENV/bin/python --fastai-python FASTAI_ENV/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from sightline.demo import write_digits

HERE = Path(__file__).resolve().parent
TASKS = {  # task → (network, side in pixels, epochs, batch, peers)
    "cnn": ("cnn", 64, 4, 64, ("torch", "keras")),
    "resnet18": ("resnet18", 224, 2, 32, ("fastai",)),
}


def once(side: str, python: str, photos: Path, task: str, epochs: int) -> dict[str, float]:
    """Run one process and return the figures that it prints."""
    network, pixels, _, batch, _ = TASKS[task]
    with tempfile.TemporaryDirectory() as cache:
        command = [
            python,
            str(HERE / "peers" / f"{side}_training.py"),
            str(photos),
            str(pixels),
            str(epochs),
            str(batch),
            network,
        ]
        environment = {**os.environ, "SIGHTLINE_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return {"rate": said["images"] / said["seconds"], "accuracy": said["accuracy"]}


def main() -> None:
    """Read the options and find photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder per class; without it the demo's digits")
    parser.add_argument("--task", choices=TASKS, default="cnn")
    parser.add_argument("--keras-python", help="the interpreter of an environment with tensorflow; left out if not given")
    parser.add_argument("--fastai-python", help="the interpreter of an environment with fastai; left out if not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="the first of them is not timed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, options.photos or write_digits(Path(folder)))


def compare(options: argparse.Namespace, photos: Path) -> None:
    """Run all in turn and print one ratio per peer."""
    network, pixels, epochs, batch, peers = TASKS[options.task]
    epochs = options.epochs or epochs
    given = {"torch": sys.executable, "keras": options.keras_python, "fastai": options.fastai_python}
    pythons = {"sightline": sys.executable} | {p: given[p] for p in peers if given[p]}
    results: dict[str, list[dict[str, float]]] = {side: [] for side in pythons}
    for _ in range(options.rounds):
        for side, python in pythons.items():
            results[side].append(once(side, python, photos, options.task, epochs))
    print(
        f"{network} at {pixels} px, batches of {batch}, {epochs} epochs, {options.rounds} rounds: images/s (median [min, max])"
    )
    ours = statistics.median(r["rate"] for r in results["sightline"])
    for side, runs in results.items():
        rates, accuracies = [r["rate"] for r in runs], [r["accuracy"] for r in runs]
        middle = statistics.median(rates)
        ratio = "" if side == "sightline" else f", sightline is {ours / middle:.2f} x"
        learnt = f"held-out accuracy {statistics.median(accuracies):.3f}"
        print(f"{side:>10} {middle:8.1f} [{min(rates):.1f}, {max(rates):.1f}] {learnt}{ratio}")


if __name__ == "__main__":
    main()
