"""Pictures of a run folder as data URIs: reduced, limited in total size and without metadata."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline import activity
from sightline.files import read_bytes

MOST_PIXELS = 16_000_000
TINY_PX = 96
MOST_DRAWING_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """Image embedded in the report.

    Args:
        uri: `data:image/…;base64,…`.
        width, height: In pixels.
        tiny: Whether it is so small that it is enlarged with visible pixels.
    """

    uri: str
    width: int
    height: int
    tiny: bool


class Album:
    """Reader of pictures with a limit on their total size; pictures beyond it are left out and counted.

    Args:
        limit_bytes: Largest total length of the data URIs.
    """

    def __init__(self, limit_bytes: int = 20_000_000) -> None:
        self.left_bytes = limit_bytes
        self.left_out = 0

    def read(
        self, folder: Path, names: Sequence[str | None], max_side_px: int, *, transparent: bool = False
    ) -> list[Picture | None]:
        """Read pictures in order; None for each that is absent, unreadable or over the limit."""
        with activity.workers(2, "sightline-report") as pool:
            found = list(pool.map(lambda name: picture(folder, name, max_side_px, transparent=transparent), names))
        pictures: list[Picture | None] = []
        for item in found:
            if item is not None and len(item.uri) > self.left_bytes:
                self.left_out += 1
                item = None
            self.left_bytes -= len(item.uri) if item is not None else 0
            pictures.append(item)
        return pictures


def picture(folder: Path, name: str | None, max_side_px: int, *, transparent: bool = False) -> Picture | None:
    """Read a picture and re-encode its pixels, without position, comments or colour profile.

    Args:
        folder: The run folder; files outside it are not opened.
        name: Path relative to the folder.
        max_side_px: Longest side; larger pictures are reduced.
        transparent: Whether to keep the opacity of the pixels.
    """
    from PIL import Image

    mode = "RGBA" if transparent else "RGB"

    if not name:
        return None
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            return None
        with Image.open(io.BytesIO(read_bytes(file)), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            if image.format == "JPEG":
                image.draft("RGB", (max_side_px, max_side_px))
            pixels = image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if max(pixels.size) > max_side_px:
        pixels.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS, reducing_gap=2.0)
    tiny = max(pixels.size) <= TINY_PX
    bare = Image.frombytes(mode, pixels.size, pixels.tobytes())
    kind, options = ("png", {}) if tiny else ("jpeg", {"quality": 84, "subsampling": 0})
    if transparent:
        kind, options = "webp", {"quality": 75}
    data = io.BytesIO()
    bare.save(data, kind.upper(), **options)
    uri = f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    return Picture(uri, bare.width, bare.height, tiny)


def drawing(folder: Path, name: str | None) -> str | None:
    """Return an SVG file of a run as a data URI, in which nothing is loaded or run; None if it is absent or too large.

    Args:
        folder: The run folder; files outside it are not opened.
        name: Path relative to the folder.
    """
    file = (folder / name).resolve() if name else None
    if file is None or not file.is_relative_to(folder.resolve()) or not file.is_file():
        return None
    data = read_bytes(file)
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode('ascii')}" if len(data) <= MOST_DRAWING_BYTES else None
