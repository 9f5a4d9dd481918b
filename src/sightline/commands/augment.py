"""Augmentation preview: one sheet with the effect of a policy on training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline import pixels
from sightline.errors import DataError, ImageError, RequestError
from sightline.explanation.draw.contact_sheets import Cell, Row, Section, write_sheet
from sightline.records import Catalog, Preprocess, Progress, silent
from sightline.runs.dataset import open_photos
from sightline.store import plain, stream

if TYPE_CHECKING:
    from sightline.training.augment import Draw, Policy

COUNT, MOST = 3, 8
"""Default and maximal number of images on the sheet."""
_LOOKED_AT = 64
"""Number of images used to detect grey images and to measure colour variation."""
_SMALL_PX, _LARGE_PX = 32, 224
"""Default input sizes: the small one if at least half of the images are not larger."""
_EPOCHS = 5
"""Minimal number of epochs on the sheet."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """Images of a sheet, preprocessed.

    Args:
        images: uint8 (n, s, s, 3).
        rows: int64 (n,), index of each image among the training images, on which its random numbers depend.
        paths, labels: Path and label of each image.
        looked_at: uint8 (m, s, s, 3), these images and more, for colour statistics.
    """

    images: np.ndarray
    rows: np.ndarray
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    looked_at: np.ndarray


def augment(
    photos: str | Path | Catalog,
    out: str | Path,
    *,
    policy: str = "auto",
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
    count: int = COUNT,
    image_size: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Draw a sheet with the effect of an augmentation policy on training images.

    Shows every operation alone at both ends of its range, then all operations together as sampled in epochs 1, 2, 3 … of a
    training with this seed.

    Args:
        photos: Catalog, table, or folder of photographs.
        out: PNG file to write.
        policy: Name of a policy, or `auto`.
        changes: Settings of `augment.Policy` to change.
        seed: Random seed of the choice of images and of the augmentation.
        count: Number of images, 1 to 8, taken from the classes in turn.
        image_size: Side of the input image, 8 to 1024 px. Default: 32 for small images, else 224.
        progress: Progress callback.

    Returns:
        The value printed by `sightline augment --json`.

    Raises:
        RequestError: If the policy or a setting is unknown or out of range, or `out` is not a .png file.
        DataError: If no image can be read.
    """
    from sightline.training import augment as ways

    target, asked = Path(out), {"policy": policy, **(changes or {})}
    _check(target, count, image_size)
    ways.policy_for(asked, np.zeros((0, 1, 1, 3), np.uint8))  # refused before the work
    catalog = photos if isinstance(photos, Catalog) else open_photos(str(photos), progress=progress)
    shown = _choose(catalog, count, seed, image_size, progress)
    title = Path(photos.root if isinstance(photos, Catalog) else photos).name
    name, chosen = ways.policy_for(asked, shown.looked_at)
    axes = ways.principal_colours(shown.looked_at)
    single = {key: _ends(shown, chosen, key, axes) for key in ways.operations(chosen)}
    epochs = max(_EPOCHS, 3 * len(shown.images) - 1)
    together = _epochs(shown, chosen, seed, epochs, axes)
    side = int(shown.images.shape[1])
    seen = f"as the network sees them, {side}×{side} px · {title} · seed {seed}"
    write_sheet(target, f"Augmentation: {name}", f"Training images {seen}", _sections(shown, chosen, single, together, seed))
    return {
        "preview": str(target),
        "policy": name,
        "settings": plain({k: v for k, v in plain(chosen).items() if v != plain(type(chosen)())[k]}),
        "image_size": side,
        "seed": seed,
        "images": [{"path": path, "label": label} for path, label in zip(shown.paths, shown.labels, strict=True)],
        "operations": [
            {
                "name": key,
                "what": ways.SETTINGS[key].what,
                "range": ways.in_words(chosen, key),
                "shown": [cell.caption for cell in groups[0]],
            }
            for key, groups in single.items()
        ],
        "epochs": epochs,
    }


def _check(target: Path, count: int, image_size: int | None) -> None:
    """Check file name, count and image size.

    Raises:
        RequestError: If one is wrong.
    """
    if target.suffix.lower() != ".png":
        raise RequestError(f"the preview must be a .png file, not {target.name}", "write -o preview.png")
    if not 1 <= count <= MOST:
        raise RequestError(f"--count must be 1 to {MOST}, not {count}", "write --count 3")
    if image_size is not None and not 8 <= image_size <= 1024:
        raise RequestError(f"--image-size must be 8 to 1024, not {image_size}", "write --image-size 224")


# ------------------------------------------------------------------------------------------------------------------ images


