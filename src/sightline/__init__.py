"""Sightline: from a folder of photographs to an honest classifier, its score, its mistakes and where it looked.

The few verbs and nouns that a Python user needs. Each is imported when it is first used, so `import sightline` costs
neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sightline.catalog import load as load_catalog
    from sightline.catalog import save as save_catalog
    from sightline.catalog import scan
    from sightline.classifier import Classifier, load
    from sightline.commands.api import explain, fit, hide, score, split
    from sightline.commands.summary import summary
    from sightline.commands.sweep import sweep
    from sightline.commands.tune import tune
    from sightline.errors import SightlineError, TrainingImagesWarning
    from sightline.records import Catalog, Predictions, Recipe, Run
    from sightline.report import write_report

_HOMES = {
    "Catalog": "records",
    "Classifier": "classifier",
    "Predictions": "records",
    "Recipe": "records",
    "Run": "records",
    "SightlineError": "errors",
    "TrainingImagesWarning": "errors",
    "explain": "commands.api",
    "fit": "commands.api",
    "hide": "commands.api",
    "load": "classifier",
    "load_catalog": "catalog:load",
    "save_catalog": "catalog:save",
    "scan": "catalog",
    "score": "commands.api",
    "split": "commands.api",
    "summary": "commands.summary",
    "sweep": "commands.sweep",
    "tune": "commands.tune",
    "write_report": "report",
}
"""Public name → the module where it lives, with its name there behind a colon where that is another."""

__all__ = [
    "Catalog",
    "Classifier",
    "Predictions",
    "Recipe",
    "Run",
    "SightlineError",
    "TrainingImagesWarning",
    "__version__",
    "explain",
    "fit",
    "hide",
    "load",
    "load_catalog",
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
    """Import a public name when it is first asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    import importlib

    module, _, inner = home.partition(":")
    value = getattr(importlib.import_module(f"sightline.{module}"), inner or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All names, the lazy ones too."""
    return sorted({*globals(), *__all__})
