"""File lookup: find files by names in another Unicode form or without an extension."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field

from sightline import pixels


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
