"""The page Data over HTTP: filters, findings, decisions, closed test images, and the corrected catalog."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sightline import catalog as catalogs
from sightline.records.audit import AuditRecord, LabelSuspect, Outlier
from sightline.runs import decisions, test_set_log
from sightline.serve.local_app import data_view
from sightline.serve.local_app.workspace import image_id
from sightline.store import Cache, output_folder, write_json
from tests.serve.local_app.conftest import AppClient, connect

HOSTILE = 'cat/<img src=x onerror="alert(1)">.jpg'


@pytest.fixture
def client(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppClient]:
    """A catalog with splits and an audit; nine images, three of them for testing."""
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "log"))
    found = catalogs.scan(photos)
    splits = ["test" if p.endswith("/3.jpg") else "train" for p in found.paths]
    folder = output_folder(tmp_path / "runs" / "catalogs" / "pets")
    catalogs.save(found.with_column("split", splits), folder / "catalog.csv")
    client = connect(tmp_path / "runs", Cache(tmp_path / "cache"))
    (id,) = client.workspace.catalogs()
    audit = AuditRecord(
        images=9,
        exact_duplicates=[["cat/0.jpg", "cat/1.jpg"]],
        label_suspects=[
            LabelSuspect("cat/2.jpg", "cat", "dog", 0.9, likely=True),
            LabelSuspect("cat/0.jpg", "cat", "dog", 0.1),
        ],
        outliers=[Outlier(HOSTILE, 0.8, "cat")],
    )
    write_json(output_folder(data_view.audit_folder(client.workspace, id)) / "audit.json", audit.to_json())
    yield client


def id_of(client: AppClient) -> str:
    return next(id for id, file in client.workspace.catalogs().items() if file.parent.name == "pets")


def paths(page: str) -> list[str]:
    return re.findall(r'data-image="(\w+)"', page)


def send(client: AppClient, what: str, **values: Any) -> Any:
    answer = client.post(f"/data/{id_of(client)}/{what}", data=values, headers={"x-csrf-token": client.csrf})
    return answer.json() if answer.status_code == 200 else answer.status_code


def test_images_are_filtered_and_findings_are_pictures(client: AppClient) -> None:
    id = id_of(client)
    page = client.page(f"/data/{id}")
    assert len(paths(page)) == 7 and "<img src=x" not in page, "the two test images are closed"
    assert paths(client.page(f"/data/{id}?label=dog")) == [image_id(f"dog/{i}.jpg") for i in range(3)]
    assert paths(client.page(f"/data/{id}?view=labels")) == [image_id("cat/2.jpg")]
    assert paths(client.page(f"/data/{id}?view=duplicates")) == [image_id("cat/0.jpg"), image_id("cat/1.jpg")]
    assert paths(client.page(f"/data/{id}?view=outliers")) == [image_id(HOSTILE)]
    assert "looks like dog" in client.page(f"/data/{id}?view=labels")
    size = re.findall(r'<option value="([^"]+px[^"]*)"', client.page(f"/data/{id}?size=256 to 1,023 px"))
    assert size == ["256 to 1,023 px"]
    for wrong in ("view=nothing", "label=<b>", "split=x", "size=y"):
        assert "<b>" not in client.page(f"/data/{id}?{wrong}")
    assert client.get(f"/data/{id}?page=0").status_code == 422 and client.get("/data/0").status_code == 404


def test_decisions_are_appended_undone_and_saved_as_a_corrected_catalog(client: AppClient, photos: Path) -> None:
    id = id_of(client)
    made = send(client, "decide", image=image_id("cat/2.jpg"), action="label", label="dog", seen=0)
    assert (made["version"], made["decision"], made["decided"]) == (1, "→ dog", 1)
    assert send(client, "decide", image=image_id("cat/1.jpg"), action="duplicate", seen=0) == 409, "a stale tab"
    assert send(client, "decide", image=image_id("cat/1.jpg"), action="duplicate", seen=1)["decision"] == "duplicate"
    assert send(client, "decide", image=image_id("dog/0.jpg"), action="no class", seen=2)["decided"] == 3
    taken_back = send(client, "undo", seen=3)
    assert (taken_back["path"], taken_back["decision"], taken_back["decided"]) == ("dog/0.jpg", "", 2)
    before = {file: file.stat().st_mtime_ns for file in photos.rglob("*.jpg")}
    saved = send(client, "save")
    original, corrected = client.workspace.catalog(id).catalog, catalogs.load(Path(saved["file"]))
    listed = catalogs.diff(original, corrected)
    assert saved["changes"] == 2 and dict(listed.label or {}) == {"cat/2.jpg": ("cat", "dog")}
    assert dict(listed.problem or {}) == {"cat/1.jpg": (None, "duplicate of cat/0.jpg")}
    assert "labelled cat, looks like dog" in Path(saved["list"]).read_text(encoding="utf-8")
    assert {file: file.stat().st_mtime_ns for file in photos.rglob("*.jpg")} == before
    assert len(decisions.read(client.workspace.decisions_file(id)).decisions) == 4
    assert "→ dog" in client.page(f"/data/{id}?view=decided")


def test_test_images_are_shown_after_the_test_set_log_knows(client: AppClient) -> None:
    id = id_of(client)
    assert send(client, "decide", image=image_id("cat/3.jpg"), action="exclude", seen=0) == 422
    status, place = client.submit(f"/data/{id}/test")
    assert (status, place) == (303, f"/data/{id}?split=test")
    assert paths(client.page(place)) == [image_id("cat/3.jpg"), image_id("dog/3.jpg")]
    contents = client.workspace.catalog(id).catalog.where(split="test").column("content")
    look = test_set_log.opened(contents, [test_set_log.LoggedClassifier("x", ("x",))], verb="v", by="b", when="w")
    assert [each.verb for each in look.looks] == ["open", "v"]
    assert send(client, "decide", image=image_id("cat/3.jpg"), action="exclude", seen=0)["decided"] == 1


def test_wrong_decisions_are_refused(client: AppClient) -> None:
    assert send(client, "decide", image="0" * 16, action="exclude", seen=0) == 404
    assert send(client, "decide", image=image_id("cat/0.jpg"), action="delete", seen=0) == 422
    assert send(client, "decide", image=image_id("cat/0.jpg"), action="label", label="", seen=0) == 422
    assert send(client, "undo", seen=0) == 422


def test_the_list_leads_to_every_catalog(client: AppClient) -> None:
    assert f'href="/data/{id_of(client)}"' in client.page("/data")
    answer = client.get("/data", params={"catalog": id_of(client)}, follow_redirects=False)
    assert answer.headers["location"] == f"/data/{id_of(client)}"
    assert client.get("/data?catalog=0").status_code == 404
