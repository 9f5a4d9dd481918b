"""`scan`: class and split of each image, selection of classes, and a row for every file."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sightline import catalog
from sightline.errors import DataError, RequestError
from sightline.records import Catalog
from sightline.store import file_digest, output_folder

Photos = Callable[..., Path]


def classes_of(found: Catalog) -> dict[str, str | None]:
    return dict(zip(found.paths, found.column("label"), strict=True))


def splits_of(found: Catalog) -> dict[str, str | None]:
    return dict(zip(found.paths, found.column("split"), strict=True))


def test_the_class_is_the_parent_folder(photos: Photos) -> None:
    root = photos("cat/1.jpg", "a/deep/dog/2.png")
    found = catalog.scan(root)
    assert classes_of(found) == {"cat/1.jpg": "cat", "a/deep/dog/2.png": "dog"}
    assert found.column("split") == [None, None]
    assert found.root == root


def test_a_row_holds_the_properties_of_the_file(photos: Photos) -> None:
    root = photos("cat/1.jpg", "dog/2.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 30)).save(root / "cat" / "turned.jpg", exif=exif)
    found = catalog.scan(root)
    rows = {row["path"]: row for row in found.table.to_pylist()}
    assert rows["cat/1.jpg"]["content"] == file_digest(root / "cat" / "1.jpg")
    assert rows["cat/1.jpg"]["size_bytes"] == (root / "cat" / "1.jpg").stat().st_size
    assert (rows["dog/2.png"]["width"], rows["dog/2.png"]["height"]) == (96, 72)
    assert (rows["dog/2.png"]["format"], rows["dog/2.png"]["mode"]) == ("PNG", "RGB")
    turned = rows["cat/turned.jpg"]
    assert (turned["width"], turned["height"], turned["orientation"], turned["mode"]) == (30, 40, 6, "L")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "TEST"), ("train", "valid", "testing")])
def test_split_folders_are_kept(photos: Photos, names: tuple[str, ...]) -> None:
    found = catalog.scan(photos(*(f"{name}/{c}/1.jpg" for name in names for c in ("cat", "dog"))))
    assert found.column("label") == [p.split("/")[1] for p in found.paths]
    assert sorted(Counter(found.column("split")).items()) == [("test", 2), ("train", 2), ("val", 2)]
    assert not any("several folders" in note for note in found.notes)


def test_split_folders_below_one_wrapping_folder(photos: Photos) -> None:
    found = catalog.scan(photos("data/train/cat/1.jpg", "data/test/cat/2.jpg"))
    assert splits_of(found) == {"data/train/cat/1.jpg": "train", "data/test/cat/2.jpg": "test"}
    assert set(found.column("label")) == {"cat"}


def test_split_folders_inside_class_folders(photos: Photos) -> None:
    found = catalog.scan(photos("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/1.jpg"))
    assert classes_of(found) == {"cat/train/1.jpg": "cat", "cat/test/2.jpg": "cat", "dog/train/1.jpg": "dog"}
    assert splits_of(found)["cat/test/2.jpg"] == "test"


def test_a_class_may_be_called_train(photos: Photos) -> None:
    found = catalog.scan(photos("train/1.jpg", "bus/2.jpg"))
    assert set(found.column("label")) == {"train", "bus"}
    assert found.column("split") == [None, None]


def test_files_beside_split_folders_are_problems(photos: Photos) -> None:
    found = catalog.scan(photos("train/cat/1.jpg", "test/cat/2.jpg", "extra/cat/3.jpg"))
    problems = dict(zip(found.paths, found.column("problem"), strict=True))
    assert problems["extra/cat/3.jpg"].startswith("no split")
    assert problems["train/cat/1.jpg"] is None


def test_the_class_can_be_read_from_the_file_name(photos: Photos) -> None:
    found = catalog.scan(photos("cat.1.jpg", "dog.2.jpg", "bird.jpg"), label_from=r"^(cat|dog)\.")
    assert classes_of(found) == {"cat.1.jpg": "cat", "dog.2.jpg": "dog", "bird.jpg": None}
    assert found.column("problem")[0].startswith("no class")


def test_flat_split_folders_with_the_class_in_the_name(photos: Photos) -> None:
    found = catalog.scan(photos("train/0_a.jpg", "val/1_b.jpg", "test/1_c.jpg"), label_from=r"^(\d)_")
    assert classes_of(found) == {"train/0_a.jpg": "0", "val/1_b.jpg": "1", "test/1_c.jpg": "1"}
    assert splits_of(found) == {"train/0_a.jpg": "train", "val/1_b.jpg": "val", "test/1_c.jpg": "test"}


def test_a_pattern_without_a_group_and_one_with_a_slash(photos: Photos) -> None:
    root = photos("p1/cat_1.jpg", "p2/dog_1.jpg")
    assert catalog.scan(root, label_from=r"^[a-z]+").column("label") == ["cat", "dog"]
    assert catalog.scan(root, label_from=r"(p\d)/").column("label") == ["p1", "p2"]


def test_an_invalid_pattern_is_refused(photos: Photos) -> None:
    with pytest.raises(RequestError, match=r"not a regular expression"):
        catalog.scan(photos("a.jpg"), label_from="(")


def test_a_pattern_without_match_is_refused_with_an_example(photos: Photos) -> None:
    with pytest.raises(DataError, match=r"matches no file name, such as 'a.jpg'"):
        catalog.scan(photos("a.jpg"), label_from="^(x)")


def test_classes_are_chosen_and_renamed(photos: Photos) -> None:
    root = photos("hong kong chicken/1.jpg", "salmon/2.jpg", "soup/3.jpg")
    found = catalog.scan(root, classes={"chicken": "hong kong chicken", "salmon": "salmon"})
    assert classes_of(found) == {"hong kong chicken/1.jpg": "chicken", "salmon/2.jpg": "salmon"}
    assert any("1 images of 1 classes (soup)" in note for note in found.notes)
    assert catalog.scan(root, classes=["soup"]).classes == ("soup",)


def test_an_unknown_class_is_refused(photos: Photos) -> None:
    with pytest.raises(RequestError, match="salmom") as caught:
        catalog.scan(photos("salmon/2.jpg"), classes=["salmom"])
    assert caught.value.hint == "did you mean 'salmon'?"


def test_the_limit_is_drawn_by_content_and_is_stable(photos: Photos) -> None:
    names = [f"cat/{i:02d}.jpg" for i in range(20)]
    root = photos(*names, *(f"dog/{i}.jpg" for i in range(3)))
    first = catalog.scan(root, limit=5)
    assert Counter(first.column("label")) == {"cat": 5, "dog": 3}
    assert first.paths[:5] != names[:5]
    assert any("15 images were left out" in note for note in first.notes)
    chosen = set(first.column("content"))
    for i, name in enumerate(names):  # other names, other order: the same photographs
        (root / name).rename(root / "cat" / f"renamed-{97 - i}.jpg")
    assert set(catalog.scan(root, limit=5).column("content")) == chosen
    assert set(catalog.scan(root, limit=5, seed=1).column("content")) != chosen


def test_the_limit_does_not_count_and_does_not_hide_problems(photos: Photos) -> None:
    root = photos("cat/1.jpg", "cat/2.jpg", "cat/3.jpg")
    (root / "cat" / "0.jpg").write_bytes(b"")
    found = catalog.scan(root, limit=2)
    assert Counter(p is None for p in found.column("problem")) == {True: 2, False: 1}


def test_a_list_of_paths_or_of_pairs(photos: Photos) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    files = [root / "cat" / "1.jpg", root / "dog" / "2.jpg"]
    assert catalog.scan(files).column("label") == ["cat", "dog"]
    pairs = catalog.scan([(files[0], "tom"), (str(files[1]), "rex"), (files[1], "rex")])
    assert classes_of(pairs) == {"cat/1.jpg": "tom", "dog/2.jpg": "rex"}
    assert any("are counted once" in note for note in pairs.notes)
    clash = catalog.scan([(files[0], "tom"), (files[0], "rex"), (files[1], "rex")])
    assert clash.column("problem")[0].startswith("conflict: the list says 'tom' and 'rex'")


def test_rows_are_sorted_and_progress_counts_every_file(photos: Photos) -> None:
    told: list[tuple[str, int, int]] = []
    found = catalog.scan(photos("b/2.jpg", "a/9.jpg", "a/10.jpg"), progress=lambda *a: told.append(a))
    assert found.paths == sorted(found.paths)
    assert ("reading files", 3, 3) in told


def test_a_png_named_jpg_is_noted_and_used(photos: Photos) -> None:
    root = photos("cat/1.png")
    (root / "cat" / "1.png").rename(root / "cat" / "1.jpg")
    found = catalog.scan(root)
    assert found.column("problem") == [None]
    assert found.column("format") == ["PNG"]
    assert "PNG" in found.column("note")[0]


def test_a_truncated_jpeg_is_a_problem_unless_it_is_allowed(photos: Photos) -> None:
    root = photos("cat/1.jpg", "cat/2.jpg")
    file = root / "cat" / "1.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    assert catalog.scan(root).column("problem") == ["truncated: its end is missing", None]
    allowed = catalog.scan(root, allow_truncated=True)
    assert allowed.column("problem") == [None, None]
    assert "truncated" in allowed.column("note")[0]


def test_image_files_lists_what_scan_would_open(photos: Photos) -> None:
    root = photos("b/1.jpg", "a.png")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    (root / "._a.png").write_bytes(b"x")
    assert catalog.image_files(root) == ([root / "a.png", root / "b" / "1.jpg"], {})


TOOLS = (
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@Recycle",
    "lost+found",
    "__pycache__",
    "$RECYCLE.BIN",
    "System Volume Information",
)


@pytest.mark.parametrize("name", TOOLS)
def test_folders_of_tools_are_not_classes(photos: Photos, name: str) -> None:
    found = catalog.scan(photos("cat/1.jpg", "dog/2.jpg", f"cat/{name}/1.jpg/thumb.jpg", f"{name}/3.jpg"))
    assert found.classes == ("cat", "dog") and len(found) == 2
    assert any(f"2 folders: {name} (2), created by the system or a tool" in note for note in found.notes)


def test_a_virtual_environment_is_not_a_class(photos: Photos) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg", "env/lib/matplotlib/images/3.png")
    (root / "env" / "pyvenv.cfg").write_text("home = /usr/bin", encoding="utf-8")
    assert catalog.scan(root).classes == ("cat", "dog")


def test_a_folder_of_results_is_a_class_only_if_it_is_named(photos: Photos) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    results = output_folder(root / "explanations")
    photos("explanations/cat/heat.png", "explanations/dog/heat.png")
    found = catalog.scan(root)
    assert found.paths == ["cat/1.jpg", "dog/2.jpg"]
    assert any("ignored: explanations, written by Sightline" in note for note in found.notes)
    assert catalog.scan(results).paths == ["cat/heat.png", "dog/heat.png"]


def test_a_folder_that_holds_photographs_is_never_marked_as_results(photos: Photos) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    output_folder(root / "cat")
    assert catalog.scan(root).classes == ("cat", "dog")


@pytest.mark.parametrize("date", ["2021", "2021-05", "20210503", "2021/05/03", "1999_12"])
def test_date_folders_below_the_class_are_not_classes(photos: Photos, date: str) -> None:
    root = photos(f"cat/{date}/1.jpg", "cat/2022/2.jpg", f"dog/{date}/3.jpg", "dog/4.jpg")
    found = catalog.scan(root)
    assert sorted(found.column("label")) == ["cat", "cat", "dog", "dog"]
    (note,) = [n for n in found.notes if "named by date" in n]
    assert set(catalog.scan(root, label_level=int(note.split("--label-level ")[1])).classes) >= {"2022", "dog"}


@pytest.mark.parametrize(
    "names",
    [
        ("1998/1.jpg", "1999/2.jpg"),
        ("photos/1998/1.jpg", "photos/1999/2.jpg"),
        ("front/2000/1.jpg", "front/1000/2.jpg", "back/1900/3.jpg", "back/500/4.jpg"),
    ],
)
def test_number_folders_are_classes_if_there_are_no_others(photos: Photos, names: tuple[str, ...]) -> None:
    assert set(catalog.scan(photos(*names)).classes) == {name.split("/")[-2] for name in names}


@pytest.mark.parametrize("above", ["", "train/", "data/train/"])
def test_a_folder_of_one_name_below_every_class_is_not_a_class(photos: Photos, above: str) -> None:
    other = above.replace("train", "val")
    names = [f"{top}{c}/raw/images/{i}.jpg" for i, top in enumerate({above, other}) for c in ("cat", "dog")]
    assert catalog.scan(photos(*names)).classes == ("cat", "dog")


@pytest.mark.parametrize("above", ["", "data/", "train/"])
@pytest.mark.parametrize("sources", [("cam1", "cam2"), ("garden", "forest"), ("day/raw", "night/raw")])
def test_folders_that_recur_below_several_classes_are_not_classes(photos: Photos, above: str, sources: tuple[str, ...]) -> None:
    tops = {above, above.replace("train", "val")}
    names = [f"{top}{c}/{s}/{i}.jpg" for i, top in enumerate(tops) for c in ("hare", "lynx") for s in sources]
    root = photos(*names)
    found = catalog.scan(root)
    assert found.classes == ("hare", "lynx")
    (note,) = [n for n in found.notes if "recur below several folders" in n]
    assert "(hare, lynx)" in note
    lowest = catalog.scan(root, label_level=int(note.split("--label-level ")[1]))
    assert lowest.classes == tuple(sorted({s.rpartition("/")[2] for s in sources}))
    assert lowest.column("split") == found.column("split")


@pytest.mark.parametrize(
    "names",
    [
        ("cam1/cat/1.jpg", "cam1/dog/2.jpg", "cam2/cat/3.jpg", "cam2/dog/4.jpg"),  # numbered folders are sources
        ("2021/cat/1.jpg", "2021/dog/2.jpg", "2022/cat/3.jpg", "2022/dog/4.jpg"),
        ("home/cat/1.jpg", "home/dog/2.jpg", "farm/cow/3.jpg", "farm/pig/4.jpg", "farm/dog/5.jpg"),  # most names occur once
        ("cat/1.jpg", "cat/old/2.jpg", "dog/3.jpg", "dog/old/4.jpg"),
    ],
)
def test_folders_that_are_classes_stay_classes(photos: Photos, names: tuple[str, ...]) -> None:
    assert set(catalog.scan(photos(*names)).classes) == {name.split("/")[-2] for name in names}


def test_the_level_of_the_class_can_be_chosen(photos: Photos) -> None:
    root = photos("a/cat/x/1.jpg", "a/dog/x/2.jpg", "b/cow/3.jpg", "4.jpg")
    for level, classes in ((1, ("a", "b")), (2, ("cat", "cow", "dog")), (-1, ("cow", "x")), (-2, ("b", "cat", "dog"))):
        found = catalog.scan(root, label_level=level)
        assert found.classes == classes
        assert dict(zip(found.paths, found.column("problem"), strict=True))["4.jpg"].startswith("no class")
    for wrong in ({"label_level": 0}, {"label_level": 1, "label_from": "x"}):
        with pytest.raises(RequestError, match="--label-level"):
            catalog.scan(root, **wrong)  # type: ignore[arg-type]


def test_year_folders_above_the_classes_are_not_classes(photos: Photos) -> None:
    found = catalog.scan(photos(*(f"{year}/{c}/1.jpg" for year in (2021, 2022) for c in ("cat", "dog"))))
    assert found.classes == ("cat", "dog") and not any("--label-level" in note for note in found.notes)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_ignored_links_are_reported_with_a_hint(photos: Photos, tmp_path: Path) -> None:
    root = photos("cat/1.jpg", "dog/2.jpg")
    (tmp_path / "store.jpg").write_bytes((root / "cat" / "1.jpg").read_bytes())
    (root / "cat" / "3.jpg").symlink_to(tmp_path / "store.jpg")
    assert any("1 link was left out, such as cat/3.jpg: add --follow-links" in note for note in catalog.scan(root).notes)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_are_followed_on_request_without_endless_loops(photos: Photos, tmp_path: Path) -> None:
    root, store = photos("cat/1.jpg"), photos("2.bin.jpg", "owls/3.jpg", root="store")
    (root / "dog").mkdir()
    (root / "dog" / "2.jpg").symlink_to(os.path.relpath(store / "2.bin.jpg", root / "dog"))
    (root / "owl").symlink_to(store / "owls")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "self.jpg").symlink_to(root / "cat" / "self.jpg")
    (root / "cat" / "lost.jpg").symlink_to(store / "nothing.jpg")
    found = catalog.scan(root, follow_links=True)
    assert found.classes == ("cat", "dog", "owl") and [p for p in found.paths if "3" in p] == ["owl/3.jpg"]
    problems = {p: v.partition(":")[0] for p, v in zip(found.paths, found.column("problem"), strict=True) if v}
    assert problems == {"cat/loop": "link", "cat/lost.jpg": "link", "cat/self.jpg": "link"}
    assert any("3 links were followed" in note for note in found.notes)
    assert catalog.scan(root).classes == ("cat",)


def test_a_list_finds_a_file_in_another_unicode_form(photos: Photos) -> None:
    root = photos("Ka\u0308fer/1.jpg", "dog/2.jpg")
    found = catalog.scan([(root / "K\u00e4fer" / "1.jpg", "a"), (root / "dog" / "2.jpg", "b")])
    assert found.column("problem") == [None, None]


def test_a_run_inside_the_photographs_is_not_read(photos: Photos) -> None:
    root = photos("cat/1.jpg", "runs/r1/samples/001.jpg")
    for name in ("run.json", "catalog.csv"):
        (root / "runs" / "r1" / name).write_text("", encoding="utf-8")
    found = catalog.scan(root)
    assert found.paths == ["cat/1.jpg"]
    assert any("runs/r1, written by Sightline" in note for note in found.notes)


def test_the_summary_counts_everything(photos: Photos, cache) -> None:  # type: ignore[no-untyped-def]
    root = photos(*(f"cat/{i}.jpg" for i in range(10)), *(f"dog/{i}.png" for i in range(10)))
    (root / "dog" / "bad.png").write_bytes(b"<html>")
    shutil.copy(root / "cat" / "1.jpg", root / "dog" / "copy.jpg")
    found = catalog.scan(root)
    twins = catalog.find_duplicates(found, cache)
    data = catalog.summarise(catalog.split(found, clusters=twins), twins)
    assert (data["images"], data["usable"]) == (22, 21)
    assert sum(data["problems"].values()) == len(data["problem_files"]) == 1
    assert sum(sum(c.values()) for c in data["per_class"].values()) == 21
    assert data["width"] == {"min": 96, "median": 96.0, "max": 96}
    assert sum(data["size_histogram"]["counts"]) == 21
    assert len(data["size_histogram"]["counts"]) == len(data["size_histogram"]["edges_px"]) - 1
    assert data["enlarged"]["64"] == 0.0
    assert data["enlarged"]["96"] == 1.0
    assert data["formats"] == {"JPEG": 11, "PNG": 10}
    assert data["duplicates"]["exact"] == 1
    assert data["duplicates"]["conflicts"] == [["cat/1.jpg", "dog/copy.jpg"]]
