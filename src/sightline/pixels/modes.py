"""Pixel modes: convert every stored mode to 8 bits per channel, grey or RGB, with alpha if present.

Embedded colour profiles are ignored, as in the loaders of timm and torchvision with which the pretrained networks were trained;
so predictions do not depend on a colour management engine.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from sightline.errors import ImageError
from sightline.pixels import opening
from sightline.pixels.opening import DEEP_MODES

OUTSIDE_SHARE = 0.002
"""Fraction of an image's values that may lie outside its range; `value_range` excludes the same fraction."""
CHANNELS = (1, 3, 4)
"""Supported numbers of channels of an array (height, width, channels): grey, RGB, RGBA."""


def eight_bits(image: ImageFile.ImageFile, data: bytes, form: str, value_range: tuple[float, float] | None) -> Image.Image:
    """Decode an opened image to mode L, LA, RGB or RGBA.

    Args:
        image: Opened image, not yet decoded.
        data: Bytes of the file.
        form: Format of the file.
        value_range: Stored values that map to 0 and 255 if there are more than 8 bits per channel; None as in `scaled`.

    Raises:
        ImageError: If the image cannot be decoded.
    """
    if opening.stored_mode(image) in DEEP_MODES:
        return _image(scaled(deep_array(image, data, form), value_range))
    opening.load(image, data, form)
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        return image.convert("RGBA")
    target = _TARGETS.get(image.mode)
    if target is None:
        raise ImageError("unsupported", f"has the pixel mode {image.mode}, which cannot be converted to RGB")
    return image if image.mode == target else image.convert(target)


_TARGETS = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
}


def deep_array(image: ImageFile.ImageFile, data: bytes, form: str) -> np.ndarray:
    """Return the stored values of an image with more than 8 bits per channel, in full precision.

    Pillow keeps only the upper byte of 16-bit colour. The lower byte is read in a second pass with the other byte order; 16-bit
    grey with alpha is read as four bytes per pixel.

    Args:
        image: Opened image, decoded or not.
        data: Bytes of the file.
        form: Format of the file.

    Returns:
        uint16, int32 or float32 (height, width) or (height, width, 2 | 3 | 4); transparent pixels have alpha 0.
    """
    raw = opening.raw_mode(image)
    if raw == "LA;16B":
        image.tile = [t._replace(args="RGBA") for t in image.tile]
        opening.load(image, data, form)
        return _joined(np.asarray(image)[..., 0::2], np.asarray(image)[..., 1::2])
    if raw in opening.DEEP_RAW:
        other = opening.open_image(data, form)
        opening.use_other_byte(other)
        opening.load(image, data, form)
        opening.load(other, data, form)
        values = _joined(np.asarray(image), np.asarray(other))
    else:
        opening.load(image, data, form)
        values = np.asarray(image)
        if values.dtype.kind == "u":
            values = values.astype(np.uint16)  # native byte order
        if image.info.get("white_is_zero"):
            values = _inverted(values, image)
    clear = image.info.get("transparency")
    if clear is None or (values.ndim == 3 and values.shape[2] != 3):
        return values
    solid: np.ndarray = (values != np.asarray(clear)).reshape(*values.shape[:2], -1).any(axis=2)
    return np.dstack([values, np.where(solid, np.uint16(65535), np.uint16(0))])


_BITS, _LOWEST, _HIGHEST = 258, 340, 341
"""TIFF tags: bits per sample, minimum sample value, maximum sample value."""


def _inverted(values: np.ndarray, image: ImageFile.ImageFile) -> np.ndarray:
    """Invert the values of a TIFF in which 0 is white: 2ⁿ - 1 - v for n-bit integers, low + high - v for floats.

    Args:
        values: uint16, int32 or float32 (height, width).
        image: Image with the TIFF tags. Its tags give the range of floats, 0 to 1 if they are absent.

    Raises:
        ImageError: If floats lie outside that range (`value range`).
    """
    tags: Mapping[int, Any] = image.tag_v2  # type: ignore[attr-defined]
    if values.dtype.kind == "i":
        return np.asarray(~values)
    if values.dtype.kind == "u":
        return np.asarray(np.uint16((1 << tags[_BITS][0]) - 1) - values)
    low, high = (float(np.ravel(tags.get(tag, default))[0]) for tag, default in ((_LOWEST, 0.0), (_HIGHEST, 1.0)))
    finite = values[np.isfinite(values)]
    if finite.size and ((finite < low) | (finite > high)).mean() > OUTSIDE_SHARE:
        span = f"{finite.min():g} to {finite.max():g}"
        what = f"has floating-point values from {span} in which 0 is white, and does not specify which value is black"
        raise ImageError("value range", what, "save it with PhotometricInterpretation 1 (0 is black)")
    return np.asarray(np.float32(low + high) - values)


