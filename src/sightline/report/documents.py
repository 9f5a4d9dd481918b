"""Markdown report with figures, model card, and `scores.json`: a run for people who write their own text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.records import Run, RunRecord
from sightline.records.score_file import ScoreFile
from sightline.report import learning_curve, page, provenance, sections, verdict
from sightline.report.format import clean, count, images, percent, percent_range, short
from sightline.report.headline import answer, kind_of, method_name, scored
from sightline.store import plain, slug, write_json, write_text

MOST_LISTED = 50
_LEVELS = {"alarm": "Alarm", "caution": "Caution", "note": "Note", "passed": "Passed", "unchecked": "Not checked"}


def write_documents(run: Run, folder: Path) -> list[Path]:
    """Write `report.md` with its `figures/`, `model_card.md` and `scores.json` of a finished run.

    Args:
        run: The run.
        folder: Folder of the files; existing ones are replaced.

    Returns:
        The files, `report.md` first.
    """
    figures = _write_figures(run, folder)
    write_text(folder / "report.md", report_text(run, figures))
    return [folder / "report.md", *write_card(run, folder), *(file for _, _, file in figures)]


def write_card(run: Run, folder: Path) -> list[Path]:
    """Write `model_card.md` and `scores.json` of a finished run, and return both files."""
    files = [folder / "model_card.md", folder / "scores.json"]
    write_text(files[0], card_text(run.record))
    write_json(files[1], plain(ScoreFile.of(run.record).to_json()))
    return files


def report_text(run: Run, figures: Sequence[tuple[str, str, Path]]) -> str:
    """Return the report of a run in Markdown.

    Args:
        run: The run.
        figures: Title, caption and file of each figure, in a folder beside the text.
    """
    data = run.record
    found = answer(data)
    parts = [f"# {escape(data.name or run.folder.name)}"]
    parts += [f"**{head.value}** {escape(head.label)} {escape(head.of)}, 95 % CI {head.interval}." for head in found.headlines]
    parts += [escape(line) for line in (*found.lines, *found.details)]
    parts += ["## What could make this number wrong", _checks(data)]
    if data.dataset:
        parts += ["## Dataset", *map(escape, sections.dataset_words(data.dataset))]
    splitting = sections.splitting(data)
    if splitting:
        parts += ["## Split", *map(escape, splitting["lines"])]
    ladder = sections.ladder(data)
    if ladder:
        rows = [[_chosen(r), r["accuracy"], r["interval"], r["estimate"], r["n"]] for r in ladder["rows"]]
        parts += ["## Methods compared", _table(("Method", "Accuracy", "95 % CI", "Evaluated on", "Images"), rows)]
    parts += _score_parts(data)
    parts += [part for title, text, file in figures for part in _figure(title, text, file)]
    if data.mistakes:
        mistakes = [
            [escape(m.path), escape(m.label), escape(m.predicted), percent(m.probability)] for m in data.mistakes[:MOST_LISTED]
        ]
        parts += ["## Misclassified images", _table(("Image", "True class", "Predicted class", "Confidence"), mistakes)]
        if len(data.mistakes) > MOST_LISTED:
            parts.append(f"`mistakes.csv` lists all {count(len(data.mistakes))}.")
    parts += ["## Reproducibility", *(f"- {name}: {escape(value)}" for name, value in provenance.made(data)["facts"])]
    parts += [f"{name}:\n\n```\n{line.replace('```', '')}\n```" for name, line in provenance.again(run, data)]
    return "\n\n".join(parts) + "\n"


def card_text(data: RunRecord) -> str:
    """Return the model card of a run in Markdown.

    Source: Mitchell et al. 2019, "Model Cards for Model Reporting".
    """
    net, dataset = data.network, data.dataset
    licence = net.licence if net and net.licence else "unknown"
    origin = f"{net.name}, weights: {net.weights or 'none'}, pretrained on {net.pretrained_on or 'nothing'}" if net else "none"
    sizes = {name: sum(parts.values()) for name, parts in dataset.per_class.items()} if dataset else {}
    trained = ", ".join(f"{count(n)} {short(name, 40)}" for name, n in sizes.items())
    size = f"{count(dataset.images)} images: {trained}" if dataset and dataset.images else trained
    classes = ", ".join(short(c, 40) for c in data.classes)
    parts = [
        f"# Model card: {escape(data.name)}",
        "## Model",
        f"- Task: assigns one of {len(data.classes)} classes to an image: {escape(classes)}",
        f"- Method: {escape(method_name(data))}",
        f"- Backbone: {escape(origin)}; licence: {escape(licence)}",
        f"- Made with Sightline {escape(data.sightline)} on {escape(data.created)}, random seed {data.seed}",
        "## Intended use",
        "Images of the same kind and from the same source as the training images. TODO: describe who uses the model for what, "
        "and what it must not be used for.",
        "## Data",
        f"- {escape(size or 'unknown')}",
        "- TODO: where the images come from, who labelled them, and their licence.",
        "## Scores",
        *_scores(data),
        "## Limitations",
        _checks(data),
    ]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def escape(text: Any) -> str:
    """Return a text for Markdown: on one line, with every character that has a meaning there as itself.

    Example:
        >>> escape("a_b <i>|")
        'a\\\\_b \\\\<i\\\\>\\\\|'
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", clean(text))


