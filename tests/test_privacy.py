"""No command sends data from the machine, and none of its dependencies does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_few_digits

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


STEPS = """
from pathlib import Path
from typer.testing import CliRunner
from sightline.cli.app import app
def step(*arguments):
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, f"{arguments}: {ended.output} {ended.exception!r}"
step("run", "digits", "--backbone", "pixels", "--methods", "baseline,features", "--head", "centroid", "-o", "runs")
(run,) = map(str, Path("runs").glob("*/"))
step("predict", run, "digits/3")
step("explain", run, "digits/3", "-o", "heatmaps")
step("report", run, "-o", "page.html")
"""


@pytest.mark.slow
def test_run_predict_explain_and_report_open_no_connection_and_start_no_process(
    python: Callable[..., Any], tmp_path: Path
) -> None:
    write_few_digits(tmp_path / "digits", 5)
    ended = python(WATCHED + STEPS)
    assert ended.code == 0, ended.err
    assert (tmp_path / "page.html").is_file() and list((tmp_path / "heatmaps").rglob("*.png"))
    assert "LEAVES" not in ended.err


def test_a_connection_would_be_noticed(python: Callable[..., Any]) -> None:
    ended = python(WATCHED + "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n")
    assert "LEAVES socket.connect" in ended.err
