"""HEIC, the format of phones: decoded by pi-heif where it is installed, else with the command that installs it."""

from __future__ import annotations

import base64
import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import catalog, pixels
from sightline.errors import DataError, ImageError
from sightline.pixels import isolation
from sightline.runs.dataset import check_usable

HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAAB7AABAAAAAAAAAFwAAgAAAAACSAABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGE"
    "ABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkA"
    "AAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEH"
    "BpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAIhtZGF0AAAA"
    "WCgBr1j5ExV/+ia/7ESFSvLxzDULWQ7j9am62plQT/ww8YGt7z9CNrI8X/1+vik32t3SNC704LPZj57VJoL8H0pNq5gGnLU2//E2pZ10kCN0+M"
    "kxTCVufMYAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)
"""64×48 pixels, left half red, right half blue, the upper half darker, to be turned by 90° (EXIF orientation 6)."""


def test_a_phone_photograph_is_decoded_upright() -> None:
    pytest.importorskip("pi_heif")
    header = pixels.read_header(HEIC, "IMG_1.heic")
    assert (header.width, header.height, header.format, header.mode, header.notes) == (48, 64, "HEIF", "RGB", ())
    image = pixels.upright(HEIC)
    assert image.shape == (64, 48, 3)
    corners = np.array([image[5, 5], image[5, -5], image[-5, 5], image[-5, -5]], dtype=int)
    assert np.abs(corners - [[220, 40, 40], [110, 20, 20], [40, 60, 220], [20, 30, 110]]).max() < 12


def test_damaged_files_are_refused() -> None:
    pytest.importorskip("pi_heif")
    for data in (HEIC[:300], HEIC[:24], HEIC[:100] + bytes(520)):
        with pytest.raises(ImageError):
            pixels.upright(data)


def test_without_pi_heif_one_line_tells_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/3.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(HEIC + name.encode("ascii"))
    imported = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pi_heif"):
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr(isolation, "_inside", True)  # decode in this process
    found = catalog.scan(tmp_path)
    assert [n for n in found.notes if "HEIC" in n] == [
        '3 HEIC images were left out: pip install "sightline[heic]" to read them'
    ]
    with pytest.raises(DataError) as caught:
        check_usable(found, "photos")
    assert caught.value.hint == 'pip install "sightline[heic]"'