def _chosen(row: Mapping[str, Any]) -> str:
    """Return the name of a method, in bold if it was selected."""
    return f"**{escape(row['label'])}**" if row["chosen"] else escape(row["label"])


def _checks(data: RunRecord) -> str:
    return "\n".join(f"- {_LEVELS[v.level]}: {escape(v.title)}. {escape(v.text)}" for v in verdict.verdict(data))


def _score_parts(data: RunRecord) -> list[str]:
    found = _scores(data)
    return ["## Scores", *found] if found else []


def _scores(data: RunRecord) -> list[str]:
    """Return tables of all scores, and of the recall of each class, in Markdown."""
    table = sections.scores(data)
    if not table:
        return ["There are no scores."]
    cells = [
        [escape(row["name"]), *(f"{c['value']} {c['interval'] or ''}".strip() for c in row["cells"])]
        for row in (*table["rows"], *table["more"])
    ]
    parts = [_table(("Score", *map(escape, table["columns"])), cells)]
    _, score = scored(data)
    classes = score.per_class if score else {}
    if classes:
        rows = [
            [escape(short(name, 60)), percent(s.recall.value), percent_range(s.recall.low, s.recall.high), count(s.n)]
            for name, s in classes.items()
        ]
        parts += [f"Recall by class ({images(score.n if score else 0, kind_of(data))}):"]
        parts += [_table(("Class", "Recall", "95 % CI", "Images"), rows)]
    return parts


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(title: str, text: str, file: Path) -> list[str]:
    return [f"## {escape(title)}", f"![{escape(title)}]({file.parent.name}/{file.name})", escape(text)]


def _write_figures(run: Run, folder: Path) -> list[tuple[str, str, Path]]:
    """Write the figures of the report as SVG files; return title, caption and file of each."""
    data = run.record
    first, more = page.figures_of(run, data)
    learning = learning_curve.learning(data)
    found = [(f["title"], f["text"], f["figure"]) for f in (*first, *more)]
    if learning:
        found.append(("Learning curve", learning["how"], learning["figure"]))
    written = []
    for number, (title, text, drawing) in enumerate(found, 1):
        file = folder / "figures" / f"{number:02d}-{slug(title)}.svg"
        write_text(file, standalone(str(drawing)))
        written.append((title, text, file))
    return written


def standalone(drawing: str) -> str:
    """Return a figure of the report as an SVG file with its style, on white."""
    style = str(page.inlined()["style"])
    colours = dict(re.findall(r"(--[\w-]+):\s*([^;]+);", style[: style.index("@media")]))
    rules = style[style.index("/* figures */") : style.index("@media screen and (max-width: 760px)")]
    rules = re.sub(r"var\((--[\w-]+)\)", lambda m: colours[m[1]], rules).replace('"', "'")
    head, rest = drawing.split(">", 1)
    white = '<rect width="100%" height="100%" fill="#fff"/>'
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{rules}</style>{white}{rest}\n'
