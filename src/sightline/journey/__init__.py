"""The main job and its siblings: run, train, evaluate, explain, demo."""

from sightline.journey.main import run
from sightline.journey.request import Request
from sightline.journey.single import evaluate, explain, run_demo, train

demo = run_demo

__all__ = ["Request", "demo", "evaluate", "explain", "run", "train"]
