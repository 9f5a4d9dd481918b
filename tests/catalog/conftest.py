"""Synthetic images that hash like photographs: smooth, detailed, and all different."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Paint = Callable[..., Image.Image]


@pytest.fixture(scope="session")
def paint() -> Paint:
    """`paint(seed, width, height)`: an RGB image of that seed."""

    def make(seed: int, width: int = 96, height: int = 72) -> Image.Image:
        random = np.random.default_rng(seed)
        total = np.zeros((height, width, 3), np.float32)
        for side, weight in ((3, 60), (6, 40), (12, 25), (24, 12)):
            grid = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
            total += weight / 128 * (np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128)
        return Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))

    return make


@pytest.fixture
def photos(tmp_path: Path, paint: Paint) -> Callable[..., Path]:
    """`photos("cat/1.jpg", "dog/2.png", …)`: a folder with an image at each place, all different."""

    def make(*names: str, root: str = "photos") -> Path:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for name in names:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            paint(sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**32).save(file)
        return folder

    return make
