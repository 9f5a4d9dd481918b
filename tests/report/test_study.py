"""Study report: self-contained, escaped, and with the numbers of the study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import RequestError
from sightline.records import StudyRecord, read_study
from sightline.report import svg, write_study


def sweep(**changes: Any) -> dict[str, Any]:
    """Two keys, one value of which would be markup."""
    rows = []
    for i, (a, b) in enumerate([(1, "<script>"), (1, "y"), (2, "<script>"), (2, "y")]):
        rows.append(
            {
                "setting": {"depth": a, "kind": b},
                "label": f"depth={a}, kind={b}",
                "accuracy": 0.6 + 0.1 * i if i != 1 else None,
                "accuracy_low": 0.5 + 0.1 * i if i != 1 else None,
                "accuracy_high": 0.7 + 0.1 * i if i != 1 else None,
                "by_seed": [0.5 + 0.1 * i, 0.7 + 0.1 * i] if i != 1 else None,
                "log_loss": 0.5 if i != 1 else None,
                "seconds": 1.5,
                "parameters": 1234,
                "runs": [],
                "default": i == 0,
                "best": i == 3,
                "failed": "it <b>diverged</b>" if i == 1 else None,
            }
        )
    compared = {
        "a": 3,
        "difference": 0.3,
        "low": -0.0001,
        "high": 0.4,
        "by_seed": [0.2, 0.4],
        "p": 0.00001,
        "p_corrected": 0.04,
    }
    return {
        "kind": "sweep",
        "name": "a & b",
        "created": "2026-01-02T03:04:05+00:00",
        "keys": ["depth", "kind"],
        "seeds": [0, 1],
        "images": 100,
        "estimate": "val",
        "settings": rows,
        "best": 3,
        "default": 0,
        "comparisons": [{**compared, "b": 0, "against": "best", "told_apart": True}],
        "words": ["<i>one</i>"],
        "recipe": {"method": "scratch", "backbone": "<x>", "settings": {"epochs": 3}},
        "seconds": 70.0,
        **changes,
    }


def record(**changes: Any) -> StudyRecord:
    return read_study(sweep(**changes))


def test_a_page_is_complete_and_safe(tmp_path: Path) -> None:
    page = write_study(record(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "<i>" not in page and "<b>diverged" not in page and "<x>" not in page
    assert "&lt;script&gt;" in page and "it &lt;b&gt;diverged" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "default-src 'none'" in page and "a &amp; b" in page


def test_two_keys_are_a_heat_table_with_the_best_deepest(tmp_path: Path) -> None:
    page = write_study(record(), tmp_path / "report.html").read_text(encoding="utf-8")
    cells = re.findall(r'<td class="(hit\d+|none)">([^<]+)</td>', page.replace("\u00a0", " "))
    assert cells == [("hit1", "60.0 %"), ("none", "failed"), ("hit7", "80.0 %"), ("hit10", "90.0 %")]


def test_the_paired_test_is_shown_unchanged(tmp_path: Path) -> None:
    page = write_study(record(), tmp_path / "report.html").read_text(encoding="utf-8")
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page[page.index("Significance tests") :])[:6]
    assert cells == ["+30.0", "[0.0, +40.0]", "+20.0 to +40.0", "&lt; 0.0001", "0.04", "significant"]


def test_one_numeric_key_is_a_plot(tmp_path: Path) -> None:
    rows = [{**row, "setting": {"rate": 10.0**-i}, "label": f"1e-{i}"} for i, row in enumerate(sweep()["settings"])]
    page = write_study(record(keys=["rate"], settings=rows), tmp_path / "report.html").read_text(encoding="utf-8")
    figure = page[page.index('<svg class="figure"') :]
    figure = figure[: figure.index("</svg>")]
    assert re.findall(r'class="point[^"]*"', figure) == ['class="point on"', 'class="point "', 'class="point "']
    assert [m in figure for m in ("1e-0", "1e-1", "1e-2", "1e-3")] == [True, False, True, True]  # one failed


def test_the_x_axis_is_logarithmic_on_request() -> None:
    points = [svg.Ranged(x, str(x), 0.5, 0.5, 0.5) for x in (0.01, 0.1, 1.0)]
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg.ranges(points, ("x", "y"), "t", log=True))]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg.ranges(points, ("x", "y"), "t"))]
    assert places[2] - places[1] == pytest.approx(10 * (places[1] - places[0]), rel=0.01)


def test_a_folder_without_study_is_refused() -> None:
    with pytest.raises(RequestError, match="'run' is no kind of study"):
        read_study({"kind": "run"})
