"""Cover a region of a photograph and measure the change of the prediction."""

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
from sightline.containers import read_bytes
from sightline.errors import ImageError, RequestError
from sightline.records import Preprocess
from sightline.store import Cache

Region = tuple[int, int, int, int]
"""(x, y, width, height) in pixels of the upright original."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """The effect of covering a part of an image.

    Args:
        before, after: float64 (k,), the classifier's probabilities of the image as it is and with the part covered.
        cover: The colour of the cover, (red, green, blue): the mean of the pixels that stay visible.
        share: Share of the image's pixels that were covered.
        image: uint8 (h, w, 3), the upright original with the part covered.
        mask: bool (h, w), the covered pixels.
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
        """Return the entry of `explain --json`."""
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
    """Parse a region from the command line.

    Raises:
        RequestError: If it is not four whole numbers, or has no area.

    Example:
        >>> parse_region("10,20,30,40")
        (10, 20, 30, 40)
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"{text!r} is not a region", _HINT) from None
    return _with_area((x, y, width, height), repr(text))


def _with_area(region: Region, text: str) -> Region:
    """Check that a region has an area and starts inside the photograph, and return it."""
    if min(region[2:]) < 1 or min(region[:2]) < 0:
        raise RequestError(f"the region {text} has no area, or starts outside the photograph", _HINT)
    return region


def parse_covered(covered: object) -> tuple[list[Region], Any]:
    """Return the regions and the unchecked mask that a Python user passes; one of the two is empty.

    Args:
        covered: One region or several, each four whole numbers or text as for `parse_region`; or a mask, as an array or
            as nested lists of True and False, or of 0 and 1.

    Raises:
        RequestError: If it is neither.

    Example:
        >>> parse_covered((10, 20, 30, 40)), parse_covered(["0,0,5,5", [1, 1, 2, 2]]), parse_covered([[False, True]])
        (([(10, 20, 30, 40)], None), ([(0, 0, 5, 5), (1, 1, 2, 2)], None), ([], [[False, True]]))
    """
    hint = "give (x, y, width, height) in pixels of the upright photograph, several of these in a list, or a mask"
    if isinstance(covered, str) or _is_region(covered):
        covered = [covered]
    if isinstance(covered, np.ndarray) and (covered.dtype == bool or covered.ndim != 2 or covered.shape[1] != 4):
        return [], covered
    if not isinstance(covered, Sequence | np.ndarray):
        raise RequestError(f"`covered` cannot be of type {type(covered).__name__}", hint)
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
            raise RequestError(f"{reprlib.repr(each)} is not a region", hint)
    return regions, None


def _is_region(value: object) -> bool:
    """Return whether a value is four whole numbers; True and False are mask values."""
    return _listed(value) and len(value) == 4 and all(isinstance(v, Integral) and not isinstance(v, bool) for v in value)


def _is_row(value: object) -> bool:
    """Return whether a value is a row of a mask."""
    return _listed(value) and all(isinstance(v, Real | np.bool_) and v in (0, 1, 255) for v in value)


def _listed(value: object) -> TypeGuard[Sequence[object]]:
    """Return whether a value is a sequence other than text."""
    return value.ndim == 1 if isinstance(value, np.ndarray) else isinstance(value, Sequence) and not isinstance(value, str)


def as_mask(mask: object, size: tuple[int, int], name: str) -> np.ndarray:
    """Return the mask of an image as bool (h, w), from an array or nested lists.

    Args:
        mask: True or 1 (or 255) where it is covered, False or 0 elsewhere.
        size: (height, width) of the image.
        name: The image, for messages.

    Raises:
        RequestError: If it holds other values, is not rectangular, or has another size.
    """
    hint = "a mask has a row for each row of the upright photograph, and True in it where that is covered"
    try:
        values = np.asarray(mask)
    except ValueError:
        raise RequestError("the rows of the mask are not equally long", hint) from None
    if values.shape != size:
        actual = f"{values.shape[1]}×{values.shape[0]} px" if values.ndim == 2 else f"{values.ndim}-dimensional"
        raise RequestError(f"the mask is {actual}, but {name} is {size[1]}×{size[0]} px upright", hint)
    if values.dtype != bool and (values.dtype.kind not in "uif" or not np.isin(values, (0, values.max())).all()):
        raise RequestError("the mask holds other values than True and False", f"{hint}; for example `mask > 0.5`")
    return np.asarray(values > 0)


def mask_of(regions: Sequence[Region], size: tuple[int, int], name: str) -> np.ndarray:
    """Return the pixels in any of the regions, bool (h, w); parts beyond the image's border are cut.

    Raises:
        RequestError: If a region lies beyond the image.
    """
    mask = np.zeros(size, dtype=bool)
    for x, y, width, height in regions:
        if x >= size[1] or y >= size[0]:
            region = f"{x},{y},{width},{height}"
            raise RequestError(f"the region {region} lies beyond {name}, which is {size[1]}×{size[0]} px", "name one inside it")
        mask[y : y + height, x : x + width] = True
    return mask


def check_regions(regions: Sequence[Region], file: Path) -> None:
    """Check by the header of an image that regions can be covered in it; an unreadable file is reported later.

    Raises:
        RequestError: If a region lies beyond the image, or all of it would be covered.
    """
    try:
        header = pixels.read_header(read_bytes(file), file.name)
    except (ImageError, OSError):
        return
    check_part(mask_of(regions, (header.height, header.width), str(file)), str(file))


def check_part(mask: np.ndarray, name: str) -> None:
    """Check that a mask, bool (h, w), covers a part of the image.

    Raises:
        RequestError: If it covers nothing or everything.
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
    """Cover a part of an image and predict again.

    The cover has the mean colour of the visible pixels, so that it is about as bright as the rest and adds no shape but its
    outline. Both predictions are of the decoded original, before and after.

    Args:
        model: Any classifier that uses pixels.
        image: A file, or an upright array (h, w) or (h, w, 1 | 3 | 4); uint8, or float in 0 to 1.
        regions: (x, y, width, height) in pixels of the upright original.
        mask: bool (h, w) of the upright original's size, or nested lists; may be combined with regions.
        cache, device: As in `Classifier.predict`.

    Raises:
        ImageError: If the image cannot be decoded.
        RequestError: If a region lies outside the image, the mask has another size, or nothing or everything would be covered.
    """
    name = "the array" if isinstance(image, np.ndarray) else str(image)
    preprocess = model.card.backbone.preprocess
    original = _as_rgb(image, preprocess) if isinstance(image, np.ndarray) else pixels.upright(Path(image), None, preprocess)
    covered = mask_of(regions, original.shape[:2], name)
    if mask is not None:
        covered |= as_mask(mask, covered.shape, name)
    check_part(covered, name)
    colour = np.rint(original[~covered].mean(axis=0)).astype(np.uint8)
    changed = original.copy()
    changed[covered] = colour
    probs = model.predict([original, changed], cache=cache, device=device).probs
    red, green, blue = (int(c) for c in colour)
    share = float(covered.mean())
    cover = (red, green, blue)
    return Hidden(probs[0], probs[1], cover, share, image=changed, mask=covered, classes=model.classes)


def _as_rgb(array: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Convert an array of any accepted shape and type to uint8 (h, w, 3) of the same size."""
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return array
    size = (array.shape[0], array.shape[1]) if array.ndim > 1 else (1, 1)
    return pixels.decode_array(array, dataclasses.replace(preprocess, fit="squash", size=size))
