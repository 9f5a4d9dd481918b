"""Check and measure Sightline on a GPU, in less than 8 minutes: tests, features, training, a CIFAR-sized run, Grad-CAM.

Every part has a time limit; a part that fails or is cut off is reported, and the others still run. Photographs are synthetic,
weights are random: neither changes the speed. Prints one line per figure, and the device.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --smoke --device cpu
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LIMITS_S = {"tests": 120, "features": 90, "training": 90, "cifar": 120, "heatmaps": 45}
"""Maximum seconds of each part; 465 in all."""
FULL = {"photographs": 2000, "side": 500, "epochs": 2, "cifar": 50_000, "cifar_epochs": 3, "arrays": 512, "networks": 2}
SMOKE = {"photographs": 24, "side": 160, "epochs": 1, "cifar": 200, "cifar_epochs": 1, "arrays": 4, "networks": 1}
NETWORKS = ("mobilenetv3_large_100", "resnet50")


def write_photographs(folder: Path, count: int, side: int) -> Path:
    """Write JPEG files of two classes: noise of low frequency, brighter on the left or on the right."""
    random = np.random.default_rng(0)
    slope = np.linspace(-60, 60, side)[None, :, None]
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((side, side))
        pixels = np.clip(np.asarray(coarse, dtype=np.float64) * 0.5 + 64 + (slope if i % 2 else -slope), 0, 255)
        file = folder / ("left", "right")[i % 2] / f"{i:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file, quality=90)
    return folder


def tests(options: argparse.Namespace, sizes: dict[str, int], folder: Path) -> None:
    """Run the tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"tests marked gpu: {(done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1]}")


def features(options: argparse.Namespace, sizes: dict[str, int], folder: Path) -> None:
    """Measure files → features in every precision."""
    from sightline import catalog, engine, networks
    from sightline import features as extraction
    from sightline.store import Cache

    files = catalog.image_files(write_photographs(folder / "photographs", sizes["photographs"], sizes["side"]))[0]
    for name in NETWORKS[: sizes["networks"]]:
        cache = Cache(folder / "cache")
        backbone = networks.describe(name, weights="random", cache=cache)
        for precision in dict.fromkeys(("f32", engine.fast_precision(options.device))):
            session = engine.open_session(backbone, cache=cache, precision=precision, device=options.device)
            extraction.compute(files[:16], backbone.preprocess, session)
            started = time.perf_counter()
            extraction.compute(files, backbone.preprocess, session)
            rate = len(files) / (time.perf_counter() - started)
            print(f"features, {name}, {session.runtime} {session.precision}, {sizes['side']} px files: {rate:,.0f} images/s")


def training(options: argparse.Namespace, sizes: dict[str, int], folder: Path) -> None:
    """Measure training of all layers of a ResNet-18 at 224 px from files."""
    photographs = write_photographs(folder / "photographs", sizes["photographs"], sizes["side"])
    settings = {"epochs": sizes["epochs"], "batch_size": 64 if sizes is FULL else 8}
    side = 224 if sizes is FULL else 32
    _fit(photographs, folder, options.device, {"backbone": "resnet18", "image_size": side, "settings": settings})


def cifar(options: argparse.Namespace, sizes: dict[str, int], folder: Path) -> None:
    """Measure training on as many images of 32 px as CIFAR-10 has, from an array file."""
    random = np.random.default_rng(0)
    labels = np.arange(sizes["cifar"]) % 10
    images = random.integers(0, 156, (sizes["cifar"], 32, 32, 3), dtype=np.uint8) + (10 * labels)[:, None, None, None]
    file = folder / "cifar.npz"
    np.savez(file, images=images.astype(np.uint8), labels=labels)
    settings = {"epochs": sizes["cifar_epochs"], "batch_size": 512 if sizes is FULL else 32, "learning_rate": 0.1}
    _fit(file, folder, options.device, {"backbone": "resnet9", "image_size": 32, "settings": settings})


