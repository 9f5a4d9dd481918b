"""What single channels of a layer answer to, image by image: a contact sheet over the photograph, and the raw maps."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import RequestError
from sightline.explanation.draw import overlay
from sightline.explanation.draw.lettering import GAP_PX, INK, PAPER, TEXT_PX, font, number
from sightline.explanation.heatmaps import box_of
from sightline.explanation.methods.activation import ChannelMaps, channel_maps
from sightline.files import read_bytes
from sightline.store import Cache, atomic_file, write_bytes

Which = Literal["strongest", "first"]
MOST = 256
"""Channels on one sheet: more cannot be looked at."""
_SIDE_PX = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """Which channels are drawn.

    Args:
        which, count: As in `channel_maps`.
    """

    which: Which
    count: int


def parse_channels(text: str) -> Choice:
    """`16`, `strongest:16` or `first:16` → the choice.

    Example:
        >>> parse_channels("first:4"), parse_channels("16")
        (Choice(which='first', count=4), Choice(which='strongest', count=16))

    Raises:
        RequestError: It is none of these.
    """
    which, _, count = text.rpartition(":")
    for known in get_args(Which):
        if which in ("", known) and count.isascii() and count.isdigit() and 1 <= int(count) <= MOST:
            return Choice(known, int(count))
    raise RequestError(f"{text!r} is no choice of channels", f"write strongest:16 or first:16, with a number from 1 to {MOST}")


def check(model: Classifier) -> None:
    """Refuse a classifier of several networks.

    Raises:
        RequestError: It is one.
    """
    if model.members:
        raise RequestError("an ensemble has no channels of its own", "explain one of its members, or leave out --channels")


def write(
    stem: Path, model: Classifier, file: Path, name: str, choice: Choice, layer: str | None, *, cache: Cache, device: str
) -> dict[str, Any]:
    """Draw channels of a layer for one image, and write their raw maps.

    Args:
        stem: Where: `-channels.png` and `-channels.npz` are added.
        model: A classifier that `check` lets pass; where it looks at several crops, the central one is shown.
        file, name: The image.
        choice: Which channels.
        layer: A module of the network; None for its last map.
        cache, device: As everywhere.

    Returns:
        For JSON: `layer`, `which`, `numbers`, `sheet`, `maps`.

    Raises:
        RequestError: The network has no such layer, or no map.
    """
    preprocess = model.card.backbone.preprocess
    session = model.session(cache, device=device, expected=1)
    seen = np.stack([pixels.decode(file, preprocess)])
    found = channel_maps(session, seen, layer=layer, channels=choice.count, which=choice.which)
    box = box_of(file, name, preprocess)
    sheet, maps = (stem.with_name(f"{stem.name}-channels{suffix}") for suffix in (".png", ".npz"))
    header = pixels.read_header(read_bytes(file), file.name)
    size = (header.height, header.width)
    image = pixels.upright(file, overlay.longest_px(box, size, _SIDE_PX), preprocess)
    picture = _sheet(image, found, choice, box, size, file.name)
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_bytes(sheet, data.getvalue())
    with atomic_file(maps) as stream:
        np.savez_compressed(
            stream,
            maps=found.maps[0],
            numbers=found.numbers[0],
            box=np.array(box),
            path=np.array(name),
            layer=np.array(found.layer),
        )
    numbers = [int(n) for n in found.numbers[0]]
    return {"layer": found.layer, "which": choice.which, "numbers": numbers, "sheet": str(sheet), "maps": str(maps)}


def _sheet(
    image: np.ndarray,
    found: ChannelMaps,
    choice: Choice,
    box: tuple[float, float, float, float],
    original: tuple[int, int],
    name: str,
) -> Any:
    """The channels of one image over it in grey, on one scale, each with its number and its largest activation.

    Where the network saw but a small part of the image, that part is drawn.
    """
    from PIL import Image, ImageDraw

    room, part = (_SIDE_PX, _SIDE_PX), overlay.too_small(box, original, (_SIDE_PX, _SIDE_PX))
    area: tuple[float, float] = original
    if part:
        image, box, area = overlay.seen_part(image, box, original)
    base = overlay.fit(image, room, least_px=_SIDE_PX // 3 if part else 1)
    height, width = base.shape[:2]
    scale = float(np.abs(found.maps[0]).max())
    pages = []
    for channel, heat in zip(found.numbers[0], found.maps[0], strict=True):
        placed = overlay.place(heat, box, area, (height, width))
        page = Image.new("RGB", (max(width, _SIDE_PX), height + 22), PAPER)
        page.paste(Image.fromarray(overlay.blend(base, placed / scale if scale else placed, contour=False)), (0, 0))
        text = f"{channel} (up to {number(float(heat.max()))})"
        ImageDraw.Draw(page).text((0, height + 3), text, fill=INK, font=font(TEXT_PX))
        pages.append(page)
    both = bool((found.maps[0] < 0).any())
    bar = overlay.colour_bar(max(height, 150), scale, unit="activation", whose="one scale", both=both, contour=False)
    seen = ", the part that was seen" if part else ""
    title = f"{len(pages)} {choice.which} channels, {found.layer}, {name}{seen}"
    sheet = overlay.contact_sheet(pages, title=title)
    page = Image.new("RGB", (sheet.width + bar.width + GAP_PX, max(sheet.height, bar.height)), PAPER)
    page.paste(sheet, (0, 0))
    page.paste(bar, (sheet.width, max(sheet.height - bar.height, 0)))
    return page
