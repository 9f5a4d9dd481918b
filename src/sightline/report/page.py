"""Run report: build the sections of finished runs, render the template and write one HTML file."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sightline import __version__
from sightline.errors import RequestError
from sightline.records import Run, RunRecord, Scores
from sightline.report import (
    audit,
    cross_validation,
    curves,
    disagreements,
    format,
    gallery,
    gradients,
    headline,
    heatmaps,
    learning_curve,
    provenance,
    robustness,
    sections,
    svg,
    threshold_explorer,
    uncertainty,
    verdict,
)
from sightline.report.images import Album
from sightline.report.meanings import MEANINGS
from sightline.store import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write one self-contained HTML file about one or several finished runs.

    The file contains its pictures, figures, style and script, and loads nothing. Without JavaScript everything is visible too.
    Names of files and classes are escaped.

    Args:
        runs: Finished runs, in the order of the report; a comparison is added if there are several.
        out: The HTML file; an existing file is replaced only when the new one is complete.

    Returns:
        `out`.

    Raises:
        RequestError: If there are no runs, or `out` is a folder.
    """
    if not runs:
        raise RequestError("a report needs at least one run", "name a folder that `sightline run` made")
    out = Path(out)
    if out.is_dir():
        raise RequestError(f"{out} is a folder", f"name a file, such as {out / 'report.html'}")
    write_text(out, render(runs))
    return out


def render(runs: Sequence[Run]) -> str:
    """Return the HTML text of the report."""
    album = Album()
    views = [view(run, album) for run in runs]
    for i, shown in enumerate(views, 1):
        alone = len(runs) == 1
        shown |= {"id": "" if alone else f"r{i}-", "kicker": "Sightline report" if alone else f"Run {i} of {len(runs)}"}
    title = views[0]["title"] if len(views) == 1 else f"{len(views)} runs"
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            **inlined(),
            runs=views,
            comparison=comparison(runs, album) if len(runs) > 1 else None,
            version=__version__,
            left_out=album.left_out,
        )
    )


def inlined() -> dict[str, str]:
    """Return style and script of a page, and their hashes for its content security policy."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "report.js"))
    return {"style": Markup(style), "style_hash": _hash(style), "script": Markup(script), "script_hash": _hash(script)}


def _hash(text: str) -> str:
    """Return the SHA-256 of an inline style or script, as a content security policy names it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


@functools.cache
def templates() -> Environment:
    """Return the Jinja environment with automatic escaping; templates are compiled once."""
    from jinja2 import Environment, FileSystemLoader  # here, so that importing the package stays quick

    loader = FileSystemLoader(TEMPLATES, encoding="utf-8")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["meanings"] = MEANINGS
    environment.filters.update(short=format.short, clean=format.clean, count=format.count, images=format.images)
    return environment


def view(run: Run, album: Album) -> dict[str, Any]:
    """Return the template variables of one run."""
    data = run.record
    _, score = headline.scored(data)
    classes = (score.classes if score else None) or data.classes
    name = data.predictions_in or "val"
    held_out = curves.read_answers(run.folder / "predictions" / f"{name}.csv") if data.val else None
    first, more = figures_of(run, data)
    shown = {
        "title": format.short(data.name or run.folder.name, 60),
        "date": format.date(data.created),
        "kind": headline.kind_of(data),
        "answer": headline.answer(data),
        "ladder": sections.ladder(data),
        "folds": cross_validation.folds(data),
        "learning": learning_curve.learning(data),
        "data": sections.dataset(run, data, album),
        "split": sections.splitting(data),
        "scores": sections.scores(data),
        "per_class": sections.per_class(score),
        "figures": first,
        "more_figures": more,
        "threshold": threshold_explorer.explorer(run, data, held_out, album),
        "confusion": sections.confusion(score, classes),
        "gallery": gallery.gallery(run, data, album, held_out),
        "audit": audit.of_run(data.audit, run.folder, album),
        "doubts": uncertainty.view(run, data, album),
        "robustness": robustness.robustness(run, album),
        "heat": heatmaps.heat(data),
        "made": provenance.made(data),
        "network_layers": provenance.network_layers(run),
        "again": provenance.again(run, data),
    }
    listed = contents(shown)
    titles = dict(listed)
    preferred = {"shortcut": "shortcuts"}  # topic → section, where a page has it
    sought = [(v, preferred.get(v.topic, v.section)) for v in verdict.verdict(data)]
    sought = [(v, first if first in titles else v.section) for v, first in sought]
    items = [dataclasses.replace(v, section=section if section in titles else "") for v, section in sought]
    return {**shown, "contents": listed, "titles": titles, "verdict": items}


