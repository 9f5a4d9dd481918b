"""Pillow wrapper: open images by content, without warnings or changes to Pillow's globals, and convert its errors."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator

from PIL import ImageFile, JpegImagePlugin

from sightline.errors import ImageError

_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_entry: object = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Pillow's warnings in the block, in all threads that are inside such a block.

    `warnings.catch_warnings` is not thread-safe: two overlapping blocks can leave the host application with wrong filters.
    Here the first block adds one filter for Pillow's modules, and the last one removes it.
    """
    global _quiet_depth, _quiet_entry
    with _quiet_lock:
        _quiet_depth += 1
        if _quiet_depth == 1:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _quiet_entry = warnings.filters[0]
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                with contextlib.suppress(ValueError):
                    warnings.filters.remove(_quiet_entry)  # type: ignore[attr-defined]


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader with a per-image switch for truncated files, and without reading EXIF (`read_header` does).

    Pillow's own switch, `ImageFile.LOAD_TRUNCATED_IMAGES`, is global and would change the images of other threads too.
    """

    forgiving = False
    _given_end = False

    def load_read(self, read_bytes: int) -> bytes:
        """Return the next bytes; at the end of a truncated file, return an end marker once if `forgiving` is set."""
        assert self.fp is not None
        data = self.fp.read(read_bytes)
        if not data and self.forgiving and not self._given_end:
            self._given_end = True
            return b"\xff\xd9"
        return data

    def _read_dpi_from_exif(self) -> None:
        """Do nothing: damaged EXIF would cause a warning, and the resolution is not used."""


_PHOTOMETRIC, _BITS = 262, 258
_MOST_TAGS = 4096


def _open_tiff(data: bytes) -> ImageFile.ImageFile:
    """Open a TIFF, and set `info["white_is_zero"]` if values with more than 8 bits must still be inverted.

    If 0 is white, Pillow inverts images with up to 8 bits, returns 16-bit and float values as stored, and rejects the rest.
    Images with more than 8 bits are therefore opened from a copy of the bytes in which the tag says "0 is black".
    """
    from PIL.TiffImagePlugin import TiffImageFile

    place = _deep_white_is_zero(data)
    if place is None:
        return TiffImageFile(io.BytesIO(data))
    changed = bytearray(data)
    changed[place : place + 2] = b"\x01\x00" if data[:2] == b"II" else b"\x00\x01"
    image = TiffImageFile(io.BytesIO(changed))
    image.info["white_is_zero"] = True
    return image


def _deep_white_is_zero(data: bytes) -> int | None:
    """Return the byte offset of PhotometricInterpretation 0 (0 is white) in a one-channel TIFF with more than 8 bits."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]  # BigTIFF
    count_of, offset_of, entry_bytes, value_at = ("Q", "Q", 20, 12) if big else ("H", "I", 12, 8)
    place, deep = None, False
    try:
        (start,) = struct.unpack_from(order + offset_of, data, 8 if big else 4)
        (tags,) = struct.unpack_from(order + count_of, data, start)
        start += struct.calcsize(count_of)
        for entry in range(start, start + entry_bytes * min(tags, _MOST_TAGS), entry_bytes):
            tag, kind, values = struct.unpack_from(f"{order}HH{offset_of}", data, entry)
            if kind == 3 and values == 1 and tag in (_PHOTOMETRIC, _BITS):
                (value,) = struct.unpack_from(f"{order}H", data, entry + value_at)
                if tag == _BITS:
                    deep = value > 8
                elif value == 0:
                    place = entry + value_at
    except struct.error:
        return None
    return place if deep else None


def open_image(data: bytes, form: str, *, forgiving: bool = False) -> ImageFile.ImageFile:
    """Open an image with the reader of its format, without decoding it. Pillow's other readers are not tried.

    Raises:
        ImageError: If the header cannot be read; the message lacks the file's name.
    """
    stream = io.BytesIO(data)
    try:
        if form == "JPEG":
            image = _Jpeg(stream)
            image.forgiving = forgiving
            image.decodermaxblock = max(65536, len(data))  # one call without the GIL instead of one per 64 kB
            return image
        return _open_tiff(data) if form == "TIFF" else _reader(form)(stream)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("memory", "needs more memory than is available") from error
    except Exception as error:  # Pillow's readers raise many types of errors on damaged bytes
        raise _failed(error, data, form) from error


