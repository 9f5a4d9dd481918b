"""Error classes for users: each has a message that says what is wrong and where, and a hint that says how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SightlineError(Exception):
    """Base class of errors that a user can understand and fix. The command line prints them without a traceback.

    Args:
        message: One sentence: what is wrong, the offending value, where.
        hint: The command or change that fixes it, without the word "hint".
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class RequestError(SightlineError):
    """Invalid request: an unknown name, a missing folder, or options that exclude each other."""

    exit_code = 2


class DataError(SightlineError):
    """Unusable data: no images, only one class, or a missing column of a table."""

    exit_code = 2


class FailedWorkError(DataError):
    """Failure on usable data: no candidate could be fitted, disk or memory is full, or a checkpoint is damaged."""

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
    """Weights that are missing or do not fit the network; the message names the file or the tensor."""


class ModelFileError(SightlineError):
    """Classifier file that is damaged, not written by Sightline, or of another version."""


class ForeignFileError(ModelFileError):
    """File that is not a Sightline classifier."""

    exit_code = 2


class TrainingImagesWarning(UserWarning):
    """Warning that a score includes images used for training the classifier, and is therefore too optimistic."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None if none is close.

    Example:
        >>> closest("resnet5O", ["resnet50", "vgg16"])
        'resnet50'
    """
    matches = difflib.get_close_matches(name.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    if not matches:
        return None
    return next(k for k in known if k.lower() == matches[0])


def unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """Return the error for an unknown name, with the closest match or the known names as its hint.

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
        hint = f"none of the {len(names)} known names is similar"
    return RequestError(f"there is no {kind} {name!r}", hint)
