"""Header reading: get format, size, mode and orientation without decoding pixels; reject images with too many pixels."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from sightline.errors import ImageError
from sightline.pixels import isolation, modes, opening
from sightline.pixels.sniff import misnamed, sniff
from sightline.records import Preprocess

PASSING_PROBLEMS = frozenset(("missing", "unreadable", "changed", "memory", "decoder missing"))
"""Kinds of `ImageError` that do not depend on the file's bytes, so a retry may succeed."""

MAX_PIXELS = Preprocess().max_pixels


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of an image file from its header.

    Args:
        width, height: Size of the upright image in pixels.
        format: Format by content: JPEG, PNG, …
        mode: Pillow's mode of the stored pixels, or one of `DEEP_MODES`.
        orientation: EXIF orientation, 1 to 8; 1 if absent or unreadable.
        notes: Unusual properties of a usable file, such as `truncated`.
    """

    width: int
    height: int
    format: str
    mode: str
    orientation: int = 1
    notes: tuple[str, ...] = ()

    @property
    def stored_size(self) -> tuple[int, int]:
        """Return (width, height) of the stored image, before it is turned upright."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class _StoredHeader:
    """Header as returned by a format's reader: stored size, mode, orientation, notes, and whether the end marker is present."""

    width: int
    height: int
    mode: str
    orientation: int = 1
    notes: tuple[str, ...] = ()
    ended: bool = True


def read_header(data: bytes | memoryview, name: str, *, max_pixels: int = MAX_PIXELS, whole: bool = True) -> Header:
    """Read a file's header without decoding pixels or allocating memory for them.

    Args:
        data: Bytes of the file, or its first bytes (a TIFF needs all).
        name: Name of the file, for messages and to compare its extension with the format.
        max_pixels: Maximum number of pixels.
        whole: Whether `data` is the whole file, so that a JPEG without its end marker is noted as `truncated`.

    Raises:
        ImageError: If the file is `empty`, `not an image`, `unsupported`, `too large`, `truncated` or `damaged`.
    """
    data = bytes(data)
    form = sniff(data, name)
    try:
        stored = _READERS.get(form, _by_pillow)(data, form)
    except (struct.error, IndexError) as error:
        raise ImageError("truncated", f"{name} ends within its header ({len(data)} bytes)") from error
    except ImageError as error:
        raise ImageError(error.kind, f"{name} {error.message}", error.hint) from error
    if stored.width < 1 or stored.height < 1:
        raise ImageError("damaged", f"{name} has an invalid size of {stored.width}×{stored.height} pixels in its header")
    if stored.width * stored.height > max_pixels:
        what = f"{name} has {stored.width}×{stored.height} pixels, more than the limit of {max_pixels:,}"
        raise ImageError("too large", what, "make it smaller; in Python, Preprocess(max_pixels=…) sets the limit")
    notes = list(stored.notes)
    if whole and not stored.ended:
        notes.append("truncated")
    wrong = misnamed(form, name)
    if wrong:
        notes.append(wrong)
    size = (stored.height, stored.width) if stored.orientation >= 5 else (stored.width, stored.height)
    return Header(*size, form, stored.mode, stored.orientation, tuple(notes))


def safe_header(data: bytes, name: str) -> Header:
    """Read the header of a whole file; formats that Pillow's code parses are read in a worker process (see `isolation`).

    Raises:
        ImageError: As `read_header`, or if the reader crashes or hangs.
    """
    if sniff(data, name) in _READERS:
        return read_header(data, name)
    return isolation.call(read_header, data, name)