def _choose(catalog: Catalog, count: int, seed: int, image_size: int | None, progress: Progress) -> _Shown:
    """Some training images, the classes in turn; all images where there is no split yet. What can't be read is passed over."""
    usable = catalog.usable()
    trained = usable.where(split="train")
    usable = trained if len(trained) else usable
    preprocess = _preprocess(usable, image_size)
    labels, paths = usable.column("label"), usable.paths
    turns: dict[str, list[int]] = {}
    for i in stream(seed, "preview").permutation(len(usable)):
        if labels[i] is not None:
            turns.setdefault(labels[i], []).append(int(i))
    ranked = [i for _, _, i in sorted((rank, label, i) for label, members in turns.items() for rank, i in enumerate(members))]
    rows: list[int] = []
    images: list[np.ndarray] = []
    for i in ranked:
        if len(rows) == max(count, _LOOKED_AT):
            break
        progress("decoding", len(rows), max(count, _LOOKED_AT))
        try:
            images.append(pixels.decode(usable.file(paths[i]), preprocess))
            rows.append(i)
        except (ImageError, OSError):
            continue
    if not rows:
        raise DataError("none of the training images can be read", "`sightline scan` lists the problem of each image")
    looked_at, n = np.stack(images), min(count, len(rows))
    found, named = tuple(paths[i] for i in rows[:n]), tuple(str(labels[i]) for i in rows[:n])
    return _Shown(looked_at[:n], np.array(rows[:n], dtype=np.int64), found, named, looked_at)


def _preprocess(catalog: Catalog, image_size: int | None) -> Preprocess:
    """Return the preprocessing of training from scratch."""
    from sightline.training import fit_network

    if image_size is None:
        sides = [min(w, h) for w, h in zip(catalog.column("width"), catalog.column("height"), strict=True) if w and h]
        image_size = _SMALL_PX if sides and float(np.median(sides)) <= _SMALL_PX else _LARGE_PX
    deep = [file for file, mode in zip(catalog.files(), catalog.column("mode"), strict=True) if mode in pixels.DEEP_MODES]
    found = pixels.value_range(deep) if deep else None
    return dataclasses.replace(fit_network.preprocess(image_size), value_range=found)


# ------------------------------------------------------------------------------------------------------------------- cells


def _ends(shown: _Shown, policy: Policy, name: str, axes: np.ndarray) -> tuple[tuple[Cell, ...], ...]:
    """Return for each image: unchanged, then both ends of one operation."""
    from sightline.training import augment as ways

    found = ways.extremes(policy, name)
    groups = []
    for image in shown.images:
        cells = [Cell(_changed(image, end.draw, policy, axes), end.caption) for end in found]
        groups.append((Cell(image, "unchanged"), *cells))
    return tuple(groups)


def _epochs(shown: _Shown, policy: Policy, seed: int, epochs: int, axes: np.ndarray) -> tuple[tuple[Cell, ...], ...]:
    """For each image: unchanged, then as the whole policy changes it in epochs 1, 2, 3 …."""
    from sightline.training import augment as ways

    cells: list[list[Cell]] = [[Cell(image, "unchanged")] for image in shown.images]
    for epoch in range(1, epochs + 1):
        drawn = ways.draw(policy, int(shown.rows.max()) + 1, seed=seed, epoch=epoch).rows(shown.rows)
        for i, image in enumerate(shown.images):
            one = drawn.rows(slice(i, i + 1))
            cells[i].append(Cell(_changed(image, one, policy, axes), f"epoch {epoch}"))
    return tuple(tuple(row) for row in cells)


def _changed(image: np.ndarray, drawn: Draw, policy: Policy, axes: np.ndarray) -> np.ndarray:
    """One image uint8 (s, s, 3), changed as drawn."""
    from sightline.training import augment as ways

    return np.asarray(ways.altered(image[None], drawn, padding=policy.padding, principal=axes)[0])


def _sections(
    shown: _Shown,
    policy: Policy,
    single: Mapping[str, tuple[tuple[Cell, ...], ...]],
    together: tuple[tuple[Cell, ...], ...],
    seed: int,
) -> list[Section]:
    """Return the two sections of the preview."""
    from sightline.training import augment as ways

    names = tuple(f"{label} · {Path(path).name}" for path, label in zip(shown.paths, shown.labels, strict=True))
    sections = []
    if single:
        rows = tuple(
            Row(key, f"{ways.SETTINGS[key].what}\n{ways.in_words(policy, key)}", groups) for key, groups in single.items()
        )
        sections.append(Section("One operation at a time, at both ends of its range", names, rows))
    told = f"All together, as drawn for the first epochs with seed {seed}" if single else "This policy changes nothing"
    rows = tuple(
        Row(label, Path(path).name, (cells,)) for path, label, cells in zip(shown.paths, shown.labels, together, strict=True)
    )
    sections.append(Section(told, (), rows))
    return sections
