"""Write the software bill of materials in CycloneDX: what `pip install sightline` installs, with versions and licences.

`python scripts/make_sbom.py dist/sbom.json` describes the environment that runs it with cyclonedx-py, leaves out what only
development needs, and adds the JavaScript that the package contains.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENDORED = ROOT / "src" / "sightline" / "export" / "web" / "VENDORED.json"


def normal(name: str) -> str:
    """Return a package name in normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def environment() -> dict[str, Any]:
    """Return the bill of materials of the whole environment."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "all.json"
        command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
        subprocess.run([*command, "--output-reproducible", "--of", "JSON", "-o", str(file), sys.executable], check=True)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def runtime(bom: dict[str, Any], required: set[str]) -> dict[str, Any]:
    """Return the bill of materials with the required packages and all that these require.

    Args:
        bom: CycloneDX document of an environment.
        required: Normal names of the packages that the root component requires.
    """
    root = bom["metadata"]["component"]["bom-ref"]
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    needs[root] = [ref for ref in needs[root] if normal(ref.partition("==")[0]) in required]
    kept, queue = {root}, [root]
    while queue:
        for ref in needs.get(queue.pop(), []):
            if ref not in kept:
                kept.add(ref)
                queue.append(ref)
    components = [component for component in bom["components"] if component["bom-ref"] in kept]
    dependencies = [{"ref": ref, "dependsOn": sorted(set(needs.get(ref, [])) & kept)} for ref in sorted(kept)]
    return {**bom, "components": components, "dependencies": dependencies}


def vendored() -> dict[str, Any]:
    """Return the component of onnxruntime-web, whose files are in the package."""
    facts = json.loads(VENDORED.read_text(encoding="utf-8"))
    name, version = facts["package"], facts["version"]
    ref = f"pkg:npm/{name}@{version}"
    licence = [{"license": {"acknowledgement": "declared", "id": facts["licence"]}}]
    return {"bom-ref": ref, "type": "library", "name": name, "version": version, "purl": ref, "licenses": licence}


def main(target: Path) -> None:
    """Write the bill of materials to a file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {normal(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]) for text in project["dependencies"]}
    bom = runtime(environment(), required)
    missing = required - {normal(component["name"]) for component in bom["components"]}
    if missing:
        raise SystemExit(f"not installed: {', '.join(sorted(missing))}. hint: make setup")
    bom["components"].append(vendored())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bom, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{target}: {len(bom['components'])} components")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
