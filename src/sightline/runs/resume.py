"""Resume interrupted runs and continue finished ones, after comparing the request with the earlier one."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from sightline import __version__
from sightline.errors import RequestError
from sightline.files import read_text
from sightline.records import Catalog, Recipe, Run
from sightline.store import log, plain, write_json
from sightline.training import precision, process_group

FOLDER = "checkpoint"
"""Subfolder with the checkpoints of a training; after its end, the state from which a later run can continue."""
_REQUEST = "request.json"


def begin(folder: Path, recipe: Recipe, catalog: Catalog, *, resume: bool, continued: Run | None = None) -> Path:
    """Prepare a run folder for training.

    Args:
        folder: The run folder.
        recipe: The recipe.
        catalog: The usable images with splits.
        resume: Whether to resume an interrupted training of the same request; otherwise its checkpoints are deleted.
        continued: Finished run whose weights and optimizer state are the starting point.

    Returns:
        The folder of the checkpoints.

    Raises:
        RequestError: If the interrupted run has other images, classes or another recipe, or the finished run has no
            checkpoint.
    """
    kept, team = folder / FOLDER, process_group.here()
    if not team.first:
        team.wait()
        return kept
    _begin(folder, kept, recipe, catalog, resume=resume, continued=continued)
    team.wait()
    return kept


def _begin(folder: Path, kept: Path, recipe: Recipe, catalog: Catalog, *, resume: bool, continued: Run | None) -> None:
    """Prepare the folder in the first process."""
    asked = {
        "recipe": plain(recipe),
        "classes": list(catalog.classes),
        "images": catalog.fingerprint(),
        "continued": None if continued is None else continued.data.get("id"),
        "sightline": __version__,
    }
    if resume and (kept / _REQUEST).is_file():
        _compare(json.loads(read_text(kept / _REQUEST)), asked, folder)
        return
    if resume:
        log.warning("%s has no interrupted training to resume; training starts from the beginning", folder)
    if (kept / _REQUEST).is_file() and any(f.suffix == ".safetensors" for f in kept.rglob("*")):
        log.warning(
            "the checkpoints of an interrupted training in %s were deleted; use --resume to continue such a training", folder
        )
    if kept.is_dir():
        _checkpoint().forget(kept)
    if continued is not None:
        _hand_on(continued, catalog, kept)
    write_json(kept / _REQUEST, asked)


def begin_run(folder: Path, *, resume: bool) -> Path:
    """Return the folder for the checkpoints of a run; delete earlier ones unless `resume`.

    The name of the run folder identifies the request, so nothing has to be compared.
    """
    kept = folder / FOLDER
    if not resume:
        finish_run(kept)
    return kept


def finish_run(kept: Path) -> None:
    """Delete the checkpoints of a finished run."""
    shutil.rmtree(kept, ignore_errors=True)


def finish(kept: Path) -> None:
    """Delete all checkpoints of a finished training except the state from which a later run can continue."""
    for file in [kept / _REQUEST, *kept.rglob("before.safetensors"), *kept.rglob(precision.FILE)]:
        file.unlink(missing_ok=True)
    for place in sorted((p for p in kept.rglob("*") if p.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            place.rmdir()
    with contextlib.suppress(OSError):  # it holds a training
        kept.rmdir()


def _checkpoint() -> Any:
    """Import the checkpoint module, which imports torch."""
    from sightline.training import checkpoint

    return checkpoint


def _compare(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Compare an interrupted request with the new one.

    Raises:
        RequestError: If they differ.
    """
    found = []
    if old["classes"] != new["classes"]:
        gone, come = (sorted(set(a) - set(b)) for a, b in ((old["classes"], new["classes"]), (new["classes"], old["classes"])))
        told = [f"{word} {', '.join(names[:5])}" for word, names in (("without", gone), ("with", come)) if names]
        found.append(f"other classes ({'; '.join(told) or 'in another order'})")
    elif old["images"] != new["images"]:
        found.append("other images, or another split")
    recipes = _checkpoint().differences(old["recipe"], new["recipe"])
    if recipes:
        found.append(f"another recipe ({'; '.join(recipes[:6])})")
    if old["continued"] != new["continued"]:
        found.append("another run to continue from")
    if old["sightline"] != new["sightline"]:
        found.append(f"another version of Sightline ({old['sightline']}, now {new['sightline']})")
    if found:
        raise RequestError(
            f"the interrupted run in {folder} has {' and '.join(found)}",
            "resume it with the same arguments, or leave out --resume to start again",
        )


def _hand_on(run: Run, catalog: Catalog, kept: Path) -> None:
    """Copy the final state of an earlier run into a new one.

    Raises:
        RequestError: If the earlier run has other classes, or no checkpoint.
    """
    classes = tuple(run.data.get("classes", ()))
    if classes != catalog.classes:
        raise RequestError(
            f"{run.folder} has the classes {', '.join(classes[:8])}, but the catalog has {', '.join(catalog.classes[:8])}",
            'to train other classes from its weights, use method = "warmstart"',
        )
    if not _checkpoint().hand_on(run.folder / FOLDER, kept):
        raise RequestError(
            f"{run.folder} has no checkpoint to continue from (method {run.data.get('method')})",
            "only runs that `sightline train` trained by epochs can be continued",
        )
