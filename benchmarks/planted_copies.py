"""Altered copies of photographs: 30 kinds of edits, with parameters drawn per copy, for measuring searches for duplicates."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True, slots=True)
class Planted:
    """An altered copy.

    Args:
        original: Path of the photograph.
        copy: Path of the copy.
        kind: Key of `KINDS`.
    """

    original: Path
    copy: Path
    kind: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of copy: an edit, and how the result is saved.

    Args:
        edit: Function of the upright RGB image and a random generator.
        suffix: Suffix of the file, which decides the format.
        quality: JPEG or WebP quality.
        goal: Recall that the search is expected to reach, 0 to 1; None without a goal.
    """

    edit: Edit
    suffix: str = ".jpg"
    quality: int = 90
    goal: float | None = None


def same(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the image as it is."""
    return image


def scale(factor: float) -> Edit:
    """Resize both sides by a factor."""

    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        return image.resize(
            (max(8, round(image.width * factor)), max(8, round(image.height * factor))), Image.Resampling.LANCZOS
        )

    return edit


def crop(share: float) -> Edit:
    """Cut off a share of each side in total, divided at random between its two ends."""

    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        (w, h), (x, y) = image.size, rng.uniform(0, 1, 2) * share
        return image.crop((round(w * x), round(h * y), round(w * (x + 1 - share)), round(h * (y + 1 - share))))

    return edit


def crop_each_side(share: float) -> Edit:
    """Cut off a share of the width at left and right, and of the height at top and bottom."""

    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = image.size
        return image.crop((round(w * share), round(h * share), round(w * (1 - share)), round(h * (1 - share))))

    return edit


def curve(function: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Map grey levels, 0 to 1, by a function."""
    table = (np.clip(function(np.arange(256) / 255), 0, 1) * 255).round().astype(int).tolist() * 3
    return lambda image, rng: image.point(table)


def turn(method: Image.Transpose) -> Edit:
    """Mirror the image or turn it by a multiple of 90°."""
    return lambda image, rng: image.transpose(method)


def rotate(degrees: float, fill: bool) -> Edit:
    """Rotate by an angle of random sign; black corners, or the largest rectangle without them."""

    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = image.size
        angle = degrees * (1 if rng.random() < 0.5 else -1)
        turned = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(0, 0, 0))
        if fill:
            return turned
        s = np.sin(np.radians(degrees))
        dx, dy = int(np.ceil(h / 2 * s)), int(np.ceil(w / 2 * s))
        return turned.crop((dx, dy, w - dx, h - dy))

    return edit


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8, size))


def watermark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write large translucent text across the image, or opaque small text into a corner."""
    w, h = image.size
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    text = str(rng.choice(["© studio", "SAMPLE", "stock photo", "www.example.org", "PREVIEW"]))
    if rng.random() < 0.6:
        font = _font(max(w // max(4, len(text)), 10))
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        at = ((w - right + left) / 2, h * rng.uniform(0.25, 0.65) - (bottom - top) / 2)
        draw.text(at, text, fill=(255, 255, 255, int(rng.integers(90, 170))), font=font)
        if rng.random() < 0.5:
            layer = layer.rotate(float(rng.uniform(-35, 35)), Image.Resampling.BICUBIC)
    else:
        font = _font(max(h // 14, 9))
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        at = (w - right - w * 0.03, h - bottom - h * 0.04) if rng.random() < 0.5 else (w * 0.03, h * 0.03)
        draw.text(at, text, fill=(255, 255, 255, 255), font=font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def caption_below(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add a white or black strip of 8 to 15 % of the height with text below the image."""
    w, h = image.size
    strip = max(10, round(h * rng.uniform(0.08, 0.15)))
    dark = rng.random() < 0.5
    out = Image.new("RGB", (w, h + strip), (0, 0, 0) if dark else (255, 255, 255))
    out.paste(image, (0, 0))
    draw = ImageDraw.Draw(out)
    text = str(rng.choice(["when you see it", "Figure 3: the garden in May", "me on monday"]))
    draw.text((w * 0.05, h + strip * 0.2), text, fill=(255, 255, 255) if dark else (0, 0, 0), font=_font(round(strip * 0.5)))
    return out


def caption_over(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write a line of text on a black or white strip over the image's upper or lower edge."""
    w, h = image.size
    strip = max(10, round(h * rng.uniform(0.08, 0.14)))
    dark = rng.random() < 0.5
    out, top = image.copy(), 0 if rng.random() < 0.4 else h - strip
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, top, w, top + strip), fill=(0, 0, 0) if dark else (255, 255, 255))
    text = str(rng.choice(["when you see it", "Figure 3: the garden in May", "me on monday"]))
    draw.text((w * 0.05, top + strip * 0.2), text, fill=(255, 255, 255) if dark else (0, 0, 0), font=_font(round(strip * 0.5)))
    return out


