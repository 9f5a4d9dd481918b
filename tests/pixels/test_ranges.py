"""Images with more than 8 bits a channel: all of their bits are used, by a range from the training set."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline import pixels
from sightline.errors import ImageError
from sightline.pixels import Preprocess, modes


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "TIFF", **options)  # type: ignore[arg-type]
    return stream.getvalue()


def png16(array: np.ndarray, clear: tuple[int, ...] | None = None) -> bytes:
    """A 16-bit PNG of 1 to 4 channels, which Pillow cannot write; every row by the Sub filter."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = np.frombuffer(array.astype(">u2").tobytes(), np.uint8).reshape(height, -1).copy()
    rows[:, 2 * channels :] -= rows[:, : -2 * channels].copy()
    raw = b"".join(b"\x01" + row.tobytes() for row in rows)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    keyed = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + head + keyed + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def tiff16(array: np.ndarray, order: str) -> bytes:
    """An uncompressed 16-bit RGB TIFF in either byte order."""
    height, width, _ = array.shape
    body = array.astype(f"{order}u2").tobytes()
    tags = [(256, 4, width), (257, 4, height), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3)]
    tags += [(278, 4, height), (279, 4, len(body))]
    end = 8 + len(body)
    after = end + 2 + 12 * (len(tags) + 1) + 4
    entries = sorted([*[(t, k, 1, v) for t, k, v in tags], (258, 3, 3, after)])
    ifd = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        ifd += struct.pack(f"{order}HHI", tag, kind, count)
        ifd += struct.pack(f"{order}Hxx", value) if short else struct.pack(f"{order}I", value)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}I", end) + body + ifd + bytes(4) + struct.pack(f"{order}HHH", 16, 16, 16)


def plain(data: bytes, value_range: tuple[float, float] | None, background: int = 255) -> np.ndarray:
    """The pixels, unresized, as the network would get them."""
    return pixels.upright(data, None, Preprocess(value_range=value_range, background=background))


RAMP = np.linspace(0, 4095, 40 * 50).reshape(40, 50).round().astype(np.uint16)  # a 12-bit camera


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.integers(0, 30000), st.integers(1, 35000))
def test_sixteen_bits_of_a_png_are_all_used(channels: int, seed: int, low: int, span: int) -> None:
    array = np.random.default_rng(seed).integers(low, low + span, (9, 11, channels), dtype=np.uint16)
    if channels in (2, 4):
        array[..., -1] = 65535
    colour = array[..., : {1: 1, 2: 1, 3: 3, 4: 3}[channels]].astype(float)
    want = np.broadcast_to((colour - low) * 255 / span, (9, 11, 3))
    assert np.abs(plain(png16(array), (low, low + span)) - want).max() <= 0.51


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_a_colour_tiff_are_all_used(order: str) -> None:
    array = np.random.default_rng(0).integers(0, 4096, (9, 11, 3), dtype=np.uint16)
    data = tiff16(array, order)
    assert pixels.read_header(data, "a.tif").mode == "RGB;16"
    assert np.abs(plain(data, (0, 4095)) - array * (255 / 4095)).max() <= 0.51


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_camera_data_is_neither_black_nor_white(tmp_path: Path, options: dict[str, object]) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(RAMP, **options))
    found = pixels.value_range([tmp_path / "a.tif"])
    assert found is not None and abs(found[0]) < 10 and abs(found[1] - 4095) < 10
    got = pixels.decode(tmp_path / "a.tif", Preprocess(size=(40, 50), fit="squash", value_range=found))
    assert np.abs(got[..., 0] - RAMP * (255 / 4095)).max() < 1.5
    assert len(np.unique(got)) > 240


def test_transparency_of_sixteen_bits() -> None:
    grey = np.array([[[1000], [40000]]], dtype=np.uint16)
    assert plain(png16(grey, (1000,)), None, 9)[0, :, 0].tolist() == [9, 156]
    colour = np.array([[[1, 2, 3], [1, 2, 4]]], dtype=np.uint16)
    assert plain(png16(colour, (1, 2, 3)), None, 9)[0].tolist() == [[9, 9, 9], [0, 0, 0]]
    half = np.array([[[65535, 32768]]], dtype=np.uint16)
    assert plain(png16(half), None, 55)[0, 0, 0] == 155


def test_without_a_range_integers_and_floats_have_their_full_one() -> None:
    assert plain(tiff(np.array([[0, 257, 65535]], np.uint16)), None)[0, :, 0].tolist() == [0, 1, 255]
    assert plain(tiff(np.array([[0, 0.5, 1]], np.float32)), None)[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ImageError) as error:
        plain(tiff(np.array([[0, 0.5, 100]], np.float32)), None)
    assert error.value.kind == "value range" and "100" in error.value.message


def test_floats_that_are_no_numbers() -> None:
    array = np.array([[np.nan, np.inf, -np.inf, 0.0, 10.0, 5.0]], dtype=np.float32)
    assert plain(tiff(array), (0.0, 10.0))[0, :, 0].tolist() == [0, 255, 0, 0, 255, 128]
    assert pixels.look(tiff(np.tile(array, (20, 1)))).gray.max() > 0
    with pytest.raises(ImageError) as error:
        pixels.decode(tiff(np.full((4, 4), np.nan, np.float32)), Preprocess())
    assert error.value.kind == "not finite"