# ----------------------------------------------------------------------------------------------------------- orientation


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in an EXIF block (TIFF structure), 1 if it has none, None if the block is damaged."""
    exif = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}4xI", exif)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == 0x0112 and kind in (3, 4):
                (value,) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return None
    return 1


def _oriented(exif: bytes | None, xmp: bytes | None) -> tuple[int, tuple[str, ...]]:
    """Return the orientation from EXIF, else from XMP, and notes. Damaged metadata is ignored: the pixels are still usable."""
    if exif is not None:
        value = exif_orientation(exif)
        if value is None:
            return 1, ("damaged EXIF ignored",)
        if value != 1:
            return value, ()
    match = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp) if xmp else None
    return (int(match[1]) if match else 1), ()


# --------------------------------------------------------------------------------------------------------------- formats


def _jpeg(data: bytes, form: str) -> _StoredHeader:
    """Read a JPEG's markers up to the first scan."""
    size: tuple[int, int, str] | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    pos = 2
    while True:
        if data[pos] != 0xFF:  # junk between segments
            pos += 1
            continue
        marker = data[pos + 1]
        if marker == 0xFF:
            pos += 1
            continue
        pos += 2
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xDA or marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, pos)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, layers = struct.unpack_from(">BHHB", data, pos + 2)
            if bits != 8 or layers not in _JPEG_MODES or marker in (0xC3, 0xC7, 0xCB, 0xCF):
                what = f"is a JPEG with {layers} channels of {bits} bits (SOF{marker & 15}), which is not supported"
                raise ImageError("unsupported", what)
            size = width, height, _JPEG_MODES[layers]
        elif marker == 0xE1:
            if exif is None and data.startswith(b"Exif\x00\x00", pos + 2):
                exif = data[pos + 2 : pos + length]
            elif data.startswith(b"http://ns.adobe.com/xap/1.0/\x00", pos + 2):
                xmp = data[pos + 2 : pos + length]
        pos += length
    if size is None:
        raise ImageError("damaged", "is a JPEG that contains no image")
    # Within a scan 0xFF is always followed by 0 or a restart marker, so this end marker is not that of a preview.
    ended = data.endswith(b"\xff\xd9") or data.find(b"\xff\xd9", pos) >= 0
    return _StoredHeader(*size, *_oriented(exif, xmp), ended)


_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def _png(data: bytes, form: str) -> _StoredHeader:
    """Read a PNG's header chunk, check its checksum, and read the chunks for animation and orientation."""
    length, kind = struct.unpack_from(">I4s", data, 8)
    width, height, bits, colour, compression, filters, interlace, crc = struct.unpack_from(">IIBBBBBI", data, 16)
    if length != 13 or kind != b"IHDR" or zlib.crc32(data[12:29]) != crc:
        raise ImageError("damaged", "is a PNG with a damaged header")
    mode = _PNG_MODES.get((bits, colour))
    if mode is None or compression or filters or interlace > 1:
        what = f"is a PNG with {bits} bits and colour type {colour}, which is not a valid combination"
        raise ImageError("damaged", what)
    exif: bytes | None = None
    xmp: bytes | None = None
    raw_exif: bytes | None = None
    frames = 1
    pos = 33
    while pos + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, pos)
        if kind == b"IEND":
            break
        if kind == b"acTL" and length == 8:
            (frames,) = struct.unpack_from(">I", data, pos + 8)
        elif kind == b"eXIf":
            exif = data[pos + 8 : pos + 8 + length]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _png_text(kind, data[pos + 8 : pos + 8 + length])
            if keyword == b"XML:com.adobe.xmp":
                xmp = text
            elif keyword == b"Raw profile type exif":
                raw_exif = _raw_profile(text)
            elif keyword in (b"Raw profile type APP1", b"Raw profile type xmp"):
                block = _raw_profile(text)
                if block.startswith(b"Exif\x00\x00"):
                    raw_exif = raw_exif or block
                else:
                    xmp = xmp or block
        pos += length + 12
    orientation, notes = _oriented(exif or raw_exif, xmp)
    return _StoredHeader(width, height, mode, orientation, (*notes, *_animated(frames)))


_MOST_TEXT_BYTES = 4 << 20


