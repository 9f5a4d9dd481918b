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
from sightline.cli import listing


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
@pytest.mark.parametrize("pattern", [None, "resnet*", "mobilenet*", "*clip*"])
def test_lines_fit_where_they_can(width: int, pattern: str | None) -> None:
    header, rows = listing.lines(networks.table(pattern), width)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    least = sum(widths[:7]) + 2 * 6  # what is never cut: names and numbers
    assert sum(widths) + 2 * (len(widths) - 1) <= max(width, least)
    assert header[:7] == ("network", "params", "MACs", "px", "smallest", "features", "year")
    if width >= 120:
        assert "licence" in header
    if width >= 160:
        assert {"weights", "pretrained on", "licence"} <= set(header)


def test_nothing_is_cut_where_the_output_is_no_terminal() -> None:
    header, rows = listing.lines(networks.table("vit_base*"))
    assert header[-3:] == ("weights", "pretrained on", "licence")
    assert not any("…" in cell for row in rows for cell in row)


def test_few_are_described_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    listing.show(networks.table("legacy_xception"), "legacy_xception")
    out = capsys.readouterr().out
    assert out.startswith("legacy_xception (timm)\n") and "Chollet 2016" in out
    assert "22,855,952 (22.9 M)" in out and "299×299 px" in out and "apache-2.0" in out


def test_an_exact_name_among_many_is_described_below(capsys: pytest.CaptureFixture[str]) -> None:
    rows = networks.table("ResNet50")
    listing.show(rows, "ResNet50")
    table, _, described = capsys.readouterr().out.partition("\n\n")
    assert len(table.splitlines()) == 1 + len(rows) > 4
    assert described.startswith("resnet50 (timm)\n")
    row = next(r for r in rows if r["network"] == "resnet50")
    assert set(row["weights"].split(", ")) <= set(re.split(r"[,\s]+", described))


def test_a_network_of_which_nothing_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = dict.fromkeys(networks.table("lenet5")[0])
    listing.show([row | {"network": "new", "image_size": 32, "source": "timm"}], None)
    out = capsys.readouterr().out
    assert "parameters     – (–)" in out and "licence        –" in out


@pytest.mark.skipif(os.name == "nt", reason="needs a terminal of POSIX")
def test_a_terminal_is_asked_for_its_width(tmp_path: Path) -> None:
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
