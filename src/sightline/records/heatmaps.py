"""Blocks of run.json about heatmaps and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sightline.schema import from_json, json_key


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """An image with a heatmap.

    Args:
        overlay: File of the heatmap over the image, in the run's folder; the strongest colour is the maximum of this heatmap.
        photo, heat: Files of the photograph and of the heatmap alone, a transparent layer of the same size.
        strength: Maximum of this heatmap as a share of the scale that all heatmaps of the run have in common.
        peak: (row, column) of the highest attribution, in pixels; None for a flat heatmap.
        verdict, reason: Verdict of the checks on this heatmap, and why.
        note: What is unusual about the drawing.
    """

    path: str
    label: str | None = None
    predicted: str | None = None
    probability: float | None = None
    target: str | None = None
    method: str | None = None
    layer: str | None = None
    correct: bool = False
    overlay: str | None = None
    peak: Sequence[float] | None = None
    verdict: str | None = None
    photo: str | None = None
    heat: str | None = None
    strength: float | None = None
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class HeatmapFinding:
    """Result of one check of heatmaps; `numbers` depend on the check."""

    check: str
    verdict: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str = "finding") -> HeatmapFinding:
        """Read one finding; further keys are the numbers of the check.

        Raises:
            RequestError: If a key is missing or its value has another type.
        """
        words = {key: value[key] for key in ("check", "verdict", "text") if key in value}
        numbers = {key: v for key, v in value.items() if key not in words}
        return from_json(cls, {**words, "numbers": numbers}, where, "key")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"check": self.check, "verdict": self.verdict, "text": self.text, **self.numbers}


@dataclass(frozen=True, slots=True)
class HeatmapChecks:
    """Checks of the run's heatmaps.

    Args:
        verdict, why: Of all checks together.
        images: Number of checked heatmaps.
        chance: Insertion and deletion scores of random orders of cells.
    """

    verdict: str | None = None
    why: str | None = None
    findings: Sequence[HeatmapFinding] = ()
    images: int | None = None
    chance: Sequence[float] = ()
    method: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelShare:
    """Share of a class's attribution on one channel of the feature map."""

    channel: int | None = None
    share: float | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Average heatmap of one class.

    Args:
        n: Images.
        map: (h, w) shares that sum to 1.
        outside: Share outside the central part.
        regions: Median share of each border and corner.
        channels: Channels with the largest shares.
    """

    name: str = field(metadata=json_key("class"))
    n: int | None = None
    map: Sequence[Sequence[float]] = ()
    outside: float | None = None
    regions: Mapping[str, float] = field(default_factory=dict)
    channels: Sequence[ChannelShare] = ()


@dataclass(frozen=True, slots=True)
class RegionShare:
    """Attribution of a class at one border or corner, and what blurring that region does.

    Args:
        share: Median share of attribution.
        area: Share of the image's area.
        p: p-value of the share.
        before, after: Mean probability of the class before and after blurring the region.
        drop, drop_p: Fall of the probability and its p-value.
        blurred: Images that were blurred.
        lowers: Whether blurring clearly lowers the probability.
    """

    class_name: str | None = field(default=None, metadata=json_key("class"))
    region: str | None = None
    n: int | None = None
    share: float | None = None
    area: float | None = None
    p: float | None = None
    before: float | None = None
    after: float | None = None
    drop: float | None = None
    drop_p: float | None = None
    blurred: int | None = None
    lowers: bool | None = None


@dataclass(frozen=True, slots=True)
class ClassMaps:
    """Average heatmaps by class, and alarms for borders and corners.

    Args:
        n: Images.
        classes: One for each class.
        alarms: Regions on which the prediction depends.
        harmless: Regions with much attribution on which it does not.
        highest: The region with the lowest p-value; None if nothing was tested.
    """

    n: int | None = None
    by: str | None = None
    centre: float | None = None
    classes: Sequence[ClassMap] = ()
    alarms: Sequence[RegionShare] = ()
    harmless: Sequence[RegionShare] = ()
    highest: RegionShare | None = None
    method: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class HeatmapProgress:
    """How many heatmaps were drawn.

    Args:
        requested: `none`, `few` or `all`.
        drawn: Of `total`.
        pending: Whether more will be drawn.
        budget_s: Their share of the time budget, in seconds; None for no limit.
    """

    requested: str | None = field(default=None, metadata=json_key("asked"))
    drawn: int | None = None
    total: int | None = field(default=None, metadata=json_key("of"))
    pending: bool | None = None
    seconds: float | None = None
    budget_s: float | None = None
