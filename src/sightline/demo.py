"""The demo's photographs: the handwritten digits that scikit-learn ships, as PNG files in class folders."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from sightline import store
from sightline.files import read_bytes

CELL_PX = 4
"""Side of the square that each of a digit's 8×8 values fills, in pixels."""


def write_digits(folder: Path) -> Path:
    """Write the 1,797 digits of `sklearn.datasets.load_digits` into one folder per class, whatever is missing or changed.

    Each stored value, 0 to 16, counts the inked pixels of a 4×4 block of the 32×32 bitmap that was scanned. So each is
    written back as a 4×4 block whose grey is its share of ink, white on black: 32×32 pixels, nothing invented, and a
    network that sees 32 px gets them without resampling. The bytes are the same at every call; a file that is as it
    should be is left alone, and each file appears whole or not at all.

    Args:
        folder: Where the folders `0` to `9` go; made if need be.

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
            with store.atomic_file(file, sync=False) as stream:  # 1,797 syncs take minutes; the next call mends a loss
                stream.write(data)
    return folder


def png(image: np.ndarray) -> bytes:
    """A digit as the bytes of a PNG file, stored without compression: its size would give the class away, since a 1 packs well.

    Args:
        image: Ink, 0 to 16, shape (8, 8).
    """
    from PIL import Image

    grey = np.rint(image * (255 / 16)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(np.kron(grey, np.ones((CELL_PX, CELL_PX), dtype=np.uint8))).save(data, "PNG", compress_level=0)
    return data.getvalue()
