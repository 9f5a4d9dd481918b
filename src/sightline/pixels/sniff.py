"""What a file is, by its content: the allow-list of formats, and the names of those that are refused."""

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
}
"""The formats that are decoded, and the extensions that their files usually have."""

KNOWN_SUFFIXES = frozenset(s for group in SUFFIXES.values() for s in group)
"""The extensions of images, in lower case."""

_CONVERT = "convert it to JPEG, as with `magick IN.heic OUT.jpg` or in the program that shows it"

# What may be met under an image's name, and is not decoded: no helper program is ever started for any of them.
_REFUSED: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document (EPS)"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document (EPS)"),
    (0, b"SIMPLE  =", "a FITS file"),
    (4, b"ftyphei", f"a HEIC image; {_CONVERT}"),
    (4, b"ftyphev", f"a HEIC image; {_CONVERT}"),
    (4, b"ftypmif1", f"a HEIF image; {_CONVERT}"),
    (4, b"ftypmsf1", f"a HEIF image; {_CONVERT}"),
    (4, b"ftypcrx", "a raw camera file"),
    (4, b"ftyp", "a film or another ISO media file"),
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
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (257, b"ustar", "a tar archive"),
    (128, b"DICM", "a DICOM file"),
)

_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_HINT = f"Sightline reads {', '.join(SUFFIXES)}; convert the file, or leave it out"


def sniff(data: bytes, name: str) -> str:
    """The format of an image by its first bytes: a key of SUFFIXES.

    Raises:
        ImageError: `empty`, `unsupported` (a format that is known and refused), or `not an image`.
    """
    if not data:
        raise ImageError("empty", f"{name} is empty (0 bytes)")
    found = _allowed(data)
    if found is not None:
        return found
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
    raise ImageError("not an image", f"{name} is not an image that Sightline knows (it begins with {data[:8].hex(' ')})", _HINT)


def _allowed(data: bytes) -> str | None:
    """The format, where it is one of SUFFIXES."""
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
    return None


def misnamed(form: str, name: str) -> str | None:
    """A note where the extension promises another format than the content has.

    Example:
        >>> misnamed("PNG", "cat.jpg")
        'PNG content named .jpg'
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in KNOWN_SUFFIXES and suffix not in SUFFIXES[form]:
        return f"{form} content named {suffix}"
    return None
