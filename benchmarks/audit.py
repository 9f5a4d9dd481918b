"""Compare the search for duplicates of Sightline with cleanvision, imagededup and fastdup on altered copies of photographs.

Copies of the kinds in `planted_copies.KINDS` are written beside the photographs. For each tool: recall by kind, pairs that are
no copies, seconds and peak memory. A peer is called by the Python given for it, in a process of its own. `--hashes` measures
how the search for similar hashes grows, on random hashes with planted neighbours.

    python benchmarks/audit.py PHOTOS --photographs 1664 --per-kind 36
    python benchmarks/audit.py PHOTOS --cleanvision-python venv/bin/python --imagededup-python venv/bin/python
    python benchmarks/audit.py --hashes 10000,100000,1000000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from planted_copies import KINDS, Planted, plant

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
PEERS = Path(__file__).with_name("peers")


def main() -> None:
    """Parse arguments, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path, help="folders of photographs")
    parser.add_argument("--photographs", type=int, default=1664)
    parser.add_argument("--per-kind", type=int, default=36)
    parser.add_argument("--kinds", default="", help="comma-separated kinds, all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hashes", default="", help="comma-separated numbers of random hashes")
    for peer in ("cleanvision", "imagededup", "fastdup"):
        parser.add_argument(f"--{peer}-python", help=f"Python of an environment with {peer}")
    options = parser.parse_args()
    if options.hashes:
        growth([int(n) for n in options.hashes.split(",")])
    if options.photos:
        with tempfile.TemporaryDirectory() as folder:
            compare(options, Path(folder))


# --------------------------------------------------------------------------------------------------------------- planted copies


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Plant copies, run each tool in a process of its own, and print a table."""
    files = sorted(f for root in options.photos for f in root.rglob("*") if f.suffix.lower() in SUFFIXES)
    random.Random(options.seed).shuffle(files)
    kept = []
    (folder / "set" / "photographs").mkdir(parents=True)
    for number, file in enumerate(files[: options.photographs]):
        kept.append(folder / "set" / "photographs" / f"{number:06d}{file.suffix.lower()}")
        shutil.copyfile(file, kept[-1])
    kinds = tuple(options.kinds.split(",")) if options.kinds else ()
    planted = plant(kept, folder / "set" / "copies", per_kind=options.per_kind, seed=options.seed, kinds=kinds)
    commands = {"sightline": [sys.executable, str(PEERS / "sightline_duplicates.py")]}
    for peer in ("cleanvision", "imagededup", "fastdup"):
        if python := getattr(options, f"{peer}_python"):
            commands[peer] = [python, str(PEERS / "duplicates.py"), peer]
    results = {
        name: run([*command, str(folder / "set"), str(folder / f"{name}.json")], folder) for name, command in commands.items()
    }
    report(planted, results, folder / "set")


def run(command: list[str], folder: Path) -> dict[str, object]:
    """Run a tool, and return its sets of paths, seconds, and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    seconds = time.perf_counter() - start
    out = Path(command[-1])
    if process.returncode or not out.is_file():
        return {"error": (process.stderr.strip().splitlines() or ["no output"])[-1][:200]}
    return {**json.loads(out.read_text(encoding="utf-8")), "total_s": seconds}


