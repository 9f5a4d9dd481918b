"""Pages from templates: those of the app, with the macros and the style of the report."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import ChoiceLoader, Environment, FileSystemLoader
from markupsafe import Markup

from sightline import __version__
from sightline.report import page as report_page
from sightline.serve.local_app.access import CSRF_FIELD

HERE = Path(__file__).parent


@functools.cache
def templates() -> Environment:
    """Return the Jinja environment with automatic escaping: the templates of the app, then those of the report."""
    shared = report_page.templates()
    assert shared.loader is not None
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(HERE / "templates", encoding="utf-8"), shared.loader]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= shared.globals
    environment.filters |= shared.filters
    environment.filters["path"] = lambda text: quote(str(text), safe="")
    return environment


def render(request: Request, template: str, *, title: str, status: int = 200, **values: Any) -> Response:
    """Return a page.

    Args:
        request: The request that it answers.
        template: File in `templates/`.
        title: Title of the page.
        status: HTTP status.
        values: Variables of the template, besides `title`, `navigation`, `here`, `workspace`, `csrf`, `csrf_field`,
            `picture_url` and `version`.
    """
    state = request.app.state
    csrf = getattr(request.state, "csrf", "")
    text = (
        templates()
        .get_template(template)
        .render(
            title=title,
            navigation=[page for page in state.pages if page.in_navigation],
            here=request.url.path,
            workspace=state.workspace,
            csrf=csrf,
            csrf_field=lambda: Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, csrf),
            picture_url=state.picture_url,
            version=__version__,
            **values,
        )
    )
    return HTMLResponse(text, status)


def go(url: str) -> Response:
    """Return the answer to a form: the browser opens `url`, an address of the app."""
    return RedirectResponse(url, 303)


def wants_page(request: Request) -> bool:
    """Return whether the client wants HTML: a browser that opens an address, but not a script."""
    return "text/html" in request.headers.get("accept", "")
