"""Text output for people: tables, scores with intervals, and the list of networks."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sightline.cli import console

if TYPE_CHECKING:
    from rich.console import Console

    from sightline.commands.study import Study
    from sightline.records import Uncertainty

MOST_DESCRIBED = 3
"""Lists of networks up to this length are printed as full descriptions."""

Rows = Sequence[Mapping[str, Any]]
Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    width: int = 0,
    shrink: Sequence[str] = (),
) -> None:
    """Print aligned columns on standard output.

    Args:
        header: The column titles.
        rows: The cells.
        right: Columns aligned to the right, besides those that hold only numbers.
        width: The maximal line width in characters; 0 for no limit.
        shrink: Columns whose cells are cut to reach that width.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=None, pad_edge=False, show_edge=False)
    for number, name in enumerate(header):
        to_right = name in right or (bool(rows) and all(_is_number(row[number]) for row in rows))
        title = Text(console.visible(name), no_wrap=True, overflow="ellipsis")
        table.add_column(title, justify="right" if to_right else "left", no_wrap=name not in shrink)
    for row in rows:
        table.add_row(*(Text(console.visible(cell), no_wrap=True, overflow="ellipsis") for cell in row))
    output = _plain_console(width or 1_000_000)
    with output.capture() as text:
        output.print(table)
    for line in text.get().splitlines():
        console.print_line(line.rstrip())


def _plain_console(width: int) -> Console:
    """Return a rich console of a fixed width without colours."""
    from rich.console import Console

    return Console(width=width, color_system=None, legacy_windows=False, force_terminal=False)


def _is_number(cell: object) -> bool:
    """Return whether a cell is a number, a formatted number, or a missing one."""
    text = str(cell).replace(",", "").rstrip("%").split(" ")[0]
    return isinstance(cell, int | float) or text in ("", "–") or text.replace(".", "", 1).isdigit()


# ---------------------------------------------------------------------------------------------------------------- scores


def interval(scores: Mapping[str, Any] | None) -> str:
    """Return an accuracy with its 95 % interval and the number of images."""
    if not scores or scores.get("accuracy") is None:
        return "–"
    images = f" on {scores['n']:,} images" if scores.get("n") is not None else ""
    return _number(scores, "accuracy") + images


def metric_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for every metric but the accuracy: its value and interval, or why it is undefined."""
    from sightline import evaluation

    if scores.get("positive") is not None:
        yield f"{'positive class':<20}{scores['positive']}"
    for name in (name for name in evaluation.METRICS if name != evaluation.PRIMARY_METRIC):
        why = (scores.get("reasons") or {}).get(name)
        yield f"{name:<20}{_number(scores, name)}{f'  ({why})' if why else ''}"


def _number(scores: Mapping[str, Any], name: str) -> str:
    """Return a score with its interval, such as `0.950 [0.912, 0.975]`; a dash if it is undefined."""
    value, low, high = (scores.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    around = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return "–" if value is None else f"{value:.3f}{around}"


# ------------------------------------------------------------------------------------------------- predictions, mistakes


def predictions_table(rows: Rows, with_sets: bool) -> Table:
    """Return the table of `predict`; the column of remarks is present only if there are any."""
    remarked = any(_remark(row) for row in rows)
    header = ("path", "label", "probability", *(["set"] if with_sets else []), *(["remark"] if remarked else []))
    cells = []
    for row in rows:
        more = [", ".join(row.get("set") or []) or "none"] if with_sets else []
        more += [_remark(row)] if remarked else []
        cells.append((row["path"], row["label"], f"{row['probability']:.3f}", *more))
    return header, cells


def _remark(row: Mapping[str, Any]) -> str:
    """Return the remarks on a prediction: unsure, out-of-distribution."""
    remarks = ["unsure"] if row.get("unsure") else []
    if _is_ood(row):
        remarks.append(f"unlike the training images ({row['ood_score']:.2f}, threshold {row['ood_threshold']:.2f})")
    return ", ".join(remarks)


def _is_ood(row: Mapping[str, Any]) -> bool:
    return row.get("ood_threshold") is not None and row["ood_score"] > row["ood_threshold"]


def predictions_legend(rows: Rows, uncertainty: Uncertainty) -> Iterator[str]:
    """Yield an explanation of each kind of remark in the table."""
    unsure, ood = sum(bool(row.get("unsure")) for row in rows), sum(_is_ood(row) for row in rows)
    if unsure or ood:
        yield ""
    if unsure:
        yield f"unsure ({unsure:,} of {len(rows):,}): the true class may be another one"
    if ood:
        rate = uncertainty.ood_rate
        than = "" if rate is None else f", farther from them than {1 - rate:.0%} of held-out images"
        yield f"unlike the training images ({ood:,} of {len(rows):,}){than}: do not rely on these predictions"


def mistakes_table(rows: Rows, by: str) -> Table:
    """Return the table of `mistakes --by`: a row per image, per pair of classes, or per slice."""
    if by == "confidence":
        header = ("path", "label", "predicted", "probability")
        return header, [(r["path"], r["label"], r["predicted"], f"{r['probability']:.3f}") for r in rows]
    if by == "pair":
        shares = ("–" if r["share"] is None else f"{r['share']:.1%}" for r in rows)
        return ("label", "predicted", "n", "of label"), [
            (r["label"], r["predicted"], r["n"], share) for r, share in zip(rows, shares, strict=True)
        ]
    return ("slice", "n", "wrong", "accuracy", "others", "p corrected", ""), [
        (
            r["slice"],
            r["n"],
            r["wrong"],
            f"{r['accuracy']:.3f}",
            f"{r['rest_accuracy']:.3f}",
            f"{r['p_corrected']:.2g}",
            "worse" if r["worse"] else "",
        )
        for r in rows
    ]


def no_mistakes(by: str) -> str:
    """Return the message for an empty result of `mistakes --by`."""
    if by in ("confidence", "pair"):
        return "no misclassified images"
    from sightline.evaluation.slices import LEAST

    return f"no slices: a slice needs at least {LEAST} images inside and {LEAST} outside"


# -------------------------------------------------------------------------------------------------------------- networks

_NUMBERS = ("network", "params", "MACs", "px", "smallest", "features", "year")
_TEXTS = ("weights", "pretrained on", "licence")
_TEXT_WIDTH = 12
"""Columns of text with less room than this are left out, the first one first."""


def print_networks(rows: Rows, pattern: str | None) -> None:
    """Print networks as a table no wider than the terminal, and as descriptions if there are at most `MOST_DESCRIBED`."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if len(rows) > MOST_DESCRIBED:
        cells = [_network_cells(row) for row in rows]
        numbers_width = sum(2 + max(len(key), *(len(c[key]) for c in cells)) for key in _NUMBERS) - 2
        room = (width - numbers_width) // (2 + _TEXT_WIDTH) if width else len(_TEXTS)
        texts = _TEXTS[max(0, len(_TEXTS) - max(0, room)) :]
        columns = (*_NUMBERS, *texts)
        table = [[c[key] for key in columns] for c in cells]
        print_table(columns, table, width=width and max(width, numbers_width), shrink=texts)
    described = [row for row in rows if len(rows) <= MOST_DESCRIBED or row["network"] == (pattern or "").lower()]
    for number, row in enumerate(described):
        if number or len(rows) > MOST_DESCRIBED:
            console.print_line()
        for line in _network_description(row, width or 100):
            console.print_line(line)


