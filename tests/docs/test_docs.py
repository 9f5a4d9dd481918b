"""The documentation agrees with the program: its examples run, and every command, option and registry entry is in it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli.app import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = {file.stem: file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs" / "guide").glob("*.md"))}
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "recipes").rglob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
]
GENERATED = (ROOT / "docs" / "reference", ROOT / "docs" / "gallery")
"""Folders that `make docs` writes; it checks the links to them."""
PAGES = [page for page in PAGES if page.parent not in GENERATED]
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


def blocks(mark: str) -> list[str]:
    """The code blocks of the README that come after a mark."""
    return re.findall(rf"<!-- {mark} -->\n```\w+\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_has_blocks_that_run() -> None:
    assert len(blocks("runs")) == 1
    assert len(blocks("runs with weights")) == 1


@pytest.mark.slow
def test_the_readme_s_commands_run(cli: Callable[..., Any], digits: Path, tmp_path: Path) -> None:
    digits.rename(tmp_path / "photos")
    for line in blocks("runs")[0].splitlines():
        program, *arguments = shlex.split(line)
        assert program == "sightline"
        ended = cli(*arguments)
        assert ended.code == 0, f"{line}\n{ended.err}"
        assert ended.out
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 1


@pytest.mark.slow
@pytest.mark.realdata
def test_the_readme_s_python_runs(python: Callable[..., Any], shared: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, file in enumerate(sorted((shared / "data" / "cats_dogs").glob(f"*/{name}.*.jpg"))[:30]):
            shutil.copy(file, tmp_path / "photos" / name / f"{number}.jpg")
    ended = python(blocks("runs with weights")[0], cwd=tmp_path, env={"SIGHTLINE_WEIGHTS": "", "HF_HUB_OFFLINE": "1"})
    assert ended.code == 0, ended.err
    assert float(ended.out) > 0.8
    assert (tmp_path / "report.html").is_file()


def test_every_command_is_documented() -> None:
    text = "\n".join([README, *GUIDE.values()])
    for name in [*COMMANDS, "cache show", "cache verify", "cache clear", "catalog diff"]:
        assert re.search(rf"sightline {name}(?![\w-])", text), name


def test_llms_txt_lists_every_command() -> None:
    text = (ROOT / "llms.txt").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^Commands: (.*?)\.$", text, flags=re.MULTILINE | re.DOTALL)
    assert set(re.split(r",\s+", listed)) == {*COMMANDS, "cache", "catalog"}


def help_text(name: str) -> str:
    """Return what `sightline NAME --help` prints."""
    return CliRunner().invoke(app, [name, "--help"]).output


@pytest.mark.slow
def test_every_command_in_the_documents_exists_and_has_its_options() -> None:
    help_of: dict[str, str] = {}
    for page in PAGES:
        for name, rest in re.findall(
            r"(?:^|`)sightline ([a-z]+(?:-[a-z]+)*)([^`\n]*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE
        ):
            assert name in {*COMMANDS, "cache", "catalog"}, f"{page.name}: sightline {name}"
            if name not in help_of:
                help_of[name] = help_text(name)
            for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest.partition("#")[0]):
                assert re.search(rf"(\s|,){option}\b", help_of[name]), f"{page.name}: sightline {name} has no {option}"


def test_every_documented_option_exists() -> None:
    shown = {option for name in COMMANDS for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", help_text(name))}
    documented = set(re.findall(r"`(--[a-z-]+)", "\n".join(GUIDE.values())))
    assert documented and documented <= shown, f"no command has {sorted(documented - shown)}"


def test_every_entry_of_a_registry_is_documented() -> None:
    from sightline import evaluation, explanation, heads, networks
    from sightline.networks.classics import CLASSICS
    from sightline.training import augment
    from sightline.training.methods import METHODS
    from sightline.training.optimizers import OPTIMIZERS
    from sightline.training.plan import Plan
    from sightline.training.schedules import SCHEDULES

    registries = [METHODS, heads.HEADS, explanation.METHODS, evaluation.CRITERIA, augment.POLICIES, augment.SETTINGS]
    registries += [OPTIMIZERS, SCHEDULES, {f.name: f for f in dataclasses.fields(Plan)}]
    text = "\n".join(page for name, page in GUIDE.items() if name not in ("metrics", "export"))
    rows = set(re.findall(r"^\| `([a-z0-9_][a-z0-9_+-]*)(?:=[^`]*)?` \|", text, flags=re.MULTILINE))
    known = {name for registry in registries for name in registry}
    assert known <= rows, f"not documented: {known - rows}"
    assert rows <= {*known, *networks.DEFAULTS, *CLASSICS, "auto"}, f"the page names what is not there: {rows - known}"
    for name in [*networks.DEFAULTS, *CLASSICS]:
        assert f"`{name}`" in text, name


def check_recipe(file: Path) -> None:
    """Read a recipe and its method's own settings."""
    from sightline.inputs import read_recipe
    from sightline.studies import recipe_edit

    recipe_edit.build(read_recipe(file))


def test_the_recipes_of_the_guide_can_be_read(tmp_path: Path) -> None:
    texts = re.findall(r"```toml\n(.*?)```", "\n".join(GUIDE.values()), flags=re.DOTALL)
    assert texts
    for text in texts:
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        check_recipe(tmp_path / "recipe.toml")


def test_every_recipe_that_is_shipped_can_be_read() -> None:
    files = sorted((ROOT / "recipes").glob("*.toml"))
    assert files
    for file in files:
        check_recipe(file)


def without_code(text: str) -> str:
    """Return Markdown without code blocks and code spans, whose brackets are not links."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@functools.cache
def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a Markdown page, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", text, flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        repeats = (f"{slug}-{number}" for number in itertools.count(1))
        found.add(slug if slug not in found else next(name for name in repeats if name not in found))
    return found


def broken_links(page: Path) -> list[str]:
    """Return the links of a Markdown page whose file or anchor does not exist."""
    broken = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if file.parent in GENERATED:
            continue
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    return broken


def test_links_to_files_and_anchors_exist() -> None:
    broken = {str(page.relative_to(ROOT)): links for page in [*PAGES, ROOT / "llms.txt"] if (links := broken_links(page))}
    assert not broken


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, with `code`\n[a](#a-title-with-code) [b](#no) [c](no.md) `[d](no)` [e](http://x.y)\n", encoding="utf-8"
    )
    assert broken_links(page) == ["#no", "no.md"]


def test_decisions_are_numbered_and_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    files = sorted(file.name for file in folder.glob("[0-9]*.md"))
    assert files
    assert [int(name[:3]) for name in files] == list(range(1, len(files) + 1))
    for name in files:
        assert f"[{name[:3]}]({name})" in index
        assert (folder / name).read_text(encoding="utf-8").startswith(f"# {name[:3]} ")


def test_the_architecture_shows_every_module() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^  ([a-z_]+)(?:/|\.py) ", page, flags=re.MULTILINE))
    there = {
        p.name.removesuffix(".py")
        for p in (ROOT / "src" / "sightline").iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert shown == there - {"__main__"}
