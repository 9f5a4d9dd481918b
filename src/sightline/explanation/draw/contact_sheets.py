"""Contact sheets: grids of images, labelled rows, right and wrong predictions by class, and average heatmaps of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline import pixels
from sightline.containers import is_file
from sightline.errors import RequestError
from sightline.explanation import class_maps, similar_images
from sightline.explanation.draw import overlay as draw
from sightline.explanation.draw.caption import Caption
from sightline.explanation.draw.lettering import GAP_PX, INK, PAPER, QUIET, SMALL_PX, TEXT_PX, TITLE_PX, font, shorten, wrap
from sightline.explanation.subject import ExplainedModel
from sightline.records import Explanation, Predictions, Progress, silent
from sightline.store import Cache, slugs

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

By = Literal["label", "predicted"]
PER_SHEET = 12
SIDE_PX = 340
_THUMBNAIL_PX = 106
_AVERAGE_PX = 224
_TITLE_LINES = 3

# --------------------------------------------------------------------------------------------------------------------- grids


def contact_sheet(pictures: Sequence[Image.Image], *, columns: int | None = None, title: str = "") -> Image.Image:
    """Arrange images in a grid: each column as wide as the widest image, each row as high as its highest.

    Args:
        pictures: At least one.
        columns: Number per row; None makes the sheet about as wide as it is high.
        title: Above the grid, in at most three lines.

    Returns:
        An RGB image.
    """
    from PIL import Image, ImageDraw

    if not pictures:
        raise RequestError("a contact sheet needs at least one image")
    wide = max(p.width for p in pictures) + GAP_PX
    columns = columns or math.ceil(math.sqrt(sum(p.height + GAP_PX for p in pictures) / wide))
    columns = min(columns, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    heights = [max(p.height for p in row) + GAP_PX for row in rows]
    across = columns * wide + GAP_PX
    lines = wrap(title, across - 2 * GAP_PX, TITLE_PX, _TITLE_LINES)
    top = GAP_PX + (TITLE_PX + 6) * len(lines)
    sheet = Image.new("RGB", (across, top + sum(heights)), PAPER)
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((GAP_PX, 6 + (TITLE_PX + 6) * number), line, fill=INK, font=font(TITLE_PX), anchor="la")
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP_PX + column * wide, top))
        top += height
    return sheet


# -------------------------------------------------------------------------------------------------------------- labelled rows

_LINE = (222, 222, 222)
_MARGIN_PX, _LABEL_PX, _CELL_GAP_PX, _GROUP_GAP_PX, _ROW_GAP_PX = 28, 236, 10, 30, 16
_CELL_PX, _CAPTION_PX = 136, 20
_HEADER_PX, _HEADING_PX, _NAME_PX, _NOTE_PX = 22, 16, 15, 12
_LINE_PX = 18


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of a sheet with labelled rows.

    Args:
        picture: uint8 (s, s, 3).
        caption: Text below it; long text is shortened in its middle.
    """

    picture: np.ndarray
    caption: str


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled row of images.

    Args:
        name: Label at its left, in one line.
        text: Text below the label, in as many lines as fit.
        groups: The images; groups stand further apart, and each is as wide as the longest of its section.
    """

    name: str
    text: str
    groups: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under one heading.

    Args:
        heading: Heading above them.
        columns: A heading for each group, or none.
        rows: At least one.
    """

    heading: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def places(self) -> int:
        """Return the number of cells of a group."""
        return max((len(group) for row in self.rows for group in row.groups), default=0)

    @property
    def groups(self) -> int:
        """Return the number of groups of a row."""
        return max((len(row.groups) for row in self.rows), default=0)


