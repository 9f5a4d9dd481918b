"""Capture time of a photograph, from its EXIF block."""

from __future__ import annotations

import re
import struct

_DATE_TIME, _EXIF_IFD, _ORIGINAL = 0x0132, 0x8769, 0x9003
_MOST_ENTRIES = 1_000
_PATTERN = re.compile(rb"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def capture_time(data: bytes) -> str | None:
    """Return when a photograph was taken, as `2024-05-01T12:33:05` in the camera's own time; None if the file does not say.

    Args:
        data: Bytes of a JPEG, PNG, WebP or TIFF file.
    """
    exif = _exif_of(data)
    if exif is None:
        return None
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        first = _entries(exif, start, order)
        inner = _entries(exif, first[_EXIF_IFD][1], order) if _EXIF_IFD in first else {}
        for tag, entries in ((_ORIGINAL, inner), (_DATE_TIME, first)):
            if tag in entries:
                count, offset = entries[tag]
                match = _PATTERN.match(exif[offset : offset + count])
                if match and match[1] != b"0000":
                    year, month, day, *clock = (part.decode("ascii") for part in match.groups())
                    return f"{year}-{month}-{day}T{':'.join(clock)}"
    except struct.error:
        return None
    return None


def _entries(exif: bytes, start: int, order: str) -> dict[int, tuple[int, int]]:
    """Return tag → (number of values, value or its offset) of a directory."""
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    found = {}
    for i in range(min(count, _MOST_ENTRIES)):
        tag, _, number, value = struct.unpack_from(f"{order}HHII", exif, start + 2 + 12 * i)
        found[tag] = number, value
    return found


def _exif_of(data: bytes) -> bytes | None:
    """Return the EXIF block of a file, a TIFF structure; None if it has none."""
    if data[:2] == b"\xff\xd8":
        return _in_jpeg(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return data
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _in_chunks(data, 8, b"eXIf", ">", name_first=False)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _in_chunks(data, 12, b"EXIF", "<", name_first=True)
    return None


def _in_jpeg(data: bytes) -> bytes | None:
    """Return the EXIF block of a JPEG file."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA or length < 2:
            return None
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return data[place + 10 : place + 2 + length]
        place += 2 + length
    return None


def _in_chunks(data: bytes, place: int, wanted: bytes, order: str, *, name_first: bool) -> bytes | None:
    """Return the EXIF block of a PNG or WebP file, which consists of named chunks."""
    while place + 8 <= len(data):
        name, size = (0, 4) if name_first else (4, 0)
        (length,) = struct.unpack_from(f"{order}I", data, place + size)
        if data[place + name : place + name + 4] == wanted:
            return data[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
        place += 8 + length + (length % 2 if name_first else 4)
    return None
