"""Tables on a terminal."""

from __future__ import annotations

import pytest

from sightline.cli import tables_output


def test_tables_are_aligned_and_literal(capsys: pytest.CaptureFixture[str]) -> None:
    tables_output.print_table(("path", "n"), [("[red]猫.jpg", 7), ("a\nb.jpg", 1200)])
    assert capsys.readouterr().out == "path            n\n[red]猫.jpg     7\na\\nb.jpg     1200\n"


def test_cells_are_cut_to_the_width_only_in_columns_that_may_shrink(capsys: pytest.CaptureFixture[str]) -> None:
    tables_output.print_table(("name", "text"), [("a" * 20, "b" * 40)], width=40, shrink=("text",))
    line = capsys.readouterr().out.splitlines()[1]
    assert line == "a" * 20 + "  " + "b" * 17 + "…"
