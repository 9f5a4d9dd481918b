"""How answers and mistakes look on a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline.records import Uncertainty

MOST_NAMED = 3
"""Images that were left out are named on the terminal up to here."""

Rows = Sequence[Mapping[str, Any]]
Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def table(rows: Rows, with_sets: bool) -> Table:
    """What `predict` says of each image; a column of remarks where there are any."""
    remarked = any(_remark(row) for row in rows)
    header = ("path", "label", "probability", *(["set"] if with_sets else []), *(["remark"] if remarked else []))
    cells = []
    for row in rows:
        more = [", ".join(row.get("set") or []) or "none"] if with_sets else []
        more += [_remark(row)] if remarked else []
        cells.append((row["path"], row["label"], f"{row['probability']:.3f}", *more))
    return header, cells


def _remark(row: Mapping[str, Any]) -> str:
    """What to know of an answer before it is believed."""
    found = ["unsure"] if row.get("unsure") else []
    if _is_unlike(row):
        found.append(f"unlike training ({row['unlike']:.2f}, bar {row['unlike_bar']:.2f})")
    return ", ".join(found)


def _is_unlike(row: Mapping[str, Any]) -> bool:
    return row.get("unlike") is not None and row.get("unlike_bar") is not None and row["unlike"] > row["unlike_bar"]


def legend(rows: Rows, limits: Uncertainty) -> Iterator[str]:
    """What the remarks mean, a sentence for each kind that is there."""
    unsure, odd = sum(bool(row.get("unsure")) for row in rows), sum(_is_unlike(row) for row in rows)
    if unsure or odd:
        yield ""
    if unsure:
        meaning = "another class may well be right, or none is as likely as the right one usually is"
        yield f"unsure ({unsure:,} of {len(rows):,}): {meaning}"
    if odd:
        rate = "" if limits.unlike_rate is None else f" than {1 - limits.unlike_rate:.0%} of images like those of the training"
        yield f"unlike training ({odd:,} of {len(rows):,}): farther from every training image{rate}; the answer means little"


def mistakes(rows: Rows, by: str) -> Table:
    """What `mistakes --by` found: a line per image, per pair of classes, or per slice."""
    if by == "confidence":
        return _CONFIDENCE, [(r["path"], r["label"], r["predicted"], f"{r['probability']:.3f}") for r in rows]
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


def nothing(by: str) -> str:
    """What to say where `mistakes --by` found nothing."""
    if by in ("confidence", "pair"):
        return "nothing is answered wrongly"
    from sightline.evaluation.slices import LEAST

    return f"no slice could be formed: it needs {LEAST} answered images inside, and as many outside"


def lost(data: Mapping[str, Any]) -> str | None:
    """How many images a run had to do without, and the first of them; None where it had all."""
    rows = [row for split in (data.get("undecodable") or {}).values() for row in split]
    if not rows:
        return None
    told = (row["problem"] if row["path"] in row["problem"] else f"{row['path']}: {row['problem']}" for row in rows)
    named = "; ".join(itertools.islice(told, MOST_NAMED))
    more = "; ..." if len(rows) > MOST_NAMED else ""
    count = "1 image was" if len(rows) == 1 else f"{len(rows):,} images were"
    return f"{count} left out, as no pixels could be had ({named}{more}); report.html names all"


_CONFIDENCE = ("path", "label", "predicted", "probability")
