"""Compare the speed of augmentation in Sightline and torchvision v2, with the same policy.

The policy: horizontal flip, rotation, zoom, shift, brightness, contrast and saturation, with normalised float output. Sightline
applies one warp and one colour matrix. torchvision runs image by image (as in a DataLoader) on uint8 tensors, float tensors and
Pillow images, with one thread or all, and on whole batches, where v2 draws one transformation for all images, which is less
work. All variants take turns on the same images; medians of the rounds are compared.

    python benchmarks/augment.py
    python benchmarks/augment.py --threads 2 --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from sightline.training import augment

SIZES = {64: (256, 7.0), 224: (48, 3.0)}
"""Side in px → (number of images, target ratio)."""
POLICY = augment.POLICIES["photo"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Way = Callable[[], object]


def pictures(n: int, side: int) -> np.ndarray:
    """Return smooth, slightly noisy images uint8 (n, side, side, 3); the time does not depend on their content."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(9 * x + 7 * y + c) for c in range(3)], axis=2)
    values = 128 + 80 * waves + rng.normal(0, 20, (n, side, side, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def ours(images: np.ndarray) -> Way:
    """Augment a batch with Sightline, including the random draws; the images' means are computed once per training."""
    tensor, means = torch.from_numpy(images), images.mean(axis=(1, 2))

    def run() -> Tensor:
        drawn = augment.draw(POLICY, len(images), seed=0, epoch=1)
        changes = augment.prepare(drawn, images.shape[1:3], means, MEAN, STD, padding=POLICY.padding)
        return augment.apply(tensor, changes)

    return run


def transforms() -> list[v2.Transform]:
    """Return the same policy in v2; its affine transform fills with black, which is less work than mirroring the border."""
    low, high = POLICY.span("zoom")
    return [
        v2.RandomHorizontalFlip(POLICY.flip),
        v2.RandomAffine(
            POLICY.rotation,
            translate=(POLICY.shift, POLICY.shift),
            scale=(1 + low, 1 + high),
            interpolation=v2.InterpolationMode.BILINEAR,
        ),
        v2.ColorJitter(POLICY.brightness, POLICY.contrast, POLICY.saturation),
    ]


def theirs(images: np.ndarray) -> dict[str, Way]:
    """Return the variants of v2 by name."""
    normal = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(MEAN), list(STD))]
    late, early = v2.Compose([*transforms(), *normal]), v2.Compose([normal[0], *transforms(), normal[1]])
    pillow = v2.Compose([*transforms(), v2.ToImage(), *normal])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    from PIL import Image

    opened = [Image.fromarray(image) for image in images]

    def each(transform: v2.Compose, items: object) -> Way:
        return lambda: torch.stack([transform(item) for item in items])  # type: ignore[attr-defined]

    def whole(transform: v2.Compose) -> Way:
        return lambda: torch.cat([transform(part) for part in batch.split(64)])

    return {
        "per image, uint8": each(late, batch),
        "per image, float": each(early, batch),
        "per image, Pillow": each(pillow, opened),
        "per batch of 64, uint8": whole(late),
        "per batch of 64, float": whole(early),
    }


def seconds(run: Way, threads: int) -> float:
    """Return the seconds of one pass over all images."""
    torch.set_num_threads(threads)
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(side: int, threads: int, rounds: int) -> None:
    """Time all variants in turn at one size and print a line for each."""
    count, wanted = SIZES[side]
    images = pictures(count, side)
    counts = sorted({1, threads})
    ways = {("Sightline", t): ours(images) for t in counts}
    ways |= {(f"v2 {name}", t): run for name, run in theirs(images).items() for t in counts}
    for (_, t), run in ways.items():
        seconds(run, t)  # warm
    taken: dict[tuple[str, int], list[float]] = {key: [] for key in ways}
    for _ in range(rounds):
        for (name, t), run in ways.items():
            taken[name, t].append(seconds(run, t))
    rate = {key: count / statistics.median(values) for key, values in taken.items()}
    print(f"{side}×{side}, images/s" + "".join(f"  {t} thread(s)" for t in counts))
    for name in dict.fromkeys(name for name, _ in ways):
        print(f"  {name:<26}" + "".join(f"{rate[name, t]:13,.0f}" for t in counts))
    mine = max(rate["Sightline", t] for t in counts)
    for what in ("per image", "per batch"):
        best = max((key for key in rate if what in key[0]), key=lambda key: rate[key])
        goal = f", wanted {wanted:g}" if what == "per image" else ", though every image of a batch is changed alike"
        print(f"  ratio to the best {what}: {mine / rate[best]:5.2f}  ({best[0]}, {best[1]} thread(s){goal})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for side in SIZES:
        compare(side, options.threads, options.rounds)


if __name__ == "__main__":
    main()
