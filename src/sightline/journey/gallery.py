"""The pictures of a run: samples as the network sees them, and heatmaps of mistakes and of right answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError
from sightline.explanation import draw
from sightline.explanation.caption import Caption
from sightline.explanation.lettering import INK, PAPER, QUIET, SMALL_PX, TEXT_PX, font, shorten, width
from sightline.journey.evidence import How, skill_of, with_pictures
from sightline.journey.heats import heats_of
from sightline.journey.hiding import Hidden
from sightline.journey.judged import judge
from sightline.journey.subject import explainable
from sightline.records import Catalog, Explanation, Predictions, Preprocess, Progress
from sightline.store import Cache, atomic_file, stream, write_bytes

SAMPLES = 12
SAMPLE_SIDE_PX = 320
OVERLAY_SIDE_PX = 420
MOST_EXPLAINED = 400
CORRECT_EXPLAINED = 12


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


def choose_explained(predictions: Predictions, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to explain: every mistake, the most confident first, and some right answers of every class."""
    wrong = np.flatnonzero((predictions.y_pred != predictions.y_true) & (predictions.y_true >= 0))
    wrong = wrong[np.argsort(-predictions.probs[wrong].max(axis=1), kind="stable")][:MOST_EXPLAINED]
    right = np.flatnonzero(predictions.y_pred == predictions.y_true)
    right = right[stream(seed, "explained").permutation(len(right))]
    turn: dict[int, int] = {}
    ranks = []
    for row in right:
        label = int(predictions.y_true[row])
        ranks.append(turn.get(label, 0))
        turn[label] = ranks[-1] + 1
    return wrong, right[np.argsort(ranks, kind="stable")][:CORRECT_EXPLAINED]


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
) -> dict[str, Any]:
    """Explain mistakes and some right answers; write overlays and raw maps, and say how far they can be believed.

    Returns:
        For run.json: `explanations`, mistakes first, the most confident first; `heat_checks` and `heat_global` as in `judge`.
    """
    if not explainable(classifier) or not len(predictions):
        return {"explanations": []}
    how = How(cache, device, seed)
    skill = skill_of(classifier, answers=predictions)
    judged = judge(classifier, catalog, predictions, how, skill, progress)
    wrong, right = choose_explained(predictions, seed)
    rows = np.concatenate([wrong, right])
    paths = [predictions.paths[i] for i in rows]
    targets = [int(predictions.y_pred[i]) for i in rows]
    files = [catalog.file(p) for p in paths]
    found, _ = heats_of(classifier, files, paths, targets, cache=cache, device=device, seed=seed, progress=progress)
    evidence = judged.evidence
    if evidence is not None:
        evidence = with_pictures(evidence, classifier, found, dict(zip(paths, files, strict=True)), how, progress)
    row_of, scale = dict(zip(paths, rows, strict=True)), draw.shared_scale(found)
    entries: list[dict[str, Any]] = []
    for number, item in enumerate(found, 1):
        row = row_of[item.path]
        label = predictions.classes[predictions.y_true[row]]
        probability = float(predictions.probs[row, predictions.y_pred[row]])
        name = f"explanations/{number:03d}.png"
        preprocess = classifier.card.backbone.preprocess
        check = None if evidence is None else evidence.of(item)
        said = None if check is None else (str(check["verdict"]), str(check["why"]))
        caption = Caption(label, item.target, probability, verdict=said)
        write_overlay(folder / name, catalog.file(item.path), preprocess, item, caption, vmax=scale)
        entries.append(
            {
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
        )
        progress("heatmaps", number, len(found))
    if found:
        with atomic_file(folder / "explanations" / "heat.npz") as file:
            np.savez_compressed(file, **{f"{i:03d}": item.heat for i, item in enumerate(found, 1)})  # type: ignore[arg-type]
    return {"explanations": entries, **judged.data}


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
    header = pixels.read_header(source.read_bytes(), source.name)
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