def write_sheet(target: Path, title: str, text: str, sections: Sequence[Section]) -> tuple[int, int]:
    """Write a sheet of labelled rows.

    Args:
        target: A PNG file.
        title, text: At the top.
        sections: From top to bottom.

    Returns:
        (height, width) in pixels.
    """
    from PIL import Image, ImageDraw

    side = _side(sections)
    width = _MARGIN_PX * 2 + _LABEL_PX + max((_width(section, side) for section in sections), default=0)
    height = _MARGIN_PX * 2 + 62 + sum(_height(section, side) for section in sections)
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    room = width - 2 * _MARGIN_PX
    pen.text((_MARGIN_PX, _MARGIN_PX), shorten(title, room, _HEADER_PX), fill=INK, font=font(_HEADER_PX))
    pen.text((_MARGIN_PX, _MARGIN_PX + 32), shorten(text, room, _NOTE_PX + 1), fill=QUIET, font=font(_NOTE_PX + 1))
    top = _MARGIN_PX + 62
    for section in sections:
        _draw_section(page, pen, section, top, side, width)
        top += _height(section, side)
    draw.save_png(page, target, optimize=True)
    return height, width


def _side(sections: Sequence[Section]) -> int:
    """Return the side at which images are drawn: small ones enlarged by an integer factor, so that pixels stay square."""
    sides = {cell.picture.shape[0] for s in sections for row in s.rows for group in row.groups for cell in group}
    largest = max(sides, default=_CELL_PX)
    return largest * max(1, round(_CELL_PX / largest)) if largest <= draw.PIXEL_ART_PX else _CELL_PX


def _group_width(section: Section, side: int) -> int:
    return section.places * (side + _CELL_GAP_PX) - _CELL_GAP_PX


def _width(section: Section, side: int) -> int:
    return section.groups * (_group_width(section, side) + _GROUP_GAP_PX) - _GROUP_GAP_PX


def _height(section: Section, side: int) -> int:
    return 44 + (26 if section.columns else 0) + len(section.rows) * (side + _CAPTION_PX + _ROW_GAP_PX) + 12


def _draw_section(page: Image.Image, pen: ImageDraw.ImageDraw, section: Section, top: int, side: int, width: int) -> None:
    """Draw a rule, the headings and the rows of a section."""
    from PIL import Image

    pen.line([(_MARGIN_PX, top), (width - _MARGIN_PX, top)], fill=_LINE)
    pen.text((_MARGIN_PX, top + 12), section.heading, fill=INK, font=font(_HEADING_PX))
    top += 44
    left = _MARGIN_PX + _LABEL_PX
    group = _group_width(section, side)
    for number, text in enumerate(section.columns):
        at = (left + number * (group + _GROUP_GAP_PX), top)
        pen.text(at, shorten(text, group, _NOTE_PX), fill=QUIET, font=font(_NOTE_PX))
    top += 26 if section.columns else 0
    for row in section.rows:
        _draw_label(pen, row, top, side)
        for number, cells in enumerate(row.groups):
            for place, cell in enumerate(cells):
                x = left + number * (group + _GROUP_GAP_PX) + place * (side + _CELL_GAP_PX)
                page.paste(Image.fromarray(draw.fit(cell.picture, (side, side))), (x, top))
                pen.rectangle([x - 1, top - 1, x + side, top + side], outline=_LINE)
                caption = shorten(cell.caption, side + _CELL_GAP_PX - 2, _NOTE_PX)
                pen.text((x + side / 2, top + side + 5), caption, fill=QUIET, font=font(_NOTE_PX), anchor="ma")
        top += side + _CAPTION_PX + _ROW_GAP_PX


