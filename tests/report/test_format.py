"""Texts of the report: summary, alarms and formatting of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import evaluation
from sightline.records import Predictions, Run, RunRecord
from sightline.report import format, headline, provenance, sections, svg
from sightline.report.images import Album


def scored(y: list[int], right: list[bool], classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    k = len(classes)
    picked = np.array([c if r else (c + 1) % k for c, r in zip(y, right, strict=True)])
    probs = np.full((len(y), k), 0.1 / max(k - 1, 1))
    probs[np.arange(len(y)), picked] = 0.9
    return evaluation.score(Predictions(tuple(map(str, range(len(y)))), classes, np.array(y), probs))


GOOD = scored([0, 1] * 50, [True] * 95 + [False] * 5)


def record(data: dict[str, Any]) -> RunRecord:
    return RunRecord.from_json(data)


def answer(data: dict[str, Any]) -> headline.Answer:
    return headline.answer(record(data))


def alarms(data: dict[str, Any]) -> list[headline.Alarm]:
    return headline.alarms(record(data))


def titles(data: dict[str, Any]) -> list[str]:
    return [a.title for a in alarms(data)]


def plain(text: str) -> str:
    return text.replace(format.NBSP, " ")


def test_the_headline_is_the_test_score_with_its_interval() -> None:
    (head,) = answer({"test": GOOD, "test_openings": [{}]}).headlines
    assert (plain(head.value), head.of) == ("95.0 %", "of 100 test images classified correctly")
    assert plain(head.interval) == "[88.8, 97.8] %"


def test_without_a_test_the_cross_validated_score_is_given_and_named() -> None:
    found = answer({"val": GOOD, "test": None, "val_estimate": "CV (train+val, 5 folds)"})
    assert "held-out images" in found.headlines[0].of
    assert any("did not use the test split" in line and "CV (train+val, 5 folds)" in line for line in found.details)


def test_a_leak_adds_the_score_without_leaking_images() -> None:
    clean = scored([0, 1] * 45, [True] * 84 + [False] * 6)
    data = {"test": GOOD, "test_without_leaks": clean, "split": {"leaks": [["a", "b"], ["a", "c"], ["d", "e"]]}}
    found = answer(data)
    assert [plain(h.value) for h in found.headlines] == ["95.0 %", "93.3 %"]
    assert [h.aside for h in found.headlines] == [True, False]
    assert alarms(data)[0].title == "2 test images are also in train" and alarms(data)[0].level == "alarm"


def test_the_shortcut_alarm_names_the_feature() -> None:
    shortcut = {"alarm": True, "class": "dog", "feature": "JPEG quality", "auc": 0.99, "auc_low": 0.97}
    (alarm,) = alarms({"test": GOOD, "shortcut": shortcut})
    assert "dog" in alarm.title and "JPEG quality" in alarm.title and "0.970" in alarm.text
    assert titles({"test": GOOD, "shortcut": {**shortcut, "alarm": False}}) == []


def test_inverted_scores_are_an_alarm() -> None:
    data = {"test": scored([0, 1] * 50, [False] * 95 + [True] * 5)}
    assert "The scores look inverted" in titles(data)


def test_score_at_the_level_of_the_largest_class_is_an_alarm() -> None:
    poor = scored([0] * 90 + [1] * 10, [True] * 90 + [False] * 10)
    assert "Not significantly better than always predicting the same class" in titles({"test": poor})


@pytest.mark.parametrize(
    ("y", "classes", "title"),
    [
        ([0] * 20, ("cat", "dog"), "All test images belong to one class, “cat”"),
        ([0, 1] * 20, ("cat", "dog", "fox"), "1 of 3 classes have no test image"),
    ],
)
def test_absent_classes_are_an_alarm(y: list[int], classes: tuple[str, ...], title: str) -> None:
    assert title in titles({"test": scored(y, [True] * len(y), classes)})


def test_undecodable_images_are_counted_apart_and_against() -> None:
    data = {
        "test": GOOD,
        "undecodable": {"test": [{"path": "x.jpg", "problem": "truncated"}], "train": [{"path": "y", "problem": "empty"}]},
    }
    (alarm,) = alarms(data)
    assert alarm.title == "1 test file could not be decoded" and "94.1 %" in plain(alarm.text)  # 95 of 101


def test_table_rows_that_do_not_match_are_reported() -> None:
    paths = [f"x/{i}.jpg" for i in range(20)]
    labels = [{"path": "x/1.jpg", "table": "cat", "catalog": "dog"}]
    table = {"no_row": 25, "not_in_catalog": 1, "other_label": 1}
    table |= {"examples": {"no_row": paths, "not_in_catalog": ["y.jpg"], "other_label": labels}}  # type: ignore[dict-item]
    missing, lost, other = alarms({"kind": "evaluate", "test": GOOD, "table": table})
    assert (missing.level, lost.level, other.level) == ("caution", "note", "note")
    assert (
        missing.title == "25 labelled images without a row in the table of predictions"
        and "x/4.jpg and 20 more: not in" in missing.text
    )
    assert "76.0 %" in plain(missing.text)  # 95 of 125
    assert lost.title == "1 row of the table of predictions ignored" and lost.text.startswith("y.jpg: ")
    assert other.title == "1 row has a label that differs from the labelled set"
    assert "x/1.jpg is “cat” in the table and “dog” in the labelled set." in other.text


def test_sizes_are_put_in_words_and_empty_ends_of_the_histogram_are_cut() -> None:
    block = {
        "images": 10,
        "usable": 10,
        "per_class": {"a": {"train": 10}},
        "width": {"min": 32, "median": 32, "max": 32},
        "height": {"min": 20, "median": 30.5, "max": 2000},
        "size_histogram": {"edges_px": [1, 16, 32, 64, 128, 65536], "counts": [0, 4, 0, 6, 0]},
        "duplicates": {"exact": 0, "near": 1},
    }
    shown = sections.dataset(Run(Path(), {}), record({"data": block}), Album())
    assert shown is not None and {"Width: 32 px.", "Height: 20 to 2,000 px (median 30 px)."} <= set(shown["text"])
    assert "65536" not in shown["histogram"] and ">16<" in shown["histogram"] and ">128<" in shown["histogram"]
    split = sections.splitting(record({"data": block}))
    assert split is not None and "Duplicates: 1 set of near-duplicate images." in split["lines"]


def test_every_score_that_is_missing_says_why() -> None:
    table = sections.scores(record({"test": scored([0] * 20, [True] * 20)}))
    assert table is not None
    (row,) = [r for r in table["rows"] if r["name"] == "ROC AUC"]
    assert row["cells"] == [{"value": "n/a", "interval": None, "why": "the images are all of one class"}]
    inverted = {**GOOD, "mcc": -0.9, "mcc_low": -0.95, "mcc_high": -0.85}
    table = sections.scores(record({"test": inverted}))
    assert table is not None
    (row,) = [r for r in table["more"] if r["name"] == "Matthews correlation"]
    assert row["cells"][0]["interval"] == "[-0.950,\u00a0-0.850]"


def test_accesses_of_the_test_split_are_counted() -> None:
    assert titles({"test": GOOD, "test_openings": [{}]}) == []
    assert titles({"test": GOOD, "test_openings": [{}, {}, {}]}) == ["These test images have been used 3 times"]


def test_scoring_training_images_is_reported() -> None:
    data = {"kind": "evaluate", "test": GOOD, "in_training": 30}
    assert titles(data) == ["30 images of 100 were used to make this classifier"]
    assert titles({**data, "in_training": 100}) == ["All of these images were used to make this classifier"]
    assert headline.kind_of(record(data)) == "labelled"
    assert headline.kind_of(record({**data, "scored": "test"})) == "test"


def test_alarms_are_sorted_by_severity() -> None:
    data = {
        "test": GOOD,
        "data": {"problems": {"empty": 1}, "duplicates": {"conflicts": [["a", "b"]]}},
        "split": {"leaks": [["a", "b"]]},
    }
    assert [a.level for a in alarms(data)] == ["alarm", "caution", "note"]


def test_a_share_below_1_is_never_printed_as_100_percent() -> None:
    assert plain(format.percent(99_999 / 100_000)) == "99.999 %" and plain(format.percent(1e-5)) == "0.001 %"
    assert plain(format.percent(0.0)) == "0 %" and format.percent(None) == "n/a"


def test_names_are_printed_on_one_line_with_visible_characters() -> None:
    assert format.clean("a\nb\u202ec\x07é日") == "a\\nb\\u202ec\\x07é日"
    assert len(format.short("x" * 10_000, 50)) == 50


def test_marks_on_the_ruler_do_not_cover_each_other() -> None:
    figure = str(svg.scale(0.9, 0.88, 0.92, [(0.9, "validation 90 %"), (0.905, "as given 90.5 %")], "t", 0.5))
    heights = {line.split('y="')[1].split('"')[0] for line in figure.split("<text")[1:] if "marked" in line}
    assert len(heights) == 2


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.9, 1.0), (0.5, 1.0), (0, 1e6), (3, 3)])
def test_ticks_lie_within_and_are_few(low: float, high: float) -> None:
    found = svg.ticks(low, high)
    assert found == sorted(found) and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9 and len(found) <= 8


def test_a_cut_list_of_files_says_how_many_it_shows_and_where_all_are() -> None:
    for n, ending in ((200, "“Files left out” below lists all."), (201, "“Files left out” below lists 200, catalog.csv all.")):
        listed = [{"path": f"{i}.jpg", "problem": "empty"} for i in range(min(n, 200))]
        found = headline._problems(record({"data": {"problems": {"empty": n}, "problem_files": listed}}))
        assert found is not None and found.text.endswith(ending)


def test_a_report_without_pretrained_weights_says_so_and_what_to_do() -> None:
    missing = {"not_at_hand": ["mobilenetv2_100", "resnet18"], "network": {"name": "cnn", "pretrained_on": "nothing"}}
    found = headline._no_pretrained(record(missing))
    assert found is not None and "SIGHTLINE_WEIGHTS" in found.text and "resnet18.safetensors" in found.text
    assert headline._no_pretrained(record({**missing, "network": {"name": "resnet18", "pretrained_on": "ImageNet-1k"}})) is None
    assert headline._no_pretrained(record({**missing, "not_at_hand": []})) is None
    assert headline._no_pretrained(record({**missing, "pretrained_networks": ["tf_efficientnet_lite0"]})) is None


def test_commands_name_paths_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    monkeypatch.chdir(tmp_path)
    folder = Path("my runs") / "it's $HOME"
    folder.mkdir(parents=True)
    (folder / "classifier.safetensors").write_bytes(b"")
    lines = [line for _, line in provenance.again(Run(folder, {}), record({}))]
    assert len(lines) == 4
    for line in lines:
        named = shlex.split(line)[2]
        assert Path(named).exists(), line
