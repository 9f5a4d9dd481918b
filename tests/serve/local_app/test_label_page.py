"""The page Label over HTTP: start, answer, undo, two tabs, save."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline import catalog as catalogs
from sightline.records.labelling import CurvePoint
from sightline.serve.local_app import label_page, labelling_sessions
from sightline.store import Cache
from tests.serve.local_app.conftest import AppClient, connect


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    folder = tmp_path_factory.mktemp("new photos")
    for i in range(20):
        Image.new("RGB", (16, 16), (10 * i, 0, 0) if i % 2 else (0, 0, 10 * i)).save(folder / f"{i:02}<b>.png")
    found = connect(tmp_path_factory.mktemp("runs"), Cache(tmp_path_factory.mktemp("cache")))
    labelling_sessions.begin(found.workspace, folder, ["red", "blue"], network="pixels")
    wait(found)
    yield found


def name_of(client: AppClient) -> str:
    (name,) = labelling_sessions.sessions(client.workspace) or ["new-photos-labels"]
    return name


def wait(client: AppClient) -> None:
    end = time.monotonic() + 60
    (folder,) = [f for f in labelling_sessions._OPENINGS if f.is_relative_to(client.workspace.folder)]
    while not client.get(f"/label/{folder.name}/progress").json().get("ready"):
        assert time.monotonic() < end
        time.sleep(0.05)


def send(client: AppClient, what: str, **values: Any) -> Any:
    answer = client.post(f"/label/{name_of(client)}/{what}", data=values, headers={"x-csrf-token": client.csrf})
    return answer.json() if answer.status_code == 200 else answer.status_code


def state(client: AppClient) -> Any:
    return client.get(f"/label/{name_of(client)}/state").json()


def test_answers_are_kept_and_a_stale_tab_is_refused(client: AppClient) -> None:
    page = client.page(f"/label/{name_of(client)}")
    assert "<b>" not in page.split('class="path"')[1] and 'data-keys="1234567890' in page
    before = state(client)
    question = before["question"]
    picture = client.get(question["picture"])
    assert picture.status_code == 200 and picture.headers["content-type"] == "image/jpeg"
    after = send(client, "answer", path=question["path"], action="label", label="red", seen=before["version"])
    assert (
        after["version"] == before["version"] + 1 and after["counts"]["red"] == 1 and after["last"] == [question["path"], "red"]
    )
    assert send(client, "answer", path=question["path"], action="label", label="blue", seen=before["version"]) == 409
    again = send(client, "undo", seen=after["version"])
    assert again["question"]["path"] == question["path"] and not again["counts"]


def test_after_five_answers_a_head_is_fitted_and_the_curve_is_drawn(client: AppClient) -> None:
    for _ in range(10):
        found = state(client)
        label = "red" if int(found["question"]["path"][:2]) % 2 else "blue"
        assert send(client, "answer", path=found["question"]["path"], action="label", label=label, seen=found["version"])
    end = time.monotonic() + 30
    while not (found := state(client))["estimate"] or found["fitting"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert found["estimate"]["images"] == found["sampled"] == 2
    points = [CurvePoint(labels, 1, 2, 0.5, 0.1, 0.9) for labels in range(4, 404, 4)]
    drawn = label_page._curve(points)
    assert drawn.startswith("<svg") and drawn.count("<circle") <= 51 and "400 labels" in drawn
    saved = send(client, "save")
    catalog = catalogs.load(Path(saved["file"]))
    assert sum(label is not None for label in catalog.column("label")) == 10 and "sightline run" in saved["command"]


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"path": "../x.png", "action": "label", "label": "red"}, 422),
        ({"path": "01<b>.png", "action": "undo"}, 422),
        ({"path": "01<b>.png", "action": "label", "label": " "}, 422),
        ({"action": "skip"}, 422),
    ],
)
def test_wrong_requests_are_refused(client: AppClient, values: dict[str, str], status: int) -> None:
    assert send(client, "answer", **values, seen=state(client)["version"]) == status
    assert client.get("/label/nothing").status_code == 404


def test_a_form_that_cannot_be_used_says_why(client: AppClient, tmp_path: Path) -> None:
    status, text = client.submit("/label", photos=str(tmp_path / "none"), classes="a, b")
    assert status == 422 and "does not exist" in text
    status, text = client.submit("/label", photos=str(tmp_path), classes="a")
    assert status == 422 and "1 classes" in text
    assert name_of(client) in client.page("/label")
