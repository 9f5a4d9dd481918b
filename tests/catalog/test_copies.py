"""Copies of images: the kinds of edits that the search finds, images of one scene, and one decode for all measures."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from sightline import catalog, pixels
from sightline.catalog import confirmation, looks, windows
from sightline.store import Cache

Paint = Callable[..., Image.Image]
Edit = Callable[[Image.Image], Image.Image]


def captioned(image: Image.Image) -> Image.Image:
    out = Image.new("RGB", (image.width, image.height + 26), "white")
    out.paste(image, (0, 0))
    ImageDraw.Draw(out).text((8, image.height + 6), "Figure 3: the garden", fill="black")
    return out


def watermarked(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    from PIL import ImageFont

    ImageDraw.Draw(layer).text((30, 70), "SAMPLE", fill=(255, 255, 255, 130), font=ImageFont.load_default(40))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


EDITS: dict[str, Edit] = {
    "mirror": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "90": lambda i: i.transpose(Image.Transpose.ROTATE_90),
    "180": lambda i: i.transpose(Image.Transpose.ROTATE_180),
    "rotated": lambda i: i.rotate(2, Image.Resampling.BICUBIC).crop((10, 10, i.width - 10, i.height - 10)),
    "crop": lambda i: i.crop((int(0.15 * i.width), int(0.02 * i.height), i.width, int(0.88 * i.height))),
    "brighter": lambda i: i.point(lambda v: min(255, int(1.2 * v))),
    "gamma": lambda i: i.point(lambda v: int(255 * (v / 255) ** 1.5)),
    "grey": lambda i: i.convert("L").convert("RGB"),
    "border": lambda i: ImageOps.expand(i, 14, (200, 30, 30)),
    "caption": captioned,
    "watermark": watermarked,
    "small": lambda i: i.resize((i.width // 3, i.height // 3), Image.Resampling.LANCZOS),
}


def stacked(*images: Image.Image) -> looks.Looks:
    """Thumbnails of images."""
    thumbs = [looks.thumbnails(np.asarray(image)) for image in images]
    return looks.Looks(np.stack([t[0] for t in thumbs]), np.stack([t[1] for t in thumbs]), np.zeros((len(images), 1)), True)


def test_every_kind_of_copy_is_found_and_no_other_pair(paint: Paint) -> None:
    originals = [paint(100 + i, 300, 240) for i in range(len(EDITS))]
    copies = [edit(image) for edit, image in zip(EDITS.values(), originals, strict=True)]
    look = stacked(*originals, *copies)
    result = confirmation.confirm(look, np.full(len(look.luma), 200), windows.candidates(look.luma))
    n = len(originals)
    pairs = {(min(a, b), max(a, b)) for a, b in result.pairs.tolist()}
    assert [name for i, name in enumerate(EDITS) if (i, i + n) not in pairs] == []
    assert len(pairs) == n


def test_copies_of_tiny_images_are_found_and_digits_give_few_candidates(paint: Paint) -> None:
    from sklearn.datasets import load_digits

    from sightline import demo
    from sightline.catalog import near_duplicates

    tiny = [paint(60 + i, 300, 300).resize((32, 32), Image.Resampling.LANCZOS) for i in range(4)]
    copies = [EDITS[name](image) for name, image in zip(("mirror", "90", "180"), tiny, strict=False)]
    look = stacked(*tiny, *copies, tiny[3].crop((1, 1, 31, 32)))
    side = np.full(8, 31)
    found = near_duplicates._candidates(look.luma, side, None, lambda *_: None)
    pairs = confirmation.confirm(look, side, found).pairs
    assert sorted(map(tuple, np.sort(pairs, axis=1).tolist())) == [(0, 4), (1, 5), (2, 6), (3, 7)]

    digits = [Image.open(io.BytesIO(demo.png(image))).convert("RGB") for image in load_digits().images[:600]]
    found = near_duplicates._candidates(stacked(*digits).luma, np.full(600, 32), None, lambda *_: None)
    assert len(found.pairs) < 600


def test_hashes_find_mirrored_and_cropped_pairs_of_many_images(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search by hashes, for sets too large to compare all windows."""
    from sightline.catalog import near_duplicates

    monkeypatch.setattr(near_duplicates, "_ALL_WINDOWS", 2)
    images = [paint(40 + i, 200, 160) for i in range(4)]
    look = stacked(*images, EDITS["mirror"](images[0]), images[1].crop((12, 10, 190, 152)))
    found = near_duplicates._candidates(look.luma, np.full(6, 160), None, lambda *_: None)
    assert {(0, 4), (1, 5)} <= {(min(a, b), max(a, b)) for a, b in found.pairs.tolist()}


