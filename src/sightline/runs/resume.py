"""A run that was interrupted and goes on, and a finished one that learns on: what is asked for is compared with what was."""

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
from sightline.training import process_group

FOLDER = "checkpoint"
"""Inside a run's folder: its training as it stands; after the end what a later run may go on from."""
_REQUEST = "request.json"


def begin(folder: Path, recipe: Recipe, catalog: Catalog, *, resume: bool, continued: Run | None = None) -> Path:
    """Make a run's folder ready to be trained in.

    Args:
        folder: The run's.
        recipe: What to do.
        catalog: The usable images, split.
        resume: Whether an interrupted training of the same request goes on; else it is forgotten.
        continued: The finished run whose weights and optimizer go on.

    Returns:
        The folder of the checkpoint.

    Raises:
        RequestError: The interrupted run is of other images, classes or of another recipe; or the finished one keeps nothing
            to go on from.
    """
    kept, team = folder / FOLDER, process_group.here()
    if not team.first:
        team.wait()
        return kept
    _begin(folder, kept, recipe, catalog, resume=resume, continued=continued)
    team.wait()
    return kept


def _begin(folder: Path, kept: Path, recipe: Recipe, catalog: Catalog, *, resume: bool, continued: Run | None) -> None:
    """Make the folder ready: what `begin` says."""
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
        log.warning("nothing was kept in %s that could be resumed; training begins at the beginning", folder)
    if (kept / _REQUEST).is_file() and any(f.suffix == ".safetensors" for f in kept.rglob("*")):
        log.warning("what an interrupted training had left in %s is forgotten; --resume would have gone on with it", folder)
    if kept.is_dir():
        _checkpoint().forget(kept)
    if continued is not None:
        _hand_on(continued, catalog, kept)
    write_json(kept / _REQUEST, asked)


def begin_run(folder: Path, *, resume: bool) -> Path:
    """Where the main job's trainings are kept while it goes on: what an interrupted one left there goes on, or is forgotten.

    Whose they are needs no asking: the run's folder is named by all that its result depends on.
    """
    kept = folder / FOLDER
    if not resume:
        finish_run(kept)
    return kept


def finish_run(kept: Path) -> None:
    """Forget the main job's trainings: the run holds what came of them."""
    shutil.rmtree(kept, ignore_errors=True)


def finish(kept: Path) -> None:
    """Leave in a finished run's folder what a later run may go on from, and nothing else."""
    for file in [kept / _REQUEST, *kept.rglob("before.safetensors")]:
        file.unlink(missing_ok=True)
    for place in sorted((p for p in kept.rglob("*") if p.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            place.rmdir()
    with contextlib.suppress(OSError):  # it holds a training
        kept.rmdir()


def _checkpoint() -> Any:
    """The module that knows checkpoints; it imports torch."""
    from sightline.training import checkpoint

    return checkpoint


def _compare(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with another training.

    Raises:
        RequestError: It is one.
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
        found.append("another run that it continues")
    if old["sightline"] != new["sightline"]:
        found.append(f"another version of Sightline ({old['sightline']}, now {new['sightline']})")
    if found:
        raise RequestError(
            f"the interrupted run in {folder} has {' and '.join(found)}",
            "resume it with what it was begun with, or leave out --resume to begin anew",
        )


def _hand_on(run: Run, catalog: Catalog, kept: Path) -> None:
    """Give a new run what an earlier one ended with.

    Raises:
        RequestError: The earlier one has other classes, or keeps nothing.
    """
    classes = tuple(run.data.get("classes", ()))
    if classes != catalog.classes:
        raise RequestError(
            f"{run.folder} knows the classes {', '.join(classes[:8])}, the catalog has {', '.join(catalog.classes[:8])}",
            'to learn other classes from there, take method = "warmstart"',
        )
    if not _checkpoint().hand_on(run.folder / FOLDER, kept):
        raise RequestError(
            f"{run.folder} keeps no training that could go on (method {run.data.get('method')})",
            "only what `sightline train` trained by epochs goes on",
        )
