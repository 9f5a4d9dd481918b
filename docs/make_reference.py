"""Write the reference pages from docstrings, the command line, the registries and the records: `python docs/make_reference.py`.

The pages are made when the site is built and are not kept in git, so that they cannot be out of date.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sightline
from sightline import records
from sightline.cli.app import COMMANDS, app

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
JSON_FIELDS = ROOT / "tests" / "contracts" / "json_fields.json"
FILES = {
    "catalog.csv": ("catalog", ("Catalog",)),
    "recipe.toml": ("recipe", ("Recipe",)),
    "run.json": ("run", ("RunRecord",)),
    "progress.json": ("progress", ("CommandProgress", "TrainingProgress", "EpochProgress")),
    "decisions.jsonl": ("decisions", ("DecisionsHeader", "Decision")),
    "scores.json": ("score_file", ("ScoreFile",)),
    "study.json": ("study", ("SweepRecord", "SearchRecord")),
    "comparison.json": ("comparison", ("ComparisonRecord",)),
    "audit.json": ("audit", ("AuditRecord",)),
    "learning-curve.json": ("learning_curve", ("LearningCurveRecord",)),
    "classifier.safetensors": ("classifier", ("Card", "Preprocess", "Backbone", "Head", "Uncertainty")),
    "card.json": ("export", ("ExportRecord",)),
}
"""File → module of its record in `sightline.records`, and the classes that describe it."""
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Examples|Yields|Note):\s*$")


def cell(text: str) -> str:
    """Return text as the content of a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row)) + " |" for row in rows)])


def code(value: Any) -> str:
    """Return a value as inline code."""
    return f"`{value}`" if str(value) else ""


def sections(docstring: str) -> dict[str, str]:
    """Return the sections of a Google-style docstring by heading; the text before the first one under the empty heading."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for line in inspect.cleandoc(docstring).splitlines():
        match = SECTION.match(line)
        if match:
            heading = match[1]
            found.setdefault(heading, [])
        else:
            found[heading].append(line)
    return {name: inspect.cleandoc("\n".join(lines)).strip() for name, lines in found.items()}


def arguments(section: str) -> dict[str, str]:
    """Return name → description of an `Args` or `Raises` section; `a, b: text` describes both."""
    found: dict[str, str] = {}
    for item in re.split(r"\n(?=\S)", section):
        names, _, text = item.partition(":")
        for name in names.split(","):
            found[name.strip().lstrip("*")] = " ".join(text.split())
    return found


def docstring_of(value: Any) -> str:
    """Return the docstring of a public value, "" without one."""
    return inspect.getdoc(value) or ""


def as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown: arguments and errors as tables, examples as code."""
    parts = []
    for heading, text in sections(docstring).items():
        if not text:
            continue
        if heading in ("Args", "Attributes", "Raises"):
            title = {"Args": "argument", "Attributes": "attribute", "Raises": "error"}[heading]
            parts.append(table((title, "description"), [(code(name), what) for name, what in arguments(text).items()]))
        elif heading in ("Example", "Examples"):
            parts.append(f"```python\n{text}\n```")
        elif heading:
            parts.append(f"**{heading}:** {text}")
        else:
            parts.append(text)
    return "\n\n".join(parts)


def signature(name: str, value: Any) -> str:
    """Return a signature as a code block, one parameter a line if it is long."""
    shown = inspect.signature(value)
    inner = list(parameters(shown))
    returned = "" if shown.return_annotation is inspect.Signature.empty else f" -> {shown.return_annotation}"
    line = f"{name}({', '.join(inner)}){returned}"
    if len(line) > 100:
        line = "\n".join([f"{name}(", *(f"    {parameter}," for parameter in inner), f"){returned}"])
    return f"```python\n{line}\n```"


def parameters(shown: inspect.Signature) -> Iterator[str]:
    """Yield the parameters of a signature, with `*` before those that are passed by keyword only."""
    keywords = False
    for parameter in shown.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            yield "*"
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
        default = "" if parameter.default is parameter.empty else f" = {shown_value(parameter.default)}"
        yield f"{stars}{parameter.name}{kind}{default}"


