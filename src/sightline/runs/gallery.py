"""The pictures of a run: samples as the network sees them, and heatmaps of mistakes and of right answers."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.deadline import Clock, Deadline
from sightline.errors import ImageError
from sightline.explanation.checks.evidence import Evidence, How, answer_of, most_pictures, skill_of, spread, with_picture
from sightline.explanation.checks.run_checks import MOST_VIEWED, PORTION, Judged, Timed, judge
from sightline.explanation.cover_region import Hidden
from sightline.explanation.draw import overlay as draw
from sightline.explanation.draw.caption import Caption
from sightline.explanation.draw.lettering import INK, PAPER, QUIET, SMALL_PX, TEXT_PX, font, shorten, width
from sightline.explanation.subject import explainable
from sightline.files import read_bytes
from sightline.records import Catalog, Explanation, Predictions, Preprocess, Progress
from sightline.store import Cache, atomic_file, stream, write_bytes

SAMPLES = 12
SAMPLE_SIDE_PX = 320
OVERLAY_SIDE_PX = 420
MOST_EXPLAINED = 400
CORRECT_EXPLAINED = 12
FEW_WRONG, FEW_RIGHT, FEW_VIEWED = 12, 4, 12
"""With `few`: mistakes and right answers that are drawn, and images that the checks are made on at most."""
CHECKED_SHARE = 0.5
"""The share of a budget for the checks of the method, at most."""
Heatmaps = Literal["none", "few", "all"]


def write_samples(folder: Path, catalog: Catalog, preprocess: Preprocess, seed: int) -> list[dict[str, Any]]:
    """Draw some images of the training split and write each as it is and as the network sees it.

    Returns:
        The `samples` of run.json, the classes in turn.
    """
    from PIL import Image

    usable = catalog.usable().where(split="train")
    order = stream(seed, "samples").permutation(len(usable))
    labels, paths = usable.column("label"), usable.paths
    turns: dict[str, list[int]] = {}
    for i in order:
        turns.setdefault(labels[i], []).append(int(i))
    ranked = sorted((rank, label, i) for label, members in turns.items() for rank, i in enumerate(members))
    written: list[dict[str, Any]] = []
    for _, label, i in ranked[: SAMPLES * 3]:
        if len(written) == SAMPLES:
            break
        file = catalog.file(paths[i])
        try:
            whole, seen = pixels.upright(file, SAMPLE_SIDE_PX, preprocess), pixels.decode(file, preprocess)
        except (ImageError, OSError):
            continue
        name = f"samples/{len(written) + 1:03d}"
        for array, suffix in ((whole, ".jpg"), (seen, "_seen.jpg")):
            data = io.BytesIO()
            Image.fromarray(array).save(data, "JPEG", quality=88)
            write_bytes(folder / f"{name}{suffix}", data.getvalue())
        record = {"path": paths[i], "label": label, "split": "train"}
        written.append({**record, "file": f"{name}.jpg", "seen": f"{name}_seen.jpg"})
    return written


def choose_explained(predictions: Predictions, seed: int, heatmaps: Heatmaps = "all") -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to explain: mistakes, the most confident first, and some right answers of every class.

    Args:
        predictions: With labels.
        seed: Of the choice among right answers.
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
) -> dict[str, Any]:
    """Explain mistakes and some right answers; write overlays and raw maps, and say how far they can be believed.

    With a budget at most `CHECKED_SHARE` of it goes to the checks of the method; the rest to pictures, one after the other in
    the order of their importance, each checked and drawn before the next. A piece of work starts only if it ends in time by
    what those before it took.

    Args:
        folder: The run's; an earlier result there is replaced file by file.
        classifier: What answered.
        catalog: Holds the images of the predictions.
        predictions: The answers, labelled.
        cache, device, seed, progress: As everywhere.
        heatmaps: `none` does nothing, `few` draws the most important ones and checks fewer images, `all` every mistake.
        budget_s: Seconds for all of it, checks included; None for no limit.
        clock: Returns the time in seconds.

    Returns:
        For run.json: `explanations`, mistakes first, the most confident first; `heat_checks` and `heat_global` as in `judge`;
        and `heatmaps`: `asked` (the choice), `drawn` of `of` pictures, `seconds` and `budget_s`.
    """
    started = clock()
    deadline = Deadline.after(budget_s, clock)
    wrong, right = choose_explained(predictions, seed, heatmaps)
    rows = np.concatenate([wrong, right])
    possible = explainable(classifier) and len(rows) > 0
    of = len(rows) if possible else 0
    told: dict[str, Any] = {"asked": heatmaps, "drawn": 0, "of": of, "seconds": 0.0, "budget_s": budget_s}
    if not possible or heatmaps == "none" or (budget_s is not None and budget_s <= 0):
        return {"explanations": [], "heatmaps": told}
    how = How(cache, device, seed)
    skill = skill_of(classifier, answers=predictions)
    most = MOST_VIEWED if heatmaps == "all" else FEW_VIEWED
    judged = judge(
        classifier, catalog, predictions, how, skill, progress, deadline=deadline.part(CHECKED_SHARE), most=most
    )  # fmt: skip
    entries = _Drawing(folder, classifier, catalog, predictions, how, progress).draw(rows, judged, deadline)
    told |= {"drawn": len(entries), "seconds": clock() - started}
    return {"explanations": entries, "heatmaps": told, **judged.data}


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Heatmaps of answered images, drawn into a run's folder."""

    folder: Path
    classifier: Classifier
    catalog: Catalog
    predictions: Predictions
    how: How
    progress: Progress

    def draw(self, rows: np.ndarray, judged: Judged, deadline: Deadline) -> list[dict[str, Any]]:
        """Make, check and draw the heat of the images in these rows, as many as there is time for; return their entries."""
        answer = answer_of(self.classifier, self.how)
        evidence, unchecked = judged.evidence, self._unchecked(rows, judged)
        timed = Timed(Deadline(clock=deadline.clock))
        heats: dict[str, np.ndarray] = {}
        entries: list[dict[str, Any]] = []
        scale: float | None = None
        start, picture_s = 0, 0.0
        while start < len(rows) and deadline.fits(timed.heat_s + picture_s):
            part = rows[start : start + self._portion(deadline, timed.heat_s + picture_s, len(rows))]
            start += len(part)
            paths = [self.predictions.paths[i] for i in part]
            files = [self.catalog.file(p) for p in paths]
            targets = [int(self.predictions.y_pred[i]) for i in part]
            found = timed.heats(self.classifier, files, paths, targets, self.how, timed.deadline, self.progress)
            row_of = dict(zip(paths, part.tolist(), strict=True))
            if scale is None:
                scale = draw.shared_scale([*judged.found, *found] if deadline.limited else found)
            for item in found:
                begun = deadline.clock()
                if not deadline.fits(picture_s):
                    break
                if evidence is not None and item.path not in unchecked:
                    file = self.catalog.file(item.path)
                    evidence = with_picture(evidence, self.classifier, answer, item, file, self.how, deadline)
                name = f"explanations/{len(entries) + 1:03d}.png"
                entries.append(self._write(name, item, row_of[item.path], evidence, scale))
                heats[f"{len(entries):03d}"] = item.heat
                picture_s += (deadline.clock() - begun - picture_s) / len(entries)
                self.progress("heatmaps", len(entries), len(rows))
        if heats:
            with atomic_file(self.folder / "explanations" / "heat.npz") as stream_of:
                np.savez_compressed(stream_of, **heats)  # type: ignore[arg-type]
        return entries

    @staticmethod
    def _portion(deadline: Deadline, seconds: float, most: int) -> int:
        """Return of how many pictures the heat is made at once, where one takes so many seconds; 0 s is not known yet."""
        if not deadline.limited:
            return most
        return max(1, min(PORTION, int(deadline.left() / seconds))) if seconds else 1

    def _unchecked(self, rows: np.ndarray, judged: Judged) -> set[str]:
        """Return the pictures whose own order is not checked because there are too many, spread evenly."""
        own = {} if judged.evidence is None else judged.evidence.own
        left = [path for path in (self.predictions.paths[i] for i in rows) if path not in own]
        return set(left) - {left[i] for i in spread(len(left), most_pictures(self.classifier))}

    def _write(self, name: str, item: Explanation, row: int, evidence: Evidence | None, scale: float) -> dict[str, Any]:
        """Draw one picture and return its entry."""
        predictions = self.predictions
        label = predictions.classes[predictions.y_true[row]]
        probability = float(predictions.probs[row, predictions.y_pred[row]])
        check = None if evidence is None else evidence.of(item)
        said = None if check is None else (str(check["verdict"]), str(check["why"]))
        caption = Caption(label, item.target, probability, verdict=said)
        preprocess = self.classifier.card.backbone.preprocess
        write_overlay(self.folder / name, self.catalog.file(item.path), preprocess, item, caption, vmax=scale)
        return {
            "path": item.path,
            "label": label,
            "predicted": item.target,
            "probability": probability,
            "target": item.target,
            "method": item.method,
            "layer": item.layer,
            "correct": bool(predictions.y_pred[row] == predictions.y_true[row]),
            "overlay": name,
            "peak": None if item.flat else list(item.peak()),
            "verdict": None if check is None else check["verdict"],
        }


