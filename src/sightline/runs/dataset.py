"""From what the user named to a catalog with splits: scan, duplicates, split, and the splits that earlier runs gave."""

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
from sightline.runs.plan import Request
from sightline.store import Cache


@dataclass(frozen=True, slots=True)
class Dataset:
    """The images of a run.

    Args:
        catalog: All rows, those with a problem included.
        twins: Exact and near duplicates of them.
        given: Whether the splits were there before (folders or a column).
        moves: How many usable images went from the split that they had before, "none" where they had none, to the one that
            they have now.
        leaks: (test path, train path) of images that are in both.
        cluster: int64 (n,): rows of one number are duplicates or of one group.
    """

    catalog: Catalog
    twins: Duplicates
    given: bool
    moves: dict[str, dict[str, int]]
    leaks: tuple[tuple[str, str], ...]
    cluster: np.ndarray


def load_dataset(request: Request, cache: Cache, progress: Progress) -> Dataset:
    """Scan, find duplicates, split.

    Raises:
        RequestError: The photographs do not exist, or an option does not fit them.
        DataError: Fewer than two classes have usable images.
    """
    found = open_photos(
        request.photos,
        classes=request.classes,
        limit=request.limit,
        label_from=request.label_from,
        path_column=request.path_column,
        label_column=request.label_column,
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


def open_catalog(source: Catalog | str | Path, progress: Progress = silent) -> Catalog:
    """Return a catalog as it is, load one from a table, or scan a folder. Its notes are logged as warnings when it is opened.

    Raises:
        RequestError: If `source` does not exist, or is of another type.
    """
    if isinstance(source, Catalog):
        return source
    if not isinstance(source, str | Path):
        hint = "pass what `sightline.scan` returns, the path of a catalog, or a folder of photographs"
        raise RequestError(f"a catalog cannot be of type {type(source).__name__}", hint)
    path = Path(source)
    catalog = catalogs.scan(path, progress=progress) if path.is_dir() else catalogs.load(path)
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
    """Scan a folder or read a table, and refuse what no classifier can be made of."""
    found = catalogs.scan(photos, progress=progress, **options)
    check_usable(found, photos)
    return found


def check_usable(found: Catalog, name: str, kind: str = "") -> None:
    """Refuse a set without a usable image that has a class, with what is wrong with its files.

    Args:
        found: The images.
        name: Of the set, for people.
        kind: What it holds of that, such as "test ".

    Raises:
        DataError: It is one.
    """
    rows = list(zip(found.paths, found.column("label"), found.column("problem"), strict=True))
    if any(problem is None and label is not None for _, label, problem in rows):
        return
    wrong = [(path, problem) for path, label, problem in rows if label is not None and problem is not None]
    if not wrong:
        hint = "name another --split, or all" if kind else "a folder per class is expected"
        hint += "" if kind else "; for class names in file names use --label-from"
        raise DataError(f"{name} holds no usable {kind}image with a class", hint)
    kinds = Counter(problem.partition(":")[0].strip() for _, problem in wrong)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    first = f"the first {wrong[0][0]} ({wrong[0][1]})"
    raise DataError(
        f"none of the {len(wrong):,} labelled {kind}images of {name} can be used: {told}, {first}", _mend(wrong, found.root)
    )


def _mend(wrong: list[tuple[str, str]], root: Path) -> str:
    """Return what helps where no image can be used: the hint for the most frequent problem."""
    kind = Counter(problem.partition(":")[0].strip() for _, problem in wrong).most_common(1)[0][0]
    if kind == "link":
        return catalogs.LINK_HINT
    if kind != "missing":
        return "`sightline scan` names each with its problem"
    bare = not any(Path(path).suffix for path, problem in wrong if problem.startswith("missing"))
    extension = "; the names have no extension: if the files have one, such as .jpg, write it in the table" if bare else ""
    return f"paths are looked for below {root}{extension}"


def taking_part(catalog: Catalog) -> tuple[Catalog, int]:
    """The usable, labelled images outside the test split, and how many are in it.

    Raises:
        DataError: There are none, or of one class only.
    """
    labels, problems, splits = (catalog.column(n) for n in ("label", "problem", "split"))
    divided = any(splits)
    usable = [label is not None and problem is None for label, problem in zip(labels, problems, strict=True)]
    closed = sum(ok and s == "test" for ok, s in zip(usable, splits, strict=True))
    kept = catalog.rows(ok and (not divided or s in ("train", "val")) for ok, s in zip(usable, splits, strict=True))
    if len(kept.classes) < 2:
        found = f"usable images of {kept.classes[0]} alone" if kept.classes else "no usable images with a label"
        raise DataError(
            f"{catalog.root} has {found} outside the test split",
            "a classifier needs at least two; see `sightline scan`",
        )
    return kept, closed


def earlier_splits(request: Request, root: Path) -> Catalog | None:
    """The catalog of the newest finished run of the same photographs and split settings among the same runs."""
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
    """(file, content) of every readable run.json among the runs."""
    for file in sorted(out.glob("*/run.json")):
        try:
            data = json.loads(read_text(file))
        except (OSError, ValueError):
            continue
        if isinstance(data, dict):
            yield file, data
