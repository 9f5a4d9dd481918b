"""Searches for duplicates of other libraries, a process each: `duplicates.py LIBRARY FOLDER OUT` writes sets as JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

Sets = list[list[str]]


def cleanvision(folder: Path) -> Sets:
    """Exact and near duplicates with the default settings."""
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    return [s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info[kind]["sets"]]


def imagededup(folder: Path) -> Sets:
    """Perceptual hashes with at most 8 differing bits."""
    from imagededup.methods import PHash

    method = PHash()
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    codes = {str(f): method.encode_image(image_file=str(f)) for f in files}
    found = method.find_duplicates(encoding_map={k: v for k, v in codes.items() if v}, max_distance_threshold=8)
    return [[name, other] for name, others in found.items() for other in others]


def fastdup(folder: Path) -> Sets:
    """Neighbours above the default threshold of similarity."""
    import fastdup as library

    with tempfile.TemporaryDirectory() as work:
        search = library.create(work_dir=work, input_dir=str(folder))
        search.run(overwrite=True, ccthreshold=0.96, print_summary=False)
        table = search.similarity()
        column = "distance"
        return table.loc[table[column] >= 0.96, ["filename_from", "filename_to"]].to_numpy().tolist()


if __name__ == "__main__":
    library_name, root, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    start = time.perf_counter()
    sets = {"cleanvision": cleanvision, "imagededup": imagededup, "fastdup": fastdup}[library_name](root)
    seconds = time.perf_counter() - start
    names = [[Path(p).resolve().relative_to(root).as_posix() for p in paths] for paths in sets]
    usage = resource.getrusage
    peak = max(usage(resource.RUSAGE_SELF).ru_maxrss, usage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
    out.write_text(json.dumps({"sets": names, "seconds": seconds, "peak_mb": peak}), encoding="utf-8")
