"""Verdict box and answer: every threat to the headline number is named once, with the section that tells more."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sightline import evaluation
from sightline.records import Run, RunRecord
from sightline.report import headline, page, verdict
from sightline.report.meanings import MEANINGS


def levels(data: dict[str, Any]) -> dict[str, str]:
    """Return topic → level of the verdict box of a run record."""
    return {item.topic: item.level for item in verdict.verdict(RunRecord.from_json({"kind": "run", **data}))}


SCORED = {"n": 400, "accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.93}
WEAK = {"kind": "blur", "title": "blurred", "strength": 1, "setting": "σ 1 px", "accuracy": 0.5, "accuracy_low": 0.4}
STRESS = {"bound": 0.6, "bound_given": True, "n": 9, "total": 9, "accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8}


def stressed(below: bool) -> dict[str, Any]:
    return {"stress": {**STRESS, "scores": [{**WEAK, "accuracy_high": 0.6, "below": below}], "sentence": "It falls."}}


ODD = {"n": 40, "of": 100, "bar": 0.3, "rate": 0.05, "images": 200}


@pytest.mark.parametrize(
    ("topic", "good", "bad", "level"),
    [
        ("leaks", {"split": {}, "data": {"duplicates": {}}}, {"split": {"leaks": [["a", "b"]]}, "test": SCORED}, "alarm"),
        ("shortcut", {"shortcut": {"score": 0.5}}, {"shortcut": {"alarm": True, "class": "dog"}}, "alarm"),
        ("ood", {"limits": {"unlike": {**ODD, "n": 3}}}, {"limits": {"unlike": ODD}}, "caution"),
        ("size", {"test": SCORED}, {"test": {**SCORED, "accuracy_low": 0.7}}, "note"),
        ("heatmaps", {"heat_checks": {"verdict": "passes"}}, {"heat_checks": {"verdict": "don't rely on this"}}, "note"),
        ("robustness", stressed(below=False), stressed(below=True), "note"),
        ("conflicts", {"data": {"duplicates": {}}}, {"data": {"duplicates": {"conflicts": [["a", "b"]]}}}, "caution"),
        ("uses", {"test": SCORED, "test_openings": [{"when": "a"}]}, {"test": SCORED, "test_openings": [{}] * 3}, "caution"),
    ],
)
def test_each_check_raises_its_alarm_or_passes(topic: str, good: dict[str, Any], bad: dict[str, Any], level: str) -> None:
    assert levels(good)[topic] == "passed"
    assert levels(bad)[topic] == level


def test_checks_link_to_sections_that_exist_and_each_section_is_explained(run: Run) -> None:
    text = page.render([run])
    box = text[text.index('class="verdict-box"') : text.index("</header>", text.index('class="verdict-box"'))]
    links = re.findall(r'href="#([^"]+)"', box)
    assert {"split", "scores"} <= set(links) and all(f'id="{link}"' in text for link in links)
    contents = re.findall(r'href="#([^"]+)"', text[text.index('class="contents"') : text.index("</nav>")])
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert contents == ["answer", *sections]
    assert text.count('<details class="means">') == len(contents) and set(sections) <= set(MEANINGS)


def test_the_answer_is_two_sentences_with_the_most_frequent_error() -> None:
    confusion = [[45, 5, 0], [0, 50, 0], [1, 0, 49]]
    y = [i for i, row in enumerate(confusion) for n in row for _ in range(n)]
    predicted = [j for row in confusion for j, n in enumerate(row) for _ in range(n)]
    score = evaluation.score(evaluation_predictions(y, predicted))
    lines = headline.answer(RunRecord.from_json({"test": score})).lines
    assert len(lines) == 2 and "about 1 in 25: 6 of 150 test images" in lines[0]
    assert "“ant” predicted as “bee” (5 of 6 errors)" in lines[1]


def evaluation_predictions(y: list[int], predicted: list[int]) -> Any:
    """Return certain predictions of three classes."""
    import numpy as np

    from sightline.records import Predictions

    paths = tuple(f"{i}.jpg" for i in range(len(y)))
    return Predictions(paths, ("ant", "bee", "cat"), np.array(y), np.eye(3)[predicted] * 0.97 + 0.01)
