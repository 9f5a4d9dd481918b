"""The house stands: what imports what, and what files are called."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "src" / "sightline").rglob("*.py"))
FORBIDDEN = {"utils.py", "common.py", "base.py", "helpers.py"}
LONGEST = {"records.py": 700}
"""Files that are read as one, and how long they may become; any other stays under 450 lines."""


def test_imports_go_downwards_only() -> None:
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-logo', '--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_a_drawer_for_anything() -> None:
    assert FILES
    assert not [file for file in FILES if file.name in FORBIDDEN]


def test_files_and_functions_can_be_read_in_one_go() -> None:
    long = []
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        if source.count("\n") > LONGEST.get(file.name, 450):
            long.append(f"{file.name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = 1 + node.end_lineno - body[0].lineno if body and node.end_lineno else 0
                if lines > 70:
                    long.append(f"{file.name}: {node.name} has {lines} lines")
    assert not long, long


def test_the_package_speaks_of_itself_alone() -> None:
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        for word in ("/work/", "/tmp/", "/root/", "/home/"):
            assert word not in source, f"{file}: {word}"
