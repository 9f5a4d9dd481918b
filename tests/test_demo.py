"""The demo's photographs are real, complete, the same at every call, and mended where they were changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from sightline import demo


def test_every_digit_is_written_once_in_the_folder_of_its_class(tmp_path: Path) -> None:
    folder = demo.write_digits(tmp_path / "digits")
    digits = load_digits()
    files = sorted(folder.rglob("*.png"), key=lambda file: file.name)
    assert len(files) == 1797
    assert [int(file.parent.name) for file in files] == digits.target.tolist()
    assert len({file.stat().st_size for file in files}) == 1  # the size says nothing about the class
    for number in (0, 900, 1796):
        pixels = np.asarray(Image.open(files[number]))
        assert pixels.shape == (32, 32)
        cells = pixels.reshape(8, 4, 8, 4)
        assert (cells == cells[:, :1, :, :1]).all()  # each value is one square of one grey
        assert np.abs(cells[:, 0, :, 0] / 255 * 16 - digits.images[number]).max() < 0.04


def test_a_second_call_writes_what_is_missing_or_changed_and_nothing_else(tmp_path: Path) -> None:
    folder = demo.write_digits(tmp_path / "digits")
    missing, changed, *others = sorted(folder.rglob("*.png"))
    before = {file: file.read_bytes() for file in (missing, changed)}
    times = {file: file.stat().st_mtime_ns for file in others}
    missing.unlink()
    changed.write_bytes(b"half")
    demo.write_digits(folder)
    assert {file: file.read_bytes() for file in (missing, changed)} == before
    assert {file: file.stat().st_mtime_ns for file in others} == times
