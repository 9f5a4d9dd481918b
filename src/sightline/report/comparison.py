"""Comparison report: accuracies, paired significance tests and disagreements of several classifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline import __version__
from sightline.records import ComparisonRecord
from sightline.records.comparison import ComparedPair
from sightline.report import disagreements, svg
from sightline.report.format import clean, count, date, percent, percent_range, short
from sightline.report.headline import openings
from sightline.report.images import Album
from sightline.report.page import inlined, templates
from sightline.store import write_text

MOST_PAIRS = 200
LONGEST_LABEL = 18
"""Longest name, in characters, that is shown in full in tables."""


def write_comparison(data: ComparisonRecord, out: Path) -> Path:
    """Write one self-contained HTML file about a comparison.

    Args:
        data: The content of `comparison.json`.
        out: The HTML file, in the folder of the thumbnails; an existing file is replaced only when the new one is complete.

    Returns:
        `out`.
    """
    album, names, labels = Album(), [short(n, 40) for n in data.names], _labels(data.names)
    start = svg.floor_of([s.accuracy_low for s in data.scores])
    first = [r.file for r in data.disagreements[: disagreements.MOST_CARDS]]
    pictures = album.read(Path(out).parent, first, disagreements.SIDE_PX)
    pairs = [_pair(p, data, labels) for p in data.pairs[:MOST_PAIRS]]
    page = (
        templates()
        .get_template("compare.html.j2")
        .render(
            **inlined(),
            version=__version__,
            title=" vs. ".join(names) if len(names) <= 3 else f"{len(names)} classifiers",
            date=date(data.created),
            words=_words(data),
            alarms=[a for a in (openings(data),) if a is not None],
            clusters=None if data.clusters is None else count(data.clusters),
            ruler=svg.ruler(start),
            scores=_scores(data, start, labels),
            pairs=pairs,
            with_needed=any(p["needed"] for p in pairs),
            patterns=_patterns(data),
            found=disagreements.view(data.disagreements, pictures, labels, "disagreements.csv"),
            names=names,
            images=f"{count(data.n)} {clean(data.images)}",
        )
    )
    write_text(Path(out), page)
    return Path(out)


def _words(data: ComparisonRecord) -> list[str]:
    """Return the verdicts as sentences, significant differences first, then the notes."""
    ranked = sorted(data.pairs, key=lambda p: (not p.significant, -abs(p.difference)))
    lines = [_sentence(p.verdict) for p in ranked[:6]]
    if len(ranked) > 6:
        lines.append(f"The table below lists {count(len(ranked) - 6)} more pairs.")
    return [*lines, *(_sentence(n) for n in data.notes)]


def _sentence(text: str) -> str:
    line = clean(text)
    return f"{line if line[:1].isupper() or ' is better than ' in line else line[:1].upper() + line[1:]}."


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return the label of each classifier in tables: its name, or A, B, … if names are long."""
    letters = len(names) <= 26 and max(map(len, names)) > LONGEST_LABEL
    return {name: chr(ord("A") + i) if letters else name for i, name in enumerate(names)}


def _scores(data: ComparisonRecord, start: float, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the table of accuracies, the best first."""
    top = max(s.accuracy for s in data.scores)
    given = dict(zip(data.names, data.runs, strict=True))
    return [
        {
            "name": short(s.name if labels[s.name] == s.name else f"{labels[s.name]}: {s.name}", 60),
            "given": short(given[s.name], 90) if given[s.name] != s.name else "",
            "best": s.accuracy == top,
            "strip": svg.whisker(s.accuracy, s.accuracy_low, s.accuracy_high, start, "on" if s.accuracy == top else ""),
            "accuracy": percent(s.accuracy),
            "interval": percent_range(s.accuracy_low, s.accuracy_high),
            "wrong": count(s.wrong),
        }
        for s in sorted(data.scores, key=lambda s: -s.accuracy)
    ]


def _pair(p: ComparedPair, data: ComparisonRecord, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a row of the table of pairs: better minus worse, in percentage points."""
    if p.difference < 0:
        turned = dataclasses.replace(p, difference=-p.difference, low=-p.high, high=-p.low)
        p = dataclasses.replace(turned, a=p.b, b=p.a, only_a=p.only_b, only_b=p.only_a)
    name = {run: labels[n] for run, n in zip(data.runs, data.names, strict=True)}
    better = short(name[p.a], 24)
    needed = p.images_needed
    return {
        "a": short(name[p.a], 30),
        "b": short(name[p.b], 30),
        "difference": _points(p.difference),
        "interval": f"[{_points(p.low)}, {_points(p.high)}]",
        "only": f"{count(p.only_a)} / {count(p.only_b)}",
        "p": _p(p.p),
        "corrected": _p(p.p_corrected),
        "needed": "" if needed is None else f"{needed:.2g}" if needed > 1_000_000 else count(rounded(needed)),
        "verdict": f"{better} better" if p.significant else "not significant",
    }


def rounded(n: int) -> int:
    """Round a number of images up to two significant digits."""
    step = int(10 ** max(0, len(str(n)) - 2))
    return -(-n // step) * step


def _points(share: float) -> str:
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.995 else "1"


def _patterns(data: ComparisonRecord) -> list[tuple[str, str]]:
    """Return how many images all, some and none of the classifiers predicted correctly."""
    found, two = data.patterns, len(data.names) == 2
    facts = [("Both correct" if two else "All correct", found.all)]
    if two:
        pair = data.pairs[0]
        facts += [(f"Only {short(n, 30)} correct", k) for n, k in zip(data.names, (pair.only_a, pair.only_b), strict=True)]
    else:
        facts.append(("Some correct", found.some))
    facts.append(("Both wrong" if two else "All wrong", found.none))
    return [(clean(k), f"{count(v)} ({percent(v / data.n)})") for k, v in facts]
