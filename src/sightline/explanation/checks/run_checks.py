"""What a run says of its own heatmaps: their checks on a sample, what each class relies on, whether peaks hit known boxes."""

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
from sightline.explanation.checks.evidence import Evidence, How, Skill, gather, probs_of, read_seen, sample_size
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.pointing_game import play, read_places
from sightline.records import Catalog, Explanation, Predictions, Progress, silent
from sightline.store import stream

MOST_VIEWED = 160
"""Images that the view of the classes is made from."""
LEARNT_VIEWED = 40
"""Images of a class that the alarm is tested on, where there are so many: what held-out ones lack is taken from the training.

Sixteen held-out images do not show a watermark that most of them are told by."""
PORTION = 8
"""Images whose heat is made at once where the time is limited."""
SAMPLE_SHARE, CHECKS_SHARE = 0.2, 0.7
"""The share of a limited time for the heat of the sample, and the share of what is then left for its checks."""
MOST_CLASSES, MOST_FOR_CHANNELS = 20, 8
MOST_COVERED = 16
"""Images of a class in which a region is blurred, to see whether the class needs it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a classifier's heat.

    Args:
        evidence: The checks; None where no image could be read.
        data: `heat_checks` and `heat_global` of run.json.
        found: The heat that was made for it.
    """

    evidence: Evidence | None
    data: dict[str, Any]
    found: tuple[Explanation, ...] = ()


def judge(
    classifier: Classifier,
    catalog: Catalog,
    predictions: Predictions,
    how: How,
    skill: Skill,
    progress: Progress = silent,
    *,
    deadline: Deadline = UNLIMITED,
    most: int = MOST_VIEWED,
) -> Judged:
    """Check a method's heat on a sample of answered images, and look at what each class relies on.

    Args:
        classifier: What answered.
        catalog: Holds the images of the predictions; with its column `box` (x,y,width,height in pixels of the upright original)
            or `mask` (a picture beside the image, light where the object is) the pointing game is played.
        predictions: The answers; the predicted class of each image is explained.
        how: The method and its means.
        skill: How good the classifier is known to be.
        deadline: By when to end; images and checks for which there is no time are left out.
        most: Images at most.
    """
    order = stream(how.seed, "heat checks").permutation(len(predictions))
    viewed = _turns(order, predictions.y_pred)[:most]
    paths = [predictions.paths[i] for i in viewed]
    files, targets = [catalog.file(p) for p in paths], [int(predictions.y_pred[i]) for i in viewed]
    n = min(sample_size(classifier), most)
    timed, asked = Timed(deadline), n if deadline.limited else len(files)
    found = timed.heats(classifier, files[:asked], paths[:asked], targets[:asked], how, deadline.part(SAMPLE_SHARE), progress)
    if not found:
        return Judged(None, {"heat_checks": None, "heat_global": None})
    n = min(n, timed.tried)
    places, _ = read_places(catalog)
    pointed = play(found, places, dict(zip(paths, files, strict=True)))
    more = [] if pointed is None else [pointed]
    given = {item.path: item for item in found}
    evidence = gather(
        classifier, files[:n], paths[:n], targets[:n], how, skill=skill, more=more, given=given, progress=progress,
        deadline=deadline.part(CHECKS_SHARE), heat_s=timed.heat_s, open_s=timed.first_s,
    )  # fmt: skip
    if deadline.limited:
        found += timed.heats(classifier, files[n:], paths[n:], targets[n:], how, deadline.part(0.5), progress)
    kept = {"method": found[0].method, "layer": found[0].layer}
    facts = None if evidence is None else {**evidence.shared, **kept}
    views = _views(classifier, found, catalog, how, progress, timed, deadline, most)
    return Judged(evidence, {"heat_checks": facts, "heat_global": {**kept, **views}}, tuple(found))


