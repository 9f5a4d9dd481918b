"""Activation maps of single channels of a layer, image by image: a contact sheet over the photograph, and the raw maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import RequestError
from sightline.explanation.channel_maps import ChannelMaps, channel_maps
from sightline.explanation.draw import overlay
from sightline.explanation.draw.contact_sheets import contact_sheet
from sightline.explanation.draw.lettering import GAP_PX, INK, PAPER, TEXT_PX, font, number
from sightline.explanation.heatmaps import box_of
from sightline.explanation.options import ExplainOptions
from sightline.store import atomic_file

Which = Literal["strongest", "first"]
MOST = 256
"""Maximum number of channels on one sheet."""
_SIDE_PX = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """The channels to draw.

    Args:
        which, count: As in `channel_maps`.
    """

    which: Which
    count: int


def parse_channels(text: str) -> Choice:
    """Parse `16`, `strongest:16` or `first:16`.

    Example:
        >>> parse_channels("first:4"), parse_channels("16")
        (Choice(which='first', count=4), Choice(which='strongest', count=16))

    Raises:
        RequestError: If the text is none of these.
    """
    which, _, count = text.rpartition(":")
    for known in get_args(Which):
        if which in ("", known) and count.isascii() and count.isdigit() and 1 <= int(count) <= MOST:
            return Choice(known, int(count))
    hint = f"write strongest:16 or first:16, with a number from 1 to {MOST}"
    raise RequestError(f"{text!r} is not a choice of channels", hint)


def check(model: Classifier) -> None:
    """Check that a classifier has a single network.

    Raises:
        RequestError: If it is an ensemble.
    """
    if model.members:
        message = "an ensemble has several networks, so --channels does not apply"
        raise RequestError(message, "explain one of its members, or leave out --channels")


def write(stem: Path, model: Classifier, file: Path, name: str, choice: Choice, options: ExplainOptions) -> dict[str, Any]:
    """Draw channels of a layer for one image, and write their raw maps.

    Args:
        stem: Path without a suffix: `-channels.png` and `-channels.npz` are appended.
        model: A classifier that `check` accepts; if it averages over several crops, the central one is shown.
        file, name: The image.
        choice: The channels.
        options: The layer (None for the last map), the cache and the device.

    Returns:
        For JSON: `layer`, `which`, `numbers`, `sheet`, `maps`.

    Raises:
        RequestError: If the network has no such layer, or no map.
    """
    preprocess = model.card.backbone.preprocess
    session = model.session(options.cache, device=options.device, expected=1, maps=True, opened=options.sessions)
    cropped = np.stack([pixels.decode(file, preprocess)])
    channels = channel_maps(session, cropped, layer=options.layer, channels=choice.count, which=choice.which)
    box = box_of(file, name, preprocess)
    sheet, maps = (stem.with_name(f"{stem.name}-channels{suffix}") for suffix in (".png", ".npz"))
    image, size = overlay.read_photo(file, box, preprocess, _SIDE_PX)
    overlay.save_png(_sheet(image, channels, choice, box, size, file.name), sheet)
    with atomic_file(maps) as stream:
        np.savez_compressed(
            stream,
            maps=channels.maps[0],
            numbers=channels.numbers[0],
            box=np.array(box),
            path=np.array(name),
            layer=np.array(channels.layer),
        )
    numbers = [int(n) for n in channels.numbers[0]]
    return {"layer": channels.layer, "which": choice.which, "numbers": numbers, "sheet": str(sheet), "maps": str(maps)}


def _sheet(
    image: np.ndarray,
    channels: ChannelMaps,
    choice: Choice,
    box: tuple[float, float, float, float],
    original: tuple[int, int],
    name: str,
) -> Any:
    """Draw the channels of one image over it in grey, on one scale, each with its number and maximum activation.

    Where the network's input is a small part of the image, that part is drawn.
    """
    from PIL import Image, ImageDraw

    room, part = (_SIDE_PX, _SIDE_PX), overlay.too_small(box, original, (_SIDE_PX, _SIDE_PX))
    area: tuple[float, float] = original
    if part:
        image, box, area = overlay.seen_part(image, box, original)
    base = overlay.fit(image, room, least_px=_SIDE_PX // 3 if part else 1)
    height, width = base.shape[:2]
    scale = float(np.abs(channels.maps[0]).max())
    pages = []
    for channel, heatmap in zip(channels.numbers[0], channels.maps[0], strict=True):
        placed = overlay.place(heatmap, box, area, (height, width))
        page = Image.new("RGB", (max(width, _SIDE_PX), height + 22), PAPER)
        page.paste(Image.fromarray(overlay.blend(base, placed / scale if scale else placed, contour=False)), (0, 0))
        text = f"{channel} (up to {number(float(heatmap.max()))})"
        ImageDraw.Draw(page).text((0, height + 3), text, fill=INK, font=font(TEXT_PX))
        pages.append(page)
    both = bool((channels.maps[0] < 0).any())
    bar = overlay.colour_bar(max(height, 150), scale, unit="activation", whose="one scale", both=both, contour=False)
    note = ", network input only" if part else ""
    title = f"{len(pages)} {choice.which} channels, {channels.layer}, {name}{note}"
    sheet = contact_sheet(pages, title=title)
    page = Image.new("RGB", (sheet.width + bar.width + GAP_PX, max(sheet.height, bar.height)), PAPER)
    page.paste(sheet, (0, 0))
    page.paste(bar, (sheet.width, max(sheet.height - bar.height, 0)))
    return page
