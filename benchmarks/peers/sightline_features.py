"""Run Sightline for benchmarks/features.py: from files to features, without cached features."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    from sightline import engine, features, networks
    from sightline.store import Cache, file_digest

    photos, network, setting, limit = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    name = {"xception": "legacy_xception", "mobilenetv3": "mobilenetv3_large_100"}.get(network, network)
    files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:limit]
    cache = Cache()
    backbone = networks.describe(name, weights="random", cache=cache)
    precision = engine.precisions()[0] if setting == "-" else setting
    quantised = engine.quantised(backbone, cache) if precision == "int8" else None
    session = engine.open_session(backbone, cache=cache, precision=precision, quantised=quantised)
    assert session.precision == precision, f"{precision} is not available here"
    features.compute(files[:32], backbone.preprocess, session)  # what was converted is checked on the first images
    started = time.perf_counter()
    contents = [file_digest(f) for f in files]
    own = {"precision": precision, "ranges": session.ranges, "cache": cache}
    found = features.extract(files, contents, backbone, session=lambda count: session, **own)
    seconds = time.perf_counter() - started
    assert not found.problems and found.computed <= len(files)
    print(json.dumps({"images": len(files), "seconds": seconds, "shape": found.values.shape, "precision": precision}))


if __name__ == "__main__":
    main()
