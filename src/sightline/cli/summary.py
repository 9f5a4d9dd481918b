"""`summary`: the layers of a network, their shapes, parameters and work."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sightline.cli import console, options

_COMPARED = {
    "parameters": "parameters",
    "macs": "MACs",
    "activation_bytes": "activations",
    "features": "features",
    "layers": "layers",
}
_MIB = 1 << 20


@console.guarded
def summary(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|RECIPE|RUN|MODEL",
            help="A network's name or my_net.py:build, a recipe (.toml), a run's folder, or a classifier (.safetensors).",
        ),
    ],
    image_size: options.ImageSize = None,
    classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many classes it tells apart; 1 is one sigmoid unit.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(metavar="|".join(options.POOLS), help="With --head: its features, or all of its last map.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="UNITS:DROPOUT,...", help='A new head on the bare base: "512:0.3,128", then the classes.'),
    ] = None,
    compare: Annotated[str | None, typer.Option(metavar="OTHER", help="Another one, side by side.")] = None,
    graph: Annotated[str | None, typer.Option(metavar="FILE", help="Draw it: a file that ends in .svg or .png.")] = None,
    code: options.Code = None,
    as_json: options.Json = False,
) -> None:
    """Show what a network is made of.

    A row per layer in the order in which they run, then the sums. Of a recipe, a run or a classifier, the frozen layers
    show as frozen.

    \b
    Example:
      sightline summary resnet18 --head "512:0.3,128" --classes 3
    """
    from sightline.commands.summary import summary as take_apart

    value = take_apart(
        subject,
        image_size=image_size,
        classes=classes,
        pool=pool,
        head=head,
        compare=compare,
        graph=None if graph is None else options.output(graph),
        code=code,
    )
    if as_json:
        return console.print_json(value)
    for note in value["notes"]:
        console.warn(note)
    _print_layers(value)
    console.print_line()
    _print_sums(value)
    if value["head"] is not None:
        _print_head(value)
    if value["compare"] is not None:
        console.print_line()
        _print_comparison(value)
    if value["graph"] is not None:
        console.print_line(f"drawing            {value['graph']}")


def _print_layers(value: dict[str, Any]) -> None:
    """One row per layer; what learns is told where something is frozen."""
    header = ["layer", "type", "output", "parameters", "MACs"] + (["learns"] if value["frozen"] else [])
    rows = []
    for layer in value["layers"]:
        output = "–" if layer["output"] is None else "×".join(str(n) for n in layer["output"])
        row = [layer["name"], layer["type"], output, f"{layer['parameters']:,}", f"{layer['macs']:,}"]
        if value["frozen"]:
            row.append("" if not layer["parameters"] else "yes" if layer["trainable"] else "frozen")
        rows.append(tuple(row))
    console.print_table(tuple(header), rows)


def _print_sums(value: dict[str, Any]) -> None:
    """The block of totals."""
    parameters, statistics = value["parameters"], value["statistics"]
    seen = value["image_size"]
    lines = [("network", _called(value))]
    lines += [("parameters", f"{parameters:,}")]
    if value["frozen"]:
        lines += [("  trainable", f"{value['trainable']:,}"), ("  frozen", f"{value['frozen']:,}")]
    if value["only_in_training"]:
        lines += [("  unused", f"{value['only_in_training']:,}  (never run in evaluation, such as auxiliary classifiers)")]
    lines += [("statistics", f"{statistics:,}  (means and variances of BatchNorm)")] if statistics else []
    lines += [("in all", f"{parameters + statistics:,}  ({_size(4 * (parameters + statistics))} in float32)")]
    between = f", {value['macs_between']:,} of them between layers" if value["macs_between"] else ""
    lines += [("MACs", f"{value['macs']:,}{between}")]
    if seen is not None:
        lines += [("activations", f"{_size(value['activation_bytes'])} for one image in float32")]
    for name, text in lines:
        console.print_line(f"{name:<19}{text}")


def _called(value: dict[str, Any]) -> str:
    """The network, and what it looks at."""
    seen = value["image_size"]
    if seen is None:
        return str(value["network"])
    h, w = (seen, seen) if isinstance(seen, int) else seen
    channels = "1 channel" if value["channels"] == 1 else f"{value['channels']} channels"
    return f"{value['network']} at {h}×{w} px, {channels}"


def _print_head(value: dict[str, Any]) -> None:
    """What the head adds."""
    head = value["head"]
    console.print_line(f"{'head':<19}{head['parameters']:,}")
    if head["base"]:
        console.print_line(f"{'  on the base':<19}{head['base']:,}  ({head['over_base']:+.1%})")
    if head["published"] is not None:
        more = f"{head['more']:+,}, {head['over_published']:+.1%} with this head"
        console.print_line(f"{'  as published':<19}{head['published']:,}  ({more})")


def _print_comparison(value: dict[str, Any]) -> None:
    """Both sums side by side."""
    other, rows = value["compare"], []
    for key, name in _COMPARED.items():
        ours = len(value["layers"]) if key == "layers" else value[key]
        told = _size if key == "activation_bytes" else _whole
        difference, ratio = other["difference"][key], other["ratio"][key]
        signed = "–" if difference is None else f"{'-' if difference < 0 else '+'}{told(abs(difference))}"
        pair = ["–" if n is None else told(n) for n in (ours, other[key])]
        rows.append([name, *pair, signed, "–" if ratio is None else f"{ratio:.3g}×"])
    header = ["", value["network"], other["network"], "difference", "ratio"]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    aligned = [
        tuple(c.rjust(w) if i else c for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in [header, *rows]
    ]
    console.print_table(aligned[0], aligned[1:])


def _whole(count: int) -> str:
    return f"{count:,}"


def _size(count: int) -> str:
    """Bytes for people."""
    return f"{count / _MIB:,.1f} MiB" if count >= _MIB else f"{count / 1024:,.1f} KiB"
