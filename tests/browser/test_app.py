"""The local app in Chromium: by keyboard, at two widths, light and dark; nothing fails, nothing leaves the page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sightline import report
from sightline.records.progress import CommandProgress, EpochProgress, TrainingProgress
from sightline.serve.local_app import create_app
from sightline.serve.local_app.access import Access
from sightline.serve.local_app.workspace import Workspace
from sightline.serve.server import make_server
from sightline.store import Cache, output_folder, write_json
from tests.browser import drive
from tests.browser.test_report import ERRORS, press, size
from tests.report import drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HISTORY = tuple(EpochProgress(i, 1 / i, 1 - 0.5 / i, 1.2 / i, 1 - 0.6 / i) for i in range(1, 5))


@dataclass
class App:
    """The app in a thread of this process, and a page that shows it."""

    runs: Path
    url: str
    page: Any

    def open(self, path: str) -> None:
        """Open a page of the app."""
        self.page.open(f"{self.url}{path}")
        drive.wait_for(
            self.page, f"location.pathname === {json.dumps(path.partition('?')[0])} && document.readyState === 'complete'"
        )

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait(self, expression: str) -> Any:
        return drive.wait_for(self.page, expression, 30)


def work(runs: Path, epoch: int) -> None:
    """Write the progress of a training that has reached an epoch."""
    training = TrainingProgress(epoch, 8, 812.0, 65.0, HISTORY[: epoch - 1])
    progress = CommandProgress(
        *(("train", "photos"), os.getcwd(), "", os.getpid(), "2026-03-01T10:00:00+00:00", time.time() + 3600),
        stage=f"training: epoch {epoch} of 8",
        done=epoch,
        total=8,
        training=training,
        lines=("plan: <b>features</b>",),
    )
    write_json(output_folder(runs / "at-work") / "progress.json", dataclasses.replace(progress, host="elsewhere"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Two finished runs, one at work, and a browser that has opened the printed address."""
    if drive.program_of("chromium") is None:
        pytest.skip("no Chromium here")
    runs = tmp_path_factory.mktemp("app") / "runs"
    for name, skill in (("shapes-1", 2.0), ("shapes-2", 3.0)):
        run = drawn.make(runs / name, ("disc", "<b>ring</b>"), n=60, skill=skill, most_pictures=2, changes={"kind": "run"})
        report.write_report([run], run.folder / "report.html")
    work(runs, 2)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    port = listening.getsockname()[1]
    access = Access(port)
    server = make_server(create_app(Workspace(runs, Cache(runs.parent / "cache")), access), lambda: None)  # type: ignore[arg-type]
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with drive.browser("chromium", "about:blank") as page:
        page._call("Page.addScriptToEvaluateOnNewDocument", source=ERRORS)
        page.open(f"http://127.0.0.1:{port}/enter?token={access.new_link()}")
        drive.wait_for(page, "location.pathname === '/runs' && document.readyState === 'complete'", 60)
        yield App(runs, f"http://127.0.0.1:{port}", page)
    server.should_exit = True
    thread.join(20)
    listening.close()


def tab_to(app: App, condition: str) -> None:
    """Press Tab until the focused element fulfils a condition on `e`."""
    for _ in range(60):
        press(app.page, "Tab", 9)
        if app.value(f"(e => {condition})(document.activeElement)"):
            return
    raise AssertionError(f"Tab reaches no element with {condition}")


PAGES = ("/start", "/start/run", "/runs", "/runs/shapes-1", "/runs/at-work", "/nowhere")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_every_page_fits_and_axe_finds_no_serious_problem(app: App, width: int, dark: bool) -> None:
    script = os.environ.get("SIGHTLINE_AXE")
    for path in PAGES:
        app.open(path)
        size(app.page, width, dark)
        assert app.value("document.documentElement.scrollWidth") <= width, path
        assert app.value("failures") == [], path
        if script and width == (400 if dark else 1400):
            app.value(Path(script).read_text(encoding="utf-8") + "; 1")
            found = app.value(
                "axe.run().then(r => r.violations.filter(v => ['serious', 'critical'].includes(v.impact))"
                ".map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary]))"
            )
            assert found == [], path


