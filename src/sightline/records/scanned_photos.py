"""Record of a catalog that the app has made: `photos.json` beside it."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.records.versions import VERSION


@dataclass(frozen=True, slots=True)
class ScannedPhotos:
    """Photographs that a catalog lists.

    Args:
        photos: Absolute path of the folder, archive or table.
        version: Version of the format.
    """

    photos: str
    version: int = VERSION
