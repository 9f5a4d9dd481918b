"""Brightness, contrast and sharpness: their values, caching by content, and images without pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sightline import pixels
from sightline.catalog.looks import of_image
from sightline.catalog.statistics import STATISTICS, statistics
from sightline.store import Cache, file_digest


def photograph() -> Image.Image:
    """Edges and shades at many scales."""
    random = np.random.default_rng(0)
    parts = [random.integers(40, 216, (n, n, 3)).astype(np.uint8) for n in (6, 24, 96)]
    large = [np.asarray(Image.fromarray(p).resize((192, 192), Image.Resampling.BILINEAR), dtype=float) for p in parts]
    return Image.fromarray(np.mean(large, axis=0).astype(np.uint8))


def test_darker_is_darker_and_blurred_is_less_sharp() -> None:
    plain = photograph()
    dark = Image.fromarray((np.asarray(plain) * 0.4).astype(np.uint8))
    bright, contrast, sharp = of_image(np.asarray(plain))[:3]
    assert of_image(np.asarray(dark))[0] == pytest.approx(0.4 * bright, rel=0.02)
    assert of_image(np.asarray(dark))[1] == pytest.approx(0.4 * contrast, rel=0.05)
    assert of_image(np.asarray(dark))[2] == pytest.approx(sharp, rel=0.15), "dark is not blurred"
    blurred = [of_image(np.asarray(plain.filter(ImageFilter.GaussianBlur(r))))[2] for r in (0, 1, 2, 4)]
    assert blurred == sorted(blurred, reverse=True) and blurred[2] < sharp / 5


def test_sharpness_does_not_grow_with_the_file(tmp_path: Path, cache: Cache) -> None:
    """The same picture, once enlarged: measured at one size."""
    plain = photograph()
    plain.resize((256, 256), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    plain.resize((1024, 1024), Image.Resampling.BICUBIC).save(tmp_path / "b.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    found = statistics(files, [file_digest(f) for f in files], cache)
    assert found["sharpness"][1] == pytest.approx(found["sharpness"][0], rel=0.3)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 9, 3), (5, 5, 3)])
def test_images_too_small_to_measure_have_zero_statistics(shape: tuple[int, ...]) -> None:
    assert of_image(np.zeros(shape, np.uint8))[:3].tolist() == [0.0, 0.0, 0.0]


def test_an_image_is_decoded_once_and_duplicates_share(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph().save(tmp_path / "a.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    files = [tmp_path / n for n in ("a.png", "copy.png", "broken.png")]
    contents = [file_digest(f) for f in files]
    decoded: list[Path] = []
    real = pixels.preview
    monkeypatch.setattr(pixels, "preview", lambda file, *rest: (decoded.append(file), real(file, *rest))[1])
    first = statistics(files, contents, cache)
    assert sorted(f.name for f in decoded) == ["a.png", "broken.png"]
    again = statistics(files, contents, cache)
    assert len(decoded) == 2, "the cache was not used"
    for name in STATISTICS:
        np.testing.assert_array_equal(first[name], again[name])
        assert first[name][0] == first[name][1] and np.isnan(first[name][2])


def test_files_with_a_temporary_problem_are_read_again(tmp_path: Path, cache: Cache) -> None:
    file = tmp_path / "late.png"
    assert np.isnan(statistics([file], ["f" * 64], cache)["brightness"]).all()
    photograph().save(file)
    assert np.isfinite(statistics([file], ["f" * 64], cache)["brightness"]).all()
    assert {len(v) for v in statistics([], [], cache).values()} == {0}
