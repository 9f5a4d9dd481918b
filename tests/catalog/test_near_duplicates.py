"""Duplicates: copies are found, and different images are never joined."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sightline import catalog
from sightline.catalog import alignment, confirmation, looks, near_duplicates, phash, windows
from sightline.store import Cache

Paint = Callable[..., Image.Image]
Photos = Callable[..., Path]


def save(image: Image.Image, file: Path, **options: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)


def together(root: Path, cache: Cache) -> list[set[str]]:
    """Sets of two or more paths that belong together."""
    found = catalog.scan(root)
    number = catalog.together(found, catalog.find_duplicates(found, cache))
    sets = [{p for p, n in zip(found.paths, number, strict=True) if n == wanted} for wanted in np.unique(number)]
    return sorted((s for s in sets if len(s) > 1), key=min)


# --------------------------------------------------------------------------------------------------------------- hashes


def test_the_perceptual_hash_equals_that_of_imagehash(paint: Paint) -> None:
    gray = np.stack([np.asarray(paint(i, 32, 32).convert("L")) for i in range(20)])
    ours = phash.phash(gray)
    theirs = [np.packbits(imagehash.phash(Image.fromarray(g)).hash.ravel()).view(np.uint64)[0] for g in gray]
    assert ours.tolist() == [int(t) for t in theirs]


def brute(left: np.ndarray, right: np.ndarray, radius: int) -> set[tuple[int, int]]:
    i, j = np.nonzero(np.bitwise_count(left[:, None] ^ right[None]) <= radius)
    return {(min(a, b), max(a, b)) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a != b}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 300), bits=st.integers(4, 40), radius=st.integers(0, 6), one=st.booleans())
def test_all_pairs_within_the_radius_are_found(seed: int, n: int, bits: int, radius: int, one: bool) -> None:
    random = np.random.default_rng(seed)
    left = np.unique(random.integers(0, 2**bits, n, dtype=np.uint64))
    right = left if one else random.permutation(left)
    found, used = phash.pairs(left, right, radius, 10**9)
    assert used == radius
    assert {tuple(p) for p in found.tolist()} == brute(left, right, radius)


def test_too_many_pairs_lower_the_radius_and_equal_hashes_are_still_paired() -> None:
    many = np.random.default_rng(0).integers(0, 2**12, 5000).astype(np.uint64)
    found, used = phash.pairs(many, many, 12, 20_000)
    assert used < 12
    assert len(found) < 100_000
    equal = np.zeros(300, np.uint64)
    found, _ = phash.pairs(equal, equal, 12, 20_000)
    assert set(found.ravel().tolist()) == set(range(300))
    assert len(found) < 16 * 300


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.floats(0, 1)).filter(lambda p: p[0] != p[1]), max_size=20))
def test_every_pair_within_a_set_of_duplicates_is_confirmed(alike: list[tuple[int, int, float]]) -> None:
    sets = near_duplicates.cliques(8, alike)
    linked = {frozenset(p[:2]) for p in alike}
    members = [i for s in sets for i in s]
    assert len(members) == len(set(members))
    for one in sets:
        assert all(frozenset((a, b)) in linked for a in one for b in one if a < b)
    if alike:  # the most alike pair is never torn apart
        best = max(alike, key=lambda p: (p[2], -p[0], -p[1]))
        assert any({best[0], best[1]} <= set(s) for s in sets)


# ------------------------------------------------------------------------------------------------------------ alignment


def stacked(*images: Image.Image) -> looks.Looks:
    """Thumbnails of images."""
    thumbs = [looks.thumbnails(np.asarray(image.convert("RGB"))) for image in images]
    return looks.Looks(np.stack([t[0] for t in thumbs]), np.stack([t[1] for t in thumbs]), np.zeros((len(images), 1)), True)


def verdict(*images: Image.Image) -> str:
    """The verdict on two images."""
    found = windows.locate(stacked(*images).luma, np.array([[0, 1]]))
    side = np.array([min(image.size) for image in images])
    result = confirmation.confirm(stacked(*images), side, found)
    names = {confirmation.SAME_IMAGE: "image", confirmation.OVERLAY: "image", confirmation.SAME_SCENE: "scene"}
    return names[int(result.verdict[0])] if len(result.verdict) else "different"


def test_alignment_finds_a_crop(paint: Paint) -> None:
    whole = paint(3, 256, 256)
    crop = whole.crop((10, 20, 250, 240))
    luma = stacked(crop, whole).luma.astype(np.float32)
    place = alignment.align(luma[:1], luma[1:], alignment.identity(1), 8)
    # x' = scale x + shift, in halves of the image: 240 of 256 px wide, centre 130 instead of 128
    assert place[0].ravel() == pytest.approx([240 / 256, 0, 2 / 128, 0, 220 / 256, 2 / 128], abs=0.01)


def test_alignment_ignores_a_tone_curve_and_sees_a_changed_patch(paint: Paint) -> None:
    one = paint(5, 256, 256)
    bright = one.point(lambda v: min(255, int(255 * (v / 255) ** 0.7)))
    other = one.copy()
    other.paste(paint(6, 56, 56), (120, 120))
    assert [verdict(one, image) for image in (bright, other, paint(7, 256, 256))] == ["image", "scene", "different"]


def test_text_over_an_image_leaves_the_same_image(paint: Paint) -> None:
    one = paint(8, 300, 240)
    other = one.copy()
    ImageDraw.Draw(other).rectangle((0, 210, 300, 240), fill=(0, 0, 0))
    ImageDraw.Draw(other).text((20, 214), "when you see it", fill=(255, 255, 255))
    assert verdict(one, other) == "image"


def test_the_most_alike_digits_of_two_writers_are_told_apart_in_pixels() -> None:
    from sklearn.datasets import load_digits

    images = [Image.fromarray((load_digits().images[i] * 255 / 16).round().astype(np.uint8)) for i in (1076, 1134)]
    assert verdict(*images) == "different"


# ----------------------------------------------------------------------------------------------------------- duplicates


def test_copies_are_found_and_different_images_are_not(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    root = tmp_path / "p"
    expected = []
    for i in range(12):
        image = paint(i, 240, 180)
        w, h = image.size
        copies = {
            "jpg": (image, {"quality": 92}),
            "q40": (image, {"quality": 40}),
            "half": (image.resize((w // 2, h // 2), Image.Resampling.LANCZOS), {"quality": 85}),
            "crop": (image.crop((6, 5, w - 10, h - 4)), {"quality": 90}),
            "bright": (image.point(lambda v: int(12 + 0.9 * v)), {"quality": 90}),
            "grey": (image.convert("L"), {"quality": 90}),
        }
        for name, (copy, options) in copies.items():
            save(copy, root / "c" / f"{i}-{name}.jpg", **options)
        save(image, root / "d" / f"{i}-png.png")
        expected.append({f"c/{i}-{name}.jpg" for name in copies} | {f"d/{i}-png.png"})
    assert together(root, cache) == sorted(expected, key=min)


def test_copies_in_every_orientation_are_found(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    root, image = tmp_path / "p", paint(1, 200, 150)
    turns = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for value, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = value
        save(image if turn is None else image.transpose(turn), root / "c" / f"{value}.jpg", quality=90, exif=exif)  # type: ignore[arg-type]
    assert [len(s) for s in together(root, cache)] == [4]


def test_exact_copies_with_two_labels_are_conflicts(photos: Photos, cache: Cache) -> None:
    root = photos("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    shutil.copy(root / "cat" / "1.jpg", root / "cat" / "copy.jpg")
    shutil.copy(root / "cat" / "2.jpg", root / "dog" / "copy.jpg")
    found = catalog.scan(root)
    twin = catalog.find_duplicates(found, cache)
    assert twin.exact == [["cat/1.jpg", "cat/copy.jpg"], ["cat/2.jpg", "dog/copy.jpg"]]
    assert twin.near == []
    assert twin.conflicts == [["cat/2.jpg", "dog/copy.jpg"]]
    row = {p: i for i, p in enumerate(found.paths)}
    assert twin.cluster[row["cat/1.jpg"]] == twin.cluster[row["cat/copy.jpg"]]
    assert len(np.unique(twin.cluster)) == 3


def test_unusable_files_are_never_duplicates(photos: Photos, cache: Cache) -> None:
    root = photos("cat/1.jpg")
    for name in ("a", "b"):
        (root / "cat" / f"{name}.jpg").write_bytes(b"not an image")
    assert catalog.find_duplicates(catalog.scan(root), cache).exact == []


def test_colour_alone_and_blank_images_are_told_apart(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    root, shape = tmp_path / "p", np.asarray(paint(2, 96, 96).convert("L"), np.float32)
    for name, tint in (("red", (1.0, 0.45, 0.2)), ("blue", (0.2, 0.55, 1.0))):
        save(Image.fromarray((shape[..., None] * tint).astype(np.uint8)), root / name / "1.png")
    for i in range(4):
        save(Image.new("RGB", (96, 96), (250 - i, 250, 250)), root / "blank" / f"{i}.png")
    assert together(root, cache) == []


def test_gradually_changing_images_are_not_chained_into_one_set(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    root, film = tmp_path / "p", paint(4, 900, 200)
    for i in range(20):
        save(film.crop((i * 8, 0, i * 8 + 240, 200)), root / "c" / f"{i:02d}.png")
    found = catalog.scan(root)
    twin = catalog.find_duplicates(found, cache)
    assert twin.near, "neighbours are alike"
    ends = {"c/00.png", "c/19.png"}
    assert not any(ends <= set(paths) for paths in twin.near)
    assert len(twin.links)
    number = catalog.together(found, twin)  # and yet a split must not put neighbours on two sides
    assert len(np.unique(number)) == 1


@pytest.mark.slow
def test_different_digits_are_never_joined(tmp_path: Path, cache: Cache) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i in range(0, 1797, 3):
        file = tmp_path / "p" / str(digits.target[i]) / f"{i:04d}.png"
        save(Image.fromarray((digits.images[i] * 255 / 16).round().astype(np.uint8)), file)
    # 8 px: these two ones of different people are the most alike of all 1,797
    for i in (1076, 1134):
        save(Image.fromarray((digits.images[i] * 255 / 16).round().astype(np.uint8)), tmp_path / "p" / "1" / f"{i}.png")
    twin = catalog.find_duplicates(catalog.scan(tmp_path / "p"), cache)
    assert (twin.exact, twin.near) == ([], [])


# ---------------------------------------------------------------------------------------------------------------- cache


def test_a_second_search_decodes_no_image(photos: Photos, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(*(f"cat/{i}.jpg" for i in range(6)))
    shutil.copy(root / "cat" / "1.jpg", root / "cat" / "copy.jpg")
    first = catalog.find_duplicates(catalog.scan(root), cache)
    assert len(cache.names(f"{looks.VERSION}/rows")) == 1

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("sightline.pixels.preview", never)
    again = catalog.find_duplicates(catalog.scan(root), cache)
    assert (again.exact, again.near) == (first.exact, first.near)
    moved = root.rename(root.with_name("elsewhere"))
    assert catalog.find_duplicates(catalog.scan(moved), cache).exact == first.exact


def test_only_new_photographs_are_decoded(photos: Photos, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.find_duplicates(catalog.scan(photos(*(f"cat/{i}.jpg" for i in range(6)))), cache)
    root = photos("cat/new.jpg")
    seen: list[str] = []
    look = looks.look_at
    monkeypatch.setattr(looks, "look_at", lambda file: seen.append(file.name) or look(file))
    catalog.find_duplicates(catalog.scan(root), cache)
    assert seen == ["new.jpg"]


def test_a_damaged_cache_entry_is_recomputed(photos: Photos, cache: Cache) -> None:
    found = catalog.scan(photos(*(f"cat/{i}.jpg" for i in range(4))))
    first = catalog.find_duplicates(found, cache)
    for name in cache.names():
        file = cache.root / name
        file.write_bytes(file.read_bytes()[:-1])
    assert catalog.find_duplicates(found, cache).near == first.near


@pytest.mark.realdata
@pytest.mark.slow
def test_planted_copies_of_real_photographs_are_found(shared: Path, tmp_path: Path, cache: Cache) -> None:
    found = catalog.scan(shared / "data" / "flowers")
    twin = catalog.find_duplicates(found, cache)
    assert len(twin.exact) == 2
    assert [[p.partition("/")[0] for p in paths] for paths in twin.near] == [["daisy"] * 2, ["roses"] * 2, ["tulips"] * 2]
