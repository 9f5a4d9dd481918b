"""Batches: in order, full, each error its own file's, nothing left running."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline import pixels
from sightline.pixels import Preprocess
from sightline.store import bytes_digest

TINY = Preprocess(size=(8, 8), fit="squash")


def flat_image(value: int) -> np.ndarray:
    return np.full((9, 9, 3), value, dtype=np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 9), st.integers(1, 3))
def test_order_fullness_and_errors(good: list[bool], batch_size: int, threads: int) -> None:
    sources = [flat_image(i) if ok else np.zeros((0, 3)) for i, ok in enumerate(good)]
    index: list[int] = []
    errors: list[int] = []
    got = list(pixels.batches(sources, TINY, batch_size=batch_size, threads=threads))
    for number, batch in enumerate(got):
        assert batch.images.shape == (len(batch.index), 8, 8, 3) and batch.images.dtype == np.uint8
        assert batch.index.dtype == np.int64
        assert len(batch.index) == batch_size or number == len(got) - 1
        assert batch.images[:, 0, 0, 0].tolist() == batch.index.tolist()
        index += batch.index.tolist()
        errors += list(batch.errors)
    assert index == [i for i, ok in enumerate(good) if ok]
    assert errors == [i for i, ok in enumerate(good) if not ok]


def test_batches_do_not_share_memory() -> None:
    batches = list(pixels.batches([flat_image(i) for i in range(6)], TINY, batch_size=2))
    assert [b.images[0, 0, 0, 0] for b in batches] == [0, 2, 4]


def test_any_number_of_threads_gives_the_same(tmp_path: Path) -> None:
    files = []
    for i in range(12):
        files.append(tmp_path / f"{i}.jpg")
        noise = np.random.default_rng(i).integers(0, 255, (40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(files[-1])
    files[5].write_bytes(files[5].read_bytes()[:300])
    one, four = (list(pixels.batches(files, TINY, batch_size=5, threads=t)) for t in (1, 4))
    assert [b.index.tolist() for b in one] == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10], [11]]
    assert all(np.array_equal(a.images, b.images) for a, b in zip(one, four, strict=True))
    assert [e.message for b in one for e in b.errors.values()] == [e.message for b in four for e in b.errors.values()]


def test_a_file_that_changed_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(file)
    content = bytes_digest(file.read_bytes())
    [batch] = pixels.batches([file, file, file], TINY, batch_size=4, contents=[content, "", "0" * 64])
    assert batch.index.tolist() == [0, 1]
    assert batch.errors[2].kind == "changed" and str(file) in batch.errors[2].message
    assert batch.errors[2].kind in pixels.PASSING_PROBLEMS


def test_it_reads_only_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    monkeypatch.setattr(
        "sightline.pixels.batching.decode_same", lambda source, *_: decoded.append(1) or np.zeros((8, 8, 3), np.uint8)
    )
    stream = pixels.batches([flat_image(0)] * 500, TINY, batch_size=4, threads=2)
    next(stream)
    assert len(decoded) <= 4 + 8
    stream.close()


def test_no_thread_is_left_running_if_iteration_stops() -> None:
    before = threading.active_count()
    for _ in pixels.batches([flat_image(1)] * 300, TINY, batch_size=2, threads=3):
        break
    stream = pixels.batches([flat_image(1)] * 300, TINY, batch_size=2, threads=3)
    next(stream)
    stream.close()
    assert threading.active_count() <= before


def test_internal_errors_are_not_image_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sightline.pixels.batching.decode_same", broken)
    with pytest.raises(ZeroDivisionError):
        list(pixels.batches([flat_image(1)], TINY, batch_size=2))
