"""Heatmap checks of a run: the method on a sample, the regions that each class relies on, and the pointing game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import heads, pixels
from sightline.classifier import Classifier
from sightline.deadline import UNLIMITED, Deadline
from sightline.explanation import class_maps
from sightline.explanation.checks import measures
from sightline.explanation.checks.evidence import Evidence, Skill, gather, probs_of, read_seen, sample_size
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.options import ExplainOptions
from sightline.explanation.pointing_game import play, read_places
from sightline.records import Catalog, Explanation, Predictions, Progress, silent
from sightline.records.heatmaps import ClassMaps, HeatmapChecks
from sightline.schema import from_json
from sightline.store import plain, stream

MOST_VIEWED = 160
"""Maximum number of images for the average heatmaps of classes."""
LEARNT_VIEWED = 40
"""Number of images per class for the border alarm; training images are added where held-out ones are fewer.

Sixteen held-out images are too few to show a watermark on most of them."""
PORTION = 8
"""Number of images whose heatmaps are computed at once where the time is limited."""
SAMPLE_SHARE, CHECKS_SHARE = 0.2, 0.7
"""Share of a limited time for the sample's heatmaps, and share of the rest for its checks."""
MOST_CLASSES, MOST_FOR_CHANNELS = 20, 8
MOST_COVERED = 16
"""Maximum number of images of a class in which a region is blurred, to measure whether the class needs it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The heatmap checks of a run.

    Args:
        evidence: The checks; None where no image could be read.
        checks: Their block of run.json; None where nothing was checked.
        class_maps: Average heatmaps by class; None where there are no heatmaps.
        explanations: The explanations that were computed for them.
    """

    evidence: Evidence | None = None
    checks: HeatmapChecks | None = None
    class_maps: ClassMaps | None = None
    explanations: tuple[Explanation, ...] = ()


class Timed:
    """Heatmaps of images in portions, as many as there is time for."""

    def __init__(self, classifier: Classifier, options: ExplainOptions, deadline: Deadline, progress: Progress) -> None:
        self.classifier, self.options, self.deadline, self.progress = classifier, options, deadline, progress
        self.heat_s, self.first_s, self.tried = 0.0, 0.0, 0

    def heats(
        self, files: Sequence[Path], names: Sequence[str], targets: Sequence[int], deadline: Deadline
    ) -> list[Explanation]:
        """Return the explanations of the first images, of all where there is no limit.

        The first image alone measures the time per image; a portion starts only if it will end in time.

        Args:
            files, names, targets: As in `heatmaps_of`.
            deadline: When to stop.
        """
        explanations: list[Explanation] = []
        start = 0
        while start < len(files):
            size = PORTION if deadline.limited else len(files)
            if deadline.limited and not self.heat_s:
                size = 1
            elif deadline.limited:
                size = min(size, int(deadline.left() / self.heat_s))
            if size < 1:
                break
            rows, begun = slice(start, start + size), self.deadline.clock()
            part = heatmaps_of(self.classifier, files[rows], names[rows], targets[rows], self.options, progress=self.progress)
            explanations += part[0]
            self.first_s = self.first_s or self.deadline.clock() - begun
            self.heat_s = max((self.deadline.clock() - begun) / len(files[rows]), 1e-9)
            start += size
        self.tried = min(start, len(files))
        return explanations


def judge(
    classifier: Classifier,
    catalog: Catalog,
    predictions: Predictions,
    options: ExplainOptions,
    skill: Skill,
    progress: Progress = silent,
    *,
    deadline: Deadline = UNLIMITED,
    most: int = MOST_VIEWED,
) -> Judged:
    """Check a heatmap method on a sample of predicted images, and summarise the heatmaps of each class.

    Args:
        classifier: The explained classifier.
        catalog: Holds the images of the predictions; with its column `box` (x,y,width,height in pixels of the upright original)
            or `mask` (an image file beside the image, white where the object is) the pointing game is played.
        predictions: The predictions; the predicted class of each image is explained.
        options: The method and its settings.
        skill: How accurate the classifier is known to be.
        progress: Called after each image and check.
        deadline: When to stop; images and checks for which there is no time are skipped.
        most: Maximum number of images.
    """
    order = stream(options.seed, "heat checks").permutation(len(predictions))
    viewed = _turns(order, predictions.y_pred)[:most]
    paths = [predictions.paths[i] for i in viewed]
    files, targets = [catalog.file(p) for p in paths], [int(predictions.y_pred[i]) for i in viewed]
    n = min(sample_size(classifier), most)
    timed, first = Timed(classifier, options, deadline, progress), n if deadline.limited else len(files)
    explanations = timed.heats(files[:first], paths[:first], targets[:first], deadline.part(SAMPLE_SHARE))
    if not explanations:
        return Judged()
    n = min(n, timed.tried)
    places, _ = read_places(catalog)
    pointing = play(explanations, places, dict(zip(paths, files, strict=True)))
    evidence = gather(
        classifier,
        files[:n],
        paths[:n],
        targets[:n],
        options,
        skill=skill,
        more=[] if pointing is None else [pointing],
        given={item.path: item for item in explanations},
        progress=progress,
        deadline=deadline.part(CHECKS_SHARE),
        heat_s=timed.heat_s,
        open_s=timed.first_s,
    )
    if deadline.limited:
        explanations += timed.heats(files[n:], paths[n:], targets[n:], deadline.part(0.5))
    method = {"method": explanations[0].method, "layer": explanations[0].layer}
    checks = None
    if evidence is not None:
        checks = from_json(HeatmapChecks, plain({**evidence.shared, **method}), "heatmap checks", "key")
    views = plain({**_views(explanations, catalog, timed, most), **method})
    return Judged(evidence, checks, from_json(ClassMaps, views, "class maps", "key"), tuple(explanations))


