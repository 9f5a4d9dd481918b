"""One classifier through every way out: `predict`, `serve`, the scikit-learn interface, ONNX, OpenVINO and the exported page.

For each folder of photographs, a classifier is fitted on its images, and up to 200 of them are written again in mixed formats
and EXIF orientations. The table gives the number of images on which each way predicts the same class as `predict`, and the
largest difference of a probability: exactly 0 for `serve` and the estimator.

    SIGHTLINE_WEIGHTS=weights python benchmarks/round_trips.py PHOTOS PHOTOS --network mobilenetv2_100 --browser chromium
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sightline as sl
from sightline.commands.export import export
from sightline.store import Cache
from tests.browser.drive import browser, wait_for

BOUNDARY = "frontier"
Predict = Callable[[Sequence[Path]], np.ndarray]
"""Image files → probabilities (n, k)."""


def main() -> None:
    """Print one line per set of photographs and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", help="folders with a folder per class")
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--images", type=int, default=200, help="images to predict in every way")
    parser.add_argument("--train", type=int, default=400, help="images to fit the classifier on")
    parser.add_argument("--browser", choices=("chromium", "firefox"), help="open the exported page in this browser too")
    options = parser.parse_args()
    for photos in options.photos:
        with tempfile.TemporaryDirectory() as folder:
            compare(photos, Path(folder), options)


def compare(photos: Path, folder: Path, options: argparse.Namespace) -> None:
    """Fit a classifier on photographs and predict mixed copies of them in every way."""
    catalog = sl.scan(photos)
    usable = catalog.usable()
    order = np.random.default_rng(0).permutation(len(usable))
    files = [usable.root / path for path in usable.column("path")]
    train = order[: options.train]
    cache = Cache(folder / "cache")
    estimator = sl.ImageClassifier(options.network, "logistic", cache=folder / "cache")
    estimator.fit([files[i] for i in train], [usable.column("label")[i] for i in train])
    model = folder / "classifier.safetensors"
    estimator.save(model)
    copies = mixed([files[i] for i in order[: options.images]], folder / "mixed")
    expected = sl.predict(model, copies, cache=cache).probs
    ways: list[tuple[str, Predict]] = [("estimator", lambda chosen: np.asarray(estimator.predict_proba(list(chosen))))]
    ways.append(("serve", lambda chosen: served(model, chosen)))
    for to in ("onnx", "openvino"):
        export(model, to, folder / to, images=[photos], allow_difference=True, cache=cache)
        predict = runpy.run_path(str(folder / to / "predict.py"))["predict"]
        ways.append((to, lambda chosen, predict=predict: np.array([predict(path) for path in chosen])))
    if options.browser:
        export(model, "html", folder / "html", images=[photos], allow_difference=True, cache=cache)
        (page,) = (folder / "html").glob("*.html")
        ways.append((f"html {page.stat().st_size / 1e6:.1f} MB", lambda chosen: shown(options.browser, page, chosen)))
    for name, way in ways:
        probs = way(copies)
        read = np.isfinite(probs).all(axis=1)
        same = int((probs.argmax(axis=1) == expected.argmax(axis=1))[read].sum())
        difference = np.abs(probs - expected).max(axis=1)[read]
        largest = f"largest difference {difference.max():.2g}, median {np.median(difference):.2g}"
        print(f"{photos.name}: {name}: {same} of {read.sum()} the same class, {largest}", flush=True)


def mixed(files: Sequence[Path], folder: Path) -> list[Path]:
    """Write images again as JPEG, PNG, WebP, TIFF, grey, CMYK and transparent ones, turned by EXIF in every third JPEG."""
    folder.mkdir()
    written = []
    for number, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        kind = number % 8
        exif = Image.Exif()
        exif[0x0112] = 1 + number // 8 % 8
        target = folder / f"{number:03d}.{('jpg', 'jpg', 'jpg', 'png', 'webp', 'tif', 'jpg', 'png')[kind]}"
        if kind == 1:
            image = image.convert("L")
        if kind == 6:
            image = image.convert("CMYK")
        if kind == 7:
            image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda v: 255 if v > 60 else 0))
        image.save(target, **({"exif": exif} if kind in (0, 4) else {}), **({"quality": 92} if kind in (0, 1, 2, 6) else {}))
        written.append(target)
    return written


def served(model: Path, files: Sequence[Path]) -> np.ndarray:
    """Return probabilities from `sightline serve` in a process of its own, eight images per request."""
    command = [sys.executable, "-m", "sightline", "serve", str(model), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            lines = ""
            while not lines.rstrip().endswith("}"):
                lines += process.stdout.readline()
            url = json.loads(lines)["url"].rstrip("/")
            found: list[list[float]] = []
            for first in range(0, len(files), 8):
                parts = [
                    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{file.name}"\r\n\r\n'.encode()
                    + file.read_bytes()
                    for file in files[first : first + 8]
                ]
                body = b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
                headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
                with urllib.request.urlopen(urllib.request.Request(f"{url}/predict", body, headers), timeout=120) as answer:
                    found += [list(item["probabilities"].values()) for item in json.load(answer)["predictions"]]
            return np.array(found)
        finally:
            process.terminate()


def shown(name: str, page: Path, files: Sequence[Path]) -> np.ndarray:
    """Return the probabilities that the exported page shows in a browser; NaN for formats that the browser cannot read."""
    cards = "[...document.querySelectorAll('.card')]"
    with browser(name, page.as_uri()) as opened:
        wait_for(opened, "document.body && document.body.dataset.readySeconds")
        for first in range(0, len(files), 10):
            opened.choose("#file", list(files[first : first + 10]))
            done = f"{cards}.filter((c) => c.dataset.probabilities || c.dataset.error).length"
            wait_for(opened, f"{done} === {min(len(files), first + 10)}")
        values = dict(opened.evaluate(f"{cards}.map((c) => [c.dataset.name, c.dataset.probabilities])"))
    width = max(len(json.loads(text)) for text in values.values() if text)
    return np.array([json.loads(values[f.name]) if values[f.name] else [np.nan] * width for f in files])


if __name__ == "__main__":
    main()
