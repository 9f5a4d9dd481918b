"""Nothing leaves the machine: no telemetry, no upload, not even that of a dependency."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WATCHED = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.fork", "os.posix_spawn"):
        print(f"LEAVES {event} {arguments}", file=sys.stderr, flush=True)
sys.addaudithook(watch)
"""


def test_openvino_is_used_without_its_telemetry(python: Callable[..., Any], tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("there is no OpenVINO for this machine")
    home = tmp_path / "home"
    home.mkdir()
    code = WATCHED + "from sightline.engine import runtime\nassert runtime.core().get_property('CPU', 'FULL_DEVICE_NAME')\n"
    ended = python(code, env={"HOME": str(home), "USERPROFILE": str(home)})
    assert ended.code == 0, ended.err
    assert "openvino" in ended.modules
    assert not [name for name in ended.modules if name.startswith("openvino_telemetry")]
    assert "LEAVES" not in ended.err
    assert not list(home.iterdir())  # the telemetry keeps its identifier there


def test_scanning_opens_no_connection(python: Callable[..., Any], digits: Path) -> None:
    ended = python(WATCHED + "from sightline.cli import main\nmain()\n", "scan", "digits")
    assert ended.code == 0, ended.err
    assert "LEAVES" not in ended.err
