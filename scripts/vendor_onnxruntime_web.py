"""Write the parts of onnxruntime-web that `sightline export --to html` puts into its page.

It takes the package from the npm registry by `npm pack`, checks its digest, and writes the WebAssembly runtime (gzipped), its
JavaScript, and the licences, which are in the Python wheel of the same project. `VENDORED.json` records versions and digests.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import json
import tarfile
from pathlib import Path

import npm_package

VERSION = "1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package in base64, as `npm view onnxruntime-web dist.integrity` prints it."""
WEB = Path(__file__).resolve().parents[1] / "src" / "sightline" / "export" / "web"
SCRIPT, RUNTIME = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


def notices() -> str:
    """Return the licence of onnxruntime and the notices of its parts."""
    root = importlib.metadata.distribution("onnxruntime")
    files = [root.locate_file(f"onnxruntime/{name}") for name in ("LICENSE", "ThirdPartyNotices.txt")]
    return "\n\n".join(Path(str(file)).read_text(encoding="utf-8") for file in files)


def main() -> None:
    """Write the files."""
    with tarfile.open(fileobj=io.BytesIO(npm_package.package("onnxruntime-web", VERSION, INTEGRITY))) as archive:
        parts = {name: archive.extractfile(f"package/dist/{name}").read() for name in (SCRIPT, RUNTIME)}
    WEB.mkdir(exist_ok=True)
    (WEB / SCRIPT).write_bytes(parts[SCRIPT])
    (WEB / f"{RUNTIME}.gz").write_bytes(gzip.compress(parts[RUNTIME], 9, mtime=0))
    (WEB / "notices.txt.gz").write_bytes(gzip.compress(notices().encode(), 9, mtime=0))
    record = {
        "package": "onnxruntime-web",
        "version": VERSION,
        "licence": "MIT",
        "integrity": f"sha512-{INTEGRITY}",
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()},
        "notices": f"onnxruntime {importlib.metadata.version('onnxruntime')}, Python wheel",
    }
    (WEB / "VENDORED.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
