"""The process of the app: listen on this machine only, and stop without losing requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from sightline.errors import RequestError
from sightline.serve.local_app.access import ENTRANCE, Access
from sightline.serve.local_app.application import create_app
from sightline.serve.local_app.workspace import Workspace
from sightline.serve.server import Settings, check, listen, make_server

HOST = "127.0.0.1"


def open_app(folder: Path, port: int, ready: Callable[[Callable[[], str]], None]) -> None:
    """Serve the app until the process gets SIGINT or SIGTERM; running requests are answered before it ends.

    Args:
        folder: Folder of runs; it is created with the first run if it does not exist.
        port: Port; 0 for any free one.
        ready: Called once the app listens, with a function that returns a new address; each address opens one browser.

    Raises:
        RequestError: If the folder is a file, or the port is in use.
    """
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is a file", "name a folder of runs, such as runs")
    settings = Settings(host=HOST, port=port)
    check(settings)
    listening = listen(settings)
    with contextlib.closing(listening):
        number = listening.getsockname()[1]
        access = Access(number)
        app = create_app(Workspace(folder.absolute()), access)

        def address() -> str:
            return f"http://{HOST}:{number}{ENTRANCE}?token={access.new_link()}"

        make_server(app, lambda: ready(address)).run(sockets=[listening])
