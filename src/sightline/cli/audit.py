"""`sightline audit`: what is wrong with a set of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli import console, options, tables_output
from sightline.cli.progress import progress

if TYPE_CHECKING:
    from sightline.records.audit import AuditRecord

MOST_PRINTED = 10


@console.guarded
def audit(
    photos: Annotated[str, typer.Argument(metavar="PHOTOS|CATALOG", help="Folder of photographs, or a table from scan.")],
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for page and tables.")] = None,
    include_test: Annotated[
        bool, typer.Option("--include-test", help="Judge the labels of test images too; recorded in the test-set log.")
    ] = False,
    against: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Another set: list the images that it shares with this one.")
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="quarantine|dedupe|relabel=FILE", help="Write a corrected catalog. No photograph is changed."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME|none", help="Network whose features are compared. Default: the first available.")
    ] = None,
    label_from: options.LabelFrom = None,
    label_column: options.LabelColumn = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Find duplicates, label errors, outliers and shortcuts.

    Also tells which classes the pretraining already knows. Writes a page with the findings as pictures, audit.json, and
    label_suspects.csv, in which all images are ranked. Test labels are judged only with --include-test.

    \b
    Examples:
      sightline audit "my photos" -o runs/audit
      sightline audit catalog.csv --fix quarantine --fix dedupe -o runs/audit
      sightline audit "my photos" --against "other photos"
    """
    from sightline import store
    from sightline.commands import audit as command

    with progress() as shown:
        done = command.audit(
            options.path(photos),
            out=None if out is None else options.path(out),
            include_test=include_test,
            against=None if against is None else options.path(against),
            fix=options.items(fix),
            backbone=backbone,
            label_from=label_from,
            label_column=label_column,
            device=device,
            progress=shown,
            cache=store.Cache(),
        )
    if as_json:
        return console.print_json(
            {**done.record.to_json(), "folder": str(done.folder), "page": str(done.folder / "audit.html")}
        )
    _print_audit(done.record)
    console.print_line(f"page  {done.folder / 'audit.html'}")


def _print_audit(found: AuditRecord) -> None:
    """Print the number of findings of each kind, and the first ones by name."""
    from sightline.runs import notes

    likely = found.likely
    rows = [
        ("images", found.images),
        ("unusable or odd images", len(found.problems)),
        ("sets of identical files", len(found.exact_duplicates)),
        ("sets of the same picture", len(found.near_duplicates)),
        ("sets of one scene", len(found.same_scene)),
        ("sets in more than one split", len(found.leaks)),
        ("sets with conflicting labels", len(found.conflicts)),
        ("likely label errors", len(likely)),
        ("outliers", len(found.outliers)),
    ]
    tables_output.print_table(("finding", "number"), [(name, f"{count:,}") for name, count in rows])
    for suspect in likely[:MOST_PRINTED]:
        console.print_line(
            f"label  {suspect.path}: {suspect.label}, similar images are {suspect.suggested} ({suspect.score:.2f})"
        )
    for problem in found.problems[:MOST_PRINTED]:
        console.print_line(f"problem  {problem.path}: {problem.problem}")
    for line in notes.of_shortcut(found.shortcut):
        console.print_line(line if line.startswith("ALARM") else f"note: {line}")
    if found.pretraining is not None:
        console.print_line(found.pretraining.sentence)
    for suggestion in found.groups:
        console.print_line(suggestion.sentence)
    for shared in found.shared[:MOST_PRINTED]:
        console.print_line(f"shared  {shared.path} is {shared.other} ({shared.kind})")
    if len(found.shared) > MOST_PRINTED:
        console.print_line(f"shared  and {len(found.shared) - MOST_PRINTED:,} more")
    for note in found.notes:
        console.print_line(f"note: {note}")
    if found.fixed is not None:
        console.print_line(f"{found.changes:,} changes: {found.fixed} and {Path(found.fixed).with_name('changes.csv')}")
