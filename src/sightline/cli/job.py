"""`run`, `demo` and `report`: the main job and its page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline import evaluation
from sightline.cli import console, options, values
from sightline.schema import command_line

if TYPE_CHECKING:
    from sightline.records import Run

Out = Annotated[
    str, typer.Option("-o", "--out", metavar="FOLDER", help="The folder in which each run gets a folder of its own.")
]


def interval(scores: dict[str, Any] | None) -> str:
    """An accuracy with its interval, for people."""
    if not scores or scores.get("accuracy") is None:
        return "–"
    low, high = scores.get("accuracy_low"), scores.get("accuracy_high")
    around = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{scores['accuracy']:.3f}{around}" + (f" on {scores['n']:,} images" if scores.get("n") is not None else "")


def metrics(scores: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each metric but the accuracy: its value with its interval, or the reason why there is none."""
    if scores.get("positive") is not None:
        yield f"{'positive class':<20}{scores['positive']}"
    for name in (name for name in evaluation.METRICS if name != evaluation.PRIMARY_METRIC):
        number, low, high = (scores.get(key) for key in (name, f"{name}_low", f"{name}_high"))
        why = (scores.get("reasons") or {}).get(name)
        around = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        yield f"{name:<20}{'–' if number is None else f'{number:.3f}{around}'}{f'  ({why})' if why else ''}"


def print_run(run: Run) -> None:
    """The ladder, the scores and where the results lie."""
    value = values.of_run(run)
    ladder = run.data.get("ladder") or []
    rows, mixed = [], max((step["shared"]["n"] for step in ladder if step.get("shared")), default=0)
    for step in ladder:
        took = "–" if step.get("seconds") is None else f"{step['seconds']:.1f} s"
        name = step.get("label") or step.get("method")
        val, shared = step.get("val") or {}, step.get("shared")
        on_shared = () if not mixed else ("–" if shared is None else f"{shared['accuracy']:.3f}",)
        rows.append(("*" if step.get("chosen") else "", name, interval(val), val.get("estimate", ""), *on_shared, took))
    if rows:
        columns = (f"on the {mixed:,} shared",) if mixed else ()
        console.print_table(("", "method", "accuracy", "estimated on", *columns, "time"), rows)
        for there in (step["at_bar"] for step in ladder if step.get("at_bar")):
            bar = f"{there['positive']} from {there['threshold']:.3g} on, criterion {there['by']}"
            console.print_line(f"*  with its bar  {interval(there)}  ({bar}); the others answer at one half")
        console.print_line()
    if value["test"] is not None:
        console.print_line(f"test accuracy   {interval(value['test'])}")
    if value["test_without_leaks"] is not None:
        console.print_line(
            f"without leaks   {interval(value['test_without_leaks'])}  (test images that are also in train are left out)"
        )
    if (run.data.get("shortcut") or {}).get("alarm"):
        shortcut = run.data["shortcut"]
        console.print_line(
            f"ALARM: {shortcut['feature']} alone gives {shortcut['class']} away (AUC {shortcut['auc']:.2f}); "
            "the classifier may have learnt that instead of what the photographs show"
        )
    if (run.data.get("shortcut") or {}).get("notable"):
        shortcut = run.data["shortcut"]
        console.print_line(
            f"note: file properties alone reach {shortcut['score']:.0%} (chance {shortcut['chance']:.0%}), "
            f"{shortcut['feature']} most of all; part of the classifier's accuracy may come from them"
        )
    console.print_line(f"classifier      {value['classifier']}")
    console.print_line(f"report          {value['report']}")


@console.guarded
def run(
    photos: options.Photos,
    out: Out = "runs",
    backbone: options.Backbones = None,
    weights: options.Weights = "pretrained",
    methods: options.Methods = None,
    head: options.Head = "auto",
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="A recipe in TOML: its method is carried out as it says.")
    ] = None,
    budget: options.Budget = None,
    seed: options.Seed = 0,
    val: options.Val = "0.15",
    test: options.Test = "0.2",
    group_by: options.GroupBy = None,
    label_from: options.LabelFrom = None,
    path_column: options.PathColumn = None,
    label_column: options.LabelColumn = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    positive: options.Positive = None,
    threshold: options.Threshold = None,
    fit: options.Fit = None,
    image_size: options.ImageSize = None,
    pool: options.Pool = "avg",
    heatmaps: options.Heatmaps = "all",
    device: options.Device = "auto",
    allow_truncated: options.AllowTruncated = False,
    resume: options.Resume = False,
    as_json: options.Json = False,
) -> None:
    """From photographs to a classifier, its score and a report.

    Mistakes and heatmaps included. Without --backbone a short list of networks is compared. The plan is printed first:
    what is downloaded, how long it takes.

    \b
    Examples:
      sightline run "my photos"
      sightline run photos --backbone resnet50 --methods baseline,shortcut,features --budget 5m
    """
    from sightline import inputs, store
    from sightline.commands import run as run_command
    from sightline.runs import plan

    chosen = None if recipe is None else inputs.read_recipe(options.output(recipe))
    request = plan.Request(
        photos=photos,
        out=out,
        recipe=chosen,
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
        path_column=path_column,
        label_column=label_column,
        classes=options.classes(classes),
        limit=limit,
        positive=positive,
        threshold=threshold,
        fit=options.choice("--fit", fit, options.FITS),
        image_size=image_size,
        pool=options.choice("--pool", pool, options.POOLS),
        heatmaps=options.choice("--heatmaps", heatmaps, options.HEATMAPS),
        device=device,
        allow_truncated=allow_truncated,
        command=command_line("sightline", *sys.argv[1:]),
        resume=resume,
    )
    with console.progress() as progress:
        done = run_command.run(request, progress=progress, say=console.sayer(as_json), cache=store.Cache())
    return console.print_json(values.of_run(done)) if as_json else print_run(done)


@console.guarded
def demo(
    out: Annotated[str, typer.Option("-o", "--out", metavar="FOLDER", help="Where images and run go.")] = "sightline-demo",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """The whole journey, offline, on handwritten digits.

    1,797 real images that scikit-learn ships are written as PNG files; run then trains on the pixels and a small network of
    its own. Nothing is downloaded. It takes under two minutes.

    \b
    Example:
      sightline demo
    """
    from sightline import store
    from sightline.commands import train as train_command

    with console.progress() as progress:
        done = train_command.run_demo(out, seed=seed, progress=progress, say=console.sayer(as_json), cache=store.Cache())
    return console.print_json(values.of_run(done)) if as_json else print_run(done)


@console.guarded
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folders that run, train or evaluate made, or that of a sweep.")
    ],
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The page.")] = "report.html",
    as_json: options.Json = False,
) -> None:
    """Write one HTML page about runs, a sweep or a search.

    It is one file that opens offline with a double click.

    \b
    Example:
      sightline report runs/pets runs/pets-2 -o report.html
    """
    from sightline import report as reports

    file = reports.write_page([options.output(folder) for folder in runs], options.output(out))
    return console.print_json({"report": str(file), "runs": runs}) if as_json else console.print_line(str(file))
