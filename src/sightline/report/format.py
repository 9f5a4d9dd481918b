"""Numbers and names as people read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

NBSP = "\u00a0"


def at(data: Mapping[str, Any] | None, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested objects, or `default` where a part is absent or null.

    Example:
        >>> at({"split": {"train": 3}}, "split.train"), at({"split": None}, "split.train", 0)
        (3, 0)
    """
    value: Any = data
    for key in path.split("."):
        if not isinstance(value, Mapping) or value.get(key) is None:
            return default
        value = value[key]
    return value


def percent(share: float | None, decimals: int = 1) -> str:
    """A share as a percentage; what is not all is never rounded to 100, what is not nothing never to 0.

    Example:
        >>> percent(0.9857).replace(chr(160), " "), percent(0.99996).replace(chr(160), " "), percent(1.0).replace(chr(160), " ")
        ('98.6 %', '99.996 %', '100 %')
    """
    if share is None:
        return "n/a"
    return f"{_digits(share, decimals)}{NBSP}%"


def percent_range(low: float | None, high: float | None, decimals: int = 1) -> str:
    """Two shares as one range of percentages, such as 97.1–99.3 %."""
    if low is None or high is None:
        return "n/a"
    return f"{_digits(low, decimals)}–{_digits(high, decimals)}{NBSP}%"


def sure(probability: float | None) -> str:
    """A certainty as a percentage; above 99.9 % the digits say nothing more.

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
    """A whole number with its thousands apart.

    Example:
        >>> count(1600)
        '1,600'
    """
    return "n/a" if n is None else f"{n:,}"


def images(n: int | None, kind: str = "") -> str:
    """A number of images, in the singular where it is one.

    Example:
        >>> images(1, "test"), images(2)
        ('1 test image', '2 images')
    """
    what = f"{kind} image" if kind else "image"
    return f"{what}s" if n is None else f"{n:,} {what}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """A time as people say it.

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
    """A number with a fixed number of places, or n/a."""
    return "n/a" if value is None else f"{value:.{places}f}"


def decimal_range(low: float | None, high: float | None) -> str:
    """Two numbers as one range, such as 0.959–0.985; with a word between them where a minus sign might be read as the dash.

    Example:
        >>> decimal_range(0.9591, 0.985), decimal_range(-0.153, 0.153)
        ('0.959–0.985', '-0.153 to 0.153')
    """
    if low is None or high is None:
        return "n/a"
    return f"{decimal(low)}{' to ' if low < 0 else '–'}{decimal(high)}"


def clean(text: Any) -> str:
    """A name that may hold anything as one line: line ends, control and direction characters are written out."""
    text = "" if text is None else str(text)
    return "".join(c if _printable(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def _printable(c: str) -> bool:
    return c == "\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def short(text: Any, limit: int = 60) -> str:
    """A name that is cut in its middle where it is longer than `limit`.

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
    """Names in a row, the first few of many.

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
    """An ISO time as a day and a minute: 20 November 2025, 21:07.

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
