"""`sightline augment`: a labelled sheet of what a policy does to the user's own images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sightline import catalog as catalogs
from sightline.cli.app import app
from sightline.commands import augment as preview
from sightline.errors import RequestError
from sightline.explanation.draw import contact_sheets as sheet
from sightline.pixels import decode
from sightline.training import augment as training_augment
from sightline.training import fit_network, loop


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["augment", *arguments], env={"COLUMNS": "120"})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sections of every sheet that is drawn."""
    seen: list[Any] = []

    def write(target: Path, title: str, text: str, sections: list[sheet.Section]) -> tuple[int, int]:
        seen.append(sections)
        return sheet.write_sheet(target, title, text, sections)

    monkeypatch.setattr(preview, "write_sheet", write)
    return seen


def test_the_preview_shows_augmented_digits(digits: Path, tmp_path: Path, drawn: list[Any]) -> None:
    target = tmp_path / "new" / "sheet.png"
    ended = invoke(str(digits), "-o", str(target), "--policy", "handwriting", "--set", "rotation=30", "--count", "2", "--json")
    assert ended.exit_code == 0, ended.stderr
    value = json.loads(ended.stdout)
    assert value["preview"] == str(target) and value["policy"] == "handwriting, rotation 30" and value["image_size"] == 32
    assert value["settings"]["rotation"] == 30 and value["settings"]["padding"] == "border" and "flip" not in value["settings"]
    by_name = {row["name"]: row for row in value["operations"]}
    assert list(by_name) == ["rotation", "shear", "zoom", "shift", "elastic", "brightness", "contrast", "blur"]
    assert by_name["rotation"]["shown"] == ["unchanged", "−30°", "+30°"]
    assert [image["label"] for image in value["images"]] == ["0", "1"]  # the classes in turn

    single, together = drawn[0]
    assert len(single.rows) == len(by_name) and len(together.rows) == 2
    seen = [decode(digits / image["path"], fit_network.preprocess(32)) for image in value["images"]]
    for row in single.rows:
        for group, image in zip(row.groups, seen, strict=True):
            assert np.array_equal(group[0].picture, image)  # the first column is what the network sees
            assert all(np.abs(cell.picture.astype(int) - image).max() > 3 for cell in group[1:]), row.name
    assert [cell.caption for cell in together.rows[0].groups[0]] == ["unchanged", *(f"epoch {i}" for i in range(1, 6))]
    with Image.open(target) as page:
        assert page.mode == "RGB" and page.size[0] > 800 and page.getpixel((1, 1)) == (255, 255, 255)


def test_the_same_request_gives_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    for name, seed in (("a.png", "0"), ("b.png", "0"), ("c.png", "1")):
        ended = invoke(str(digits), "-o", str(tmp_path / name), "--seed", seed, "--count", "1")
        assert ended.exit_code == 0, ended.stderr
        assert "rotation    −10° to +10°" in ended.stdout and "policy   light" in ended.stdout  # grey images
    first, second, other = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert first == second != other


def test_previewed_epochs_equal_those_of_a_training_with_the_same_seed(digits: Path, tmp_path: Path, drawn: list[Any]) -> None:
    value = preview.augment(str(digits), tmp_path / "s.png", policy="light", seed=3, count=2)
    catalog = catalogs.scan(digits).usable()
    images = np.stack([decode(file, fit_network.preprocess(32)) for file in catalog.files()])
    data = loop.Pixels(images, np.arange(len(images)))  # the label says which image a batch holds
    feed = loop.DataLoader(
        data, training_augment.POLICIES["light"], fit_network.MEAN, fit_network.STD, torch.device("cpu"), seed=3
    )
    found = {int(y): image for x, ys in feed.epoch(2, 32) for image, y in zip(x, ys, strict=True)}
    for image, row in zip(value["images"], drawn[0][1].rows, strict=True):
        trained = found[catalog.paths.index(image["path"])].permute(1, 2, 0).numpy()
        expected = np.clip(np.rint((trained * fit_network.STD + np.array(fit_network.MEAN)) * 255), 0, 255)
        cell = row.groups[0][2]
        assert cell.caption == "epoch 2"
        assert np.abs(cell.picture - expected).max() <= 1


def test_only_training_images_that_can_be_read_are_shown(digits: Path, tmp_path: Path) -> None:
    for label in "23456789":
        shutil.rmtree(digits / label)
    table = catalogs.scan(digits)
    splits = ["train" if i % 10 == 0 else "test" for i in range(len(table))]
    catalogs.save(table.with_column("split", splits), tmp_path / "catalog.csv")
    trained = {path for path, split in zip(table.paths, splits, strict=True) if split == "train"}
    gone = min(trained)
    (digits / gone).write_bytes(b"not an image any more")
    value = preview.augment(str(tmp_path / "catalog.csv"), tmp_path / "s.png", policy="photo", count=8)
    shown = {image["path"].rpartition("digits/")[2] for image in value["images"]}
    assert shown == {path.rpartition("digits/")[2] for path in trained - {gone}}  # five of six


def test_the_none_policy_can_be_previewed(digits: Path, tmp_path: Path, drawn: list[Any]) -> None:
    value = preview.augment(str(digits), tmp_path / "s.png", policy="none", count=1)
    assert value["operations"] == [] and value["settings"] == {}
    (section,) = drawn[0]
    assert section.heading == "This policy changes nothing"
    pictures = [cell.picture for cell in section.rows[0].groups[0]]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--policy", "foto"], "did you mean 'photo'?"),
        (["--set", "rotatoin=3"], "did you mean 'rotation'?"),
        (["--set", "rotation=200"], "between -180 and 180"),
        (["--count", "0"], "--count must be 1 to 8, not 0"),
        (["--image-size", "4"], "--image-size must be 8 to 1024, not 4"),
        (["-o", "sheet.jpg"], "must be a .png file, not sheet.jpg"),
    ],
)
def test_an_invalid_request_is_refused_before_images_are_read(digits: Path, arguments: list[str], text: str) -> None:
    ended = invoke(str(digits), *arguments)
    assert ended.exit_code == 2 and ended.stdout == ""
    assert text in ended.stderr
    assert "reading" not in ended.stderr


def test_labels_of_any_length_fit(tmp_path: Path) -> None:
    cell = sheet.Cell(np.zeros((32, 32, 3), np.uint8), "a caption that is much longer than its picture is wide")
    row = sheet.Row("name " * 30, "text " * 200, ((cell, cell), (cell,)))
    sections = [sheet.Section("heading", ("column " * 40, "b"), (row, row)), sheet.Section("other", (), (row,))]
    height, width = sheet.write_sheet(tmp_path / "s.png", "title " * 50, "text " * 80, sections)
    with Image.open(tmp_path / "s.png") as page:
        assert page.size == (width, height)
        edges = np.asarray(page)
    for strip in (edges[:, :20], edges[:, -20:], edges[:20], edges[-20:]):  # nothing runs out of the page
        assert (strip == 255).all()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nowhere"):
        preview.augment(str(tmp_path / "nowhere"), tmp_path / "s.png")
