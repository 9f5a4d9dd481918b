"""The server process: load classifiers, listen, and stop without losing requests."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sightline.errors import RequestError
from sightline.serve.app import create_app
from sightline.serve.guard import Guard
from sightline.serve.metrics import Metrics
from sightline.serve.served_model import ServedModel

HEADERS_S = 15.0
"""Maximum time from the first byte of a request, or from a new connection, to the end of its headers."""
STOP_S = 30
"""Maximum time that running requests have after a signal to stop."""
LEAST_TOKEN = 16
"""Minimum length of a token."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the server.

    Args:
        host: Address or name to listen on.
        port: Port; 0 for any free one.
        token: Token that requests must carry; required beyond loopback.
        code: `file.py:function` that builds a user-defined network.
        device: As in `Classifier.predict`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    code: str | None = None
    device: str = "auto"


def serve(models: Sequence[Path], settings: Settings, ready: Callable[[str, Sequence[str]], None]) -> None:
    """Serve classifiers until the process gets SIGINT or SIGTERM; running requests are answered before it ends.

    Args:
        models: Classifier files or run folders.
        settings: Settings of the server.
        ready: Called with the URL and the names of the models once the server listens.

    Raises:
        RequestError: If a classifier does not exist, the port is in use, or a token is missing.
    """
    check(settings)
    listening = listen(settings)
    metrics = Metrics()
    with contextlib.closing(listening), _loaded(models, settings, metrics) as served:
        address = settings.host if ":" not in settings.host else f"[{settings.host}]"
        url = f"http://{address}:{listening.getsockname()[1]}"
        app = Guard(create_app(served, metrics), metrics=metrics, token=settings.token, hosts=hosts_of(settings))
        names = [model.name for model in served]
        make_server(app, lambda: ready(url, names)).run(sockets=[listening])


def make_server(app: Guard, ready: Callable[[], None]) -> uvicorn.Server:
    """Return the server of an application; `ready` is called once it listens."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=STOP_S,
    )
    server = _Server(config)
    server.on_ready = ready
    return server


@contextlib.contextmanager
def _loaded(models: Sequence[Path], settings: Settings, metrics: Metrics) -> Iterator[list[ServedModel]]:
    """Load the classifiers for the block."""
    served: list[ServedModel] = []
    try:
        for name, file in zip(names_of(models), models, strict=True):
            served.append(ServedModel(name, file, code=settings.code, device=settings.device, metrics=metrics))
        yield served
    finally:
        for model in served:
            model.close()


def names_of(models: Sequence[Path]) -> list[str]:
    """Return a different name for each classifier: that of its run folder, or of its file.

    Example:
        >>> names_of([Path("runs/pets"), Path("runs/pets/classifier.safetensors"), Path("birds.safetensors")])
        ['pets', 'pets-2', 'birds']
    """
    names: list[str] = []
    for model in models:
        name = model.parent.name if model.name == "classifier.safetensors" and model.parent.name else model.stem
        name = name or "model"
        number = 1
        while (full := name if number == 1 else f"{name}-{number}") in names:
            number += 1
        names.append(full)
    return names


def is_loopback(host: str) -> bool:
    """Return whether an address or name can be reached from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: Settings) -> None:
    """Check the settings.

    Raises:
        RequestError: If the token is missing or too short, or the port is not one.
    """
    if not 0 <= settings.port < 65_536:
        raise RequestError(f"there is no port {settings.port}", "use a port from 1024 to 65535, such as --port 8000")
    if settings.token is not None and (len(settings.token) < LEAST_TOKEN or not settings.token.isascii()):
        hint = f"use at least {LEAST_TOKEN} random letters and digits, as from Python's secrets.token_hex()"
        raise RequestError("the token is too short or not ASCII", hint)
    if settings.token is None and not is_loopback(settings.host):
        raise RequestError(
            f"--host {settings.host} lets other machines connect, and no token protects the service",
            "add --token TOKEN, or set SIGHTLINE_TOKEN; without --host, only this machine can connect",
        )


def hosts_of(settings: Settings) -> frozenset[str]:
    """Return the names by which the server may be addressed; "*" stands for any address, beyond loopback."""
    names = {"localhost", settings.host.lower()}
    if not is_loopback(settings.host):
        names |= {"*", socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens.

    Raises:
        RequestError: If the port is in use, or the address does not belong to this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        message = f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}"
        raise RequestError(message, "use another --port, or stop the program that uses it") from error
    listening.setblocking(False)
    return listening


class _Server(uvicorn.Server):
    """Server whose signal handlers stop it gracefully and leave the exit code at 0."""

    on_ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell that the server is ready."""
        await super().startup(sockets=sockets)
        self.on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; at a second one, without waiting for running requests."""

        def stop(number: int, frame: Any) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

        wakeup = signal.set_wakeup_fd(-1)  # the command line's own watch would end the process after 1.5 s
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)


class _Protocol(H11Protocol):
    """HTTP protocol that closes connections whose headers do not arrive in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect a request."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Handle data; where it does not complete the headers of a request, they are awaited for a limited time."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self._timer is None:
                self._expect_headers()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        """Close the connection after `HEADERS_S` unless a request has arrived."""
        self._timer = self.loop.call_later(HEADERS_S, self._close)

    def _close(self) -> None:
        """Close the connection if no request is running."""
        self._timer = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()