def _draw_label(pen: ImageDraw.ImageDraw, row: Row, top: int, side: int) -> None:
    """Draw the name of a row, and its text below."""
    room, most = _LABEL_PX - 24, max(1, (side - 24) // _LINE_PX)
    pen.text((_MARGIN_PX, top), shorten(row.name, room, _NAME_PX), fill=INK, font=font(_NAME_PX))
    lines = [line for paragraph in row.text.split("\n") for line in wrap(paragraph, room, _NOTE_PX, most)]
    for number, line in enumerate(lines[:most]):
        pen.text((_MARGIN_PX, top + 24 + _LINE_PX * number), line, fill=QUIET, font=font(_NOTE_PX))


# ------------------------------------------------------------------------------------------------------------------- by class


def in_turn(labels: Sequence[Any]) -> list[int]:
    """Return rows so that the classes take turns, each in its own order.

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
    subject: ExplainedModel,
    explanations: Sequence[Explanation],
    *,
    labels: Sequence[str | None],
    files: Mapping[str, Path],
    predictions: Predictions,
    verdicts: Mapping[str, str],
    cache: Cache,
    device: str = "auto",
    progress: Progress = silent,
) -> dict[str, str]:
    """Write a sheet of right and one of wrong predictions for each class, on one colour scale.

    Args:
        folder: The output folder.
        subject: The explained classifier.
        explanations: Explanations, of the predicted classes or of a requested one.
        labels: The true classes, in the order of `files`.
        files: Names → files, in the order of the labels.
        predictions: The predictions, under the same names.
        verdicts: Names → verdicts of the checks, of those that were checked.
        cache, device, progress: For the features of training images.

    Returns:
        Name of an image → the file of its sheet.
    """
    truth = dict(zip(files, labels, strict=True))
    predicted = dict(zip(predictions.paths, predictions.labels, strict=True))
    scale = draw.shared_scale(explanations)
    groups: dict[tuple[str, bool], list[Explanation]] = {}
    for item in explanations:
        label = truth.get(item.path)
        if label is not None:
            groups.setdefault((label, label == predicted[item.path]), []).append(item)
    shown = [files[item.path] for items in groups.values() for item in items[:PER_SHEET]]
    similar = _similar(subject, shown, cache, device, progress)
    names = slugs([*subject.model.classes, *(label for label, _ in sorted(groups))])
    sheet_of: dict[str, str] = {}
    for (label, right), items in sorted(groups.items()):
        pictures = []
        for item in items[:PER_SHEET]:
            file, caption = files[item.path], caption_of(item, label, predictions, verdicts.get(item.path))
            pictures.append(_picture(subject, item, file, caption, scale, similar.get(file, ())))
        title = f"{label}: {'right' if right else 'wrong'} predictions, {len(items)}"
        if len(items) > PER_SHEET:
            title += f", the first {PER_SHEET} shown"
        sheet = folder / f"{'right' if right else 'wrong'}-{names[label]}.png"
        draw.save_png(contact_sheet(pictures, title=title), sheet)
        sheet_of |= {item.path: str(sheet) for item in items}
    return sheet_of


def caption_of(item: Explanation, label: str, predictions: Predictions, verdict: str | None) -> Caption:
    """Return the caption of an image in a sheet: prediction, probability, file name and verdict."""
    row = predictions.paths.index(item.path)
    predicted, probs = int(predictions.y_pred[row]), predictions.probs[row]
    target = predictions.classes.index(item.target)
    return Caption(
        label=label,
        predicted=predictions.classes[predicted],
        probability=float(probs[predicted]),
        target_probability=None if target == predicted else float(probs[target]),
        name=Path(item.path).name,
        verdict=None if verdict is None else (verdict, ""),
    )


def write_average(folder: Path, explanations: Sequence[Explanation], class_of: Mapping[str, str], by: By) -> Path | None:
    """Write the average heatmap of each class of two images or more as `average.png`.

    Args:
        folder: The output folder.
        explanations: Explanations of the images.
        class_of: Name → the class that the image counts for.
        by: Whether that is its label or its predicted class.

    Returns:
        The file; None where no class has two images with evidence, and nothing is written.
    """
    by_class: dict[str, list[Explanation]] = {}
    for item in explanations:
        by_class.setdefault(class_of[item.path], []).append(item)
    views = [class_maps.view(name, items) for name, items in sorted(by_class.items())]
    several = [v for v in views if v is not None and v.n > 1]
    if not several:
        return None
    targets = {item.target for item in explanations}
    target = targets.pop() if len(targets) == 1 and len(by_class) > 1 else None
    return draw.save_png(draw_average(several, by, target), folder / "average.png")


def draw_average(views: Sequence[class_maps.ClassView], by: By, target: str | None = None) -> Image.Image:
    """Draw the average heatmap of each class on one colour scale; the frame marks the central 60 % of either side.

    Args:
        views: The classes.
        by: Whether the images of a class are those labelled with it, or those predicted as it.
        target: The class that all heatmaps explain; None where each explains its own class.
    """
    from PIL import Image, ImageDraw

    most = max(float(v.mean.max() * v.mean.size) for v in views)
    side = _AVERAGE_PX
    bar = draw.colour_bar(side, most, unit="× uniform", whose="one scale")
    pictures = []
    for v in views:
        placed = draw.place(v.mean * v.mean.size / most, (0, 0, 1, 1), (1, 1), (side, side))
        page = Image.new("RGB", (side + bar.width, side + 46), PAPER)
        page.paste(Image.fromarray(draw.blend(np.full((side, side, 3), 150, np.uint8), placed)), (0, 0))
        page.paste(bar, (side, 0))
        pen = ImageDraw.Draw(page)
        edge = round(side * (1 - class_maps.CENTRE) / 2)
        pen.rectangle((edge, edge, side - edge, side - edge), outline=INK)
        pen.text((0, side + 6), shorten(f"{by} {v.name} ({v.n} images)", page.width, TEXT_PX), fill=INK, font=font(TEXT_PX))
        pen.text((0, side + 26), f"{v.outside:.0%} outside the frame", fill=QUIET, font=font(SMALL_PX))
        pictures.append(page)
    grouped = "by label (true class)" if by == "label" else "by predicted class"
    evidence = "" if target is None else f", evidence for {target}"
    title = f"Average heatmaps {grouped}{evidence}. One scale: maximum {most:.1f} × the uniform value"
    return contact_sheet(pictures, columns=min(len(pictures), 5), title=title)


def _similar(
    subject: ExplainedModel, files: Sequence[Path], cache: Cache, device: str, progress: Progress
) -> dict[Path, list[tuple[Path, str]]]:
    """Return the training images that are most similar to each file, with their classes; empty where they are missing."""
    training = None if subject.run is None else similar_images.training_of(subject.run.folder)
    if training is None or not len(training) or not files:
        return {}
    others, labels = training.files(), training.column("label")
    neighbours = similar_images.lookalikes(subject.model, files, training, cache=cache, device=device, progress=progress)
    return {f: [(others[j], labels[j]) for j, _ in near] for f, near in zip(files, neighbours, strict=True) if near}


def _picture(
    subject: ExplainedModel,
    item: Explanation,
    file: Path,
    caption: Caption,
    scale: float,
    similar: Sequence[tuple[Path, str]],
) -> Image.Image:
    """Draw one overlay of a sheet with the most similar training images that still exist, and their classes."""
    from PIL import Image, ImageDraw

    preprocess = subject.model.card.backbone.preprocess
    overlay = draw.overlay_file(file, preprocess, item, caption, vmax=scale, side_px=SIDE_PX)
    similar = [(other, name) for other, name in similar if is_file(other)]
    if not similar:
        return overlay
    room = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    thumbnails = [draw.fit(pixels.upright(other, 2 * _THUMBNAIL_PX, preprocess), room) for other, _ in similar]
    top = overlay.height + 20
    high = max(thumbnail.shape[0] for thumbnail in thumbnails)
    wide = max(overlay.width, len(similar) * (_THUMBNAIL_PX + GAP_PX))
    page = Image.new("RGB", (wide, top + high + 24), PAPER)
    page.paste(overlay, (0, 0))
    pen = ImageDraw.Draw(page)
    pen.text((GAP_PX, overlay.height + 1), "most similar training images:", fill=QUIET, font=font(SMALL_PX + 1))
    for column, (thumbnail, (_, name)) in enumerate(zip(thumbnails, similar, strict=True)):
        left = GAP_PX + column * (_THUMBNAIL_PX + GAP_PX // 2)
        page.paste(Image.fromarray(thumbnail), (left, top))
        pen.text((left, top + high + 3), shorten(name, _THUMBNAIL_PX, SMALL_PX), fill=INK, font=font(SMALL_PX))
    return page