def _turns(order: np.ndarray, classes: np.ndarray) -> list[int]:
    """Return rows of a random order so that the classes take turns."""
    turns: dict[int, int] = {}
    ranked = []
    for place, row in enumerate(order):
        label = int(classes[row])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], place, int(row)))
    return [row for _, _, row in sorted(ranked)]


def _by_target(explanations: Sequence[Explanation]) -> dict[str, list[Explanation]]:
    """Return explanations by the class that they explain."""
    by_class: dict[str, list[Explanation]] = {}
    for item in explanations:
        by_class.setdefault(item.target, []).append(item)
    return by_class


def _views(explanations: Sequence[Explanation], catalog: Catalog, timed: Timed, most: int) -> dict[str, Any]:
    """Return the regions and channels that each class relies on, and the alarms with the effect of blurring their regions."""
    classifier, options, deadline = timed.classifier, timed.options, timed.deadline
    by_class = _by_target(explanations)
    learnt = _by_target(_of_training({name: len(items) for name, items in by_class.items()}, catalog, timed, most))
    views, tested = [], []
    for name, items in sorted(by_class.items())[:MOST_CLASSES]:
        channels = _channels(classifier, items, catalog, options) if deadline.left() > 0 else ()
        view = class_maps.view(name, items, channels)
        more = class_maps.view(name, [*items, *learnt.get(name, [])])
        views += [] if view is None else [view]
        tested += [] if more is None else [more]
    regions = class_maps.regions(tested)
    suspects = [region for region in regions if class_maps.concentrated(region)]
    for region in suspects:
        name = region["class"]
        files = [catalog.file(item.path) for item in [*by_class[name], *learnt.get(name, [])][:MOST_COVERED]]
        files = files if deadline.left() > 0 else []
        region |= covered(classifier, files, classifier.classes.index(name), region["region"], options)
    return {
        "n": len(explanations),
        "by": "predicted",
        "centre": class_maps.CENTRE,
        "classes": class_maps.as_data(views),
        "alarms": [r for r in suspects if r["lowers"]],
        "harmless": [r for r in suspects if not r["lowers"]],
        "highest": regions[0] if regions else None,
    }


def _of_training(counts: Mapping[str, int], catalog: Catalog, timed: Timed, most: int) -> list[Explanation]:
    """Return explanations of training images for their predictions, as many as bring each class to `LEARNT_VIEWED`."""
    options, deadline = timed.options, timed.deadline
    rows = catalog.usable().where(split="train") if "split" in catalog.table.column_names else None
    if rows is None or not len(rows):
        return []
    order = stream(options.seed, "heat of training images").permutation(len(rows))
    labels = rows.column("label")
    left = {name: LEARNT_VIEWED - n for name, n in sorted(counts.items())[:MOST_CLASSES]}
    paths: list[str] = []
    for i in order:
        if left.get(labels[i], 0) > 0 and len(paths) < most:
            left[labels[i]] -= 1
            paths.append(rows.paths[i])
    if deadline.limited:
        paths = paths[: max(int(deadline.left() / (2 * timed.heat_s)), 0)]
    if not paths:
        return []
    shared: dict[str, Any] = {"cache": options.cache, "device": options.device, "sessions": options.sessions}
    answers = timed.classifier.predict([rows.file(p) for p in paths], **shared)
    return timed.heats([Path(p) for p in answers.paths], list(answers.paths), [int(t) for t in answers.y_pred], deadline)


def _channels(
    classifier: Classifier, items: Sequence[Explanation], catalog: Catalog, options: ExplainOptions
) -> tuple[tuple[int, float], ...]:
    """Return the channels that a class relies on, where the head is one linear layer on a network's features."""
    if classifier.members or heads.linear(classifier.head) is None:
        return ()
    images, _ = read_seen(classifier, [catalog.file(item.path) for item in items[:MOST_FOR_CHANNELS]])
    if not len(images):
        return ()
    centre = pixels.cut(images, classifier.card.backbone.preprocess.size, 0) if classifier.card.crops > 1 else images
    features = classifier.session(options.cache, device=options.device, opened=options.sessions).run(centre)[0]
    return class_maps.channels_of(classifier.head, classifier.classes.index(items[0].target), features)


def covered(classifier: Classifier, files: Sequence[Path], target: int, region: str, options: ExplainOptions) -> dict[str, Any]:
    """Return the effect of blurring a region of images on the probability of a class, as `class_maps.lowers` does."""
    images, _ = read_seen(classifier, files)
    if not len(images):
        return {"before": None, "after": None, "lowers": False}
    top, left, bottom, right = class_maps.REGIONS[region]
    height, width = images.shape[1:3]
    rows, columns = slice(round(top * height), round(bottom * height)), slice(round(left * width), round(right * width))
    changed = images.copy()
    changed[:, rows, columns] = measures.covered(images)[:, rows, columns]
    predict = probs_of(classifier, options)
    return class_maps.lowers(predict(images)[:, target], predict(changed)[:, target])
