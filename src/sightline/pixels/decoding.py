"""Decoding: turn image bytes into upright RGB uint8 arrays at the size that is needed."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from sightline.containers import read_bytes
from sightline.errors import ImageError, SightlineError
from sightline.files import NotReadableError
from sightline.pixels import isolation, modes, opening
from sightline.pixels.geometry import Box, draft_scale, plan, stored_box
from sightline.pixels.header import Header, read_header
from sightline.pixels.opening import DEEP_MODES
from sightline.records import Preprocess

Source = Path | bytes

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_REDUCING_GAP = 3.0  # Pillow first averages whole blocks, down to 3 × the target size

# Images with more decoded pixels than this (4 bytes each) are decoded one at a time, to bound memory.
_LARGE_PIXELS = 1 << 25
_large = threading.Lock()


def read(source: Source, name: str = "the image") -> tuple[bytes, str]:
    """Return the bytes of a source and its name for messages.

    Args:
        source: A file, or its bytes.
        name: Name for messages if `source` is bytes.

    Raises:
        ImageError: If the file is `missing`, `unreadable` or needs too much `memory`.
    """
    if isinstance(source, bytes):
        return source, name
    path = Path(source)
    try:
        return read_bytes(path), str(path)
    except FileNotFoundError as error:
        raise ImageError("missing", f"{path} does not exist") from error
    except OSError as error:
        what = error.what if isinstance(error, NotReadableError) else f"cannot be read ({error.strerror or error})"
        raise ImageError("unreadable", f"{path} {what}") from error
    except SightlineError as error:
        raise ImageError("unreadable", f"{path} cannot be read ({error.message})", error.hint) from error
    except MemoryError as error:
        raise ImageError("memory", f"{path} needs more memory than is available") from error


def decode(source: Source, preprocess: Preprocess, name: str = "the image") -> np.ndarray:
    """Decode an image into the network's input.

    The reference is Pillow's full decode, turned upright, composited on the background, resized with antialiasing, and cropped.
    The result differs from it by less than one grey level on average: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that
    is at least twice the target size, and only the crop is resized.

    Args:
        source: A file, or its bytes.
        preprocess: Preprocessing that the network expects.
        name: Name for messages if `source` is bytes.

    Returns:
        uint8 (height, width, 3) of `preprocess.size`.

    Raises:
        ImageError: If the image cannot be read or decoded; the message names the file.
    """
    return isolation.call(_decode, *read(source, name), preprocess)


def _decode(data: bytes, name: str, preprocess: Preprocess) -> np.ndarray:
    """Decode an image into the network's input; see `decode`."""
    header = read_header(data, name, max_pixels=preprocess.max_pixels)
    resize = plan(header.width, header.height, preprocess)
    with _named(name):
        array = _resized(data, header, resize.box, resize.size, preprocess)
    return _placed(array, resize.offset, preprocess)


