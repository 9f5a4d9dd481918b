"""The nouns: a plain, frozen record for all that is written to disk. Read this first."""

from sightline.records.answers import Explanation, Predictions, Run
from sightline.records.catalog import CATALOG_COLUMNS, SPLITS, Catalog, Split
from sightline.records.model import Backbone, Card, Head, Limits, Preprocess
from sightline.records.recipe import Learning, Progress, Recipe, Told, silent

__all__ = [
    "CATALOG_COLUMNS",
    "SPLITS",
    "Backbone",
    "Card",
    "Catalog",
    "Explanation",
    "Head",
    "Learning",
    "Limits",
    "Predictions",
    "Preprocess",
    "Progress",
    "Recipe",
    "Run",
    "Split",
    "Told",
    "silent",
]