def _png_text(kind: bytes, chunk: bytes) -> tuple[bytes, bytes]:
    """Return the keyword and text of a PNG text chunk; no text if it is damaged, at most `_MOST_TEXT_BYTES` otherwise."""
    keyword, _, text = chunk.partition(b"\x00")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = text[:1] == b"\x01"
        text = text[2:].split(b"\x00", 2)[-1]
    elif packed:
        text = text[1:]
    if packed:
        try:
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(text, _MOST_TEXT_BYTES)
        except zlib.error:
            return keyword, b""
    return keyword, text[:_MOST_TEXT_BYTES]


def _raw_profile(text: bytes) -> bytes:
    """Return the bytes of a profile as written by ImageMagick and ExifTool: a name, a length, then hexadecimal digits."""
    lines = text.strip().split(b"\n", 2)
    try:
        return bytes.fromhex(lines[2].decode("ascii")) if len(lines) == 3 else b""
    except ValueError:
        return b""


_PNG_MODES = {
    (1, 0): "1",
    (2, 0): "L",
    (4, 0): "L",
    (8, 0): "L",
    (16, 0): "I;16",
    (8, 2): "RGB",
    (16, 2): "RGB;16",
    (8, 4): "LA",
    (16, 4): "LA;16",
    (8, 6): "RGBA",
    (16, 6): "RGBA;16",
    **dict.fromkeys(((1, 3), (2, 3), (4, 3), (8, 3)), "P"),
}


def _webp(data: bytes, form: str) -> _StoredHeader:
    """Read a WebP's size from its first chunk, and its EXIF and XMP. Pillow would allocate memory for the pixels first."""
    kind = data[12:16]
    animated = False
    if kind == b"VP8X":
        flags, width, height = data[20], int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        alpha, animated = bool(flags & 0x10), bool(flags & 0x02)
        if len(data) < 30:
            raise IndexError
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif kind == b"VP8 ":
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, 26))
        alpha = False
    else:
        raise ImageError("damaged", "is a WebP file that contains no image")
    chunks: dict[bytes, bytes] = {}
    pos = 12
    while pos + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, pos)
        if name in (b"EXIF", b"XMP "):
            chunks[name] = data[pos + 8 : pos + 8 + length]
        pos += 8 + length + (length & 1)
    orientation, notes = _oriented(chunks.get(b"EXIF"), chunks.get(b"XMP "))
    return _StoredHeader(width, height, "RGBA" if alpha else "RGB", orientation, (*notes, *_animated(2 if animated else 1)))


def _animated(frames: int) -> tuple[str, ...]:
    return ("animated: the first frame is used",) if frames > 1 else ()


def _by_pillow(data: bytes, form: str) -> _StoredHeader:
    """Read the header of another format with Pillow, which allocates no memory for the pixels of these formats."""
    with opening.quiet():
        image = opening.open_image(data, form)
        orientation, notes = 1, _animated(1)
        several = False
        with contextlib.suppress(Exception):  # a damaged second page does not affect the first
            several = bool(getattr(image, "is_animated", False))
        if form == "AVIF":
            with contextlib.suppress(Exception):
                orientation = int(image.getexif().get(0x0112, 1))
        if several:
            notes = ("several pages: the first is used",) if form == "TIFF" else _animated(2)
        width, height = image.size  # Pillow turns a TIFF upright itself
        return _StoredHeader(width, height, opening.stored_mode(image), orientation, notes)


def _array(data: bytes, form: str) -> _StoredHeader:
    """Read the header of an array in numpy's format."""
    shape, dtype = modes.array_header(data)
    channels = shape[2] if len(shape) == 3 else 1
    deep = {"u1": "", "b1": "", "u2": "I;16", "f4": "F"}.get(dtype.str[1:], "I")
    mode = {1: deep or "L", 3: "RGB;16" if deep else "RGB", 4: "RGBA;16" if deep else "RGBA"}[channels]
    return _StoredHeader(shape[1], shape[0], mode)


_READERS: dict[str, Callable[[bytes, str], _StoredHeader]] = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "ARRAY": _array}
