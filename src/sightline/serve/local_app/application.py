"""The application: its routes, and the checks around it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response

from sightline.report.page import inlined
from sightline.serve.guard import Guard
from sightline.serve.local_app import pictures
from sightline.serve.local_app.access import Access, SessionCheck, check_csrf
from sightline.serve.local_app.errors import NotFoundError, add_error_handlers
from sightline.serve.local_app.pages import PAGES
from sightline.serve.local_app.rendering import HERE, go
from sightline.serve.local_app.workspace import Workspace
from sightline.serve.metrics import Metrics

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(workspace: Workspace, access: Access) -> Guard:
    """Return the application with all its checks.

    Args:
        workspace: The folder of runs that it shows.
        access: Keys of this run of the app.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(check_csrf)])
    app.state.workspace, app.state.pages, app.state.picture_url = workspace, PAGES, pictures.url
    add_error_handlers(app)
    files = static_files()
    _add_static(app, files)
    for page in PAGES:
        app.include_router(page.router)

    @app.get("/")
    def first() -> Response:
        """Open the list of runs, or the first page if there is none."""
        return go("/runs" if workspace.run_folders() or workspace.started_folders() else "/start")

    style = files["style.css"][0].decode("utf-8")
    return Guard(
        SessionCheck(app, access, style),
        metrics=Metrics(),
        token=None,
        hosts=frozenset(("localhost", "127.0.0.1")),
        policy=_policy(style),
    )


def _policy(style: str) -> bytes:
    """Return the content security policy: files of this app alone, and the style sheet of the pages without a session."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'sha256-{digest}'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ).encode("ascii")


def static_files() -> dict[str, tuple[bytes, str]]:
    """Return the files below `/static/`: name → content and type. `style.css` is that of the report with that of the app."""
    found = {
        file.name: (file.read_bytes(), _TYPES[file.suffix])
        for file in sorted((HERE / "static").iterdir())
        if file.suffix in _TYPES
    }
    style = inlined()["style"].encode("utf-8") + b"\n" + found.pop("app.css")[0]
    script = inlined()["script"].encode("utf-8")
    page = resources.files("sightline.serve") / "page"
    shared = {
        "try.js": ((page / "app.js").read_bytes(), "text/javascript"),
        "try.css": ((page / "try.css").read_bytes(), "text/css"),
    }
    return {**found, **shared, "style.css": (style, "text/css"), "report.js": (script, "text/javascript")}


def _add_static(app: FastAPI, files: dict[str, tuple[bytes, str]]) -> None:
    """Add the files of the pages."""

    @app.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        """Return a file of the pages."""
        if name not in files:
            raise NotFoundError(f"there is no file {name[:60]!r}")
        content, kind = files[name]
        return Response(content, media_type=f"{kind}; charset=utf-8")
