"""`tune`, and what `train --sweep` does: many fits, one answer."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli import console, data, options, recipes
from sightline.errors import RequestError

if TYPE_CHECKING:
    from sightline.commands.sweep import Study
    from sightline.records import Recipe

MOST_SHOWN = 10
"""Trials that the terminal shows; the page has all."""

Sweeps = Annotated[
    list[str] | None,
    typer.Option("--sweep", metavar="KEY=A,B,...", help="Train once for each value of a key; several keys are a grid."),
]
Seeds = Annotated[int, typer.Option(help="Train so often for each setting, with the recipe's seed and those that follow.")]


@console.guarded
def tune(
    catalog: options.CatalogFile,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Where the search starts, in TOML: the first trial.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="STUDY", help="The study's folder.")] = "runs/tune",
    trials: Annotated[int, typer.Option(help="Recipes to try in all, earlier calls included.")] = 40,
    budget: Annotated[str, typer.Option(metavar="TIME", help="How long this call may take: 90s, 10m, 1h.")] = "10m",
    max_parameters: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Leave out what has more parameters, such as 2e6.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe or its settings; dots reach inside."),
    ] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Search for a better recipe on train and val alone.

    The recipe's method says what is searched. An interrupted search goes on where it was, and a finished one continues with
    more trials. The best recipe is in best.toml, with how sure that is.

    \b
    Example:
      sightline tune catalog.csv recipes/cats.toml --trials 40 --budget 10m -o runs/tuned
    """
    from sightline import store
    from sightline.commands import sweep as study

    chosen = recipes.read(recipe, options.assignments(changes))
    with console.progress(not as_json) as progress:
        table = data.open_catalog(catalog, progress)
        found = study.tune(
            table,
            chosen,
            options.output(out),
            trials=trials,
            budget_s=options.seconds(budget),
            max_parameters=max_parameters,
            device=device,
            progress=progress,
            say=console.sayer(True),
            cache=store.Cache(),
        )
    return console.print_json(of_tuning(found)) if as_json else print_tuning(found)


def sweep(catalog: str, recipe: Recipe, sweeps: list[str] | None, seeds: int, out: str, device: str, as_json: bool) -> None:
    """Carry `train --sweep` out and print its table."""
    from sightline import store
    from sightline.commands import sweep as study

    keys = values_of(sweeps)
    with console.progress(not as_json) as progress:
        table = data.open_catalog(catalog, progress)
        found = study.sweep(
            table,
            recipe,
            keys,
            options.output(out),
            seeds=seeds,
            device=device,
            progress=progress,
            say=console.sayer(True),
            cache=store.Cache(),
        )
    return console.print_json(of_sweep(found)) if as_json else print_sweep(found)


def values_of(sweeps: list[str] | None) -> dict[str, list[Any]]:
    """`--sweep key=a,b,c` as key → values, read as TOML reads them, else taken as text.

    Commas inside brackets or double quotes belong to a value.

    Example:
        >>> values_of(["augment.rotation=0,15", 'augment.rgb_shift="10,40,10",0', "network=cnn(filters=[8, 16]),resnet18"])
        {'augment.rotation': [0, 15], 'augment.rgb_shift': ['10,40,10', 0], 'network': ['cnn(filters=[8, 16])', 'resnet18']}

    Raises:
        RequestError: There is no equals sign, or a key comes twice.
    """
    found: dict[str, list[Any]] = {}
    for text in sweeps or []:
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RequestError(f"--sweep {text!r} is not key=a,b,c", "write --sweep learning_rate=1e-3,3e-3")
        if key in found:
            raise RequestError(f"--sweep names {key} twice", f"write its values in one: --sweep {key}=A,B,C")
        found[key] = [_value(part) for part in _parts(listed)]
    return found


def _parts(listed: str) -> list[str]:
    """Text between commas that are neither in brackets nor in double quotes."""
    parts, depth, quoted = [""], 0, False
    for letter in listed:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _value(text: str) -> Any:
    """A value as TOML has it, or the text itself."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def of_sweep(study: Study) -> dict[str, Any]:
    """What `train --sweep --json` prints."""
    d = study.data
    keys = ("keys", "seeds", "images", "estimate", "settings", "best", "default", "comparisons", "words", "seconds")
    best = d["settings"][d["best"]]
    return {
        "study": str(study.folder),
        "report": str(study.folder / "report.html"),
        "recipe": str(study.best_recipe),
        "method": d["recipe"]["method"],
        "val": {"accuracy": best["accuracy"]},
        **{key: d[key] for key in keys},
    }


def of_tuning(study: Study) -> dict[str, Any]:
    """What `tune --json` prints."""
    d = study.data
    keys = (
        "images",
        "estimate",
        "counts",
        "best",
        "changed",
        "comparison",
        "optimism",
        "importance",
        "trials",
        "words",
        "seconds",
    )
    best = next(t for t in d["trials"] if t["number"] == d["best"])
    return {
        "study": str(study.folder),
        "report": str(study.folder / "report.html"),
        "recipe": str(study.best_recipe),
        "val": {"accuracy": best["accuracy"]},
        **{key: d[key] for key in keys},
    }


def print_sweep(study: Study) -> None:
    """A sweep for people."""
    d = study.data
    several = len(d["seeds"]) > 1
    head = (", ".join(d["keys"]) or "recipe", "accuracy", *(("range",) if several else ()), "seconds", "parameters", "")
    rows = []
    for row in d["settings"]:
        marks = ", ".join(word for word in (row["mark"], "the recipe" if row["default"] else "") if word)
        if row["failed"]:
            rows.append((row["label"], "–", *(("–",) if several else ()), "–", "–", f"failed: {row['failed']}"))
            continue
        span = (f"{100 * row['accuracy_low']:.1f}–{100 * row['accuracy_high']:.1f}",) if several else ()
        cost = (f"{row['seconds']:.1f}", f"{row['parameters']:,}")
        rows.append((row["label"], f"{100 * row['accuracy']:.1f}", *span, *cost, marks))
    console.print_table(head, rows)
    _print_rest(study)


def print_tuning(study: Study) -> None:
    """A search for people: the best trials, and what may be said."""
    d = study.data
    complete = [t for t in d["trials"] if t["state"] == "complete"]
    complete.sort(key=lambda t: (t["number"] != d["best"], -t["accuracy"], t["log_loss"]))
    default = [t for t in complete[MOST_SHOWN:] if t["number"] == 0]
    rows = [
        (t["number"], f"{100 * t['accuracy']:.1f}", f"{t['log_loss']:.3f}", f"{t['seconds']:.1f}", _proposed(t["params"]))
        for t in [*complete[:MOST_SHOWN], *default]
    ]
    console.print_table(("trial", "accuracy", "log loss", "seconds", "proposed"), rows)
    console.print_line(", ".join(f"{n} {state}" for state, n in d["counts"].items() if n))
    _print_rest(study)


def _proposed(params: dict[str, Any]) -> str:
    """What was proposed, on one line."""
    texts = (f"{k}={v:.4g}" if isinstance(v, float) and math.isfinite(v) else f"{k}={v}" for k, v in params.items())
    return ", ".join(texts) or "the starting recipe"


def _print_rest(study: Study) -> None:
    """The verdict, and where everything is."""
    console.print_line()
    for line in study.data["words"]:
        console.print_line(line)
    console.print_line(f"best recipe  {study.best_recipe}")
    console.print_line(f"report       {study.folder / 'report.html'}")
