"""Canonical hashes, atomic writes, the cache, named random streams."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline import store
from sightline.errors import RequestError
from sightline.records import Recipe
from sightline.store import Cache

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert store.digest(value) == store.digest(dict(reversed(list(value.items()))))


def test_digest_is_a_function_of_the_content() -> None:
    assert store.digest(Recipe(seed=1)) != store.digest(Recipe(seed=2))
    assert store.digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"  # sha256 of {"a":1}, first 32 digits


def test_numpy_and_paths_are_plain_and_nan_is_refused() -> None:
    assert store.plain({"a": np.float32(0.5), "b": np.int64(3), "c": Path("x/y"), "d": (1, 2)}) == {
        "a": 0.5,
        "b": 3,
        "c": "x/y",
        "d": [1, 2],
    }
    with pytest.raises(TypeError):
        store.plain(float("nan"))


@pytest.mark.parametrize("step", ["open", "replace"])
def test_errors_name_a_file_as_it_was_requested(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    if step == "open":
        monkeypatch.setattr("builtins.open", refuse)
    else:
        monkeypatch.setattr(store, "replace", refuse)
    with pytest.raises(PermissionError) as caught:
        store.write_bytes(tmp_path / "x.csv", b"")
    monkeypatch.undo()
    assert caught.value.filename == str(tmp_path / "x.csv") and not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    store.write_text(target, "old")
    with pytest.raises(ZeroDivisionError), store.atomic_file(target) as file:
        file.write(b"new")
        _ = 1 / 0
    assert target.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_cache_returns_the_stored_bytes(cache: Cache) -> None:
    assert cache.read("a/b") is None
    assert cache.write("a/b", b"payload")
    assert cache.read("a/b") == b"payload"
    assert cache.names() == ["a/b"]
    assert cache.names("a") == ["a/b"]
    assert cache.clear("a") == 1
    assert cache.read("a/b") is None


def test_the_least_recently_used_entries_are_evicted_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=10_000)
    for i in range(20):
        cache.write(f"x/{i:02d}", bytes(1000))
        os.utime(tmp_path / "x" / f"{i:02d}", (1_000_000 + i, 1_000_000 + i))
    assert cache.read("x/00") is not None  # used just now, so it stays
    assert cache.evict() > 0
    left = cache.names()
    assert cache.size_bytes() <= 10_000
    assert "x/00" in left and "x/19" in left and "x/01" not in left


def test_an_invalid_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE_GB", "lots")
    with pytest.raises(RequestError, match="lots"):
        Cache()


def test_remember_computes_a_value_once(cache: Cache) -> None:
    calls = []
    for _ in range(2):
        assert cache.remember("v", lambda: calls.append(1) or {"a": 1}) == {"a": 1}
    assert calls == [1]


def test_streams_are_functions_of_seed_and_purpose() -> None:
    first = store.stream(0, "split", "cat").random(3)
    assert (store.stream(0, "split", "cat").random(3) == first).all()
    assert (store.stream(1, "split", "cat").random(3) != first).any()
    assert (store.stream(0, "split", "dog").random(3) != first).any()
    assert (store.stream(0, "splitcat").random(3) != first).any()
