"""Overview of a catalog: sizes, shapes, the size to work at, what the crop cuts off, and a sheet of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sightline import catalog
from sightline.errors import RequestError

Paint = Callable[..., Image.Image]


def test_overview_counts_and_advises(tmp_path: Path, paint: Paint) -> None:
    for i, (w, h) in enumerate([(300, 140), (300, 150), (140, 300), (200, 200)]):
        (tmp_path / f"c{i % 2}").mkdir(exist_ok=True)
        paint(i, w, h).save(tmp_path / f"c{i % 2}" / f"{i}.{'png' if i else 'jpg'}")
    found = catalog.overview(catalog.scan(tmp_path))
    assert found.classes == {"c0": 2, "c1": 2}
    assert found.formats == {"PNG": 3, "JPEG": 1}
    assert found.shapes == {"wide": 2, "tall": 1, "square": 1}
    assert found.shorter_px == {"min": 140, "median": 145.0, "max": 200}
    assert (found.enlarged[128], found.enlarged[160], found.work_size_px) == (0, 0.75, 128)
    assert found.cropped == 0.75
    text = "\n".join(catalog.overview_lines(found))
    assert "work at 128 px or less" in text and "--fit pad" in text and "JPEG 1" in text


def test_sheet_shows_each_class(tmp_path: Path, paint: Paint) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(3):
            paint(i).save(tmp_path / label / f"{i}.png")
    (tmp_path / "cat" / "broken.png").write_bytes((tmp_path / "cat" / "0.png").read_bytes()[:200])
    out = tmp_path / "samples.png"
    shown = catalog.write_sheet(catalog.scan(tmp_path), out)
    assert sorted(p.partition("/")[0] for p in shown) == ["cat"] * 3 + ["dog"] * 3
    assert Image.open(out).size[0] > 1000
    with pytest.raises(RequestError, match=r"samples\.gif is not a \.png"):
        catalog.check_sheet(tmp_path / "samples.gif")
