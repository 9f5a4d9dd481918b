"""`sightline open`: what it prints, what it refuses, and that it stops at Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline.cli.app import app


def test_a_file_and_a_used_port_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    ended = CliRunner().invoke(app, ["open", str(tmp_path / "file"), "--no-browser"])
    assert ended.exit_code == 2 and "is a file" in ended.stderr
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        ended = CliRunner().invoke(app, ["open", str(tmp_path), "--no-browser", "--port", port])
    assert ended.exit_code == 2 and "in use" in ended.stderr
    assert CliRunner().invoke(app, ["open", "--port", "99999", "--no-browser"]).exit_code == 2


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_the_printed_address_opens_the_app_and_ctrl_c_stops_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sightline", "open", str(tmp_path / "runs"), "--no-browser", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        printed = ""
        while not printed.rstrip().endswith("}"):
            printed += process.stdout.readline()
        value = json.loads(printed)
        assert value["runs"] == str(tmp_path / "runs") and value["url"].startswith("http://127.0.0.1:")
        with urllib.request.urlopen(value["url"], timeout=30) as answer:
            assert answer.status == 200 and "HttpOnly" in answer.headers["set-cookie"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert not (tmp_path / "runs").exists(), "opening writes nothing"
