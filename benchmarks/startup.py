"""Measure start-up time: `sightline --help` and `import sightline`, compared with importing torch and timm.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 7
STARTS = {
    "sightline --help": ["-m", "sightline", "--help"],
    "import sightline": ["-c", "import sightline"],
    "import torch, timm": ["-c", "import torch, timm"],
}


def seconds(arguments: list[str]) -> float:
    """Return the wall-clock time of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    found = {name: [seconds(arguments) for _ in range(ROUNDS)] for name, arguments in STARTS.items()}
    for name, times in found.items():
        print(f"{name:<20}{statistics.median(times):7.3f} s  (of {ROUNDS}: {min(times):.3f} to {max(times):.3f})")
    ratio = statistics.median(found["import torch, timm"]) / statistics.median(found["sightline --help"])
    print(f"ratio: the command line answers {ratio:.1f} times as quickly as torch and timm are imported")


if __name__ == "__main__":
    main()
