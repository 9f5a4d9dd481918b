"""Decisions of a run: the chosen classifier, matched predictions, recipes and folder names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sightline.commands import evaluate, run
from sightline.errors import DataError
from sightline.records import CATALOG_COLUMNS, Catalog, Predictions, Recipe
from sightline.records.error_analysis import Mistake
from sightline.records.heatmaps import ExplainedImage
from sightline.runs import folder as folders
from sightline.runs.folder import toml
from sightline.store import slug, slugs, write_json
from sightline.training.methods.features import simplest_first


def make_catalog(paths: list[str], **columns: list[object]) -> Catalog:
    """A catalog with the columns given, the others null."""
    given = {"path": paths, **columns}
    data = {n: pa.array(given.get(n, [None] * len(paths)), pa.type_for_alias(k)) for n, k in CATALOG_COLUMNS.items()}
    return Catalog(pa.table(data), Path("/photos"))


def fake(method: str, right: int, n: int, paths: tuple[str, ...] | None = None) -> run.Candidate:
    """Return a candidate with the given validation predictions."""
    card = SimpleNamespace(method=method, backbone=SimpleNamespace(name=method))
    probs = np.tile([0.1, 0.9], (n, 1))
    true = np.array([1] * right + [0] * (n - right))
    val = Predictions(paths or tuple(map(str, range(n))), ("a", "b"), true, probs)
    return run.Candidate(SimpleNamespace(card=card), method, val, "val", 1.0)  # type: ignore[arg-type]


def test_the_best_candidate_on_common_images_is_chosen_and_never_the_shortcut_check() -> None:
    good, better, shortcut = fake("features", 8, 10), fake("scratch", 9, 10), fake("shortcut", 10, 10)
    assert run.choose([good, shortcut, better]) is better
    # Out-of-fold answers on many images, right on all that both were held out on: that counts.
    paths = tuple(map(str, range(9, -1, -1))) + tuple(f"more {i}" for i in range(10))
    val = fake("features", 10, 20, paths).val
    wide = dataclasses.replace(fake("features", 10, 20), val=val)
    chosen = run.choose([better, dataclasses.replace(wide, label="wide")])
    assert chosen.label == "wide"
    assert run.choose([fake("features", 9, 10), fake("scratch", 8, 10)]).note is None
    low = dataclasses.replace(wide, val=fake("features", 13, 20, paths).val)  # 65 % of 20, but 100 % of the common 10
    told = run.choose([better, dataclasses.replace(low, label="low")])
    assert told.label == "low" and told.note == "on the 10 held-out images shared by all methods: 100.0%; scratch 90.0%"


def test_predictions_are_matched_by_path_or_by_its_unambiguous_end() -> None:
    catalog = make_catalog(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"], label=["cat", "cat", "dog"])
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    unknown = np.full(3, -1)
    answers = Predictions(("dog/1.jpg", "D:\\photos\\cat\\1.jpg", "2.jpg"), ("cat", "dog"), unknown, probs)
    found = evaluate.match(answers, catalog)
    assert found.paths == ("dog/1.jpg", "cat/1.jpg", "cat/2.jpg")
    assert found.y_true.tolist() == [1, 0, 0]
    ambiguous = Predictions(("1.jpg",), ("cat", "dog"), unknown[:1], probs[:1])
    with pytest.raises(DataError, match="none of the 1 paths"):
        evaluate.match(ambiguous, catalog)
    twice = Predictions(("cat/1.jpg", "x/cat/1.jpg"), ("cat", "dog"), unknown[:2], probs[:2])
    with pytest.raises(DataError, match="more than one row"):
        evaluate.match(twice, catalog)


def test_a_recipe_reads_back_from_its_toml() -> None:
    import tomllib

    from sightline.schema import from_json

    recipe = Recipe(head="mlp", settings={"refit": False, "head": {"layers": [[512, 0.3]], "rate": 1e-4}}, seed=7)
    assert from_json(Recipe, tomllib.loads(toml(recipe)), "recipe") == dataclasses.replace(recipe)


@pytest.mark.parametrize("text", ["\x7f", "a\nb\t\x00\x1b", '"quoted" \\ 猫', "\u2028"])
def test_any_text_in_a_recipe_reads_back_from_its_toml(text: str) -> None:
    import tomllib

    from sightline.schema import from_json

    recipe = Recipe(positive=text, settings={"note": text, "table": {text: [text, {"inner": 1.5}]}})
    assert from_json(Recipe, tomllib.loads(toml(recipe)), "recipe") == recipe


@pytest.mark.parametrize(
    ("name", "expected"), [("My photos (2024)!", "my-photos-2024"), ("CON", "photos-con"), ("…", "photos"), ("Käfer.", "käfer")]
)
def test_folder_names_are_portable(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize(
    "names",
    [
        ("C", "C++", "C#", "c"),
        ("赤い花", "青い花", "हिन्दी", "हन्द"),
        ("Cat", "cat", "CAT "),
        ("a b", "a_b", "a-b"),
        ("+", "-", "…"),
        ("caf\u00e9", "cafe\u0301", "CAFE\u0301"),
        ("long " * 30 + "A", "long " * 30 + "B"),
        ("\U0001f98a", "\U0001f43a"),
        ("con", "CON", "com¹", "x.", "x"),
        ("straße", "strasse"),
    ],
)
def test_every_class_has_a_file_name_of_its_own_on_every_system(names: tuple[str, ...]) -> None:
    import unicodedata

    found = list(slugs(names).values())
    for form in ("NFC", "NFD"):
        assert len({unicodedata.normalize(form, name).casefold() for name in found}) == len(names)
    for name in found:
        assert 0 < len(f"wrong-{name}.png".encode()) < 100 and name[-1] not in " ."
        assert not set(name) & set('<>:"/\\|?*') and name.lower() not in ("con", "com¹")


def test_a_result_without_a_name_never_takes_the_folder_of_another_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = {"subject": "a/val.csv", "photos": "c"}, {"subject": "b/val.csv", "photos": "c"}
    folder = folders.default("val-on-c", "run.json", first)
    assert folder == Path("runs") / "val-on-c"
    write_json(folder / "run.json", {**first, "kind": "evaluate"})
    assert folders.default("val-on-c", "run.json", first) == folder
    other = folders.default("val-on-c", "run.json", second)
    assert other.name.startswith("val-on-c-") and other == folders.default("val-on-c", "run.json", second)


def test_cells_of_the_mistakes_table_are_never_formulas(tmp_path: Path) -> None:
    wrong = [
        Mistake("=cmd().png", label="a", predicted="b", probability=0.9),
        Mistake("b/1.png", label="b", predicted="a", probability=0.6),
    ]
    folders.write_mistakes(tmp_path, wrong, [ExplainedImage("b/1.png", overlay="explanations/002.png")])
    assert (tmp_path / "mistakes.csv").read_text(encoding="utf-8").splitlines() == [
        "path,label,predicted,probability,heatmap",
        "'=cmd().png,a,b,0.9,",
        "b/1.png,b,a,0.6,explanations/002.png",
    ]
    folders.write_mistakes(tmp_path, [], [])
    assert (tmp_path / "mistakes.csv").read_text(encoding="utf-8") == "path,label,predicted,probability,heatmap\n"


def test_the_simplest_head_within_one_standard_error_comes_first() -> None:
    def head(name: str, wrong: range) -> run.Candidate:
        y = np.zeros(100, np.int64)
        probs = np.tile([0.9, 0.1], (100, 1))
        probs[list(wrong)] = [0.1, 0.9]
        val = Predictions(tuple(map(str, range(100))), ("a", "b"), y, probs)
        return run.Candidate(SimpleNamespace(card=SimpleNamespace(head=name)), name, val, "val", 1.0)  # type: ignore[arg-type]

    # 10 of 100 wrong against 12: paired, the difference of 0.02 has a standard error of 0.014 where mistakes are shared,
    # and of 0.047 where all are others
    forest, shared, other = head("forest", range(10)), head("logistic", range(12)), head("ridge", range(20, 32))
    assert [c.label for c in simplest_first([forest, shared])] == ["forest", "logistic"]
    first, *rest = simplest_first([forest, other, shared])
    assert (first.label, [c.label for c in rest]) == ("ridge", ["forest", "logistic"])
    assert first.note == "simpler than forest (90.0%), and within one standard error of it"
    assert simplest_first([other, forest])[0] is other
