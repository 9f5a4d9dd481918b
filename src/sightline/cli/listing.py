"""How the list of networks looks on a terminal: a line for each, or a paragraph where there are few."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sightline.cli import console

FEW = 3
"""So many networks are described in full."""
_NUMBERS = ("network", "params", "MACs", "px", "smallest", "features", "year")
_TEXTS = ("licence", "pretrained on", "weights")
"""The last of these goes first where a line would be too long."""
_ORDER = (*_NUMBERS, "weights", "pretrained on", "licence")
_NARROWEST = 10
_GAP = 2


def show(rows: Sequence[Mapping[str, Any]], pattern: str | None) -> None:
    """Print what `networks.table` gave, at most as wide as the terminal; in full where the output goes elsewhere."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if len(rows) > FEW:
        console.print_table(*lines(rows, width))
    described = [row for row in rows if len(rows) <= FEW or row["network"] == (pattern or "").lower()]
    for number, row in enumerate(described):
        if number or len(rows) > FEW:
            console.print_line()
        for line in paragraph(row, width or 100):
            console.print_line(line)


def lines(rows: Sequence[Mapping[str, Any]], width: int = 0) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The header and a line per network; 0 is any width."""
    cells = [_cells(row) for row in rows]
    natural = {key: max([len(key), *(len(c[key]) for c in cells)]) for key in _ORDER}
    widths = _fitted(natural, width) if width else natural
    shown = [key for key in _ORDER if key in widths]
    return tuple(_cut(key, widths[key]) for key in shown), [tuple(_cut(c[key], widths[key]) for key in shown) for c in cells]


def _fitted(natural: Mapping[str, int], width: int) -> dict[str, int]:
    """How wide each column may be: texts are cut, and then left out, until a line fits."""
    texts = list(_TEXTS)
    while True:
        left = width - sum(natural[key] + _GAP for key in _NUMBERS) - _GAP * len(texts) + _GAP
        found = {key: natural[key] for key in texts}
        while sum(found.values()) > left and any(w > _NARROWEST for w in found.values()):
            found[max(found, key=lambda key: found[key])] -= 1
        if sum(found.values()) <= left or not texts:
            return {key: natural[key] for key in _NUMBERS} | found
        texts.pop()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """A network's line."""
    return {
        "network": row["network"],
        "params": short(row["parameters"]),
        "MACs": short(row["macs"]),
        "px": _known(row["image_size"]),
        "smallest": _known(row["smallest"]),
        "features": _known(row["features"]),
        "year": _known(row["year"]),
        "weights": first(row["weights"]),
        "pretrained on": data(row["pretrained_on"]),
        "licence": _known(row["licence"]),
    }


def _known(value: object) -> str:
    """A value as text, a dash where there is none."""
    return "–" if value is None or value == "" else str(value)


def short(number: int | None) -> str:
    """A count with three digits.

    Example:
        >>> short(25_557_032), short(4_089_184_256), short(999_999), short(70_500), short(850), short(None)
        ('25.6 M', '4.09 G', '1.00 M', '70.5 k', '850', '–')
    """
    if number is None:
        return "–"
    value, unit = float(number), ""
    for larger in ("k", "M", "G", "T"):
        if float(f"{value:.3g}") < 1000:
            break
        value, unit = value / 1000, larger
    if not unit:
        return str(number)
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def first(tags: str) -> str:
    """The first of several tags, and how many more there are.

    Example:
        >>> first("a1_in1k, a2_in1k, fb_ssl"), first("ra_in1k"), first("")
        ('a1_in1k +2', 'ra_in1k', '–')
    """
    chosen, *others = tags.split(", ")
    return f"{_known(chosen)} +{len(others)}" if others else _known(chosen)


def data(pretrained_on: str) -> str:
    """What weights saw, shortened.

    Example:
        >>> data("WebImageText (400 M pairs), then ImageNet-12k, then ImageNet-1k")
        'WebImageText → IN-12k → IN-1k'
    """
    return re.sub(r" \([^)]*\)", "", _known(pretrained_on)).replace("ImageNet-", "IN-").replace(", then ", " → ")


def paragraph(row: Mapping[str, Any], width: int) -> list[str]:
    """All that is known of a network, in lines that break at the width."""
    count = {key: "–" if row[key] is None else f"{row[key]:,}" for key in ("parameters", "macs", "features", "smallest")}
    told = {
        "paper": _known(row["paper"]),
        "parameters": f"{count['parameters']} ({short(row['parameters'])})",
        "MACs": f"{count['macs']} ({short(row['macs'])}) for an image of {row['image_size']}×{row['image_size']} px",
        "smallest": f"{count['smallest']} px",
        "features": count["features"],
        "weights": _known(row["weights"]),
        "pretrained on": _known(row["pretrained_on"]),
        "licence": _known(row["licence"]),
    }
    found = [f"{row['network']} ({row['source']})"]
    for name, text in told.items():
        begin = f"  {name:<15}"
        wrapped = textwrap.wrap(
            text, max(width, 40), initial_indent=begin, subsequent_indent=" " * len(begin), break_on_hyphens=False
        )
        found += wrapped
    return found
