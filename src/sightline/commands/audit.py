"""Audit: duplicates, likely label errors, outliers, shortcuts and pretraining overlap of a labelled set of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline import catalog as catalogs
from sightline import engine, networks, report
from sightline.audit import findings
from sightline.catalog import Duplicates
from sightline.errors import RequestError, WeightsError
from sightline.records import Backbone, Catalog, Progress, silent
from sightline.records.audit import AuditRecord, SharedImage
from sightline.runs import executor, test_set_log
from sightline.runs import folder as folders
from sightline.runs.audit import with_pictures
from sightline.runs.dataset import check_usable
from sightline.store import Cache, digest, now, slug, write_bytes, write_json
from sightline.training.context import Context, extract

FIXES = ("quarantine", "dedupe", "relabel=FILE")


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of an audit.

    Args:
        record: The findings, as in `audit.json`.
        folder: Folder with `audit.json`, `audit.html` and `label_suspects.csv`.
        catalog: All rows, unusable ones included.
    """

    record: AuditRecord
    folder: Path
    catalog: Catalog


@folders.releasing
def audit(
    photos: str | Path | Catalog,
    *,
    out: str | Path | None = None,
    include_test: bool = False,
    against: str | Path | None = None,
    fix: Sequence[str] = (),
    backbone: str | None = None,
    label_from: str | None = None,
    label_column: str | None = None,
    group_by: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Audit:
    """Find what is wrong with a labelled set of images, and write a page with the findings as pictures.

    Args:
        photos: Folder, table or catalog.
        out: Folder to write; one below `runs` if None.
        include_test: Whether to judge the labels of test images too; this is recorded in the test-set log.
        against: Another set, whose images that are also in this one are listed.
        fix: Of `FIXES`: a corrected catalog is written to the folder. No photograph is changed.
        backbone: Network of the features, or `none`. Default: the first of the default networks whose weights are available.
        label_from, label_column: Source of the classes, as in `catalog.scan`.
        group_by: Table column or regex: images of one group do not judge each other.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Raises:
        RequestError: If an option is wrong or a path does not exist.
        DataError: If no image is usable.
    """
    cache = Cache() if cache is None else cache
    _check_fixes(fix)
    network = None if backbone == "none" else default_network(backbone, cache)
    compute = engine.choose_device(device)
    name = str(photos.root if isinstance(photos, Catalog) else photos)
    folder = Path(out) if out is not None else folders.default(f"{slug(Path(name).stem)}-audit", "audit.json", {"photos": name})
    folders.lock(folder)
    catalog = _opened(photos, progress, label_from=label_from, label_column=label_column)
    check_usable(catalog, name)
    usable = catalog.usable()
    vectors = None if network is None else features_of(usable, network, cache, compute, progress)
    duplicates = catalogs.find_duplicates(catalog, cache, progress, features=_by_row(catalog, vectors))
    cluster = catalogs.together(catalog, duplicates)[_usable_rows(catalog)]
    context = Context(usable, cluster, usable.classes, cache, compute, progress=progress)
    rows = _judged_rows(usable, include_test=include_test)
    judged = findings.Judged(context, rows, None if vectors is None else vectors[rows], network)
    found = findings.record(catalog, duplicates, judged)
    tests = sum(s == "test" for s in usable.column("split"))
    if tests and include_test:
        _log_test(usable, found, name)
    if tests and not include_test:
        note = (
            f"The labels of {tests:,} test images were not judged; --include-test does so and records it in the test-set log."
        )
        found = dataclasses.replace(found, notes=[*found.notes, note])
    found = dataclasses.replace(
        found,
        created=now(),
        photos=name,
        test_included=bool(tests and include_test),
        shared=[] if against is None else shared_images(catalog, against, cache, progress),
    )
    if fix:
        found = _fixed(folder, fix, catalog, duplicates, found)
    found = with_pictures(folder, catalog, found)
    _write(folder, found)
    return Audit(found, folder, catalog)


def _check_fixes(fix: Sequence[str]) -> None:
    """Refuse an unknown fix.

    Raises:
        RequestError: If it is unknown, or names no file.
    """
    for each in fix:
        name, equals, file = each.partition("=")
        if name not in ("quarantine", "dedupe", "relabel") or (name == "relabel") != bool(equals):
            raise RequestError(f"--fix {each!r} is unknown", f"write one of {', '.join(FIXES)}")
        if equals and not Path(file).is_file():
            raise RequestError(f"{file} is not a file", "name a table with the columns path and label")


def default_network(name: str | None, cache: Cache) -> Backbone:
    """Return the named network, or the first default network whose weights are available; the pixels of the image without any.

    Raises:
        RequestError: If a named network is unknown.
        WeightsError: If the weights of a named network are not available.
    """
    if name is not None:
        networks.check_name(name, cache)
        return networks.describe(name, cache=cache)
    for default in networks.DEFAULTS:
        try:
            return networks.describe(default, cache=cache)
        except WeightsError:
            continue
    return networks.describe("pixels", cache=cache)


def features_of(
    usable: Catalog,
    backbone: Backbone,
    cache: Cache,
    device: str,
    progress: Progress = silent,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Return the features of usable images, float32 (n, d), NaN where an image cannot be decoded.

    Args:
        usable: n usable rows.
        backbone: The network.
        cache: Cache of features.
        device: `cpu`, `cuda` or `mps`.
        progress: Progress callback.
        tensors: Weights of the network; None loads those that its record names.
    """
    context = Context(usable, np.arange(len(usable)), usable.classes, cache, device, progress=progress)
    found = extract(context, backbone, "f32", tensors=tensors)
    values = found.values.copy()
    values[~found.ok] = np.nan
    return values


def _opened(photos: str | Path | Catalog, progress: Progress, *, label_from: str | None, label_column: str | None) -> Catalog:
    """Return the catalog: as it is, read from a table, or by scanning a folder."""
    if isinstance(photos, Catalog):
        return photos
    return executor.current().scan(photos, label_from=label_from, label_column=label_column, progress=progress)


def _usable_rows(catalog: Catalog) -> np.ndarray:
    return np.array([problem is None for problem in catalog.column("problem")], dtype=bool)


def _by_row(catalog: Catalog, vectors: np.ndarray | None) -> np.ndarray | None:
    """Return the features of all rows, NaN for unusable ones."""
    if vectors is None:
        return None
    out = np.full((len(catalog), vectors.shape[1]), np.nan, np.float32)
    out[_usable_rows(catalog)] = vectors
    return out


def _judged_rows(usable: Catalog, *, include_test: bool) -> np.ndarray:
    """Return the rows whose labels are judged: all but the test split, unless it is included."""
    pairs = zip(usable.column("split"), usable.column("label"), strict=True)
    return np.array(
        [i for i, (s, label) in enumerate(pairs) if label is not None and (include_test or s != "test")], dtype=np.int64
    )


def _log_test(usable: Catalog, found: AuditRecord, name: str) -> None:
    """Record in the test-set log that the labels of test images were judged."""
    tests = usable.where(split="test")
    suspects = [s.path for s in found.likely if s.split == "test"]
    subject = test_set_log.LoggedClassifier("label audit", (f"audit:{digest([found.network, suspects])}",))
    contents = [content or "" for content in tests.column("content")]
    test_set_log.opened(contents, [subject], verb="audit", by=f"label audit of {name}", when=now())


def shared_images(catalog: Catalog, against: str | Path, cache: Cache, progress: Progress = silent) -> list[SharedImage]:
    """Return the images that another set shares with this one: identical files, and nearly the same pictures.

    Args:
        catalog: All rows.
        against: Folder or table of the other set.
        cache: Cache of thumbnails.
        progress: Progress callback.

    Raises:
        RequestError: If the other set does not exist.
    """
    other = (
        executor.current().scan(against, label_from="(.)", progress=progress)
        if Path(against).is_dir()
        else catalogs.load(Path(against))
    )
    both, names = _joined(catalog, other)
    duplicates = catalogs.find_duplicates(both, cache, progress)
    found: list[SharedImage] = []
    done = set[str]()
    for kind, sets in (("exact", duplicates.exact), ("near", duplicates.near)):
        for paths in sets:
            mine, theirs = [p for p in paths if p in names[0]], [p for p in paths if p in names[1]]
            for path in mine if theirs else []:
                if path not in done:
                    done.add(path)
                    found.append(SharedImage(names[0][path], names[1][theirs[0]], kind))
    return sorted(found, key=lambda s: (s.kind, s.path))


def _joined(first: Catalog, second: Catalog) -> tuple[Catalog, tuple[dict[str, str], dict[str, str]]]:
    """Return one catalog of the usable rows of two, whose paths are absolute, and its paths by those of each."""
    import pyarrow as pa

    names, tables = [], []
    for each in (first.usable(), second.usable()):
        absolute = [str(file).removeprefix("/") for file in each.files()]
        names.append(dict(zip(absolute, each.paths, strict=True)))
        columns = [n for n in ("path", "content", "label", "width", "height", "problem") if n in each.table.column_names]
        tables.append(each.with_column("path", absolute).table.select(columns))
    root = Path(first.root.anchor)
    return Catalog(pa.concat_tables(tables, promote_options="default"), root), (names[0], names[1])


# --------------------------------------------------------------------------------------------------------------- writing


def _fixed(folder: Path, fix: Sequence[str], catalog: Catalog, duplicates: Duplicates, found: AuditRecord) -> AuditRecord:
    """Write a corrected catalog and the list of its changes; no photograph is changed."""
    changes = []
    for each in fix:
        name, _, file = each.partition("=")
        if name == "quarantine":
            catalog, made = catalogs.quarantine(catalog, quarantine_reasons(found))
        elif name == "dedupe":
            catalog, made = catalogs.dedupe(catalog, duplicates)
        else:
            catalog, made = catalogs.relabel(catalog, Path(file))
        changes += made
    target = folder / "catalog-fixed.csv"
    catalogs.save(catalog, target)
    catalogs.write_changes(changes, folder / "changes.csv")
    return dataclasses.replace(found, fixed=str(target), changes=len(changes))


def quarantine_reasons(found: AuditRecord) -> dict[str, str]:
    """Return path → reason of the images that `--fix quarantine` leaves out: likely label errors and outliers."""
    reasons = {o.path: f"outlier (distance {o.score:.2f})" for o in found.outliers}
    return reasons | {s.path: f"label {s.label} is likely wrong, suggested {s.suggested}" for s in found.likely}


def _write(folder: Path, found: AuditRecord) -> None:
    """Write the table of suspects, the page, and last the record."""
    names = ("path", "label", "suggested", "score", "likely", "split")
    rows = [{name: getattr(suspect, name) for name in names} for suspect in found.label_suspects]
    if rows:
        write_bytes(folder / "label_suspects.csv", folders.table(rows).encode("utf-8"))
    report.write_audit(found, folder)
    write_json(folder / "audit.json", found.to_json())
