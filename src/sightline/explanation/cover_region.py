"""Was it the ears? A part of a photograph covered, and how the answer changes."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from sightline import pixels
from sightline.classifier import Classifier
from sightline.errors import ImageError, RequestError
from sightline.files import read_bytes
from sightline.records import Preprocess
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
        classes: k names, in the order of the probabilities.
    """

    before: np.ndarray
    after: np.ndarray
    cover: tuple[int, int, int]
    share: float
    image: np.ndarray
    mask: np.ndarray
    classes: tuple[str, ...] = ()

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


_HINT = "write x,y,width,height in pixels of the upright photograph, such as 40,10,120,80"


def parse_region(text: str) -> Region:
    """A region as the command line takes it.

    Raises:
        RequestError: It is not four whole numbers, or has no area.

    Example:
        >>> parse_region("10,20,30,40")
        (10, 20, 30, 40)
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"{text!r} is no region", _HINT) from None
    return _with_area((x, y, width, height), repr(text))


def _with_area(region: Region, said: str) -> Region:
    """A region that has an area and begins in the photograph."""
    if min(region[2:]) < 1 or min(region[:2]) < 0:
        raise RequestError(f"the region {said} has no area, or begins outside the photograph", _HINT)
    return region


def as_wish(covered: object) -> tuple[list[Region], Any]:
    """What a Python user wants covered: regions, and a mask, which is not checked yet; one of the two is empty.

    Args:
        covered: One region or several, each four whole numbers or text as `parse_region` takes it; or a mask, as an array or
            as nested lists of True and False, or of 0 and 1.

    Raises:
        RequestError: It is neither.

    Example:
        >>> as_wish((10, 20, 30, 40)), as_wish(["0,0,5,5", [1, 1, 2, 2]]), as_wish([[False, True]])
        (([(10, 20, 30, 40)], None), ([(0, 0, 5, 5), (1, 1, 2, 2)], None), ([], [[False, True]]))
    """
    hint = "give (x, y, width, height) in pixels of the upright photograph, several of these in a list, or a mask"
    if isinstance(covered, str) or _is_region(covered):
        covered = [covered]
    if isinstance(covered, np.ndarray) and (covered.dtype == bool or covered.ndim != 2 or covered.shape[1] != 4):
        return [], covered
    if not isinstance(covered, Sequence | np.ndarray):
        raise RequestError(f"what is to be covered cannot be of type {type(covered).__name__}", hint)
    regions: list[Region] = []
    for each in covered:
        if isinstance(each, str):
            regions.append(parse_region(each))
        elif _is_region(each):
            x, y, width, height = (int(value) for value in each)
            regions.append(_with_area((x, y, width, height), f"{x},{y},{width},{height}"))
        elif not regions and _is_row(each):
            return [], covered
        else:
            raise RequestError(f"{reprlib.repr(each)} is no region", hint)
    return regions, None


def _is_region(value: object) -> bool:
    """Whether it is four whole numbers; those of a mask are True and False."""
    return _listed(value) and len(value) == 4 and all(isinstance(v, Integral) and not isinstance(v, bool) for v in value)


def _is_row(value: object) -> bool:
    """Whether it is a row of a mask."""
    return _listed(value) and all(isinstance(v, Real | np.bool_) and v in (0, 1, 255) for v in value)


def _listed(value: object) -> TypeGuard[Sequence[object]]:
    """Whether it is a sequence of numbers, or of whatever else but letters."""
    return value.ndim == 1 if isinstance(value, np.ndarray) else isinstance(value, Sequence) and not isinstance(value, str)


def as_mask(mask: object, size: tuple[int, int], name: str) -> np.ndarray:
    """bool (h, w) of an image's (height, width), from an array or nested lists.

    Args:
        mask: True or 1 (255 will do) where it is covered, False or 0 elsewhere.
        size, name: Of the image.

    Raises:
        RequestError: It holds something else, is no table, or has another size.
    """
    hint = "a mask has a row for each row of the upright photograph, and True in it where that is covered"
    try:
        values = np.asarray(mask)
    except ValueError:
        raise RequestError("the rows of the mask are not equally long", hint) from None
    if values.shape != size:
        have = f"{values.shape[1]}×{values.shape[0]} px" if values.ndim == 2 else f"{values.ndim}-dimensional"
        raise RequestError(f"the mask is {have}, but {name} is {size[1]}×{size[0]} px upright", hint)
    if values.dtype != bool and (values.dtype.kind not in "uif" or not np.isin(values, (0, values.max())).all()):
        raise RequestError("the mask holds other values than True and False", f"{hint}; `mask > 0.5` may be one")
    return np.asarray(values > 0)


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
    """Refuse regions that cannot be hidden in an image, from its header alone; a file that cannot be read is told of later.

    Raises:
        RequestError: A region lies beyond the image, or they cover all of it.
    """
    try:
        header = pixels.read_header(read_bytes(file), file.name)
    except (ImageError, OSError):
        return
    check_part(mask_of(regions, (header.height, header.width), str(file)), str(file))


def check_part(mask: np.ndarray, name: str) -> None:
    """Refuse a mask, bool (h, w), of nothing or of all.

    Raises:
        RequestError: It is one.
    """
    if not mask.any() or mask.all():
        raise RequestError(f"{'nothing' if not mask.any() else 'all'} of {name} would be covered", "cover a part of it")


def hide(
    model: Classifier,
    image: str | Path | np.ndarray,
    regions: Sequence[Region] = (),
    *,
    mask: Any = None,
    cache: Cache | None = None,
    device: str = "auto",
) -> Hidden:
    """Cover a part of an image and ask again.

    The cover has the mean colour of all that stays visible, so that it is about as bright as the rest and shows no shape of
    its own but its outline. Both answers are of the decoded original, before and after.

    Args:
        model: Any classifier that looks at images.
        image: A file, or an upright array (h, w) or (h, w, 1 | 3 | 4); uint8, or float in 0 to 1.
        regions: (x, y, width, height) in pixels of the upright original.
        mask: bool (h, w) of the upright original's size, or nested lists, in place of regions or besides them.
        cache, device: As everywhere.

    Raises:
        ImageError: The image cannot be decoded.
        RequestError: A region lies outside the image, the mask has another size, or nothing or everything would be covered.
    """
    name = "the array" if isinstance(image, np.ndarray) else str(image)
    preprocess = model.card.backbone.preprocess
    whole = _as_rgb(image, preprocess) if isinstance(image, np.ndarray) else pixels.upright(Path(image), None, preprocess)
    covered = mask_of(regions, whole.shape[:2], name)
    if mask is not None:
        covered |= as_mask(mask, covered.shape, name)
    check_part(covered, name)
    colour = np.rint(whole[~covered].mean(axis=0)).astype(np.uint8)
    changed = whole.copy()
    changed[covered] = colour
    probs = model.predict([whole, changed], cache=cache, device=device).probs
    red, green, blue = (int(c) for c in colour)
    share = float(covered.mean())
    return Hidden(probs[0], probs[1], (red, green, blue), share, changed, covered, model.classes)


def _as_rgb(array: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """An array of any shape and type that a classifier takes as uint8 (h, w, 3), its size kept."""
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return array
    size = (array.shape[0], array.shape[1]) if array.ndim > 1 else (1, 1)
    return pixels.decode_array(array, dataclasses.replace(preprocess, fit="squash", size=size))
