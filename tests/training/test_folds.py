"""Folds: every class is in each training part; a class with one image is never held out and named in a note."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline import catalog as catalogs
from sightline.commands import cross_validate, learning_curve
from sightline.commands.run import run
from sightline.errors import DataError
from sightline.records import Recipe
from sightline.runs.plan import Request
from sightline.store import Cache
from sightline.training import methods
from sightline.training.conformal_fit import with_uncertainty
from sightline.training.context import Context, folds_for


def photos(root: Path, sizes: dict[str, int]) -> Path:
    """A folder per class of small images in the class's own colour."""
    rng = np.random.default_rng(0)
    for k, (name, count) in enumerate(sizes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            values = rng.integers(0, 90, (16, 16, 3)) + 40 * np.array([k % 2, k // 2 % 2, k // 4])
            Image.fromarray(values.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def work_of(root: Path, cache: Path) -> Context:
    """All images in train."""
    found = catalogs.scan(root)
    found = found.with_column("split", ["train"] * len(found))
    kept = Cache(cache)
    return Context(found, catalogs.together(found, catalogs.find_duplicates(found, kept)), found.classes, kept)


@pytest.mark.parametrize("duplicates", [False, True])
def test_a_class_with_one_image_is_in_every_training_part(tmp_path: Path, duplicates: bool) -> None:
    root = photos(tmp_path / "photos", {"one": 1, "two": 2, "many": 12, "more": 12})
    if duplicates:  # one group of duplicates is no more than one image
        (root / "one" / "again.png").write_bytes((root / "one" / "0.png").read_bytes())
        (root / "many" / "again.png").write_bytes((root / "many" / "0.png").read_bytes())
    context = work_of(root, tmp_path / "cache")
    rows, labels = np.arange(len(context.catalog)), context.labels
    folds = folds_for(context, rows, 5, seed=0)
    assert len(folds) == 5, "a class of two images does not limit the others"
    held = np.concatenate([b for _, b in folds])
    one = labels == context.classes.index("one")
    assert sorted(held.tolist()) == np.flatnonzero(~one).tolist()
    for train, out in folds:
        assert set(np.unique(labels[train])) == set(range(4)) and not set(context.cluster[train]) & set(context.cluster[out])
        assert sorted([*train, *out]) == rows.tolist()


def test_folds_are_refused_if_every_class_has_one_image(tmp_path: Path) -> None:
    context = work_of(photos(tmp_path / "photos", {"a": 1, "b": 1}), tmp_path / "cache")
    with pytest.raises(DataError, match="every class has only one image"):
        folds_for(context, np.arange(2), 5, seed=0)


SIZES = {"one": 1, "two": 2, "many": 20}


@pytest.mark.parametrize(
    ("method", "changes", "sizes"),
    [
        ("baseline", {}, SIZES),
        ("baseline", {}, {"one": 1, "many": 20}),
        ("shortcut", {"settings": {"trees": 10}}, SIZES),
        ("features", {"backbone": "pixels", "image_size": 8, "head": "ridge"}, SIZES),
        (
            "ensemble",
            {"settings": {"recipe": {"method": "features", "backbone": "pixels", "head": "ridge"}, "seeds": 2}},
            SIZES,
        ),
    ],
)
def test_methods_with_folds_name_a_class_with_one_image_in_a_note(
    tmp_path: Path, method: str, changes: dict[str, object], sizes: dict[str, int]
) -> None:
    context = work_of(photos(tmp_path / "photos", sizes), tmp_path / "cache")
    best = methods.fit(context, dataclasses.replace(Recipe(), method=method, **changes))[0]  # type: ignore[arg-type]
    assert best.note is not None and "no image of 'one' was held out" in best.note and "two" not in best.note
    assert len(best.val) == len(context.catalog) - 1 and np.isfinite(best.val.probs).all()
    assert with_uncertainty(context, best).classifier.classes == context.classes


@pytest.mark.slow
def test_run_cross_validation_and_learning_curve_accept_a_class_with_one_image(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"one": 1, "many": 15, "more": 15})
    cache, lines = Cache(tmp_path / "cache"), list[str]()
    recipe = Recipe(backbone="pixels", head="centroid", image_size=8)
    request = Request(str(root), str(tmp_path / "runs"), ("pixels",), methods=("baseline", "features"), head="centroid")
    done = run(request, cache=cache, say=lines.append)
    assert any(line.startswith("note: no image of 'one' was held out") for line in lines)
    assert all("'one'" in rung["note"] for rung in done.data["ladder"])
    found = catalogs.scan(root)
    folded = cross_validate.cross_validate(found, recipe, tmp_path / "folds", folds=5, cache=cache, say=lines.append)
    assert folded.data["crossvalidation"]["folds"] == 5 and folded.data["val"]["n"] == 30
    assert any(line.startswith("note: 'one' has a single image") for line in lines)
    curve = learning_curve.learning_curve(found, recipe, tmp_path / "curve", cache=cache)
    assert curve.data["points"]
