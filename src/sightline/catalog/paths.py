"""File lookup: find files by names in another Unicode form or without an extension."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sightline import containers, pixels, remote


@dataclass(slots=True)
class Files:
    """File names of folders. Each folder is listed only once, so that looking up 100,000 paths is fast."""

    _names: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    _stems: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    _folders: dict[str, str | None] = field(default_factory=dict)

    def same_path_in_any_unicode_form(self, path: str) -> str | None:
        """Return the existing path that equals `path`, or the only one that differs from it by Unicode form alone.

        Args:
            path: Absolute and normalised.
        """
        folder, name = os.path.split(path)
        real = self._folder(folder)
        if real is None or not name:
            return real
        names = self._listed(real).get(unicodedata.normalize("NFC", name), [])
        if name in names:
            return os.path.join(real, name)
        return os.path.join(real, names[0]) if len(names) == 1 else None

    def images_named(self, path: str) -> list[str]:
        """Return the sorted paths of images whose name is `path` plus an extension; none if `path` has an image extension.

        Args:
            path: Absolute and normalised.
        """
        folder, name = os.path.split(path)
        real = self._folder(folder)
        if real is None or os.path.splitext(name)[1].lower() in pixels.KNOWN_SUFFIXES:
            return []
        if real not in self._stems:
            stems: dict[str, list[str]] = defaultdict(list)
            for form, names in self._listed(real).items():
                stem, suffix = os.path.splitext(form)
                if suffix.lower() in pixels.KNOWN_SUFFIXES:
                    stems[stem] += names
            self._stems[real] = dict(stems)
        return [os.path.join(real, n) for n in sorted(self._stems[real].get(unicodedata.normalize("NFC", name), []))]

    def _folder(self, folder: str) -> str | None:
        """Return the existing folder for a path in any Unicode form, None if there is none."""
        if folder not in self._folders:
            above = os.path.dirname(folder)
            there = above == folder or os.path.isdir(folder)
            self._folders[folder] = folder if there else self.same_path_in_any_unicode_form(folder)
        return self._folders[folder]

    def _listed(self, folder: str) -> dict[str, list[str]]:
        """Return the names in a folder by their composed form (NFC); none if it cannot be listed."""
        if folder not in self._names:
            names: dict[str, list[str]] = defaultdict(list)
            try:
                for name in os.listdir(folder):
                    names[unicodedata.normalize("NFC", name)].append(name)
            except OSError:
                pass
            self._names[folder] = dict(names)
        return self._names[folder]


_SAMPLE = 100
_MOST_FOLDERS = 500


@dataclass(slots=True)
class ImagePlaces:
    """Places of the images that a table names: relative to the table's folder, or to one folder below it.

    Args:
        table: The table's file.
    """

    table: Path
    files: Files = field(default_factory=Files)

    def absolute(self, path: str, inner: str = "") -> str:
        """Return the normalised absolute path of a cell; backslashes separate folders if the file exists only so."""
        if remote.is_uri(path):
            return os.path.normpath(path)
        folder = os.path.join(self.table.absolute().parent, inner)
        file = os.path.normpath(os.path.join(folder, path))
        if "\\" in path and os.sep != "\\" and not os.path.exists(file):
            file = os.path.normpath(os.path.join(folder, path.replace("\\", "/")))
        return file

    def _finds(self, path: str, inner: str) -> bool:
        """Return whether a cell names an image relative to a folder, with or without its extension."""
        file = self.absolute(path, inner)
        if remote.is_uri(path):
            return True
        return self.files.same_path_in_any_unicode_form(file) is not None or bool(self.files.images_named(file))

    def has(self, path: str) -> bool:
        """Return whether a cell names an image, relative to the table's folder or a folder below it."""
        return bool(path.strip()) and any(self._finds(path, inner) for inner in ("", *self._folders()))

    def _folders(self) -> list[str]:
        """Return the folders in the table's folder, and those in them, relative to it."""
        found: list[str] = []
        for place, inside, _ in os.walk(self.table.absolute().parent):
            relative = os.path.relpath(place, self.table.absolute().parent)
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            if relative != ".":
                found.append(relative)
            if relative.count(os.sep) >= 1 or len(found) > _MOST_FOLDERS:
                inside.clear()
        return found[:_MOST_FOLDERS]

    def subfolder(self, paths: Sequence[str | None]) -> tuple[str, list[str]]:
        """Return the folder below the table's folder that paths are relative to, and a note; "" if it is the table's folder.

        Another folder is used only if it contains images of that name, and the table's folder none.
        """
        sample = [p for p in paths if p][:_SAMPLE]
        if not sample or any(self._finds(p, "") or containers.is_file(self.absolute(p)) for p in sample):
            return "", []
        counts = {inner: sum(self._finds(p, inner) for p in sample) for inner in self._folders()}
        best = max(counts.values(), default=0)
        folders = [inner for inner, n in counts.items() if n == best]
        if not best or len(folders) > 1:
            return "", []
        return folders[0], [f"paths in {self.table.name} are relative to the folder {folders[0]}"]
