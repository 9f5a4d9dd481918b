"""Images of a run: samples as the network sees them, and heatmaps of mistakes and of correct predictions."""

from __future__ import annotations

import dataclasses
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.deadline import Clock, Deadline
from sightline.errors import ImageError
from sightline.explanation.checks.evidence import Evidence, answer_of, most_pictures, skill_of, spread, with_picture
from sightline.explanation.checks.run_checks import MOST_VIEWED, PORTION, Judged, Timed, judge
from sightline.explanation.draw import overlay as draw
from sightline.explanation.options import ExplainOptions
from sightline.explanation.subject import explainable
from sightline.records import Catalog, Explanation, Predictions, Preprocess, Progress
from sightline.records.data_summary import SampleImage
from sightline.records.error_analysis import HeldOutImage
from sightline.records.heatmaps import ExplainedImage, HeatmapProgress
from sightline.runs.record import HeatmapBlocks
from sightline.store import Cache, atomic_file, stream, write_bytes

SAMPLES = 12
SAMPLE_SIDE_PX = 320
HELD_OUT, HELD_OUT_PX = 200, 120
"""Maximum number of thumbnails of held-out images, and their longer side."""
_PARTS = 20
MOST_EXPLAINED = 400
CORRECT_EXPLAINED = 12
FEW_WRONG, FEW_RIGHT, FEW_VIEWED = 12, 4, 12
"""With `few`: number of mistakes and of correct predictions that are drawn, and maximum number of images that are checked."""
CHECKED_SHARE = 0.5
"""Maximum share of a budget for the checks of the method."""
Heatmaps = Literal["none", "few", "all"]


def write_samples(folder: Path, catalog: Catalog, preprocess: Preprocess, seed: int) -> list[SampleImage]:
    """Write some images of the training split, each as it is and as the network sees it.

    Args:
        folder: The run's folder.
        catalog: The run's images.
        preprocess: The network's preprocessing.
        seed: Seed of the random selection.

    Returns:
        Their records, the classes in turn.
    """
    from PIL import Image

    usable = catalog.usable().where(split="train")
    order = stream(seed, "samples").permutation(len(usable))
    labels, paths = usable.column("label"), usable.paths
    turns: dict[str, list[int]] = {}
    for i in order:
        turns.setdefault(labels[i], []).append(int(i))
    ranked = sorted((rank, label, i) for label, members in turns.items() for rank, i in enumerate(members))
    written: list[SampleImage] = []
    for _, label, i in ranked[: SAMPLES * 3]:
        if len(written) == SAMPLES:
            break
        file = catalog.file(paths[i])
        try:
            original, cropped = pixels.upright(file, SAMPLE_SIDE_PX, preprocess), pixels.decode(file, preprocess)
        except (ImageError, OSError):
            continue
        name = f"samples/{len(written) + 1:03d}"
        for array, suffix in ((original, ".jpg"), (cropped, "_seen.jpg")):
            data = io.BytesIO()
            Image.fromarray(array).save(data, "JPEG", quality=88)
            write_bytes(folder / f"{name}{suffix}", data.getvalue())
        written.append(SampleImage(paths[i], label, "train", file=f"{name}.jpg", seen=f"{name}_seen.jpg"))
    return written


