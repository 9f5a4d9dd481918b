"""Contact sheets by class, of right answers and wrong ones, beside the nearest training images; average maps of classes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sightline import pixels
from sightline.explanation import class_maps, similar_images
from sightline.explanation.draw import overlay as draw
from sightline.explanation.draw.caption import Caption
from sightline.explanation.draw.lettering import GAP_PX, INK, PAPER, QUIET, SMALL_PX, TEXT_PX, font, shorten
from sightline.explanation.subject import ExplainedModel
from sightline.files import read_bytes
from sightline.records import Explanation, Predictions, Progress, silent
from sightline.store import Cache, slugs, write_bytes

if TYPE_CHECKING:
    from PIL import Image

By = Literal["label", "predicted"]
PER_SHEET = 12
SIDE_PX = 340
_THUMB_PX = 106
_AVERAGE_PX = 224


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
    subject: ExplainedModel,
    found: Sequence[Explanation],
    labels: Sequence[str | None],
    files: Mapping[str, Path],
    answers: Predictions,
    verdicts: Mapping[str, str],
    *,
    cache: Cache,
    device: str = "auto",
    progress: Progress = silent,
) -> dict[str, str]:
    """Write a sheet of right and one of wrong answers for each class, on one scale.

    Args:
        folder: Where.
        subject: What answered.
        found: Explanations, of the predicted classes or of one that was asked for.
        labels: The true classes, in the order of `files`.
        files: Names → files, in the order of the labels.
        answers: What was answered, under the same names.
        verdicts: Names → the words of the checks, of those that were checked.
        cache, device, progress: For the features of training images.

    Returns:
        Name of an image → the file of its sheet.
    """
    truth = dict(zip(files, labels, strict=True))
    said = dict(zip(answers.paths, answers.labels, strict=True))
    scale = draw.shared_scale(found)
    groups: dict[tuple[str, bool], list[Explanation]] = {}
    for item in found:
        label = truth.get(item.path)
        if label is not None:
            groups.setdefault((label, label == said[item.path]), []).append(item)
    shown = [files[item.path] for items in groups.values() for item in items[:PER_SHEET]]
    like = _like(subject, shown, cache, device, progress)
    names = slugs([*subject.model.classes, *(label for label, _ in sorted(groups))])
    sheet_of: dict[str, str] = {}
    for (label, right), items in sorted(groups.items()):
        pictures = [
            _picture(
                subject,
                item,
                files[item.path],
                caption_of(item, label, answers, verdicts.get(item.path)),
                scale,
                like.get(files[item.path], ()),
            )
            for item in items[:PER_SHEET]
        ]
        title = f"{label}: {'right' if right else 'wrong'} answers, {len(items)}"
        if len(items) > PER_SHEET:
            title += f", of which {PER_SHEET} are shown"
        file = folder / f"{'right' if right else 'wrong'}-{names[label]}.png"
        _save(draw.contact_sheet(pictures, title=title), file)
        sheet_of |= {item.path: str(file) for item in items}
    return sheet_of


def caption_of(item: Explanation, label: str, answers: Predictions, word: str | None) -> Caption:
    """What a picture of a sheet says, so that it can be traced: the answer and how sure, the file, the checks' word."""
    row = answers.paths.index(item.path)
    predicted, probs = int(answers.y_pred[row]), answers.probs[row]
    target = answers.classes.index(item.target)
    return Caption(
        label,
        answers.classes[predicted],
        float(probs[predicted]),
        None if target == predicted else float(probs[target]),
        Path(item.path).name,
        None if word is None else (word, ""),
    )


