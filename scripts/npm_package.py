"""Fetch a package of the npm registry, and check its digest.

`python scripts/npm_package.py axe FOLDER` writes axe-core's `axe.min.js`, which the browser tests
run to find accessibility problems.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

AXE_VERSION = "4.10.2"
AXE_INTEGRITY = "RE3mdQ7P3FRSe7eqCWoeQ/Z9QXrtniSjp1wUjt5nRC3WIpz5rSCve6o3fsZ2aCpJtrZjSZgjwXAoTO5k4tEI0w=="


def package(name: str, version: str, integrity: str) -> bytes:
    """Return a package as a gzipped tar archive.

    Args:
        name: Name in the npm registry.
        version: Exact version.
        integrity: SHA-512 of the archive in base64, as `npm view NAME dist.integrity` prints it without its prefix.

    Raises:
        SystemExit: If npm is missing or fails, or the digest is another one.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not installed. hint: apt-get install npm")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([npm, "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        data = next(Path(folder).glob("*.tgz")).read_bytes()
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    if digest != integrity:
        raise SystemExit(f"{name} {version} has the SHA-512 {digest}, not {integrity}")
    return data


def main(folder: Path) -> None:
    """Write `axe.min.js` into a folder, unless it is there."""
    target = folder / f"axe-{AXE_VERSION}.min.js"
    if target.is_file():
        return
    with tarfile.open(fileobj=io.BytesIO(package("axe-core", AXE_VERSION, AXE_INTEGRITY))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(member.read())


if __name__ == "__main__":
    main(Path(sys.argv[2]))
