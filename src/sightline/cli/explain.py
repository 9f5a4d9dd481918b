"""`explain`: where a classifier looked."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sightline.cli import console, options

_METAVAR = "auto|gradcam|gradcam++|hirescam|patches|masks|..."


@console.guarded
def explain(
    subject: Annotated[
        str, typer.Argument(metavar="RUN|MODEL|NETWORK", help="A run's folder, a classifier's file, or a network's name.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...",
            help="Images, folders or tables (.csv, .parquet) to explain; none: a run's test images if it was tested on them, "
            "else its validation images.",
        ),
    ] = None,
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="Where overlays (.png) and raw heat (.npz) go.")
    ] = "explanations",
    target: Annotated[str | None, typer.Option(metavar="CLASS", help="Explain this class; else the predicted one.")] = None,
    method: Annotated[str, typer.Option(metavar=_METAVAR, help="How; the documentation lists them all.")] = "auto",
    layer: Annotated[
        str | None, typer.Option(metavar="MODULE", help="The module whose map is used; else the last map.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Why the target and not this class; else all others together.")
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,WIDTH,HEIGHT", help="Cover this part of the upright photograph and ask again; repeatable."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(metavar="[strongest|first]:N", help="Draw N channels of the layer too, the strongest or the first ones."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="train|val|test|all", help="Without IMAGE: explain this split of the run; test images count as looked at."
        ),
    ] = None,
    no_checks: Annotated[
        bool, typer.Option("--no-checks", help="Don't check the heatmaps: faster, but without a verdict.")
    ] = False,
    average_by: Annotated[
        str,
        typer.Option(metavar="label|predicted", help="Average the maps of a class over its images by label or by prediction."),
    ] = "label",
    seed: options.Seed = 0,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Draw where a classifier looked, and check the picture.

    Each image gets an overlay (.png) with the verdict of its checks, and its raw heat (.npz). A network's name stands for the
    network with its own classes. Of images whose class is known, as in a folder per class or a table, there are also sheets
    of right and wrong answers for each class (right-CLASS.png, wrong-CLASS.png), and the average map of each class
    (average.png). Test images whose class is known count as looked at, as with evaluate.

    \b
    Examples:
      sightline explain runs/pets cat.jpg dog.jpg -o explanations
      sightline explain mobilenetv2_100 elephant.jpg --target "African elephant"
      sightline explain runs/pets cat.jpg --hide 40,10,120,80
      sightline explain runs/pets cat.jpg --channels strongest:16
      sightline explain classifier.safetensors photos/ -o explanations
      sightline explain runs/pets --split test --no-checks
    """
    from sightline import store
    from sightline.commands import explain as explain_command

    with console.progress() as progress:
        rows = explain_command.explain(
            subject,
            images or [],
            out=out,
            target=target,
            method=method,
            layer=layer,
            contrast=contrast,
            hide=hide or [],
            channels=channels,
            split=split,
            checks=not no_checks,
            average_by=options.choice("--average-by", average_by, ("label", "predicted")),
            seed=seed,
            code=code,
            device=device,
            progress=progress,
            cache=store.Cache(),
        )
    if as_json:
        console.print_json(rows)
    else:
        _print(rows)
    console.leave_if_any_failed(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    """The pictures and their verdicts; the five likeliest classes of each where there are more than two."""
    drawn = [row for row in rows if "error" not in row]
    table = [(row["path"], row["target"], f"{row['probability']:.1%}", _word(row), row["overlay"]) for row in drawn]
    console.print_table(("path", "target", "probability", "check", "overlay"), table)
    for row in drawn:
        if len(row["top"]) > 2:
            print(f"{console.visible(row['path'])}: " + ", ".join(_share(t) for t in row["top"]))
        if "hidden" in row:
            print(_hidden(row))
        if "channels" in row:
            print(f"{console.visible(row['path'])}: channels of {row['channels']['layer']} in {row['channels']['sheet']}")
    for line in _verdicts(drawn):
        print(console.visible(line))
    sheets = sorted({str(row["sheet"]) for row in drawn if row.get("sheet")})
    if sheets:
        print(f"sheets: {', '.join(sheets)}")
    averages = {(a["file"], a["by"]) for row in drawn if (a := row.get("average"))}
    for file, by in averages:
        print(f"average maps by {'label' if by == 'label' else 'predicted class'}: {file}")
    for row in rows:
        if "error" in row:
            console.warn_of(row["path"], row["error"])


def _verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Return the verdict that most images share in one line, and a line with the reason for each image that differs."""
    checked = [row for row in rows if row["check"]]
    if not checked:
        return []
    said = [(str(row["check"]["verdict"]), str(row["check"]["why"])) for row in checked]
    common = max(dict.fromkeys(said), key=said.count)
    lines = [f"{row['path']}: {word}: {why}" for row, (word, why) in zip(checked, said, strict=True) if (word, why) != common]
    if said.count(common) == 1 and lines:
        return [f"{row['path']}: {word}: {why}" for row, (word, why) in zip(checked, said, strict=True)]
    images = "" if len(checked) == 1 else f" ({said.count(common):,} of {len(checked):,} images)"
    return [f"{common[0]}: {common[1]}{images}", *lines]


def _word(row: dict[str, Any]) -> str:
    return str(row["check"]["verdict"]) if row["check"] else "not checked"


def _share(top: dict[str, Any]) -> str:
    return f"{console.visible(top['class'])} {top['probability']:.1%}"


def _hidden(row: dict[str, Any]) -> str:
    """What covering did, in a line."""
    h = row["hidden"]
    colour = ", ".join(map(str, h["cover"]))
    answer = "" if h["answer_before"] == h["answer_after"] else f"; the answer becomes {console.visible(h['answer_after'])}"
    return (
        f"{console.visible(row['path'])}: {console.visible(row['target'])} {h['before']:.1%}, with {h['share']:.1%} of the "
        f"photograph covered (rgb {colour}) {h['after']:.1%}{answer}; see {h['picture']}"
    )
