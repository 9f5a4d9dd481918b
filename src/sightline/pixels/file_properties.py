"""File properties: how an image file was encoded and by what, read from its bytes without decoding pixels."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path

from sightline.errors import ImageError
from sightline.pixels import opening
from sightline.pixels.decoding import jpeg_quality, read
from sightline.pixels.header import read_header

PROPERTIES: dict[str, str] = {
    "format": "file format",
    "mode": "colour mode",
    "width": "width",
    "height": "height",
    "orientation": "EXIF orientation",
    "jpeg_quality": "JPEG quality",
    "jpeg_encoder": "JPEG encoder settings",
    "software": "EXIF software",
    "camera": "EXIF camera",
    "date": "acquisition date",
    "profile": "colour profile",
    "metadata": "kinds of metadata",
    "comment": "file comment",
}
"""File property → its name in messages."""
_SOFTWARE, _MAKE, _MODEL, _CHANGED, _EXIF, _TAKEN = 0x0131, 0x010F, 0x0110, 0x0132, 0x8769, 0x9003
_MOST_TEXT = 60


def file_properties(file: Path) -> dict[str, str]:
    """Return the `PROPERTIES` of an image file that it has, as text.

    Raises:
        ImageError: If the file cannot be read or is not an image.

    Example:
        >>> import tempfile; from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (8, 6)).save(f"{folder}/a.jpg", quality=50)
        ...     found = file_properties(Path(folder) / "a.jpg")
        >>> found["format"], found["width"], found["jpeg_quality"], "software" in found
        ('JPEG', '8', '50', False)
    """
    data, name = read(file)
    header = read_header(data, name)
    found = {"format": header.format, "mode": header.mode, "width": str(header.width), "height": str(header.height)}
    if header.orientation != 1:
        found["orientation"] = str(header.orientation)
    try:
        with opening.quiet():
            found |= _of_pillow(data, header.format)
    except (ImageError, OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        pass  # damaged metadata: what the header tells remains
    if header.format == "JPEG":
        tables, found["metadata"] = _jpeg_structure(data)
        found["jpeg_encoder"] = f"quality {found.get('jpeg_quality', '?')}, tables {tables}"
    return found


def _of_pillow(data: bytes, form: str) -> dict[str, str]:
    """Return what Pillow reads without decoding: quality, EXIF, comment and colour profile."""
    from PIL import Image, JpegImagePlugin

    image = opening.open_image(data, form)
    found: dict[str, str] = {}
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        quality = jpeg_quality(image)
        if quality == quality:
            found["jpeg_quality"] = f"{quality:.0f}"
    block = image.info.get("exif") or _jpeg_exif(data)
    exif = Image.Exif()
    if block:
        exif.load(block)
    elif form != "JPEG":
        exif = image.getexif()
    texts = {
        "software": _text(exif.get(_SOFTWARE)) or _text(image.info.get("Software")),
        "camera": " ".join(v for v in (_text(exif.get(_MAKE)), _text(exif.get(_MODEL))) if v),
        "date": (_text(exif.get_ifd(_EXIF).get(_TAKEN)) or _text(exif.get(_CHANGED)))[:10].replace(":", "-"),
        "comment": _text(image.info.get("comment")),
    }
    profile = image.info.get("icc_profile")
    if profile:
        texts["profile"] = hashlib.sha256(profile).hexdigest()[:8]
    return found | {name: text for name, text in texts.items() if text}


def _text(value: object) -> str:
    """Return a text field of a file as one short line; "" for anything else."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(str(value).replace("\0", " ").split())[:_MOST_TEXT] if isinstance(value, str) else ""


def _jpeg_exif(data: bytes) -> bytes:
    """Return the EXIF block of a JPEG, which our reader leaves unread; b"" if there is none."""
    start = data.find(b"Exif\x00\x00", 0, 1 << 17)
    if start < 4 or data[start - 4 : start - 2] != b"\xff\xe1":
        return b""
    return data[start : start - 2 + struct.unpack_from(">H", data, start - 2)[0]]


def _jpeg_structure(data: bytes) -> tuple[str, str]:
    """Return a hash of a JPEG's tables, subsampling and kind of scan, and the names of its metadata segments."""
    stream, tables, segments = io.BytesIO(data), hashlib.sha256(), list[str]()
    stream.seek(2)
    while True:
        marker = stream.read(2)
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] in (0xD9, 0xDA):
            break
        size = stream.read(2)
        if len(size) < 2:
            break
        body = stream.read(max(0, struct.unpack(">H", size)[0] - 2))
        if marker[1] == 0xDB:
            tables.update(b"q" + body)
        elif 0xC0 <= marker[1] <= 0xCF and marker[1] != 0xC4:
            tables.update(bytes([marker[1]]) + body[5:])  # without height and width
        elif 0xE0 <= marker[1] <= 0xEF or marker[1] == 0xFE:
            kind = body.split(b"\0", 1)[0][:16].decode("ascii", "replace") if marker[1] != 0xFE else "comment"
            segments.append(kind if kind.isprintable() else f"APP{marker[1] & 15}")
    return tables.hexdigest()[:8], "+".join(dict.fromkeys(segments)) or "none"
