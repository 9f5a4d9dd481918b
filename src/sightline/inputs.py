"""What people hand over as files: recipes in TOML, tables of predictions in CSV."""

from __future__ import annotations

import csv
import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import DataError, RequestError
from sightline.plain import csv_plain, from_plain
from sightline.records import Predictions, Recipe


def read_recipe(file: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from TOML.

    `augment` may stand among the recipe's keys, as people write what is about images; it is a setting of the method.

    Args:
        file: The TOML file.
        changes: Values that go before the file's: a key of the recipe, or else one of its settings, with or without
            `settings.` before it.

    Raises:
        RequestError: The file is missing or is no TOML, or a key or a value is wrong.
    """
    try:
        value = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RequestError(f"there is no recipe {file}", "name a .toml file") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise RequestError(f"the recipe {file} cannot be read ({error})", "see the documentation of TOML, toml.io") from error
    known = {f.name for f in dataclasses.fields(Recipe)} - {"settings"}
    settings = value.get("settings", {})
    if "augment" in value and isinstance(settings, dict):
        if "augment" in settings:
            raise RequestError(f"the recipe {file} has augment twice, above and among the settings", "leave one of them out")
        value["settings"] = settings = {**settings, "augment": value.pop("augment")}
    for key, new in (changes or {}).items():
        if key in known:
            value[key] = new
        elif isinstance(settings, dict):
            value["settings"] = settings = {**settings, key.removeprefix("settings."): new}
    return from_plain(Recipe, value, f"recipe {file.name}")


def read_predictions(file: Path) -> Predictions:
    """Read a table of predictions: Sightline's own, or another tool's with the columns `path` and `p:CLASS` per class.

    `label` may be absent or empty; a column `bar:CLASS` holds the threshold of two classes. Probabilities are taken as they
    are, rows rescaled to sum to 1 where they are within 1 % of it.

    Raises:
        RequestError: The file is missing.
        DataError: A column is missing, a value is not a number, or a row does not sum to 1.
    """
    if not file.is_file():
        raise RequestError(f"{file} does not exist", "name a CSV with the columns path and p:CLASS for every class")
    with open(file, encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text))
    names = list(rows[0]) if rows else []
    columns = [n for n in names if n and n.startswith("p:")]
    if "path" not in names or not columns:
        hint = "it needs the columns path, label (may be empty), and p:CLASS for every class"
        raise DataError(f"{file} is not a table of predictions", hint)
    classes = tuple(c.removeprefix("p:") for c in columns)
    index = {c: i for i, c in enumerate(classes)}
    try:
        probs = np.array([[float(r[c]) for c in columns] for r in rows], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file} holds a probability that is not a number ({error})") from error
    total = probs.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(total - 1) <= 0.01) | (probs < 0).any(axis=1))
    if wrong.size:
        where = f"row {wrong[0] + 2} of {file} ({rows[wrong[0]]['path']})"
        raise DataError(f"the probabilities in {where} sum to {total[wrong[0]]:.4g}", "they must sum to 1, none below 0")
    exact = np.abs(total - 1) <= 1e-9  # what Sightline wrote comes back bit by bit
    probs = np.where(exact[:, None], probs, probs / total[:, None])
    true = [index.get(csv_plain(r.get("label") or ""), -1) for r in rows]
    paths = tuple(csv_plain(r["path"]) for r in rows)
    return Predictions(paths, classes, np.array(true, dtype=np.int64), probs, bar=_bar(file, names, rows, classes))


def _bar(file: Path, names: list[str], rows: list[dict[str, str]], classes: tuple[str, ...]) -> tuple[str, float] | None:
    """The threshold in a column `bar:CLASS`, None without one.

    Raises:
        DataError: It is no one number, or not about one of two classes.
    """
    found = [n for n in names if n and n.startswith("bar:")]
    if not found:
        return None
    positive, values = found[0].removeprefix("bar:"), {r[found[0]] for r in rows}
    try:
        (value,) = (float(v) for v in values)
    except (TypeError, ValueError) as error:
        raise DataError(f"the column {found[0]} of {file} does not hold one number", "leave the column out") from error
    if positive not in classes or len(classes) != 2:
        raise DataError(f"the column {found[0]} of {file} is not about one of two classes", "leave the column out")
    return positive, value
