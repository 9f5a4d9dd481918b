"""Every command: help, example, and options passed to its function."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline import store
from sightline.cli.app import COMMANDS, app

CACHE_COMMANDS = ("show", "verify", "clear")
EVERY = [*([name] for name in COMMANDS), *(["cache", name] for name in CACHE_COMMANDS), ["catalog", "diff"]]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_help_has_an_example_that_cmd_exe_understands(command: list[str]) -> None:
    shown = invoke(*command, "--help")
    assert shown.exit_code == 0
    examples = re.findall(r"^    (sightline .*)$", shown.output, flags=re.MULTILINE)
    assert examples, shown.output
    for example in examples:
        assert example.startswith("sightline " + " ".join(command))
        assert not set("'`$\\;&|<>") & set(example), "cmd.exe reads that otherwise"
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", example):
            assert re.search(rf"(^|\s|,){option}\b", shown.output.replace(example, "")), option


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_every_option_is_explained_and_json_is_offered(command: list[str]) -> None:
    shown = invoke(*command, "--help").output
    assert "--json" in shown
    assert not re.findall(r"^  --[a-z-]+( [^ ]+)?$\n(?=  -)", shown, flags=re.MULTILINE)


def test_help_lists_every_command_with_a_sentence() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    for name in [*COMMANDS, "cache", "catalog"]:
        assert re.search(rf"^  {name} +[A-Z].*\.$", shown, flags=re.MULTILINE), name
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run"], ["run", "p", "--seed", "x"], ["run", "p", "--budget", "soon"], ["cache", "x"]]
)
def test_a_wrong_request_is_exit_code_2(arguments: list[str]) -> None:
    ended = invoke(*arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_run_passes_every_option_to_the_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:

    from sightline.records import Run

    seen: list[Any] = []

    def run(request: Any, **rest: Any) -> Run:
        seen.append(request)
        rest["say"]("the plan")
        rest["progress"]("reading", 1, 2)
        return Run(tmp_path / "r", {"method": "features", "ladder": [{"method": "features", "seconds": None, "val": None}]})

    monkeypatch.setattr("sightline.commands.run.run", run)
    ended = invoke(
        *("run", "my photos", "-o", "out", "--backbone", "a,b", "--backbone", "c", "--weights", "w.safetensors"),
        *(
            "--methods",
            "baseline,features",
            "--head",
            "ridge",
            "--budget",
            "90s",
            "--seed",
            "3",
            "--val",
            "20",
            "--test",
            "0.3",
        ),
        *("--group-by", "person", "--label-from", "^[a-z]+", "--path-column", "p", "--label-column", "l"),
        *("--classes", "cat=Katze,dog", "--limit", "7", "--positive", "cat", "--fit", "pad", "--image-size", "96"),
        *("--pool", "flatten", "--device", "cpu", "--allow-truncated", "--resume", "--json"),
    )
    assert ended.exit_code == 0, ended.stderr
    request = seen[0]
    expected = {
        "photos": "my photos",
        "out": "out",
        "backbones": ("a", "b", "c"),
        "weights": "w.safetensors",
        "methods": ("baseline", "features"),
        "head": "ridge",
        "budget_s": 90.0,
        "seed": 3,
        "val": 20,
        "test": 0.3,
        "group_by": "person",
        "label_from": "^[a-z]+",
        "path_column": "p",
        "label_column": "l",
        "classes": {"cat": "Katze", "dog": "dog"},
        "limit": 7,
        "positive": "cat",
        "fit": "pad",
        "image_size": 96,
        "pool": "flatten",
        "device": "cpu",
        "allow_truncated": True,
        "resume": True,
    }
    assert {key: getattr(request, key) for key in expected} == expected
    assert request.command.startswith("sightline")
    assert json.loads(ended.stdout)["method"] == "features"  # the plan is not on standard output
    assert ended.stderr == "the plan\nreading (2)\n"

    ended = invoke("run", "--", "-odd folder")
    assert ended.exit_code == 0, ended.stderr
    assert seen[1].photos == "-odd folder"
    defaults = type(request)(photos="-odd folder", command=seen[1].command)
    assert seen[1] == defaults  # the command's defaults are the verb's
    assert ended.stdout.startswith("the plan\n")


def test_the_cache_is_shown_checked_and_cleared(cache: store.Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(cache.root))
    cache.write("features/a/1", b"x" * 1000)
    cache.write("compiled/b", b"y" * 500)
    shown = json.loads(invoke("cache", "show", "--json").stdout)
    assert [(part["part"], part["entries"]) for part in shown["parts"]] == [("compiled", 1), ("features", 1)]
    assert shown["parts"][1]["bytes"] >= 1000

    file = cache.root / "compiled" / "b"
    file.write_bytes(file.read_bytes()[:-1] + b"z")
    checked = invoke("cache", "verify", "--json")
    assert json.loads(checked.stdout)["removed"] == ["compiled/b"]
    assert "note: the cache entry" in checked.stderr

    wrong = invoke("cache", "clear", "feature")
    assert wrong.exit_code == 2
    assert "did you mean 'features'?" in wrong.stderr
    assert json.loads(invoke("cache", "clear", "features", "--json").stdout)["removed"] == 1
    assert cache.names() == []


def test_mistakes_of_a_folder_without_run_are_refused(tmp_path: Path) -> None:
    ended = invoke("mistakes", str(tmp_path / "nothing"), "--json")
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "does not exist" in ended.stderr
    assert "hint: " in ended.stderr
