"""Rules for the source files: imports, names, lengths, and which modules open files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.syntax import nodes

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "src" / "sightline").rglob("*.py"))
FORBIDDEN = {"utils.py", "common.py", "base.py", "helpers.py"}
LONGEST_FILE, LONGEST_FUNCTION = 800, 70


def test_imports_go_downwards_only() -> None:
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-logo', '--no-cache'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_named_utils_or_helpers() -> None:
    assert FILES
    assert not [file for file in FILES if file.name in FORBIDDEN]


def test_files_and_functions_are_not_too_long() -> None:
    long = []
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        name, lines = file.relative_to(ROOT / "src" / "sightline").as_posix(), source.count("\n")
        if lines > LONGEST_FILE:
            long.append(f"{name}: {lines} lines")
        for node in nodes(file):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = 1 + node.end_lineno - body[0].lineno if body and node.end_lineno else 0
                if lines > LONGEST_FUNCTION:
                    long.append(f"{file.name}: {node.name} has {lines} lines")
    assert not long, long


def test_the_package_contains_no_path_of_a_developer_machine() -> None:
    for file in FILES:
        source = file.read_text(encoding="utf-8")
        for word in ("/work/", "/tmp/", "/root/", "/home/"):
            assert word not in source, f"{file}: {word}"


OPENERS = frozenset(
    (
        *("open", "read_bytes", "read_text", "fdopen", "file_digest", "memmap", "fromfile", "loadtxt", "genfromtxt"),
        *("imread", "safe_open", "load_file", "read_table", "read_csv", "RDBStorage"),
    )
)
"""Names of functions that open a file by its name."""
OTHERS = {
    "catalog/looks.py": {"memmap"},  # a temporary file
    "catalog/series.py": {"open"},  # bytes in memory
    "catalog/tables.py": {"read_table", "read_csv"},  # pyarrow, given an opened file or bytes
    "classifier/environment.py": {"open"},  # /proc/cpuinfo
    "cli/open.py": {"open"},  # a browser
    "classifier/files.py": {"load_file"},  # safetensors maps a file that was opened before
    "engine/instructions.py": {"open"},  # /proc/cpuinfo
    "engine/runtime.py": {"read_bytes"},  # what OpenVINO has just written
    "containers/archives.py": {"open"},  # an opened archive, and files in the cache
    "containers/array_files.py": {"open"},  # an array in an opened file
    "export/html_format.py": {"open", "read_bytes"},  # Pillow, of a stream that was opened before; the package's own files
    "files.py": {"open"},
    "runs/test_set_log.py": {"read_bytes", "read_text"},
    "networks/index.py": {"read_text"},  # the table in the package
    "networks/papers.py": {"read_text"},  # the table in the package
    "networks/weights.py": {"load_file"},  # safetensors maps a file that was checked before
    "pixels/worker.py": {"fdopen", "open"},  # the pipes to its parent, and the null device
    "report/curves.py": {"read_csv"},  # pyarrow, of a table that was opened before
    "report/page.py": {"read_text"},  # style and script of the package
    "report/images.py": {"open"},  # bytes in memory
    "serve/app.py": {"read_bytes"},  # the page in the package
    "serve/local_app/application.py": {"read_bytes"},  # the pages in the package
    "serve/local_app/try_page.py": {"read_text"},  # the page of the service, in the package
    "serve/local_app/processes.py": {"open"},  # what a started command prints
    "store.py": {"open", "read_text"},  # temporary files, locks and the cache
    "studies/tune.py": {"RDBStorage"},  # the study's own database
    "training/augment/applying.py": {"open"},  # compressed pixels in memory
    "training/checkpoint.py": {"safe_open"},
    "training/decoded_images.py": {"memmap"},  # a temporary file
    "training/loop.py": {"open"},  # of a checkpoint's keeper
}
"""Modules that open files in another way than by `sightline.files`, and the functions that they call."""


def test_files_that_users_name_are_opened_by_one_module() -> None:
    """A device, a pipe or a file without an end would be read for ever."""
    opened: dict[str, set[str]] = {}
    for file in FILES:
        own = {n.name for n in nodes(file) if isinstance(n, ast.FunctionDef)}
        own |= {
            a.asname or a.name for n in nodes(file) if isinstance(n, ast.ImportFrom) and _is_ours(n.module) for a in n.names
        }
        own -= {"open"}  # of a class that defines such a method
        for node in nodes(file):
            if isinstance(node, ast.Call):
                name, owner = _called(node.func)
                if name in OPENERS and (owner or name) not in own:
                    opened.setdefault(file.relative_to(ROOT / "src" / "sightline").as_posix(), set()).add(name)
    assert opened == OTHERS


def _is_ours(module: str | None) -> bool:
    """Whether an import is of Sightline."""
    return (module or "").partition(".")[0] == "sightline"


def _called(function: ast.expr) -> tuple[str, str]:
    """The name of a called function, and that of the module or object before its dot."""
    if isinstance(function, ast.Attribute):
        return function.attr, ast.unparse(function.value)
    return getattr(function, "id", ""), ""
