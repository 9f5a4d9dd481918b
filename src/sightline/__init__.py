"""Sightline: train, evaluate and explain image classifiers from a folder of photographs.

Public names are imported when they are first used, so that `import sightline` imports neither torch nor numpy.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sightline.catalog import load as load_catalog
    from sightline.catalog import save as save_catalog
    from sightline.catalog import scan
    from sightline.classifier import Classifier, load
    from sightline.commands.api import (
        compare,
        evaluate,
        explain,
        fit,
        hide,
        mistakes,
        predict,
        run,
        score,
        split,
        write_report,
    )
    from sightline.commands.audit import audit
    from sightline.commands.augment import augment
    from sightline.commands.cross_validate import cross_validate
    from sightline.commands.export import export
    from sightline.commands.label_next import label_next
    from sightline.commands.learning_curve import learning_curve
    from sightline.commands.progress_line import ProgressLine
    from sightline.commands.summary import summary
    from sightline.commands.sweep import sweep
    from sightline.commands.tune import tune
    from sightline.errors import SightlineError, TrainingImagesWarning
    from sightline.estimator import FeatureExtractor, ImageClassifier
    from sightline.records import Catalog, Predictions, Recipe, Run

_HOMES = {
    "Catalog": "records",
    "Classifier": "classifier",
    "FeatureExtractor": "estimator",
    "ImageClassifier": "estimator",
    "Predictions": "records",
    "ProgressLine": "commands.progress_line",
    "Recipe": "records",
    "Run": "records",
    "SightlineError": "errors",
    "TrainingImagesWarning": "errors",
    "audit": "commands.audit",
    "augment": "commands.augment",
    "compare": "commands.api",
    "cross_validate": "commands.cross_validate",
    "evaluate": "commands.api",
    "explain": "commands.api",
    "export": "commands.export",
    "fit": "commands.api",
    "hide": "commands.api",
    "label_next": "commands.label_next",
    "learning_curve": "commands.learning_curve",
    "load": "classifier",
    "load_catalog": "catalog:load",
    "mistakes": "commands.api",
    "predict": "commands.api",
    "run": "commands.api",
    "save_catalog": "catalog:save",
    "scan": "runs.executor:scan",
    "score": "commands.api",
    "split": "commands.api",
    "summary": "commands.summary",
    "sweep": "commands.sweep",
    "tune": "commands.tune",
    "write_report": "commands.api",
}
"""Public name → module that defines it, followed by a colon and its name there if that differs."""

__all__ = [
    "Catalog",
    "Classifier",
    "FeatureExtractor",
    "ImageClassifier",
    "Predictions",
    "ProgressLine",
    "Recipe",
    "Run",
    "SightlineError",
    "TrainingImagesWarning",
    "__version__",
    "audit",
    "augment",
    "compare",
    "cross_validate",
    "evaluate",
    "explain",
    "export",
    "fit",
    "hide",
    "label_next",
    "learning_curve",
    "load",
    "load_catalog",
    "mistakes",
    "predict",
    "run",
    "save_catalog",
    "scan",
    "score",
    "split",
    "summary",
    "sweep",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    import importlib

    module, _, inner = home.partition(":")
    value = getattr(importlib.import_module(f"sightline.{module}"), inner or name)
    if not isinstance(value, type):
        value = importlib.import_module("sightline.cli.interactive").with_defaults(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, including those not imported yet."""
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This module: `sl.audit` stays the function when the subpackage `sightline.audit` is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