def text_over(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Write white text with a black outline over the lower or upper part of the image."""
    w, h = image.size
    out = image.copy()
    draw = ImageDraw.Draw(out)
    text = str(rng.choice(["WHEN YOU SEE IT", "ME ON MONDAY", "NOT TODAY"]))
    font = _font(max(10, round(w * 0.8 / len(text) * 1.5)))
    left, _, right, bottom = draw.textbbox((0, 0), text, font=font)
    at = ((w - right + left) / 2, h * 0.04 if rng.random() < 0.5 else h * 0.96 - bottom)
    draw.text(at, text, fill=(255, 255, 255), font=font, stroke_width=max(1, w // 150), stroke_fill=(0, 0, 0))
    return out


def border(low: float, high: float) -> Edit:
    """Add a frame of one colour, its width a random share of the shorter side."""

    def edit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width = max(2, round(min(image.size) * rng.uniform(low, high)))
        colours = ((0, 0, 0), (255, 255, 255), (200, 30, 30), (90, 90, 90), (240, 230, 200))
        return ImageOps.expand(image, width, colours[int(rng.integers(len(colours)))])

    return edit


def noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add Gaussian noise of 8 grey levels."""
    values = np.asarray(image, np.float32) + rng.normal(0, 8, (image.height, image.width, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def stretch(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change the aspect ratio by a quarter."""
    return image.resize((max(8, round(image.width * 0.8)), image.height), Image.Resampling.LANCZOS)


KINDS: dict[str, Kind] = {
    "exact": Kind(same, goal=0.97),
    "jpeg_70": Kind(same, quality=70, goal=0.97),
    "jpeg_30": Kind(same, quality=30, goal=0.97),
    "half": Kind(scale(0.5), goal=0.97),
    "quarter": Kind(scale(0.25), goal=0.97),
    "enlarged": Kind(scale(1.6), goal=0.97),
    "png": Kind(same, ".png", goal=0.97),
    "webp": Kind(same, ".webp", 75, goal=0.97),
    "exif_turned": Kind(turn(Image.Transpose.ROTATE_90), goal=0.97),
    "grey": Kind(lambda image, rng: ImageOps.grayscale(image).convert("RGB"), goal=0.97),
    "crop_3": Kind(crop(0.03)),
    "crop_6": Kind(crop(0.06)),
    "crop_10": Kind(crop(0.10), goal=0.85),
    "crop_10_each_side": Kind(crop_each_side(0.10), goal=0.85),
    "crop_20": Kind(crop(0.20)),
    "brighter": Kind(curve(lambda v: v * 1.2), goal=0.97),
    "darker": Kind(curve(lambda v: v * 0.8), goal=0.97),
    "gamma_0.7": Kind(curve(lambda v: v**0.7), goal=0.97),
    "gamma_1.5": Kind(curve(lambda v: v**1.5)),
    "contrast": Kind(curve(lambda v: (v - 0.5) * 1.3 + 0.5)),
    "colour": Kind(lambda image, rng: ImageEnhance.Color(image).enhance(1.5)),
    "blur": Kind(lambda image, rng: image.filter(ImageFilter.GaussianBlur(max(image.size) / 300))),
    "noise": Kind(noise),
    "stretched": Kind(stretch),
    "watermark": Kind(watermark, goal=0.85),
    "caption_below": Kind(caption_below, goal=0.85),
    "caption_over": Kind(caption_over, goal=0.85),
    "text_over": Kind(text_over, goal=0.85),
    "border": Kind(border(0.03, 0.10), goal=0.85),
    "mirror": Kind(turn(Image.Transpose.FLIP_LEFT_RIGHT), goal=0.97),
    "turned_90": Kind(turn(Image.Transpose.ROTATE_90), goal=0.97),
    "turned_180": Kind(turn(Image.Transpose.ROTATE_180), goal=0.97),
    "rotated_2": Kind(rotate(2, fill=True), goal=0.85),
    "rotated_2_cropped": Kind(rotate(2, fill=False), goal=0.85),
    "rotated_5_cropped": Kind(rotate(5, fill=False)),
}
"""Kinds of copies. Goals are those of the project; kinds without one are measured as well."""


def save(image: Image.Image, kind: Kind, name: str, file: Path) -> None:
    """Write a copy; an `exif_turned` copy is stored turned, with the orientation that undoes it."""
    options: dict[str, object] = {} if kind.suffix == ".png" else {"quality": kind.quality}
    if name == "exif_turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    image.save(file, **options)


def plant(photographs: list[Path], folder: Path, *, per_kind: int, seed: int = 0, kinds: tuple[str, ...] = ()) -> list[Planted]:
    """Write altered copies of photographs drawn at random, each of another photograph if there are enough.

    Args:
        photographs: Files to copy.
        folder: Folder for the copies; they are named `<kind>_<number>`.
        per_kind: Number of copies per kind.
        seed: Random seed.
        kinds: Keys of `KINDS`; all if empty.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = kinds or tuple(KINDS)
    order = [photographs[i] for i in rng.permutation(len(photographs))]
    planted = []
    for number in range(per_kind * len(wanted)):
        name = wanted[number % len(wanted)]
        original = order[number % len(order)]
        kind = KINDS[name]
        copy = folder / f"{name}_{number:05d}{kind.suffix}"
        data = original.read_bytes()
        if name == "exact":
            copy = copy.with_suffix(original.suffix)
            copy.write_bytes(data)
        else:
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            save(kind.edit(image, np.random.default_rng([seed, number])), kind, name, copy)
        planted.append(Planted(original, copy, name))
    return planted
