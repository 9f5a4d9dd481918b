"""Compare the speed of decoding a JPEG to 224×224 pixels in Sightline and plain Pillow (decode, convert, resize, crop).

The two take turns on the same bytes; medians of the rounds are compared, and the mean difference of their pixels is printed in
grey levels. The images come from a folder or are generated: a texture with the spectrum of photographs, lens blur, and the
bytes per pixel of web photographs of that size (0.3 at 500 px, 0.15 above 1,500 px), since the time of entropy decoding depends
on the number of bytes.

    python benchmarks/decode.py
    python benchmarks/decode.py PHOTOS --threads 2
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sightline import pixels

SIZES = {  # (width, height): images, the blur's cut-off in cycles a pixel, the ratio that is wanted
    (500, 375): (24, 0.17, 1.3),
    (1024, 768): (8, 0.08, None),
    (4000, 3000): (2, 0.055, 7.0),
}
PREPROCESS = pixels.Preprocess()


def plain(data: bytes) -> np.ndarray:
    """Decode with Pillow: full decoding, conversion, resizing, centre crop."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    short = round(PREPROCESS.size[0] / PREPROCESS.crop_fraction)
    scale = short / min(image.size)
    wide, tall = (max(short, int(side * scale)) for side in image.size)
    image = image.resize((wide, tall), Image.Resampling.BICUBIC)
    left, top = round((wide - 224) / 2), round((tall - 224) / 2)
    return np.asarray(image.crop((left, top, left + 224, top + 224)))


def ours(data: bytes) -> np.ndarray:
    """Decode with Sightline."""
    return pixels.decode(data, PREPROCESS)


def texture(width: int, height: int, cutoff: float, seed: int) -> bytes:
    """Return a JPEG similar to a photograph: blurred noise with a 1/f spectrum, mostly shared by the three channels."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    lens = np.exp(-((frequency / cutoff) ** 2)) / frequency
    noise = rng.standard_normal((4, height, width))
    filtered = [np.fft.irfft2(np.fft.rfft2(n) * lens, s=(height, width)) for n in noise]
    values = np.stack([filtered[0] + 0.4 * c for c in filtered[1:]], axis=2)
    values = 120 + 50 * (values - values.mean()) / values.std()
    stream = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def seconds(decoder: Callable[[bytes], np.ndarray], images: list[bytes], pool: ThreadPoolExecutor) -> float:
    """Return the seconds for all images."""
    started = time.perf_counter()
    for _ in pool.map(decoder, images):
        pass
    return time.perf_counter() - started


def compare(name: str, images: list[bytes], threads: int, rounds: int, wanted: float | None) -> None:
    """Time both in turn and print one line."""
    difference = np.mean([np.abs(ours(d).astype(int) - plain(d)).mean() for d in images])
    with ThreadPoolExecutor(threads) as pool:
        pairs = [(seconds(plain, images, pool), seconds(ours, images, pool)) for _ in range(rounds)]
    theirs, own = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    goal = f", wanted {wanted:g}" if wanted else ""
    weight = sum(map(len, images)) / sum(h.width * h.height for h in (pixels.read_header(d, "") for d in images))
    print(
        f"{name:<10} {weight:.2f} bytes/pixel   Pillow {len(images) / theirs:7.1f}/s   Sightline {len(images) / own:7.1f}/s   "
        f"ratio {theirs / own:5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}{goal})   mean difference {difference:.2f} grey levels"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of JPEG files, instead of made ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=int, default=200, help="files of the folder")
    options = parser.parse_args()
    print(
        f"{options.threads} thread(s), {options.rounds} rounds in turn, {PREPROCESS.interpolation}, medians (range of ratios)"
    )
    if options.photos:
        files = [f for f in sorted(options.photos.rglob("*")) if f.suffix.lower() in (".jpg", ".jpeg")]
        chosen = files[:: max(1, len(files) // options.limit)][: options.limit]
        compare(f"{len(chosen)} files", [f.read_bytes() for f in chosen], options.threads, options.rounds, None)
        return
    for (width, height), (count, cutoff, wanted) in SIZES.items():
        images = [texture(width, height, cutoff, seed) for seed in range(count * options.threads)]
        compare(f"{width}×{height}", images, options.threads, options.rounds, wanted)


if __name__ == "__main__":
    main()