def write_overlay(
    target: Path,
    source: Path,
    preprocess: Preprocess,
    item: Explanation,
    caption: Caption,
    *,
    vmax: float | None = None,
) -> None:
    """Draw one heatmap over its photograph, reduced to a size that a page can hold; `vmax` as in `draw.overlay`."""
    header = pixels.read_header(read_bytes(source), source.name)
    size = (header.height, header.width)
    image = pixels.upright(source, draw.longest_px(item.box, size, OVERLAY_SIDE_PX), preprocess)
    picture = draw.overlay(image, item, caption, vmax=vmax, original=size)
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_bytes(target, data.getvalue())


def write_hidden(target: Path, done: Hidden, name: str, index: int) -> None:
    """Draw a photograph with what was covered, and the answer before and after in words."""
    from PIL import Image, ImageDraw

    picture = draw.fit(done.image, (OVERLAY_SIDE_PX, OVERLAY_SIDE_PX))
    covered = np.asarray(Image.fromarray(done.mask).resize((picture.shape[1], picture.shape[0]), Image.Resampling.NEAREST))
    picture = picture.copy()
    picture[draw.edges(covered)] = 255
    picture[draw.edges(covered | draw.edges(covered))] = 0
    wide = max(picture.shape[1], 260)
    page = Image.new("RGB", (wide, picture.shape[0] + 46), PAPER)
    page.paste(Image.fromarray(picture), ((wide - picture.shape[1]) // 2, 0))
    pen = ImageDraw.Draw(page)
    said = f": {done.before[index]:.0%} before, {done.after[index]:.0%} with {done.share:.0%} covered"
    text = shorten(name, max(wide - 16 - width(said, TEXT_PX), 40), TEXT_PX) + said
    pen.text((8, picture.shape[0] + 6), text, fill=INK, font=font(TEXT_PX))
    pen.text((8, picture.shape[0] + 27), "covered with the mean colour of the rest", fill=QUIET, font=font(SMALL_PX))
    data = io.BytesIO()
    page.save(data, "PNG")
    write_bytes(target, data.getvalue())
