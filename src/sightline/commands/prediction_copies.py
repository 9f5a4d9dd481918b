"""Copies of predicted images, sorted into one folder per class."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from sightline import pixels
from sightline.errors import ImageError
from sightline.files import read_bytes
from sightline.store import bytes_digest, slugs, write_bytes


class Copies:
    """Folder of copies. The images themselves stay where they are.

    A copy has the image's own name. If a different image of that name is in the folder, the first digits of the SHA-256 of its
    bytes are appended, so that repeating the work makes no further copies.

    Args:
        folder: Folder for one folder per class.
        classes: Class names.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder, self._names = folder, slugs(classes)
        self._copied = self._same = 0

    def add(self, file: Path, label: str) -> str | None:
        """Copy an image into the folder of its class, and return the path of the copy; None if it cannot be read any more."""
        try:
            data, _ = pixels.read(file)
        except ImageError:
            return None
        name = Path(file.name.replace("#", "-"))  # an array in a file has a name such as x.h5#12
        digest = bytes_digest(data)
        for target in (name.name, f"{name.stem}-{digest[:12]}{name.suffix}"):
            copy = self._folder / self._names[label] / target
            if not os.path.lexists(copy):
                write_bytes(copy, data)
                with contextlib.suppress(OSError):
                    status = file.stat()
                    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
                self._copied += 1
                return str(copy)
            with contextlib.suppress(OSError):
                if bytes_digest(read_bytes(copy)) == digest:
                    self._same += 1
                    return str(copy)
        return None

    def notes(self) -> list[str]:
        """Return how many images were copied."""
        notes = [f"{self._copied:,} images copied to {self._folder}"]
        if self._same:
            notes.append(f"{self._same:,} images have a copy of the same bytes and name there, and were not copied again")
        return notes