def _network_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a network by column."""
    return {
        "network": row["network"],
        "params": short_count(row["parameters"]),
        "MACs": short_count(row["macs"]),
        "px": _known(row["image_size"]),
        "smallest": _known(row["smallest"]),
        "features": _known(row["features"]),
        "year": _known(row["year"]),
        "weights": first_tag(row["weights"]) + ("" if row["weights_at"] is None else f" ({row['weights_at']})"),
        "pretrained on": short_data(row["pretrained_on"]),
        "licence": _known(row["licence"]),
    }


def _known(value: object) -> str:
    """Return a value as text, or a dash if it is missing."""
    return "–" if value is None or value == "" else str(value)


def short_count(number: int | None) -> str:
    """Return a count with three significant digits.

    Example:
        >>> short_count(25_557_032), short_count(4_089_184_256), short_count(999_999), short_count(850), short_count(None)
        ('25.6 M', '4.09 G', '1.00 M', '850', '–')
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


def first_tag(tags: str) -> str:
    """Return the first of several weight tags and the number of the others.

    Example:
        >>> first_tag("a1_in1k, a2_in1k, fb_ssl"), first_tag("ra_in1k"), first_tag("")
        ('a1_in1k +2', 'ra_in1k', '–')
    """
    first, *others = tags.split(", ")
    return f"{_known(first)} +{len(others)}" if others else _known(first)


def short_data(pretrained_on: str) -> str:
    """Return the abbreviated names of the data sets of pretrained weights.

    Example:
        >>> short_data("WebImageText (400 M pairs), then ImageNet-12k, then ImageNet-1k")
        'WebImageText → IN-12k → IN-1k'
    """
    return re.sub(r" \([^)]*\)", "", _known(pretrained_on)).replace("ImageNet-", "IN-").replace(", then ", " → ")


_WEIGHTS_AT = {
    "folder": "in a folder of SIGHTLINE_WEIGHTS",
    "installed": "installed with Sightline",
    "downloaded": "downloaded earlier",
    None: "to be downloaded on first use",
}
"""Value of `weights_at` → its description."""


def _network_description(row: Mapping[str, Any], width: int) -> list[str]:
    """Return all known facts of a network, wrapped at the width."""
    count = {key: "–" if row[key] is None else f"{row[key]:,}" for key in ("parameters", "macs", "features", "smallest")}
    facts = {
        "paper": _known(row["paper"]),
        "parameters": f"{count['parameters']} ({short_count(row['parameters'])})",
        "MACs": f"{count['macs']} ({short_count(row['macs'])}) for an image of {row['image_size']}×{row['image_size']} px",
        "smallest": f"{count['smallest']} px",
        "features": count["features"],
        "weights": _known(row["weights"]),
        "available": _WEIGHTS_AT[row["weights_at"]] if row["weights"] or row["weights_at"] else "–",
        "pretrained on": _known(row["pretrained_on"]),
        "licence": _known(row["licence"]),
    }
    lines = [f"{row['network']} ({row['source']})"]
    for name, text in facts.items():
        begin = f"  {name:<15}"
        lines += textwrap.wrap(
            text, max(width, 40), initial_indent=begin, subsequent_indent=" " * len(begin), break_on_hyphens=False
        )
    return lines


# --------------------------------------------------------------------------------------------------------------- studies


def print_conclusions(study: Study) -> None:
    """Print the conclusions of a sweep or a search, and the paths of its results."""
    console.print_line()
    for line in study.data["words"]:
        console.print_line(line)
    console.print_line(f"best recipe  {study.best_recipe}")
    console.print_line(f"report       {study.folder / 'report.html'}")
