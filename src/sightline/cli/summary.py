"""`sightline summary`: layers, shapes, parameters and multiply-accumulates of a network."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from sightline.cli import console, options, tables_output

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
            help="Network name, my_net.py:build, recipe (.toml), run folder, or classifier file (.safetensors).",
        ),
    ],
    image_size: options.ImageSize = None,
    classes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of classes; 1 means one sigmoid unit.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(options.POOLS), help="With --head: input of the head, pooled features or flattened feature map."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="UNITS:DROPOUT,...", help='Replace the classifier by this head: "512:0.3,128", followed by the classes.'
        ),
    ] = None,
    compare: Annotated[str | None, typer.Option(metavar="OTHER", help="Second network, shown side by side.")] = None,
    graph: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the network graph to this .svg or .png file.")] = None,
    short: Annotated[bool, typer.Option("--short", help="One row per block instead of one per layer.")] = False,
    code: options.Code = None,
    as_json: options.Json = False,
) -> None:
    """Show the layers of a network with shapes and parameters.

    Prints one row per layer in execution order, then the totals. For a recipe, a run or a classifier, frozen layers are
    marked.

    \b
    Examples:
      sightline summary resnet18 --head "512:0.3,128" --classes 3
      sightline summary resnet50 --short
    """
    from sightline.commands import summary as command

    value = command.summary(
        subject,
        image_size=image_size,
        classes=classes,
        pool=pool,
        head=head,
        compare=compare,
        graph=None if graph is None else options.path(graph),
        code=code,
    )
    if as_json:
        return console.print_json(value)
    for note in value["notes"]:
        console.warn(note)
    _print_layers({**value, "layers": blocks_of(value["layers"])} if short else value)
    console.print_line()
    _print_sums(value)
    if value["head"] is not None:
        _print_head(value)
    if value["compare"] is not None:
        console.print_line()
        _print_comparison(value)
    if value["graph"] is not None:
        console.print_line(f"drawing            {value['graph']}")


def blocks_of(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per block: consecutive layers with the same first part of the name, and the same number after it.

    Args:
        layers: Rows of `sl.summary`.

    Returns:
        Rows with the same keys; parameters and MACs are sums, the output is that of the last layer that has one.

    Example:
        >>> conv = {"output": (8, 4, 4), "parameters": 10, "macs": 100, "trainable": True}
        >>> rows = [{"name": f"layer1.0.conv{i}", "type": "Conv2d", **conv} for i in (1, 2)]
        >>> blocks_of(rows)[0]["name"], blocks_of(rows)[0]["type"], blocks_of(rows)[0]["parameters"]
        ('layer1.0', '2 layers', 20)
    """
    blocks = []
    for name, group in itertools.groupby(layers, key=lambda layer: _block_name(layer["name"])):
        rows = list(group)
        if len(rows) == 1:
            blocks.append(dict(rows[0]))
            continue
        blocks.append(
            {
                "name": name,
                "type": f"{len(rows)} layers",
                "output": next((row["output"] for row in reversed(rows) if row["output"] is not None), None),
                "parameters": sum(row["parameters"] for row in rows),
                "macs": sum(row["macs"] for row in rows),
                "trainable": any(row["trainable"] for row in rows),
            }
        )
    return blocks


def _block_name(layer: str) -> str:
    """Return the first part of a layer's name, and the part after it if that is a number.

    Example:
        >>> _block_name("blocks.5.1.conv_pw"), _block_name("block11.rep.1"), _block_name("fc")
        ('blocks.5', 'block11', 'fc')
    """
    first, _, rest = layer.partition(".")
    second = rest.partition(".")[0]
    return f"{first}.{second}" if second.isdigit() else first


def _print_layers(value: dict[str, Any]) -> None:
    """Print one row per layer, with a column of trainable layers if some are frozen."""
    header = ["layer", "type", "output", "parameters", "MACs"] + (["trainable"] if value["frozen"] else [])
    rows = []
    for layer in value["layers"]:
        output = "–" if layer["output"] is None else "×".join(str(n) for n in layer["output"])
        row = [layer["name"], layer["type"], output, f"{layer['parameters']:,}", f"{layer['macs']:,}"]
        if value["frozen"]:
            row.append("" if not layer["parameters"] else "yes" if layer["trainable"] else "frozen")
        rows.append(tuple(row))
    tables_output.print_table(tuple(header), rows)


def _print_sums(value: dict[str, Any]) -> None:
    """Print the totals."""
    parameters, statistics = value["parameters"], value["statistics"]
    lines = [("network", _title(value)), ("parameters", f"{parameters:,}")]
    if value["frozen"]:
        lines += [("  trainable", f"{value['trainable']:,}"), ("  frozen", f"{value['frozen']:,}")]
    if value["only_in_training"]:
        lines += [("  unused", f"{value['only_in_training']:,}  (only used in training, such as auxiliary classifiers)")]
    lines += [("statistics", f"{statistics:,}  (BatchNorm means and variances)")] if statistics else []
    lines += [("total", f"{parameters + statistics:,}  ({_size(4 * (parameters + statistics))} in float32)")]
    between = f", {value['macs_between']:,} of them outside layers" if value["macs_between"] else ""
    lines += [("MACs", f"{value['macs']:,}{between}")]
    if value["image_size"] is not None:
        lines += [("activations", f"{_size(value['activation_bytes'])} for one image in float32")]
    for name, text in lines:
        console.print_line(f"{name:<19}{text}")


def _title(value: dict[str, Any]) -> str:
    """Return the network with its input size and channels."""
    size = value["image_size"]
    if size is None:
        return str(value["network"])
    h, w = (size, size) if isinstance(size, int) else size
    channels = "1 channel" if value["channels"] == 1 else f"{value['channels']} channels"
    return f"{value['network']} at {h}×{w} px, {channels}"


def _print_head(value: dict[str, Any]) -> None:
    """Print the parameters added by the head."""
    head = value["head"]
    console.print_line(f"{'head':<19}{head['parameters']:,}")
    if head["base"]:
        console.print_line(f"{'  on the backbone':<19}{head['base']:,}  ({head['over_base']:+.1%})")
    if head["published"] is not None:
        more = f"{head['more']:+,}, {head['over_published']:+.1%} with this head"
        console.print_line(f"{'  as published':<19}{head['published']:,}  ({more})")


def _print_comparison(value: dict[str, Any]) -> None:
    """Print the totals of both networks side by side."""
    other, rows = value["compare"], []
    for key, name in _COMPARED.items():
        ours = len(value["layers"]) if key == "layers" else value[key]
        text = _size if key == "activation_bytes" else "{:,}".format
        difference, ratio = other["difference"][key], other["ratio"][key]
        signed = "–" if difference is None else f"{'-' if difference < 0 else '+'}{text(abs(difference))}"
        pair = ["–" if n is None else text(n) for n in (ours, other[key])]
        rows.append([name, *pair, signed, "–" if ratio is None else f"{ratio:.3g}×"])
    header = ("", value["network"], other["network"], "difference", "ratio")
    tables_output.print_table(header, rows, right=header[1:])


def _size(count: int) -> str:
    """Return a number of bytes in MiB or KiB."""
    return f"{count / _MIB:,.1f} MiB" if count >= _MIB else f"{count / 1024:,.1f} KiB"
