"""Instruction classes and the order of precisions, for processors that this machine does not have."""

from __future__ import annotations

import builtins
import io
import sys
from typing import Any

import pytest

from sightline import engine
from sightline.engine import instructions, runtime

FLAGS = "fpu sse2 avx avx2 fma avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16"


@pytest.mark.parametrize(
    ("flags", "bf16", "order"),
    [
        ("avx avx2 fma", False, ("f32",)),
        ("avx avx2 fma avx_vnni", False, ("int8", "f32")),
        ("avx avx2 fma avx512f avx512_vnni", False, ("int8", "f32")),
        ("avx avx2 fma avx512f avx512_vnni avx512_bf16", True, ("int8", "bf16", "f32")),
        ("asimd asimddp i8mm bf16", True, ("bf16", "f32")),
    ],
)
def test_the_order_of_precisions_depends_on_the_instruction_class(
    flags: str, bf16: bool, order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_PRECISION", "auto")
    monkeypatch.setattr(instructions, "instruction_class", lambda: f"x86_64 {flags}")
    monkeypatch.setattr(runtime, "_has_bf16", lambda device, training: bf16)
    assert engine.precisions() == order
    assert "int8" not in engine.precisions("cuda")
    monkeypatch.setenv("SIGHTLINE_PRECISION", "f32")
    assert engine.precisions() == ("f32",)


@pytest.mark.parametrize(("line", "found"), [(f"flags\t\t: {FLAGS}\n", FLAGS.split()[2:]), ("no such line\n", [])])
def test_linux_lists_instructions_in_a_file(line: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(builtins, "open", lambda *_, **__: io.StringIO(f"processor: 0\n{line}"))
    try:
        listed = instructions.instruction_class.__wrapped__()
    finally:
        monkeypatch.undo()
    assert listed.split()[1:] == [flag for flag in instructions._FLAGS if flag in found]


def test_numpys_instructions_are_among_those_of_linux() -> None:
    if sys.platform != "linux":
        pytest.skip("there is no /proc/cpuinfo")
    assert instructions._numpy_flags() <= instructions._linux_flags()


def test_an_identity_names_runtime_precision_ranges_and_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "instruction_class", lambda: "x86_64 avx2")
    version: Any = runtime.package_version("openvino")
    assert runtime.identity("openvino", "int8", "cpu", "ab") == f"openvino {version} int8 ab x86_64 avx2"
    assert list(engine.identities(True, "int8", "cpu", "ab").values()) == ["int8"]
    assert list(engine.identities(True, "bf16", "cpu").values()) == ["bf16", "bf16", "f32", "f32"]
    assert engine.identities(False, "f32", "cpu") == {"numpy": "f32"}
    monkeypatch.setattr(runtime, "instruction_class", lambda: "x86_64 avx512f")
    assert not set(engine.identities(True, "f32", "cpu")) & {f"openvino {version} f32 x86_64 avx2"}
