"""Corrections of a catalog, and differences between two catalogs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sightline import catalog
from sightline.errors import RequestError
from sightline.records.decisions import Decision
from sightline.store import Cache
from tests.catalog.test_split import make

Photos = Callable[..., Path]


def test_quarantine_leaves_images_out_and_keeps_their_rows() -> None:
    found = make(["cat", "dog"], problems=[None, "empty"])
    after, changes = catalog.quarantine(found, {"cat/0000.jpg": "a drawing", "dog/0001.jpg": "a drawing"})
    assert after.column("problem") == ["quarantined: a drawing", "empty"]
    assert [(c.path, c.action, c.before, c.after) for c in changes] == [
        ("cat/0000.jpg", "quarantine", None, "quarantined: a drawing")
    ]
    with pytest.raises(RequestError, match="not an image of the catalog"):
        catalog.quarantine(found, {"cat/1.jpg": "?"})


def test_dedupe_keeps_one_image_and_leaves_conflicts_to_a_person(photos: Photos, cache: Cache) -> None:
    root = photos("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    shutil.copy(root / "cat" / "1.jpg", root / "cat" / "copy.jpg")
    shutil.copy(root / "cat" / "2.jpg", root / "dog" / "copy.jpg")
    found = catalog.scan(root)
    duplicates = catalog.find_duplicates(found, cache)
    after, changes = catalog.dedupe(found, duplicates)
    assert [(c.path, c.after) for c in changes] == [("cat/copy.jpg", "duplicate of cat/1.jpg")]
    assert len(after) == len(found) and (root / "cat" / "copy.jpg").exists()
    in_test = found.with_column("split", ["test" if p == "cat/copy.jpg" else "train" for p in found.paths])
    assert [c.path for c in catalog.dedupe(in_test, duplicates)[1]] == ["cat/1.jpg"], "the test image is kept"


def test_relabel_reads_a_table(tmp_path: Path) -> None:
    found = make(["cat", "dog"])
    table = tmp_path / "labels.csv"
    table.write_text("path,label,reason\ncat/0000.jpg,dog,it barks\ndog/0001.jpg,dog,\n", encoding="utf-8")
    after, changes = catalog.relabel(found, table)
    assert after.column("label") == ["dog", "dog"]
    assert [(c.before, c.after, c.reason) for c in changes] == [("cat", "dog", "it barks")]
    catalog.write_changes(changes, tmp_path / "changes.csv")
    assert (tmp_path / "changes.csv").read_text(encoding="utf-8").splitlines() == [
        "path,action,before,after,reason",
        "cat/0000.jpg,relabel,cat,dog,it barks",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "has no column 'path'"),
        ("path,label\ncat/0.jpg,dog\n", "'cat/0.jpg' is not an image of the catalog"),
        ("path,label\ncat/0000.jpg,dog\ncat/0000.jpg,cat\n", "two labels, 'dog' and 'cat'"),
        ("path,label\ncat/0000.jpg,\n", "a row without a path or a label"),
    ],
)
def test_invalid_relabel_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=message):
        catalog.relabel(make(["cat", "dog"]), table)


def test_diff_lists_what_changed() -> None:
    before = make(["cat", "cat", "dog", "dog"], splits=["train"] * 4)
    labels = [*before.column("label")[:3], "cat"]
    after = make(
        labels,
        names=["cat/0000.jpg", "cat/moved.jpg", "dog/new.jpg", "dog/0003.jpg"],
        contents=["changed", "ccat/0001.jpg", "cnew", "cdog/0003.jpg"],
        splits=["test", "train", None, "train"],
    )
    found = catalog.diff(before, after)
    assert (found.added, found.removed, found.moved) == (
        ("dog/new.jpg",),
        ("dog/0002.jpg",),
        (("cat/0001.jpg", "cat/moved.jpg"),),
    )
    assert (found.content, found.label, found.split) == (
        ("cat/0000.jpg",),
        {"dog/0003.jpg": ("dog", "cat")},
        {"cat/0000.jpg": ("train", "test")},
    )
    assert not found.same and catalog.diff(before, before).same


def test_decisions_of_a_person_correct_a_catalog() -> None:
    found = make(["cat", "cat", "cat", "dog", "dog", "dog"], problems=[None, None, None, None, None, "empty"])
    a, b, c, d, e, f = found.paths
    decisions = [
        Decision("keep", a),
        Decision("label", b, label=" dog ", reason="suspicious label"),
        Decision("duplicate", c, copy_of=a),
        Decision("no class", d),
        Decision("label", e, label="dog"),
        Decision("exclude", f),
    ]
    after, changes = catalog.apply_decisions(found, {each.path: each for each in decisions})
    assert after.column("label") == ["cat", "dog", "cat", "dog", "dog", "dog"]
    assert after.column("problem") == [None, None, f"duplicate of {a}", "quarantined: not in any class", None, "empty"]
    assert [(x.path, x.action, x.before, x.after, x.reason) for x in changes] == [
        (b, "relabel", "cat", "dog", "labelled by a person (suspicious label)"),
        (c, "dedupe", None, f"duplicate of {a}", f"duplicate of {a}, decided by a person"),
        (d, "quarantine", None, "quarantined: not in any class", "not in any class, decided by a person"),
    ]
    listed = catalog.diff(found, after)
    assert set(listed.label or {}) == {b} and set(listed.problem or {}) == {c, d}


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (Decision("exclude", "cat/1.jpg"), "not an image of the catalog"),
        (Decision("label", "cat/0000.jpg", label=" "), "names no label"),
    ],
)
def test_a_decision_that_cannot_be_applied_is_named(decision: Decision, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        catalog.apply_decisions(make(["cat", "dog"]), {decision.path: decision})
