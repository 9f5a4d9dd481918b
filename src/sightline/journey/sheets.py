"""Contact sheets by class, of right answers and wrong ones, beside the nearest training images; average maps of classes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import pixels
from sightline.explanation import draw, overall
from sightline.journey import nearest
from sightline.journey.request import slug
from sightline.journey.subject import Subject
from sightline.records import Explanation, Progress, silent
from sightline.store import Cache, write_bytes

if TYPE_CHECKING:
    from PIL import Image

PER_SHEET = 12
SIDE_PX = 300
_THUMB_PX = 92


def in_turn(labels: Sequence[Any]) -> list[int]:
    """Rows so that the classes take turns, each in its own order.

    Example:
        >>> in_turn(["a", "a", "b", "a", "b"])
        [0, 2, 1, 4, 3]
    """
    turns: dict[Any, int] = {}
    ranked = []
    for row, label in enumerate(labels):
        turns[label] = turns.get(label, 0) + 1
        ranked.append((turns[label], str(label), row))
    return [row for _, _, row in sorted(ranked)]


def write(
    folder: Path,
    subject: Subject,
    found: Sequence[Explanation],
    labels: Sequence[str | None],
    files: Mapping[str, Path],
    said: Mapping[str, str],
    *,
    cache: Cache,
    device: str = "auto",
    progress: Progress = silent,
) -> list[Path]:
    """Write a sheet of right and one of wrong answers for each class, one scale for all, and the classes' average maps.

    Args:
        folder: Where.
        subject: What answered.
        found: Explanations, of the predicted classes or of one that was asked for.
        labels: The true classes, in the order of `files`.
        files: Names → files, in the order of the labels.
        said: Names → the predicted classes.
        cache, device, progress: For the features of training images.

    Returns:
        The files.
    """
    truth = dict(zip(files, labels, strict=True))
    scale = draw.shared_scale(found)
    groups: dict[tuple[str, bool], list[Explanation]] = {}
    for item in found:
        label = truth.get(item.path)
        if label is not None:
            groups.setdefault((label, label == said[item.path]), []).append(item)
    shown = [files[item.path] for items in groups.values() for item in items[:PER_SHEET]]
    like = _like(subject, shown, cache, device, progress)
    written = []
    for (label, right), items in sorted(groups.items()):
        pictures = [
            _picture(subject, item, files[item.path], (label, said[item.path]), scale, like.get(files[item.path], ()))
            for item in items[:PER_SHEET]
        ]
        title = f"{label}: {'right' if right else 'wrong'} answers, {len(items)}"
        if len(items) > PER_SHEET:
            title += f", of which {PER_SHEET} are shown"
        written.append(
            _save(draw.contact_sheet(pictures, title=title), folder / f"{'right' if right else 'wrong'}-{slug(label)}.png")
        )
    views = average(found)
    if views:
        written.append(_save(draw_average(views), folder / "average.png"))
    return written


def average(found: Sequence[Explanation]) -> list[overall.ClassView]:
    """The classes' views, of all images that were given each as the answer."""
    by_class: dict[str, list[Explanation]] = {}
    for item in found:
        by_class.setdefault(item.target, []).append(item)
    views = [overall.view(name, items) for name, items in sorted(by_class.items())]
    return [v for v in views if v is not None]


def draw_average(views: Sequence[overall.ClassView]) -> Image.Image:
    """The average map of each class on one scale; the frame marks the central 60 % of either side."""
    from PIL import Image, ImageDraw

    most = max(float(v.mean.max() * v.mean.size) for v in views)
    pictures = []
    for v in views:
        side = 224
        placed = draw.place(v.mean * v.mean.size / most, (0, 0, 1, 1), (1, 1), (side, side))
        picture = Image.fromarray(draw.blend(np.full((side, side, 3), 150, np.uint8), placed))
        page = Image.new("RGB", (side + 16, side + 46), (255, 255, 255))
        page.paste(picture, (8, 0))
        pen = ImageDraw.Draw(page)
        edge = round(side * (1 - overall.CENTRE) / 2)
        pen.rectangle((8 + edge, edge, 8 + side - edge, side - edge), outline=(20, 20, 20))
        pen.text((8, side + 6), draw.shorten(f"{v.name} ({v.n})", side, 14), fill=(20, 20, 20), font=draw.font(14))
        pen.text((8, side + 26), f"{v.outside:.0%} outside the frame", fill=(95, 95, 95), font=draw.font(11))
        pictures.append(page)
    title = f"Average maps, one scale: the brightest is {most:.1f} × even heat"
    return draw.contact_sheet(pictures, columns=min(len(pictures), 5), title=title)


def _like(
    subject: Subject, files: Sequence[Path], cache: Cache, device: str, progress: Progress
) -> dict[Path, list[tuple[Path, str]]]:
    """The training images that each file looks like to the classifier, with their classes; empty where they are not there."""
    training = None if subject.run is None else nearest.training_of(subject.run.folder)
    if training is None or not len(training) or not files:
        return {}
    others, labels = training.files(), training.column("label")
    found = nearest.lookalikes(subject.model, files, training, cache=cache, device=device, progress=progress)
    return {f: [(others[j], labels[j]) for j, _ in near] for f, near in zip(files, found, strict=True) if near}


def _picture(
    subject: Subject, item: Explanation, file: Path, classes: tuple[str, str], scale: float, near: Sequence[tuple[Path, str]]
) -> Image.Image:
    """One overlay of a sheet with its true and its predicted class; to its right the nearest training images still there."""
    from PIL import Image, ImageDraw

    preprocess = subject.model.card.backbone.preprocess
    header = pixels.read_header(file.read_bytes(), file.name)
    image = pixels.upright(file, SIDE_PX, preprocess)
    caption = " → ".join(dict.fromkeys(classes))
    size = (header.height, header.width)
    overlay = draw.overlay(image, item, caption=caption, vmax=scale, original=size, side_px=SIDE_PX)
    near = [(other, name) for other, name in near if other.is_file()]
    if not near:
        return overlay
    page = Image.new(
        "RGB", (overlay.width + _THUMB_PX + 8, max(overlay.height, nearest.NEAREST * (_THUMB_PX + 16) + 14)), (255, 255, 255)
    )
    page.paste(overlay, (0, 0))
    pen = ImageDraw.Draw(page)
    pen.text((overlay.width + 4, 0), "like it in training", fill=(95, 95, 95), font=draw.font(9))
    for row, (other, name) in enumerate(near):
        top = 14 + row * (_THUMB_PX + 16)
        thumb = Image.fromarray(draw.fit(pixels.upright(other, 2 * _THUMB_PX, preprocess), (_THUMB_PX, _THUMB_PX)))
        page.paste(thumb, (overlay.width + 4, top))
        pen.text(
            (overlay.width + 4, top + thumb.height), draw.shorten(name, _THUMB_PX, 10), fill=(20, 20, 20), font=draw.font(10)
        )
    return page


def _save(picture: Image.Image, file: Path) -> Path:
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_bytes(file, data.getvalue())
    return file
