"""The nouns: a plain, frozen record for all that is written to disk. Read this first."""

from sightline.records.answers import Explanation, Predictions, Run
from sightline.records.catalog import CATALOG_COLUMNS, SPLITS, Catalog, Split
from sightline.records.model import Backbone, Card, Head, Preprocess
from sightline.records.recipe import Progress, Recipe, silent

__all__ = [
    "CATALOG_COLUMNS",
    "SPLITS",
    "Backbone",
    "Card",
    "Catalog",
    "Explanation",
    "Head",
    "Predictions",
    "Preprocess",
    "Progress",
    "Recipe",
    "Run",
    "Split",
    "silent",
]
