"""Commands as Python functions, and their errors for wrong types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline as sl
from sightline.errors import RequestError
from sightline.records import Catalog, Predictions, Run
from sightline.store import Cache

from ..conftest import write_few_digits

RECIPE = sl.Recipe(backbone="pixels", head="centroid", settings={"folds": 2})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    write_few_digits(folder / "digits", 12)
    return folder


@pytest.fixture(scope="module")
def cache(place: Path) -> Cache:
    return Cache(place / "cache")


@pytest.fixture(scope="module")
def catalog(place: Path, cache: Cache) -> Catalog:
    return sl.split(sl.scan(place / "digits"), cache=cache)


@pytest.fixture(scope="module")
def fitted(place: Path, catalog: Catalog, cache: Cache) -> Run:
    return sl.fit(catalog, RECIPE, out=place / "fitted", cache=cache)


@pytest.mark.slow
def test_run_returns_a_run_with_its_classifier(place: Path, cache: Cache) -> None:
    lines: list[str] = []
    run = sl.run(
        place / "digits",
        out=place / "runs",
        backbones=["pixels"],
        methods=["baseline", "features"],
        head="centroid",
        heatmaps="none",
        say=lines.append,
        cache=cache,
    )
    assert run.data["kind"] == "run" and lines and (run.folder / "report.html").is_file()
    assert isinstance(run.classifier, sl.Classifier) and isinstance(run.held_out, Predictions)
    assert len(sl.predict(run, place / "digits" / "7", cache=cache)) == 12


def test_evaluate_and_mistakes_take_objects_as_well_as_paths(place: Path, catalog: Catalog, fitted: Run, cache: Cache) -> None:
    in_memory = sl.evaluate(fitted.classifier, catalog, out=place / "e1", heatmaps="none", cache=cache)
    by_path = sl.evaluate(str(fitted.folder), fitted.folder / "catalog.csv", out=place / "e2", heatmaps="none", cache=cache)
    assert in_memory.data["test"] == by_path.data["test"] and in_memory.data["scored"] == "test"
    assert sl.evaluate(fitted, catalog, out=place / "e3", heatmaps="none", cache=cache).data["test"] == by_path.data["test"]
    assert sl.mistakes(fitted.classifier, catalog, by="pair", cache=cache) == sl.mistakes(
        fitted.folder, catalog, by="pair", cache=cache
    )
    assert sl.mistakes(fitted, by="pair") and sl.mistakes(in_memory) == in_memory.data["mistakes"]


def test_studies_take_a_recipe_or_its_file(place: Path, catalog: Catalog, fitted: Run, cache: Cache) -> None:
    other = sl.fit(catalog, sl.Recipe(backbone="pixels", head="ridge", settings={"folds": 2}), out=place / "ridge", cache=cache)
    compared = sl.compare([fitted, other.folder], catalog=catalog, out=place / "compared", cache=cache)
    assert len(compared.data["pairs"]) == 1
    crossed = sl.cross_validate(catalog, fitted.folder / "recipe.toml", place / "crossed", folds=2, cache=cache)
    assert crossed.data["crossvalidation"]["folds"] == 2
    curve = sl.learning_curve(catalog, RECIPE, place / "curve", cache=cache)
    assert curve.data["points"] and (curve.folder / "learning-curve.svg").is_file()
    assert Path(sl.augment(catalog, place / "preview.png", count=1)["preview"]).is_file()


def test_fit_continues_a_run_with_its_catalog_and_recipe(place: Path, catalog: Catalog, cache: Cache) -> None:
    recipe = sl.Recipe(method="scratch", backbone="cnn(filters=[4])", image_size=8, settings={"epochs": 1, "augment": "none"})
    first = sl.fit(catalog, recipe, out=place / "first", cache=cache)
    longer = sl.fit(continue_from=first, out=place / "longer", cache=cache)
    assert longer.data["epochs"] == 2 and longer.data["continued"]["epochs"] == 1
    with pytest.raises(RequestError, match="fit needs a catalog"):
        sl.fit()


def test_a_report_of_one_run_is_written_into_its_folder(place: Path, fitted: Run) -> None:
    (fitted.folder / "report.html").unlink()
    assert sl.write_report(fitted) == fitted.folder / "report.html"
    assert sl.write_report([fitted, fitted.folder], place / "both.html").is_file()


def test_reprs_are_short_and_notebooks_get_a_table(catalog: Catalog, fitted: Run) -> None:
    assert repr(catalog).startswith("Catalog(images 120, classes 10, splits train ")
    assert repr(fitted).startswith("Run(folder ") and "method features, backbone pixels, head centroid" in repr(fitted)
    assert repr(fitted.held_out).startswith("Predictions(images ") and "accuracy 0." in repr(fitted.held_out)
    for shown in (catalog, fitted, fitted.held_out):
        assert "\n" not in repr(shown) and len(repr(shown)) < 400
        assert shown._repr_html_().startswith("<table>")  # type: ignore[union-attr]
    odd = Predictions(("a",), ("<b>",), np.zeros(1, np.int64), np.ones((1, 1)))
    assert "<b>" not in Run(Path("<b>"), {})._repr_html_() and odd._repr_html_()


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: sl.run(3), "photos cannot be of type int"),  # type: ignore[arg-type]
    (lambda: sl.run("photos", methods="features"), "methods is a list of names"),
    (lambda: sl.split("photos"), "catalog cannot be of type str"),  # type: ignore[arg-type]
    (lambda: sl.fit(3), "a catalog cannot be of type int"),  # type: ignore[arg-type]
    (lambda: sl.fit("photos", {"method": "features"}), "a recipe cannot be of type dict"),  # type: ignore[arg-type]
    (lambda: sl.fit(continue_from=3), "a run cannot be of type int"),  # type: ignore[arg-type]
    (lambda: sl.predict(None, "a.jpg"), "a classifier cannot be of type NoneType"),  # type: ignore[arg-type]
    (lambda: sl.predict("runs/x", 7), "images cannot be of type int"),  # type: ignore[arg-type]
    (lambda: sl.score({"a": 1}), "predictions cannot be of type dict"),  # type: ignore[arg-type]
    (lambda: sl.evaluate(3, "photos"), "a subject cannot be of type int"),  # type: ignore[arg-type]
    (lambda: sl.evaluate("runs/x", None), "a catalog cannot be of type NoneType"),  # type: ignore[arg-type]
    (lambda: sl.compare("runs/x"), "subjects cannot be of type str"),
    (lambda: sl.compare([1, 2]), "a subject of a comparison cannot be of type int"),  # type: ignore[list-item]
    (lambda: sl.cross_validate([1], RECIPE), "a catalog cannot be of type list"),  # type: ignore[arg-type]
    (lambda: sl.cross_validate("photos", 5), "a recipe cannot be of type int"),  # type: ignore[arg-type]
    (lambda: sl.write_report(None), "a run cannot be of type NoneType"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_type_gets_a_sentence_and_a_hint(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        call()
    assert refused.value.hint
