"""Was it the ears? A part of a photograph covered, and how the answer changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError, RequestError
from sightline.store import Cache

Region = tuple[int, int, int, int]
"""(x, y, width, height) in pixels of the upright original."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """What covering a part of an image did.

    Args:
        before, after: float64 (k,), the classifier's probabilities of the image as it is and with the part covered.
        cover: The colour that it was covered with, (red, green, blue): the mean of what is left to see.
        share: The share of the image's pixels that were covered.
        image: uint8 (h, w, 3), the upright original with the part covered.
        mask: bool (h, w), what was covered.
    """

    before: np.ndarray
    after: np.ndarray
    cover: tuple[int, int, int]
    share: float
    image: np.ndarray
    mask: np.ndarray

    def as_data(self, classes: Sequence[str], target: int, regions: Sequence[Region]) -> dict[str, Any]:
        """For `explain --json`."""
        return {
            "regions": [list(r) for r in regions],
            "cover": list(self.cover),
            "share": self.share,
            "before": float(self.before[target]),
            "after": float(self.after[target]),
            "answer_before": classes[int(self.before.argmax())],
            "answer_after": classes[int(self.after.argmax())],
            "probabilities_before": dict(zip(classes, map(float, self.before), strict=True)) if len(classes) <= 100 else None,
            "probabilities_after": dict(zip(classes, map(float, self.after), strict=True)) if len(classes) <= 100 else None,
        }


def parse_region(text: str) -> Region:
    """A region as the command line takes it.

    Raises:
        RequestError: It is not four whole numbers, or has no area.

    Example:
        >>> parse_region("10,20,30,40")
        (10, 20, 30, 40)
    """
    hint = "write x,y,width,height in pixels of the upright photograph, such as --hide 40,10,120,80"
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"{text!r} is no region", hint) from None
    if width < 1 or height < 1 or x < 0 or y < 0:
        raise RequestError(f"the region {text!r} has no area, or begins outside the photograph", hint)
    return x, y, width, height


def mask_of(regions: Sequence[Region], size: tuple[int, int], name: str) -> np.ndarray:
    """bool (h, w): the pixels in any of the regions; what reaches over the border is cut.

    Raises:
        RequestError: A region lies beyond the image.
    """
    mask = np.zeros(size, dtype=bool)
    for x, y, width, height in regions:
        if x >= size[1] or y >= size[0]:
            region = f"{x},{y},{width},{height}"
            raise RequestError(f"the region {region} lies beyond {name}, which is {size[1]}×{size[0]} px", "name one inside it")
        mask[y : y + height, x : x + width] = True
    return mask


def check_regions(regions: Sequence[Region], file: Path) -> None:
    """Refuse regions that an image does not have, from its header alone; a file that cannot be read is told of later.

    Raises:
        RequestError: A region lies beyond the image.
    """
    try:
        header = pixels.read_header(file.read_bytes(), file.name)
    except (ImageError, OSError):
        return
    mask_of(regions, (header.height, header.width), str(file))


def hide(
    model: Classifier,
    image: str | Path | np.ndarray,
    regions: Sequence[Region] = (),
    *,
    mask: np.ndarray | None = None,
    cache: Cache | None = None,
    device: str = "auto",
) -> Hidden:
    """Cover a part of an image and ask again.

    The cover has the mean colour of all that stays visible, so that it is about as bright as the rest and shows no shape of
    its own but its outline. Both answers are of the decoded original, before and after.

    Args:
        model: Any classifier that looks at images.
        image: A file, or an upright array uint8 (h, w, 3).
        regions: (x, y, width, height) in pixels of the upright original.
        mask: bool (h, w) of the upright original's size, in place of regions or besides them.
        cache, device: As everywhere.

    Raises:
        ImageError: The image cannot be decoded.
        RequestError: A region lies outside the image, the mask has another size, or nothing or everything would be covered.
    """
    name = "the array" if isinstance(image, np.ndarray) else str(image)
    preprocess = model.card.backbone.preprocess
    whole = image if isinstance(image, np.ndarray) else pixels.upright(Path(image), None, preprocess)
    covered = mask_of(regions, whole.shape[:2], name)
    if mask is not None:
        if mask.shape != covered.shape:
            have = f"{mask.shape[1]}×{mask.shape[0]}" if mask.ndim == 2 else f"{mask.ndim}-dimensional"
            raise RequestError(f"the mask is {have}, but {name} is {whole.shape[1]}×{whole.shape[0]} px upright")
        covered |= np.asarray(mask, dtype=bool)
    if not covered.any() or covered.all():
        raise RequestError(f"{'nothing' if not covered.any() else 'all'} of {name} would be covered", "cover a part of it")
    colour = np.rint(whole[~covered].mean(axis=0)).astype(np.uint8)
    changed = whole.copy()
    changed[covered] = colour
    probs = model.predict([whole, changed], cache=cache, device=device).probs
    red, green, blue = (int(c) for c in colour)
    return Hidden(probs[0], probs[1], (red, green, blue), float(covered.mean()), changed, covered)
