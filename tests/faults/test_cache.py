"""What happens to the cache when bits flip, disks fill, folders are read-only and processes die."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sightline import store
from sightline.store import Cache


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_entry_reads_as_absent_and_is_removed(cache: Cache, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache.write("a/b", b"0123456789" * 100)
    file = cache.root / "a" / "b"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    changed = {"flip": bytes(data), "cut": bytes(data[:300]), "empty": b"", "foreign": b"hello"}[damage]
    file.write_bytes(changed)
    with caplog.at_level(logging.WARNING, "sightline"):
        assert cache.read("a/b") is None
    assert "damaged" in caplog.text
    assert not file.exists()


def test_verify_names_the_damaged(cache: Cache) -> None:
    cache.write("a/good", b"1")
    cache.write("a/bad", b"2")
    (cache.root / "a" / "bad").write_bytes(b"x")
    assert cache.verify() == ["a/bad"]
    assert cache.names() == ["a/good"]


def test_a_full_disk_is_reported_once_and_work_continues(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "replace", full)
    with caplog.at_level(logging.WARNING, "sightline"):
        assert not cache.write("a", b"1")
        assert not cache.write("b", b"2")
    assert caplog.text.count("continuing without it") == 1
    assert list(cache.root.rglob("*")) == [] or not any(p.is_file() for p in cache.root.rglob("*"))


def test_a_folder_that_cannot_be_made_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    cache = Cache(tmp_path / "file" / "cache")
    assert cache.read("a") is None
    assert not cache.write("a", b"1")


def test_old_temporary_files_are_swept_and_young_ones_left(cache: Cache) -> None:
    cache.write("a/b", b"1")
    old, young = cache.root / "a" / ".x.1.tmp", cache.root / "a" / ".y.2.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    cache.evict()
    assert not old.exists() and young.exists()
    assert cache.names() == ["a/b"]


_WRITER = """
import sys
from sightline.store import Cache
cache = Cache(sys.argv[1])
print("ready", flush=True)
i = 0
while True:
    cache.write("x/%05d" % (i % 50), bytes([i % 256]) * 200_000)
    i += 1
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_no_partial_entry(tmp_path: Path) -> None:
    for round_number in range(4):
        writer: Any = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout.readline().strip() == b"ready"
        time.sleep(0.05 + 0.03 * round_number)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        cache = Cache(tmp_path)
        for name in cache.names():
            payload = cache.read(name)
            assert payload is not None and len(payload) == 200_000 and len(set(payload)) == 1


def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    writers: list[Any] = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for writer in writers:
        writer.stdout.readline()
    cache, deadline, read = Cache(tmp_path), time.monotonic() + 0.5, 0
    while time.monotonic() < deadline:
        for name in cache.names():
            payload = cache.read(name)
            if payload is not None:
                assert len(set(payload)) == 1
                read += 1
    for writer in writers:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert read > 0 and cache.verify() == []
