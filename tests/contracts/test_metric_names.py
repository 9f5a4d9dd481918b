"""One record per metric: no other code tests for a metric's name, and --json, console, report and docs show every record."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sightline import evaluation
from sightline.cli import json_output, tables_output
from sightline.evaluation import CLASS_METRICS, METRICS, Metric
from sightline.records import Predictions, Run
from sightline.records.run import RunRecord
from sightline.report import sections
from tests.syntax import tree

ROOT = Path(__file__).resolve().parents[2]
NAMES = {*METRICS, *CLASS_METRICS}


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the strings of a literal, or of a tuple, list or set of literals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for item in node.elts:
            yield from literals(item)


def named_metrics(root: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name) where code compares with a metric's name, matches it, or lists several metrics."""
    for node in ast.walk(root):
        names: list[str] = []
        if isinstance(node, ast.Compare):
            sides = zip([node.left, *node.comparators], [node.ops[0], *node.ops], strict=True)
            # `"accuracy" in scores` asks whether a JSON field is there
            names = [
                n for side, op in sides for n in literals(side) if side is not node.left or isinstance(op, ast.Eq | ast.NotEq)
            ]
        elif isinstance(node, ast.MatchValue):
            names = list(literals(node.value))
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            names = [n for n in dict.fromkeys(literals(node)) if n in NAMES]
            names = names if len(names) > 1 else []
        yield from ((node.lineno, n) for n in names if n in NAMES)


@pytest.mark.slow
def test_no_code_outside_the_registry_tests_for_the_name_of_a_metric() -> None:
    package = ROOT / "src" / "sightline"
    found = [
        f"{file.relative_to(package)}:{line}: {name}"
        for file in sorted(package.rglob("*.py"))
        if file.relative_to(package).parts[0] != "evaluation"
        for line, name in named_metrics(tree(file))
    ]
    assert not found, f"read the metric's record instead: {found}"
    assert list(named_metrics(ast.parse("if name == 'eer' or name in ('f1', 'x'): ..."))) != []


def documented(page: str, metric: Metric) -> bool:
    """Return whether a table of docs/guide/metrics.md has the metric's row as its record gives it."""
    interval = {"wilson": "Wilson", "delong": "DeLong", "bootstrap": "bootstrap"}[metric.interval]
    direction = "higher" if metric.higher_is_better else "lower"
    return f"| `{metric.name}` | {metric.title} | {metric.description} | {direction} | {interval} |\n" in page


def test_the_docs_have_the_row_of_every_record() -> None:
    page = (ROOT / "docs" / "guide" / "metrics.md").read_text(encoding="utf-8")
    missing = [m.name for m in (*METRICS.values(), *CLASS_METRICS.values()) if not documented(page, m)]
    assert not missing


def test_a_new_record_appears_in_json_on_the_console_in_the_report_and_in_the_check_of_the_docs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = Metric(
        name="error_rate",
        title="Error rate",
        description="share of images classified wrongly",
        higher_is_better=False,
        interval="bootstrap",
        formula=lambda t, s: 1 - t.hits.sum(axis=1) / t.total,
    )
    monkeypatch.setitem(METRICS, new.name, new)
    probs = np.eye(2)[[0, 1, 0, 1, 1, 0]] * 0.6 + 0.2
    scores = evaluation.score(Predictions(tuple("abcdef"), ("cat", "dog"), np.array([0, 1, 0, 1, 0, 1]), probs))
    assert scores["error_rate"] == pytest.approx(1 / 3)
    assert json_output.of_evaluation(Run(Path("run"), {"test": scores}))["error_rate_high"] == scores["error_rate_high"]
    assert any(line.startswith("error_rate ") for line in tables_output.metric_lines(scores))
    table = sections.scores(RunRecord.from_json({"test": scores}))
    assert table is not None and new.title in [row["name"] for row in (*table["rows"], *table["more"])]
    assert not documented((ROOT / "docs" / "guide" / "metrics.md").read_text(encoding="utf-8"), new)


def test_the_report_has_a_row_for_every_metric_that_is_defined() -> None:
    for classes in (2, 6):
        y = np.arange(60) % classes
        probs = np.eye(classes)[y] * 0.5 + 0.5 / classes
        p = Predictions(tuple(map(str, range(60))), tuple("abcdef"[:classes]), y, probs)
        table = sections.scores(RunRecord.from_json({"test": evaluation.score(p)}))
        assert table is not None
        names = [row["name"] for row in (*table["rows"], *table["more"])]
        assert sorted(names) == sorted(m.title for m in METRICS.values() if m.defined_for(classes))
