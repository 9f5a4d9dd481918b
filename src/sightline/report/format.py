"""Formatting of numbers, intervals, times and names for the report."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

NBSP = "\u00a0"


def percent(share: float | None, decimals: int = 1) -> str:
    """Return a fraction (0–1) as a percentage; only 1 gives 100 % and only 0 gives 0 %, whatever the rounding.

    Example:
        >>> percent(0.9857).replace(chr(160), " "), percent(0.99996).replace(chr(160), " "), percent(1.0).replace(chr(160), " ")
        ('98.6 %', '99.996 %', '100 %')
    """
    if share is None:
        return "n/a"
    return f"{_digits(share, decimals)}{NBSP}%"


def percent_range(low: float | None, high: float | None, decimals: int = 1) -> str:
    """Return two fractions (0–1) as an interval in percent, both ends with the same number of decimals.

    Example:
        >>> percent_range(0, 0.071).replace(chr(160), " "), percent_range(0.984, 0.9995).replace(chr(160), " ")
        ('[0.0, 7.1] %', '[98.40, 99.95] %')
    """
    if low is None or high is None:
        return "n/a"
    places = max(len(_digits(v, decimals).partition(".")[2]) for v in (low, high))
    return f"[{100 * low:.{places}f},{NBSP}{100 * high:.{places}f}]{NBSP}%"


def sure(probability: float | None) -> str:
    """Return a confidence (0–1) as a percentage, cut off at 99.9 %.

    Example:
        >>> sure(0.9996).replace(chr(160), " "), sure(0.874).replace(chr(160), " ")
        ('> 99.9 %', '87.4 %')
    """
    if probability is not None and probability > 0.999:
        return f">{NBSP}99.9{NBSP}%"
    return percent(probability)


def _digits(share: float, decimals: int) -> str:
    if share in (0, 1):
        return str(int(100 * share))
    for places in range(decimals, 8):
        text = f"{100 * share:.{places}f}"
        if 0 < float(text) < 100:
            return text
    return f"{100 * share:g}"


def count(n: int | None) -> str:
    """Return a whole number with thousands separators.

    Example:
        >>> count(1600)
        '1,600'
    """
    return "n/a" if n is None else f"{n:,}"


def images(n: int | None, kind: str = "") -> str:
    """Return a number of images with its noun in the singular or plural.

    Example:
        >>> images(1, "test"), images(2)
        ('1 test image', '2 images')
    """
    what = f"{kind} image" if kind else "image"
    return f"{what}s" if n is None else f"{n:,} {what}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return a time in seconds, minutes or hours.

    Example:
        >>> [duration(s).replace(chr(160), " ") for s in (0.04, 3.21, 75, 4000)]
        ['0.04 s', '3.2 s', '1 min 15 s', '1 h 6 min']
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.2f}{NBSP}s" if seconds < 0.1 else f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60}{NBSP}min"


def decimal(value: float | None, places: int = 3) -> str:
    """Return a number with a fixed number of decimals, or `n/a`."""
    return "n/a" if value is None else f"{value:.{places}f}"


def decimal_range(low: float | None, high: float | None) -> str:
    """Return two numbers as an interval.

    Example:
        >>> decimal_range(0.9591, 0.985).replace(chr(160), " ")
        '[0.959, 0.985]'
    """
    if low is None or high is None:
        return "n/a"
    return f"[{decimal(low)},{NBSP}{decimal(high)}]"


def clean(text: Any) -> str:
    """Return any text as one line: line ends, control and direction characters become escape sequences."""
    text = "" if text is None else str(text)
    return "".join(c if _printable(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def _printable(c: str) -> bool:
    return c == "\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def short(text: Any, limit: int = 60) -> str:
    """Return a text on one line, with its middle cut out if it is longer than `limit` characters.

    Example:
        >>> short("a" * 50 + ".jpg", 20)
        'aaaaaaaaaa…aaaaa.jpg'
    """
    line = clean(text)
    if len(line) <= limit:
        return line
    tail = (limit - 1) // 2
    return f"{line[: limit - 1 - tail]}…{line[-tail:]}"


def listing(names: Sequence[Any], limit: int = 5) -> str:
    """Return the first `limit` names as a list in words, and the number of the others.

    Example:
        >>> listing(["a", "b"]), listing(list("abcdefg"), 2)
        ('a and b', 'a, b and 5 more')
    """
    shown = [short(n, 40) for n in names[:limit]]
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {count(rest)} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def date(iso: str | None) -> str:
    """Return an ISO 8601 time as day and minute, or an empty text if it is not valid.

    Example:
        >>> date("2025-11-20T21:07:00+01:00")
        '20 November 2025, 21:07'
    """
    import datetime

    try:
        when = datetime.datetime.fromisoformat(str(iso))
    except ValueError:
        return ""
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M}"


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
