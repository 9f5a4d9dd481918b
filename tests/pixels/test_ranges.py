"""Images with more than 8 bits a channel: all of their bits are used, by a range from the training set."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline import pixels
from sightline.errors import ImageError
from sightline.pixels import Preprocess


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
