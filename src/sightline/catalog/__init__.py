"""Image catalogs: scan folders and tables, find duplicates, assign splits. No other package lists folders of images."""

from sightline.catalog.datasets import dataset_files, is_dataset, store_dataset
from sightline.catalog.layout import LINK_HINT
from sightline.catalog.near_duplicates import Duplicates, find_duplicates
from sightline.catalog.notes import CAUTION, left_out, line_of, of_crop, warn, with_duplicates
from sightline.catalog.requested import RequestedImage, requested_images
from sightline.catalog.scanning import scan
from sightline.catalog.sources import image_files
from sightline.catalog.splitting import leaks, split, straddling, together
from sightline.catalog.summary import summarise
from sightline.catalog.tables import check_name, is_catalog, load, load_beside, save

__all__ = [
    "CAUTION",
    "LINK_HINT",
    "Duplicates",
    "RequestedImage",
    "check_name",
    "dataset_files",
    "find_duplicates",
    "image_files",
    "is_catalog",
    "is_dataset",
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
    "store_dataset",
    "straddling",
    "summarise",
    "together",
    "warn",
    "with_duplicates",
]
