"""Duplicate sets with labels and splits, leaks, and the proof that no set straddles a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sightline.catalog.near_duplicates import Duplicates
from sightline.catalog.splitting import together
from sightline.records import Catalog
from sightline.records.catalog_audit import DuplicateSet, SetKind, SplitProof


def duplicate_sets(catalog: Catalog, duplicates: Duplicates) -> list[DuplicateSet]:
    """Return every set of images that belong together, by kind, the largest first.

    Args:
        catalog: n rows.
        duplicates: Result of `find_duplicates` for this catalog.
    """
    columns = (catalog.column("label"), catalog.column("split"))
    row = dict(zip(catalog.paths, zip(*columns, strict=True), strict=True))
    kinds: tuple[tuple[SetKind, list[list[str]]], ...] = (
        ("exact", duplicates.exact),
        ("near", duplicates.near),
        ("same_scene", [*duplicates.same_scene, *duplicates.crowded_scenes]),
    )
    out = []
    for kind, sets in kinds:
        for paths in sets:
            labels, splits = ([row[p][i] for p in paths] for i in (0, 1))
            conflict = kind != "same_scene" and len({v for v in labels if v is not None}) > 1
            leak = len({v for v in splits if v is not None}) > 1
            out.append(DuplicateSet(kind, tuple(paths), tuple(labels), tuple(splits), conflict, leak))
    return out


def leak_sets(catalog: Catalog, duplicates: Duplicates) -> list[list[str]]:
    """Return the sets of one picture or one scene with usable images in more than one split.

    A set of identical files within a set of one picture is not repeated. Scenes that a split does not bind are left out.
    """
    usable = catalog.rows(p is None for p in catalog.column("problem"))
    splits = dict(zip(usable.paths, usable.column("split"), strict=True))
    near = {path for paths in duplicates.near for path in paths}
    sets = [*duplicates.near, *(paths for paths in duplicates.exact if paths[0] not in near), *duplicates.same_scene]
    return [paths for paths in sets if len({splits.get(p) for p in paths} - {None}) > 1]


def split_proof(catalog: Catalog, duplicates: Duplicates) -> SplitProof:
    """Check every cluster of images that belong together, groups included, against the split.

    Args:
        catalog: n rows with splits.
        duplicates: Result of `find_duplicates` for this catalog.
    """
    number = together(catalog, duplicates)
    members: dict[int, list[int]] = defaultdict(list)
    splits, problems, paths = (catalog.column(n) for n in ("split", "problem", "path"))
    for row, cluster in enumerate(number.tolist()):
        if problems[row] is None and splits[row] is not None:
            members[cluster].append(row)
    clusters = [rows for rows in members.values() if len(rows) > 1]
    straddling = [rows for rows in clusters if len({splits[r] for r in rows}) > 1]
    verb = "straddles" if len(straddling) == 1 else "straddle"
    return SplitProof(
        clusters=len(clusters),
        straddling=len(straddling),
        examples=tuple(paths[r] for r in straddling[0]) if straddling else (),
        sentence=f"{len(straddling):,} of {len(clusters):,} clusters {verb}",
    )


def set_lines(sets: Sequence[DuplicateSet], most: int) -> list[str]:
    """Return one line per set for the console, those with a conflict or a leak first, and the number of the others."""
    order = sorted(sets, key=lambda s: not (s.conflict or s.leak))
    names = {"exact": "identical", "near": "same picture", "same_scene": "same scene"}
    lines = []
    for s in order[:most]:
        shown = ", ".join(s.paths[:4]) + (f" and {len(s.paths) - 4:,} more" if len(s.paths) > 4 else "")
        marks = [*(["different labels"] if s.conflict else []), *(["in more than one split"] if s.leak else [])]
        lines.append(f"{names[s.kind]}: {shown}" + (f" ({', '.join(marks)})" if marks else ""))
    more = len(order) - most
    return lines + (
        [f"{more:,} more sets; --json lists all of them" if more > 1 else "1 more set; --json lists it"] if more > 0 else []
    )
