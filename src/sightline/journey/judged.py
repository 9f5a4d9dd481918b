"""What a run says of its own heatmaps: their checks on a sample, what each class relies on, whether peaks hit known boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.explanation import checks, overall
from sightline.journey.evidence import Evidence, How, Skill, gather, probs_of, read_seen, sample_size
from sightline.journey.heats import heats_of
from sightline.journey.pointing import play, read_places
from sightline.records import Catalog, Explanation, Predictions, Progress, silent
from sightline.store import stream

MOST_VIEWED = 160
"""Images that the view of the classes is made from."""
LEARNT_VIEWED = 40
"""Images of a class that the alarm is tested on, where there are so many: what held-out ones lack is taken from the training.

Sixteen held-out images do not show a watermark that most of them are told by."""
MOST_CLASSES = 20
MOST_COVERED = 8


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of a classifier's heat.

    Args:
        evidence: The checks; None where no image could be read.
        data: `heat_checks` and `heat_global` of run.json.
    """

    evidence: Evidence | None
    data: dict[str, Any]


def judge(
    classifier: Classifier, catalog: Catalog, predictions: Predictions, how: How, skill: Skill, progress: Progress = silent
) -> Judged:
    """Check a method's heat on a sample of answered images, and look at what each class relies on.

    Args:
        classifier: What answered.
        catalog: Holds the images of the predictions; with its column `box` (x,y,width,height in pixels of the upright original)
            or `mask` (a picture beside the image, light where the object is) the pointing game is played.
        predictions: The answers; the predicted class of each image is explained.
        how: The method and its means.
        skill: How good the classifier is known to be.
    """
    order = stream(how.seed, "heat checks").permutation(len(predictions))
    viewed = _turns(order, predictions.y_pred)[:MOST_VIEWED]
    paths = [predictions.paths[i] for i in viewed]
    files, targets = [catalog.file(p) for p in paths], [int(predictions.y_pred[i]) for i in viewed]
    means: dict[str, Any] = {"cache": how.cache, "device": how.device, "method": how.method, "seed": how.seed}
    found, _ = heats_of(classifier, files, paths, targets, progress=progress, **means)
    if not found:
        return Judged(None, {"heat_checks": None, "heat_global": None})
    places, _ = read_places(catalog)
    pointed = play(found, places, dict(zip(paths, files, strict=True)))
    n = sample_size(classifier)
    more = [] if pointed is None else [pointed]
    given = {item.path: item for item in found}
    evidence = gather(
        classifier, files[:n], paths[:n], targets[:n], how, skill=skill, more=more, given=given, progress=progress
    )
    kept = {"method": found[0].method, "layer": found[0].layer}
    facts = None if evidence is None else {**evidence.shared, **kept}
    return Judged(
        evidence, {"heat_checks": facts, "heat_global": {**kept, **_views(classifier, found, catalog, how, progress)}}
    )


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
    classifier: Classifier, found: Sequence[Explanation], catalog: Catalog, how: How, progress: Progress
) -> dict[str, Any]:
    """What each class relies on, and the alarms with what covering their places does."""
    by_class: dict[str, list[Explanation]] = {}
    for item in found:
        by_class.setdefault(item.target, []).append(item)
    learnt: dict[str, list[Explanation]] = {}
    for item in _learnt(classifier, {name: len(items) for name, items in by_class.items()}, catalog, how, progress):
        learnt.setdefault(item.target, []).append(item)
    views, tested = [], []
    for name, items in sorted(by_class.items())[:MOST_CLASSES]:
        view = overall.view(name, items, _channels(classifier, items, catalog, how))
        more = overall.view(name, [*items, *learnt.get(name, [])])
        views += [] if view is None else [view]
        tested += [] if more is None else [more]
    regions = overall.regions(tested)
    alarms = [region for region in regions if overall.alarming(region)]
    for alarm in alarms:
        files = [catalog.file(item.path) for item in by_class[alarm["class"]][:MOST_COVERED]]
        alarm |= covered(classifier, files, classifier.classes.index(alarm["class"]), alarm["region"], how)
    told: dict[str, Any] = {"n": len(found), "centre": overall.CENTRE, "classes": overall.as_data(views), "alarms": alarms}
    return {**told, "highest": regions[0] if regions else None}


def _learnt(
    classifier: Classifier, counts: Mapping[str, int], catalog: Catalog, how: How, progress: Progress
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
        if left.get(labels[i], 0) > 0 and len(paths) < MOST_VIEWED:
            left[labels[i]] -= 1
            paths.append(rows.paths[i])
    if not paths:
        return []
    answers = classifier.predict([rows.file(p) for p in paths], cache=how.cache, device=how.device)
    files, aims = [Path(p) for p in answers.paths], [int(t) for t in answers.y_pred]
    means: dict[str, Any] = {"cache": how.cache, "device": how.device, "method": how.method, "seed": how.seed}
    return heats_of(classifier, files, list(answers.paths), aims, progress=progress, **means)[0]


def _channels(
    classifier: Classifier, items: Sequence[Explanation], catalog: Catalog, how: How
) -> tuple[tuple[int, float], ...]:
    """The channels that a class relies on, where the head is one linear layer on a network's features."""
    if classifier.members or classifier.head.kind not in ("logistic", "ridge", "centroid"):
        return ()
    images, _ = read_seen(classifier, [catalog.file(item.path) for item in items[:MOST_COVERED]])
    if not len(images):
        return ()
    centre = pixels.cut(images, classifier.card.backbone.preprocess.size, 0) if classifier.card.crops > 1 else images
    features = classifier.session(how.cache, device=how.device).run(centre)[0]
    return overall.channels_of(classifier.head, classifier.classes.index(items[0].target), features)


def covered(classifier: Classifier, files: Sequence[Path], target: int, region: str, how: How) -> dict[str, Any]:
    """The mean probability of a class before and after a region of its images is blurred away."""
    images, _ = read_seen(classifier, files)
    if not len(images):
        return {"before": None, "after": None}
    top, left, bottom, right = overall.REGIONS[region]
    height, width = images.shape[1:3]
    rows, columns = slice(round(top * height), round(bottom * height)), slice(round(left * width), round(right * width))
    changed = images.copy()
    changed[:, rows, columns] = checks.covered(images)[:, rows, columns]
    ask = probs_of(classifier, how)
    return {"before": float(ask(images)[:, target].mean()), "after": float(ask(changed)[:, target].mean())}
