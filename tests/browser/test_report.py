"""The report in Chromium: the interactions work by mouse and keyboard, nothing is requested, and nothing fails."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sightline import report

HERE = Path(__file__).parent
ERRORS = """
window.failures = [];
addEventListener("error", (e) => failures.push(String(e.message)));
addEventListener("securitypolicyviolation", (e) => failures.push(`${e.violatedDirective} ${e.blockedURI}`));
const shout = console.error;
console.error = (...words) => { failures.push(words.join(" ")); shout(...words); };
"""
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def load(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with two classes."""
    drawn = load("drawn_runs_in_browser", HERE.parent / "report" / "drawn.py")
    run = drawn.make(tmp_path_factory.mktemp("browser") / "shapes", ("disc", "ring"), n=120, skill=2.0, most_pictures=8)
    return report.write_report([run], run.folder / "report.html")


@pytest.fixture(scope="module")
def chromium(file: Path) -> Iterator[Any]:
    """Chromium with the report open; failures are collected from the beginning."""
    drive = load("drive_in_browser", HERE / "drive.py")
    if drive.program_of("chromium") is None:
        pytest.skip("no Chromium here")
    with drive.browser("chromium", "about:blank") as page:
        page._call("Page.addScriptToEvaluateOnNewDocument", source=ERRORS)
        page.open(file.as_uri())
        drive.wait_for(page, "document.readyState === 'complete'")
        yield page


def press(page: Any, key: str, code: int, text: str = "") -> None:
    """Press and release a key."""
    for kind in ("keyDown", "keyUp"):
        more = {"text": text} if text and kind == "keyDown" else {}
        page._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


def size(page: Any, width: int, dark: bool = False) -> None:
    page._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page._call("Emulation.setEmulatedMedia", features=[scheme])


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_and_its_contents_follow_on_wide_screens(chromium: Any, width: int) -> None:
    size(chromium, width)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    chromium.evaluate("document.getElementById('reproduce').scrollIntoView()")
    top = chromium.evaluate("document.querySelector('.contents').getBoundingClientRect().top")
    assert (top >= 0) == (width == 1400)


def test_the_threshold_moves_the_matrix_the_point_and_the_gallery(chromium: Any) -> None:
    size(chromium, 1400)
    before = chromium.evaluate("[...document.querySelectorAll('.binary td[data-out]')].map(e => e.textContent)")
    dot = chromium.evaluate("document.querySelector('.dot-roc').cx.baseVal.value")
    test_matrix = chromium.evaluate("document.querySelector('#scores .confusion').textContent")
    chromium.evaluate("document.querySelector('[data-threshold]').focus()")
    for _ in range(60):
        press(chromium, "ArrowLeft", 37)
    assert chromium.evaluate("document.querySelector('output[data-out=threshold]').textContent") == "0.2"
    after = chromium.evaluate("[...document.querySelectorAll('.binary td[data-out]')].map(e => e.textContent)")
    assert after != before and sum(map(int, after)) == sum(map(int, before)) == 120
    assert chromium.evaluate("document.querySelector('.dot-roc').cx.baseVal.value") > dot
    flipped = chromium.evaluate("document.querySelectorAll('.flip:not([hidden])').length")
    assert 0 < flipped < 24 and f"{flipped} of these 24 images" in chromium.evaluate(
        "document.querySelector('[data-flips]').textContent"
    )
    assert chromium.evaluate("document.querySelector('#scores .confusion').textContent") == test_matrix, "test stays"
    chromium.evaluate("document.querySelector('[data-saved]').click()")
    assert chromium.evaluate("[...document.querySelectorAll('.binary td[data-out]')].map(e => e.textContent)") == before


def test_a_cell_of_the_confusion_matrix_filters_the_gallery(chromium: Any) -> None:
    chromium.evaluate("document.querySelector('#scores [data-show] button').click()")
    pair = chromium.evaluate("document.querySelector('#scores [data-show]').dataset.show")
    shown = chromium.evaluate("[...document.querySelectorAll('#mistakes [data-pair]:not([hidden])')].map(e => e.dataset.pair)")
    number = chromium.evaluate("document.querySelector('#scores [data-show]').textContent")
    assert set(shown) == {pair} and len(shown) == int(number)
    assert "shown" in chromium.evaluate("document.querySelector('#mistakes output').textContent")
    chromium.evaluate("document.querySelector('[data-reset]').click()")
    assert chromium.evaluate("document.querySelectorAll('#mistakes [data-pair][hidden]').length") == 0


def test_images_enlarge_and_the_arrow_keys_step_through_them(chromium: Any) -> None:
    chromium.evaluate("document.querySelector('#mistakes .zoom').focus()")
    press(chromium, "Enter", 13, "\r")
    assert chromium.evaluate("document.getElementById('viewer').open")
    first = chromium.evaluate("document.querySelector('#viewer .path').textContent")
    press(chromium, "ArrowRight", 39)
    assert chromium.evaluate("document.querySelector('#viewer .place').textContent").startswith("2 of ")
    assert chromium.evaluate("document.querySelector('#viewer .path').textContent") != first
    press(chromium, "Escape", 27)
    assert not chromium.evaluate("document.getElementById('viewer').open")
    assert chromium.evaluate("document.activeElement.classList.contains('zoom')"), "the focus comes back"


def test_photo_heatmap_and_opacity_are_switched(chromium: Any) -> None:
    opacity = "getComputedStyle(document.querySelector('#mistakes .heat')).opacity"
    assert chromium.evaluate(opacity) == "1"
    chromium.evaluate(
        "(s => { s.value = 30; s.dispatchEvent(new Event('input', {bubbles: true})); })"
        "(document.querySelector('[data-opacity]'))"
    )
    assert chromium.evaluate(opacity) == "0.3"
    chromium.evaluate("document.querySelector('#mistakes input[value=photo]').click()")
    assert chromium.evaluate("getComputedStyle(document.querySelector('#mistakes .heat')).display") == "none"
    chromium.evaluate("document.querySelector('#mistakes input[value=both]').click()")


def test_tables_sort_and_are_copied(chromium: Any) -> None:
    column = "[...document.querySelectorAll('.ladder tbody tr:not(.note)')].map(r => parseFloat(r.cells[2].textContent))"
    chromium.evaluate(
        "[...document.querySelectorAll('.ladder thead th')].find(h => h.textContent === 'Accuracy').firstChild.click()"
    )
    values = chromium.evaluate(column)
    assert values == sorted(values)
    chromium.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    chromium.evaluate("document.querySelector('.ladder').parentElement.querySelector('.copy').click()")
    assert chromium.evaluate("copied.split('\\n')[0]").startswith("Method,")
    chromium.evaluate("document.querySelector('.commands .copy').click()")
    assert chromium.evaluate("copied").startswith("sightline run")


def test_nothing_failed_and_nothing_was_requested(chromium: Any, file: Path) -> None:
    assert chromium.evaluate("window.failures") == []
    assert all(url.startswith((file.as_uri(), "data:image/", "about:")) for url in chromium.requests)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_serious_problem(chromium: Any, dark: bool) -> None:
    script = os.environ.get("SIGHTLINE_AXE")
    if not script:
        pytest.skip("SIGHTLINE_AXE names no axe.min.js; `make test-browser` fetches it")
    size(chromium, 1400, dark)
    chromium.evaluate(Path(script).read_text(encoding="utf-8") + "; 1")
    found = chromium.evaluate(
        "axe.run().then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact))"
        ".map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary]))"
    )
    assert found == []
