"""Short descriptions of records for a Python prompt and for notebooks."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


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


def picture(values: np.ndarray, side_px: int = 160) -> str:
    """Return an array (h, w) as an inline PNG in grey, from its lowest value in black to its highest in white."""
    import numpy as np
    from PIL import Image

    low, high = float(values.min()), float(values.max())
    grey = np.rint((values - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)
    scale = max(1, side_px // max(grey.shape))
    data = io.BytesIO()
    Image.fromarray(grey.repeat(scale, axis=0).repeat(scale, axis=1)).save(data, "PNG")
    return f"<img alt='heatmap' src='data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}'>"


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