class Timed:
    """Heat of images in portions, as many as there is time for."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline, self.heat_s, self.first_s, self.tried = deadline, 0.0, 0.0, 0

    def heats(
        self,
        classifier: Classifier,
        files: Sequence[Path],
        names: Sequence[str],
        targets: Sequence[int],
        how: How,
        deadline: Deadline,
        progress: Progress = silent,
    ) -> list[Explanation]:
        """Return the heat of the first images, of all where there is no limit; the arguments as of `heats_of`.

        The first image alone measures how long one takes; a portion starts only if it ends in time by that.
        """
        found: list[Explanation] = []
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
            means: dict[str, Any] = {"cache": how.cache, "device": how.device, "method": how.method, "seed": how.seed}
            found += heatmaps_of(classifier, files[rows], names[rows], targets[rows], progress=progress, **means)[0]
            self.first_s = self.first_s or self.deadline.clock() - begun
            self.heat_s = max((self.deadline.clock() - begun) / len(files[rows]), 1e-9)
            start += size
        self.tried = min(start, len(files))
        return found


def _turns(order: np.ndarray, classes: np.ndarray) -> list[int]:
    """Rows of a random order so that the classes take turns."""
    turns: dict[int, int] = {}
    ranked = []
    for place, row in enumerate(order):
        label = int(classes[row])
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], place, int(row)))
    return [row for _, _, row in sorted(ranked)]


def _views(
    classifier: Classifier,
    found: Sequence[Explanation],
    catalog: Catalog,
    how: How,
    progress: Progress,
    timed: Timed,
    deadline: Deadline,
    most: int,
) -> dict[str, Any]:
    """What each class relies on, and the alarms with what covering their places does."""
    by_class: dict[str, list[Explanation]] = {}
    for item in found:
        by_class.setdefault(item.target, []).append(item)
    learnt: dict[str, list[Explanation]] = {}
    for item in _learnt(
        classifier, {name: len(items) for name, items in by_class.items()}, catalog, how, progress, timed, deadline, most
    ):
        learnt.setdefault(item.target, []).append(item)
    views, tested = [], []
    for name, items in sorted(by_class.items())[:MOST_CLASSES]:
        channels = _channels(classifier, items, catalog, how) if deadline.left() > 0 else ()
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
        region |= covered(classifier, files, classifier.classes.index(name), region["region"], how)
    told: dict[str, Any] = {
        "n": len(found),
        "by": "predicted",
        "centre": class_maps.CENTRE,
        "classes": class_maps.as_data(views),
    }
    told |= {"alarms": [r for r in suspects if r["lowers"]], "harmless": [r for r in suspects if not r["lowers"]]}
    return {**told, "highest": regions[0] if regions else None}


def _learnt(
    classifier: Classifier,
    counts: Mapping[str, int],
    catalog: Catalog,
    how: How,
    progress: Progress,
    timed: Timed,
    deadline: Deadline,
    most: int,
) -> list[Explanation]:
    """Heat of training images for the answer that they are given, as many as bring each class to `LEARNT_VIEWED`."""
    rows = catalog.usable().where(split="train") if "split" in catalog.table.column_names else None
    if rows is None or not len(rows):
        return []
    order = stream(how.seed, "heat of training images").permutation(len(rows))
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
    answers = classifier.predict([rows.file(p) for p in paths], cache=how.cache, device=how.device)
    files, aims = [Path(p) for p in answers.paths], [int(t) for t in answers.y_pred]
    return timed.heats(classifier, files, list(answers.paths), aims, how, deadline, progress)


def _channels(
    classifier: Classifier, items: Sequence[Explanation], catalog: Catalog, how: How
) -> tuple[tuple[int, float], ...]:
    """The channels that a class relies on, where the head is one linear layer on a network's features."""
    if classifier.members or heads.linear(classifier.head) is None:
        return ()
    images, _ = read_seen(classifier, [catalog.file(item.path) for item in items[:MOST_FOR_CHANNELS]])
    if not len(images):
        return ()
    centre = pixels.cut(images, classifier.card.backbone.preprocess.size, 0) if classifier.card.crops > 1 else images
    features = classifier.session(how.cache, device=how.device).run(centre)[0]
    return class_maps.channels_of(classifier.head, classifier.classes.index(items[0].target), features)


def covered(classifier: Classifier, files: Sequence[Path], target: int, region: str, how: How) -> dict[str, Any]:
    """Return what blurring a region of images does to the probability of a class, as `overall.lowers` gives it."""
    images, _ = read_seen(classifier, files)
    if not len(images):
        return {"before": None, "after": None, "lowers": False}
    top, left, bottom, right = class_maps.REGIONS[region]
    height, width = images.shape[1:3]
    rows, columns = slice(round(top * height), round(bottom * height)), slice(round(left * width), round(right * width))
    changed = images.copy()
    changed[:, rows, columns] = measures.covered(images)[:, rows, columns]
    ask = probs_of(classifier, how)
    return class_maps.lowers(ask(images)[:, target], ask(changed)[:, target])
