"""The main job and its siblings: run, train, evaluate, explain, demo."""

from sightline.journey.comparing import compare
from sightline.journey.explaining import explain
from sightline.journey.main import run
from sightline.journey.request import Request
from sightline.journey.scoring import evaluate
from sightline.journey.single import run_demo, train

demo = run_demo

__all__ = ["Request", "compare", "demo", "evaluate", "explain", "run", "train"]
