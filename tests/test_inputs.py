"""User files: recipes and tables of predictions."""

from __future__ import annotations

import logging
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import DataError, RequestError
from sightline.inputs import (
    find_by_ending,
    find_by_name,
    is_predictions,
    read_labelled,
    read_predictions,
    read_recipe,
    separator_of,
)
from sightline.records import Predictions
from sightline.studies.recipe_edit import build, change


def recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_augmentation_is_read_from_the_top_level_or_the_settings(tmp_path: Path) -> None:
    above = read_recipe(recipe(tmp_path, 'method = "finetune"\naugment = "photo"\n[settings]\nepochs = 12\n'))
    within = read_recipe(recipe(tmp_path, 'method = "finetune"\n[settings]\nepochs = 12\naugment = "photo"\n'))
    assert above == within and above.settings == {"epochs": 12, "augment": "photo"}
    table = read_recipe(recipe(tmp_path, 'method = "scratch"\n[augment]\npolicy = "photo"\nrotation = 30\n'))
    assert table.settings["augment"] == {"policy": "photo", "rotation": 30}
    changed = change(read_recipe(recipe(tmp_path, 'method = "finetune"\naugment = "photo"\n')), {"augment": "none"})
    assert changed.settings == {"augment": "none"}


def test_invalid_values_of_a_recipe_are_named_with_their_key(tmp_path: Path) -> None:
    for written, words in (
        ("[settings]\nlearning_rate = nan\n", "learning_rate cannot be nan"),
        ("[settings]\nlearning_rate = -inf\n", "learning_rate cannot be -inf"),
        ("[settings]\nweights = [nan, 1.0]\n", "weights cannot be nan"),
        ("[settings.augment]\nrotation = 1979-05-27\n", "augment.rotation cannot be 1979-05-27"),
        ("image_size = 100000\n", "image_size cannot be 100000"),
    ):
        with pytest.raises(RequestError, match=re.escape(words)) as refused:
            read_recipe(recipe(tmp_path, written))
        assert refused.value.hint


def test_augmentation_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="augment twice"):
        read_recipe(recipe(tmp_path, 'augment = "photo"\n[settings]\naugment = "none"\n'))


def test_augmentation_of_a_method_that_has_none_is_refused(tmp_path: Path) -> None:
    odd = read_recipe(recipe(tmp_path, 'method = "baseline"\naugment = "photo"\n'))
    with pytest.raises(RequestError, match="augment"):
        build(odd)


TABLE = "path,label,p:chat,p:écureuil\nété/1.png,écureuil,0.25,0.75\nété/2.png,,0.5,0.5\n"


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "answers.csv"
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_of_predictions_comes_in_any_encoding_with_any_separator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, separator: str, encoding: str
) -> None:
    file = table(tmp_path, TABLE.replace(",", separator).replace("\n", "\r\n"), encoding)
    with caplog.at_level(logging.WARNING, "sightline"):
        found, labels = read_labelled(file)
    assert found.paths == ("été/1.png", "été/2.png") and found.classes == ("chat", "écureuil")
    assert found.y_true.tolist() == [1, -1] and found.probs.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert labels == ("écureuil", "") and is_predictions(file)
    assert ("is not UTF-8" in caplog.text) is (not encoding.startswith("utf-8"))


