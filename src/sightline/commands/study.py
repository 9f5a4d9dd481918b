"""Study folders, shared by `sweep` and `tune`: identity, resumed fits, `study.json` and the report."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import __version__, report, studies
from sightline.commands.train import train
from sightline.errors import ModelFileError, RequestError, SightlineError
from sightline.files import read_text
from sightline.inputs import read_predictions
from sightline.records import Catalog, Progress, SearchRecord, SweepRecord, read_study
from sightline.runs import folder as folders
from sightline.runs import resume
from sightline.runs.plan import photos_name
from sightline.store import Cache, digest, now, plain, write_json
from sightline.training.methods import METHODS


@dataclass(frozen=True, slots=True)
class Study:
    """Finished study: several fits and their comparison.

    Args:
        folder: The study folder.
        data: Content of `study.json`.
    """

    folder: Path
    data: Mapping[str, Any]

    @property
    def best_recipe(self) -> Path:
        """Path of the best recipe (TOML)."""
        return self.folder / "best.toml"


def fingerprint(catalog: Catalog) -> str:
    """Return the fingerprint of train and val, on which the result of a study depends."""
    return catalog.rows(s in ("train", "val") for s in catalog.column("split")).fingerprint()


def claim_folder(out: str | Path | None, kind: str, catalog: Catalog, request: Mapping[str, Any]) -> Path:
    """Lock and return the folder of a study, new or of the same study.

    Args:
        out: The folder; one below `runs` if None.
        kind: `sweep` or `tune`.
        catalog: Catalog with splits.
        request: What identifies the study.

    Raises:
        RequestError: If the folder holds something else.
    """
    identity = digest([kind, request])
    folder = Path(out) if out is not None else Path("runs") / f"{photos_name(str(catalog.root))}-{kind}-{identity[:8]}"
    folders.lock(folder)
    file = folder / "plan.json"
    if file.is_file():
        try:
            before = json.loads(read_text(file))
        except ValueError as error:
            raise ModelFileError(f"{file} is damaged ({error})", "name another folder with -o") from error
        if before.get("id") != identity:
            raise RequestError(f"{folder} holds {_difference(before, kind, request)}", "name another folder with -o")
        return folder
    if (folder / "run.json").is_file():
        raise RequestError(f"{folder} holds a run", "name another folder with -o")
    write_json(file, {"kind": kind, "id": identity, **plain(request)})
    return folder


def _difference(before: Mapping[str, Any], kind: str, request: Mapping[str, Any]) -> str:
    """Return how the study in a folder differs from the requested one."""
    if before.get("kind") != kind:
        return f"a study of another kind ({before.get('kind')})"
    others = {"data": "of other images or splits", "recipe": "of another recipe", "version": "by another version"}
    for key, difference in others.items():
        if before.get(key) != plain(request[key]):
            return f"a study {difference}"
    return "a study with another --max-parameters"


def load_finished(folder: Path, identity: str, files: Sequence[Path]) -> Study | None:
    """Return the study in a folder if it is complete and has this identity, else None. A missing report is written again."""
    try:
        data = json.loads(read_text(folder / "study.json"))
    except (OSError, ValueError):
        return None
    if data.get("id") != identity or not all(f.is_file() for f in files):
        return None
    if not (folder / "report.html").is_file():
        report.write_study(read_study(data), folder / "report.html")
    return Study(folder, data)


def run_fit(fit: studies.Fit, catalog: Catalog, folder: Path, device: str, progress: Progress, cache: Cache) -> studies.Outcome:
    """Train one fit as a run below the study folder. A failure that the user can understand is returned as an outcome."""
    out = folder / fit.name
    interrupted = (out / resume.FOLDER).is_dir()
    try:
        run = train(catalog, fit.recipe, out, resume=interrupted, device=device, progress=progress, cache=cache)
    except RequestError:
        raise
    except SightlineError as error:
        return studies.Outcome(None, why=error.message)
    candidate = run.data["ladder"][0]
    network = run.record.network
    width = None if network is None else network.features
    cached = METHODS[fit.recipe.method].fits_heads and width is not None
    images = sum(split in ("train", "val") for split in catalog.usable().column("split"))
    return studies.Outcome(
        val=read_predictions(run.held_out_file),
        feature_width=width,
        feature_bytes=images * width * np.dtype(np.float32).itemsize if cached and width is not None else None,
        seconds=float(candidate["seconds"]),
        parameters=int(candidate["parameters"]),
        estimate=str(run.data["val_estimate"]),
    )


def finish(folder: Path, results: SweepRecord | SearchRecord, identity: str, *, catalog: Catalog, started: float) -> Study:
    """Write `study.json` and the report."""
    record = dataclasses.replace(
        results,
        sightline=__version__,
        name=folder.name,
        created=now(),
        id=identity,
        photos=str(catalog.root),
        seconds=time.perf_counter() - started,
    )
    data = plain(record.to_json())
    write_json(folder / "study.json", data)
    report.write_study(record, folder / "report.html")
    return Study(folder, data)
