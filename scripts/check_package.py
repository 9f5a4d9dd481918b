"""Build the wheel and the sdist, check their content, and run the demo of the wheel in a new environment.

`python scripts/check_package.py` installs the wheel with all dependencies from the package index into a new virtual environment
(some minutes). `--no-install` checks the content alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/sightline/"


def build(source: Path, out: Path, *kinds: str) -> list[Path]:
    """Build wheel or sdist of a source and return the files."""
    out.mkdir(parents=True, exist_ok=True)
    before = set(out.iterdir())
    subprocess.run(
        [sys.executable, "-m", "build", *kinds, "--outdir", str(out), str(source)], check=True, stdout=subprocess.DEVNULL
    )
    return sorted(set(out.iterdir()) - before) or sorted(out.iterdir())


def content(wheel: Path) -> dict[str, str]:
    """Return file → SHA-256 of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def tracked() -> dict[str, str]:
    """Return file → SHA-256 of the package in the checkout, as far as git knows it."""
    listed = subprocess.run(["git", "ls-files", PACKAGE], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    files = [name for name in listed if name]
    return {name.removeprefix("src/"): hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in files}


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the names that are missing, superfluous or different."""
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def check_content(out: Path) -> Path:
    """Build both, and check that each holds every file of the package; return the wheel.

    Raises:
        SystemExit: If a file is missing, superfluous or different.
    """
    built = build(ROOT, out)
    wheel = next(file for file in built if file.suffix == ".whl")
    sdist = next(file for file in built if file.name.endswith(".tar.gz"))
    wrong = differences(content(wheel), tracked())
    if wrong:
        raise SystemExit(f"{wheel.name} differs from the checkout in {', '.join(wrong[:10])}")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(sdist)]
        subprocess.run(command, check=True)
        wrong = differences(content(next(Path(folder).glob("*.whl"))), content(wheel))
    if wrong:
        raise SystemExit(f"the wheel of {sdist.name} differs from {wheel.name} in {', '.join(wrong[:10])}")
    print(f"{wheel.name}: {len(tracked())} files, {wheel.stat().st_size / 1e6:.1f} MB; {sdist.name} gives the same")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel with all dependencies into a new virtual environment and return its interpreter."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([str(python), "-m", "pip", "install", "-q", str(wheel)], check=True)
    return python


def check_demo(python: Path, folder: Path) -> None:
    """Run the demo of an installed Sightline without a hub, with a home folder of its own.

    Raises:
        SystemExit: If the demo fails or writes no report.
    """
    own = {"HOME": str(folder), "SIGHTLINE_CACHE": str(folder / "cache"), "SIGHTLINE_LEDGER": str(folder / "ledger")}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SIGHTLINE"))}
    environment |= {**own, "HF_HUB_OFFLINE": "1"}
    command = [str(python), "-m", "sightline", "demo", "-o", "demo", "--json"]
    ended = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True, encoding="utf-8")
    if ended.returncode:
        raise SystemExit(f"the demo ended with {ended.returncode}: {ended.stderr[-2000:]}")
    value = json.loads(ended.stdout)
    reports = list((folder / "demo").glob("runs/*/report.html"))
    if not reports:
        raise SystemExit("the demo wrote no report.html")
    print(f"demo: test accuracy {value['test']['accuracy']:.3f}, {reports[0].stat().st_size / 1e6:.1f} MB of report")


def main() -> None:
    """Check the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="Check the content of wheel and sdist alone.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="Folder of the built files.")
    options = parser.parse_args()
    wheel = check_content(options.out)
    if not options.no_install:
        with tempfile.TemporaryDirectory() as folder:
            check_demo(install(wheel, Path(folder)), Path(folder))


if __name__ == "__main__":
    main()