def test_tables_that_hold_no_predictions_are_recognised(tmp_path: Path) -> None:
    for text, encoding in (("path,label\na.png,cat\n", "utf-8"), ("", "utf-8"), ("path;label\n", "utf-16")):
        assert not is_predictions(table(tmp_path, text, encoding))
    file = table(tmp_path, "")
    file.write_bytes(b"\xff\xfea")  # the mark of UTF-16, then half a character
    assert not is_predictions(file)
    with pytest.raises(DataError, match=r"answers\.csv cannot be read as a table"):
        read_predictions(file)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "answers.csv has no rows"),
        ("a.png,cat,0.5,0.5\n,,,\n", "row 3 of .*answers.csv has no probability of 'cat'"),
        ("a.png,cat,0.5,0.5\n\nb.png,cat,0.5\n", r"row 4 of .*answers.csv \(b.png\) has no probability of 'dog'"),
        ("a.png,cat,a half,0.5\n", r"row 2 of .*answers.csv \(a.png\) has 'a half' for 'cat', which is not a number"),
        ("a.png,cat,0.5,0.5\n,cat,0.5,0.5\n", "row 3 of .*answers.csv has no path"),
        ("a.png,cat,0.5,0.5\n\nb.png,cat,0.9,0.9\n", r"the probabilities in row 4 of .*\(b.png\) sum to 1.8"),
        ("a.png,cat,0.5,0.5\na.png,cat,0.2,0.8\n", "a.png has more than one row in .*answers.csv"),
    ],
)
def test_the_row_that_is_wrong_is_named(tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        read_predictions(table(tmp_path, f"path,label,p:cat,p:dog\n{rows}"))
    assert error.value.hint


def test_two_columns_of_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two columns named 'p:cat'"):
        read_predictions(table(tmp_path, "path,p:cat,p:dog,p:cat\na.png,0.5,0.5,0.9\n"))


@pytest.mark.parametrize("bar", ["1.5", "-0.1", "nan", "inf"])
def test_a_threshold_is_a_probability(tmp_path: Path, bar: str) -> None:
    with pytest.raises(DataError, match=f"the column bar:dog of .* contains {bar}"):
        read_predictions(table(tmp_path, f"path,p:cat,p:dog,bar:dog\na.png,0.5,0.5,{bar}\n"))


def test_each_row_can_have_its_own_threshold(tmp_path: Path) -> None:
    """As after a cross-validation: written, read and selected row by row."""
    text = "path,p:cat,p:dog,bar:dog\na.png,0.6,0.4,0.3\nb.png,0.6,0.4,0.5\nc.png,0.2,0.8,0.9\n"
    found = read_predictions(table(tmp_path, text))
    assert found.labels == ["dog", "cat", "cat"] and found.thresholds.tolist() == [0.3, 0.5, 0.9]
    part = found.select(np.array([2, 0]))
    assert part.labels == ["cat", "dog"] and part.thresholds.tolist() == [0.9, 0.3]
    again = read_predictions(table(tmp_path, part.to_csv()))
    assert again.labels == part.labels and again.thresholds.tolist() == [0.9, 0.3]
    with pytest.raises(DataError, match="does not have a number in each row"):
        read_predictions(table(tmp_path, text.replace("0.5\n", "\n")))


def test_a_threshold_that_changes_no_prediction_is_kept(tmp_path: Path) -> None:
    above = float(np.nextafter(1, 2))  # what `evaluation.threshold` may choose
    for bar in (0.0, 1.0, above):
        assert read_predictions(table(tmp_path, f"path,p:cat,p:dog,bar:dog\na.png,0,1,{bar!r}\n")).threshold == ("dog", bar)


def test_names_are_found_whole_by_unicode_form_or_by_an_ending_that_no_other_path_has() -> None:
    nfd, nfc = (unicodedata.normalize(form, "K\u00e4fer/1.png") for form in ("NFD", "NFC"))
    assert find_by_name([nfc, nfd, "x"], [nfd]) == [0, 0, None]
    assert find_by_name([nfc, nfd], [nfd, nfc]) == [1, 0], "two files whose names look the same"
    paths = ["cat/1.jpg", "dog/2.jpg", "dog/3.jpg", nfd]
    found = find_by_ending(["/data/cat/1.jpg", "D:\\p\\dog\\2.jpg", "3.jpg", f"new/{nfc}"], paths)
    assert found == [0, 1, 2, 3]
    # another image of the same file name is never taken for it: its folder is one of the catalog's, or a better row is there
    assert find_by_ending(["dog/1.jpg", "cat/2.jpg", "cat/1.jpg"], paths) == [None, None, 0]
    assert find_by_ending(["elsewhere/1.jpg", "cat/1.jpg"], paths) == [None, 0]
    assert find_by_ending(["1.jpg"], ["a/1.jpg", "b/1.jpg"]) == [None]


@pytest.mark.parametrize("sign", [";", "|", "\t"])
def test_class_names_may_hold_other_separators(tmp_path: Path, sign: str) -> None:
    one, two = sign.join("abcdefg"), sign.join("tuvwxyz")
    probs = np.eye(2)
    made = Predictions((f"{one}/0.png", f"{two}/0.png"), (one, two), np.array([0, 1]), probs)
    (tmp_path / "t.csv").write_text(made.to_csv(), encoding="utf-8")
    again = read_predictions(tmp_path / "t.csv")
    assert (again.classes, again.paths, again.y_true.tolist()) == ((one, two), made.paths, [0, 1])
    labels = f"image,{one},{two}\n{one}{sign}.png,{one},{one}\n"  # a user's table, split at its known column
    assert separator_of(labels, {"image", "label"}) == ","
    assert separator_of("path;label\na,b.png;a,b\nc,d.png;c,d\n") == ";"