def shown_value(value: Any) -> str:
    """Return a default as code: a function by its name, a dataclass by the fields that differ from their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: default_of(f) for f in dataclasses.fields(value)}
        changed = [f"{n}={shown_value(getattr(value, n))}" for n, d in plain.items() if shown_value(getattr(value, n)) != d]
        return f"{type(value).__name__}({', '.join(changed)})"
    return getattr(value, "__name__", "") if inspect.isroutine(value) else repr(value)


def python_page() -> str:
    """Return the page of all public names of `import sightline`."""
    parts = ["# Python API", "`import sightline as sl` gives these names. Everything else may change between versions."]
    names = [name for name in sightline.__all__ if not name.startswith("_")]
    functions = [name for name in names if not isinstance(getattr(sightline, name), type)]
    for title, group in (("Functions", functions), ("Classes", [name for name in names if name not in functions])):
        parts.append(f"## {title}")
        for name in group:
            value = getattr(sightline, name)
            error = isinstance(value, type) and issubclass(value, Exception)
            parts += [f"### {name}", "" if error else signature(f"sl.{name}", value), as_markdown(docstring_of(value))]
            if isinstance(value, type) and not error:
                parts += members(value)
    return "\n\n".join(part for part in parts if part) + "\n"


def members(kind: type) -> Iterator[str]:
    """Yield the public methods and properties of a class that have a docstring of their own."""
    for name, value in vars(kind).items():
        inner = getattr(value, "__func__", value)
        if name.startswith("_") or not docstring_of(inner) or not (callable(inner) or isinstance(value, property)):
            continue
        if isinstance(value, property):
            yield f"**`{kind.__name__}.{name}`** (property): {as_markdown(docstring_of(value))}"
        else:
            yield f"**`{kind.__name__}.{name}`**\n\n{signature(name, inner)}\n\n{as_markdown(docstring_of(inner))}"


def help_of(*command: str) -> str:
    """Return what `sightline COMMAND --help` prints."""
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [*command, "--help"], prog_name="sightline", terminal_width=90).output.strip()


def commands_page() -> str:
    """Return the page with the help text of every command, and the fields of its `--json`."""
    described = json.loads(JSON_FIELDS.read_text(encoding="utf-8")) if JSON_FIELDS.is_file() else {}
    parts = [
        "# Command line",
        "The help text of each command (`sightline COMMAND --help`), and the fields of its `--json` value:",
    ]
    parts[-1] += (
        " `$` is the value, `[]` an element of a list, `{}` a key that depends on the data. Fields are only ever added."
    )
    groups = {
        group.name: [c.name or c.callback.__name__.replace("_", "-") for c in group.typer_instance.registered_commands]
        for group in app.registered_groups
    }
    for name in sorted([*COMMANDS, *groups]):
        for command in [[name, inner] for inner in groups[name]] if name in groups else [[name]]:
            title = " ".join(map(str, command))
            parts += [f"## sightline {title}", f"```text\n{help_of(*map(str, command))}\n```"]
            for example, fields in described.items():
                if example == title or example.startswith((f"{title} --", f"{title} of ")):
                    parts += [f"`--json` of `{example}`:" if example != title else "`--json`:", json_table(fields)]
    return "\n\n".join(parts) + "\n"


def json_table(fields: Mapping[str, Sequence[str]]) -> str:
    """Return the fields of a JSON value as a table."""
    return table(("field", "type"), [(code(name), " or ".join(kinds)) for name, kinds in fields.items()])


def type_name(field: dataclasses.Field[Any]) -> str:
    """Return the type of a field in short form."""
    return str(field.type).replace("typing.", "").replace("collections.abc.", "")


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return the default of a field as text; "" if it has none."""
    if field.default is not dataclasses.MISSING:
        return shown_value(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return shown_value(field.default_factory())
    return ""


def fields_table(kind: Any) -> str:
    """Return the fields of a dataclass with JSON key, type, default and description."""
    described = arguments(sections(docstring_of(kind)).get("Args", ""))
    rows = []
    for field in dataclasses.fields(kind):
        key = field.metadata.get("key", field.name)
        what = described.get(field.name, "")
        rows.append((code(key), code(type_name(field)), code(default_of(field)), what))
    return table(("key", "type", "default", "description"), rows)


def record_classes() -> dict[str, list[type]]:
    """Return the dataclasses of each module of `sightline.records`."""
    found = {}
    for module in pkgutil.iter_modules(records.__path__):
        namespace = vars(importlib.import_module(f"sightline.records.{module.name}"))
        classes = [v for v in namespace.values() if isinstance(v, type) and dataclasses.is_dataclass(v)]
        found[module.name] = [kind for kind in classes if kind.__module__ == f"sightline.records.{module.name}"]
    return {name: classes for name, classes in found.items() if classes}


def files_page() -> str:
    """Return the page on files: versions, the record behind each file, and all records."""
    from sightline.records.classifier import Card
    from sightline.records.export import ExportRecord
    from sightline.records.versions import RESULTS_VERSION, VERSION

    versions = {"classifier.safetensors": Card.FORMAT, "card.json": ExportRecord.VERSION, "catalog.csv": "", "recipe.toml": ""}
    rows = [
        (code(file), str(versions.get(file, VERSION)), ", ".join(f"[{kind}](#{kind.lower()})" for kind in kinds))
        for file, (_, kinds) in FILES.items()
    ]
    parts = [
        "# File formats",
        "Every file that Sightline writes has a type. A file with an unknown key, a value of another type or another version "
        "is refused with a message that names the key. Fractions are 0 to 1; names contain units (`_px`, `_s`, `_bytes`).",
        table(("file", "version", "content"), rows),
        f"The numbers themselves have the version {RESULTS_VERSION}: it is part of the identity of every run and changes "
        "if the same request gives other numbers.",
    ]
    for module, classes in record_classes().items():
        names = ", ".join(file for file, (home, _) in FILES.items() if home == module)
        parts.append(f"## records.{module}" + (f": {names}" if names else ""))
        for kind in classes:
            text = sections(docstring_of(kind))
            parts += [f"### {kind.__name__}", text[""], fields_table(kind)]
    return "\n\n".join(parts) + "\n"


def settings_text(kind: type | None) -> str:
    """Return the settings of a registry entry, `name=default` each."""
    if kind is None or not dataclasses.is_dataclass(kind):
        return ""
    return ", ".join(f"`{f.name}={default_of(f)}`" for f in dataclasses.fields(kind))


def registries_page() -> str:
    """Return the page of all registries: names that recipes and options take."""
    from sightline import evaluation, explanation, heads
    from sightline.export import FORMATS
    from sightline.networks import DEFAULTS
    from sightline.networks.classics import CLASSICS
    from sightline.training.augment import POLICIES, SETTINGS
    from sightline.training.methods import METHODS
    from sightline.training.optimizers import OPTIMIZERS
    from sightline.training.plan import Plan
    from sightline.training.schedules import SCHEDULES

    yes = {True: "yes", False: "no"}
    none = POLICIES["none"]
    metrics = [*evaluation.METRICS.values()]
    parts = {
        "Training methods": table(
            ("`method`", "title", "tried by `run`", "settings"),
            [(code(m.name), m.title, yes[m.by_default], settings_text(m.settings)) for m in METHODS.values()],
        ),
        "Settings of training by epochs": fields_table(Plan),
        "Optimizers": table(
            ("`optimizer`", "learning rate", "weight decay"),
            [(code(name), f"{o.learning_rate:g}", f"{o.weight_decay:g}") for name, o in OPTIMIZERS.items()],
        ),
        "Learning-rate schedules": table(
            ("`schedule`", "description"), [(code(n), docstring_of(s).splitlines()[0]) for n, s in SCHEDULES.items()]
        ),
        "Heads": table(
            ("`head`", "title", "tried by `auto`", "settings"),
            [
                (code(h.name), h.title, yes[h.auto_settings is not None], settings_text(h.settings))
                for h in heads.HEADS.values()
            ],
        ),
        "Metrics": table(
            ("metric", "title", "definition", "better", "interval"),
            [(code(m.name), m.title, m.description, "higher" if m.higher_is_better else "lower", m.interval) for m in metrics],
        ),
        "Decision thresholds": table(
            ("`threshold`", "written as"), [(code(name), how) for name, how in evaluation.CRITERIA.items()]
        ),
        "Heatmap methods": table(
            ("`method`", "title", "computed on", "heads", "signed", "unit"),
            [(code(n), m.title, m.needs, m.heads, yes[m.signed], m.unit) for n, m in explanation.METHODS.items()],
        ),
        "Augmentation policies": table(
            ("`policy`", "settings"),
            [
                (
                    code(name),
                    ", ".join(f"`{key}={getattr(p, key)}`" for key in SETTINGS if getattr(p, key) != getattr(none, key)),
                )
                for name, p in POLICIES.items()
            ],
        ),
        "Augmentation settings": table(
            ("setting", "effect", "a single number is", "from", "to", "unit"),
            [(code(n), s.what, s.kind, f"{s.low:g}", f"{s.high:g}", s.unit) for n, s in SETTINGS.items()],
        ),
        "Default networks": table(
            ("`backbone`", "role", "licence", "reason"), [(code(n), d.role, d.licence, d.why) for n, d in DEFAULTS.items()]
        ),
        "Classic networks": table(
            ("`backbone`", "title", "paper", "default size in px"),
            [(code(n), c.title, c.paper or "", str(c.image_size)) for n, c in CLASSICS.items()],
        ),
        "Export formats": table(
            ("`--to`", "description"), [(code(n), docstring_of(f.write).splitlines()[0]) for n, f in FORMATS.items()]
        ),
    }
    lines = ["# Registries", "Names that recipes, options and Python arguments take, from the registries of the program."]
    for title, text in parts.items():
        lines += [f"## {title}", text]
    return "\n\n".join(lines) + "\n"


INDEX = """# Reference

Generated from the program.

| page | content |
|---|---|
| [Command line](commands.md) | help text and `--json` fields of every command |
| [Python API](python.md) | public functions and classes |
| [Registries](registries.md) | methods, heads, metrics, heatmaps, augmentations, networks |
| [File formats](files.md) | files, their versions, and every record |
"""


def write(folder: Path = FOLDER) -> list[Path]:
    """Write all pages into a folder and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "README": INDEX,
        "commands": commands_page(),
        "python": python_page(),
        "registries": registries_page(),
        "files": files_page(),
    }
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return [folder / f"{name}.md" for name in pages]


if __name__ == "__main__":
    for written in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(written)
