"""Format detection: identify an image format by its first bytes; name known formats that are not supported."""

from __future__ import annotations

import re
from pathlib import PurePath

from sightline.errors import ImageError

SUFFIXES: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "ARRAY": (),
}
"""Supported formats and their usual extensions. ARRAY is numpy's format, in which images of files of arrays are read."""

KNOWN_SUFFIXES = frozenset(s for group in SUFFIXES.values() for s in group)
"""Extensions of supported image formats, in lower case."""

# Known formats that are not decoded, as (offset, signature, description). No external program is started for them.
_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document (EPS)"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document (EPS)"),
    (0, b"SIMPLE  =", "a FITS file"),
    (4, b"ftypcrx", "a raw camera file"),
    (4, b"ftyp", "a video or another ISO media file"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\x00\x00\x01\x00", "a Windows icon"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance image"),
    (0, b"qoif", "a QOI image"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (257, b"ustar", "a tar archive"),
    (128, b"DICM", "a DICOM file"),
)

_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2")
_HINT = f"Sightline reads {', '.join(form for form in SUFFIXES if form != 'ARRAY')}; convert the file, or leave it out"


def sniff(data: bytes, name: str) -> str:
    """Return the format of an image by its first bytes, a key of `SUFFIXES`.

    Raises:
        ImageError: If the file is `empty`, has a known but `unsupported` format, or is `not an image`.
    """
    if not data:
        raise ImageError("empty", f"{name} is empty (0 bytes)")
    supported = _supported_format(data)
    if supported is not None:
        return supported
    for offset, magic, what in _REFUSED:
        if data.startswith(magic, offset):
            raise ImageError("unsupported", f"{name} is {what}", _HINT)
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        raise ImageError("unsupported", f"{name} is an SVG drawing", _HINT)
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        raise ImageError("not an image", f"{name} is a web page (HTML), not an image")
    if b"\x00" not in start and not re.search(rb"[\x01-\x08\x0e-\x1a]", start):
        raise ImageError("not an image", f"{name} is text, not an image")
    raise ImageError("not an image", f"{name} is not a known image format (it begins with {data[:8].hex(' ')})", _HINT)


def _supported_format(data: bytes) -> str | None:
    """Return the format if it is one of `SUFFIXES`, else None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(_TIFF_STARTS):
        return "TIFF"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[1-6][\s#]", data):
        return "PPM"
    if data[4:8] == b"ftyp" and re.search(rb"avi[fs]", data[8 : min(64, int.from_bytes(data[:4], "big"))]):
        return "AVIF"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIF"
    return "ARRAY" if data.startswith(b"\x93NUMPY") else None


def misnamed(form: str, name: str) -> str | None:
    """Return a note if the extension belongs to another format than the content, else None.

    Example:
        >>> misnamed("PNG", "cat.jpg")
        'PNG content named .jpg'
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in KNOWN_SUFFIXES and suffix not in SUFFIXES[form]:
        return f"{form} content named {suffix}"
    return None
