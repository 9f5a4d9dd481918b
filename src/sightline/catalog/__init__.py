"""Image catalogs: scan folders and tables, find duplicates, assign splits. No other package lists folders of images."""

from sightline.catalog.changes import dedupe, diff, quarantine, relabel, write_changes
from sightline.catalog.duplicate_sets import duplicate_sets, leak_sets, set_lines, split_proof
from sightline.catalog.layout import LINK_HINT
from sightline.catalog.near_duplicates import NOT_LOOKED_FOR, Duplicates, find_duplicates
from sightline.catalog.notes import CAUTION, left_out, line_of, of_crop, warn, with_duplicates
from sightline.catalog.scanning import scan
from sightline.catalog.splitting import leaks, split, together
from sightline.catalog.statistics import measure
from sightline.catalog.summary import summarise
from sightline.catalog.tables import check_name, load, load_beside, save
from sightline.catalog.walking import image_files

__all__ = [
    "CAUTION",
    "LINK_HINT",
    "NOT_LOOKED_FOR",
    "Duplicates",
    "check_name",
    "dedupe",
    "diff",
    "duplicate_sets",
    "find_duplicates",
    "image_files",
    "leak_sets",
    "leaks",
    "left_out",
    "line_of",
    "load",
    "load_beside",
    "measure",
    "of_crop",
    "quarantine",
    "relabel",
    "save",
    "scan",
    "set_lines",
    "split",
    "split_proof",
    "summarise",
    "together",
    "warn",
    "with_duplicates",
    "write_changes",
]
