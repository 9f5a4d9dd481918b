"""The list of networks on terminals of several widths."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sightline import networks
from sightline.cli import tables_output


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("pattern", ["mobilenet*", "*clip*"])
def test_lines_are_no_wider_than_the_terminal(
    width: int, pattern: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    tables_output.print_networks(networks.table(pattern), pattern)
    header, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(networks.table(pattern))
    numbers = ["network", "params", "MACs", "px", "smallest", "features", "year"]
    assert header.split()[:7] == numbers
    least = header.index("year") + len("year")  # names and numbers are never cut
    assert max(len(line) for line in [header, *rows]) <= max(width, least)
    assert ("licence" in header) == (width - least >= 14)
    assert ("pretrained on" in header) == (width - least >= 28)


def test_nothing_is_cut_if_the_output_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tables_output.print_networks(networks.table("vit_base*"), None)
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[-4:] == ["weights", "pretrained", "on", "licence"]
    assert "…" not in out


def test_few_matches_are_described_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    tables_output.print_networks(networks.table("legacy_xception"), "legacy_xception")
    out = capsys.readouterr().out
    assert out.startswith("legacy_xception (timm)\n") and "Chollet 2016" in out
    assert "22,855,952 (22.9 M)" in out and "299×299 px" in out and "apache-2.0" in out


def test_an_exact_name_among_many_is_described_below(capsys: pytest.CaptureFixture[str]) -> None:
    rows = networks.table("ResNet50")
    tables_output.print_networks(rows, "ResNet50")
    table, _, described = capsys.readouterr().out.partition("\n\n")
    assert len(table.splitlines()) == 1 + len(rows) > 4
    assert described.startswith("resnet50 (timm)\n")
    row = next(r for r in rows if r["network"] == "resnet50")
    assert set(row["weights"].split(", ")) <= set(re.split(r"[,\s]+", described))


def test_a_network_without_measurements_is_listed_with_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = dict.fromkeys(networks.table("lenet5")[0])
    tables_output.print_networks([row | {"network": "new", "image_size": 32, "source": "timm"}], None)
    out = capsys.readouterr().out
    assert "parameters     – (–)" in out and "licence        –" in out


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a terminal of POSIX")
def test_the_table_fits_the_width_of_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    code = "from sightline.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "100", "LINES": "40", "SIGHTLINE_CACHE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, "networks", "regnet*"], stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        out = b""
        try:
            while chunk := os.read(ours, 65536):
                out += chunk
        except OSError:  # Linux says so when the other end is closed
            pass
        process.wait(timeout=60)
    os.close(ours)
    lines = out.decode("utf-8").splitlines()
    assert process.returncode == 0 and len(lines) > 40
    assert 60 < max(len(line) for line in lines) <= 100
