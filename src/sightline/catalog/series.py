"""Series of images: suggest groups for `--group-by` from file names, EXIF times and similarity."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sightline.catalog import looks, windows
from sightline.errors import ImageError
from sightline.files import open_regular
from sightline.records import Catalog, Progress, silent
from sightline.records.catalog_audit import GroupSuggestion
from sightline.store import Cache

_BURST_S = 3.0  # seconds between two photographs of a burst
_HEADER_BYTES = 1 << 17
_MOST_READ = 50_000  # files whose EXIF time is read
_SIMILARITY_GAIN = 0.12  # by which images of a group are more similar to each other than to others of their class
_PAIRS = 4_000

# Names such as patient_3_slice_07, video12-frame0034, scan(2): a series, which is the group, and a running number.
_PATTERNS = (
    r"^(.+?)[ _.-]*\(\d+\)",
    r"^(.+?)[ _.-]+(?:frame|slice|img|image|view|shot|part|tile|patch|f|z)?[ _.-]*\d+$",
    r"^(.+?)(?:frame|slice|view|shot|tile|patch)[ _.-]*\d+",
    r"^([^\W\d_]+[ _.-]?\d+)[ _.-]",
    r"^(\d+)[ _.-]",
)


def suggest_groups(catalog: Catalog, cache: Cache, progress: Progress = silent) -> list[GroupSuggestion]:
    """Suggest groups of images that probably show one subject: by name pattern confirmed by similarity, and by time of bursts.

    A pattern is suggested if there are at least two groups, none has more than half of the set, and their images are
    clearly more similar to each other than to other images of the same class.

    Args:
        catalog: n rows; rows that have a group already are left out.
        cache: Cache for thumbnails.
        progress: Progress callback.
    """
    columns = (catalog.column(name) for name in ("path", "label", "group", "problem", "content"))
    rows = [(p, label, c) for p, label, group, problem, c in zip(*columns, strict=True) if problem is None and not group]
    if len(rows) < 8:
        return []
    paths, labels = [r[0] for r in rows], [r[1] or "" for r in rows]
    first = {content: i for i, (_, _, content) in reversed(list(enumerate(rows)))}
    look = looks.looks([catalog.file(paths[i]) for i in first.values()], list(first), cache, progress)
    place = {content: j for j, content in enumerate(first)}
    index = np.array([place[c] for _, _, c in rows], dtype=np.int64)
    values = windows.descriptors(look.luma, windows.WINDOWS[0])[index]
    out = [s for s in (_by_name(paths, labels, values), _by_time(catalog, paths)) if s is not None]
    return out


def _by_name(paths: Sequence[str], labels: Sequence[str], values: np.ndarray) -> GroupSuggestion | None:
    """Return the suggestion of the pattern whose groups are the most similar within, None if none is clearly similar."""
    best: tuple[float, str, dict[str, list[int]]] | None = None
    stems = [p.rpartition("/")[2].rpartition(".")[0] or p.rpartition("/")[2] for p in paths]
    for pattern in _PATTERNS:
        rule = re.compile(pattern)
        groups: dict[str, list[int]] = defaultdict(list)
        for i, stem in enumerate(stems):
            if match := rule.match(stem):
                groups[match[1]].append(i)
        shared = {name: members for name, members in groups.items() if len(members) > 1}
        covered = sum(len(m) for m in shared.values())
        if len(shared) < 2 or covered < 4 or max(len(m) for m in shared.values()) > len(paths) / 2:
            continue
        gain = _gain(list(shared.values()), labels, values)
        if gain > _SIMILARITY_GAIN and (best is None or gain * np.sqrt(covered) > best[0]):
            best = (gain * float(np.sqrt(covered)), pattern, shared)
    if best is None:
        return None
    _, pattern, shared = best
    members = max(shared.values(), key=len)
    covered = sum(len(m) for m in shared.values())
    option = _for_file_names(pattern)
    sentence = (
        f"{covered:,} images look like {len(shared):,} series by their names, such as {len(members):,} like "
        f"{paths[members[0]]}: keep each in one split with --group-by '{option}'"
    )
    reason = "names with a running number, and similar pictures"
    return GroupSuggestion(option, len(shared), covered, tuple(paths[i] for i in members[:200]), reason, sentence)


def _for_file_names(pattern: str) -> str:
    """Return a pattern for file names with their extension."""
    return pattern.removesuffix("$") + r"\." if pattern.endswith("$") else pattern


def _gain(groups: Sequence[Sequence[int]], labels: Sequence[str], values: np.ndarray) -> float:
    """Return by how much images of a group resemble each other more than images of other groups of their class."""
    rng = np.random.default_rng(0)
    of = {i: g for g, members in enumerate(groups) for i in members}
    within, between = [], []
    by_label: dict[str, list[int]] = defaultdict(list)
    for i in of:
        by_label[labels[i]].append(i)
    members = list(of)
    for i in rng.choice(members, min(len(members), _PAIRS), replace=False).tolist():
        own = [j for j in groups[of[i]] if j != i]
        within.append(values[i] @ values[own[int(rng.integers(len(own)))]])
        others = by_label[labels[i]]
        j = others[int(rng.integers(len(others)))]
        if of[j] != of[i]:
            between.append(values[i] @ values[j])
    return float(np.mean(within) - np.mean(between)) if len(between) >= 5 else 0.0


def _by_time(catalog: Catalog, paths: Sequence[str]) -> GroupSuggestion | None:
    """Return the suggestion of bursts: photographs of one camera taken within seconds, None if there are few."""
    formats = dict(zip(catalog.paths, catalog.column("format"), strict=True))
    timed = sorted(
        (moment[0], moment[1], p)
        for p in paths[:_MOST_READ]
        if formats[p] == "JPEG" and (moment := exif_time(catalog.file(p))) is not None
    )
    bursts: list[list[str]] = []
    for (camera, before, one), (other, after, two) in itertools.pairwise(timed):
        if camera == other and after - before <= _BURST_S:
            if bursts and bursts[-1][-1] == one:
                bursts[-1].append(two)
            else:
                bursts.append([one, two])
    counted = Counter(len(b) for b in bursts)
    images = sum(n * k for n, k in counted.items())
    if images < max(4, 0.02 * len(paths)):
        return None
    largest = max(bursts, key=len)
    sentence = (
        f"{images:,} images form {len(bursts):,} bursts, taken within {_BURST_S:g} s of each other, such as {len(largest):,} "
        f"from {largest[0]} to {largest[-1]}: add a column with one name per burst to the catalog, and pass it as --group-by"
    )
    return GroupSuggestion("", len(bursts), images, tuple(largest[:200]), "EXIF times within seconds", sentence)


def exif_time(file: Path) -> tuple[str, float] | None:
    """Return the camera and the time of a JPEG in seconds from its EXIF data; None if there is none or it cannot be read."""
    from datetime import UTC, datetime

    from PIL import Image

    try:
        with open_regular(file) as stream:
            head = stream.read(_HEADER_BYTES)
        exif = Image.open(io.BytesIO(head)).getexif()
        detail = exif.get_ifd(0x8769)
        text = str(detail.get(0x9003) or exif.get(0x0132) or "")
        moment = datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
        fraction = str(detail.get(0x9291) or "0").strip("\0 ")
        camera = f"{exif.get(0x010F, '')} {exif.get(0x0110, '')}".strip()
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, ImageError):
        return None
    return camera, moment + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)
