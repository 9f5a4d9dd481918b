"""Blocks of run.json about the images: counts, sizes, duplicates, and how they were divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sightline.schema import json_key


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A file that could not be used, and why."""

    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class SideLengths:
    """Range of image widths or heights, in pixels."""

    min: int
    max: int
    median: float | None = None


@dataclass(frozen=True, slots=True)
class SizeHistogram:
    """Histogram of shorter sides.

    Args:
        edges_px: n + 1 edges of the bins, in pixels.
        counts: n counts of images.
    """

    edges_px: Sequence[int]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class DuplicatePaths:
    """Images that belong together.

    Args:
        kind: `exact` for identical files, `near` for one picture in several versions, `same_scene` for a fixed camera.
        paths: Paths of the images.
    """

    kind: str
    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class DuplicateSummary:
    """Duplicates and near-duplicates in a dataset.

    Args:
        exact: Sets of identical files.
        near: Sets of nearly identical images.
        same_scene: Sets of images of one scene that differ in one place.
        sets: All of these sets.
        not_looked_for: Kinds of copies that the search does not find, in words.
        largest: Paths of the largest set.
        conflicts: Sets whose images stand under more than one label.
    """

    exact: int = 0
    near: int = 0
    same_scene: int = 0
    sets: Sequence[DuplicatePaths] = ()
    not_looked_for: str = ""
    largest: Sequence[str] = ()
    conflicts: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class SampleImage:
    """An example image of the report: the picture and what the network sees of it, as files in the run's folder."""

    path: str | None = None
    label: str | None = None
    split: str | None = None
    file: str | None = None
    seen: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """Summary of a dataset.

    Args:
        images: All files.
        usable: Files that could be read and have a label.
        problems: Number of unusable files by kind of problem.
        problem_files: The first of them by path.
        notes: Notes and warnings about the dataset.
        per_class: Images by class and split.
        enlarged: Share of images that are enlarged for an input of this side, by side in pixels.
        formats: Images by file format.
        modes: Images by colour mode.
        samples: Example images.
    """

    images: int | None = None
    usable: int | None = None
    problems: Mapping[str, int] = field(default_factory=dict)
    problem_files: Sequence[FileProblem] = ()
    notes: Sequence[str] = ()
    per_class: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    width: SideLengths | None = None
    height: SideLengths | None = None
    size_histogram: SizeHistogram | None = None
    enlarged: Mapping[str, float | None] = field(default_factory=dict)
    formats: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    duplicates: DuplicateSummary | None = None
    samples: Sequence[SampleImage] = ()


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """How images were divided into train, val and test.

    Args:
        given: Whether the dataset came with a split.
        moves: Images by the split that they had and the split that they got; empty if none was given.
        val_share, test_share: Requested shares.
        seed: Random seed.
        group_by: Column whose equal values stay together.
        train, val, test: Images of each split.
        clusters: Sets of duplicates.
        straddling: Sets of duplicates on more than one side.
        proof: Result of checking all duplicates, scenes and groups against the split, such as "0 of 1,200 clusters straddle".
        leaks: Pairs of paths: a test image and its duplicate in train; the first of them.
        leaked: Test images with a duplicate in train.
    """

    given: bool | str = False
    moves: Mapping[str, Mapping[str, int]] | None = None
    val_share: float | None = field(default=None, metadata=json_key("val"))
    test_share: float | None = field(default=None, metadata=json_key("test"))
    seed: int = 0
    group_by: str | None = None
    train: int | None = None
    val: int | None = field(default=None, metadata=json_key("val_n"))
    test: int | None = field(default=None, metadata=json_key("test_n"))
    clusters: int = 0
    straddling: int = 0
    proof: str = ""
    leaks: Sequence[Sequence[str]] = ()
    leaked: int | None = None
