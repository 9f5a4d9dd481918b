"""Contact sheets by class, of right answers and wrong ones, beside the nearest training images; average maps of classes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import pixels
from sightline.explanation import draw, overall
from sightline.journey.request import slug
from sightline.journey.subject import Subject, catalog_of
from sightline.records import Explanation
from sightline.store import Cache, write_bytes

if TYPE_CHECKING:
    from PIL import Image

PER_SHEET = 12
SIDE_PX = 300
NEAREST = 3
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
    cache: Cache,
) -> list[Path]:
    """Write a sheet of right and one of wrong answers for each class, one scale for all, and the classes' average maps.

    Args:
        folder: Where.
        subject: What answered.
        found: Explanations of the predicted classes.
        labels: The true classes, in the order of `files`.
        files: Names → files, in the order of the labels.
        cache: For the features of training images.

    Returns:
        The files.
    """
    truth = dict(zip(files, labels, strict=True))
    scale = draw.shared_scale(found)
    nearest = Nearest.of(subject, cache)
    groups: dict[tuple[str, bool], list[Explanation]] = {}
    for item in found:
        label = truth.get(item.path)
        if label is not None:
            groups.setdefault((label, label == item.target), []).append(item)
    written = []
    for (label, right), items in sorted(groups.items()):
        pictures = [_picture(subject, item, files[item.path], label, scale, nearest) for item in items[:PER_SHEET]]
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


class Nearest:
    """Training images by their features, to be shown beside an image that is like them.

    Args:
        files: m training files.
        labels: Their classes.
        values: float32 (m, d), of length 1.
        features: Features float32 (d,) by an image's name.
    """

    def __init__(self, files: list[Path], labels: list[str], values: np.ndarray, ask: Any) -> None:
        self.files, self.labels, self.values, self.ask = files, labels, values, ask

    @classmethod
    def of(cls, subject: Subject, cache: Cache) -> Nearest | None:
        """None where there is no training catalog, or no one network whose features could be compared."""
        catalog = None if subject.run is None else catalog_of(subject.run)
        if catalog is None or subject.model.members or not subject.model.looks_at_images:
            return None
        train = catalog.usable().where(split="train")
        if not len(train):
            return None
        backbone, precision = subject.model.card.backbone, subject.model.card.precision.get("used", "f32")
        from sightline import features

        def session(count: int) -> Any:
            return subject.model.session(cache, expected=count)

        def ask(files: Sequence[Path], contents: Sequence[str]) -> features.Features:
            return features.extract(files, contents, backbone, session=session, precision=precision, cache=cache)

        found = ask(train.files(), train.column("content"))
        kept = np.flatnonzero(found.ok)
        files, labels = train.files(), train.column("label")
        return cls([files[i] for i in kept], [labels[i] for i in kept], _unit(found.values[kept]), ask)

    def to(self, file: Path) -> list[tuple[Path, str]]:
        """The nearest training images by the cosine of their features, and their classes; not the image itself."""
        from sightline.store import file_digest

        found = self.ask([file], [file_digest(file)])
        if not found.ok[0]:
            return []
        order = np.argsort(-(self.values @ _unit(found.values)[0]), kind="stable")
        others = [i for i in order[: NEAREST + 1] if self.files[i].resolve() != file.resolve()]
        return [(self.files[i], self.labels[i]) for i in others[:NEAREST]]


def _unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))


def _picture(subject: Subject, item: Explanation, file: Path, label: str, scale: float, nearest: Nearest | None) -> Image.Image:
    """One overlay of a sheet; to its right the nearest training images."""
    from PIL import Image, ImageDraw

    preprocess = subject.model.card.backbone.preprocess
    header = pixels.read_header(file.read_bytes(), file.name)
    image = pixels.upright(file, SIDE_PX, preprocess)
    caption = f"{label} → {item.target}" if label != item.target else label
    size = (header.height, header.width)
    overlay = draw.overlay(image, item, caption=caption, vmax=scale, original=size, side_px=SIDE_PX)
    near = [] if nearest is None else nearest.to(file)
    if not near:
        return overlay
    page = Image.new(
        "RGB", (overlay.width + _THUMB_PX + 8, max(overlay.height, NEAREST * (_THUMB_PX + 16) + 14)), (255, 255, 255)
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
