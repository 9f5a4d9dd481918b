"""Sightline's search for duplicates in a folder, as a process of its own: writes sets, seconds and peak memory as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from sightline import catalog
from sightline.store import Cache

if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        found = catalog.scan(folder)
        duplicates = catalog.find_duplicates(found, Cache(Path(cache)))
        seconds = time.perf_counter() - start
    number = catalog.together(found, duplicates, groups=False)
    scenes = {path for paths in duplicates.same_scene for path in paths}
    links = [[found.paths[a], found.paths[b]] for a, b in duplicates.links.tolist()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    value = {"sets": [*duplicates.exact, *duplicates.near, *links], "seconds": seconds, "peak_mb": peak}
    out.write_text(json.dumps({**value, "clusters": len(set(number.tolist())), "in_scenes": len(scenes)}), encoding="utf-8")
