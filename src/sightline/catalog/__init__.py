"""Image catalogs: scan folders and tables, find duplicates, assign splits. No other package lists folders of images."""

from sightline.catalog.layout import LINK_HINT
from sightline.catalog.near_duplicates import Duplicates, find_duplicates
from sightline.catalog.notes import CAUTION, left_out, line_of, of_crop, warn, with_duplicates
from sightline.catalog.requested import RequestedImage, requested_images
from sightline.catalog.scanning import scan
from sightline.catalog.splitting import leaks, split, straddling, together
from sightline.catalog.summary import summarise
from sightline.catalog.tables import check_name, load, load_beside, save
from sightline.catalog.walking import image_files

__all__ = [
    "CAUTION",
    "LINK_HINT",
    "Duplicates",
    "RequestedImage",
    "check_name",
    "find_duplicates",
    "image_files",
    "leaks",
    "left_out",
    "line_of",
    "load",
    "load_beside",
    "of_crop",
    "requested_images",
    "save",
    "scan",
    "split",
    "straddling",
    "summarise",
    "together",
    "warn",
    "with_duplicates",
]
