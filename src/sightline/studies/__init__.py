"""Many fits → one answer: which setting is best, how sure that is, and what looking for it has cost."""

from sightline.studies import tune
from sightline.studies.recipe_edit import build, change, check, check_threshold
from sightline.studies.sweep import Fit, Outcome, label, plan, summarise

__all__ = ["Fit", "Outcome", "build", "change", "check", "check_threshold", "label", "plan", "summarise", "tune"]
