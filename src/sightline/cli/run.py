"""`sightline run`: photographs to a classifier, its score and a report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, json_output, options, tables_output
from sightline.cli.progress import progress
from sightline.schema import command_line

if TYPE_CHECKING:
    from sightline.records import Run


@console.guarded
def run(
    photos: options.Photos,
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="Folder in which each run gets a folder of its own.")
    ] = "runs",
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run, for its folder and its report. Default: that of the photographs."),
    ] = None,
    backbone: options.Backbones = None,
    weights: options.Weights = "pretrained",
    methods: options.Methods = None,
    head: options.Head = "auto",
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="Recipe in TOML; its method is trained with these settings.")
    ] = None,
    budget: options.Budget = None,
    seed: options.Seed = 0,
    val: options.Val = "0.15",
    test: options.Test = "0.2",
    group_by: options.GroupBy = None,
    label_from: options.LabelFrom = None,
    label_level: options.LabelLevel = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    follow_links: options.FollowLinks = False,
    classes: options.Classes = None,
    limit: options.Limit = None,
    positive: options.Positive = None,
    threshold: options.Threshold = None,
    fit: options.Fit = None,
    image_size: options.ImageSize = None,
    pool: options.Pool = "avg",
    heatmaps: options.Heatmaps = "all",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    allow_truncated: options.AllowTruncated = False,
    resume: options.Resume = False,
    on: options.On = "local",
    as_json: options.Json = False,
) -> None:
    """Train, select and test a classifier, and write a report.

    Scans and splits the photographs, compares several training methods and backbones on held-out images, evaluates the best
    one on the test split, and writes a report with misclassified images and heatmaps. The plan is printed first, with
    downloads and the estimated time.

    \b
    Examples:
      sightline run "my photos"
      sightline run photos --backbone resnet50 --methods baseline,shortcut,features --budget 5m
    """
    from sightline import inputs, store
    from sightline.commands import run as command
    from sightline.runs import plan

    request = plan.Request(
        photos=photos,
        out=out,
        name=name,
        recipe=None if recipe is None else inputs.read_recipe(options.path(recipe)),
        backbones=options.items(backbone),
        weights=weights,
        methods=options.items(methods),
        head=head,
        budget_s=None if budget is None else options.seconds(budget),
        seed=seed,
        val=options.share("--val", val),
        test=options.share("--test", test),
        group_by=group_by,
        label_from=label_from,
        label_level=label_level,
        path_column=path_column,
        label_column=label_column,
        follow_links=follow_links,
        classes=options.classes(classes),
        limit=limit,
        positive=positive,
        threshold=threshold,
        fit=options.choice("--fit", fit, options.FITS),
        image_size=image_size,
        pool=options.choice("--pool", pool, options.POOLS),
        heatmaps=options.choice("--heatmaps", heatmaps, options.HEATMAPS),
        device=device,
        precision=options.choice("--precision", precision, options.PRECISIONS),
        allow_truncated=allow_truncated,
        command=command_line("sightline", *sys.argv[1:]),
        resume=resume,
    )
    with progress() as shown:
        result = command.run(request, progress=shown, say=console.line_printer(as_json), cache=store.Cache())
    return console.print_json(json_output.of_run(result)) if as_json else print_run(result)


def print_run(run: Run) -> None:
    """Print the candidates, the test scores and the paths of the results."""
    from sightline.runs import notes

    value = json_output.of_run(run)
    _print_candidates(run.data.get("ladder") or [])
    if value["test"] is not None:
        console.print_line(f"test accuracy   {tables_output.interval(value['test'])}")
    if value["test_without_leaks"] is not None:
        console.print_line(
            f"without leaks   {tables_output.interval(value['test_without_leaks'])}  (excluding test images that are in train)"
        )
    for line in notes.of_shortcut(run.record.shortcut):
        console.print_line(line if line.startswith("ALARM") else f"note: {line}")
    console.print_line(f"classifier      {value['classifier']}")
    console.print_line(f"report          {value['report']}")


def _print_candidates(candidates: list[dict[str, Any]]) -> None:
    """Print a row per candidate with its accuracy on held-out images; the chosen one has an asterisk."""
    if not candidates:
        return
    shared_n = max((c["shared"]["n"] for c in candidates if c.get("shared")), default=0)
    rows: list[tuple[Any, ...]] = []
    for candidate in candidates:
        seconds, val, shared = candidate.get("seconds"), candidate.get("val") or {}, candidate.get("shared")
        on_shared = () if not shared_n else ("–" if shared is None else f"{shared['accuracy']:.3f}",)
        mark, name = "*" if candidate.get("chosen") else "", candidate.get("label") or candidate.get("method")
        took = "–" if seconds is None else f"{seconds:.1f} s"
        rows.append((mark, name, tables_output.interval(val), val.get("estimate", ""), *on_shared, took))
    columns = (f"on the {shared_n:,} shared",) if shared_n else ()
    tables_output.print_table(("", "method", "accuracy", "estimated on", *columns, "time"), rows)
    for scores in (c["at_bar"] for c in candidates if c.get("at_bar")):
        threshold = f"{scores['positive']} at probability ≥ {scores['threshold']:.3g}, criterion {scores['by']}"
        console.print_line(
            f"*  at its threshold  {tables_output.interval(scores)}  ({threshold}); all other accuracies are at 0.5"
        )
    console.print_line()
