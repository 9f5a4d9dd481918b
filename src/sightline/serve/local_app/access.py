"""Who may use the app: whoever opens the printed address once, in that browser; and only from pages of the app itself."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from markupsafe import escape
from starlette.exceptions import HTTPException

from sightline.serve.guard import App, Message, Receive, Scope, Send

CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
ENTRANCE = "/enter"
_READING = ("GET", "HEAD")


class Access:
    """Keys of one run of the app; they are held in memory only, so that a restart needs a new link.

    Args:
        port: Port of the app, part of the cookie's name: browsers send cookies to all ports of a machine.
    """

    def __init__(self, port: int) -> None:
        self.cookie = f"sightline-{port}"
        self._key = secrets.token_bytes(32)
        self._links: set[str] = set()
        self._sessions: set[str] = set()
        self._lock = threading.Lock()

    def new_link(self) -> str:
        """Return a token that opens one session."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._links.add(token)
        return token

    def exchange(self, token: str) -> str | None:
        """Return a new session for a token of a link, which is used up; None if it is unknown or was used before."""
        with self._lock:
            found = next((link for link in self._links if _same(link, token)), None)
            if found is None:
                return None
            self._links.remove(found)
            session = secrets.token_urlsafe(32)
            self._sessions.add(session)
            return session

    def csrf(self, session: str) -> str:
        """Return the token that each POST of a session carries."""
        return hmac.digest(self._key, session.encode("utf-8"), "sha256").hex()

    def session_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the session in the cookie of a request, None if there is none that is open."""
        try:
            cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        morsel = cookies.get(self.cookie)
        if morsel is None:
            return None
        return next((session for session in self._sessions if _same(session, morsel.value)), None)


def _same(one: str, other: str) -> bool:
    """Return whether two tokens are equal; the comparison takes the same time for any token."""
    return hmac.compare_digest(one.encode("utf-8"), other.encode("utf-8", "replace"))


class SessionCheck:
    """ASGI middleware that lets only requests of an open session pass, and exchanges the token of a link for its cookie.

    Args:
        app: The application.
        access: The keys.
        style: Style sheet of the pages without a session, as `/static/style.css` needs a session too.
    """

    def __init__(self, app: App, access: Access, style: str) -> None:
        self._app, self._access, self._style = app, access, style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["path"] == ENTRANCE:
            await self._enter(scope, headers, send)
            return
        session = self._access.session_of(headers)
        if session is None:
            await self._refuse(headers, send)
            return
        scope.setdefault("state", {})["csrf"] = self._access.csrf(session)
        await self._app(scope, receive, send)

    async def _enter(self, scope: Scope, headers: Mapping[bytes, bytes], send: Send) -> None:
        """Exchange the token in the address; a browser that has a session goes on without."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if self._access.session_of(headers) is not None:
            await self._send(send, 200, _page("Sightline", "", self._style, forward=True))
            return
        session = self._access.exchange(given) if scope["method"] == "GET" else None
        if session is None:
            words = "This address was opened before, or is not that of this app."
            await self._send(send, 403, _page("This link is used up", words, self._style))
            return
        cookie = f"{self._access.cookie}={session}; Path=/; HttpOnly; SameSite=Strict"
        # A page that forwards, since a browser that follows a link of another site would not send the cookie to a redirection.
        await self._send(send, 200, _page("Sightline", "", self._style, forward=True), (b"set-cookie", cookie.encode("ascii")))

    async def _refuse(self, headers: Mapping[bytes, bytes], send: Send) -> None:
        """Answer a request without a session."""
        if b"text/html" in headers.get(b"accept", b""):
            await self._send(send, 401, _page("No access", "This browser has no open session.", self._style))
            return
        body = json.dumps({"error": "no open session", "hint": "open the address that `sightline open` prints"}).encode("utf-8")
        await self._send(send, 401, body, kind=b"application/json")

    async def _send(
        self, send: Send, status: int, body: bytes, *more: tuple[bytes, bytes], kind: bytes = b"text/html; charset=utf-8"
    ) -> None:
        """Send a whole answer."""
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode("ascii")), *more]
        start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _page(title: str, words: str, style: str, *, forward: bool = False) -> bytes:
    """Return a page that is shown without a session."""
    onward = '<meta http-equiv="refresh" content="0; url=/">' if forward else ""
    help_text = (
        '<p><a href="/">Continue</a></p>'
        if forward
        else "<p>In the terminal in which <code>sightline open</code> runs, press Enter for a new address; "
        "or start it again.</p>"
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{onward}<style>{style}</style></head>'
        f"<body><main><h1>{escape(title)}</h1><p>{escape(words)}</p>{help_text}</main></body></html>"
    ).encode()


async def check_csrf(request: Request) -> None:
    """Check the CSRF token of every request that changes something: a header of scripts, or a field of forms.

    Raises:
        HTTPException: If it is missing or wrong.
    """
    if request.method in _READING:
        return
    given: Any = request.headers.get(CSRF_HEADER)
    if given is None:
        form = await request.form(max_files=64, max_fields=1000)
        given = form.get(CSRF_FIELD)
    expected = getattr(request.state, "csrf", "")
    if not isinstance(given, str) or not expected or not _same(expected, given):
        raise HTTPException(403, "this form is not from a page of this app, or the app was restarted; load the page again")
