"""Archives are unpacked once, and refused whole if anything in them is unsafe."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline import catalog, containers
from sightline.containers import archives
from sightline.errors import SightlineError
from sightline.store import Cache, file_digest

Build = Callable[[Path], None]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(number: int) -> bytes:
    """A small image of its own."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def tar_of(file: Path, *entries: tarfile.TarInfo, mode: str = "w", data: bytes = b"") -> None:
    """A tar with one sound image and these entries."""
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        sound = tarfile.TarInfo("cat/0.png")
        sound.size = len(png(0))
        tar.addfile(sound, io.BytesIO(png(0)))
        for entry in entries:
            entry.size = len(data) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(data))


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """An entry of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_of(file: Path, *names: str, data: bytes = b"x", mode: int = 0) -> None:
    """A ZIP with one sound image and files of these names."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/0.png", png(0))
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


def encrypted(file: Path) -> None:
    """A ZIP whose second file needs a password."""
    zip_of(file, "cat/1.png")
    data = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rfind(mark) + offset] |= 1
    file.write_bytes(bytes(data))


def cut(file: Path, build: Build, share: float) -> None:
    """An archive without its end."""
    build(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


HOSTILE: dict[str, tuple[str, Build, str]] = {
    "parent": ("a.zip", lambda f: zip_of(f, "../evil.png"), "leads out"),
    "inner parent": ("a.zip", lambda f: zip_of(f, "cat/../../evil.png"), "leads out"),
    "backslash parent": ("a.zip", lambda f: zip_of(f, "..\\evil.png"), "leads out"),
    "absolute": ("a.zip", lambda f: zip_of(f, "/evil.png"), "absolute"),
    "drive": ("a.zip", lambda f: zip_of(f, "C:/evil.png"), "absolute"),
    "zip link": ("a.zip", lambda f: zip_of(f, "cat/1.png", data=b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "a link"),
    "twice": ("a.tar", lambda f: tar_of(f, entry("cat/0.png")), "occurs twice"),
    "case": ("a.zip", lambda f: zip_of(f, "Cat/0.PNG"), "differ only by case"),
    "file and folder": ("a.zip", lambda f: zip_of(f, "cat"), "a file and a folder"),
    "nested": ("a.zip", lambda f: zip_of(f, "more/photos.tar.gz"), "inside the archive"),
    "encrypted": ("a.zip", encrypted, "encrypted"),
    "bomb": ("a.zip", lambda f: zip_of(f, "cat/1.png", data=b"\0" * (9 << 20)), "more than 100 times"),
    "tar parent": ("a.tar", lambda f: tar_of(f, entry("../evil.png")), "leads out"),
    "tar absolute": ("a.tar.gz", lambda f: tar_of(f, entry("/evil.png"), mode="w:gz"), "absolute"),
    "symbolic link": ("a.tar", lambda f: tar_of(f, entry("cat/1.png", tarfile.SYMTYPE, "/etc/passwd")), "a link"),
    "hard link": ("a.tar", lambda f: tar_of(f, entry("cat/1.png", tarfile.LNKTYPE, "cat/0.png")), "a link"),
    "device": ("a.tar", lambda f: tar_of(f, entry("cat/1.png", tarfile.CHRTYPE)), "a device"),
    "pipe": ("a.tar", lambda f: tar_of(f, entry("cat/1.png", tarfile.FIFOTYPE)), "a pipe"),
    "tar bomb": ("a.tgz", lambda f: tar_of(f, entry("cat/1.png"), mode="w:gz", data=b"\0" * (9 << 20)), "100 times"),
    "truncated zip": ("a.zip", lambda f: cut(f, zip_of, 0.6), "damaged, truncated"),
    "truncated tar": ("a.tar", lambda f: cut(f, tar_of, 0.05), "truncated"),
    "truncated gzip": ("a.tar.gz", lambda f: cut(f, lambda g: tar_of(g, mode="w:gz"), 0.7), "truncated"),
    "no archive": ("a.zip", lambda f: f.write_bytes(b"<html>not here</html>" * 30), "not an archive"),
    "another kind": ("a.7z", lambda f: f.write_bytes(b"7z\xbc\xaf'\x1c"), "does not read (.7z)"),
    "empty": ("a.zip", lambda f: zipfile.ZipFile(f, "w").close(), "contains no files"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_unsafe_and_damaged_archives_are_refused_whole(tmp_path: Path, cache_folder: Path, kind: str) -> None:
    name, build, message = HOSTILE[kind]
    file = tmp_path / "in" / name
    file.parent.mkdir()
    build(file)
    with pytest.raises(SightlineError) as caught:
        catalog.scan(file)
    assert message in caught.value.message and caught.value.hint and str(file) in caught.value.message
    written = [f for f in tmp_path.rglob("*") if f.is_file() and f != file and not f.name.endswith(".lock")]
    assert not written
    assert not [f for f in cache_folder.rglob("*") if f.is_dir() and f.name not in ("archives", "cache")]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "photos"])
def test_the_same_files_in_every_archive_are_the_same_images(tmp_path: Path, name: str) -> None:
    for number, place in enumerate(("cat/0.png", "dog/1.png", "__MACOSX/cat/._0.png", "cat/._0.png")):
        (tmp_path / "x" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / place).write_bytes(png(number))
    file = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted((tmp_path / "x").rglob("*.png")):
                archive.write(path, path.relative_to(tmp_path / "x"))
    else:
        compression = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(file.suffix, "")
        with tarfile.open(file, f"w:{compression}") as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "x", "")
    found, plain = catalog.scan(file), catalog.scan(tmp_path / "x")
    assert found.paths == [f"{name}/{path}" for path in plain.paths] and found.root == tmp_path
    assert found.column("content") == plain.column("content") and found.classes == ("cat", "dog")
    assert any("__MACOSX" in note and "1 file inside" in note for note in found.notes)
    assert any("1 hidden or system file" in note for note in found.notes)
    assert containers.read_bytes(found.file(found.paths[0])) == png(0)


def test_a_saved_catalog_of_an_archive_is_read_again_after_the_cache_was_cleared(tmp_path: Path) -> None:
    zip_of(tmp_path / "a.zip", "dog/1.png", data=png(1))
    found = catalog.scan(tmp_path / "a.zip")
    (tmp_path / "tables").mkdir()
    catalog.save(found, tmp_path / "tables" / "c.csv")
    assert Cache().verify() == [] and "archives" in {name.split("/")[0] for name in Cache().names()}
    Cache().clear()
    again = catalog.load(tmp_path / "tables" / "c.csv")
    assert [containers.digest(f) for f in again.files()] == found.column("content")


def test_an_archive_is_unpacked_once_and_damage_to_it_is_noticed(tmp_path: Path, cache_folder: Path) -> None:
    zip_of(tmp_path / "a.zip", "dog/1.png", data=png(1))
    folder = containers.unpacked(tmp_path / "a.zip")
    assert folder == cache_folder / "archives" / file_digest(tmp_path / "a.zip")
    before = os.stat(folder / "cat" / "0.png").st_mtime_ns
    archives._unpacked.clear()
    assert containers.unpacked(tmp_path / "a.zip") == folder and os.stat(folder / "cat" / "0.png").st_mtime_ns == before
    (folder / "cat" / "0.png").write_bytes(b"changed")
    assert Cache().verify() == [f"archives/{folder.name}"] and not folder.exists()


def test_a_table_or_a_folder_inside_an_archive_can_be_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train.csv", "id,label\n0,x\n1,y\n")
        for number in range(2):
            archive.writestr(f"images/{number}.png", png(number))
    assert any("train.csv" in note for note in catalog.scan(tmp_path / "a.zip").notes)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("train.csv", "path,label\nimages/0.png,x\nimages/1.png,y\n../../outside.png,x\n")
        for number in range(2):
            archive.writestr(f"images/{number}.png", png(number))
    found = catalog.scan(tmp_path / "b.zip" / "train.csv")
    assert found.classes == ("x", "y")
    assert [p for p, problem in zip(found.paths, found.column("problem"), strict=True) if problem is None] == [
        "b.zip/images/0.png",
        "b.zip/images/1.png",
    ]
    with pytest.raises(SightlineError, match="contains no 'nothing'"):
        catalog.scan(tmp_path / "b.zip" / "nothing")


def test_a_folder_with_only_an_archive_names_it(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    zip_of(tmp_path / "x" / "a.zip", "dog/1.png", data=png(1))
    with pytest.raises(SightlineError) as caught:
        catalog.scan(tmp_path / "x")
    assert caught.value.hint and "as in x/a.zip" in caught.value.hint


def test_arrays_inside_an_archive_are_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, images=np.zeros((4, 8, 8), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None], labels=[0, 1, 0, 1])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/x.npz", stream.getvalue())
    found = catalog.scan(tmp_path / "a.zip")
    assert found.paths[3] == "a.zip/data/x.npz#3" and found.classes == ("0", "1") and not any(found.column("problem"))


def test_too_little_space_is_refused_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zip_of(tmp_path / "a.zip", "dog/1.png", data=png(1))
    monkeypatch.setattr(archives, "_RESERVE_BYTES", 1 << 60)
    with pytest.raises(SightlineError, match="free"):
        catalog.scan(tmp_path / "a.zip")


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zip_of(tmp_path / "a.zip", "dog/1.png", data=png(1))
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "file" / "cache"))
    found = catalog.scan(tmp_path / "a.zip")
    assert found.classes == ("cat", "dog") and not any(found.column("problem"))