def figures_of(run: Run, data: RunRecord) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the curves of the scored predictions and of the training: those shown at once, and those that are folded."""
    where, score = headline.scored(data)
    name = where if where == "test" else data.predictions_in or where
    table = curves.read_answers(run.folder / "predictions" / f"{name}.csv") if score else None
    epochs = curves.read_history(run.folder / "history.csv") if data.history else []
    first = [*curves.figures(table, score or Scores()), *curves.history(epochs, data.overfitting, data.best_epoch)]
    return first, [*curves.folded(table, score or Scores(), data.threshold), *gradients.of_run(run.folder)]


def contents(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return id and title of each section that the page of a run has, in order."""
    pictures, doubts, audited = shown["gallery"], shown["doubts"], shown["audit"] or {}
    sections = (
        ("data", "Dataset", shown["data"]),
        ("split", "Split", shown["split"]),
        ("methods", "Methods compared", shown["ladder"]),
        ("folds", "Cross-validation folds", shown["folds"]),
        ("learning", "Learning curve", shown["learning"]),
        ("scores", "Scores", shown["scores"]),
        ("threshold", "Decision threshold", shown["threshold"]),
        ("mistakes", "Misclassified images", pictures["total"] or pictures["wrong"] or shown["confusion"]),
        ("shortcuts", "Shortcuts", audited.get("shortcuts")),
        ("labels", "Likely label errors", audited.get("suspects")),
        ("outliers", "Outliers", audited.get("outliers")),
        ("pretraining", "Known from the pretraining", audited.get("pretraining")),
        ("neighbours", "Nearest training images", doubts["likenesses"]),
        ("slices", "Error rate by slice", doubts["slices"]),
        ("robustness", "Robustness", shown["robustness"]),
        ("heatmaps", "Heatmap checks", shown["heat"]),
        ("correct", "Correct predictions", pictures["right"]),
        ("uncertainty", "Uncertainty", doubts["limits"]),
        ("reproduce", "Reproducibility", True),
    )
    return [(key, title) for key, title, there in sections if there]


def comparison(runs: Sequence[Run], album: Album) -> dict[str, Any]:
    """Return the table that compares several runs, whether they were scored on the same images, and their disagreements."""
    records = [run.record for run in runs]
    picked = [record.test_without_leaks or headline.scored(record)[1] or Scores() for record in records]
    start = svg.floor_of([s.accuracy.low for s in picked])
    rows = []
    for run, data, s in zip(runs, records, picked, strict=True):
        without = ", without leaked images" if data.test_without_leaks else ""
        row = provenance.comparison_row(run, data, s, f"{headline.kind_of(data)}{without}")
        rows.append({**row, "strip": svg.whisker(s.accuracy.value, s.accuracy.low, s.accuracy.high, start)})
    sets = {(data.photos, headline.scored(data)[0], s.n) for data, s in zip(records, picked, strict=True)}
    names = [data.name or run.folder.name for run, data in zip(runs, records, strict=True)]
    networks = [data.backbone or name for data, name in zip(records, names, strict=True)]
    labels = networks if len(set(networks)) == len(runs) else names
    figures = gradients.of_runs([(name, run.folder) for name, run in zip(labels, runs, strict=True)])
    numbered = labels if len(set(labels)) == len(runs) else [f"run {i}" for i in range(1, len(runs) + 1)]
    found = disagreements.of_runs(runs, numbered, album)
    return {"rows": rows, "ruler": svg.ruler(start), "same": len(sets) == 1, "figures": figures, "disagreements": found}
