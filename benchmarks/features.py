"""Compare the throughput from files to features, in images/s, of Sightline, Keras and timm with a DataLoader.

Each runs in its own process; the peers may have their own Python environments. Networks and sizes are equal, weights random.
They take turns for several rounds; medians are compared, with and without start-up time. A peer is run with each of its thread
settings once, then with the best one.

    python benchmarks/features.py PHOTOS --network mobilenetv3 --keras-python KERAS_ENV/bin/python --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sightline.demo import write_digits

HERE = Path(__file__).resolve().parent
NETWORKS = {  # name → (timm's name, side in pixels)
    "xception": ("legacy_xception", 299),
    "mobilenetv3": ("mobilenetv3_large_100", 224),
    "resnet50": ("resnet50", 224),
}
SETTINGS = {"sightline": ("",), "timm": ("workers=2,threads=1", "workers=2,threads=2", "workers=0,threads=2"), "keras": ("",)}


def once(side: str, python: str, photos: Path, network: str, setting: str, limit: int) -> dict[str, float]:
    """Run one process and return the figures that it prints and its total time."""
    with tempfile.TemporaryDirectory() as cache:
        command = [python, str(HERE / "peers" / f"{side}_features.py"), str(photos), network, setting or "-", str(limit)]
        environment = {**os.environ, "SIGHTLINE_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return {"rate": said["images"] / said["seconds"], "whole": said["images"] / seconds, "images": said["images"]}


def main() -> None:
    """Read the options and find photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder per class; without it the demo's digits")
    parser.add_argument("--network", choices=NETWORKS, default="mobilenetv3")
    parser.add_argument("--keras-python", help="the interpreter of an environment with tensorflow; left out if not given")
    parser.add_argument("--precision", default="", help="f32, bf16 or int8; the first of this machine's order if left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=1000, help="images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(options, options.photos or write_digits(Path(folder)))


def compare(options: argparse.Namespace, photos: Path) -> None:
    """Run all in turn and print one ratio per peer."""
    pythons = {"sightline": sys.executable, "timm": sys.executable}
    if options.keras_python:
        pythons["keras"] = options.keras_python
    best: dict[str, str] = {}
    for side in pythons:
        settings = SETTINGS[side] if len(SETTINGS[side]) > 1 else ()
        trials = {s: once(side, pythons[side], photos, options.network, s, 200) for s in settings}
        best[side] = max(trials, key=lambda s: trials[s]["rate"]) if trials else ""
    best["sightline"] = options.precision
    results: dict[str, list[dict[str, float]]] = {side: [] for side in pythons}
    for _ in range(options.rounds):
        for side, python in pythons.items():
            results[side].append(once(side, python, photos, options.network, best[side], options.limit))
    name, size = NETWORKS[options.network]
    images = results["sightline"][0]["images"]
    print(f"{name} at {size} px, {images:.0f} images, {options.rounds} rounds, images/s (median [min, max])")
    ours = {key: statistics.median(r[key] for r in results["sightline"]) for key in ("rate", "whole")}
    for side, runs in results.items():
        cells = []
        for key, label in (("rate", "without start-up"), ("whole", "with start-up")):
            values = [r[key] for r in runs]
            middle = statistics.median(values)
            ratio = "" if side == "sightline" else f", sightline is {ours[key] / middle:.2f} x"
            cells.append(f"{label} {middle:7.1f} [{min(values):.1f}, {max(values):.1f}]{ratio}")
        print(f"{side:>10} {best[side]:<20} " + " | ".join(cells))


if __name__ == "__main__":
    main()
