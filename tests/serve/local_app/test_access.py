"""Access to the app: host, origin, link, cookie, CSRF token, headers, and photographs inside their folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from PIL import Image
from starlette.testclient import TestClient

from sightline import catalog as catalogs
from sightline.serve.local_app.pages import PAGES
from sightline.serve.local_app.workspace import image_id
from sightline.store import Cache, output_folder
from tests.serve.local_app.conftest import AppClient, connect

HTML = {"accept": "text/html"}


def fresh(app_client: AppClient) -> TestClient:
    """The same app, from a browser without a session."""
    return TestClient(app_client.app, base_url="http://127.0.0.1:8000")


def test_every_address_needs_a_session(app_client: AppClient) -> None:
    stranger = fresh(app_client)
    for url in ("/", "/runs", "/static/style.css", "/static/app.js", "/images/a/b", "/nowhere"):
        assert stranger.get(url).status_code == 401, url
        assert stranger.post(url).status_code == 401, url
    assert "no open session" in stranger.get("/runs", headers=HTML).text
    for cookie in ("sightline-8000=x", "sightline-8000=", "\x00;;=", "sightline-8000=é"):
        assert stranger.get("/runs", headers=[(b"cookie", cookie.encode("latin-1"))]).status_code == 401


def test_a_link_opens_one_session_and_the_cookie_is_strict(app_client: AppClient) -> None:
    link, first, second = app_client.access.new_link(), fresh(app_client), fresh(app_client)
    assert first.head("/enter", params={"token": link}).status_code == 403, "a preview does not use it up"
    answer = first.get("/enter", params={"token": link})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    assert first.get("/runs").status_code == 200
    assert second.get("/enter", params={"token": link}).status_code == 403
    assert second.get("/enter", params={"token": "x"}).status_code == second.get("/enter").status_code == 403
    assert second.get("/runs").status_code == 401
    assert first.get("/enter", params={"token": link}).status_code == 200, "the browser that has a session goes on"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.5:8000", ""])
def test_foreign_hosts_are_refused(app_client: AppClient, host: str) -> None:
    assert app_client.get("/runs", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_posts_of_other_sites_are_refused(app_client: AppClient, headers: dict[str, str]) -> None:
    assert app_client.post("/runs", data={"csrf": app_client.csrf}, headers=headers).status_code == 403


def test_every_post_needs_the_csrf_token_of_its_session(app_client: AppClient) -> None:
    other = fresh(app_client)
    other.get("/enter", params={"token": app_client.access.new_link()})
    posts = [r for page in PAGES for r in page.router.routes if isinstance(r, APIRoute) and "POST" in (r.methods or ())]
    for route in posts:
        url = route.path.replace("{", "").replace("}", "")
        for data, headers in (({}, {}), ({"csrf": "x"}, {}), ({}, {"x-csrf-token": "x"}), ({}, {"x-csrf-token": "é".encode()})):
            answer = app_client.post(url, data=data, headers=headers)  # type: ignore[arg-type]
            assert answer.status_code == 403 and "form" in answer.json()["error"], url
        assert other.post(url, data={"csrf": app_client.csrf}).status_code == 403, "a token of another session"


def test_pages_are_protected_by_a_strict_policy_and_have_nothing_inline(app_client: AppClient) -> None:
    answer = app_client.get("/runs", headers=HTML)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ") and "unsafe" not in policy and "http:" not in policy
    assert "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
    assert answer.headers["referrer-policy"] == "same-origin" and answer.headers["cache-control"] == "no-store"
    assert "<style" not in answer.text and "<script>" not in answer.text and " onclick" not in answer.text
    style, script = (app_client.get(f"/static/{name}").text for name in ("style.css", "app.js"))
    assert "https://" not in style + script and "http://" not in style + script and ".bar" in style and ".ladder" in style


@pytest.mark.parametrize("name", ["..%2f..%2fapplication.py", "%2e%2e/app.css", "no.css", "app.css%00.js", "%2fetc%2fpasswd"])
def test_static_files_are_a_fixed_list(app_client: AppClient, name: str) -> None:
    assert app_client.get(f"/static/{name}").status_code == 404


def test_a_page_that_does_not_exist_says_so(app_client: AppClient) -> None:
    assert app_client.get("/nowhere").json()["error"] == "there is no such page"
    answer = app_client.get("/runs/../../etc/passwd%00<script>", headers=HTML)
    assert answer.status_code == 404 and "<script>" not in answer.text and "<h1>" in answer.text


def test_a_photograph_is_upright_reduced_and_without_exif(app_client: AppClient) -> None:
    (id,) = app_client.workspace.catalogs()
    path = 'cat/<img src=x onerror="alert(1)">.jpg'
    answer = app_client.get(f"/images/{id}/{image_id(path)}", params={"side": "160"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (120, 160) and not image.getexif()
    assert b"SECRETCAMERA" not in answer.content
    again = app_client.get(f"/images/{id}/{image_id(path)}?side=160", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    for bad in ("../../etc/passwd", "%2e%2e%2f", "0" * 16, "x" * 3000, "%00"):
        assert app_client.get(f"/images/{id}/{bad}").status_code == 404
        assert app_client.get(f"/images/{bad}/{image_id(path)}").status_code == 404
    assert app_client.get(f"/images/{id}/{image_id(path)}?side=x").status_code == 422


def test_photographs_outside_the_folder_of_the_catalog_are_refused(tmp_path: Path, cache: Cache) -> None:
    inside, outside = tmp_path / "photos" / "a", tmp_path / "secret.png"
    inside.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(inside / f"{i}.png")
    Image.new("RGB", (8, 8)).save(outside)
    runs = tmp_path / "runs"
    file = output_folder(runs / "catalogs" / "x") / "catalog.csv"
    catalogs.save(catalogs.scan(tmp_path / "photos"), file)
    (inside / "0.png").unlink()
    (inside / "0.png").symlink_to(outside)
    client = connect(runs, cache)
    (id,) = client.workspace.catalogs()
    catalog: Any = client.workspace.catalog(id).catalog
    statuses = {path: client.get(f"/images/{id}/{image_id(path)}").status_code for path in catalog.paths}
    assert sorted(statuses.values()) == [200, 200, 404], statuses