def write_average(folder: Path, found: Sequence[Explanation], class_of: Mapping[str, str], by: By) -> Path | None:
    """Write the average map of each class of two images or more as `average.png`.

    Args:
        folder: Where.
        found: Heat of the images.
        class_of: Name → the class that the image counts for.
        by: Whether that is its label or its predicted class.

    Returns:
        The file; None where no class has two images with heat, and nothing is written.
    """
    by_class: dict[str, list[Explanation]] = {}
    for item in found:
        by_class.setdefault(class_of[item.path], []).append(item)
    views = [class_maps.view(name, items) for name, items in sorted(by_class.items())]
    several = [v for v in views if v is not None and v.n > 1]
    if not several:
        return None
    targets = {item.target for item in found}
    target = targets.pop() if len(targets) == 1 and len(by_class) > 1 else None
    return _save(draw_average(several, by, target), folder / "average.png")


def draw_average(views: Sequence[class_maps.ClassView], by: By, target: str | None = None) -> Image.Image:
    """Draw the average map of each class on one scale; the frame marks the central 60 % of either side.

    Args:
        views: The classes.
        by: Whether the images of a class are those labelled with it, or those predicted as it.
        target: The class that the heat is for, where that is one for all; None where it is each view's own class.
    """
    from PIL import Image, ImageDraw

    most = max(float(v.mean.max() * v.mean.size) for v in views)
    side = _AVERAGE_PX
    bar = draw.colour_bar(side, most, unit="× even heat", whose="one scale")
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
    title = (
        f"Average maps {grouped}{'' if target is None else f', heat for {target}'}. One scale: maximum {most:.1f} × even heat"
    )
    return draw.contact_sheet(pictures, columns=min(len(pictures), 5), title=title)


def _like(
    subject: ExplainedModel, files: Sequence[Path], cache: Cache, device: str, progress: Progress
) -> dict[Path, list[tuple[Path, str]]]:
    """The training images that each file looks like to the classifier, with their classes; empty where they are not there."""
    training = None if subject.run is None else similar_images.training_of(subject.run.folder)
    if training is None or not len(training) or not files:
        return {}
    others, labels = training.files(), training.column("label")
    found = similar_images.lookalikes(subject.model, files, training, cache=cache, device=device, progress=progress)
    return {f: [(others[j], labels[j]) for j, _ in near] for f, near in zip(files, found, strict=True) if near}


def _picture(
    subject: ExplainedModel, item: Explanation, file: Path, caption: Caption, scale: float, near: Sequence[tuple[Path, str]]
) -> Image.Image:
    """One overlay of a sheet; below it the nearest training images that are still there, with their classes."""
    from PIL import Image, ImageDraw

    preprocess = subject.model.card.backbone.preprocess
    header = pixels.read_header(read_bytes(file), file.name)
    size = (header.height, header.width)
    image = pixels.upright(file, draw.longest_px(item.box, size, SIDE_PX), preprocess)
    overlay = draw.overlay(image, item, caption, vmax=scale, original=size, side_px=SIDE_PX)
    near = [(other, name) for other, name in near if other.is_file()]
    if not near:
        return overlay
    thumbs = [draw.fit(pixels.upright(other, 2 * _THUMB_PX, preprocess), (_THUMB_PX, _THUMB_PX)) for other, _ in near]
    top = overlay.height + 20
    high = max(thumb.shape[0] for thumb in thumbs)
    wide = max(overlay.width, len(near) * (_THUMB_PX + GAP_PX))
    page = Image.new("RGB", (wide, top + high + 24), PAPER)
    page.paste(overlay, (0, 0))
    pen = ImageDraw.Draw(page)
    pen.text((GAP_PX, overlay.height + 1), "most like it in training:", fill=QUIET, font=font(SMALL_PX + 1))
    for column, (thumb, (_, name)) in enumerate(zip(thumbs, near, strict=True)):
        left = GAP_PX + column * (_THUMB_PX + GAP_PX // 2)
        page.paste(Image.fromarray(thumb), (left, top))
        pen.text((left, top + high + 3), shorten(name, _THUMB_PX, SMALL_PX), fill=INK, font=font(SMALL_PX))
    return page


def _save(picture: Image.Image, file: Path) -> Path:
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_bytes(file, data.getvalue())
    return file
