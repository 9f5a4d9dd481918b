"""The reference is generated from the program, and the site builds without a warning and loads nothing from the network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sightline
from sightline.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(reference: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of the generated pages by name."""
    return {f.stem: f.read_text(encoding="utf-8") for f in reference.write(tmp_path_factory.mktemp("reference"))}


def test_the_reference_has_every_public_name_and_command(pages: dict[str, str]) -> None:
    assert set(re.findall(r"^### (\w+)", pages["python"], flags=re.MULTILINE)) == {*sightline.__all__} - {"__version__"}
    titles = set(re.findall(r"^## sightline (.+)$", pages["commands"], flags=re.MULTILINE))
    assert {*COMMANDS} <= titles and "cache show" in titles
    assert "| `progress` | Progress callback. |" in pages["python"]
    assert "0x" not in pages["python"], "no addresses of objects"


def test_the_reference_has_every_registry_entry_and_record(pages: dict[str, str], reference: ModuleType) -> None:
    from sightline import evaluation, explanation, heads
    from sightline.networks.classics import CLASSICS
    from sightline.training.augment import POLICIES, SETTINGS
    from sightline.training.methods import METHODS

    for registry in (METHODS, heads.HEADS, evaluation.METRICS, explanation.METHODS, POLICIES, SETTINGS, CLASSICS):
        for name in registry:
            assert f"| `{name}` |" in pages["registries"], name
    for kinds in reference.record_classes().values():
        for kind in kinds:
            assert f"### {kind.__name__}\n" in pages["files"]
    for _, kinds in reference.FILES.values():
        for kind in kinds:
            assert f"### {kind}\n" in pages["files"], kind
    assert "| `ladder` |" in pages["files"], "keys are those of the file, not of the attribute"


def test_the_site_builds_without_a_warning_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", str(tmp_path / "site")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert ended.returncode == 0, ended.stderr
    written = sorted((tmp_path / "site").rglob("*.html"))
    assert len(written) > 50 and (tmp_path / "site" / "index.html").is_file()
    for page in written:
        loaded = re.findall(r'(?:src|data)="(https?:[^"]+)|<link[^>]+href="(https?:[^"]+)', page.read_text(encoding="utf-8"))
        assert not loaded, f"{page.name}: {loaded}"
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import[^;]*https?:", sheet.read_text(encoding="utf-8")), sheet.name
