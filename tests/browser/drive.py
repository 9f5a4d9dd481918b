"""Drive a headless Chromium or Firefox without a driver program: open a page, choose files, evaluate JavaScript."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

TIMEOUT_S = 120.0


class Browser(Protocol):
    """An open page."""

    def evaluate(self, expression: str) -> Any: ...

    def choose(self, selector: str, files: Sequence[Path]) -> None: ...

    def picture(self, file: Path, width: int, height: int) -> None: ...


def wait_for(browser: Browser, expression: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Return the value of an expression once it is true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = browser.evaluate(expression)
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(f"{expression} did not become true in {timeout_s:.0f} s")


class Chromium:
    """Chromium over the pipe of its debugging protocol: JSON messages that end with a zero byte."""

    def __init__(self, program: str, profile: str) -> None:
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        command += ["--disable-background-networking", f"--user-data-dir={profile}", "about:blank"]

        def fds() -> None:
            os.dup2(child_in, 3)
            os.dup2(child_out, 4)

        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, preexec_fn=fds, pass_fds=(3, 4), **quiet)  # type: ignore[call-overload]
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._count, self.session, self.requests = b"", 0, "", list[str]()
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                self._buffer += os.read(self._in, 1 << 20)
            text, _, self._buffer = self._buffer.partition(b"\0")
            reply = json.loads(text)
            if reply.get("method") == "Network.requestWillBeSent":
                self.requests.append(reply["params"]["request"]["url"])
            if reply.get("id") == self._count:
                assert "error" not in reply, reply["error"]
                result: dict[str, Any] = reply["result"]
                return result

    def open(self, address: str) -> None:
        """Open a page."""
        self._call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of an expression or promise."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in an input."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", files=[str(f) for f in files], nodeId=node)

    def picture(self, file: Path, width: int, height: int) -> None:
        """Save a screenshot of a window of this size in PNG."""
        phone = width < 600
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))


class Firefox:
    """Firefox over Marionette: JSON messages with their length before them."""

    def __init__(self, program: str, profile: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        Path(profile, "user.js").write_text(f'user_pref("marionette.port", {port});\n', encoding="utf-8")
        command = [program, "--headless", "--marionette", "--no-remote", "--profile", profile]
        environment = {**os.environ, "MOZ_HEADLESS": "1", "HOME": profile}
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self._socket, self._buffer, self._count = _connected(port), b"", 0
        self._message()  # the greeting
        self._call("WebDriver:NewSession")
        self._call("WebDriver:SetTimeouts", script=int(TIMEOUT_S * 1000))

    def _message(self) -> Any:
        while b":" not in self._buffer:
            self._buffer += self._socket.recv(1 << 20)
        length, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(length):
            self._buffer += self._socket.recv(1 << 20)
        text, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        return json.loads(text)

    def _call(self, method: str, **params: Any) -> Any:
        self._count += 1
        text = json.dumps([0, self._count, method, params]).encode()
        self._socket.sendall(f"{len(text)}:".encode() + text)
        while True:
            reply = self._message()
            if reply[0] == 1 and reply[1] == self._count:
                assert reply[2] is None, reply[2]
                return reply[3]

    def open(self, address: str) -> None:
        """Open a page."""
        self._call("WebDriver:Navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of an expression or promise."""
        script = (
            f"const done = arguments[arguments.length - 1]; Promise.resolve({expression}).then(done, (e) => done(String(e)));"
        )
        return self._call("WebDriver:ExecuteAsyncScript", script=script, args=[], sandbox=None, newSandbox=False)["value"]

    def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in an input."""
        found = self._call("WebDriver:FindElement", using="css selector", value=selector)["value"]
        self._call("WebDriver:ElementSendKeys", id=next(iter(found.values())), text="\n".join(str(f) for f in files))

    def picture(self, file: Path, width: int, height: int) -> None:
        """Save a screenshot of a window of this size in PNG."""
        self._call("WebDriver:SetWindowRect", width=width, height=height)
        file.write_bytes(base64.b64decode(self._call("WebDriver:TakeScreenshot", full=False)["value"]))


def _connected(port: int) -> socket.socket:
    """Return a connection, once something listens."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


PROGRAMS = {"chromium": (Chromium, ("chromium", "google-chrome")), "firefox": (Firefox, ("firefox-esr", "firefox"))}


def program_of(name: str) -> str | None:
    """Return the path of an installed browser, or None."""
    return next((path for path in map(shutil.which, PROGRAMS[name][1]) if path), None)


@contextlib.contextmanager
def browser(name: str, address: str) -> Iterator[Any]:
    """Open a page in a headless browser with a new profile, and end the browser afterwards."""
    program = program_of(name)
    assert program is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        made = PROGRAMS[name][0](program, profile)
        try:
            made.open(address)
            yield made
        finally:
            made.process.terminate()
            try:
                made.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                made.process.kill()