def test_neighbours_in_features_are_candidates(
    tmp_path: Path, paint: Paint, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.catalog import near_duplicates

    (tmp_path / "c").mkdir()
    for name, image in (("a", paint(1)), ("b", EDITS["mirror"](paint(1))), ("z", paint(2))):
        image.save(tmp_path / "c" / f"{name}.png")
    found = catalog.scan(tmp_path)
    monkeypatch.setattr(near_duplicates.windows, "candidates", lambda luma, *_: near_duplicates.windows._empty())
    assert catalog.find_duplicates(found, cache).near == []
    features = np.array([[1, 0.1], [1, 0], [np.nan, 0]], np.float32)
    assert catalog.find_duplicates(found, cache, features=features).near == [["c/a.png", "c/b.png"]]


def scenes(folder: Path, paint: Paint, backgrounds: int, objects: int) -> None:
    """Write images of fixed cameras: one class per object, one background per camera."""
    rng = np.random.default_rng(0)
    for j in range(objects):
        (folder / f"object{j}").mkdir(parents=True)
    for i in range(backgrounds):
        for j in range(objects):
            image, size = paint(1000 + i, 200, 160), int(rng.integers(36, 60))
            mask = Image.new("L", (size, size), 0)
            ImageDraw.Draw(mask).ellipse((0, 0, size - 1, size - 1), fill=255)
            at = int(rng.integers(5, 190 - size)), int(rng.integers(5, 150 - size))
            image.paste(paint(j, size, size), at, mask)
            image.save(folder / f"object{j}" / f"camera{i}.png")


def test_images_of_one_scene_stay_together_and_are_no_conflict(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    scenes(tmp_path, paint, 12, 4)
    found = catalog.scan(tmp_path)
    duplicates = catalog.find_duplicates(found, cache)
    assert (duplicates.exact, duplicates.near, duplicates.conflicts, duplicates.crowded_scenes) == ([], [], [], [])
    assert [{p.rpartition("/")[2] for p in paths} for paths in duplicates.same_scene] == [
        {f"camera{i}.png"} for i in (0, 1, 10, 11, *range(2, 10))
    ]
    assert [len(paths) for paths in duplicates.same_scene] == [4] * 12
    divided = catalog.split(found, clusters=duplicates)
    proof = catalog.split_proof(divided, duplicates)
    assert (proof.straddling, proof.clusters, proof.sentence) == (0, 12, "0 of 12 clusters straddle")
    assert catalog.dedupe(found, duplicates)[1] == []
    assert {s.kind for s in catalog.duplicate_sets(divided, duplicates)} == {"same_scene"}


def test_a_scene_with_many_images_is_not_bound(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    scenes(tmp_path, paint, 2, 5)
    found = catalog.scan(tmp_path)
    duplicates = catalog.find_duplicates(found, cache)
    assert [len(paths) for paths in duplicates.crowded_scenes] == [5, 5]
    assert (duplicates.same_scene, len(duplicates.scene_links)) == ([], 0)
    assert sum("--group-by" in note for note in catalog.with_duplicates(found, duplicates).notes) == 2


def test_all_measures_share_one_decode(tmp_path: Path, paint: Paint, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        (tmp_path / f"c{i % 2}").mkdir(exist_ok=True)
        paint(i).save(tmp_path / f"c{i % 2}" / f"{i}.jpg", quality=90)
    decoded: list[str] = []
    preview = pixels.preview
    monkeypatch.setattr(pixels, "preview", lambda file, side: (decoded.append(file.name), preview(file, side))[1])
    for name in ("look", "upright", "decode"):
        monkeypatch.setattr(pixels, name, None)
    found = catalog.scan(tmp_path)
    catalog.find_duplicates(found, cache)
    catalog.quality_findings(found, catalog.measure(found, cache))
    catalog.suggest_groups(found, cache)
    assert sorted(decoded) == [f"{i}.jpg" for i in range(6)]
