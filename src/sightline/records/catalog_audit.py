"""Findings on a catalog: duplicate sets, proof of a split, suspicious images, suggested groups, changes and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SetKind = Literal["exact", "near", "same_scene"]
SET_TITLES: dict[str, str] = {"exact": "identical files", "near": "same picture", "same_scene": "same scene"}


@dataclass(frozen=True, slots=True)
class DuplicateSet:
    """Images that belong together.

    Args:
        kind: `exact` for identical files, `near` for one picture in several versions, `same_scene` for a fixed camera.
        paths: Paths of two or more images.
        labels: Their labels, None if unknown.
        splits: Their splits, None if not assigned.
        conflict: Whether one picture has different labels; never for `same_scene`.
        leak: Whether images of the set are in more than one split.
    """

    kind: SetKind
    paths: Sequence[str]
    labels: Sequence[str | None]
    splits: Sequence[str | None]
    conflict: bool = False
    leak: bool = False


@dataclass(frozen=True, slots=True)
class SplitProof:
    """Result of checking that images that belong together are in one split.

    Args:
        clusters: Number of clusters of two or more images: duplicates, scenes, and groups if the split was by group.
        straddling: Number of clusters with images in more than one split.
        examples: Paths of the first straddling cluster.
        sentence: The result in words, such as "0 of 1,200 clusters straddle".
    """

    clusters: int = 0
    straddling: int = 0
    examples: Sequence[str] = ()
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """An image with an unusual property.

    Args:
        path: Path of the image.
        kind: `blurred`, `dark`, `bright`, `low_information`, `odd_size`, `odd_aspect`, `grey` or `border`.
        value: The measured value.
        detail: The finding in words.
    """

    path: str
    kind: str
    value: float
    detail: str


@dataclass(frozen=True, slots=True)
class GroupSuggestion:
    """Groups of images that probably belong together, such as bursts, slides, patients or videos.

    Args:
        pattern: Regular expression for `--group-by`; "" if no pattern describes the groups.
        groups: Number of groups with two or more images.
        images: Number of images in them.
        largest: Paths of the largest group.
        reason: Why they probably belong together.
        sentence: The suggestion in words.
    """

    pattern: str
    groups: int
    images: int
    largest: Sequence[str]
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one row of a catalog.

    Args:
        path: Path of the image.
        action: `quarantine`, `dedupe` or `relabel`.
        before, after: Value that was replaced, and its replacement; None for an empty cell.
        reason: Why.
    """

    path: str
    action: str
    before: str | None
    after: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class CatalogDiff:
    """Differences between two catalogs. Images are matched by path, moved files by content.

    Args:
        added, removed: Paths that are in the second or the first catalog only.
        moved: (path before, path after) of files with equal content.
        content: Paths whose bytes changed.
        label, split, group, problem: Path → (value before, value after).
    """

    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    moved: Sequence[tuple[str, str]] = ()
    content: Sequence[str] = ()
    label: Mapping[str, tuple[str | None, str | None]] | None = None
    split: Mapping[str, tuple[str | None, str | None]] | None = None
    group: Mapping[str, tuple[str | None, str | None]] | None = None
    problem: Mapping[str, tuple[str | None, str | None]] | None = None

    @property
    def same(self) -> bool:
        """Return whether the catalogs do not differ."""
        return not any((self.added, self.removed, self.moved, self.content, self.label, self.split, self.group, self.problem))
