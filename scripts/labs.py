"""Run the labs of docs/labs on real photographs: extract the code blocks of each page, run them, record the results.

    python scripts/labs.py --data photos            # all labs, results and figures recorded in docs/labs
    python scripts/labs.py flowers --images 40      # one lab, at most 40 images per class; results.json and the page say so
    python scripts/labs.py flowers --short          # a few images and one epoch, nothing recorded
    python scripts/labs.py --tables                 # write the tables of all pages again from results.json

A page is the single source of its lab. In its HTML comments:

    lab: data = faces; weights = inception_v3     what the lab needs: folders of --data, networks with installed weights
    runs                                          the code block below is run: `console` line by line, `python` as a whole
    file: recipe.toml                             the code block below is written to this file
    output                                        the output of the code block above is written below
    figure: text/figures/*roc*.svg as roc.svg: Curves    a file of the working folder that is copied to figures and shown below
    photographs: sheet.png                        the picture is in the built page only, the line below is its caption
    results                                       rows `step | reported | RUN or RUN:val | reason` of the table below
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import glob
import html
import io
import json
import os
import platform
import re
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "labs"
RESULTS = PAGES / "results.json"
BUILT = ROOT / "build" / "labs"

NEEDS = re.compile(r"<!-- lab: data = ([^;>]+?)(?:; weights = ([^;>]+?))? -->")
BLOCK = re.compile(
    r"<!-- (runs|file: (?P<file>\S+)) -->\n```(?P<kind>\w+)\n(?P<text>.*?)```\n"
    r"(?P<shown>\n<!-- output -->\n(?:```text\n.*?```\n)?)?",
    flags=re.DOTALL,
)
FIGURE = re.compile(r"<!-- figure: (\S+) as ([\w-]+\.svg): ([^>]+) -->\n(?:!\[[^\]]*\]\([^)]+\)\n)?")
PHOTOGRAPHS = re.compile(r"<!-- photographs: (\S+) -->\n([^\n]+)\n")
TABLE = re.compile(r"(<!-- results\n(.*?)-->\n)(.*?)(<!-- end of results -->)", flags=re.DOTALL)

NO_CHECKS = ((r"sightline explain ", "sightline explain --no-checks "), (r"--heatmaps few", "--heatmaps none"))
"""Replacements that leave out the checks of heatmaps, which take most of the time of a small lab."""
SHORTER = (
    (r"--limit \d+", "--limit 20"),
    (r"(sightline scan )(?!.*--limit)(.*)", r"\1\2 --limit 20"),
    (r"--(epochs|repeats|seeds) \d+", r"--\1 1"),
    (r"--(folds|trials) \d+", r"--\1 2"),
    (r"\b(limit)=\d+", r"\1=20"),
    (r"\b(repeats)=\d+", r"\1=1"),
    (r"\b(folds|trials)=\d+", r"\1=2"),
    (r'(epochs(?:"|\b)\s?[:=] ?)\d+', r"\g<1>1"),
    (r"(--sweep [\w.]+=[^,\s]+,[^,\s]+),\S+", r"\1"),
    (r"(\{\"[\w.]+\": \[[^,\]]+, [^,\]]+), [^\]]+\]", r"\1]"),
    (r" --sets [\d.]+", ""),
    *NO_CHECKS,
)
"""Replacements in the code of a page and in recipes that make a lab short."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A page and what it needs.

    Args:
        page: The Markdown file.
        data: Folders below the data folder.
        weights: Networks whose pretrained weights must be on this machine.
    """

    page: Path
    data: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the page without its suffix."""
        return self.page.stem

    @property
    def text(self) -> str:
        """Text of the page."""
        return self.page.read_text(encoding="utf-8")


@dataclass(slots=True)
class Outcome:
    """What a run of a lab has produced.

    Args:
        folder: Working folder.
        outputs: Standard output of each block, in the order of the page; None for files.
        seconds: Time of all blocks.
    """

    folder: Path
    outputs: list[str | None] = field(default_factory=list)
    seconds: float = 0.0


def labs() -> list[Lab]:
    """Return the labs, by name."""
    found = []
    for page in sorted(PAGES.glob("*.md")):
        needs = NEEDS.search(page.read_text(encoding="utf-8"))
        if needs is not None:
            data, weights = (tuple(n.strip() for n in (part or "").split(",") if n.strip()) for part in needs.groups())
            found.append(Lab(page, data, weights))
    return found


