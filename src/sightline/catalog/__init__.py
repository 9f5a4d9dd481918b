"""Image catalogs: scan folders and tables, find duplicates, assign splits. No other package lists folders of images."""

from sightline.catalog.changes import apply_decisions, dedupe, diff, quarantine, relabel, write_changes
from sightline.catalog.datasets import dataset_files, is_dataset, store_dataset
from sightline.catalog.duplicate_sets import duplicate_sets, leak_sets, set_lines, split_proof
from sightline.catalog.edges import edges_of
from sightline.catalog.file_properties import file_properties
from sightline.catalog.layout import LINK_HINT
from sightline.catalog.near_duplicates import NOT_LOOKED_FOR, Duplicates, find_duplicates
from sightline.catalog.notes import CAUTION, MOST_NAMED, left_out, line_of, of_crop, warn, with_duplicates
from sightline.catalog.overview import Overview, overview, work_sizes
from sightline.catalog.overview import lines as overview_lines
from sightline.catalog.quality import quality_findings
from sightline.catalog.requested import RequestedImage, requested_images
from sightline.catalog.scanning import scan
from sightline.catalog.series import suggest_groups
from sightline.catalog.sheet import check_sheet, write_sheet
from sightline.catalog.sources import image_files
from sightline.catalog.splitting import leaks, split, together
from sightline.catalog.statistics import measure
from sightline.catalog.summary import summarise
from sightline.catalog.tables import check_name, is_catalog, load, load_beside, save

__all__ = [
    "CAUTION",
    "LINK_HINT",
    "MOST_NAMED",
    "NOT_LOOKED_FOR",
    "Duplicates",
    "Overview",
    "RequestedImage",
    "apply_decisions",
    "check_name",
    "check_sheet",
    "dataset_files",
    "dedupe",
    "diff",
    "duplicate_sets",
    "edges_of",
    "file_properties",
    "find_duplicates",
    "image_files",
    "is_catalog",
    "is_dataset",
    "leak_sets",
    "leaks",
    "left_out",
    "line_of",
    "load",
    "load_beside",
    "measure",
    "of_crop",
    "overview",
    "overview_lines",
    "quality_findings",
    "quarantine",
    "relabel",
    "requested_images",
    "save",
    "scan",
    "set_lines",
    "split",
    "split_proof",
    "store_dataset",
    "suggest_groups",
    "summarise",
    "together",
    "warn",
    "with_duplicates",
    "work_sizes",
    "write_changes",
    "write_sheet",
]