def _fit(photos: Path, folder: Path, device: str, recipe: dict[str, Any]) -> None:
    """Train a recipe from scratch, and print images per second after the first epoch, which contains start-up."""
    import sightline as sl
    from sightline.records import Recipe
    from sightline.store import Cache

    made = Recipe(method="scratch", weights="random", **recipe)
    started = time.perf_counter()
    run = sl.fit(sl.scan(photos), made, out=folder / f"run-{made.id[:8]}", device=device, cache=Cache(folder / "cache"))
    seconds = time.perf_counter() - started
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    images = record["data"]["split"]["train"]["n"] if "split" in record.get("data", {}) else None
    history = [row for row in record["history"] if row.get("epoch", 0) > 0]
    last = history[-1].get("seconds")
    rate = f", {images / last:,.0f} images/s in the last epoch" if images and last else ""
    print(f"training, {made.backbone} at {made.image_size} px, {len(history)} epochs: {seconds:.1f} s with start-up{rate}")


def heatmaps(options: argparse.Namespace, sizes: dict[str, int], folder: Path) -> None:
    """Measure Grad-CAM of arrays: forward pass with maps, and the heatmap of each image."""
    from sightline import engine, explanation, networks
    from sightline.records import Head
    from sightline.store import Cache

    cache, random = Cache(folder / "cache"), np.random.default_rng(0)
    for name in NETWORKS[: sizes["networks"]]:
        backbone = networks.describe(name, weights="random", cache=cache)
        head = Head("logistic", 3, {}, {"weights": random.normal(size=(3, backbone.features)).astype(np.float32)})
        head.arrays["bias"] = np.zeros(3, np.float32)  # type: ignore[index]
        images = random.integers(0, 256, (sizes["arrays"], *backbone.preprocess.size, 3), dtype=np.uint8)
        fast = engine.fast_precision(options.device)
        session = engine.open_session(backbone, cache=cache, precision=fast, device=options.device)
        how = explanation.ExplainOptions(method="gradcam", cache=cache, device=options.device)

        def once(part: np.ndarray, session: Any = session, head: Head = head, how: Any = how) -> None:
            size = session.batch_size
            for start in range(0, len(part), size):
                some = part[start : start + size]
                n = len(some)
                shown: dict[str, Any] = {"paths": [str(i) for i in range(n)], "targets": [1] * n, "classes": ("a", "b", "c")}
                shown |= {"boxes": [(0.0, 0.0, 224.0, 224.0)] * n, "options": how, "maps": session.run(some, maps=True)[1]}
                explanation.explain(session, head, some, **shown)

        once(images[:8])
        started = time.perf_counter()
        once(images)
        rate = len(images) / (time.perf_counter() - started)
        print(f"Grad-CAM of arrays, {name}, {session.runtime} {session.precision}: {rate:,.0f} images/s")


PARTS: dict[str, Callable[[argparse.Namespace, dict[str, int], Path], None]] = {
    "tests": tests,
    "features": features,
    "training": training,
    "cifar": cifar,
    "heatmaps": heatmaps,
}


def main() -> None:
    """Run each part in a process of its own, with its time limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu", "mps"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that every part works")
    parser.add_argument("--part", choices=PARTS, help="run this part alone, in this process")
    options = parser.parse_args()
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[options.part](options, SMOKE if options.smoke else FULL, Path(folder))
        return
    import torch

    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"device: {name}; torch {torch.__version__}", flush=True)
    for part, limit_s in LIMITS_S.items():
        command = [sys.executable, __file__, "--part", part, "--device", options.device, *(["--smoke"] * options.smoke)]
        started = time.perf_counter()
        try:
            code = subprocess.run(command, timeout=limit_s, check=False).returncode
            outcome = "done" if code == 0 else f"FAILED with exit code {code}"
        except subprocess.TimeoutExpired:
            outcome = f"CUT OFF after {limit_s} s"
        print(f"[{part}: {outcome}, {time.perf_counter() - started:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