def missing(lab: Lab, data: Path) -> str | None:
    """Return why a lab cannot run here; None if it can."""
    from sightline.networks import index
    from sightline.store import Cache

    for name in lab.data:
        if not any(data.glob(name)):
            return f"no {name} in {data}; {lab.page.name} says where to get the photographs"
    for name in lab.weights:
        entry = index.find(name, Cache())
        if entry is None or index.weights_at(name, entry) is None:
            return f"no weights of {name} on this machine: set SIGHTLINE_WEIGHTS to a folder that contains {name}.safetensors"
    return None


def shorten(text: str) -> str:
    """Return code with few images, one epoch, and two values per sweep."""
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    return text


def limited(text: str, images: int) -> str:
    """Return commands that take at most this number of images per class, and do not check heatmaps."""
    for pattern, replacement in NO_CHECKS:
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"--limit (\d+)", lambda found: f"--limit {min(int(found[1]), images)}", text)
    return re.sub(r"(sightline scan )(?!.*--limit)(.*)", rf"\1\2 --limit {images}", text)


def prepare(folder: Path, data: Path, short: bool, resume: bool) -> None:
    """Create a working folder with `data`, a link to the photographs, and a copy of the recipes."""
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(data.resolve(), target_is_directory=True)
    (folder / "recipes").mkdir(exist_ok=True)
    for file in (ROOT / "recipes").glob("*.toml"):
        text = file.read_text(encoding="utf-8")
        (folder / "recipes" / file.name).write_text(shorten(text) if short else text, encoding="utf-8")


def run(lab: Lab, data: Path, *, short: bool = False, images: int | None = None, resume: bool = False) -> Outcome:
    """Run the blocks of a page.

    Args:
        lab: The lab.
        data: Folder of the photographs.
        short: Whether to use few images and one epoch.
        images: Maximum number of images per class; None for all.
        resume: Whether to skip the commands that an interrupted run has finished.

    Raises:
        RuntimeError: If a command or a Python block fails; the message contains its output.
    """
    folder = BUILT / (f"{lab.name}-short" if short else lab.name)
    prepare(folder, data, short, resume)
    finished_file = folder / "finished.json"
    finished: dict[str, str] = json.loads(finished_file.read_text(encoding="utf-8")) if finished_file.exists() else {}
    outcome, names, started = Outcome(folder), {"__name__": "__main__"}, time.perf_counter()
    os.environ["SIGHTLINE_LEDGER"] = str(folder / "test-set-log")
    with contextlib.chdir(folder):
        for block in BLOCK.finditer(lab.text):
            code = shorten(block["text"]) if short else block["text"] if images is None else limited(block["text"], images)
            if block["file"]:
                Path(block["file"]).write_text(code, encoding="utf-8")
                outcome.outputs.append(None)
            elif block["kind"] == "python":
                outcome.outputs.append(run_python(code, names, lab.page.name))
            else:
                lines = []
                for line in code.strip().splitlines():
                    if line not in finished:
                        finished[line] = run_command(line, lab.page.name)
                        finished_file.write_text(json.dumps(finished), encoding="utf-8")
                    lines.append(finished[line])
                outcome.outputs.append("".join(lines))
    outcome.seconds = time.perf_counter() - started
    return outcome


def run_command(line: str, page: str) -> str:
    """Run one command line in this process, and return its standard output.

    Raises:
        RuntimeError: If it fails.
    """
    from typer.testing import CliRunner

    from sightline.cli.app import app

    program, *words = shlex.split(line)
    if program != "sightline":
        raise RuntimeError(f"{page}: {line}: only sightline commands can be run")
    arguments = [file for word in words for file in (sorted(glob.glob(word)) or [word])]
    print(f"  $ {line}", flush=True)
    ended = CliRunner().invoke(app, arguments)
    if ended.exit_code != 0:
        detail = "" if ended.exception is None else "".join(traceback.format_exception(ended.exception))
        raise RuntimeError(f"{page}: {line}\n{ended.output}\n{detail}")
    return ended.stdout


def run_python(code: str, names: dict[str, Any], page: str) -> str:
    """Run a Python block in the namespace of the page, and return what it prints.

    Raises:
        RuntimeError: If it raises.
    """
    print(f"  >>> {code.strip().splitlines()[0]} …", flush=True)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), names)
    except Exception as error:
        raise RuntimeError(f"{page}:\n{code}\n{traceback.format_exc()}") from error
    return printed.getvalue()


# ------------------------------------------------------------------------------------------------------------- results


