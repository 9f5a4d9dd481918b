"""Checks of every HTTP request before it is handled: host, origin, token, size, time and number; headers of every response."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from sightline.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 64 << 20
"""Maximum size of a request's body."""
MOST_REQUESTS = 256
"""Maximum number of requests that are handled at once; more are refused with 503."""
SILENCE_S = 15.0
"""Maximum time between two parts of a body."""
LEAST_BYTES_PER_S = 4_000
"""Minimum rate of a body after `GRACE_S`, on average."""
GRACE_S = 30.0
_DRAIN_BYTES = 4 * MOST_BODY_BYTES
_DRAIN_S = 5.0
OPEN_PATHS = frozenset(("/", "/app.js", "/style.css", "/try.css", "/healthz"))
"""Paths that need no token: they contain nothing about the classifiers."""
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of responses that do not set one themselves."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer, browsers send `Origin: null` with forms
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Reason why a request is not handled, and the HTTP status that says so."""

    status: int
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Guard:
    """ASGI middleware that checks requests.

    Args:
        app: The application.
        metrics: Counts requests.
        token: Token that requests must carry, or None.
        hosts: Names in lower case by which this server may be addressed, besides addresses.
        policy: Content security policy of responses that do not set one themselves.
    """

    def __init__(self, app: App, *, metrics: Metrics, token: str | None, hosts: frozenset[str], policy: bytes = POLICY) -> None:
        self._app, self._metrics, self._token, self._hosts = app, metrics, token, hosts
        self._headers = ((b"content-security-policy", policy), *_HEADERS)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, state = time.perf_counter(), {"status": 500}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                own = list(message.get("headers", []))
                names = {name.lower() for name, _ in own}
                message["headers"] = own + [header for header in self._headers if header[0] not in names]
            await send(message)

        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        self._running += 1
        try:
            if refusal is None:
                await self._app(scope, _bounded(receive), answer)
            else:
                if b"expect" not in headers:
                    await _drain(receive)
                await _refuse(answer, refusal)
        finally:
            self._running -= 1
            self._metrics.request(scope["method"], scope["path"], state["status"], time.perf_counter() - began)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> Refusal | None:
        """Return why a request is refused by its headers alone, None if it is not."""
        if self._running >= MOST_REQUESTS:
            return Refusal(503, "too many requests at once", ((b"retry-after", b"1"),))
        host = headers.get(b"host", b"").decode("latin-1")
        if not _is_allowed(_name_of(host), self._hosts):
            return Refusal(403, f"this server is not known by the name {host[:100]!r}")
        origin = headers.get(b"origin")
        own = {f"{scheme}://{host}".lower().encode("latin-1") for scheme in ("http", "https")}
        if origin is not None and origin.lower() not in own:
            return Refusal(403, "requests from pages of other sites are refused")
        if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and scope["method"] not in ("GET", "HEAD"):
            return Refusal(403, "requests from pages of other sites are refused")
        if self._token is not None and scope["path"] not in OPEN_PATHS and not self._has_token(headers):
            return Refusal(401, "the token is missing or wrong", ((b"www-authenticate", b"Bearer"),))
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > MOST_BODY_BYTES:
            return Refusal(413, f"the request is larger than {MOST_BODY_BYTES >> 20} MB")
        return None

    def _has_token(self, headers: dict[bytes, bytes]) -> bool:
        """Return whether the `Authorization` header carries the token; the comparison takes the same time for any token."""
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        expected = (self._token or "").encode("utf-8")
        return hmac.compare_digest(given.strip(), expected) and scheme.lower() == b"bearer"


def _name_of(host: str) -> str:
    """Return the name in a `Host` header, in lower case, without the port.

    Example:
        >>> _name_of("[::1]:8000"), _name_of("LocalHost:80"), _name_of("127.0.0.1")
        ('::1', 'localhost', '127.0.0.1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_allowed(name: str, hosts: frozenset[str]) -> bool:
    """Return whether a name in a `Host` header is one of `hosts`, or any address if they contain "*"."""
    if name in hosts:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or "*" in hosts


def _bounded(receive: Receive) -> Receive:
    """Return `receive` with limits on the size of the body and on the time that it takes."""
    total, began = 0, time.monotonic()

    async def limited() -> Message:
        nonlocal total
        try:
            message = await asyncio.wait_for(receive(), SILENCE_S)
        except TimeoutError as error:
            raise HTTPException(408, "the request arrives too slowly") from error
        if message["type"] != "http.request":
            return message
        total += len(message.get("body", b""))
        if total > MOST_BODY_BYTES:
            await _drain(receive)
            raise HTTPException(413, f"the request is larger than {MOST_BODY_BYTES >> 20} MB")
        took = time.monotonic() - began
        if message.get("more_body") and took > GRACE_S and total < LEAST_BYTES_PER_S * took:
            raise HTTPException(408, "the request arrives too slowly")
        return message

    done = False

    async def until_complete() -> Message:
        nonlocal done
        if done:  # the application waits for a disconnection while it answers: no time limit
            return await receive()
        message = await limited()
        done = not message.get("more_body", False)
        return message

    return until_complete


async def _drain(receive: Receive) -> None:
    """Read and drop the rest of a body, so that the client reads the answer instead of failing to send; bounded."""
    dropped, until = 0, time.monotonic() + _DRAIN_S
    while dropped < _DRAIN_BYTES and (left := until - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        dropped += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


async def _refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal as JSON."""
    body = json.dumps({"error": refusal.message}).encode("utf-8")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