def choose_held_out(predictions: Predictions) -> np.ndarray:
    """Return rows of labelled images at all degrees of confidence, int64, at most `HELD_OUT`, the least confident first.

    The images are divided into intervals of equal width by the difference of the two highest probabilities; misclassified
    images of each interval come before the others. Where intervals hold few images, the least confident others fill up.
    """
    known = np.flatnonzero(predictions.y_true >= 0)
    ordered = np.sort(predictions.probs[known], axis=1)
    margin, wrong = ordered[:, -1] - ordered[:, -2], (predictions.y_pred != predictions.y_true)[known]
    part = np.minimum((margin * _PARTS).astype(np.int64), _PARTS - 1)
    chosen = [
        known[inside[np.argsort(~wrong[inside], kind="stable")]][: HELD_OUT // _PARTS]
        for inside in (np.flatnonzero(part == i) for i in range(_PARTS))
    ]
    rows = np.concatenate(chosen)
    others = np.setdiff1d(known[np.argsort(margin, kind="stable")], rows, assume_unique=True)[: HELD_OUT - len(rows)]
    place = dict(zip(known.tolist(), margin.tolist(), strict=True))
    return np.array(sorted([*rows.tolist(), *others.tolist()], key=lambda row: place[row]), dtype=np.int64)


def write_held_out(
    folder: Path, catalog: Catalog, predictions: Predictions, preprocess: Preprocess, deadline: Deadline
) -> list[HeldOutImage]:
    """Write thumbnails of held-out images, for the images whose prediction changes with the threshold.

    Args:
        folder: The run's folder.
        catalog: Holds the images of the predictions.
        predictions: The held-out predictions, in the order of their table.
        preprocess: The network's preprocessing.
        deadline: Images after it are left out.
    """
    from PIL import Image

    written: list[HeldOutImage] = []
    for row in choose_held_out(predictions):
        if deadline.passed:
            break
        path = predictions.paths[row]
        try:
            array = pixels.upright(catalog.file(path), HELD_OUT_PX, preprocess)
        except (ImageError, OSError):
            continue
        data, name = io.BytesIO(), f"held_out/{len(written) + 1:03d}.jpg"
        Image.fromarray(array).save(data, "JPEG", quality=82)
        write_bytes(folder / name, data.getvalue())
        written.append(HeldOutImage(path, int(row), name))
    return written


def choose_explained(predictions: Predictions, seed: int, heatmaps: Heatmaps = "all") -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to explain: mistakes, the most confident first, and some correct predictions of every class.

    Args:
        predictions: With labels.
        seed: Seed of the selection among correct predictions.
        heatmaps: `all` for every mistake up to `MOST_EXPLAINED`, `few` for the first ones.
    """
    most_wrong, most_right = (MOST_EXPLAINED, CORRECT_EXPLAINED) if heatmaps == "all" else (FEW_WRONG, FEW_RIGHT)
    wrong = np.flatnonzero((predictions.y_pred != predictions.y_true) & (predictions.y_true >= 0))
    wrong = wrong[np.argsort(-predictions.probs[wrong].max(axis=1), kind="stable")][:most_wrong]
    right = np.flatnonzero(predictions.y_pred == predictions.y_true)
    right = right[stream(seed, "explained").permutation(len(right))]
    turn: dict[int, int] = {}
    ranks = []
    for row in right:
        label = int(predictions.y_true[row])
        ranks.append(turn.get(label, 0))
        turn[label] = ranks[-1] + 1
    return wrong, right[np.argsort(ranks, kind="stable")][:most_right]


def write_explanations(
    folder: Path,
    classifier: Classifier,
    catalog: Catalog,
    predictions: Predictions,
    *,
    cache: Cache,
    device: str,
    seed: int,
    progress: Progress,
    heatmaps: Heatmaps = "all",
    budget_s: float | None = None,
    clock: Clock = time.perf_counter,
) -> HeatmapBlocks:
    """Explain mistakes and some correct predictions; write overlays, raw heatmaps and the verdicts of the checks.

    With a budget at most `CHECKED_SHARE` of it goes to the checks of the method; the rest to images, one after the other in
    the order of their importance, each checked and drawn before the next. A piece of work starts only if it will end in time,
    as estimated from the previous ones.

    Args:
        folder: The run's folder; an earlier result there is replaced file by file.
        classifier: The classifier that made the predictions.
        catalog: Holds the images of the predictions.
        predictions: The labelled predictions.
        cache, device, seed: As in `ExplainOptions`.
        progress: Called after each image and check.
        heatmaps: `none` does nothing, `few` draws the most important images and checks fewer, `all` draws every mistake.
        budget_s: Seconds for everything, checks included; None for no limit.
        clock: Returns the time in seconds.

    Returns:
        The blocks of run.json. Explanations of mistakes come first, the most confident mistake first.
    """
    started = clock()
    deadline = Deadline.after(budget_s, clock)
    wrong, right = choose_explained(predictions, seed, heatmaps)
    rows = np.concatenate([wrong, right])
    possible = explainable(classifier) and len(rows) > 0
    done = HeatmapProgress(heatmaps, drawn=0, total=len(rows) if possible else 0, seconds=0.0, budget_s=budget_s)
    if not possible or heatmaps == "none" or (budget_s is not None and budget_s <= 0):
        return HeatmapBlocks([], done)
    options = ExplainOptions(cache=cache, device=device, seed=seed)
    judged = judge(
        classifier,
        catalog,
        predictions,
        options,
        skill_of(classifier, answers=predictions),
        progress,
        deadline=deadline.part(CHECKED_SHARE),
        most=MOST_VIEWED if heatmaps == "all" else FEW_VIEWED,
    )
    drawing = _Drawing(
        folder=folder,
        classifier=classifier,
        catalog=catalog,
        predictions=predictions,
        options=options,
        progress=progress,
    )
    entries = drawing.draw(rows, judged, deadline)
    done = dataclasses.replace(done, drawn=len(entries), seconds=clock() - started)
    return HeatmapBlocks(entries, done, judged.checks, judged.class_maps)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Heatmaps of predicted images, drawn into a run's folder."""

    folder: Path
    classifier: Classifier
    catalog: Catalog
    predictions: Predictions
    options: ExplainOptions
    progress: Progress

    def draw(self, rows: np.ndarray, judged: Judged, deadline: Deadline) -> list[ExplainedImage]:
        """Compute, check and draw heatmaps of the images in these rows, as many as there is time for; return their entries."""
        answer = answer_of(self.classifier, self.options)
        evidence, unchecked = judged.evidence, self._unchecked(rows, judged)
        timed = Timed(self.classifier, self.options, Deadline(clock=deadline.clock), self.progress)
        heats: dict[str, np.ndarray] = {}
        entries: list[ExplainedImage] = []
        scale: float | None = None
        start, picture_s = 0, 0.0
        while start < len(rows) and deadline.fits(timed.heat_s + picture_s):
            seconds = timed.heat_s + picture_s if timed.heat_s else 0.0  # unknown while explanations are reused
            part = rows[start : start + self._portion(deadline, seconds, len(rows))]
            start += len(part)
            explanations = self._explain(part, judged, timed)
            row_of = {self.predictions.paths[i]: int(i) for i in part}
            if scale is None:
                scale = draw.shared_scale([*judged.explanations, *explanations] if deadline.limited else explanations)
            for item in explanations:
                begun = deadline.clock()
                if not deadline.fits(picture_s):
                    break
                if evidence is not None and item.path not in unchecked:
                    file = self.catalog.file(item.path)
                    evidence = with_picture(evidence, self.classifier, answer, item, file, self.options, deadline=deadline)
                name = f"explanations/{len(entries) + 1:03d}"
                entries.append(self._write(name, item, row_of[item.path], evidence, scale))
                heats[f"{len(entries):03d}"] = item.heat
                picture_s += (deadline.clock() - begun - picture_s) / len(entries)
                self.progress("heatmaps", len(entries), len(rows))
        if heats:
            with atomic_file(self.folder / "explanations" / "heat.npz") as file_stream:
                np.savez_compressed(file_stream, **heats)  # type: ignore[arg-type]
        return entries

    def _explain(self, rows: np.ndarray, judged: Judged, timed: Timed) -> list[Explanation]:
        """Return explanations of the predicted classes in these rows; those that the checks computed are reused."""
        by_path = {item.path: item for item in judged.explanations}
        paths = [self.predictions.paths[i] for i in rows]
        missing = [i for i in rows if self.predictions.paths[i] not in by_path]
        names = [self.predictions.paths[i] for i in missing]
        files, targets = [self.catalog.file(p) for p in names], [int(self.predictions.y_pred[i]) for i in missing]
        by_path |= {item.path: item for item in timed.heats(files, names, targets, timed.deadline)}
        return [by_path[path] for path in paths if path in by_path]

    @staticmethod
    def _portion(deadline: Deadline, seconds: float, most: int) -> int:
        """Return the number of images whose heatmaps are computed at once, given the seconds per image; 0 s is unknown."""
        if not deadline.limited:
            return most
        return max(1, min(PORTION, int(deadline.left() / seconds))) if seconds else 1

    def _unchecked(self, rows: np.ndarray, judged: Judged) -> set[str]:
        """Return the images that are not checked individually because there are too many, spread evenly."""
        own = {} if judged.evidence is None else judged.evidence.own
        left = [path for path in (self.predictions.paths[i] for i in rows) if path not in own]
        return set(left) - {left[i] for i in spread(len(left), most_pictures(self.classifier))}

    def _write(self, name: str, item: Explanation, row: int, evidence: Evidence | None, scale: float) -> ExplainedImage:
        """Draw one overlay and return its entry."""
        predictions = self.predictions
        check = None if evidence is None else evidence.of(item)
        preprocess = self.classifier.card.backbone.preprocess
        drawn = write_overlay(self.folder / f"{name}.png", self.catalog.file(item.path), preprocess, item)
        strongest = float(np.abs(draw.evidence(item)).max())
        return ExplainedImage(
            path=item.path,
            label=predictions.classes[predictions.y_true[row]],
            predicted=item.target,
            probability=float(predictions.probs[row, predictions.y_pred[row]]),
            target=item.target,
            method=item.method,
            layer=item.layer,
            correct=bool(predictions.y_pred[row] == predictions.y_true[row]),
            overlay=f"{name}.png",
            photo=f"{name}_photo.jpg",
            heat=f"{name}_heat.webp",
            strength=0.0 if item.flat or not scale else strongest / scale,
            peak=None if item.flat else item.peak(),
            verdict=None if check is None else str(check["verdict"]),
            reason=None if check is None else str(check["why"]),
            note=drawn.note or None,
        )


def write_overlay(target: Path, source: Path, preprocess: Preprocess, item: Explanation) -> draw.Layers:
    """Write a heatmap over its photograph as PNG, and both alone: `NAME_photo.jpg` and the transparent `NAME_heat.webp`.

    Returns:
        The two layers.
    """
    from PIL import Image

    found = draw.layers_file(source, preprocess, item)
    draw.save_png(Image.fromarray(draw.flatten(found.photo, found.heat)), target)
    stem = target.with_suffix("")
    for array, suffix, kind, options in (
        (found.photo, "_photo.jpg", "JPEG", {"quality": 88}),
        (found.heat, "_heat.webp", "WEBP", {"quality": 80}),
    ):
        data = io.BytesIO()
        Image.fromarray(array).save(data, kind, **options)
        write_bytes(stem.with_name(f"{stem.name}{suffix}"), data.getvalue())
    return found
