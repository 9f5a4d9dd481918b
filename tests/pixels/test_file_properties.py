"""File properties are read without decoding: quality, EXIF software, camera and date."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sightline import pixels


def test_quality_software_camera_and_date_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0131], exif[0x010F], exif[0x0110], exif[0x0132] = "GIMP 2.10", "ACME", "X1", "2019:05:04 10:00:00"
    Image.new("RGB", (40, 30), (90, 20, 10)).save(tmp_path / "a.jpg", quality=85, exif=exif)
    monkeypatch.setattr("sightline.pixels.opening.load", lambda *a: pytest.fail("decoded"))
    found = pixels.file_properties(tmp_path / "a.jpg")
    assert (found["jpeg_quality"], found["software"], found["camera"]) == ("85", "GIMP 2.10", "ACME X1")
    assert found["date"] == "2019-05-04" and found["width"] == "40"


def test_damaged_exif_and_other_formats_give_what_is_known(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00nonsense")
    Image.new("RGBA", (8, 9)).save(tmp_path / "b.png")
    assert pixels.file_properties(tmp_path / "a.jpg")["format"] == "JPEG"
    found = pixels.file_properties(tmp_path / "b.png")
    assert (found["format"], found["mode"], found["height"]) == ("PNG", "RGBA", "9") and "jpeg_quality" not in found