def rows_of(text: str) -> list[tuple[str, str, str, str]]:
    """Return step, reported result, run and reason of each row of the table of a page."""
    found = TABLE.search(text)
    rows = [] if found is None else [line.split("|") for line in found[2].strip().splitlines()]
    return [(step.strip(), reported.strip(), at.strip(), reason.strip()) for step, reported, at, reason in rows]


def measured(folder: Path, at: str) -> dict[str, Any] | None:
    """Return accuracy, interval, number of images and training time of a run.

    Args:
        folder: Working folder of the lab.
        at: Run folder, or `RUN:val` for its validation score; `–` for none.
    """
    from sightline.records import Run

    if at == "–":
        return None
    name, _, split = at.partition(":")
    record = Run.load(folder / name).record
    scores = record.test if record.test is not None and split != "val" else record.val
    if scores is None:
        raise RuntimeError(f"{at} has no scores")
    accuracy = scores.metrics["accuracy"]
    trained = record
    if record.kind == "evaluate" and record.subject is not None and (folder / record.subject / "run.json").is_file():
        trained = Run.load(folder / record.subject).record
    on = "test" if scores is record.test else record.val_estimate or "val"
    return {
        "accuracy": round(float(accuracy.value), 4),
        "low": round(float(accuracy.low), 4),
        "high": round(float(accuracy.high), 4),
        "n": scores.n,
        "on": on,
        "seconds": round(trained.seconds or 0.0, 1),
    }