def decode_array(array: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Convert an image in memory into the network's input.

    Args:
        array: (h, w) or (h, w, 1 | 3 | 4), the fourth channel is alpha; uint8, uint16 or float, scaled like values of files.
        preprocess: Preprocessing that the network expects.

    Returns:
        uint8 (height, width, 3) of `preprocess.size`.

    Raises:
        ImageError: If the shape or dtype is not supported, there are too many pixels, or values are outside the range.
    """
    with _named("the array"):
        if array.ndim >= 2 and array.shape[0] * array.shape[1] > preprocess.max_pixels:
            raise ImageError("too large", f"has {array.shape[1]}×{array.shape[0]} pixels, more than {preprocess.max_pixels:,}")
        image = modes.array_image(array, preprocess.value_range)
        resize = plan(image.width, image.height, preprocess)
        small = _resize(image, resize.box, resize.size, preprocess.interpolation)
        return _placed(modes.flat(small, preprocess.background), resize.offset, preprocess)


def image_array(image: Image.Image) -> np.ndarray:
    """Return a Pillow image as an array for `decode_array`: upright by its EXIF orientation, with alpha if it has any.

    Returns:
        (h, w) or (h, w, 3 | 4); uint8, or the stored type of grey images with more than 8 bits.
    """
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith(("I", "F")):
        return np.asarray(turned)
    alpha = turned.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in turned.info
    grey = turned.mode in ("1", "L") and not alpha
    return np.asarray(turned.convert("L" if grey else "RGBA" if alpha else "RGB"))


def upright(source: Source, max_side: int | None = None, preprocess: Preprocess | None = None) -> np.ndarray:
    """Return the whole upright image as RGB, for display. The pixels carry no metadata such as EXIF or GPS position.

    Args:
        source: A file, or its bytes.
        max_side: Maximum length of the longer side in pixels; images are never enlarged.
        preprocess: Source of the value range of 16-bit and float images, the background and the limits; if None, such images
            are scaled from their own darkest to their own brightest value.

    Returns:
        uint8 (h, w, 3).

    Raises:
        ImageError: If the image cannot be read or decoded.
    """
    return isolation.call(_upright, *read(source), max_side, preprocess)


def _upright(data: bytes, name: str, max_side: int | None, preprocess: Preprocess | None) -> np.ndarray:
    """Return the whole upright image as RGB; see `upright`."""
    kind = preprocess or Preprocess()
    header = read_header(data, name, max_pixels=kind.max_pixels)
    with _named(name):
        if preprocess is None:
            kind = _own_range(data, header, kind)
        scale = 1.0 if max_side is None else min(1.0, max_side / max(header.width, header.height))
        size = (max(1, round(header.height * scale)), max(1, round(header.width * scale)))
        box = (0.0, 0.0, float(header.height), float(header.width))
        return _resized(data, header, box, size, replace(kind, interpolation="bicubic"))


@dataclass(frozen=True, slots=True)
class Look:
    """Grey thumbnail and simple statistics of an image, for finding duplicates, unusual images and shortcuts.

    Args:
        gray: uint8 (32, 32), the whole image resized to a square with antialiasing.
        brightness: Mean grey level, 0 to 1.
        contrast: Standard deviation of the grey level, 0 to 1.
        colour: Mean red, green and blue, each 0 to 1.
        jpeg_quality: 1 to 100, estimated from the quantisation tables; NaN if the file is not a JPEG.
    """

    gray: np.ndarray
    brightness: float
    contrast: float
    colour: tuple[float, float, float]
    jpeg_quality: float


_PREVIEW = Preprocess(interpolation="bicubic", allow_truncated=True)


def preview(source: Source, max_side: int, name: str = "the image") -> tuple[np.ndarray, float]:
    """Return the whole upright image at a reduced size, and its JPEG quality. A truncated JPEG is decoded as far as it goes.

    Args:
        source: A file, or its bytes.
        max_side: Maximum length of the longer side in pixels; images are never enlarged.
        name: Name for messages if `source` is bytes.

    Returns:
        uint8 (h, w, 3); and the JPEG quality, 1 to 100, NaN if the file is not a JPEG.

    Raises:
        ImageError: If the image cannot be read or decoded.
    """
    return isolation.call(_preview, *read(source, name), max_side)


def _preview(data: bytes, name: str, max_side: int) -> tuple[np.ndarray, float]:
    """Return the whole upright image at a reduced size, and its JPEG quality; see `preview`."""
    quality: list[float] = []
    header = read_header(data, name)
    with _named(name):
        scale = min(1.0, max_side / max(header.width, header.height))
        size = (max(1, round(header.height * scale)), max(1, round(header.width * scale)))
        box = (0.0, 0.0, float(header.height), float(header.width))
        image = _resized(data, header, box, size, _own_range(data, header, _PREVIEW), quality.append)
    return image, quality[0] if quality else math.nan


_LOOK = Preprocess(size=(32, 32), fit="squash", interpolation="bilinear", allow_truncated=True)


def look(source: Source, name: str = "the image") -> Look:
    """Return the thumbnail and statistics of an image. A truncated JPEG is decoded as far as it goes.

    Args:
        source: A file, or its bytes.
        name: Name for messages if `source` is bytes.

    Raises:
        ImageError: If the image cannot be read or decoded.
    """
    return isolation.call(_look, *read(source, name))


def _look(data: bytes, name: str) -> Look:
    """Return the thumbnail and statistics of an image; see `look`."""
    quality: list[float] = []
    header = read_header(data, name)
    with _named(name):
        kind = _own_range(data, header, _LOOK)
        box = (0.0, 0.0, float(header.height), float(header.width))
        small = _resized(data, header, box, (32, 32), kind, quality.append)
    gray = np.asarray(Image.fromarray(small).convert("L"))
    red, green, blue = (float(v) / 255 for v in small.reshape(-1, 3).mean(axis=0))
    return Look(
        gray, float(gray.mean()) / 255, float(gray.std()) / 255, (red, green, blue), quality[0] if quality else math.nan
    )


# ------------------------------------------------------------------------------------------------------------- the steps


def _resized(
    data: bytes,
    header: Header,
    box: Box,
    size: tuple[int, int],
    preprocess: Preprocess,
    tell_quality: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Return a box of the upright image, resized, as upright RGB uint8 (height, width, 3). Errors lack the file's name."""
    if header.format == "ARRAY":
        image8 = modes.array_image(modes.stored_array(data), preprocess.value_range)
        return modes.flat(_resize(image8, box, size, preprocess.interpolation), preprocess.background)
    turn = header.orientation
    where = stored_box(box, header.width, header.height, turn)
    target = size[::-1] if turn >= 5 else size
    # Averaging pixels (draft mode) is wrong before `nearest`, and before the conversion from CMYK, which is not linear.
    mixes = header.format == "JPEG" and header.mode != "CMYK" and preprocess.interpolation != "nearest"
    scale = draft_scale(where, target) if mixes else 1
    large = header.width * header.height // scale**2 > _LARGE_PIXELS
    loud = header.format != "JPEG"  # our JPEG reader never warns
    with _large if large else contextlib.nullcontext(), opening.quiet() if loud else contextlib.nullcontext():
        image = opening.open_image(data, header.format, forgiving=preprocess.allow_truncated)
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            if tell_quality is not None:
                tell_quality(jpeg_quality(image))
            if scale > 1:
                wide, tall = header.stored_size
                image.draft(None, (max(1, wide // scale), max(1, tall // scale)))
                where = tuple(v / scale for v in where)  # type: ignore[assignment]
        flat8 = modes.eight_bits(image, data, header.format, preprocess.value_range)
        array = modes.flat(_resize(flat8, where, target, preprocess.interpolation), preprocess.background)
    return _turned(array, turn)


def _resize(image: Image.Image, box: Box, size: tuple[int, int], interpolation: str) -> Image.Image:
    """Resize a box with Pillow's antialiasing; the filter may use pixels beside the box."""
    top, left, tall, wide = box
    # Rounding may push an edge beyond the image by 1e-13, which Pillow refuses.
    corners = (max(0.0, left), max(0.0, top), min(float(image.width), left + wide), min(float(image.height), top + tall))
    if corners == (0, 0, size[1], size[0]) and image.size == (size[1], size[0]):
        return image
    kernel = _FILTERS[interpolation]
    gap = None if interpolation == "nearest" else _REDUCING_GAP
    return image.resize((size[1], size[0]), kernel, corners, gap)


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels upright by their EXIF orientation."""
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _placed(array: np.ndarray, offset: tuple[int, int], preprocess: Preprocess) -> np.ndarray:
    """Place the resized image in the network's input, padded with the mean colour, which normalisation maps to 0."""
    if array.shape[:2] == preprocess.size:
        return array
    out = np.empty((*preprocess.size, 3), dtype=np.uint8)
    out[:] = [round(255 * m) for m in preprocess.mean]
    top, left = offset
    out[top : top + array.shape[0], left : left + array.shape[1]] = array
    return out


def _own_range(data: bytes, header: Header, preprocess: Preprocess) -> Preprocess:
    """Return the preprocess with the image's own value range if it has more than 8 bits per channel. For display only."""
    if header.mode not in DEEP_MODES:
        return preprocess
    return replace(preprocess, value_range=modes.image_range(data, header.format))


# The luminance quantisation table of the JPEG standard (Annex K), which encoders scale by the quality.
_STANDARD_TABLE = np.fromstring(
    """
    16 11 10 16  24  40  51  61   12 12 14 19  26  58  60  55   14 13 16 24  40  57  69  56   14 17 22 29  51  87  80  62
    18 22 37 56  68 109 103  77   24 35 55 64  81 104 113  92   49 64 78 87 103 121 120 101   72 92 95 98 112 100 103  99
    """,
    sep=" ",
)


def jpeg_quality(image: JpegImagePlugin.JpegImageFile) -> float:
    """Estimate the libjpeg quality, 1 to 100, from the luminance quantisation table; NaN without a table."""
    table = image.quantization.get(0)
    if table is None:
        return math.nan
    percent = float(np.mean(np.asarray(table) * 100.0 / _STANDARD_TABLE))
    return float(np.clip((200 - percent) / 2 if percent <= 100 else 5000 / percent, 1, 100))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Prepend the file's name to the message of an `ImageError` in the block."""
    try:
        yield
    except ImageError as error:
        raise ImageError(error.kind, f"{name} {error.message}", error.hint) from error.__cause__
