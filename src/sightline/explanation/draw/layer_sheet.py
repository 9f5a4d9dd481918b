"""Heatmaps of one image at several layers, side by side: coarse maps near the end, fine ones near the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sightline.explanation.draw import overlay
from sightline.explanation.draw.contact_sheets import contact_sheet
from sightline.explanation.draw.lettering import INK, PAPER, TEXT_PX, font, shorten
from sightline.records import Explanation, Preprocess

_SIDE_PX = 240
_LABEL_PX = 22


def write(sheet: Path, file: Path, items: Sequence[Explanation], preprocess: Preprocess) -> None:
    """Draw the heatmaps of one image in a row, each on its own scale, below it the layer and the size of its map.

    Args:
        sheet: PNG file to write.
        file: The image.
        items: Its heatmaps, one per layer, with the same target and box.
        preprocess: Preprocessing of the network.
    """
    from PIL import Image, ImageDraw

    image, size = overlay.read_photo(file, items[0].box, preprocess, _SIDE_PX)
    pages = []
    for item in items:
        drawn = overlay.layers(image, item, original=size, side_px=_SIDE_PX)
        picture = overlay.flatten(drawn.photo, drawn.heat)
        height, width = picture.shape[:2]
        page = Image.new("RGB", (max(width, _SIDE_PX), height + _LABEL_PX), PAPER)
        page.paste(Image.fromarray(picture), (0, 0))
        text = shorten(item.layer, page.width, TEXT_PX)
        ImageDraw.Draw(page).text((0, height + 3), text, fill=INK, font=font(TEXT_PX))
        pages.append(page)
    title = f"{items[0].method} for “{items[0].target}” by layer, each on its own scale, {file.name}"
    overlay.save_png(contact_sheet(pages, columns=min(len(pages), 5), title=title), sheet)