def report(planted: list[Planted], results: dict[str, dict[str, object]], root: Path) -> None:
    """Print recall by kind and tool, then false pairs, seconds and memory."""
    names = [name for name, result in results.items() if "error" not in result]
    for name, result in results.items():
        if "error" in result:
            print(f"{name}: failed: {result['error']}")
    linked = {name: components(results[name]["sets"]) for name in names}  # type: ignore[arg-type]
    by_kind: dict[str, list[Planted]] = defaultdict(list)
    for p in planted:
        by_kind[p.kind].append(p)
    print(f"{'recall in %':20s}" + "".join(f"{n:>14s}" for n in names) + f"{'goal':>8s}")
    means: dict[str, list[float]] = defaultdict(list)
    for kind, copies in by_kind.items():
        row = f"{kind:20s}"
        for name in names:
            of = linked[name]
            found = [of.get(key(p.original, root), 0) == of.get(key(p.copy, root), 1) for p in copies]
            means[name].append(float(np.mean(found)))
            row += f"{100 * means[name][-1]:14.0f}"
        goal = KINDS[kind].goal
        print(row + (f"{100 * goal:8.0f}" if goal is not None else ""))
    print(f"{'mean':20s}" + "".join(f"{100 * np.mean(means[n]):14.1f}" for n in names))
    origin = {key(p.copy, root): key(p.original, root) for p in planted}
    for title, value in (
        ("pairs of others", lambda n: false_pairs(results[n]["sets"], origin)),  # type: ignore[arg-type]
        ("seconds", lambda n: round(float(results[n]["seconds"]), 1)),  # type: ignore[arg-type]
        ("peak memory, MB", lambda n: round(float(results[n]["peak_mb"]))),  # type: ignore[arg-type]
    ):
        print(f"{title:20s}" + "".join(f"{value(n):>14}" for n in names))
    if "sightline" in names:
        for pair in false_list(results["sightline"]["sets"], origin)[:20]:  # type: ignore[arg-type]
            print("  a pair of others (may be a true copy in the photographs):", *pair)


def key(path: Path, root: Path) -> str:
    """Return a path relative to the set."""
    return path.relative_to(root).as_posix()


def components(sets: list[list[str]]) -> dict[str, int]:
    """Number paths by connected sets."""
    parent: dict[str, str] = {}

    def find(x: str) -> str:
        while parent.setdefault(x, x) != x:
            x = parent[x]
        return x

    for paths in sets:
        for other in paths[1:]:
            parent[find(other)] = find(paths[0])
    number = {root: n + 2 for n, root in enumerate(sorted({find(x) for x in list(parent)}))}
    return {x: number[find(x)] for x in parent}


def false_list(sets: list[list[str]], origin: dict[str, str]) -> list[tuple[str, str]]:
    """Return pairs of different photographs that a set joins, copies counted as their photograph."""
    pairs = set()
    for paths in sets:
        originals = sorted({origin.get(p, p) for p in paths})
        pairs |= {(a, b) for i, a in enumerate(originals) for b in originals[i + 1 :]}
    return sorted(pairs)


def false_pairs(sets: list[list[str]], origin: dict[str, str]) -> int:
    """Return the number of these pairs."""
    return len(false_list(sets, origin))


# ---------------------------------------------------------------------------------------------------------------------- growth


def growth(sizes: list[int]) -> None:
    """Print seconds and peak memory of the search among n random hashes, of which 1 % have a neighbour at 4 to 10 bits."""
    for n in sizes:
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import audit; audit.search({n})"
        subprocess.run([sys.executable, "-c", code], check=True)


def search(n: int) -> None:
    """Search among n hashes on one thread, and print a row."""
    from sightline.catalog import phash

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    copies = rng.choice(n, n // 100, replace=False)
    flipped = hashes[copies].copy()
    bits = rng.integers(4, 11, len(copies))
    for k, (value, count) in enumerate(zip(flipped.tolist(), bits.tolist(), strict=True)):
        for bit in rng.choice(64, count, replace=False).tolist():
            value ^= 1 << bit
        flipped[k] = value
    both = np.concatenate([hashes, flipped])
    start = time.perf_counter()
    cpu = time.process_time()
    pairs, radius = phash.pairs(both, both, 12, 20 * n, threads=1)
    wanted = set(zip(copies.tolist(), range(n, len(both)), strict=True))
    found = len(wanted & {(int(a), int(b)) for a, b in pairs.tolist()})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{n:>9,} hashes: {time.perf_counter() - start:6.1f} s ({time.process_time() - cpu:.1f} s CPU), peak {peak:,.0f} MB, "
        f"{found / len(wanted):.1%} of the planted neighbours, {len(pairs):,} pairs within {radius} bits",
        flush=True,
    )


if __name__ == "__main__":
    main()
