"""Output of `explain`: the verdict that most images share once, and each image that differs."""

from __future__ import annotations

from typing import Any

from sightline.cli.explain import _verdicts


def row(path: str, verdict: str | None, why: str = "all 5 checks pass") -> dict[str, Any]:
    return {"path": path, "check": None if verdict is None else {"verdict": verdict, "why": why}}


def test_the_shared_verdict_is_printed_once_and_exceptions_by_name() -> None:
    rows = [row(f"{i}.jpg", "passes") for i in range(6)] + [row("odd.jpg", "weak", "here hot cells do little")]
    assert _verdicts(rows) == ["passes: all 5 checks pass (6 of 7 images)", "odd.jpg: weak: here hot cells do little"]
    assert _verdicts(rows[:1]) == ["passes: all 5 checks pass"]
    assert _verdicts([row("a.jpg", "weak", "x"), row("b.jpg", "weak", "y")]) == ["a.jpg: weak: x", "b.jpg: weak: y"]
    assert _verdicts([row("a.jpg", None)]) == []
