"""Only regular files are opened. What could block runs in a process of its own, with a time limit."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sightline import files, store

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")

_READ = """
import sys
from sightline import files, store
for path in sys.argv[1:]:
    for function in (files.read_bytes, files.read_text, store.file_digest, files.is_file, files.open_regular):
        try:
            print(path, function.__name__, type(function(path)).__name__)
        except OSError as error:
            print(path, function.__name__, error.__class__.__name__, getattr(error, "message", error.strerror))
"""


def read_all(*paths: object) -> list[str]:
    """What the functions of `files` say of paths."""
    command = [sys.executable, "-c", _READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.splitlines()


@posix
def test_devices_pipes_and_sockets_are_refused_without_being_opened(tmp_path: Path) -> None:
    import socket

    pipe, link = tmp_path / "pipe.jpg", tmp_path / "link.jpg"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        address = Path(os.path.relpath(tmp_path / "s"))  # addresses of sockets are short
        listening.bind(str(address))
        said = read_all(pipe, "/dev/zero", link, address)
    kinds = ["a pipe"] * 5 + ["a device"] * 10 + ["a socket"] * 5
    assert len(said) == len(kinds)
    for line, kind in zip(said, kinds, strict=True):
        assert line.endswith(f"is not a regular file: it is {kind}") and "NotReadableError" in line


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="there is no /proc")
def test_a_file_of_the_system_without_a_size_is_refused() -> None:
    for line in read_all("/proc/cpuinfo")[:3]:
        assert line.endswith("is not a regular file: it is a system file without a size")


def test_a_name_that_no_file_can_have_is_refused() -> None:
    for name in ("a\0b", "a\ud800b"):
        with pytest.raises(OSError, match=r"not a valid file name|No such file|cannot find"):
            files.read_bytes(name)
        assert not files.is_file(name)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"director|ermission"):
        files.read_bytes(tmp_path)
    assert not files.is_file(tmp_path) and not files.is_file(tmp_path / "nothing")


def test_no_more_is_read_than_the_file_had_when_it_was_opened(tmp_path: Path) -> None:
    file = tmp_path / "growing"
    file.write_bytes(b"abcd")
    pieces = files.chunks(file, chunk_bytes=2)
    read = [next(pieces)]
    with open(file, "ab") as more:
        more.write(b"x" * 1000)
    assert b"".join([*read, *pieces]) == b"abcd"


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with open(file, "wb") as sparse:
        sparse.truncate(files.LARGEST_BYTES + 1)
    with pytest.raises(files.NotReadableError, match=r"is too large: the file has 2\.1 GB"):
        files.read_bytes(file)


def test_bytes_text_and_digest(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffé\r\n".encode())
    assert files.read_text(file) == "é\r\n"
    assert store.file_digest(file) == hashlib.sha256(files.read_bytes(file)).hexdigest()