def test_runs_are_sorted_and_ticked_by_keyboard(app: App) -> None:
    app.open("/runs")
    size(app.page, 1400)
    assert app.value("document.querySelector('[data-compare]').disabled")
    for _ in range(2):
        tab_to(app, "e.type === 'checkbox' && !e.checked")
        press(app.page, " ", 32, " ")
    assert app.value("document.querySelector('[data-ticked]').textContent") == "2 runs ticked"
    assert not app.value("document.querySelector('[data-compare]').disabled")
    app.open("/runs")
    tab_to(app, "e.className === 'sort' && e.textContent === 'Accuracy'")
    press(app.page, "Enter", 13, "\r")
    values = app.value("[...document.querySelectorAll('[data-state=finished] td.n[data-value]')].map(c => +c.dataset.value)")
    shown = [v for v in values if 0 <= v <= 1]
    assert len(shown) == 2 and shown == sorted(shown)


def test_the_form_shows_its_command_as_one_fills_it_in(app: App) -> None:
    app.open("/start/run?photos=pets")
    assert app.value("document.querySelector('.command').textContent").startswith("sightline run pets -o ")
    tab_to(app, "e.name === 'budget'")
    for key in "10m":
        press(app.page, key, ord(key.upper()), key)
    app.wait("document.querySelector('.command').textContent.includes('run pets --budget 10m')")
    tab_to(app, "e.name === 'heatmaps'")
    press(app.page, "ArrowDown", 40)
    app.wait("document.querySelector('.command').textContent.includes('--heatmaps few')")


def test_a_wrong_path_is_explained_and_completed(app: App) -> None:
    app.open("/start")
    assert app.value("document.activeElement.id") == "path"
    for key in f"{app.runs}/shap":
        press(app.page, key, 0, key)
    app.wait(
        f"[...document.querySelectorAll('#folders option')].some(o => o.value === {json.dumps(str(app.runs / 'shapes-1'))})"
    )
    press(app.page, "Enter", 13, "\r")
    app.wait("document.querySelector('.wrong')?.textContent.includes('does not exist')")


def test_a_run_at_work_is_followed_stopped_and_shown_when_it_has_finished(app: App) -> None:
    work(app.runs, 2)
    app.open("/runs/at-work")
    assert "epoch 2 of 8" in app.value("document.querySelector('[data-live]').textContent")
    work(app.runs, 4)
    app.wait("document.querySelector('[data-live]').textContent.includes('epoch 4 of 8')")
    assert app.value("document.querySelectorAll('[data-live] svg.figure').length") >= 2
    assert app.value("document.querySelector('.printed').textContent").startswith("plan: <b>features</b>")
    tab_to(app, "e.textContent === 'Stop'")
    press(app.page, "Enter", 13, "\r")
    end = time.monotonic() + 20
    while not (app.runs / "at-work" / "stop").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    (app.runs / "at-work" / "stop").unlink()
    app.wait("!!document.querySelector('[data-live]')")
    (app.runs / "at-work" / "progress.json").unlink()
    app.wait("!document.querySelector('[data-live]')")
    work(app.runs, 2)


def test_a_report_opens_in_its_sandbox_with_its_script(app: App) -> None:
    app.open("/runs/shapes-1/report")
    assert app.value("document.querySelectorAll('button.sort').length") > 3
    assert app.value("(() => { try { return document.cookie; } catch (e) { return e.name; } })()") == "SecurityError"


def test_nothing_was_requested_from_elsewhere(app: App) -> None:
    app.open("/runs")
    assert app.value("failures") == []
    assert all(url.startswith((app.url, "data:", "about:")) for url in app.page.requests), set(app.page.requests)
