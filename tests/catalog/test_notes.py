"""Notes about a set: duplicates under several labels, files that are left out, what the centre crop cuts off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sightline import catalog
from sightline.records import Preprocess
from sightline.store import Cache

Photos = Callable[..., Path]


def test_notes_name_up_to_ten_images_with_two_labels_and_count_the_rest(photos: Photos, cache: Cache) -> None:
    root = photos(*(f"cat/{i:02d}.png" for i in range(12)), *(f"dog/{i}.png" for i in range(3)))
    for i in range(12):
        shutil.copyfile(root / "cat" / f"{i:02d}.png", root / "dog" / f"copy{i:02d}.png")
    found = catalog.scan(root)
    told = catalog.split(found, clusters=catalog.find_duplicates(found, cache))
    cautions = [note for note in told.notes if note.startswith(catalog.CAUTION)]
    assert len(cautions) == 11 and "2 more images have copies with different labels" in cautions[-1]
    assert cautions[0].startswith(
        "CAUTION: cat/00.png and dog/copy00.png are the same image with different labels ('cat' and 'dog')"
    )
    notes = dict(zip(told.paths, told.column("note"), strict=True))
    assert notes["cat/11.png"] == "the same image as dog/copy11.png, which is labelled dog"
    assert notes["dog/copy11.png"] == "the same image as cat/11.png, which is labelled cat"
    assert notes["dog/0.png"] is None
    again = catalog.split(told, clusters=catalog.find_duplicates(told, cache))
    assert again.column("note") == told.column("note")


def test_a_note_reports_a_resized_copy_with_another_label(photos: Photos, cache: Cache) -> None:
    root = photos("cat/1.png", "cat/2.png", "dog/3.png")
    Image.open(root / "cat" / "1.png").resize((192, 144)).save(root / "dog" / "near.jpg", quality=92)
    found = catalog.scan(root)
    told = catalog.with_duplicates(found, catalog.find_duplicates(found, cache))
    assert "duplicates: 1 set of nearly identical images; a split keeps each set together" in told.notes
    assert any(note.startswith("CAUTION: cat/1.png and dog/near.jpg are the same image") for note in told.notes)


def test_files_that_are_left_out_are_named_with_the_reason(photos: Photos) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    for i in range(12):
        (root / "cat" / f"bad{i:02d}.jpg").write_bytes(b"")
    lines = catalog.left_out(catalog.scan(root))
    assert len(lines) == 11 and lines[0] == "cat/bad00.jpg is empty (0 bytes)"
    assert lines[-1] == "2 more files; the catalog's column problem lists all of them"


@pytest.mark.parametrize(
    ("size", "cut"), [((300, 50), "83%"), ((50, 300), "83%"), ((96, 64), "33%"), ((80, 64), None), ((64, 64), None)]
)
def test_a_note_reports_what_the_centre_crop_cuts_off(photos: Photos, size: tuple[int, int], cut: str | None) -> None:
    root = photos("cat/1.png", "dog/2.png", "dog/3.png")
    for name in ("cat/1.png", "dog/2.png"):
        Image.effect_noise(size, 50).save(root / name)
    found = catalog.scan(root)
    note = catalog.of_crop(found, Preprocess(size=(64, 64), crop_fraction=1.0))
    assert (note is None) if cut is None else (note is not None and f"cuts off {cut}" in note and "--fit pad" in note)
    assert catalog.of_crop(found, Preprocess(size=(64, 64), fit="squash")) is None
