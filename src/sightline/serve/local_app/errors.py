"""Errors of the app, and the answers that are made of errors."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from sightline.errors import SightlineError
from sightline.runs.decisions import StaleError
from sightline.serve.local_app.rendering import render, wants_page
from sightline.store import log


class NotFoundError(SightlineError):
    """Run, catalog or image that does not exist."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error with its reason: a page for a browser, `error` and `hint` in JSON for a script."""

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        words = {404: "there is no such page", 405: "this address cannot be used in this way"}
        return answer(request, error.status_code, words.get(error.status_code, str(error.detail)))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(request, 422, f"{where}: {first['msg']}")

    @app.exception_handler(SightlineError)
    async def refused(request: Request, error: SightlineError) -> Response:
        status = 404 if isinstance(error, NotFoundError) else 409 if isinstance(error, StaleError) else 422
        return answer(request, status, error.message, error.hint)

    @app.exception_handler(OSError)
    async def unreadable(request: Request, error: OSError) -> Response:
        where = f": {error.filename}" if error.filename is not None else ""
        return answer(request, 422, f"{error.strerror or error}{where}", "check the disk and the access rights")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        log.error("%s %s failed: %r", request.method, request.url.path, error, exc_info=error)
        return answer(request, 500, "the app failed; its terminal says why")


def answer(request: Request, status: int, message: str, hint: str | None = None) -> Response:
    """Return a page or a JSON object that says what is wrong."""
    if not wants_page(request):
        return JSONResponse({"error": message, "hint": hint}, status)
    return render(request, "error.html.j2", status=status, title="Not possible", message=message, hint=hint)
