"""Fixtures that every test may use."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores; before anything reads it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import functools
import importlib
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.store import Cache

# Hundreds of processes start here: each would compile Sightline anew where Python is told to write no bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["SIGHTLINE_PRECISION"] = "f32"  # exact assertions hold on every processor; subprocesses inherit it
os.environ["SIGHTLINE_LEDGER"] = tempfile.mkdtemp(prefix="sightline-ledger-")  # no test ever writes the user's own


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code, what it printed, and the modules that it had imported."""

    code: int
    out: str
    err: str
    modules: frozenset[str]


_LISTING = """
import atexit, json, sys
atexit.register(lambda: open({file!r}, "w", encoding="utf-8").write(json.dumps(list(sys.modules))))
sys.argv = {argv!r}
"""


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., Ended]:
    """Runs Python code in a process of its own: `python(code, *argv, cwd=…, env=…)`."""

    def run(code: str, *argv: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ended:
        listing = tmp_path / ".modules.json"
        listing.unlink(missing_ok=True)
        code = _LISTING.format(file=str(listing), argv=["sightline", *argv]) + code
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=300,
            check=False,
        )
        modules = json.loads(listing.read_text(encoding="utf-8")) if listing.is_file() else []
        out, err = (text.decode("utf-8").replace("\r\n", "\n") for text in (done.stdout, done.stderr))
        return Ended(done.returncode, out, err, frozenset(modules))

    return run


@pytest.fixture
def sightline(python: Callable[..., Ended]) -> Callable[..., Ended]:
    """Runs the command line in a process of its own: `sightline("scan", "photos", cwd=…, env=…)`."""

    def run(*argv: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Ended:
        return python("from sightline.cli import main\nmain()\n", *argv, cwd=cwd, env=env)

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run the command line in this process, faster than `sightline` does in another: `cli("scan", "photos", env=…)`."""

    def run(*argv: str, env: dict[str, str] | None = None) -> Ended:
        from typer.testing import CliRunner

        from sightline.cli.app import app

        monkeypatch.chdir(tmp_path)
        ended = CliRunner().invoke(app, list(argv), env=env)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Ended(ended.exit_code, ended.stdout, ended.stderr, frozenset())

    return run


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """300 real handwritten digits as PNG files in ten class folders."""
    return write_few_digits(tmp_path / "digits", 30)


def write_few_digits(folder: Path, per_class: int) -> Path:
    """Write the first `per_class` images of each of scikit-learn's digits as the demo writes them."""
    from sightline.demo import png

    counts = dict.fromkeys(range(10), 0)
    for number, (image, label) in enumerate(zip(*_digits(), strict=True)):
        if counts[label] < per_class:
            counts[label] += 1
            file = folder / str(label) / f"digit_{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(image))
    return folder


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """All of scikit-learn's digits: images (1797, 8, 8), labels (1797,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images, data.target


@pytest.fixture
def shared() -> Path:
    """The folder of real photographs and weights beside the checkout; the test is skipped where it is missing."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the real photographs (../shared/data) are not here")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache of the test's own."""
    return Cache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty cache, so that no test reads or writes the user's cache."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path_factory.getbasetemp() / "shared-cache"))


@pytest.fixture(autouse=True, scope="module")
def _module_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a separate test-set log for the shared fixtures of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_LEDGER", str(tmp_path_factory.mktemp("ledger")))
        yield


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a separate test-set log for each test."""
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path_factory.getbasetemp() / f"ledger-{secrets.token_hex(8)}"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked `precision` once in float32, and once in bf16 where this processor has it."""
    if metafunc.definition.get_closest_marker("precision"):
        metafunc.parametrize("_precision", _precisions(), indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where torch finds no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        for item in marked if not torch.cuda.is_available() else ():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@functools.cache
def _precisions() -> list[str]:
    from sightline import engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_PRECISION", "auto")
        has_bf16 = "bf16" in {engine.fast_precision(training=training) for training in (False, True)}
    return ["f32", "bf16"] if has_bf16 else ["f32"]


@pytest.fixture(autouse=True)
def _precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32, or in the precision of the marker `precision`."""
    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto" if getattr(request, "param", "f32") == "bf16" else "f32")


@pytest.fixture
def emulated_vnni(_precision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with VNNI, on which int8 is tried; it computes slowly where there is none."""
    from sightline.engine import instructions

    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto")
    actual = instructions.instruction_class()
    for module in (instructions, *map(importlib.import_module, ("sightline.engine", "sightline.engine.runtime"))):
        monkeypatch.setattr(module, "instruction_class", lambda: f"{actual} avx_vnni")


@pytest.fixture
def emulated_bf16(_precision: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bf16, whatever this one has: torch trains in it, if slowly, and OpenVINO's outputs are rounded to it."""
    import torch

    from sightline.engine import augmented, runtime, session

    def rounded(outputs: Any) -> list[np.ndarray]:
        return [torch.from_numpy(np.array(value)).to(torch.bfloat16).float().numpy() for value in outputs.values()]

    def compiled(payload: bytes, precision: str) -> runtime.Compiled:
        if precision != "bf16":
            return runtime.compile_packed(payload, precision)  # type: ignore[arg-type]
        made = runtime.compile_packed(payload, "f32")
        return dataclasses.replace(made, run=lambda values, **_: rounded(made.run(values)), precision="bf16")

    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto")
    monkeypatch.setattr(runtime, "_has_bf16", lambda device, training: True)
    for module in (session, augmented):
        monkeypatch.setattr(module, "compile_packed", compiled)
