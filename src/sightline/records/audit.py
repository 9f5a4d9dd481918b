"""Record of an audit: the typed content of `audit.json` and of the block `audit` of run.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.records.candidates import ShortcutCheck
from sightline.records.data_summary import FileProblem
from sightline.records.versions import VERSION, check_version
from sightline.schema import fields_to_json, from_json


@dataclass(frozen=True, slots=True)
class LabelSuspect:
    """An image whose label may be wrong.

    Args:
        suggested: The class that similar images have.
        score: Estimate of the suggested class minus that of the label; the higher, the more suspect.
        likely: Whether it is named to the user as a likely error.
        split: Its split.
        thumbnail: A small picture in the folder.
    """

    path: str
    label: str
    suggested: str
    score: float
    likely: bool = False
    split: str | None = None
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class Outlier:
    """An image unlike all others; `score` is the mean cosine distance of its features to the five nearest images."""

    path: str
    score: float
    label: str | None = None
    thumbnail: str | None = None


@dataclass(frozen=True, slots=True)
class KnownClass:
    """A class that the pretrained network knows: the names of its own classes that stand for it, and their ROC AUC."""

    label: str
    known_as: str | None = None
    auc: float | None = None


@dataclass(frozen=True, slots=True)
class PretrainingOverlap:
    """Overlap of the user's classes with those of the network's pretraining.

    Args:
        classes: One for each class.
        zero_training_accuracy: Accuracy of the network's own classes, mapped on training images, on held-out images.
        network: Name of the network.
        images: Held-out images.
        sentence: The result in plain words.
    """

    classes: Sequence[KnownClass] = ()
    zero_training_accuracy: float | None = None
    network: str | None = None
    images: int | None = None
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class SharedImage:
    """An image that another set shares with this one: identical files, or nearly the same picture."""

    path: str
    other: str
    kind: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Images that probably belong together, and the option that keeps them together."""

    sentence: str
    pattern: str = ""
    images: int = 0


@dataclass(frozen=True, slots=True)
class DuplicatePicture:
    """Thumbnails of a set of duplicates: `kind` in words, the paths, and files in the folder."""

    kind: str
    paths: Sequence[str]
    thumbnails: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Findings of an audit.

    Args:
        images: Images of the catalog.
        exact_duplicates, near_duplicates, same_scene: Sets of paths.
        leaks: Sets with images in more than one split.
        conflicts: Sets with more than one label.
        label_suspects: Images by how suspect their label is, the most suspect first; run.json lists the first ones only.
        outliers: Images unlike all others, the farthest first.
        problems: Unusable and odd images.
        shortcut: Classes that file properties give away.
        pretraining: Classes that the network already knows.
        groups: Images that probably belong together.
        shared: Images that another set shares with this one.
        network: Network of the features; None without one.
        judged: Images whose labels were judged.
        test_included: Whether test images were judged.
        notes: What the audit did not look for, and why.
        pictures: Thumbnails of the first sets of duplicates.
        fixed: Catalog written by `--fix`, and its number of changes.
    """

    images: int = 0
    exact_duplicates: Sequence[Sequence[str]] = ()
    near_duplicates: Sequence[Sequence[str]] = ()
    same_scene: Sequence[Sequence[str]] = ()
    leaks: Sequence[Sequence[str]] = ()
    conflicts: Sequence[Sequence[str]] = ()
    label_suspects: Sequence[LabelSuspect] = ()
    outliers: Sequence[Outlier] = ()
    problems: Sequence[FileProblem] = ()
    shortcut: ShortcutCheck | None = None
    pretraining: PretrainingOverlap | None = None
    groups: Sequence[Suggestion] = ()
    shared: Sequence[SharedImage] = ()
    network: str | None = None
    judged: int = 0
    test_included: bool = False
    notes: Sequence[str] = ()
    pictures: Sequence[DuplicatePicture] = ()
    fixed: str | None = None
    changes: int = 0
    version: int = VERSION
    sightline: str | None = None
    created: str | None = None
    photos: str | None = None

    @property
    def likely(self) -> list[LabelSuspect]:
        """Return the likely label errors, the most suspect first."""
        return [suspect for suspect in self.label_suspects if suspect.likely]

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "audit record") -> AuditRecord:
        """Read the content of `audit.json`.

        Raises:
            RequestError: If the version is another one, a key is unknown, or a value has another type.
        """
        check_version(value, where)
        return from_json(cls, value, where, "key")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return fields_to_json(self)
