"""Records: JSON round trips with every key checked, tables of predictions, CSV cells without formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline import store
from sightline.errors import DataError, ModelFileError, RequestError
from sightline.inputs import read_predictions
from sightline.records import Backbone, Card, Explanation, Predictions, Preprocess, Recipe, Run
from sightline.schema import csv_escape, csv_unescape, from_json


def test_a_card_is_written_and_read_without_loss() -> None:
    backbone = Backbone("x", "timm", Preprocess(value_range=(0.0, 4095.0)), 5, map_shape=(5, 7, 7), arguments={"a": [1]})
    card = Card(("a", "b"), backbone, "logistic", {"C": 1.0}, "features", Recipe(seed=3), temperature=1.5)
    assert from_json(Card, {k: v for k, v in card.to_json().items() if k != "members"}, "card") == card


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"metod": "x"}, "did you mean 'method'"),
        ({"fit": "corp"}, "'fit' in the recipe cannot be 'corp'"),
        ({"seed": True}, "'seed' in the recipe"),
        ({"seed": "1"}, "'seed' in the recipe"),
        ({"image_size": 3.5}, "'image_size' in the recipe"),
    ],
)
def test_an_invalid_recipe_is_refused(value: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        from_json(Recipe, value, "recipe")
    assert message in str(caught.value)


@given(st.text())
def test_csv_cells_are_read_unchanged_and_never_formulas(cell: str) -> None:
    assert csv_escape(cell)[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert csv_unescape(csv_escape(cell)) == cell


def make_predictions() -> Predictions:
    probs = np.random.default_rng(0).dirichlet([1, 1, 1], size=4)
    return Predictions(("a.jpg", "=b.jpg", "c,d.jpg", "é\n.jpg"), ("x", "y", "-z"), np.array([0, 1, -1, 2]), probs)


def test_predictions_are_written_and_read_bit_identically(tmp_path: Path) -> None:
    before = make_predictions()
    store.write_text(tmp_path / "p.csv", before.to_csv())
    after = read_predictions(tmp_path / "p.csv")
    assert after.paths == before.paths and after.classes == before.classes
    assert (after.y_true == before.y_true).all() and (after.probs == before.probs).all()


def test_another_tools_predictions_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("path,p:a,p:b\nx.jpg,0.699,0.3\n", encoding="utf-8")
    assert read_predictions(file).probs.sum() == pytest.approx(1, abs=1e-12)
    file.write_text("path,p:a,p:b\nx.jpg,0.9,0.9\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 .*x\.jpg"):
        read_predictions(file)
    file.write_text("path,p:a,p:b\nx.jpg,0.9,nan\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2"):
        read_predictions(file)
    file.write_text("file,a\nx.jpg,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="not a table of predictions"):
        read_predictions(file)


def test_the_peak_is_in_the_pixels_of_the_upright_original() -> None:
    heat = np.zeros((7, 7), np.float32)
    heat[0, 6] = 1
    item = Explanation("a", "x", "gradcam", "map", heat, (0.0, 100.0, 700.0, 700.0))
    assert item.peak() == (50, 750)


def test_an_unfinished_or_damaged_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        Run.load(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="not a finished run"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelFileError, match="damaged"):
        Run.load(tmp_path)
