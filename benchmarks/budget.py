"""Check that a run keeps its time budget on a busy machine: `run --budget 2m` beside four processes under full load.

python benchmarks/budget.py PHOTOS [--budget 2m] [--busy 4] [--limit 200]

The busy processes end after a time limit, or are ended when the run is over. Caches and the test-set log are temporary, so that
nothing is cached.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sightline.cli.options import seconds

ALLOWED = 1.25
"""Maximum ratio of the run's duration to its budget."""
_BUSY = "import time\nend = time.monotonic() + {limit_s}\nwhile time.monotonic() < end:\n    sum(range(10_000))\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--busy", type=int, default=4, help="Processes beside the run.")
    parser.add_argument("--limit", type=int, help="Maximum number of images per class.")
    asked = parser.parse_args()
    budget_s = seconds(asked.budget)
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY.format(limit_s=3 * budget_s)]) for _ in range(asked.busy)]
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            return measure(asked.photos, asked.budget, budget_s, asked.limit, Path(place))
    finally:
        for process in busy:
            process.terminate()
        for process in busy:
            process.wait()


def measure(photos: str, budget: str, budget_s: float, limit: int | None, place: Path) -> int:
    """Run once and print the time of each step; return 0 if the budget was kept and the report is complete."""
    own = {"SIGHTLINE_CACHE": str(place / "cache"), "SIGHTLINE_LEDGER": str(place / "ledger")}
    command = [sys.executable, "-m", "sightline", "run", photos, "--budget", budget, "-o", str(place / "runs")]
    command += [] if limit is None else ["--limit", str(limit)]
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **own}, check=False, timeout=5 * budget_s)
    took = time.perf_counter() - began
    folders = list((place / "runs").iterdir())
    whole = done.returncode == 0 and len(folders) == 1 and (folders[0] / "report.html").is_file()
    if whole:
        data = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))
        for stage, stage_s in data["timings"].items():
            print(f"{stage:<32}{stage_s:7.1f} s")
        for left_out in data["skipped"]:
            print(f"skipped: {left_out['method']} {left_out['backbone']}: {left_out['why']}")
        print(f"heatmaps: {data['heatmaps']}")
    kept = took <= ALLOWED * budget_s
    print(f"{took:.0f} s of {budget_s:.0f} s ({'kept' if kept else 'NOT KEPT'}; load {os.getloadavg()[0]:.1f})")
    return 0 if whole and kept else 1


if __name__ == "__main__":
    sys.exit(main())
