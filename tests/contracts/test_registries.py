"""Nothing outside a registry tests for the names in it: what is known about an entry stands in its record."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import sightline
from sightline.training.methods import METHODS
from tests.syntax import tree

ROOT = Path(sightline.__file__).parent
REGISTRIES: Mapping[str, tuple[frozenset[str], str]] = {
    "METHODS": (frozenset(METHODS), "training/methods"),
}
"""Registry → its keys, and the package (or file) that holds its records."""
ALLOWED: Mapping[str, Mapping[str, str]] = {
    "METHODS": {
        "classifier/checking.py": "ensemble: the source of a backbone",
        "cli/tables_output.py": "features: field of --json",
        "cli/summary.py": "features, frozen: fields of --json",
        "commands/summary.py": "features, frozen: fields of --json",
        "heads/knn.py": "features: array of a fitted head",
        "networks/description.py": "ensemble: the source of a backbone",
        "networks/index.py": "features: field of --json",
        "report/cross_validation.py": "baseline, shortcut: methods in run.json, which the report reads without torch",
        "report/headline.py": "baseline: method in run.json, which the report reads without torch",
        "report/page.py": "shortcut: topic of an alarm, not the method",
    }
}
"""Registry → files in which one of its keys means something else, with what it means there."""


def literals(node: ast.expr) -> Iterator[str]:
    """Yield the strings of a literal, or of the items of a literal tuple, list or set."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for item in node.elts:
            yield from literals(item)


def literal_uses(root: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, string) of every string that is compared, matched, or used as a subscript or a dictionary key."""
    for node in ast.walk(root):
        operands: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            operands = [node.value]
        elif isinstance(node, ast.Subscript) and not (isinstance(node.value, ast.Name) and node.value.id == "Literal"):
            operands = [node.slice]
        elif isinstance(node, ast.Dict):
            operands = [key for key in node.keys if key is not None]
        for operand in operands:
            for text in literals(operand):
                yield operand.lineno, text


@functools.cache
def uses_by_file() -> dict[str, list[tuple[int, str]]]:
    """Return file → (line, string) of everything that `literal_uses` finds in it."""
    files = {file.relative_to(ROOT).as_posix(): file for file in sorted(ROOT.rglob("*.py"))}
    return {name: list(literal_uses(tree(file))) for name, file in files.items()}


def uses(registry: str) -> dict[str, list[str]]:
    """Return file → uses of a key of the registry outside the package that holds its records."""
    keys, package = REGISTRIES[registry]
    found: dict[str, list[str]] = {}
    for name, strings in uses_by_file().items():
        lines = [f"{name}:{line}: {text!r}" for line, text in strings if text in keys and not name.startswith(package)]
        if lines:
            found[name] = lines
    return found


@pytest.mark.parametrize("registry", REGISTRIES)
def test_no_key_is_tested_outside_its_registry(registry: str) -> None:
    found = uses(registry)
    wrong = [line for name, lines in found.items() if name not in ALLOWED[registry] for line in lines]
    assert not wrong, "put it into the record of the entry instead:\n" + "\n".join(wrong)
    assert set(ALLOWED[registry]) <= set(found), "these files need no exemption any more"


@pytest.mark.parametrize(
    "code",
    [
        "method == 'scratch'",
        "'scratch' in names",
        "method in ('a', 'scratch')",
        "match method:\n    case 'scratch':\n        pass",
        "SPACES['scratch']",
        "x = {'scratch': 1}",
    ],
)
def test_each_way_to_test_for_a_key_is_seen(code: str) -> None:
    assert "scratch" in [text for _, text in literal_uses(ast.parse(code))]


def test_a_key_that_is_only_passed_on_is_not_counted() -> None:
    assert not list(literal_uses(ast.parse("fit(method='scratch')\nname = 'scratch'")))
