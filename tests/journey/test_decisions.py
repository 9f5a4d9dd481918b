"""What the journey decides: which images stay together, which classifier is chosen, whose predictions belong to what."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sightline.errors import DataError
from sightline.journey import main, scoring
from sightline.journey.folder import toml
from sightline.journey.request import slug
from sightline.records import CATALOG_COLUMNS, Catalog, Predictions, Recipe


def make_catalog(paths: list[str], **columns: list[object]) -> Catalog:
    """A catalog with the columns given, the others null."""
    given = {"path": paths, **columns}
    data = {n: pa.array(given.get(n, [None] * len(paths)), pa.type_for_alias(k)) for n, k in CATALOG_COLUMNS.items()}
    return Catalog(pa.table(data), Path("/photos"))


def fake(method: str, right: int, n: int, paths: tuple[str, ...] | None = None) -> main.Candidate:
    """A candidate of which only the validation answers matter."""
    card = SimpleNamespace(method=method, backbone=SimpleNamespace(name=method))
    probs = np.tile([0.1, 0.9], (n, 1))
    true = np.array([1] * right + [0] * (n - right))
    val = Predictions(paths or tuple(map(str, range(n))), ("a", "b"), true, probs)
    return main.Candidate(SimpleNamespace(card=card), method, val, "validation", 1.0)  # type: ignore[arg-type]


def test_the_best_on_common_images_is_chosen_and_never_the_shortcut() -> None:
    good, better, shortcut = fake("features", 8, 10), fake("scratch", 9, 10), fake("shortcut", 10, 10)
    assert main.choose([good, shortcut, better]) is better
    # Out-of-fold answers on many images, right on all that both were held out on: that counts.
    paths = tuple(map(str, range(9, -1, -1))) + tuple(f"more {i}" for i in range(10))
    val = fake("features", 10, 20, paths).val
    wide = dataclasses.replace(fake("features", 10, 20), val=val)
    chosen = main.choose([better, dataclasses.replace(wide, label="wide")])
    assert chosen.label == "wide"
    assert main.choose([fake("features", 9, 10), fake("scratch", 8, 10)]).note is None
    low = dataclasses.replace(wide, val=fake("features", 13, 20, paths).val)  # 65 % of 20, but 100 % of the common 10
    told = main.choose([better, dataclasses.replace(low, label="low")])
    assert told.label == "low" and told.note == "on the 10 images that all were held out on: 100.0%; scratch 90.0%"


def test_predictions_are_matched_by_path_or_by_its_unambiguous_end() -> None:
    catalog = make_catalog(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"], label=["cat", "cat", "dog"])
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    unknown = np.full(3, -1)
    answers = Predictions(("dog/1.jpg", "D:\\photos\\cat\\1.jpg", "2.jpg"), ("cat", "dog"), unknown, probs)
    found = scoring.match(answers, catalog)
    assert found.paths == ("dog/1.jpg", "cat/1.jpg", "cat/2.jpg")
    assert found.y_true.tolist() == [1, 0, 0]
    ambiguous = Predictions(("1.jpg",), ("cat", "dog"), unknown[:1], probs[:1])
    with pytest.raises(DataError, match="none of the 1 paths"):
        scoring.match(ambiguous, catalog)
    twice = Predictions(("cat/1.jpg", "x/cat/1.jpg"), ("cat", "dog"), unknown[:2], probs[:2])
    with pytest.raises(DataError, match="more than one row"):
        scoring.match(twice, catalog)


def test_a_recipe_reads_back_from_its_toml() -> None:
    import tomllib

    from sightline.plain import from_plain

    recipe = Recipe(head="mlp", settings={"refit": False, "head": {"layers": [[512, 0.3]], "rate": 1e-4}}, seed=7)
    assert from_plain(Recipe, tomllib.loads(toml(recipe)), "recipe") == dataclasses.replace(recipe)


@pytest.mark.parametrize(
    ("name", "expected"), [("My photos (2024)!", "my-photos-2024"), ("CON", "photos-con"), ("…", "photos")]
)
def test_folder_names_are_portable(name: str, expected: str) -> None:
    assert slug(name) == expected
