"""Decoders of unusual formats run in worker processes: a crash or a hang costs only its file."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline import pixels
from sightline.errors import ImageError
from sightline.pixels import decoding, isolation
from sightline.records import Preprocess

PREPROCESS = Preprocess(size=(16, 16))

FAULTY = """
import os, time
from PIL import TiffImagePlugin
load = TiffImagePlugin.TiffImageFile.load
def faulty(image):
    if image.size[0] == 33: os.abort()
    if image.size[0] == 34: time.sleep(60)
    return load(image)
TiffImagePlugin.TiffImageFile.load = faulty
"""


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[isolation._Pool]:
    """A pool of workers of the test's own."""
    pool = isolation._Pool()
    monkeypatch.setattr(isolation, "_pool", pool)
    yield pool
    pool.close()


def write(folder: Path, name: str, width: int = 40, **options: object) -> Path:
    """Write an image of a width and a fixed pattern in the format of its name."""
    values = np.random.default_rng(width).integers(0, 255, (40, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / name, **options)  # type: ignore[arg-type]
    return folder / name


def test_a_decoder_that_crashes_or_hangs_loses_only_its_file(
    tmp_path: Path, pool: isolation._Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULTY, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    files = [
        write(tmp_path, "a.jpg"),
        write(tmp_path, "crash.tif", 33),
        write(tmp_path, "b.tif", 41),
        write(tmp_path, "c.webp", 42, lossless=True),
    ]
    (batch,) = pixels.batches(files, PREPROCESS, batch_size=8)
    assert batch.index.tolist() == [0, 2, 3]
    assert "crash.tif cannot be decoded (the decoder crashed" in batch.errors[1].message

    monkeypatch.setattr(isolation, "limit_s", lambda data: 0.5)  # the parent's; the worker's is patched below
    (tmp_path / "sitecustomize.py").write_text(
        FAULTY + "\nfrom sightline.pixels import isolation\nisolation.limit_s = lambda data: 0.5\n", encoding="utf-8"
    )
    pool.close()
    (batch,) = pixels.batches([write(tmp_path, "hang.tif", 34), files[2]], PREPROCESS, batch_size=8, threads=1)
    assert batch.index.tolist() == [1]
    assert "hang.tif cannot be decoded (the decoder did not return within" in batch.errors[0].message


def test_a_worker_returns_what_this_process_would(tmp_path: Path, pool: isolation._Pool) -> None:
    file = write(tmp_path, "a.tif")
    assert np.array_equal(pixels.decode(file, PREPROCESS), isolation_free(file))
    assert pool.idle and pool.idle[0].process.pid != os.getpid()
    (tmp_path / "cut.tif").write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"cut\.tif cannot be decoded"):
        pixels.decode(tmp_path / "cut.tif", PREPROCESS)
    assert pixels.safe_header(file.read_bytes(), "a.tif") == pixels.read_header(file.read_bytes(), "a.tif")


def isolation_free(file: Path) -> np.ndarray:
    """The decoded image, computed in this process."""
    return decoding._decode(file.read_bytes(), file.name, PREPROCESS)


def test_photographs_start_no_process(tmp_path: Path, pool: isolation._Pool) -> None:
    for file in (write(tmp_path, "a.jpg"), write(tmp_path, "b.png"), write(tmp_path, "p.jpg", progressive=True)):
        pixels.decode(file, PREPROCESS)
    assert not pool.idle


def test_only_baseline_and_progressive_jpegs_are_plain() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    data = stream.getvalue()
    assert isolation.is_plain(data)
    start = data.index(b"\xff\xc0")
    assert isolation.is_plain(data[:start] + b"\xff\xc2" + data[start + 2 :])
    assert not isolation.is_plain(data[:start] + b"\xff\xc9" + data[start + 2 :])  # arithmetic coding


def test_without_a_process_files_are_decoded_here(
    tmp_path: Path, pool: isolation._Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "absent"))
    file = write(tmp_path, "a.tif")
    assert np.array_equal(pixels.decode(file, PREPROCESS), isolation_free(file))
    pixels.decode(file, PREPROCESS)
    assert len([r for r in caplog.records if "no process for decoding" in r.message]) == 1


def test_threads_share_a_bounded_number_of_workers(tmp_path: Path, pool: isolation._Pool) -> None:
    file = write(tmp_path, "a.tif")
    threads = [threading.Thread(target=pixels.decode, args=(file, PREPROCESS)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(pool.idle) <= isolation._MOST_WORKERS
