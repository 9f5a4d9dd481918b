"""What people hand over as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline.errors import RequestError
from sightline.inputs import read_recipe
from sightline.studies.changing import build


def recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_augmentation_stands_above_or_among_the_settings(tmp_path: Path) -> None:
    above = read_recipe(recipe(tmp_path, 'method = "finetune"\naugment = "photo"\n[settings]\nepochs = 12\n'))
    within = read_recipe(recipe(tmp_path, 'method = "finetune"\n[settings]\nepochs = 12\naugment = "photo"\n'))
    assert above == within and above.settings == {"epochs": 12, "augment": "photo"}
    table = read_recipe(recipe(tmp_path, 'method = "scratch"\n[augment]\npolicy = "photo"\nrotation = 30\n'))
    assert table.settings["augment"] == {"policy": "photo", "rotation": 30}
    changed = read_recipe(recipe(tmp_path, 'method = "finetune"\naugment = "photo"\n'), {"augment": "none"})
    assert changed.settings == {"augment": "none"}


def test_augmentation_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="augment twice"):
        read_recipe(recipe(tmp_path, 'augment = "photo"\n[settings]\naugment = "none"\n'))


def test_augmentation_of_a_method_that_has_none_is_refused(tmp_path: Path) -> None:
    odd = read_recipe(recipe(tmp_path, 'method = "baseline"\naugment = "photo"\n'))
    with pytest.raises(RequestError, match="augment"):
        build(odd)
