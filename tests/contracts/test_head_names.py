"""No module outside the heads tests for the name of a head: it reads the head's record instead."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sightline
from sightline import heads
from tests.syntax import tree

SOURCE = Path(sightline.__file__).parent
OTHER_REGISTRIES = {("training/schedules.py", "constant"), ("training/plan.py", "constant")}
"""Places where a name of a head is the key of another registry: here that of learning-rate schedules."""


def keys_in(root: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, name of a head) for each literal in a comparison, `match` case, subscript or dictionary key."""
    for node in ast.walk(root):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            parts = list(node.args[:1])
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple | ast.List | ast.Set):
            parts = [node.value]  # a constant such as QUICK = ("knn", "ridge"), compared elsewhere
        for part in parts:
            for literal in _literals(part):
                if literal.value in heads.HEADS:
                    yield literal.lineno, str(literal.value)


def _literals(part: ast.AST) -> Iterator[ast.Constant]:
    """Yield the strings that a part is or lists, not those inside calls."""
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        yield part
    elif isinstance(part, ast.Tuple | ast.List | ast.Set):
        for element in part.elts:
            yield from _literals(element)


def test_no_module_outside_heads_tests_for_the_name_of_a_head() -> None:
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if name.startswith("heads/"):
            continue
        for line, key in keys_in(tree(file)):
            if (name, key) not in OTHER_REGISTRIES:
                found.append(f"{name}:{line} {key!r}")
    assert not found, "read the record in sightline.heads.HEADS instead: " + ", ".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "kind == 'mlp'",
        "'ridge' != kind",
        "kind in ('knn', 'other')",
        "HEADS['forest']",
        "{'centroid': 1}",
        "TABLE.get('logistic')",
        "QUICK = ('knn', 'ridge')",
        "match kind:\n case 'constant':\n  pass",
    ],
)
def test_each_form_of_test_for_a_name_is_found(code: str) -> None:
    assert list(keys_in(ast.parse(code)))


def test_a_name_that_is_only_passed_on_is_allowed() -> None:
    assert not list(keys_in(ast.parse("fit('mlp', x)\nreplace(recipe, head='forest')\nkind == name(['mlp'])")))
