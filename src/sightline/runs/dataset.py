"""Data set of a run: scan photographs, find duplicates, split, and reuse the splits of earlier runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline.catalog import Duplicates
from sightline.errors import DataError, RequestError, SightlineError
from sightline.files import read_text
from sightline.inputs import read_recipe
from sightline.records import Catalog, Progress, Recipe, silent
from sightline.runs import executor
from sightline.runs.plan import Request
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images of a run.

    Args:
        catalog: All rows, unusable images included.
        twins: Exact and near duplicates.
        given: Whether the splits were given by folders or a column.
        moves: Number of usable images by split before ("none" for no split) and split now.
        leaks: (test path, train path) of images that are in both splits.
        cluster: int64 (n,), one number per cluster of duplicates and groups.
    """

    catalog: Catalog
    twins: Duplicates
    given: bool
    moves: dict[str, dict[str, int]]
    leaks: tuple[tuple[str, str], ...]
    cluster: np.ndarray


def load_dataset(request: Request, cache: Cache, progress: Progress) -> Dataset:
    """Scan the photographs, find duplicates and split.

    Raises:
        RequestError: If the photographs do not exist, or an option does not fit them.
        DataError: If no image is usable.
    """
    found = open_photos(
        request.photos,
        classes=request.classes,
        limit=request.limit,
        label_from=request.label_from,
        label_level=request.label_level,
        path_column=request.path_column,
        label_column=request.label_column,
        follow_links=request.follow_links,
        allow_truncated=request.allow_truncated,
        seed=request.seed,
        progress=progress,
    )
    before = found.column("split")
    twins = catalogs.find_duplicates(found, cache=cache, progress=progress)
    divided = catalogs.split(
        found,
        val=request.val,
        test=request.test,
        seed=request.seed,
        group_by=request.group_by,
        previous=earlier_splits(request, found.root),
        clusters=twins,
        progress=progress,
    )
    leaks = tuple(catalogs.leaks(divided, twins))
    counts = Counter(zip((b or "none" for b in before), divided.column("split"), strict=True))
    moves = {old: {new: n for (o, new), n in counts.items() if o == old and new is not None} for old, _ in counts}
    return Dataset(divided, twins, any(before), moves, leaks, catalogs.together(divided, twins))


def open_catalog(source: Any, progress: Progress = silent) -> Catalog:
    """Return a catalog as it is, load one that `scan` wrote, or scan any other source. Notes are logged as warnings.

    Args:
        source: Catalog, the path of one, anything else that `scan` takes as a path, or a data set.
        progress: Progress callback.

    Raises:
        RequestError: If `source` does not exist, or is of another type.
        DataError: As in `catalog.scan`.
    """
    if isinstance(source, Catalog):
        return source
    if not isinstance(source, str | Path) and not catalogs.is_dataset(source):
        hint = "pass what `sightline.scan` returns, the path of a catalog, or a folder of photographs"
        raise RequestError(f"a catalog cannot be of type {type(source).__name__}", hint)
    is_catalog = isinstance(source, str | Path) and catalogs.is_catalog(Path(source))
    catalog = catalogs.load(Path(source)) if is_catalog else executor.current().scan(source, progress=progress)
    catalogs.warn(catalog.notes)
    return catalog


def as_recipe(recipe: Recipe | str | Path | None) -> Recipe:
    """Return a recipe as it is, the one in a TOML file, or the default one for None.

    Raises:
        RequestError: If the file is missing or not a recipe, or `recipe` is of another type.
    """
    if recipe is None or isinstance(recipe, Recipe):
        return recipe or Recipe()
    if not isinstance(recipe, str | Path):
        hint = 'pass sightline.Recipe(method="features", ...), or the path of a .toml file'
        raise RequestError(f"a recipe cannot be of type {type(recipe).__name__}", hint)
    return read_recipe(Path(recipe))


def with_splits(catalog: Catalog, seed: int, cache: Cache, progress: Progress) -> tuple[Catalog, Duplicates]:
    """Return the catalog with splits, assigned now if it has none, and its duplicates."""
    duplicates = catalogs.find_duplicates(catalog, cache=cache, progress=progress)
    if any(catalog.column("split")):
        return catalogs.with_duplicates(catalog, duplicates), duplicates
    return catalogs.split(catalog, seed=seed, clusters=duplicates, progress=progress), duplicates