def _reader(form: str) -> type[ImageFile.ImageFile]:
    """Import and return Pillow's reader of a format."""
    if form == "PNG":
        from PIL.PngImagePlugin import PngImageFile as Reader
    elif form == "GIF":
        from PIL.GifImagePlugin import GifImageFile as Reader  # type: ignore[assignment]
    elif form == "BMP":
        from PIL.BmpImagePlugin import BmpImageFile as Reader  # type: ignore[assignment]
    elif form == "WEBP":
        from PIL.WebPImagePlugin import WebPImageFile as Reader  # type: ignore[assignment]
    elif form == "PPM":
        from PIL.PpmImagePlugin import PpmImageFile as Reader  # type: ignore[assignment]
    elif form == "HEIF":
        try:
            from pi_heif.as_plugin import HeifImageFile as Reader  # type: ignore[no-redef]
        except ImportError as error:
            hint = 'pip install "sightline[heic]"'
            raise ImageError("decoder missing", f"is a HEIC image, which needs pi-heif: {hint}", hint) from error
    else:
        from PIL import features

        if not features.check("avif"):
            raise ImageError("unsupported", "is an AVIF image, which this Pillow cannot decode", "pip install -U pillow")
        from PIL.AvifImagePlugin import AvifImageFile as Reader  # type: ignore[assignment]
    return Reader


def load(image: ImageFile.ImageFile, data: bytes, form: str) -> None:
    """Decode the pixels of an opened image, in place.

    Raises:
        ImageError: If the file is `truncated` or `damaged`, or needs too much `memory`; the message lacks the file's name.
    """
    if form == "PNG":
        _check_png(data)
    try:
        image.load()
    except MemoryError as error:
        raise ImageError("memory", "needs more memory than is available") from error
    except Exception as error:
        raise _failed(error, data, form) from error


def _failed(error: Exception, data: bytes, form: str) -> ImageError:
    """Convert an error of Pillow to an `ImageError`."""
    message = str(error).strip() or type(error).__name__
    if "truncated" in message.lower() or isinstance(error, EOFError):
        hint = "use --allow-truncated to use the part that can be decoded" if form == "JPEG" else "get the file again"
        return ImageError("truncated", f"cannot be decoded (truncated at {_bytes(len(data))})", hint)
    return ImageError("damaged", f"cannot be decoded ({message[:200]})", "get the file again, or leave it out")


def _bytes(count: int) -> str:
    return f"{count} bytes" if count < 10_000 else f"{count / 1000:.0f} kB"


def _check_png(data: bytes) -> None:
    """Check the checksums of a PNG's critical chunks, as libpng does and Pillow does not, to detect flipped bits.

    Raises:
        ImageError: If a checksum is wrong (`damaged`), or a chunk is cut off (`truncated`).
    """
    view = memoryview(data)
    pos = 8
    while pos + 8 <= len(data):
        length = int.from_bytes(view[pos : pos + 4], "big")
        kind = bytes(view[pos + 4 : pos + 8])
        end = pos + 8 + length
        if kind == b"IEND":
            return
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS"):
            if end + 4 > len(data):
                raise ImageError("truncated", f"cannot be decoded (truncated at {_bytes(len(data))})", "get the file again")
            if zlib.crc32(view[pos + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
                what = f"cannot be decoded (the checksum of its {kind.decode()} chunk at byte {pos} is wrong)"
                raise ImageError("damaged", what, "get the file again, or leave it out")
        pos = end + 4


# ------------------------------------------------------------------------------------------- more than 8 bits per channel

DEEP_MODES = frozenset(("I", "F", "I;16", "I;16B", "I;16L", "I;16N", "RGB;16", "RGBA;16", "LA;16"))
"""Modes with more than 8 bits per channel. The last three are Sightline's names for data that Pillow reduces to 8 bits."""

_NATIVE = "L" if sys.byteorder == "little" else "B"
DEEP_RAW = {
    **{f"{m};16{e}": m for m in ("RGB", "RGBA", "RGBX") for e in "BLN"},
    "LA;16B": "LA",
}


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name for the pixel layout of an opened image in the file; "" if its tiles differ."""
    modes = {t[3] if isinstance(t[3], str) else t[3][0] for t in image.tile if t[3]}
    raw = modes.pop() if len(modes) == 1 else ""
    return raw if isinstance(raw, str) else ""


def stored_mode(image: ImageFile.ImageFile) -> str:
    """Return the mode of an opened image, with `;16` if Pillow would drop the lower 8 of 16 bits."""
    deep = DEEP_RAW.get(raw_mode(image))
    if deep is None:
        return str(image.mode)
    return "RGB;16" if deep == "RGBX" else f"{deep};16"


def use_other_byte(image: ImageFile.ImageFile) -> None:
    """Make an opened 16-bit image read the lower bytes of its values, by swapping the byte order."""
    raw = raw_mode(image)
    other = raw[:-1] + ("L" if raw[-1].replace("N", _NATIVE) == "B" else "B")
    image.tile = [t._replace(args=(other, *t.args[1:]) if isinstance(t.args, tuple) else other) for t in image.tile]
