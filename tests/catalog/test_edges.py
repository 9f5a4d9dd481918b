"""Edges are examined for captions and borders, not for the parts of the object that reach them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from sightline import catalog, demo
from sightline.evaluation.shortcut_rules import edge_rules
from sightline.records.candidates import ShortcutRule
from sightline.store import Cache
from sightline.training.context import Context
from sightline.training.methods import shortcut

Paint = Callable[..., Image.Image]

BORDER_PX = 4


def rules(folder: Path, cache: Cache, border: int | None = None) -> list[ShortcutRule]:
    """Return the edge rules of 600 digits of 64 px, and a white border around those of one class."""
    digits = load_digits()
    files, labels = [], digits.target[::3]
    for number, (values, label) in enumerate(zip(digits.images[::3], labels, strict=True)):
        image = np.kron(np.rint(values * (255 / 16)), np.ones((8, 8))).astype(np.uint8)
        if label == border:
            inner = image[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
            image = np.pad(inner, BORDER_PX, constant_values=255)
        files.append(folder / f"{number}.png")
        Image.fromarray(image).save(files[-1], compress_level=0)
    _, edges, middle = catalog.edges_of(files, [f"{i}" for i in range(len(files))], cache)
    classes = tuple("0123456789")
    assert edge_rules(edges, labels, classes)  # alone, the edges would raise an alarm
    return edge_rules(edges, labels, classes, middle=middle)


@pytest.mark.slow
def test_the_digits_of_the_demo_raise_no_alarm(tmp_path: Path, cache: Cache) -> None:
    found = catalog.scan(demo.write_digits(tmp_path / "digits"))
    context = Context(found, np.arange(len(found)), found.classes, cache)
    assert shortcut.find_rules(context, np.arange(len(found))) == []


@pytest.mark.slow
def test_strokes_of_large_digits_that_reach_the_edge_are_no_shortcut(tmp_path: Path, cache: Cache) -> None:
    assert rules(tmp_path, cache) == []


def test_a_border_around_the_digits_of_one_class_is_named(tmp_path: Path, cache: Cache) -> None:
    assert [rule.class_name for rule in rules(tmp_path, cache, border=7)] == ["7"]


def test_a_caption_on_the_photographs_of_one_class_is_named(tmp_path: Path, paint: Paint, cache: Cache) -> None:
    files, labels = [], np.arange(60) % 2
    for number, label in enumerate(labels.tolist()):
        image = paint(number, 160, 120)
        if label:
            draw = ImageDraw.Draw(image)
            draw.rectangle((0, 100, 160, 120), fill="white")
            draw.text((8, 104), "Figure 3: the garden", fill="black")
        files.append(tmp_path / f"{number}.png")
        image.save(files[-1])
    _, edges, middle = catalog.edges_of(files, [f"{i}" for i in range(60)], cache)
    assert len(edge_rules(edges, labels, ("cat", "dog"), middle=middle)) == 1
