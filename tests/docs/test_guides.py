"""The code blocks of tutorial, how-to guides and concepts run, page by page, on a few digits."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.errors import SightlineError
from tests.conftest import write_few_digits

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    DOCS / "tutorial.md",
    *sorted((DOCS / "guide").glob("*.md")),
    *sorted((DOCS / "how-to").glob("*.md")),
    *sorted((DOCS / "concepts").glob("*.md")),
]
BLOCK = re.compile(r"<!-- runs -->\n```(\w+)\n(.*?)```", flags=re.DOTALL)
WITH_BLOCKS = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


def prepare(folder: Path) -> None:
    """Write the inputs: folders `photos`, `two`, `few` and `deep` (16 bits), `my image.png`, and the table `labels.csv`."""
    write_few_digits(folder / "photos", 14)
    shutil.copy(next((folder / "photos").rglob("*.png")), folder / "my image.png")
    for name in ("two", "few"):
        for digit in ("3", "8"):
            shutil.copytree(folder / "photos" / digit, folder / name / digit)
    rng = np.random.default_rng(0)
    for label in ("thick", "thin"):
        (folder / "deep" / label).mkdir(parents=True)
        for number in range(20):
            values = rng.integers(300, 4000, (16, 16), dtype=np.uint16) // (2 if label == "thin" else 1)
            Image.fromarray(values).save(folder / "deep" / label / f"{number}.tif")
    files = sorted((folder / "two").rglob("*.png"))
    rows = [f"{f.relative_to(folder).as_posix()},{f.parent.name},site{i % 6}" for i, f in enumerate(files)]
    (folder / "labels.csv").write_text("\n".join(["file,species,site", *rows]) + "\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    if "catalog.csv" in text and "scan" not in BLOCK.search(text)[2]:  # type: ignore[index]
        cli("scan", "labels.csv", "--path-column", "file", "--label-column", "species", "-o", "catalog.csv")
        if "sightline split" not in text:
            cli("split", "catalog.csv")
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            try:
                exec(compile(block, str(page), "exec"), {"__name__": "__main__"})
            except SightlineError as error:
                pytest.fail(f"{page.name}: {error}\n{block}")
            continue
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "sightline", line
            ended = cli(*arguments)
            assert ended.code == 0, f"{page.name}: {line}\n{ended.err}"


def test_every_block_of_commands_or_python_runs_or_says_why_not() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for mark, kind in re.findall(r"(?:(<!-- [^\n]*-->)\n)?^```(\w+)$", text, flags=re.MULTILINE):
            if kind in ("console", "python", "bash") and page.parent.name != "guide":
                assert mark == "<!-- runs -->" or mark.startswith("<!-- does not run: "), f"{page.name}: {mark}"


def test_the_index_names_every_page() -> None:
    for folder in ("how-to", "concepts", "guide"):
        index = (DOCS / folder / "README.md").read_text(encoding="utf-8")
        for page in (DOCS / folder).glob("*.md"):
            assert page.name == "README.md" or f"({page.name})" in index, page
