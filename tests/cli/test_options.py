"""Parsing of option values, and errors for invalid ones."""

from __future__ import annotations

from typing import Any

import pytest

from sightline.cli import options
from sightline.errors import RequestError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90.0), ("10m", 600.0), ("1h", 3600.0), ("1h30m", 5400.0), ("600", 600.0), ("0.5m", 30.0), ("1 m", 60.0)],
)
def test_durations_are_parsed(text: str, expected: float) -> None:
    assert options.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "m", "10x", "-5m", "0", "1e9h", "10m!", "ten"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--budget") as caught:
        options.seconds(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint is not None


@pytest.mark.parametrize(("text", "expected"), [("0.15", 0.15), ("0", 0), ("1", 1), ("300", 300), ("0.0", 0.0), (".2", 0.2)])
def test_fractions_are_floats_and_counts_are_ints(text: str, expected: float) -> None:
    value = options.share("--val", text)
    assert value == expected
    assert isinstance(value, type(expected))


@pytest.mark.parametrize("text", ["1.0", "1.5", "-0.1", "-3", "nan", "inf", "many", ""])
def test_invalid_fractions_and_counts_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--test"):
        options.share("--test", text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, None),
        (["cat,dog"], {"cat": "cat", "dog": "dog"}),
        (["chicken=hong kong chicken,salmon"], {"chicken": "hong kong chicken", "salmon": "salmon"}),
        (['chicken="hong kong chicken",salmon'], {"chicken": "hong kong chicken", "salmon": "salmon"}),
        (["a=b", "c"], {"a": "b", "c": "c"}),
        (['"a, b"=x,y="p=q"'], {"a, b": "x", "y": "p=q"}),
        ([" cat , dog,"], {"cat": "cat", "dog": "dog"}),
    ],
)
def test_classes_are_chosen_and_renamed(values: list[str] | None, expected: dict[str, str] | None) -> None:
    assert options.classes(values) == expected


@pytest.mark.parametrize("values", [["a=b=c"], ['a="b'], ["a,a=b"], ["a", "a"]])
def test_invalid_class_mappings_are_refused(values: list[str]) -> None:
    with pytest.raises(RequestError, match="--classes"):
        options.classes(values)


def test_an_unknown_choice_suggests_the_closest() -> None:
    assert options.choice("--fit", "pad", options.FITS) == "pad"
    assert options.choice("--fit", None, options.FITS) is None
    with pytest.raises(RequestError) as caught:
        options.choice("--fit", "squahs", options.FITS)
    assert caught.value.hint == "did you mean 'squash'?"


def test_assignments_are_read_as_toml_or_as_text() -> None:
    found = options.assignments(
        ["epochs=12", "learning_rate=3e-4", "augment=photo", "name=a=b", "units=[[64, 0.3]]", "refit=true"]
    )
    assert found == {
        "epochs": 12,
        "learning_rate": 3e-4,
        "augment": "photo",
        "name": "a=b",
        "units": [[64, 0.3]],
        "refit": True,
    }
    for text in ("epochs", "=3"):
        with pytest.raises(RequestError, match="--set"):
            options.assignments([text])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (None, {}),
        (["a=1"], {"a": [1]}),
        (["a=1,2.5,1e-3", "b.c=true,x"], {"a": [1, 2.5, 0.001], "b.c": [True, "x"]}),
        (["a=[1, 2],[3]"], {"a": [[1, 2], [3]]}),
        (['a="1,2",3'], {"a": ["1,2", 3]}),
        (["network=cnn(filters=[8, 16], kernel=5),lenet5"], {"network": ["cnn(filters=[8, 16], kernel=5)", "lenet5"]}),
        ([" a = none , photo "], {"a": ["none", "photo"]}),
        (["a="], {"a": []}),
    ],
)
def test_values_of_a_sweep_are_parsed_as_toml(texts: list[str] | None, expected: dict[str, list[Any]]) -> None:
    assert options.grid(texts) == expected


@pytest.mark.parametrize(("texts", "words"), [(["a"], "is not KEY=A,B,C"), (["=1"], "is not KEY"), (["a=1", "a=2"], "a twice")])
def test_an_invalid_sweep_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        options.grid(texts)
