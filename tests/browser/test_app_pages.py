"""The pages Data, Label and Try of the app in Chromium: every interaction by keyboard alone, at 400 and 1400 px."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

import sightline as sl
from sightline import catalog as catalogs
from sightline.records.audit import AuditRecord, LabelSuspect
from sightline.runs import decisions
from sightline.serve.local_app import create_app, data_view, labelling_sessions
from sightline.serve.local_app.access import Access
from sightline.serve.local_app.workspace import Workspace
from sightline.store import Cache, output_folder, write_json
from tests.browser.drive import browser, program_of, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ERRORS = """
window.failures = [];
addEventListener("error", (e) => failures.push(String(e.message)));
addEventListener("unhandledrejection", (e) => failures.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => failures.push(`${e.violatedDirective} ${e.blockedURI}`));
"""
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "Tab": 9}


@dataclass(frozen=True)
class App:
    """A running app with the catalog `shades`, a labelling session and a classifier."""

    url: str
    workspace: Workspace
    access: Access
    session: str

    @property
    def catalog(self) -> str:
        return self.workspace.id_of(self.workspace.folder / "catalogs" / "shades" / "catalog.csv")


def shades(folder: Path, count: int, *, flat: bool) -> np.ndarray:
    """Write dark and bright photographs, and return them."""
    rng, arrays = np.random.default_rng(0), []
    for i in range(count):
        label = "bright" if i % 2 else "dark"
        arrays.append((rng.integers(0, 60, (60, 80, 3)) + (150 if i % 2 else 0)).astype(np.uint8))
        file = folder / (f"{label}-{i:02}.png" if flat else f"{label}/{i:02}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(arrays[-1]).save(file)
    return np.array(arrays)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app in a thread of its own."""
    runs, cache = tmp_path_factory.mktemp("runs"), Cache(tmp_path_factory.mktemp("cache"))
    photos, unlabelled = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("new") / "new"
    arrays = shades(photos, 24, flat=False)
    shades(unlabelled, 30, flat=True)
    workspace, access = Workspace(runs, cache), Access(0)
    catalogs.save(catalogs.scan(photos), output_folder(runs / "catalogs" / "shades") / "catalog.csv")
    id = workspace.id_of(runs / "catalogs" / "shades" / "catalog.csv")
    suspect = LabelSuspect("dark/02.png", "dark", "bright", 0.9, likely=True)
    audit = AuditRecord(images=24, label_suspects=[suspect])
    write_json(output_folder(data_view.audit_folder(workspace, id)) / "audit.json", audit.to_json())
    model = sl.ImageClassifier("pixels", "logistic", image_size=16, cache=tmp_path_factory.mktemp("c"))
    model.fit(arrays, np.array(["dark", "bright"])[np.arange(24) % 2])
    model.save(output_folder(runs / "model") / "classifier.safetensors")
    session = labelling_sessions.begin(workspace, unlabelled, ["dark", "bright"], network="pixels")
    labelling_sessions.opened(workspace, session).future.result(timeout=120)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(workspace, access), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield App(f"http://127.0.0.1:{listening.getsockname()[1]}", workspace, access, session)
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(scope="module")
def chromium(app: App) -> Iterator[Any]:
    """Chromium with an open session; failures are collected from the beginning."""
    if program_of("chromium") is None:
        pytest.skip("no Chromium here")
    with browser("chromium", "about:blank") as page:
        page._call("Page.addScriptToEvaluateOnNewDocument", source=ERRORS)
        page.open(f"{app.url}/enter?token={app.access.new_link()}")
        wait_for(page, "['/runs', '/start'].includes(location.pathname) && document.readyState === 'complete'")
        yield page


@pytest.fixture(params=[400, 1400])
def page(request: pytest.FixtureRequest, chromium: Any) -> Any:
    """The page in a window of one width; at 1400 px dark."""
    width = request.param
    chromium._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if width > 600 else "light"}
    chromium._call("Emulation.setEmulatedMedia", features=[scheme])
    chromium.width = width
    return chromium


def visit(page: Any, app: App, address: str, ready: str) -> None:
    page.open(app.url + address)
    loaded = f"location.href === {json.dumps(app.url + address)} && document.readyState === 'complete'"
    wait_for(page, f"{loaded} && Boolean({ready})")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width


def press(page: Any, key: str, *, shift: bool = False) -> None:
    """Press and release a key."""
    text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
    code = KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
    for kind in ("keyDown", "keyUp"):
        more = text if kind == "keyDown" else {}
        options = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        page._call("Input.dispatchKeyEvent", type=kind, **options, **more)


def check_clean(page: Any, app: App) -> None:
    """Check that nothing failed, and that nothing was requested from elsewhere."""
    assert page.evaluate("failures") == []
    assert [r for r in page.requests if not r.startswith((app.url, "data:", "blob:", "about:"))] == []


@pytest.mark.parametrize(
    "address", ["/data", "/data/{catalog}", "/data/{catalog}?view=labels", "/label", "/label/{session}", "/try"]
)
def test_axe_finds_no_serious_problem(app: App, page: Any, address: str) -> None:
    script = os.environ.get("SIGHTLINE_AXE")
    if not script:
        pytest.skip("SIGHTLINE_AXE names no axe.min.js; `make test-browser` fetches it")
    visit(page, app, address.format(catalog=app.catalog, session=app.session), "document.querySelector('main h1')")
    page.evaluate(Path(script).read_text(encoding="utf-8") + "; 1")
    serious = "['serious', 'critical'].includes(v.impact)"
    assert page.evaluate(f"axe.run().then(r => r.violations.filter(v => {serious}).map(v => [v.id, v.nodes[0].html]))") == []
    check_clean(page, app)


