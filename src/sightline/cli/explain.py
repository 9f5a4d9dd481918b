"""`sightline explain`: heatmaps and their checks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sightline.cli import console, options, tables_output
from sightline.cli.progress import progress

_METAVAR = "auto|gradcam|gradcam++|hirescam|patches|masks|..."


@console.guarded
def explain(
    subject: Annotated[str, typer.Argument(metavar="RUN|MODEL|NETWORK", help="Run folder, classifier file, or network name.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...",
            help="Images, folders or tables (.csv, .parquet). Default: the test images of a run if it was tested, else its "
            "validation images.",
        ),
    ] = None,
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for overlays (.png) and raw heatmaps (.npz).")
    ] = "explanations",
    target: Annotated[str | None, typer.Option(metavar="CLASS", help="Class to explain. Default: the predicted class.")] = None,
    method: Annotated[str, typer.Option(metavar=_METAVAR, help="Heatmap method; docs/heatmaps.md lists all.")] = "auto",
    layer: Annotated[
        str | None, typer.Option(metavar="MODULE", help="Module whose feature map is used. Default: the last one.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(metavar="MODULE,...", help="Also draw the heatmaps of these modules side by side, one sheet per image."),
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Explain the target against this class. Default: all others.")
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,WIDTH,HEIGHT", help="Cover this region (pixels of the upright image) and predict again. Repeatable."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(metavar="[strongest|first]:N", help="Also draw N channels of the layer: the strongest or the first."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="train|val|test|all",
            help="Without IMAGE: split of the run to explain. test counts as a use of the test set.",
        ),
    ] = None,
    no_checks: Annotated[
        bool, typer.Option("--no-checks", help="Skip the checks of the heatmaps: faster, no verdict.")
    ] = False,
    average_by: Annotated[
        str,
        typer.Option(
            metavar="label|predicted", help="Average heatmap of a class: over images with this label, or with this prediction."
        ),
    ] = "label",
    seed: options.Seed = 0,
    code: options.Code = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Draw heatmaps of predictions, and check them.

    Writes for each image an overlay (.png) with the verdict of its checks, and the raw heatmap (.npz). A network name stands
    for that network with its original classes. For images with a known class (a folder per class, or a table) also writes
    contact sheets of correct and wrong predictions per class (right-CLASS.png, wrong-CLASS.png) and the average heatmap of
    each class (average.png). Explaining labelled test images counts as a use of the test set, as with evaluate.

    \b
    Examples:
      sightline explain runs/pets cat.jpg dog.jpg -o explanations
      sightline explain tf_efficientnet_lite2 elephant.jpg --target "African elephant"
      sightline explain runs/pets cat.jpg --hide 40,10,120,80
      sightline explain runs/pets cat.jpg --channels strongest:16
      sightline explain resnet18 cat.jpg --layers layer2,layer3,layer4
      sightline explain classifier.safetensors photos/ -o explanations
      sightline explain runs/pets --split test --no-checks
    """
    from sightline import store
    from sightline.commands import explain as command

    with progress() as shown:
        rows = command.explain(
            subject,
            images or [],
            out=out,
            target=target,
            method=method,
            layer=layer,
            layers=[name.strip() for name in layers.split(",") if name.strip()] if layers else [],
            contrast=contrast,
            hide=hide or [],
            channels=channels,
            split=split,
            checks=not no_checks,
            average_by=options.choice("--average-by", average_by, ("label", "predicted")),
            seed=seed,
            code=code,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    if as_json:
        console.print_json(rows)
    else:
        _print(rows)
    console.exit_if_any_failed(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    """Print overlays and verdicts, and the five most probable classes of each image if there are more than two."""
    drawn = [row for row in rows if "error" not in row]
    table = [(row["path"], row["target"], f"{row['probability']:.1%}", _word(row), row["overlay"]) for row in drawn]
    tables_output.print_table(("path", "target", "probability", "check", "overlay"), table)
    for row in drawn:
        if len(row["top"]) > 2:
            print(f"{console.visible(row['path'])}: " + ", ".join(_share(t) for t in row["top"]))
        if "hidden" in row:
            print(_hidden(row))
        if "channels" in row:
            print(f"{console.visible(row['path'])}: channels of {row['channels']['layer']} in {row['channels']['sheet']}")
        if "layers" in row:
            print(f"{console.visible(row['path'])}: layers side by side in {row['layers']['sheet']}")
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
    """Return a line with the most frequent verdict, and a line for each image with another one."""
    checked = [row for row in rows if row["check"]]
    if not checked:
        return []
    verdicts = [(str(row["check"]["verdict"]), str(row["check"]["why"])) for row in checked]
    common = max(dict.fromkeys(verdicts), key=verdicts.count)
    lines = [
        f"{row['path']}: {word}: {why}" for row, (word, why) in zip(checked, verdicts, strict=True) if (word, why) != common
    ]
    if verdicts.count(common) == 1 and lines:
        return [f"{row['path']}: {word}: {why}" for row, (word, why) in zip(checked, verdicts, strict=True)]
    images = "" if len(checked) == 1 else f" ({verdicts.count(common):,} of {len(checked):,} images)"
    return [f"{common[0]}: {common[1]}{images}", *lines]


def _word(row: dict[str, Any]) -> str:
    return str(row["check"]["verdict"]) if row["check"] else "not checked"


def _share(top: dict[str, Any]) -> str:
    return f"{console.visible(top['class'])} {top['probability']:.1%}"


def _hidden(row: dict[str, Any]) -> str:
    """Return the effect of covering the regions, on one line."""
    h = row["hidden"]
    same = h["answer_before"] == h["answer_after"]
    predicted = "" if same else f"; now predicted: {console.visible(h['answer_after'])}"
    return (
        f"{console.visible(row['path'])}: {console.visible(row['target'])} {h['before']:.1%} → {h['after']:.1%} after covering "
        f"{h['share']:.1%} of the image{predicted}; see {h['picture']}"
    )
