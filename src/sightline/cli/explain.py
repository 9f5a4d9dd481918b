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
            help="Images, folders or tables (.csv, .parquet) to explain; none stands for a run's held-out images.",
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
    seed: options.Seed = 0,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Draw where a classifier looked, and check the picture.

    Each image gets an overlay (.png) with the verdict of its checks, and its raw heat (.npz). A network's name stands for the
    network with its own classes. Of images whose class is known, as in a folder per class or a table, there are also sheets
    of right and wrong answers for each class, and the classes' average maps.

    \b
    Examples:
      sightline explain runs/pets cat.jpg dog.jpg -o explanations
      sightline explain mobilenetv2_100 elephant.jpg --target "African elephant"
      sightline explain runs/pets cat.jpg --hide 40,10,120,80
      sightline explain runs/pets cat.jpg --channels strongest:16
      sightline explain classifier.safetensors photos/ -o explanations
    """
    from sightline import journey, store

    with console.progress() as progress:
        rows = journey.explain(
            subject,
            images or [],
            out=out,
            target=target,
            method=method,
            layer=layer,
            contrast=contrast,
            hide=hide or [],
            channels=channels,
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
    console.leave_if_all_failed(rows)


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
    for why in dict.fromkeys(f"{_word(row)}: {row['check']['why']}" for row in drawn if row["check"]):
        print(console.visible(why))
    for row in rows:
        if "error" in row:
            console.warn_of(row["path"], row["error"])


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
