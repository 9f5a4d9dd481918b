"""`sightline card`: check a classifier file and describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli import console, options

if TYPE_CHECKING:
    from sightline.records.export import ExportRecord
    from sightline.records.model_card import ModelCard


@console.guarded
def card(
    model: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="Run folder, classifier file (.safetensors), or exported file.")
    ],
    folder: Annotated[str | None, typer.Argument(metavar="[FOLDER]", help="With --to: folder to write.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="huggingface", help="Write a model repository, as `sightline export` does.")
    ] = None,
    code: options.Code = None,
    as_json: options.Json = False,
) -> None:
    """Check a classifier file and print its model card.

    The card tells classes, training images, network, licence, scores and cautions. Exported files have cards too.

    \b
    Examples:
      sightline card runs/pets
      sightline card runs/pets --to huggingface pets-model
    """
    if to is not None:
        from sightline.cli.export import export

        return export(model, folder, to=to, code=code, as_json=as_json)
    from sightline import store
    from sightline.commands import card as command
    from sightline.records.model_card import ModelCard

    found = command.card(options.path(model), code=code)
    if as_json:
        return console.print_json(store.plain(found))
    return _print_card(found) if isinstance(found, ModelCard) else _print_export(found)


def _print_card(card: ModelCard) -> None:
    """Print the card of a classifier."""
    size = f"{card.input_px[0]}×{card.input_px[1]} px"
    classes = ", ".join(card.classes[:12]) + (f" and {len(card.classes) - 12:,} more" if len(card.classes) > 12 else "")
    total = {
        split: sum(counts.get(split, 0) for counts in card.images_per_class.values()) for split in ("train", "val", "test")
    }
    rows = [
        ("file", f"{card.file} ({card.bytes / 1e6:,.1f} MB, valid)"),
        ("classes", f"{len(card.classes):,}: {classes}"),
        ("images", ", ".join(f"{count:,} {split}" for split, count in total.items() if count) or "unknown"),
        ("method", card.method),
        ("network", f"{card.backbone}, {card.parameters:,} parameters, input {size}" if card.parameters else card.backbone),
        ("head", card.head),
        *(
            ("licence", f"{licence} ({name}; pretrained on {card.pretrained_on[name]})")
            for name, licence in card.licences.items()
        ),
        *(("accuracy", _score(score.accuracy, score.low, score.high, score.images, score.split)) for score in card.scores),
        ("calibration", f"temperature {card.temperature:.3g}"),
        ("threshold", "0.5" if card.threshold is None else f"{card.threshold:.3g} for {card.positive}"),
        ("prediction sets", f"calibrated on {card.prediction_sets:,} images" if card.prediction_sets else "none"),
        ("trained with", ", ".join(f"{name} {version}" for name, version in card.software.items())),
        *(("caution", caution) for caution in card.cautions),
    ]
    for name, text in rows:
        console.print_line(f"{name:<17}{text}")


def _score(accuracy: float, low: float | None, high: float | None, images: int, split: str) -> str:
    """Return an accuracy with its interval."""
    interval = "" if low is None or high is None else f" (95 % CI {low:.1%} to {high:.1%})"
    return f"{accuracy:.1%}{interval} on {images:,} images, {split}"


def _print_export(record: ExportRecord) -> None:
    """Print the record of an exported file."""
    agreed = record.agreement
    rows = [
        ("file", f"{record.file} ({record.bytes / 1e6:,.1f} MB, {record.format}, {record.precision}, valid)"),
        ("classes", ", ".join(record.facts.get("classes", ()))),
        ("licence", ", ".join(record.facts.get("licence", ())) or "none"),
        ("same class", f"{agreed.same_class:,} of {agreed.images:,} photographs"),
        ("difference", "not measured" if agreed.max_difference is None else f"at most {agreed.max_difference:.2g}"),
        *(("changed", f"{change.path}: {change.exported} instead of {change.predicted}") for change in agreed.changed),
    ]
    for name, text in rows:
        console.print_line(f"{name:<17}{text}")
