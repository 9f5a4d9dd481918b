"""Demo: a complete run on the handwritten digits of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sightline import demo as digits
from sightline.commands.run import run
from sightline.records import Progress, Run, silent
from sightline.runs.plan import Request
from sightline.schema import command_line
from sightline.store import Cache, output_folder

BUDGET_S = 110.0
"""Time limit of the demo in seconds."""


def demo(
    out: str | Path = "sightline-demo",
    *,
    seed: int = 0,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    cache: Cache | None = None,
) -> Run:
    """Write the 1,797 digits as PNG files into class folders, and run Sightline on them.

    Args:
        out: Folder for the images and the run.
        seed: Random seed.
        progress: Progress callback.
        say: Function called with each line of the plan.
        cache: Cache. Default: the user's cache.

    Returns:
        The finished run.
    """
    photos = digits.write_digits(output_folder(Path(out)) / "digits")
    say(f"1,797 handwritten digits are in {photos}")
    runs = str(Path(out) / "runs")
    options = ("-o", runs, "--backbone", "pixels", "--seed", str(seed))
    request = Request(
        photos=str(photos),
        out=runs,
        backbones=("pixels",),
        seed=seed,
        budget_s=BUDGET_S,
        heatmaps="few",
        command=command_line("sightline", "run", str(photos), *options),
    )
    return run(request, progress=progress, say=say, cache=cache)
