"""The errors that a user may see: one sentence that says what is wrong and where, then a hint that says what mends it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SightlineError(Exception):
    """The work failed for a reason that the user can understand. Printed without a traceback.

    Args:
        message: One sentence: what is wrong, the offending value, where.
        hint: The command or the change that mends it, without the word "hint".
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class RequestError(SightlineError):
    """What was asked for is wrong: an unknown name, a missing folder, options that exclude each other."""

    exit_code = 2


class DataError(SightlineError):
    """The photographs or the table that were named cannot be used as they are: no images, one class only, a missing column."""

    exit_code = 2


class FailedWorkError(DataError):
    """The photographs can be used, and the work on them failed: every fit, for want of room, or by a damaged checkpoint."""

    exit_code = 1


class ImageError(SightlineError):
    """One image file cannot be turned into pixels.

    Args:
        kind: A short word for the catalog's `problem` column, such as `truncated` or `empty`.
        message: What is wrong, for people.
    """

    def __init__(self, kind: str, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.kind = kind


class WeightsError(SightlineError):
    """Weights are absent or do not fit the network; the message names the file or the tensor."""


class ModelFileError(SightlineError):
    """A classifier file is damaged, foreign, or of another version."""


class ForeignFileError(ModelFileError):
    """The file that was named is something else than a classifier of Sightline."""

    exit_code = 2


class TrainingImagesWarning(UserWarning):
    """A score counts images that the classifier was made from, so that it is too good."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, or None if none is close.

    Example:
        >>> closest("resnet5O", ["resnet50", "vgg16"])
        'resnet50'
    """
    found = difflib.get_close_matches(name.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    if not found:
        return None
    return next(k for k in known if k.lower() == found[0])


def unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """An error for a name that is not known, with the closest match or the list as its hint.

    Example:
        >>> str(unknown("head", "logistc", ["logistic", "ridge"]))
        "there is no head 'logistc'\\nhint: did you mean 'logistic'?"
    """
    names = list(known)
    match = closest(name, names)
    if match is not None:
        hint = f"did you mean {match!r}?"
    elif len(names) <= 20:
        hint = f"known: {', '.join(names)}"
    else:
        hint = f"{len(names)} names are known; none is close"
    return RequestError(f"there is no {kind} {name!r}", hint)
