"""Measure a first `sightline run` from nothing to the report: seconds by stage, total, peak memory; then an unchanged second.

The cache, the ledger and the run folder are new. Start-up, the interpreter and its imports, is in no stage.

    python benchmarks/journey.py PHOTOS --network mobilenetv2_100
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sightline.demo import write_digits

METHODS = "baseline,shortcut,features"


def run(photos: Path, network: str, folder: Path, extra: list[str]) -> dict[str, Any]:
    """Run the command in a process of its own; return its seconds, peak memory in MB, and seconds by stage."""
    command = [sys.executable, "-m", "sightline", "run", str(photos), "--backbone", network, "--methods", METHODS]
    environment = {**os.environ, "SIGHTLINE_CACHE": str(folder / "cache"), "SIGHTLINE_LEDGER": str(folder / "ledger")}
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "-o", str(folder / "runs"), *extra],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    peak = peak_memory_mb(process)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit((process.stderr.read() if process.stderr else "")[-2000:])
    record = json.loads(next((folder / "runs").glob("*/run.json")).read_text(encoding="utf-8"))
    return {"seconds": seconds, "peak_mb": peak, "stages": record["timings"], "precision": record["precision"]["used"]}


def peak_memory_mb(process: subprocess.Popen[str]) -> float:
    """Wait for a process; return the highest resident memory that was seen, in MB, or NaN where /proc is missing."""
    peak = float("nan")
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
            peak = max(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    return peak


def main() -> None:
    """Read the options, run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", help="a folder per class; without it the demo's digits")
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos = options.photos or write_digits(Path(scratch, "digits"))
        firsts, seconds = [], []
        for number in range(options.rounds):
            folder = Path(scratch, str(number))
            folder.mkdir()
            extra = [] if options.precision == "auto" else ["--precision", options.precision]
            firsts.append(run(photos, options.network, folder, extra))
            seconds.append(run(photos, options.network, folder, extra)["seconds"])
    for stage in firsts[0]["stages"]:
        values = [first["stages"][stage] for first in firsts]
        print(f"{stage:<32}{statistics.median(values):7.1f} s  [{min(values):.1f}, {max(values):.1f}]")
    starts = [first["seconds"] - sum(first["stages"].values()) for first in firsts]
    print(f"{'start-up and end':<32}{statistics.median(starts):7.1f} s  [{min(starts):.1f}, {max(starts):.1f}]")
    whole = [first["seconds"] for first in firsts]
    print(f"{'first run':<32}{statistics.median(whole):7.1f} s  [{min(whole):.1f}, {max(whole):.1f}], {firsts[0]['precision']}")
    print(f"{'unchanged second run':<32}{statistics.median(seconds):7.1f} s  [{min(seconds):.1f}, {max(seconds):.1f}]")
    print(f"{'peak memory':<32}{max(first['peak_mb'] for first in firsts):7.0f} MB")


if __name__ == "__main__":
    main()
