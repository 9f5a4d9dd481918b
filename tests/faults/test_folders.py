"""Folders with links, pipes, odd names and empty classes: no hang, no crash, every ignored file is reported."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import catalog
from sightline.errors import DataError, RequestError
from sightline.records import Catalog
from sightline.store import Cache

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
Add = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """`add("cat/1.png")`: an image of its own in the folder `p`; returns the file."""
    made: Iterator[int] = iter(range(1000))

    def make(name: str) -> Path:
        file = tmp_path / "p" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(next(made)).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        return file

    return make


@pytest.fixture
def root(tmp_path: Path, add: Add) -> Path:
    """Two classes with an image each."""
    add("cat/1.png")
    add("dog/1.png")
    return tmp_path / "p"


def problems(found: Catalog) -> dict[str, str | None]:
    return dict(zip(found.paths, found.column("problem"), strict=True))


def noted(found: Catalog, text: str) -> bool:
    return any(text in note for note in found.notes)


# ----------------------------------------------------------------------------------------------------- missing and empty


def test_no_folder_an_empty_one_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        catalog.scan(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no images"):
        catalog.scan(tmp_path / "empty")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(RequestError, match="is a file, not a folder"):
        catalog.scan(tmp_path / "a.jpg")


def test_all_images_in_the_root(tmp_path: Path, add: Add) -> None:
    add("cat1.png")
    add("dog1.png")
    with pytest.raises(DataError, match="none of the 2 files") as caught:
        catalog.scan(tmp_path / "p")
    assert caught.value.hint is not None and "--label-from" in caught.value.hint


def test_some_images_in_the_root(root: Path, add: Add) -> None:
    add("stray.png")
    found = catalog.scan(root)
    stray = "no class: it is directly in the scanned folder"
    assert problems(found) == {"cat/1.png": None, "dog/1.png": None, "stray.png": stray}


def test_empty_classes_and_classes_of_broken_files(root: Path) -> None:
    (root / "bird").mkdir()
    (root / "fish").mkdir()
    (root / "fish" / "1.jpg").write_bytes(b"")
    found = catalog.scan(root)
    assert noted(found, "1 folder contains no images: bird")
    assert noted(found, "class 'fish' has no usable image")
    assert problems(found)["fish/1.jpg"] is not None
    assert found.classes == ("cat", "dog")


def test_one_class_and_classes_of_one_image(tmp_path: Path, add: Add, root: Path) -> None:
    assert noted(catalog.scan(root), "classes with a single image: 'cat', 'dog'")
    assert noted(catalog.scan(root, classes=["cat"]), "only one class")


# ------------------------------------------------------------------------------------------------------- what is no image


def test_texts_that_are_called_jpg_are_named(root: Path) -> None:
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "cat" / "page.jpg").write_text("<!DOCTYPE html><html>404</html>", encoding="utf-8")
    (root / "cat" / "text.jpg").write_text("not found", encoding="utf-8")
    (root / "cat" / "doc.pdf").write_bytes(b"%PDF-1.4 ...")
    found = problems(catalog.scan(root))
    assert len(found) == 6
    kinds = {p.rpartition("/")[2]: (v or "").partition(":")[0] for p, v in found.items()}
    assert kinds["empty.jpg"] == "empty"
    assert kinds["page.jpg"] == kinds["text.jpg"] == "not an image"
    assert kinds["doc.pdf"] == "unsupported"


def test_ignored_files_are_counted(root: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._1.png", "desktop.ini", "labels.csv", "readme.md"):
        (root / "cat" / name).write_bytes(b"x")
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "1.png").write_bytes(b"x")
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    found = catalog.scan(root)
    assert found.paths == ["cat/1.png", "dog/1.png"]
    assert noted(found, "ignored: 1 .csv file, 1 .md file, 4 hidden or system files")
    assert noted(found, "ignored: 2 folders: .ipynb_checkpoints, __MACOSX, created by the system or a tool, with 1 file inside")


# ------------------------------------------------------------------------------------------------- links and special files


@posix
def test_links(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes((root / "cat" / "1.png").read_bytes())
    (root / "cat" / "inside.png").symlink_to(root / "dog" / "1.png")
    (root / "cat" / "out.png").symlink_to(outside)
    (root / "cat" / "nowhere.png").symlink_to(root / "gone.png")
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    (root / "cat" / "up").symlink_to(root)
    (root / "etc").symlink_to("/etc")
    found = problems(catalog.scan(root))
    assert found == {
        "cat/1.png": None,
        "cat/inside.png": None,
        "cat/nowhere.png": "link: its target does not exist, or the link is circular",
        "cat/out.png": "link: its target is outside the folder",
        "cat/self.png": "link: its target does not exist, or the link is circular",
        "cat/up": "link: links to folders are not followed",
        "dog/1.png": None,
        "etc": "link: links to folders are not followed",
    }


@posix
def test_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert problems(catalog.scan(tmp_path / "link")) == {"cat/1.png": None, "dog/1.png": None}


@posix
def test_a_folder_of_the_same_name_beside_the_root_is_outside(root: Path) -> None:
    beside = root.with_name(root.name + "-more")
    beside.mkdir()
    (beside / "1.png").write_bytes((root / "cat" / "1.png").read_bytes())
    (root / "cat" / "2.png").symlink_to(beside / "1.png")
    assert problems(catalog.scan(root))["cat/2.png"] == "link: its target is outside the folder"


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="names of sockets are short there")
def test_pipes_and_links_to_devices_are_not_opened(root: Path) -> None:
    os.mkfifo(root / "cat" / "pipe.jpg")
    (root / "cat" / "zero.jpg").symlink_to("/dev/zero")
    found = problems(catalog.scan(root))
    assert found["cat/pipe.jpg"] == "not a file: it is a pipe"
    assert found["cat/zero.jpg"] == "link: its target is outside the folder"


def test_a_folder_that_cannot_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert problems(catalog.scan(root)) == {
        "cat/1.png": None,
        "dog": "unreadable: the folder cannot be opened (Permission denied)",
    }


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(root: Path) -> None:
    (root / "cat" / "1.png").chmod(0)
    assert problems(catalog.scan(root))["cat/1.png"] == "unreadable: Permission denied"


def test_a_file_that_goes_away_during_the_scan(root: Path) -> None:
    def remove(stage: str, done: int, total: int) -> None:
        (root / "dog" / "1.png").unlink(missing_ok=True)

    from sightline.catalog import layout, reading, walking

    entries, _ = layout.of_folder(walking.walk(root), None)
    (root / "dog" / "1.png").unlink()
    found = reading.read_files([root / e.path for e in entries], [e.path for e in entries], progress=remove)
    assert [r.problem for r in found] == [None, "missing: there is no such file"]


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="names of sockets are short there")
def test_a_table_opens_regular_files_only(root: Path, python: Any) -> None:
    os.mkfifo(root / "pipe.jpg")
    listed = ["cat/1.png", "pipe.jpg", "/dev/zero", "/proc/cpuinfo", "cat/1.png\0x", "\0"]
    (root / "t.csv").write_text("path,label\n" + "".join(f"{path},cat\n" for path in listed), encoding="utf-8")
    code = "from sightline import catalog; c = catalog.scan('t.csv'); print(dict(zip(c.paths, c.column('problem'))))"
    found = {Path(p).name: problem for p, problem in ast.literal_eval(python(code, cwd=root).out).items()}
    nul = "name: it contains a NUL character; correct the table"
    expected = {"1.png": None, "pipe.jpg": "not a file: it is a pipe", "zero": "not a file: it is a device"}
    assert found == expected | {"cpuinfo": found["cpuinfo"], "1.png␀x": nul, "␀": nul}
    assert found["cpuinfo"] in ("not a file: it is a system file without a size", "missing: there is no such file")


def test_a_list_with_names_that_no_file_has(root: Path) -> None:
    found = catalog.scan([(root / "cat" / "1.png", "cat"), (f"{root}/cat/a\0b.png", "cat"), (f"{root}/dog/\ud800.png", "dog")])
    assert {Path(p).name: problem for p, problem in problems(found).items()} == {
        "1.png": None,
        "a␀b.png": "name: it contains a NUL character; correct the table",
        "\\ud800.png": "name: it is not UTF-8; rename the file",
    }


def test_files_ignored_by_a_search_for_images_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.txt", "b.txt", "c.zip"):
        (root / name).write_text("x")
    assert [f.name for f in catalog.image_files(root)[0]] == ["1.png", "1.png"]
    assert f"{root}: ignored: 2 .txt files, 1 .zip file" in caplog.text


# --------------------------------------------------------------------------------------------------------------- names

ODD_NAMES = ["ünï.png", "😀.png", "-rf.png", "a b.png", "שלום.png", "100%.png", "=1+1.png", "'q'.png", "a,b;c.png", '"x".png']


@pytest.mark.parametrize("name", [*ODD_NAMES, "new\nline.png", "tab\t.png", "back\\slash.png", "re\rturn.png"])
def test_odd_names_work_from_scan_to_split_and_back(root: Path, add: Add, name: str, tmp_path: Path, cache: Cache) -> None:
    if os.name == "nt" and any(c in name for c in '\n\t\\\r"'):
        pytest.skip("Windows has no such names")
    add(f"cat/{name}")
    add(f"{name[:-4]}/1.png")
    found = catalog.scan(root)
    assert f"cat/{name}" in found.paths
    assert name[:-4] in found.classes
    assert not any(problems(found).values())
    done = catalog.split(found, clusters=catalog.find_duplicates(found, cache))
    catalog.save(done, tmp_path / "c.csv")
    back = catalog.load(tmp_path / "c.csv", root)
    assert back.table.equals(done.table)
    assert all(f.is_file() for f in back.files())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux takes names that are no text")
def test_bytes_that_are_not_utf8_are_a_problem_with_a_name(root: Path, tmp_path: Path, cache: Cache) -> None:
    data = (root / "cat" / "1.png").read_bytes()
    folder = os.fsencode(root)
    with open(folder + b"/cat/caf\xe9.png", "wb") as file:
        file.write(data)
    os.mkdir(folder + b"/o\xff")
    with open(folder + b"/o\xff/1.png", "wb") as file:
        file.write(data)
    found = catalog.scan(root)
    assert problems(found)["cat/caf\\xe9.png"] == "name: it is not UTF-8; rename the file"
    assert problems(found)["o\\xff/1.png"] == "name: it is not UTF-8; rename the file"
    done = catalog.split(found, clusters=catalog.find_duplicates(found, cache))
    catalog.save(done, tmp_path / "c.csv")
    assert len(catalog.load(tmp_path / "c.csv")) == 4


def test_classes_that_differ_by_unicode_form_are_one(root: Path, add: Add) -> None:
    add("é/1.png".encode().decode())
    add("e\u0301/2.png")
    found = catalog.scan(root)
    if len(found) == 4 and len({p.split("/")[0] for p in found.paths}) < 4:
        pytest.skip("this file system takes both for one folder")
    assert found.classes == ("cat", "dog", "é")
    assert noted(found, "differ only by Unicode form are merged into one class")
    assert len(catalog.scan(root, classes=["e\u0301"])) == 2


def test_a_note_reports_classes_that_differ_by_case(root: Path, add: Add) -> None:
    add("Cat/2.png")
    found = catalog.scan(root)
    if len(os.listdir(root)) == 2:
        pytest.skip("this file system takes both for one folder")
    assert found.classes == ("Cat", "cat", "dog")
    assert noted(found, "possibly the same class: 'Cat' and 'cat' differ only by case")


def test_a_note_reports_one_class_at_two_depths(root: Path, add: Add) -> None:
    add("more/cat/2.png")
    found = catalog.scan(root)
    assert found.classes == ("cat", "dog")
    assert noted(found, "class 'cat' occurs in several folders, merged into one class: cat, more/cat")


# ----------------------------------------------------------------------------------------------------------------- many


def test_many_files_in_one_folder_keep_memory_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from sightline.catalog import reading

    folder = tmp_path / "p" / "cat"
    folder.mkdir(parents=True)
    image = tmp_path / "i.png"
    Image.new("L", (1, 1)).save(image)
    data = image.read_bytes()
    for i in range(3000):
        (folder / f"{i}.png").write_bytes(data)
    waiting, most, lock = 0, 0, threading.Lock()
    one = reading.read_file

    def counted(*arguments: Any) -> reading.Reading:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        try:
            return one(*arguments)
        finally:
            with lock:
                waiting -= 1

    monkeypatch.setattr(reading, "read_file", counted)
    told: list[tuple[str, int, int]] = []
    found = catalog.scan(tmp_path / "p", progress=lambda *a: told.append(a))
    assert len(found) == 3000
    assert most <= 8
    assert ("listing files", 2000, 0) in told
    assert told[-1] == ("reading files", 3000, 3000)
    assert [n for stage, n, _ in told if stage == "reading files"] == sorted(n for s, n, _ in told if s == "reading files")
