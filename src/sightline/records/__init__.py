"""Data types: frozen dataclasses for everything that is written to disk. Read this first."""

from sightline.records.catalog import CATALOG_COLUMNS, SPLITS, Catalog, Split
from sightline.records.classifier import Backbone, Card, Head, Preprocess, Uncertainty
from sightline.records.predictions import Explanation, Predictions, Run
from sightline.records.recipe import Learning, Progress, Recipe, TrainingStage, silent

__all__ = [
    "CATALOG_COLUMNS",
    "SPLITS",
    "Backbone",
    "Card",
    "Catalog",
    "Explanation",
    "Head",
    "Learning",
    "Predictions",
    "Preprocess",
    "Progress",
    "Recipe",
    "Run",
    "Split",
    "TrainingStage",
    "Uncertainty",
    "silent",
]
