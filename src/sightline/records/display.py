"""Short descriptions of records for a Python prompt and for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping


def line(title: str, facts: Mapping[str, object]) -> str:
    """Return `Title(key value, key value)`; facts that are None are left out.

    Example:
        >>> line("Predictions", {"images": 80, "classes": 2, "accuracy": None})
        'Predictions(images 80, classes 2)'
    """
    return f"{title}({', '.join(f'{key} {text}' for key, text in _texts(facts).items())})"


def table(title: str, facts: Mapping[str, object]) -> str:
    """Return a small HTML table with a row per fact, every text escaped; facts that are None are left out."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(key)}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
        for key, text in _texts(facts).items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def _texts(facts: Mapping[str, object]) -> dict[str, str]:
    """Return the facts that are not None as text, with thousands separators in whole numbers."""
    return {key: f"{fact:,}" if isinstance(fact, int) else str(fact) for key, fact in facts.items() if fact is not None}


def accuracy(scores: Mapping[str, object] | None) -> str | None:
    """Return an accuracy with its 95 % interval and the number of images; None if there is none.

    Example:
        >>> accuracy({"n": 80, "accuracy": 0.95, "accuracy_low": 0.88, "accuracy_high": 0.98})
        '0.950 [0.880, 0.980] on 80 images'
    """
    if not scores or not isinstance(scores.get("accuracy"), float):
        return None
    low, high = scores.get("accuracy_low"), scores.get("accuracy_high")
    around = f" [{low:.3f}, {high:.3f}]" if isinstance(low, float) and isinstance(high, float) else ""
    return f"{scores['accuracy']:.3f}{around} on {scores.get('n', 0):,} images"
