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


QUANTISE = """
import sys, tempfile
from pathlib import Path
import torch
print("BEGIN", file=sys.stderr, flush=True)
from sightline import engine, networks
from sightline.engine import quantising
from sightline.store import Cache
quantising.CALIBRATION_IMAGES = 4
cache = Cache(Path("cache"))
backbone = networks.describe("resnet10t", weights="random", image_size=32, cache=cache)
assert engine.quantised(backbone, cache)
assert "nncf" in sys.modules and sys.modules["nncf.telemetry.wrapper"].telemetry.__class__.__name__ != "NNCFTelemetry"
"""


@pytest.mark.slow
def test_quantising_sends_nothing(python: Callable[..., Any], tmp_path: Path) -> None:
    """NNCF is silent where pytest is imported, so this runs in a process without it."""
    if importlib.util.find_spec("nncf") is None:
        pytest.skip("NNCF is not installed")
    home = tmp_path / "home"
    home.mkdir()
    ended = python(WATCHED + QUANTISE, env={"HOME": str(home), "USERPROFILE": str(home)})
    assert ended.code == 0, ended.err
    assert "nncf" in ended.modules and "pytest" not in ended.modules
    assert not [name for name in ended.modules if name.startswith("openvino_telemetry")]
    assert "LEAVES socket" not in ended.err.partition("BEGIN")[2]
    assert not list(home.rglob("*telemetry*")) and not list(home.rglob("*stats*"))


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


def test_the_test_notices_a_connection(python: Callable[..., Any]) -> None:
    ended = python(WATCHED + "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n")
    assert "LEAVES socket.connect" in ended.err
