"""Sample sheet: a picture with images of each class, upright and uncropped."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from pathlib import Path

from sightline import pixels, store
from sightline.errors import DataError, ImageError, RequestError
from sightline.records import Catalog, Progress, silent

SUFFIXES = (".png", ".jpg", ".jpeg")
_CELL_PX, _GAP_PX, _TITLE_PX = 128, 6, 20
_COLUMNS, _MOST_CLASSES = 8, 60


def check_sheet(file: Path) -> None:
    """Check the suffix of a sheet.

    Raises:
        RequestError: If it is not that of PNG or JPEG.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise RequestError(f"--sheet {file} is not a .png or .jpg file", "for example --sheet samples.png")


def write_sheet(catalog: Catalog, file: Path, *, progress: Progress = silent) -> list[str]:
    """Write a picture with up to 8 images of each class, one row per class, drawn by content.

    Args:
        catalog: n rows.
        file: PNG or JPEG file to write.
        progress: Progress callback.

    Returns:
        Paths of the images shown.

    Raises:
        DataError: If no image can be shown.
    """
    from PIL import Image, ImageDraw, ImageFont

    by_class: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    usable = catalog.usable()
    for path, label, content in zip(*(usable.column(n) for n in ("path", "label", "content")), strict=True):
        if label is not None:
            by_class[label].append((hashlib.sha256(f"sheet 0 {content or path}".encode()).digest(), path))
    classes = sorted(by_class)[:_MOST_CLASSES]
    step, high = _CELL_PX + _GAP_PX, _CELL_PX + _TITLE_PX + _GAP_PX
    more = _TITLE_PX if len(by_class) > len(classes) else 0
    page = Image.new("RGB", (_COLUMNS * step + _GAP_PX, max(1, len(classes)) * high + _GAP_PX + more), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    shown: list[str] = []
    for row, label in enumerate(classes):
        top = _GAP_PX + row * high
        title = f"{label} ({len(by_class[label]):,})"
        draw.text((_GAP_PX, top), title if font.getlength(title) < page.width else title[:90] + "…", fill="black", font=font)
        column = 0
        for _, path in sorted(by_class[label]):
            if column == _COLUMNS:
                break
            try:
                image = Image.fromarray(pixels.upright(catalog.file(path), 2 * _CELL_PX))
            except ImageError:
                continue
            image.thumbnail((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS)
            left = _GAP_PX + column * step + (_CELL_PX - image.width) // 2
            page.paste(image, (left, top + _TITLE_PX + (_CELL_PX - image.height) // 2))
            shown.append(path)
            column += 1
        progress("drawing samples", row + 1, len(classes))
    if not shown:
        raise DataError("no image can be shown on the sheet", "`sightline scan` lists the problem of each image")
    if more:
        draw.text((_GAP_PX, page.height - more), f"and {len(by_class) - len(classes):,} more classes", fill="black", font=font)
    stream = io.BytesIO()
    page.save(stream, "PNG" if file.suffix.lower() == ".png" else "JPEG")
    store.write_bytes(file, stream.getvalue())
    return shown
