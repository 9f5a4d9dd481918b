"""The fields that every command prints with `--json` are frozen: fields may be added, none may go or change its type.

`python tests/contracts/test_json_fields.py --update` writes the frozen file again after fields were added.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.conftest import write_few_digits

FROZEN = Path(__file__).parent / "json_fields.json"
RECIPE = 'method = "features"\nbackbone = "pixels"\nhead = "centroid"\n[settings]\nfolds = 2\n'
SCRATCH = 'method = "scratch"\nbackbone = "cnn(filters=[4])"\nimage_size = 8\naugment = "none"\n[settings]\nepochs = 1\n'
VARYING = frozenset(
    {
        "classes",
        "columns",
        "problems",
        "formats",
        "modes",
        "probabilities",
        "per_class",
        "params",
        "settings",
        "environment",
        "timings",
        "reasons",
        "intervals",
        "images_per_class",
        "licences",
        "pretrained_on",
        "software",
    }
)
"""Objects whose keys are class names, kinds of problems, metrics or settings, not fields."""


def fields_of(value: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    """Yield (path, type) for every field of a JSON value; list items share one path ending in `[]`."""
    if isinstance(value, dict):
        yield path, "object"
        if path.rpartition(".")[2].removesuffix("[]") not in VARYING:
            for key, item in value.items():
                yield from fields_of(item, f"{path}.{key}")
    elif isinstance(value, list):
        yield path, "array"
        for item in value:
            yield from fields_of(item, f"{path}[]")
    elif value is None:
        yield path, "null"
    else:
        yield path, {bool: "boolean", int: "number", float: "number", str: "string"}[type(value)]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (name, arguments) of every command in an order in which each finds what it needs."""
    yield "scan", ["scan", "digits", "-o", "catalog.csv"]
    yield "split", ["split", "catalog.csv"]
    yield "networks", ["networks", "lenet5"]
    yield "summary", ["summary", "lenet5"]
    yield "augment", ["augment", "catalog.csv", "-o", "preview.png"]
    yield "run", ["run", "digits", "--methods", "baseline,features", "--backbone", "pixels", "--head", "centroid", "-o", "runs"]
    yield "train", ["train", "catalog.csv", "recipe.toml", "-o", "trained"]
    yield "train scratch", ["train", "catalog.csv", "scratch.toml", "-o", "scratch"]
    yield "train --find-rate", ["train", "catalog.csv", "scratch.toml", "--find-rate", "-o", "rates"]
    yield "train --sweep", ["train", "catalog.csv", "recipe.toml", "--sweep", "head=centroid,ridge", "-o", "swept"]
    yield "tune", ["tune", "catalog.csv", "recipe.toml", "--trials", "2", "-o", "tuned"]
    yield "evaluate", ["evaluate", "trained", "catalog.csv", "--stress", "-o", "evaluated"]
    yield "evaluate --folds", ["evaluate", "catalog.csv", "recipe.toml", "--folds", "2", "-o", "folds"]
    yield "evaluate --learning-curve", ["evaluate", "catalog.csv", "recipe.toml", "--learning-curve", "-o", "curve"]
    yield "compare", ["compare", "trained", "scratch", "--catalog", "catalog.csv", "-o", "compared"]
    yield "predict", ["predict", "trained", "digits/7", "broken.jpg"]
    yield "predict --sets", ["predict", "trained", "digits/7", "--sets", "0.9"]
    yield "predict --group-by", ["predict", "trained", "events.csv", "--group-by", "event", "--top", "2", "--copy-to", "sorted"]
    yield "predict --summary", ["predict", "trained", "digits/7", "--summary", "--heatmaps", "maps"]
    yield "mistakes", ["mistakes", "trained"]
    yield "mistakes --by pair", ["mistakes", "trained", "--by", "pair"]
    yield "mistakes --by slice", ["mistakes", "trained", "--by", "slice"]
    yield "explain", ["explain", "trained", "digits/7/seven.png", "-o", "explained"]
    yield "export", ["export", "trained", "--to", "onnx", "-o", "exported"]
    yield "card", ["card", "trained"]
    yield "card of an export", ["card", "exported"]
    yield "report", ["report", "trained", "scratch", "-o", "both.html"]
    yield "catalog diff", ["catalog", "diff", "catalog.csv", "catalog.csv"]
    yield "audit", ["audit", "catalog.csv", "-o", "audited"]
    yield "label-next", ["label-next", "digits", "-n", "3", "-o", "next"]
    yield "cache show", ["cache", "show"]
    yield "cache verify", ["cache", "verify"]


def observed(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Run every command in `folder` and return command → field → types seen."""
    from sightline.cli.app import app

    write_few_digits(folder / "digits", 12)
    first = next((folder / "digits" / "7").iterdir())
    first.rename(first.with_name("seven.png"))
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "scratch.toml").write_text(SCRATCH, encoding="utf-8")
    (folder / "broken.jpg").write_bytes(b"")
    (folder / "events.csv").write_text("path,event,site\ndigits/7/seven.png,first,river\n", encoding="utf-8")
    os.chdir(folder)
    found: dict[str, dict[str, list[str]]] = {}
    for name, arguments in commands():
        ended = CliRunner().invoke(app, [*arguments, "--json"])
        assert ended.stdout, f"{name}: {ended.stderr}"
        types: dict[str, set[str]] = {}
        for path, kind in fields_of(json.loads(ended.stdout)):
            types.setdefault(path, set()).add(kind)
        found[name] = {path: sorted(kinds) for path, kinds in sorted(types.items())}
    return found


@pytest.mark.slow
def test_json_fields_only_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frozen, now = json.loads(FROZEN.read_text(encoding="utf-8")), observed(tmp_path)
    assert set(frozen) <= set(now)
    for command, fields in frozen.items():
        for path, kinds in fields.items():
            assert path in now[command], f"sightline {command} --json no longer prints {path}"
            allowed = {*kinds, "null"}
            if kinds != ["null"]:
                assert set(now[command][path]) <= allowed, (
                    f"sightline {command} --json: {path} was {kinds}, is {now[command][path]}"
                )


def test_fields_of_names_every_field_once() -> None:
    value = {"a": [{"b": 1}, {"b": None, "c": "x"}], "classes": {"cat": 2}}
    assert set(fields_of(value)) == {
        *(("$", "object"), ("$.a", "array"), ("$.a[]", "object"), ("$.a[].b", "number"), ("$.a[].b", "null")),
        *(("$.a[].c", "string"), ("$.classes", "object")),
    }


if __name__ == "__main__" and "--update" in sys.argv:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SIGHTLINE_CACHE"], os.environ["SIGHTLINE_LEDGER"] = f"{scratch}/cache", f"{scratch}/ledger"
        FROZEN.write_text(json.dumps(observed(Path(scratch)), indent=1) + "\n", encoding="utf-8")
