"""Data types: frozen dataclasses for everything that is written to disk. Read this first."""

from sightline.records.catalog import CATALOG_COLUMNS, SPLITS, Catalog, Split
from sightline.records.classifier import Backbone, Card, Head, Preprocess, Uncertainty
from sightline.records.comparison import ComparisonRecord
from sightline.records.learning_curve import LearningCurveRecord
from sightline.records.predictions import Explanation, Predictions, Run
from sightline.records.recipe import Learning, Progress, Recipe, TrainingStage, silent
from sightline.records.run import RunRecord
from sightline.records.scores import Scores
from sightline.records.study import SearchRecord, StudyRecord, SweepRecord, read_study

__all__ = [
    "CATALOG_COLUMNS",
    "SPLITS",
    "Backbone",
    "Card",
    "Catalog",
    "ComparisonRecord",
    "Explanation",
    "Head",
    "Learning",
    "LearningCurveRecord",
    "Predictions",
    "Preprocess",
    "Progress",
    "Recipe",
    "Run",
    "RunRecord",
    "Scores",
    "SearchRecord",
    "Split",
    "StudyRecord",
    "SweepRecord",
    "TrainingStage",
    "Uncertainty",
    "read_study",
    "silent",
]