def test_the_range_is_of_the_deep_images_alone(tmp_path: Path) -> None:
    assert pixels.value_range([]) is None
    eight, low, high, broken = (tmp_path / n for n in ("8.png", "low.tif", "high.tif", "broken.tif"))
    Image.new("RGB", (9, 9), (3, 200, 9)).save(eight)
    assert pixels.value_range([eight, tmp_path / "missing.tif"]) is None
    low.write_bytes(tiff(np.full((30, 30), -5, np.float32)))
    spread = np.linspace(0, 100, 10_000).reshape(100, 100).astype(np.float32)
    spread[0, :5] = 1e9, np.nan, np.inf, -np.inf, 50  # stray values are left out
    high.write_bytes(tiff(spread))
    broken.write_bytes(high.read_bytes()[:500])
    found = pixels.value_range([eight, low, high, broken], threads=2)
    assert found == (-5.0, pytest.approx(100, abs=0.5))


def test_eight_bits_are_not_scaled_by_a_range() -> None:
    stream = io.BytesIO()
    Image.new("L", (6, 6), 77).save(stream, "PNG")
    assert (plain(stream.getvalue(), (0.0, 4095.0)) == 77).all()


# ------------------------------------------------------------------------------------------------------- 0 is white


def stored(array: np.ndarray, photometric: int, order: str = "<", **tags: float) -> bytes:
    """An uncompressed TIFF of one channel with these tags: `format` (SampleFormat), `lowest` and `highest` (floats)."""
    values = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder(order))
    entries = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, 8 * values.itemsize), (259, 3, 1)]
    entries += [(262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, values.shape[0]), (279, 4, values.nbytes)]
    names = {"format": (339, 3), "lowest": (340, 11), "highest": (341, 11), "orientation": (274, 3)}
    entries += [(*names[name], value) for name, value in tags.items()]  # type: ignore[misc]
    packed = [
        struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(order + {3: "H", 4: "I", 11: "f"}[kind], value).ljust(4, b"\0")
        for tag, kind, value in sorted(entries)
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + values.nbytes)
    return head + values.tobytes() + struct.pack(f"{order}H", len(packed)) + b"".join(packed) + b"\0\0\0\0"


SHARES = np.linspace(0, 1, 48 * 64).reshape(48, 64)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize(
    ("values", "inverse", "tags"),
    [
        ((SHARES * 65535).astype(np.uint16), lambda v: 65535 - v, {}),
        ((SHARES * 30000).astype(np.int16), lambda v: ~v, {"format": 2}),
        ((SHARES * 1e9).astype(np.int32), lambda v: ~v, {"format": 2}),
        (SHARES.astype(np.float32), lambda v: 1 - v, {"format": 3}),
        ((SHARES * 1000).astype(np.float32), lambda v: 1000 - v, {"format": 3, "lowest": 0.0, "highest": 1000.0}),
    ],
    ids=["uint16", "int16", "int32", "float", "float with a range"],
)
def test_a_deep_tiff_in_which_0_is_white_is_its_twin_in_which_0_is_black(
    order: str, values: np.ndarray, inverse: Any, tags: dict[str, float]
) -> None:
    black, white = stored(values, 1, order, **tags), stored(inverse(values), 0, order, **tags)
    assert np.abs(pixels.upright(white).astype(int) - pixels.upright(black)).max() <= 1
    kind = Preprocess(size=(16, 16), value_range=(float(values.min()), float(values.max())))
    assert np.abs(pixels.decode(white, kind).astype(int) - pixels.decode(black, kind)).max() <= 1
    assert np.abs(pixels.look(white).gray.astype(int) - pixels.look(black).gray).max() <= 1
    np.testing.assert_allclose(modes.image_range(white, "TIFF"), modes.image_range(black, "TIFF"), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_in_which_0_is_white(compression: str) -> None:
    values = (SHARES * 65535).astype(np.uint16)
    white = tiff(65535 - values, compression=compression, tiffinfo={262: 0})
    np.testing.assert_array_equal(pixels.upright(white), pixels.upright(tiff(values)))


def test_0_is_white_with_8_bits_and_turned() -> None:
    values = (SHARES * 255).astype(np.uint8)
    np.testing.assert_array_equal(pixels.upright(stored(255 - values, 0)), pixels.upright(stored(values, 1)))
    deep = values.astype(np.uint16) * 257
    for turn in range(1, 9):
        white = pixels.upright(stored(65535 - deep, 0, orientation=turn))
        np.testing.assert_array_equal(white, pixels.upright(stored(deep, 1, orientation=turn)))
        assert white.shape[0] == (64 if turn >= 5 else 48)


def test_floats_in_which_0_is_white_and_nothing_says_what_is_black_are_refused() -> None:
    with pytest.raises(ImageError, match="in which 0 is white, and does not specify which value is black"):
        pixels.upright(stored((SHARES * 1000).astype(np.float32), 0, format=3))
