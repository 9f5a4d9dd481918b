"""Demo data: write scikit-learn's handwritten digits as PNG files in class folders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from sightline import store
from sightline.files import read_bytes

CELL_PX = 4
"""Side in pixels of the square that shows one of a digit's 8×8 values."""


def write_digits(folder: Path) -> Path:
    """Write the 1,797 digits of `sklearn.datasets.load_digits` into one folder per class.

    Each value, 0 to 16, is the number of inked pixels in a 4×4 block of the scanned 32×32 bitmap. It is written as a uniform
    4×4 block with proportional grey level, white on black, so that a network with 32 px input needs no resampling. The bytes
    are the same on every call; only missing or changed files are written, each atomically.

    Args:
        folder: Parent of the folders `0` to `9`; created if missing.

    Returns:
        The folder.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (CC BY 4.0); its test part.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / str(label) / f"digit_{number:04d}.png"
        data = png(image)
        if not file.is_file() or read_bytes(file) != data:
            with store.atomic_file(file, sync=False) as stream:  # 1,797 syncs take minutes; the next call rewrites lost files
                stream.write(data)
    return folder


def png(image: np.ndarray) -> bytes:
    """Return a digit as an uncompressed PNG file: the size of a compressed one would depend on the class.

    Args:
        image: (8, 8), amount of ink, 0 to 16.
    """
    from PIL import Image

    grey = np.rint(image * (255 / 16)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(np.kron(grey, np.ones((CELL_PX, CELL_PX), dtype=np.uint8))).save(data, "PNG", compress_level=0)
    return data.getvalue()
