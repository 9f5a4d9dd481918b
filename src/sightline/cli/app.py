"""The Typer application: which commands there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from sightline import __version__
from sightline.cli import augment, cache, compare, data, explain, job, models, studies, summary

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="From a folder of labelled photographs to an honest image classifier, its score, its mistakes and where it looked.",
    epilog='Begin with: sightline demo, then: sightline run "my photos"',
)


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        print(f"sightline {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options before any command."""


COMMANDS: dict[str, Callable[..., None]] = {
    "run": job.run,
    "demo": job.demo,
    "scan": data.scan,
    "split": data.split,
    "networks": models.networks,
    "summary": summary.summary,
    "augment": augment.augment,
    "train": models.train,
    "tune": studies.tune,
    "evaluate": models.evaluate,
    "compare": compare.compare,
    "predict": models.predict,
    "mistakes": models.mistakes,
    "explain": explain.explain,
    "report": job.report,
}
"""Every command and its function; the function's docstring is its help, whose last paragraph is an example."""

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(cache.cache, name="cache")
