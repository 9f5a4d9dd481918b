"""Unusual images: outliers of a set are reported, uniform sets are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from sightline import catalog
from sightline.store import Cache

Paint = Callable[..., Image.Image]


def detailed(paint: Paint, i: int) -> Image.Image:
    """An image with fine detail, as photographs have."""
    image = np.asarray(paint(i, 220, 180), np.float32)
    noise = np.random.default_rng(i).normal(0, 24, image.shape[:2])
    return Image.fromarray(np.clip(image + noise[..., None], 0, 255).astype(np.uint8))


def test_each_kind_of_unusual_image_is_found_and_nothing_else(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    (tmp_path / "c").mkdir()
    for i in range(60):
        detailed(paint, i).save(tmp_path / "c" / f"usual{i}.png")
    odd = {
        "blurred": detailed(paint, 101).filter(ImageFilter.GaussianBlur(6)),
        "dark": detailed(paint, 102).point(lambda v: v // 8),
        "bright": detailed(paint, 103).point(lambda v: 225 + v // 9),
        "low_information": Image.new("RGB", (220, 180), (120, 30, 90)),
        "odd_size": detailed(paint, 104).resize((22, 18)),
        "odd_aspect": detailed(paint, 105).resize((440, 90)),
        "grey": detailed(paint, 106).convert("L").convert("RGB"),
        "border": ImageOps.expand(detailed(paint, 107).crop((10, 10, 210, 170)), 10, "black"),
    }
    for kind, image in odd.items():
        image.save(tmp_path / "c" / f"{kind}.png")
    found = catalog.scan(tmp_path)
    findings = catalog.quality_findings(found, catalog.measure(found, cache))
    kinds = {(f.path.removeprefix("c/").removesuffix(".png"), f.kind) for f in findings}
    assert {(kind, kind) for kind in odd} <= kinds
    assert not [f for f in findings if "usual" in f.path]


@pytest.mark.parametrize("edit", [lambda i: i.point(lambda v: v // 8), lambda i: i.convert("L").convert("RGB")])
def test_images_that_are_all_dark_or_grey_are_not_reported(
    tmp_path: Path, paint: Paint, cache: Cache, edit: Callable[[Image.Image], Image.Image]
) -> None:
    (tmp_path / "c").mkdir()
    for i in range(12):
        edit(detailed(paint, i)).save(tmp_path / "c" / f"{i}.png")
    found = catalog.scan(tmp_path)
    assert catalog.quality_findings(found, catalog.measure(found, cache)) == []
