"""What a header says, checked against Pillow's own reading, and what is refused from it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, features

from sightline import pixels
from sightline.errors import ImageError
from sightline.pixels import header


def encoded(mode: str, form: str, size: tuple[int, int] = (37, 23), **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


CASES = {
    "a.jpg": encoded("RGB", "JPEG"),
    "grey.jpeg": encoded("L", "JPEG", progressive=True),
    "cmyk.jpg": encoded("CMYK", "JPEG"),
    "a.png": encoded("RGBA", "PNG"),
    "one.png": encoded("1", "PNG"),
    "deep.png": encoded("I;16", "PNG"),
    "p.png": encoded("P", "PNG"),
    "a.gif": encoded("P", "GIF"),
    "a.bmp": encoded("RGB", "BMP"),
    "a.tif": encoded("RGB", "TIFF"),
    "deep.tiff": encoded("I;16", "TIFF"),
    "float.tif": encoded("F", "TIFF"),
    "lossy.webp": encoded("RGB", "WEBP"),
    "lossless.webp": encoded("RGB", "WEBP", lossless=True),
    "alpha.webp": encoded("RGBA", "WEBP", lossless=True),
    "extended.webp": encoded("RGBA", "WEBP", exif=b"Exif\0\0II*\0"),
    "a.ppm": encoded("RGB", "PPM"),
    "a.pgm": encoded("L", "PPM"),
}


@pytest.mark.parametrize("name", CASES)
def test_size_format_and_mode_are_pillows(name: str) -> None:
    found = pixels.read_header(memoryview(CASES[name]), name)
    with Image.open(io.BytesIO(CASES[name])) as image:
        assert (found.width, found.height, found.format) == (*image.size, image.format)
        assert found.mode == image.mode
    assert found.orientation == 1
    assert all("EXIF" in note for note in found.notes)
    assert pixels.decode(CASES[name], pixels.Preprocess(size=(8, 8))).shape == (8, 8, 3)


def test_an_extension_that_lies_is_noted() -> None:
    assert pixels.read_header(CASES["a.png"], "photo.JPG").notes == ("PNG content named .jpg",)
    assert pixels.read_header(CASES["a.png"], "photo").notes == ()


def test_sixteen_bit_colour_is_named() -> None:
    raw = b"".join(b"\0" + bytes(6 * 5) for _ in range(4))
    body = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    assert pixels.read_header(data, "a.png").mode == "RGB;16"
    assert {"RGB;16", "I;16", "F", "I"} <= pixels.DEEP_MODES


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_a_bomb_is_refused_from_its_header(width: int, height: int) -> None:
    jpeg = CASES["a.jpg"].replace(struct.pack(">HH", 23, 37), struct.pack(">HH", height, width), 1)
    if width * height <= 1_000_000:
        assert pixels.read_header(jpeg, "a.jpg", max_pixels=1_000_000).width == width
        return
    with pytest.raises(ImageError) as error:
        pixels.read_header(jpeg, "a.jpg", max_pixels=1_000_000)
    assert error.value.kind == "too large" and f"{width}×{height}" in error.value.message


@given(st.sampled_from(sorted(CASES)), st.data())
def test_damaged_headers_raise_image_errors_or_are_read(name: str, data: st.DataObject) -> None:
    """Bytes flipped and cut anywhere: never another exception, from the header or from the decoder."""
    broken = bytearray(CASES[name])
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(0, len(broken)))]
    for what in (
        lambda: pixels.read_header(bytes(broken), name),
        lambda: pixels.decode(bytes(broken), pixels.Preprocess(size=(8, 8), max_pixels=100_000)),
        lambda: pixels.decode(bytes(broken), pixels.Preprocess(size=(8, 8), max_pixels=100_000, allow_truncated=True)),
    ):
        try:
            what()
        except ImageError as error:
            assert error.kind and error.message


@given(st.binary(max_size=64))
def test_any_exif_gives_an_orientation_or_none(block: bytes) -> None:
    assert header.exif_orientation(block) in (None, *range(1, 9))
    assert header.exif_orientation(b"II*\0\x08\0\0\0" + block) in (None, *range(1, 9))


def test_a_preview_is_not_the_image() -> None:
    """The size and the end of a JPEG inside the EXIF block are not the photograph's."""
    preview = b"Exif\0\0II*\0\x08\0\0\0\0\0" + encoded("RGB", "JPEG", (160, 120))
    jpeg = CASES["a.jpg"]
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview + jpeg[2:]
    found = pixels.read_header(data, "a.jpg")
    assert (found.width, found.height, found.notes) == (37, 23, ())
    assert pixels.read_header(data[:-40], "a.jpg").notes == ("truncated",)
    assert pixels.read_header(data[:-40], "a.jpg", whole=False).notes == ()
    assert pixels.read_header(data + b"junk" * 50, "a.jpg").notes == ()


@pytest.mark.parametrize("keyword", ["Raw profile type exif", "Raw profile type APP1"])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "compressed iTXt"])
def test_orientation_in_the_raw_profile_of_a_png(keyword: str, kind: str) -> None:
    """ImageMagick writes EXIF into a PNG as hexadecimal text."""
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        digits = exif.tobytes().hex()
        text = f"\nexif\n{len(digits) // 2:8}\n" + "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + "\n"
        info = PngImagePlugin.PngInfo()
        if kind.endswith("iTXt"):
            info.add_itxt(keyword, text, zip=kind.startswith("compressed"))
        else:
            info.add_text(keyword, text, zip=kind == "zTXt")
        found = pixels.read_header(encoded("RGB", "PNG", pnginfo=info), "a.png")
        assert found.orientation == turn
        assert (found.width, found.height) == ((23, 37) if turn >= 5 else (37, 23))


@pytest.mark.parametrize("text", ["", "\nexif\n", "\nexif\n  4\nzz", "\nexif\n  4\n4d4d"])
def test_a_damaged_raw_profile_only_loses_the_orientation(text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", text)
    assert pixels.read_header(encoded("RGB", "PNG", pnginfo=info), "a.png").orientation == 1


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_format_is_turned_as_pillow_turns_it(form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = Image.effect_noise((48, 32), 80).convert("RGB")
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        stream = io.BytesIO()
        noise.save(stream, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
        with Image.open(io.BytesIO(stream.getvalue())) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(pixels.upright(stream.getvalue()), expected)
