"""The package contains its data files, and the facts about the project agree wherever they stand."""

from __future__ import annotations

import fnmatch
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import sightline

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def script(name: str) -> ModuleType:
    """Import a file of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_package_data_names_every_file_that_is_not_python() -> None:
    listed = subprocess.run(["git", "ls-files", "src/sightline"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["sightline"]
    files = [name.removeprefix("src/sightline/") for name in listed.stdout.split()]
    missing = [f for f in files if not f.endswith(".py") and not any(fnmatch.fnmatch(f, pattern) for pattern in patterns)]
    assert not missing


def test_the_citation_is_valid_and_has_the_version_and_licence_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    required, known = {"cff-version", "message", "title", "authors"}, {"type", "abstract", "version", "license", "keywords"}
    assert required <= set(citation) <= required | known, "keys of the schema of CFF 1.2.0"
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(set(author) <= {"name", "family-names", "given-names", "orcid"} for author in citation["authors"])
    assert citation["version"] == PROJECT["project"]["version"] == sightline.__version__
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_bill_of_materials_holds_what_is_required_and_nothing_else() -> None:
    bom: dict[str, Any] = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"bom-ref": ref, "name": ref.partition("==")[0]} for ref in ("a_b==1", "c==2", "pytest==9")],
        "dependencies": [
            {"ref": "root", "dependsOn": ["a_b==1", "pytest==9"]},
            {"ref": "a_b==1", "dependsOn": ["c==2"]},
            {"ref": "pytest==9", "dependsOn": ["c==2"]},
        ],
    }
    kept = script("make_sbom").runtime(bom, {"a-b"})
    assert [component["name"] for component in kept["components"]] == ["a_b", "c"]
    assert {entry["ref"] for entry in kept["dependencies"]} == {"root", "a_b==1", "c==2"}
    assert script("make_sbom").vendored()["purl"].startswith("pkg:npm/onnxruntime-web@")


def test_a_missing_or_changed_file_of_a_wheel_is_found() -> None:
    differences = script("check_package").differences
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert differences({"a": "1"}, {"a": "1"}) == []
