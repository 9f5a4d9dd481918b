"""A client with an open session, over a folder of runs with a catalog of few photographs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sightline import catalog as catalogs
from sightline.serve.local_app import create_app
from sightline.serve.local_app.access import Access
from sightline.serve.local_app.workspace import Workspace
from sightline.store import Cache, output_folder

BASE = "http://127.0.0.1:8000"


class AppClient(TestClient):
    """Client of the app: `page` reads a page, `submit` posts a form with the token."""

    workspace: Workspace
    access: Access
    csrf = ""

    def page(self, url: str) -> str:
        answer = self.get(url, headers={"accept": "text/html"})
        assert answer.status_code == 200, answer.text
        return answer.text

    def submit(self, url: str, **values: str) -> tuple[int, str]:
        answer = self.post(url, data={**values, "csrf": self.csrf}, headers={"accept": "text/html"}, follow_redirects=False)
        return answer.status_code, answer.headers.get("location", answer.text)


def connect(folder: Path, cache: Cache) -> AppClient:
    """Return a client with a session over a folder of runs."""
    workspace, access = Workspace(folder, cache), Access(8000)
    client = AppClient(create_app(workspace, access), base_url=BASE)
    client.workspace, client.access = workspace, access
    assert client.get("/enter", params={"token": access.new_link()}).status_code == 200
    found = re.search(r'name="csrf" content="(\w+)"', client.page("/runs"))
    assert found is not None
    client.csrf = found[1]
    return client


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four photographs, one of them with a hostile name and a GPS position."""
    folder = tmp_path_factory.mktemp("photos")
    for label, colour in (("cat", (200, 40, 40)), ("dog", (40, 40, 200))):
        (folder / label).mkdir()
        for i in range(4):
            Image.new("RGB", (400, 300), (*colour[:2], 20 * i)).save(folder / label / f"{i}.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    exif[0x010F] = "SECRETCAMERA"
    Image.new("RGB", (400, 300), (20, 200, 20)).save(folder / "cat" / '<img src=x onerror="alert(1)">.jpg', exif=exif)
    return folder


@pytest.fixture(scope="module")
def runs_folder(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a catalog that the app has made."""
    folder = tmp_path_factory.mktemp("runs")
    place = output_folder(folder / "catalogs" / "pets")
    catalogs.save(catalogs.scan(photos), place / "catalog.csv")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs with a report, and a damaged one."""
    from sightline import report
    from tests.report import drawn

    folder = tmp_path_factory.mktemp("finished")
    for name in ("shapes-1", "shapes-2"):
        run = drawn.make(folder / name, ("disc", "<b>ring</b>"), n=40, most_pictures=2, changes={"kind": "run"})
        report.write_report([run], run.folder / "report.html")
    output_folder(folder / "broken")
    (folder / "broken" / "run.json").write_text('{"version": 1, "surprise": 2}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def app_client(runs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """A client with an open session."""
    yield connect(runs_folder, Cache(tmp_path_factory.mktemp("cache")))