def test_data_is_corrected_by_keys(app: App, page: Any) -> None:
    visit(page, app, f"/data/{app.catalog}?view=labels", "document.querySelector('.tile')")
    seen = page.evaluate("Number(document.getElementById('data').dataset.version)")
    mark = "document.querySelector('.mark').textContent"
    before = page.evaluate(mark)
    press(page, "w")
    wait_for(page, "document.getElementById('choose').open")
    assert page.evaluate("document.activeElement.dataset.label") == "bright", "the suggested class is chosen"
    press(page, "Enter")
    wait_for(page, f"{mark} === '→ bright'")
    press(page, "u")
    wait_for(page, f"{mark} === {json.dumps(before)}")
    for key, words in (("d", "duplicate"), ("x", "exclude"), ("n", "not in any class"), ("k", "checked")):
        press(page, key)
        wait_for(page, f"{mark} === {json.dumps(words)}")
    press(page, "Enter")
    wait_for(page, "document.getElementById('large').open")
    press(page, "Escape")
    wait_for(page, "!document.getElementById('large').open")
    assert decisions.read(app.workspace.decisions_file(app.catalog)).version == seen + 6
    visit(page, app, f"/data/{app.catalog}", "document.querySelectorAll('.tile').length === 24")
    press(page, "ArrowRight")
    assert page.evaluate("[...document.querySelectorAll('.tile')].indexOf(document.activeElement)") == 1
    press(page, "ArrowDown")
    assert page.evaluate("[...document.querySelectorAll('.tile')].indexOf(document.activeElement)") > 2
    page.evaluate("document.getElementById('save').click()")
    wait_for(page, "document.getElementById('saved').textContent.includes('sightline run')")
    check_clean(page, app)


def test_photographs_are_labelled_by_keys_and_the_curve_appears(app: App, page: Any) -> None:
    visit(page, app, f"/label/{app.session}", "document.getElementById('path').textContent")
    path = "document.getElementById('path').textContent"
    for _ in range(10):
        before = page.evaluate(path)
        press(page, "1" if before.startswith("dark") else "2")
        wait_for(page, f"{path} !== {json.dumps(before)}")
    wait_for(page, "/95 % CI .* random photographs/.test(document.getElementById('basis').textContent)")
    before = page.evaluate(path)
    press(page, "s")
    wait_for(page, f"{path} !== {json.dumps(before)}")
    press(page, "u")
    wait_for(page, f"{path} === {json.dumps(before)}")
    press(page, "b")
    wait_for(page, "document.getElementById('saved').textContent.includes('labelled.csv')")
    wait_for(page, "document.getElementById('photo').naturalWidth === 80")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    check_clean(page, app)


def test_two_tabs_lose_nothing(app: App, page: Any) -> None:
    visit(page, app, f"/label/{app.session}", "document.getElementById('path').textContent")
    session = labelling_sessions.opened(app.workspace, app.session).future.result()
    state = session.state()
    assert state.question is not None
    session.answer(state.question.path, "skip", None, seen=state.version)  # another tab
    press(page, "1")
    wait_for(page, "document.getElementById('message').textContent.includes('have changed')")
    state = session.state()
    assert state.question is not None
    wait_for(page, f"document.getElementById('path').textContent === {json.dumps(state.question.path)}")
    session.undo(seen=state.version)


def test_an_image_is_predicted_and_covered_by_keys(app: App, page: Any, tmp_path: Path) -> None:
    array = np.full((60, 80, 3), 220, np.uint8)
    array[:, :30] = 5
    Image.fromarray(array).save(tmp_path / "half.png")
    visit(page, app, "/try", "document.getElementById('about').textContent")
    page.choose("#file", [tmp_path / "half.png"])
    wait_for(page, "!document.getElementById('result').hidden")
    assert page.evaluate("document.getElementById('label').textContent").startswith("bright")
    page.evaluate("document.getElementById('cover').focus()")
    press(page, "Enter")
    wait_for(page, "!document.getElementById('region').hidden && document.activeElement.id === 'region'")
    for _ in range(16):
        press(page, "ArrowRight")
        press(page, "ArrowRight", shift=True)
        press(page, "ArrowUp")
        press(page, "ArrowDown", shift=True)
    press(page, "Enter")
    text = "document.getElementById('covered-text').textContent"
    wait_for(page, f"{text}.includes('covered:')")
    first = page.evaluate(text)
    assert page.evaluate("document.querySelectorAll('#probabilities tr:first-child td').length") == 4
    press(page, "ArrowLeft")
    wait_for(page, f"{text} !== {json.dumps(first)}" if "100" not in first else text)
    press(page, "Escape")
    wait_for(page, "document.getElementById('region').hidden")
    shown = page.evaluate("document.getElementById('heatmap').src")
    page.evaluate("document.getElementById('target').value = 'dark'")
    page.evaluate("document.getElementById('target').dispatchEvent(new Event('change'))")
    wait_for(page, f"document.getElementById('heatmap').src !== {json.dumps(shown)}")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.width
    check_clean(page, app)
