"""`sightline` without arguments: five lines and an offer in a terminal, the help elsewhere."""

from __future__ import annotations

import sys

import pytest

from sightline.cli import welcome


def start(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sightline"])
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)


def test_five_lines_say_what_to_do_next(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    start(monkeypatch, "")
    assert len(welcome.LINES) == 5 and welcome.is_wanted()
    with pytest.raises(SystemExit) as ended:
        welcome.welcome()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"sightline {name}" in printed for name in ("run", "demo", "open", "--help"))
    assert all(len(line) <= 100 for line in welcome.LINES)


def test_a_yes_opens_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, " Yes ")
    welcome.welcome()
    assert sys.argv == ["sightline", "open"] and not welcome.is_wanted()


def test_a_program_that_calls_it_gets_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sightline"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert not welcome.is_wanted()