def record(lab: Lab, outcome: Outcome, images: int | None = None) -> None:
    """Write results, figures and outputs of a lab, run with at most `images` per class, into docs/labs."""
    import torch

    from sightline import __version__

    results = load_results()
    results[lab.name] = {
        "date": datetime.date.today().isoformat(),
        "sightline": __version__,
        "torch": torch.__version__,
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, shared with other work",
        "seconds": round(outcome.seconds),
        "images_per_class": images,
        "rows": {step: measured(outcome.folder, at) for step, _, at, _ in rows_of(lab.text)},
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (PAGES / "figures").mkdir(exist_ok=True)
    for source, name, _ in FIGURE.findall(lab.text):
        shutil.copyfile(only_file(outcome.folder, source), PAGES / "figures" / name)
    outputs = iter(outcome.outputs)

    def with_output(block: re.Match[str]) -> str:
        printed = next(outputs)
        if block["shown"] is None or printed is None:
            return block[0]
        text = "\n".join(line.rstrip() for line in printed.strip().splitlines())
        return block[0].removesuffix(block["shown"]) + f"\n<!-- output -->\n```text\n{text}\n```\n"

    text = FIGURE.sub(r"<!-- figure: \1 as \2: \3 -->\n![\3](figures/\2)\n", BLOCK.sub(with_output, lab.text))
    lab.page.write_text(with_table(text, results.get(lab.name)), encoding="utf-8")


def only_file(folder: Path, pattern: str) -> Path:
    """Return the first file of a pattern, by name.

    Raises:
        RuntimeError: If there is none.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise RuntimeError(f"no file {pattern} in {folder}")
    return files[0]


def load_results() -> dict[str, Any]:
    """Return the recorded results, by lab."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def with_table(text: str, results: Mapping[str, Any] | None) -> str:
    """Return a page with its table written from recorded results."""
    lines = ["| step | reported | Sightline, accuracy [95 % interval] | time | why they differ |", "|---|---|---|---|---|"]
    for step, reported, _, reason in rows_of(text):
        value = None if results is None else results["rows"].get(step)
        lines.append(f"| {step} | {reported} | {_score(value)} | {_seconds(value)} | {reason} |")
    if results is not None:
        lines += [
            "",
            f"Measured on {results['date']} with {results['machine']}, torch {results['torch']}; the whole page took "
            f"{_duration(results['seconds'])}. {_subset(results.get('images_per_class'))}"
            "Time: that of the training, without features that were cached.",
        ]
    else:
        lines += ["", "The accuracies of this page have not been recorded yet: `make labs` writes them."]
    table = "\n".join(["", *lines, "", ""])
    return TABLE.sub(lambda found: found[1] + table + found[4], text)


def _score(value: Mapping[str, Any] | None) -> str:
    """Return a score as text.

    Example:
        >>> _score({"accuracy": 0.975, "low": 0.943, "high": 0.989, "n": 320, "on": "test", "seconds": 3})
        '0.975 [0.943, 0.989], 320 images (test)'
    """
    if value is None:
        return "–"
    return f"{value['accuracy']:.3f} [{value['low']:.3f}, {value['high']:.3f}], {value['n']:,} images ({value['on']})"


def _subset(images: int | None) -> str:
    """Return the sentence on the images of a recorded run; "" for all."""
    if images is None:
        return ""
    part = f"**These figures are of a part of the photographs, at most {images} per class, and without checks of heatmaps**"
    return f"{part}; `make labs` takes all. "


def _seconds(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None else _duration(value["seconds"])


def _duration(seconds: float) -> str:
    """Return a duration in seconds or minutes.

    Example:
        >>> _duration(3.4), _duration(341)
        ('3 s', '5.7 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


# --------------------------------------------------------------------------------------------------------- built pages

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid #8886; border-radius: 4px; font-size: .82rem; overflow-wrap: normal; }
code { font-size: .88em; } pre code { font-size: inherit; }
table { border-collapse: collapse; display: block; overflow-x: auto; } th, td { border: 1px solid #8886; padding: .3rem .6rem; }
img { max-width: 100%; height: auto; background: #fff; } figcaption { font-size: .9rem; }
"""


def build(lab: Lab, outcome: Outcome) -> Path:
    """Write the page as HTML with the output of each block and the photographs, and return the file."""
    from markdown_it import MarkdownIt

    outputs = iter(outcome.outputs)

    def with_details(block: re.Match[str]) -> str:
        printed = next(outputs)
        if not printed or block["shown"]:
            return block[0]
        return f"{block[0]}\n<details><summary>Output</summary>\n<pre>{html.escape(printed)}</pre>\n</details>\n"

    def with_picture(found: re.Match[str]) -> str:
        caption = found[2].strip("*")
        files = sorted(outcome.folder.glob(found[1]))
        if not files:
            return f"\n<p>({html.escape(found[1])} was not written: {html.escape(caption)})</p>\n"
        source = files[0].relative_to(BUILT).as_posix()
        alt = html.escape(caption, quote=True)
        return f'\n<figure><img src="{source}" alt="{alt}"><figcaption>{alt}</figcaption></figure>\n'

    text = PHOTOGRAPHS.sub(with_picture, BLOCK.sub(with_details, lab.text))
    text = text.replace("](figures/", f"]({os.path.relpath(PAGES, BUILT)}/figures/")
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    title = html.escape(lab.text.partition("# ")[2].partition("\n")[0])
    page = BUILT / f"{outcome.folder.name}.html"
    page.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n",
        encoding="utf-8",
    )
    return page


# ----------------------------------------------------------------------------------------------------------------- main


def chosen(names: list[str]) -> Iterator[Lab]:
    """Yield the labs of these names, all if there are none.

    Raises:
        SystemExit: If there is no such lab.
    """
    known = {lab.name: lab for lab in labs()}
    for name in names or known:
        if name not in known:
            raise SystemExit(f"no lab is called {name!r}; there are {', '.join(known)}")
        yield known[name]


def main() -> int:
    """Run labs, and return the exit code."""
    parser = argparse.ArgumentParser(description="Run the labs of docs/labs.")
    parser.add_argument("names", nargs="*", metavar="LAB", help="labs to run; default: all")
    default = os.environ.get("SIGHTLINE_LAB_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument(
        "--data", default=default, help="folder of the photographs; default: SIGHTLINE_LAB_DATA, or ../shared/data"
    )
    parser.add_argument("--short", action="store_true", help="few images and one epoch; nothing is recorded")
    parser.add_argument("--images", type=int, help="maximum number of images per class, recorded with the results")
    parser.add_argument("--resume", action="store_true", help="skip the commands that an interrupted run has finished")
    parser.add_argument("--tables", action="store_true", help="only write the tables of the pages again")
    options = parser.parse_args()
    for lab in chosen(options.names):
        if options.tables:
            lab.page.write_text(with_table(lab.text, load_results().get(lab.name)), encoding="utf-8")
            continue
        reason = missing(lab, Path(options.data))
        if reason is not None:
            print(f"{lab.name}: skipped, {reason}", flush=True)
            continue
        print(f"{lab.name}:", flush=True)
        try:
            outcome = run(lab, Path(options.data), short=options.short, images=options.images, resume=options.resume)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        if not options.short:
            record(lab, outcome, options.images)
        print(f"{lab.name}: {_duration(outcome.seconds)}, {build(lab, outcome)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