def open_photos(photos: str, *, progress: Progress, **options: Any) -> Catalog:
    """Scan a folder or read a table, and check that some images are usable."""
    found = executor.current().scan(photos, progress=progress, **options)
    check_usable(found, photos)
    return found


def check_usable(found: Catalog, name: str, kind: str = "") -> None:
    """Check that a catalog has a usable image with a class.

    Args:
        found: The catalog.
        name: Its name in messages.
        kind: Kind of its images in messages, such as "test ".

    Raises:
        DataError: If there is none; the message counts the problems of the files.
    """
    rows = list(zip(found.paths, found.column("label"), found.column("problem"), strict=True))
    if any(problem is None and label is not None for _, label, problem in rows):
        return
    wrong = [(path, problem) for path, label, problem in rows if label is not None and problem is not None]
    if not wrong:
        hint = "choose another --split, or all" if kind else "put the images of each class into a folder of its own"
        hint += "" if kind else "; if the class is part of the file name, use --label-from"
        raise DataError(f"{name} has no usable {kind}image with a class", hint)
    kinds = Counter(problem.partition(":")[0].strip() for _, problem in wrong)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    first = f"the first {wrong[0][0]} ({wrong[0][1]})"
    raise DataError(
        f"none of the {len(wrong):,} labelled {kind}images of {name} can be used: {told}, {first}", _mend(wrong, found.root)
    )


def _mend(wrong: list[tuple[str, str]], root: Path) -> str:
    """Return the hint for the most frequent problem of unusable images."""
    kind = Counter(problem.partition(":")[0].strip() for _, problem in wrong).most_common(1)[0][0]
    if kind == "link":
        return catalogs.LINK_HINT
    if kind == "decoder missing":
        return 'pip install "sightline[heic]"'
    if kind != "missing":
        return "`sightline scan` lists the problem of each image"
    bare = not any(Path(path).suffix for path, problem in wrong if problem.startswith("missing"))
    extension = "; the names have no extension: if the files have one, such as .jpg, write it in the table" if bare else ""
    return f"paths are relative to {root}{extension}"


def taking_part(catalog: Catalog) -> tuple[Catalog, int]:
    """Return the usable, labelled images outside the test split, and the number of test images.

    Raises:
        DataError: If there are fewer than two classes.
    """
    labels, problems, splits = (catalog.column(n) for n in ("label", "problem", "split"))
    divided = any(splits)
    usable = [label is not None and problem is None for label, problem in zip(labels, problems, strict=True)]
    closed = sum(ok and s == "test" for ok, s in zip(usable, splits, strict=True))
    kept = catalog.rows(ok and (not divided or s in ("train", "val")) for ok, s in zip(usable, splits, strict=True))
    if len(kept.classes) < 2:
        found = f"only usable images of {kept.classes[0]}" if kept.classes else "no usable images with a label"
        raise DataError(
            f"{catalog.root} has {found} outside the test split",
            "a classifier needs at least two classes; `sightline scan` lists unusable images",
        )
    return kept, closed


def earlier_splits(request: Request, root: Path) -> Catalog | None:
    """Return the catalog of the newest finished run of the same photographs and split settings; None if there is none."""
    best: tuple[str, Path] | None = None
    for file, data in finished(Path(request.out)):
        split = data.get("split") or {}
        same = (split.get("val"), split.get("test"), split.get("seed"), split.get("group_by")) == (
            request.val,
            request.test,
            request.seed,
            request.group_by,
        )
        if data.get("kind") == "run" and data.get("root") == root.as_posix() and same and not split.get("given"):
            best = max(best or ("", file), (str(data.get("created")), file))
    if best is None:
        return None
    try:
        return catalogs.load(best[1].parent / "catalog.csv", root=root)
    except (SightlineError, OSError):
        return None


def finished(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (file, content) of every readable run.json below a folder of runs."""
    for file in sorted(out.glob("*/run.json")):
        try:
            data = json.loads(read_text(file))
        except (OSError, ValueError):
            continue
        if isinstance(data, dict):
            yield file, data