def _joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Combine two uint8 arrays into one of uint16."""
    values: np.ndarray = upper.astype(np.uint16) * np.uint16(256) + lower
    return values


def scaled(values: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    """Scale stored values to uint8. NaN becomes 0, infinity the end of the range.

    Without a range, integers are scaled from 0 to 65535 and floats from 0 to 1.

    Args:
        values: (h, w) or (h, w, 1 | 2 | 3 | 4); the alpha of 2 and 4 channels is not scaled by the range.
        value_range: Stored values that map to 0 and 255.

    Raises:
        ImageError: If no value is finite (`not finite`), or floats without a range are not from 0 to 1 (`value range`).
    """
    alpha = values.ndim == 3 and values.shape[2] in (2, 4)
    colour = values[..., :-1] if alpha else values
    real = values.dtype.kind == "f"
    if real:
        finite = np.isfinite(colour)
        if not finite.any():
            raise ImageError("not finite", "has no finite value")
        if value_range is None and (((colour < 0) | (colour > 1)) & finite).mean() > OUTSIDE_SHARE:
            low, high = colour[finite].min(), colour[finite].max()
            what = f"has floating-point values from {low:g} to {high:g}, and the range for scaling them is not known"
            raise ImageError("value range", what, "scale them to 0…1, or include such images in the training set")
    low, high = value_range or ((0.0, 1.0) if real else (0.0, 65535.0))
    step = np.float32(255.0 / max(high - low, 1e-30))
    grey = (colour.astype(np.float32) - np.float32(low)) * step
    grey = np.rint(np.clip(np.nan_to_num(grey, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)).astype(np.uint8)
    if not alpha:
        return np.asarray(grey)
    full = 1.0 if real else 65535.0
    cover = np.rint(np.clip(np.nan_to_num(values[..., -1:].astype(np.float32)) * (255.0 / full), 0, 255))
    joined: np.ndarray = np.concatenate([grey, cover.astype(np.uint8)], axis=2)
    return joined


def _image(array: np.ndarray) -> Image.Image:
    """Return a uint8 array of 1 to 4 channels as an image of mode L, LA, RGB or RGBA."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return Image.fromarray(np.ascontiguousarray(array))


def flat(image: Image.Image, background: int) -> np.ndarray:
    """Convert an 8-bit image to RGB, compositing transparent pixels on a grey background.

    Compositing after the resize is equivalent to compositing before it, because Pillow's resize weights colours by alpha.

    Args:
        image: Image of mode L, LA, RGB or RGBA.
        background: Grey level, 0 to 255.

    Returns:
        uint8 (h, w, 3).
    """
    array = np.asarray(image)
    if image.mode == "RGB":
        return array
    if image.mode == "L":
        return np.repeat(array[..., None], 3, axis=2)
    alpha = array[..., -1:].astype(np.uint32)
    mixed = (array[..., :-1] * alpha + background * (255 - alpha) + 127) // 255
    return np.broadcast_to(mixed.astype(np.uint8), (*mixed.shape[:2], 3))


def array_image(array: np.ndarray, value_range: tuple[float, float] | None) -> Image.Image:
    """Convert an array to an 8-bit image.

    Args:
        array: (h, w) or (h, w, 1 | 3 | 4); bool, uint8, another integer type, or float.
        value_range: As in `scaled`.

    Raises:
        ImageError: If the shape or dtype is not supported, or there are no pixels.
    """
    fault = array_fault(array)
    if fault is not None:
        hint = "pass an array of shape (height, width) or (height, width, 1, 3 or 4) and dtype uint8, uint16 or float"
        raise ImageError("not an image", f"the array {fault}", hint)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    return _image(array if array.dtype == np.uint8 else scaled(array, value_range))


def array_fault(array: np.ndarray) -> str | None:
    """Return why an array is not an image, such as "has the shape (3, 5, 5)"; None if it is one.

    Example:
        >>> array_fault(np.zeros((3, 5, 5))), array_fault(np.zeros((5, 5, 3), dtype=bool))
        ('has the shape (3, 5, 5)', None)
    """
    return _fault(array.shape, array.dtype)


def _fault(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """Return `array_fault` of an array of this shape and dtype."""
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in CHANNELS) or 0 in shape:
        return f"has the shape {shape}"
    return None if dtype.kind in "buif" else f"holds {dtype}"


def array_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and dtype of an image in numpy's file format.

    Raises:
        ImageError: If the header is damaged, or it is not one image; the message lacks the file's name.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except (ValueError, SyntaxError, TypeError) as error:
        raise ImageError("damaged", f"is a NumPy file with a damaged header ({str(error)[:80]})") from error
    fault = _fault(shape, dtype)
    if fault is not None:
        hint = "an array of one image has the shape (height, width) or (height, width, 1, 3 or 4)"
        raise ImageError("not an image", f"is an array that {fault}", hint)
    return shape, dtype


def stored_array(data: bytes) -> np.ndarray:
    """Return the values of an image in numpy's file format.

    Raises:
        ImageError: If it is damaged or not one image; the message lacks the file's name.
    """
    shape, dtype = array_header(data)
    if len(data) < dtype.itemsize * math.prod(shape):  # before memory is allocated for them
        raise ImageError("truncated", f"cannot be decoded (truncated at {len(data):,} bytes)", "get the file again")
    try:
        values: np.ndarray = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ImageError("truncated", f"cannot be decoded ({str(error)[:80]})") from error
    return values


def image_range(data: bytes, form: str) -> tuple[float, float]:
    """Return (low, high) that excludes the fraction `OUTSIDE_SHARE` of an image's finite values, half of it on each side.

    Raises:
        ImageError: If the image cannot be decoded, or has no finite value; the message lacks the file's name.
    """
    if form == "ARRAY":
        values = stored_array(data)
    else:
        with opening.quiet():
            values = deep_array(opening.open_image(data, form), data, form)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1]
    step = max(1, int((values.size / 1e6) ** 0.5))  # about a million values suffice
    values = values[::step, ::step].ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        raise ImageError("not finite", "has no finite value")
    low, high = np.quantile(values, (OUTSIDE_SHARE / 2, 1 - OUTSIDE_SHARE / 2))
    return float(low), float(high) if high > low else float(low) + 1.0
