"""`split`: duplicates and groups stay together, assigned images stay, every class is in train, file order does not matter."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline import catalog
from sightline.catalog import Duplicates
from sightline.errors import RequestError
from sightline.records import CATALOG_COLUMNS, Catalog


def make(
    labels: Sequence[str | None],
    *,
    names: Sequence[str] | None = None,
    splits: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
    problems: Sequence[str | None] | None = None,
    contents: Sequence[str] | None = None,
    **own: Sequence[str | None],
) -> Catalog:
    """A catalog of images that exist on paper only."""
    n = len(labels)
    names = names or [f"{label}/{i:04d}.jpg" for i, label in enumerate(labels)]
    values: dict[str, Sequence[object]] = {name: [None] * n for name in CATALOG_COLUMNS}
    values |= {"path": names, "content": contents or [f"c{name}" for name in names], "label": labels}
    given_values = {"split": splits, "group": groups, "problem": problems}
    values |= {k: v for k, v in given_values.items() if v is not None}
    table = {name: pa.array(values[name], pa.type_for_alias(kind)) for name, kind in CATALOG_COLUMNS.items()}
    table |= {name: pa.array(v, pa.string()) for name, v in own.items()}
    return Catalog(pa.table(table), Path("/nowhere"))


def alone(found: Catalog, *sets: Sequence[int], links: Sequence[tuple[int, int]] = ()) -> Duplicates:
    """Duplicates that are those rows."""
    cluster = np.arange(len(found), dtype=np.int64)
    for rows in sets:
        cluster[list(rows)] = min(rows)
    lists = [[found.paths[r] for r in rows] for rows in sets]
    return Duplicates(lists, [], [], cluster, np.array(links, np.int64).reshape(-1, 2))


def counts(found: Catalog) -> dict[str, Counter[str]]:
    """Class → split → images."""
    out: dict[str, Counter[str]] = defaultdict(Counter)
    for label, name, problem in zip(found.column("label"), found.column("split"), found.column("problem"), strict=True):
        if problem is None:
            out[label][name] += 1
    return out


def where(found: Catalog) -> dict[str, str | None]:
    return dict(zip(found.paths, found.column("split"), strict=True))


# ------------------------------------------------------------------------------------------------------------ by numbers


def test_splits_are_stratified_by_class() -> None:
    found = make(["a"] * 800 + ["b"] * 200)
    done = catalog.split(found, val=0.15, test=0.2, clusters=alone(found))
    assert counts(done) == {"a": {"train": 520, "val": 120, "test": 160}, "b": {"train": 130, "val": 30, "test": 40}}


def test_split_sizes_given_as_numbers_are_exact_and_stratified() -> None:
    found = make(["a"] * 70 + ["b"] * 20 + ["c"] * 13)
    done = catalog.split(found, val=10, test=20, clusters=alone(found))
    total = Counter(done.column("split"))
    assert total == {"train": 73, "val": 10, "test": 20}
    assert counts(done)["a"]["test"] in (13, 14)


def test_fractions_are_rounded_to_the_nearest_number_of_images() -> None:
    found = make(["a"] * 70 + ["b"] * 33)  # 25.75 and 20.6 images
    done = catalog.split(found, val=0.25, test=0.2, clusters=alone(found))
    assert Counter(done.column("split")) == {"train": 56, "val": 26, "test": 21}


@pytest.mark.parametrize(
    ("n", "val", "test", "expected"),
    [
        (1, 0.15, 0.2, {"train": 1}),
        (2, 0.15, 0.2, {"train": 1, "val": 1}),
        (2, 0, 0.2, {"train": 1, "test": 1}),
        (3, 0.15, 0.2, {"train": 1, "val": 1, "test": 1}),
        (4, 0.15, 0.2, {"train": 2, "val": 1, "test": 1}),
        (5, 0, 0, {"train": 5}),
    ],
)
def test_splits_of_small_classes(n: int, val: float, test: float, expected: dict[str, int]) -> None:
    found = make(["few"] * n + ["many"] * 100)
    assert counts(catalog.split(found, val=val, test=test, clusters=alone(found)))["few"] == expected


def test_a_class_of_copies_counts_as_one_image() -> None:
    found = make(["a"] * 4 + ["b"] * 20)
    done = catalog.split(found, clusters=alone(found, range(4)))
    assert counts(done)["a"] == {"train": 4}
    assert "not in val: 'a'" in done.notes


@pytest.mark.parametrize(
    ("val", "test"), [(0.5, 0.5), (5, 5), (100, 0), (-1, 0), (1.0, 0.0), (float("nan"), 0.1), (True, 0.1), (0.2, -0.1)]
)
def test_impossible_split_sizes_are_refused(val: float, test: float) -> None:
    found = make(["a"] * 5 + ["b"] * 5)
    with pytest.raises(RequestError):
        catalog.split(found, val=val, test=test, clusters=alone(found))


def test_rows_with_a_problem_or_without_a_class_have_no_split() -> None:
    found = make(["a"] * 10 + [None], problems=["empty"] + [None] * 10)
    done = catalog.split(found, clusters=alone(found))
    assert done.column("split")[0] is None
    assert done.column("split")[-1] is None
    assert done.column("problem")[0] == "empty"


def test_another_seed_gives_another_split() -> None:
    found = make(["a"] * 50 + ["b"] * 50)
    first, again, other = (where(catalog.split(found, seed=s, clusters=alone(found))) for s in (0, 0, 1))
    assert first == again
    assert first != other


# ------------------------------------------------------------------------------------------------------------ properties


@st.composite
def sets_of_images(draw: st.DrawFn) -> tuple[Catalog, Duplicates]:
    """Classes of any size, with duplicates and groups across them."""
    n = draw(st.integers(1, 60))
    labels = draw(st.lists(st.sampled_from("aaabbc"), min_size=n, max_size=n))
    groups = draw(st.lists(st.sampled_from([None, None, None, "g1", "g2"]), min_size=n, max_size=n))
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).map(sorted).filter(lambda p: p[0] < p[1])
    found = make(labels, groups=groups)
    sets: list[list[int]] = []
    for a, b in draw(st.lists(pair, max_size=n // 3)):
        if not any(a in s or b in s for s in sets):
            sets.append([a, b])
    return found, alone(found, *sets, links=draw(st.lists(pair, max_size=2)))


def shuffled(found: Catalog, twins: Duplicates, order: np.ndarray) -> tuple[Catalog, Duplicates]:
    place = np.argsort(order)
    cluster = place[twins.cluster][order]
    return (
        dataclasses.replace(found, table=found.table.take(pa.array(order))),
        dataclasses.replace(twins, cluster=cluster, links=place[twins.links]),
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    images=sets_of_images(), val=st.sampled_from([0, 0.15, 0.3]), test=st.sampled_from([0, 0.2, 0.4]), seed=st.integers(0, 9)
)
def test_duplicates_and_groups_stay_together_and_every_class_is_in_train(
    images: tuple[Catalog, Duplicates], val: float, test: float, seed: int
) -> None:
    found, twins = images
    done = catalog.split(found, val=val, test=test, seed=seed, clusters=twins)
    splits = done.column("split")
    assert all(s in ("train", "val", "test") for s in splits)
    for number in np.unique(catalog.together(done, twins)):
        assert len({splits[i] for i in np.flatnonzero(catalog.together(done, twins) == number)}) == 1
    assert catalog.split_proof(done, twins).straddling == 0
    assert catalog.leaks(done, twins) == []
    assert all(c["train"] > 0 for c in counts(done).values())
    for name, share in (("val", val), ("test", test)):
        if not share:
            assert name not in splits


@settings(max_examples=60, deadline=None)
@given(images=sets_of_images(), data=st.data())
def test_the_split_does_not_depend_on_the_order_of_files(images: tuple[Catalog, Duplicates], data: st.DataObject) -> None:
    found, twins = images
    order = np.array(data.draw(st.permutations(range(len(found)))))
    mixed, mixed_twins = shuffled(found, twins, order)
    assert where(catalog.split(found, clusters=twins)) == where(catalog.split(mixed, clusters=mixed_twins))


def test_the_split_does_not_depend_on_file_names() -> None:
    labels, contents = ["a", "b"] * 40, [f"content {i}" for i in range(80)]
    found = make(labels, contents=contents)
    renamed = make(labels, contents=contents, names=[f"{label}/other {i}.jpg" for i, label in enumerate(labels)])
    one, other = (catalog.split(c, clusters=alone(c)).column("split") for c in (found, renamed))
    assert one == other


@settings(max_examples=60, deadline=None)
@given(images=sets_of_images(), more=st.lists(st.sampled_from("abcd"), max_size=20), data=st.data())
def test_assigned_images_keep_their_split(images: tuple[Catalog, Duplicates], more: list[str], data: st.DataObject) -> None:
    found, twins = images
    before = catalog.split(found, clusters=twins)
    n = len(found)
    larger = make(
        [*found.column("label"), *more],
        names=[*found.paths, *(f"new/{i}.jpg" for i in range(len(more)))],
        groups=[*found.column("group"), *([None] * len(more))],
    )
    pair = st.tuples(st.integers(0, n - 1), st.integers(n, n + len(more) - 1))
    links = data.draw(st.lists(pair, max_size=6)) if more else []
    cluster = np.concatenate([twins.cluster, np.arange(n, n + len(more))])
    joined = dataclasses.replace(
        twins, cluster=cluster, links=np.array([*twins.links.tolist(), *links], np.int64).reshape(-1, 2)
    )
    after = catalog.split(larger, previous=before, clusters=joined)
    assert {p: where(after)[p] for p in found.paths} == where(before)
    if {"val", "test"} <= set(where(after).values()):  # a split that is missing is taken from train, as for users' folders
        again = catalog.split(after, clusters=joined)  # also when the table itself is split once more
        assert {p: s for p, s in where(again).items() if where(after)[p]} == {p: s for p, s in where(after).items() if s}
    assert catalog.split_proof(after, joined).straddling == 0
    linked = defaultdict(set)
    for a, b in links:
        linked[b].add(where(before)[found.paths[a]])
    for row, splits in linked.items():
        problem = after.column("problem")[row]
        if len(splits) > 1:
            assert problem is not None and problem.startswith("bridges ")
            assert after.column("split")[row] is None
    assert all((p is not None) == (s is None) for p, s in zip(after.column("problem"), after.column("split"), strict=True))


# ------------------------------------------------------------------------------------------------- given and earlier splits


def test_a_new_image_that_bridges_train_and_test_is_left_out() -> None:
    found = make(["a"] * 20 + ["b"] * 20)
    before = catalog.split(found, clusters=alone(found))
    splits = before.column("split")
    train, test = splits.index("train"), splits.index("test")
    larger = make([*found.column("label"), "a"], names=[*found.paths, "a/new.jpg"])
    after = catalog.split(larger, previous=before, clusters=alone(larger, links=[(train, 40), (test, 40)]))
    assert after.column("problem")[40] == "bridges train and test"
    assert after.column("split")[40] is None
    assert any("two splits, such as a/new.jpg" in note for note in after.notes)
    assert where(after) == where(before) | {"a/new.jpg": None}


def test_a_new_copy_gets_the_split_of_its_original() -> None:
    found = make(["a"] * 20 + ["b"] * 20)
    before = catalog.split(found, clusters=alone(found))
    for name in ("train", "val", "test"):
        row = before.column("split").index(name)
        larger = make([*found.column("label"), "a"], names=[*found.paths, "a/new.jpg"])
        assert catalog.split(larger, previous=before, clusters=alone(larger, [row, 40])).column("split")[40] == name


def test_a_moved_image_is_matched_by_its_content() -> None:
    found = make(["a"] * 20 + ["b"] * 20)
    before = catalog.split(found, clusters=alone(found))
    renamed = make(found.column("label"), names=[f"x/{i:03d}.jpg" for i in range(40)], contents=found.column("content"))
    after = catalog.split(renamed, previous=before, clusters=alone(renamed), seed=7)
    assert after.column("split") == before.column("split")


def test_an_edited_image_is_matched_by_its_path() -> None:
    found = make(["a"] * 20 + ["b"] * 20)
    before = catalog.split(found, clusters=alone(found))
    edited = make(found.column("label"), contents=[f"edited{i}" for i in range(40)])
    after = catalog.split(edited, previous=before, clusters=alone(edited), seed=7)
    assert after.column("split") == before.column("split")


def test_val_is_taken_from_a_given_train_split() -> None:
    given = ["train"] * 90 + ["test"] * 10
    found = make(["a", "b"] * 50, splits=given)
    done = catalog.split(found, clusters=alone(found))
    assert done.column("split")[90:] == given[90:]
    assert Counter(done.column("split")) == {"train": 75, "val": 15, "test": 10}
    assert any(note.startswith("no val split found: ") and "taken from train (seed 0)" in note for note in done.notes)
    again = catalog.split(found, previous=done, clusters=alone(found), seed=5)
    assert where(again) == where(done)


def test_a_given_split_is_kept_and_its_leaks_are_reported() -> None:
    given = ["train"] * 40 + ["val"] * 5 + ["test"] * 5
    found = make(["a", "b"] * 25, splits=given)
    twins = alone(found, [0, 45], [44, 46], [1, 2])
    done = catalog.split(found, clusters=twins)
    assert done.column("split") == given
    paths = found.paths
    assert catalog.leaks(done, twins) == [(paths[45], paths[0]), (paths[46], paths[44])]
    assert catalog.split_proof(done, twins).straddling == 2


def test_no_val_is_taken_if_val_is_0() -> None:
    given = ["train"] * 8 + ["test"] * 2
    found = make(["a", "b"] * 5, splits=given)
    assert catalog.split(found, val=0, clusters=alone(found)).column("split") == given


def test_rows_without_a_split_are_assigned_beside_given_ones() -> None:
    found = make(["a", "b"] * 50, splits=["train"] * 30 + ["val"] * 3 + ["test"] * 2 + [None] * 65)
    done = catalog.split(found, clusters=alone(found))
    assert done.column("split")[:35] == found.column("split")[:35]
    assert Counter(done.column("split")) == {"train": 65, "val": 15, "test": 20}


# ---------------------------------------------------------------------------------------------------------------- groups


def test_groups_by_column_and_by_pattern() -> None:
    labels = ["a", "b"] * 30
    people = [f"p{i // 6}" for i in range(60)]
    found = make(labels, names=[f"{p}_{i}.jpg" for i, p in enumerate(people)], person=people)
    for group_by in ("person", r"^(p\d+)_"):
        done = catalog.split(found, group_by=group_by, clusters=alone(found))
        assert done.column("group") == people
        splits: dict[str, set[str]] = defaultdict(set)
        for person, name in zip(people, done.column("split"), strict=True):
            splits[person].add(name)
        assert all(len(s) == 1 for s in splits.values())
        assert Counter(done.column("split")) == {"train": 36, "val": 12, "test": 12}


def test_an_unknown_group_column_is_refused() -> None:
    found = make(["a", "b"] * 5, person=["x"] * 10)
    with pytest.raises(RequestError, match="'persn' is not a column") as caught:
        catalog.split(found, group_by="persn", clusters=alone(found))
    assert caught.value.hint == "did you mean the column 'person'?"
    with pytest.raises(RequestError, match="not a regular expression"):
        catalog.split(found, group_by="(", clusters=alone(found))


def test_split_by_date_trains_on_the_past() -> None:
    dates = [f"2024-01-{d:02d}" for d in range(1, 21)]
    found = make(["a", "b"] * 10, taken=dates)
    done = catalog.split(found, val=0.2, test=0.2, order_by="taken", clusters=alone(found, (3, 18)))
    splits = done.column("split")
    assert splits[:3] == ["train"] * 3 and splits[3] == splits[18] == "test", "a set of duplicates has its latest date"
    rest = [s for i, s in enumerate(splits) if i != 3]
    order = ["train", "val", "test"]
    assert [order.index(s) for s in rest] == sorted(order.index(s) for s in rest)
    assert Counter(splits) == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize(
    ("values", "message"), [(["spring", "1"], "'spring' is neither a date nor a number"), ([None, None], "the column is empty")]
)
def test_order_by_names_a_value_that_is_not_a_date(values: list[str | None], message: str) -> None:
    found = make(["a", "b"], taken=values)
    with pytest.raises(RequestError, match=message):
        catalog.split(found, order_by="taken", clusters=alone(found))


def test_folds_keep_units_together_and_are_balanced() -> None:
    found = make(["a"] * 30 + ["b"] * 30)
    done = catalog.split(found, folds=5, clusters=alone(found, (0, 1, 2), (31, 45)))
    folds, splits = done.column("fold"), done.column("split")
    assert all((f is None) == (s == "test") for f, s in zip(folds, splits, strict=True))
    assert len({folds[i] for i in (0, 1, 2)}) == len({folds[i] for i in (31, 45)}) == 1
    sizes = Counter(f for f in folds if f is not None)
    assert set(sizes) == {1, 2, 3, 4, 5} and max(sizes.values()) - min(sizes.values()) <= 3


def test_large_groups_are_reported_as_imbalance() -> None:
    found = make(["a", "b"] * 20, groups=["one"] * 24 + ["two"] * 16)
    done = catalog.split(found, val=0, test=0.2, clusters=alone(found))
    assert any(note.startswith("test has") and "instead of 8" in note for note in done.notes)


def test_leak_sets_name_the_paths_in_two_splits() -> None:
    found = make(["a"] * 4, splits=["train", "test", "train", "train"])
    duplicates = alone(found, (0, 1), (2, 3))
    assert catalog.leak_sets(found, duplicates) == [["a/0000.jpg", "a/0001.jpg"]]
    proof = catalog.split_proof(found, duplicates)
    assert (proof.sentence, proof.examples) == ("1 of 2 clusters straddles", ("a/0000.jpg", "a/0001.jpg"))
