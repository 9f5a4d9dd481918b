"""What goes wrong with images, one by one: each file has its own error, which names it; nothing else is touched."""

from __future__ import annotations

import io
import struct
import subprocess
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from sightline import pixels
from sightline.errors import ImageError
from sightline.pixels import Preprocess

SMALL = Preprocess(size=(32, 32))


def picture(mode: str = "RGB", size: tuple[int, int] = (200, 150)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(form: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    picture(mode).save(stream, form, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def with_exif(jpeg: bytes, block: bytes) -> bytes:
    block = b"Exif\0\0" + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


JPEG = encoded("JPEG", quality=90)
PNG = encoded("PNG")
BOMB_PNG = PNG[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + PNG[33:]
BOMB_WEBP = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"404 not found\n", "not an image"),
    "umlaut.jpg": ("Grüße aus Köln".encode(), "not an image"),
    "page.jpg": (b"\n<!DOCTYPE html><html><body>Sorry</body></html>", "not an image"),
    "binary.jpg": (bytes(range(256)), "not an image"),
    "zeros.jpg": (bytes(5000), "not an image"),
    "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
    "paper.pdf": (b"%PDF-1.7\n%\xe2\xe3", "unsupported"),
    "print.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n", "unsupported"),
    "stars.fits": (b"SIMPLE  =                    T" + bytes(3000), "unsupported"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "damaged"),
    "film.mp4": (b"\0\0\0\x18ftypisom\0\0\0\0", "unsupported"),
    "archive.jpg": (b"PK\x03\x04" + bytes(40), "unsupported"),
    "icon.ico": (b"\0\0\x01\0\x01\0" + bytes(40), "unsupported"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "no end.jpg": (JPEG[:-2], "truncated"),
    "header only.jpg": (JPEG[:60], "truncated"),
    "three bytes.jpg": (JPEG[:3], "truncated"),
    "cut progressive.jpg": (encoded("JPEG", progressive=True)[:-300], "truncated"),
    "cut.png": (PNG[: len(PNG) // 2], "truncated"),
    "flipped.png": (PNG[:500] + bytes([PNG[500] ^ 4]) + PNG[501:], "damaged"),
    "wrong sum.png": (PNG[:-14] + bytes([PNG[-14] ^ 4]) + PNG[-13:], "damaged"),
    "cut.tif": (encoded("TIFF")[:1000], "truncated"),
    "cut.webp": (encoded("WEBP")[:300], "damaged"),
    "cut.gif": (encoded("GIF", "P")[:900], "truncated"),
    "cut.bmp": (encoded("BMP")[:900], "truncated"),
    "bomb.png": (BOMB_PNG, "too large"),
    "bomb.webp": (BOMB_WEBP, "too large"),
    "12 bits.jpg": (JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"), "unsupported"),
    "no size.jpg": (JPEG.replace(struct.pack(">HH", 150, 200), bytes(4), 1), "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_bad_file_has_its_kind_and_its_name(name: str, tmp_path: Path) -> None:
    data, kind = REFUSED[name]
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(ImageError) as error:
        pixels.decode(file, SMALL)
    assert error.value.kind == kind
    assert error.value.message.startswith(str(file))
    with pytest.raises(ImageError):
        pixels.upright(file)
    kinds = ("empty", "not an image", "unsupported", "too large")
    if kind in kinds:  # what needs no pixels is known from the header
        with pytest.raises(ImageError) as error:
            pixels.read_header(data, name)
        assert error.value.kind == kind


def test_one_bad_file_spoils_no_other(tmp_path: Path) -> None:
    """The next image never takes its place, nor a black one."""
    files = []
    for i, (name, (data, _)) in enumerate(REFUSED.items()):
        for each, content in ((f"{i} {name}", data), (f"{i} good.png", PNG)):
            files.append(tmp_path / each)
            files[-1].write_bytes(content)
    files.append(tmp_path / "missing.jpg")
    files.append(tmp_path)
    good = pixels.decode(PNG, SMALL)
    rows: list[int] = []
    errors: dict[int, ImageError] = {}
    for batch in pixels.batches(files, SMALL, batch_size=7, threads=3):
        assert all(np.array_equal(image, good) for image in batch.images)
        rows += batch.index.tolist()
        errors.update(batch.errors)
    assert rows == list(range(1, 2 * len(REFUSED), 2))
    assert sorted(errors) == [*range(0, 2 * len(REFUSED), 2), len(files) - 2, len(files) - 1]
    assert all(str(files[i]) in error.message for i, error in errors.items())
    assert [errors[len(files) - 2].kind, errors[len(files) - 1].kind] == ["missing", "unreadable"]


def test_no_helper_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, forbidden)
    for data, _ in REFUSED.values():
        with pytest.raises(ImageError):
            pixels.decode(data, SMALL)


def test_truncated_is_the_same_on_every_path() -> None:
    """Drafted or whole, refused by default; with leave, the top is the photograph's; and the header knew."""
    whole = encoded("JPEG", quality=90)
    cut = whole[: len(whole) * 2 // 3]
    assert pixels.read_header(cut, "a.jpg").notes == ("truncated",)
    for side in (8, 16, 64, 128, 300):
        strict = Preprocess(size=(side, side), fit="squash")
        with pytest.raises(ImageError) as error:
            pixels.decode(cut, strict)
        assert error.value.kind == "truncated"
        lenient = Preprocess(size=(side, side), fit="squash", allow_truncated=True)
        got, want = pixels.decode(cut, lenient).astype(int), pixels.decode(whole, strict).astype(int)
        assert np.abs(got - want)[: side // 2].mean() < 1
        assert np.array_equal(pixels.decode(whole, lenient), want)


def test_leave_for_one_image_is_not_leave_for_another() -> None:
    """Pillow's own switch is global; in threads it would let other images through."""
    cut = JPEG[: len(JPEG) * 2 // 3]
    lenient = Preprocess(size=(32, 32), allow_truncated=True)

    def one(i: int) -> str:
        try:
            pixels.decode(cut, lenient if i % 2 else SMALL)
        except ImageError as error:
            return error.kind
        return "decoded"

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(80))) == ["truncated", "decoded"] * 40
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_pillows_globals_and_the_hosts_warnings_are_left_alone() -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    odd = PNG[:33] + png_chunk(b"acTL", bytes(8)) + PNG[33:]  # an animation of no frames
    with pytest.warns(UserWarning, match="APNG"), Image.open(io.BytesIO(odd)) as image:
        image.load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        def one(data: bytes) -> None:
            pixels.decode(data, SMALL)
            pixels.look(data)
            pixels.read_header(data, "a.png")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, [odd, with_exif(JPEG, b"II*\0\xff\xff\xff\x00")] * 20))
        with pytest.raises(UserWarning):  # the host's own filters are back
            warnings.warn_explicit("of Pillow", UserWarning, "PIL/a.py", 1, module="PIL.a")
    assert limit == Image.MAX_IMAGE_PIXELS and list(warnings.filters) == filters


BAD_EXIF = {
    "nothing": b"",
    "no byte order": b"XX",
    "cut": b"II*\0",
    "points nowhere": b"II*\0\xff\xff\xff\x00",
    "endless": b"II*\0\x08\0\0\0\xff\xff",
    "orientation 99": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0",
}


@pytest.mark.parametrize("block", BAD_EXIF.values(), ids=BAD_EXIF)
def test_corrupt_exif_is_ignored(block: bytes) -> None:
    data = with_exif(JPEG, block)
    assert pixels.read_header(data, "a.jpg").orientation == 1
    assert np.array_equal(pixels.decode(data, SMALL), pixels.decode(JPEG, SMALL))


def test_trailing_junk_is_fine() -> None:
    for data in (JPEG, PNG, encoded("GIF", "P"), encoded("WEBP"), encoded("BMP")):
        assert np.array_equal(pixels.decode(data + b"junk\xff\xda" * 999, SMALL), pixels.decode(data, SMALL))
    assert pixels.read_header(JPEG + b"\xff\xda", "a.jpg").notes == ()


def test_a_format_under_another_name_is_decoded_by_content(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PNG)
    assert np.array_equal(pixels.decode(tmp_path / "a.jpg", SMALL), pixels.decode(PNG, SMALL))
    assert pixels.read_header(PNG, "a.jpg").notes == ("PNG content named .jpg",)


@pytest.mark.parametrize(("form", "note"), [("GIF", "animated"), ("WEBP", "animated"), ("PNG", "animated"), ("TIFF", "pages")])
def test_of_several_frames_the_first_is_used_and_noted(form: str, note: str) -> None:
    stream = io.BytesIO()
    others = [Image.new("RGB", (200, 150), c) for c in ("red", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    picture("L").convert("RGB").save(stream, form, save_all=True, append_images=others, **options)
    data = stream.getvalue()
    [said] = pixels.read_header(data, "a").notes
    assert note in said and "first" in said
    one = io.BytesIO()
    picture("L").convert("RGB").save(one, form, **options)
    assert np.array_equal(pixels.decode(data, SMALL), pixels.decode(one.getvalue(), SMALL))


def test_arithmetic_coding_is_decoded() -> None:
    """SOF9 with an empty scan: the arithmetic decoder reads zeros, which is one flat image."""
    table = b"\xff\xdb\x00\x43\x00" + bytes([1] * 64)
    frame = b"\xff\xc9\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00"
    data = b"\xff\xd8" + table + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(16) + b"\xff\xd9"
    assert pixels.read_header(data, "a.jpg").mode == "L"
    with Image.open(io.BytesIO(data)) as image:
        want = np.asarray(image)
    assert np.array_equal(pixels.upright(data)[..., 0], want)


def test_an_embedded_colour_profile_changes_nothing() -> None:
    """One policy: the numbers as they are stored."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(pixels.decode(encoded("PNG", icc_profile=profile), SMALL), pixels.decode(PNG, SMALL))


def test_no_exif_survives_for_drawing() -> None:
    """What is drawn is an array: position, serial number and name stay behind."""
    secret = with_exif(JPEG, b"II*\0\x08\0\0\0\0\0\0\0\0\0 GPS 52.5N 13.4E")
    stream = io.BytesIO()
    Image.fromarray(pixels.upright(secret, 100)).save(stream, "JPEG")
    assert b"GPS" not in stream.getvalue() and b"Exif" not in stream.getvalue()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in folders on this system")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError) as error:
        pixels.decode(tmp_path / "pipe.jpg", SMALL)
    assert error.value.kind == "unreadable" and error.value.kind in pixels.PASSING_PROBLEMS
