"""Suggested groups: series by name and by time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from sightline import catalog
from sightline.store import Cache

Paint = Callable[..., Image.Image]


def test_frames_of_videos_are_a_series(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for video in range(4):
            film = paint(ord(label[0]) * 10 + video, 160, 100)
            for frame in range(4):
                film.crop((frame * 8, 0, frame * 8 + 120, 100)).save(
                    tmp_path / label / f"{label}vid{video}_frame_{frame:03d}.png"
                )
    found = catalog.scan(tmp_path)
    (suggestion,) = catalog.suggest_groups(found, cache)
    assert (suggestion.groups, suggestion.images, len(suggestion.largest)) == (8, 32, 4)
    assert f"--group-by '{suggestion.pattern}'" in suggestion.sentence
    divided = catalog.split(found, group_by=suggestion.pattern, clusters=catalog.find_duplicates(found, cache))
    groups = {re.sub(r"_frame.*", "", p): s for p, s in zip(divided.paths, divided.column("split"), strict=True)}
    assert all(groups[re.sub(r"_frame.*", "", p)] == s for p, s in zip(divided.paths, divided.column("split"), strict=True))


def test_numbered_names_of_different_images_are_not_a_series(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(12):
            paint(ord(label[0]) * 100 + i).save(tmp_path / label / f"{label}{i // 3}_{i:03d}.png")
    assert catalog.suggest_groups(catalog.scan(tmp_path), cache) == []


def test_bursts_are_found_by_time(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    (tmp_path / "c").mkdir()
    for i in range(12):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"2024:05:31 12:{i // 3:02d}:{i % 3:02d}"
        paint(i).save(tmp_path / "c" / f"{'qwertyuiopas'[i]}.jpg", exif=exif)
    (suggestion,) = catalog.suggest_groups(catalog.scan(tmp_path), cache)
    assert (suggestion.groups, suggestion.images, suggestion.reason) == (4, 12, "EXIF times within seconds")
