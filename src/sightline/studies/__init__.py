"""Studies: sweeps, searches, cross-validation, learning curves and model comparison, each made of many fits."""

from sightline.studies import tune
from sightline.studies.recipe_edit import build, change, check, check_threshold
from sightline.studies.sweep import Fit, Outcome, label, plan, summarise

__all__ = ["Fit", "Outcome", "build", "change", "check", "check_threshold", "label", "plan", "summarise", "tune"]
