"""Figures over the decision threshold or the confidence: which are drawn, with which text, and where their points lie."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from sightline import evaluation
from sightline.records import Predictions, Scores
from sightline.records.candidates import ThresholdChoice
from sightline.report import curves, svg, threshold_figures
from tests.report.drawn import answers, make


def figures(p: Predictions, positive: str | None = None, by: str = "half") -> list[dict]:
    s = Scores.from_json(evaluation.score(p, positive=positive))
    return [*curves.figures(p, s), *curves.folded(p, s, ThresholdChoice(criterion=by))]


def made(classes: tuple[str, ...], n: int = 300, skill: float = 2.0) -> Predictions:
    return answers(classes, n, skill, np.random.default_rng(0))


def test_two_classes_have_both_curves_and_name_the_positive_one_everywhere() -> None:
    found = figures(made(("cat", "dog")), "cat", "cost=5:1")
    titles = [f["title"].partition(":")[0] for f in found]
    assert titles == [
        *("ROC curve for “cat”", "ROC curve for “dog”", "Calibration", "Accuracy–coverage curve"),
        *("DET curve for “cat”", "DET curve for “dog”", "Precision–recall curve", "Effect of the decision threshold"),
    ]
    for f in found:
        ElementTree.fromstring(f["figure"])
        if f["title"].startswith(("ROC", "DET", "Precision", "Effect")):
            assert "“cat”" in f["text"] + f["title"] or "“dog”" in f["title"]
            assert "cat" in f["figure"]
    texts = [f["text"] for f in found]
    assert "ame information as the curve for “cat”" in texts[1] and "ame information as the curve for “cat”" in texts[5]
    assert "a miss costs 5, a false alarm 1" in texts[7]


def test_many_classes_are_drawn_against_the_rest_and_the_left_out_are_counted() -> None:
    found = figures(made(tuple("abcdefghij")))
    assert [f["title"].partition(":")[0] for f in found] == [
        "ROC curve",
        "Calibration",
        "DET curve",
        "Precision–recall curve",
        "Accuracy–coverage curve",
    ]
    for f in found:
        if f["title"].startswith(("ROC", "DET", "Precision")):
            assert "5 hardest of 10 classes" in f["text"]
            assert f["figure"].count('class="line s') == 5


def test_a_class_without_images_is_said_to_have_no_curve() -> None:
    p = made(("a", "b", "c"))
    found = figures(p.select(p.y_true < 2))
    assert all("1 class has no images here and no curve" in f["text"] for f in found if f["title"].startswith(("ROC", "DET")))


def test_one_class_only_draws_what_is_defined() -> None:
    p = made(("cat", "dog"))
    titles = [f["title"] for f in figures(p.select(p.y_true == 0), "dog")]
    assert not any(t.startswith(("ROC", "DET", "Precision", "Effect")) for t in titles)


def test_threshold_is_marked_and_mirrored_for_the_other_class() -> None:
    p = made(("cat", "dog"))
    for bar, there in ((("dog", 0.3), 0.3), (("cat", 0.3), 0.7)):
        given = Predictions(p.paths, p.classes, p.y_true, p.probs, threshold=bar)
        last = figures(given, "dog", "youden")[-1]
        assert f"threshold {there:g} (criterion: youden)" in last["figure"]
        x = float(re.search(r'<line x1="([\d.]+)"[^>]*class="mark"', last["figure"])[1])
        assert x == pytest.approx(svg.LEFT + there * (svg.WIDTH - svg.LEFT - svg.RIGHT), abs=0.01)
        right = evaluation.threshold_curve(p.y_true == 1, p.probs[:, 1])
        recall = right.recall[np.argmin(np.abs(right.threshold - there))]
        assert f"recall {100 * recall:.1f}" in last["text"]


def test_det_axes_have_a_probit_scale() -> None:
    assert threshold_figures.probit(0.5) == 0.0
    assert threshold_figures.probit(0.841344746) == pytest.approx(1.0, abs=1e-6)
    assert threshold_figures.probit(0.0) == threshold_figures.probit(0.001) == -threshold_figures.probit(1.0)
    figure = threshold_figures.det([svg.Series("a", [(0.0, 1.0), (0.02, 0.02), (1.0, 0.0)])], "t", ("x", "y"), 0.02)
    points = re.search(r'<path d="M([^"]+)" class="line s0"', figure)[1]
    xy = [tuple(map(float, pair.split())) for pair in points.split("L")]
    left, right, top, bottom = svg.LEFT, svg.WIDTH - svg.RIGHT, svg.TOP, svg.HEIGHT - svg.BOTTOM
    share = (threshold_figures.probit(0.02) - threshold_figures.probit(0.001)) / (2 * threshold_figures.probit(0.999))
    middle = (left + share * (right - left), bottom - share * (bottom - top))
    assert xy == [pytest.approx(p, abs=0.01) for p in ((left, top), middle, (right, bottom))]
    ring = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"[^>]*class="ring"', figure)
    assert (float(ring[1]), float(ring[2])) == pytest.approx(middle, abs=0.01)
    assert "0.1\u00a0%" in figure and "99.9\u00a0%" in figure


def test_the_page_folds_them_and_escapes_names(tmp_path: Path) -> None:
    from sightline.report import write_report

    names = ("<script>alert(1)</script>", "cat & “dog”")
    run = make(tmp_path / "run", names, n=80, most_pictures=1, changes={"threshold": {"by": "<i>"}})
    text = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<i>" not in text
    fold = re.search(r'<details class="more">.*?</details>', text, re.DOTALL)[0]
    assert fold.count("<figure>") == 4 and "curves/*.csv" in fold
    for figure in re.findall(r"<svg.*?</svg>", fold, re.DOTALL):
        ElementTree.fromstring(figure)
    assert "Positive class: " in text
