"""Configuration of the documentation site, built by `make docs` with Sphinx and MyST.

The sources are the Markdown files of the repository as they are on disk; only the reference and the gallery are generated.
The navigation of a section is the list of links of its README.md.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

project = "Sightline"
author = "The Sightline developers"
copyright = f"{author}, Apache-2.0"
extensions = ["myst_parser"]
root_doc = "docs/README"
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/*.md", "docs/*/*.md", "recipes/*.md", "benchmarks/*.md"]
exclude_patterns = [".*", "build", "runs"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "Sightline"
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_extra_path = [str(ROOT / "build" / "gallery")] if (ROOT / "build" / "gallery").is_dir() else []
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#10598f", "color-brand-content": "#10598f"},
    "dark_css_variables": {"color-brand-primary": "#7db8e8", "color-brand-content": "#7db8e8"},
}
LINK = re.compile(r"\]\(([^()\s#:]+\.md)\)")
SECTIONS = ("tutorial.md", "labs/README.md", "how-to/README.md", "concepts/README.md", "guide/README.md", "reference/README.md")


def pages_of(folder: Path, text: str) -> list[str]:
    """Return the pages below a README.md in the order of its links, without `.md`: links first, then what it does not name."""
    linked = [target for target in LINK.findall(text) if "/" not in target and (folder / target).is_file()]
    if folder == ROOT / "docs":
        linked = [name for name in SECTIONS if (folder / name).is_file()]
        linked += sorted(str(p.relative_to(folder)) for p in folder.glob("*/README.md"))
        linked += [f"../{name}.md" for name in ("README", "recipes/README", "benchmarks/README", "ARCHITECTURE")]
        linked += [f"../{name}.md" for name in ("CONTRIBUTING", "CHANGELOG")]
    linked += sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
    entries = [name.removesuffix(".md") for name in dict.fromkeys(linked)]
    return [f"Install and quick start <{entry}>" if entry == "../README" else entry for entry in entries]


def add_navigation(app: Any, name: str, source: list[str]) -> None:
    """Add the table of contents of a section to its README.md."""
    file = ROOT / f"{name}.md"
    if file.name == "README.md" and (ROOT / "docs") in file.parents:
        pages = "\n".join(pages_of(file.parent, source[0]))
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:maxdepth: 2\n\n{pages}\n```\n"


def redirect(app: Any, error: Exception | None) -> None:
    """Write the start page of the site, which opens the page of the documentation."""
    if error is None:
        page = '<!doctype html><meta charset="utf-8"><title>Sightline</title>'
        page += '<meta http-equiv="refresh" content="0; url=docs/README.html"><a href="docs/README.html">Sightline</a>'
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def generate(app: Any) -> None:
    """Write the generated pages."""
    import make_gallery
    import make_reference

    make_reference.write()
    make_gallery.write_index()


def setup(app: Any) -> dict[str, bool]:
    """Register the hooks."""
    app.connect("config-inited", lambda app, _: generate(app))
    app.connect("source-read", add_navigation)
    app.connect("build-finished", redirect)
    return {"parallel_read_safe": True}
