"""Network names: parse `cnn(filters=[32, 64])` into name and arguments, and find the library that builds the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sightline.errors import RequestError, unknown
from sightline.networks import index, user
from sightline.networks.entry import NetworkEntry
from sightline.store import Cache

Source = Literal["timm", "torchvision", "sightline", "user", "pixels"]

_CALL = re.compile(r"^[A-Za-z_]\w*\(.*\)$", re.DOTALL)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split a network's text into its name and keyword arguments, without running any code.

    Text that is not of the form `name(…)` is a name without arguments.

    Raises:
        RequestError: If the parentheses hold anything but `key=value` pairs of literals.

    Example:
        >>> parse("cnn(filters=[32, 64], dense=[(512, 0)])")
        ('cnn', {'filters': [32, 64], 'dense': [(512, 0)]})
        >>> parse("cnn(batch_norm=true)")
        ('cnn', {'batch_norm': True})
        >>> parse("my_net.py:build")
        ('my_net.py:build', {})
    """
    if not _CALL.match(text):
        return text, {}
    hint = "write it like cnn(filters=[32, 64], batch_norm=true); values are numbers, true, false, quoted strings and lists"
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("its arguments need names")
        arguments: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in arguments:
                raise ValueError("an argument is given twice")
            arguments[keyword.arg] = ast.literal_eval(_TomlBooleans(keyword.arg).visit(keyword.value))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RequestError(f"the network {text!r} cannot be read ({reason})", hint) from error
    return call.func.id, arguments


class _TomlBooleans(ast.NodeTransformer):
    """Replace TOML's `true` and `false` by Python's constants, and refuse any other bare word."""

    def __init__(self, argument: str) -> None:
        self.argument = argument

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        if node.id not in ("true", "false"):
            raise ValueError(f"{self.argument} holds the bare word {node.id}; put strings in quotes: '{node.id}'")
        return ast.copy_location(ast.Constant(node.id == "true"), node)


def spell(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the text that `parse` splits into this name and these arguments.

    Example:
        >>> spell("cnn", {"filters": [32, 64]})
        'cnn(filters=[32, 64])'
    """
    if not arguments:
        return name
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


def source_of(name: str, arguments: Mapping[str, Any], cache: Cache) -> tuple[Source, NetworkEntry | None]:
    """Return the source that builds a network, and its library entry if a library builds it.

    With arguments the network is one of `CLASSICS`, since only those accept any. Without arguments, timm's and torchvision's
    networks come first, since they have pretrained weights.

    Raises:
        RequestError: If the name is unknown; the hint names the closest one.
    """
    if name == "pixels":
        return "pixels", None
    if user.is_user(name):
        return "user", None
    entry = None if arguments else index.find(name, cache)
    if entry is not None:
        return entry.source, entry
    from sightline.networks.classics import CLASSICS

    if name in CLASSICS:
        return "sightline", None
    if arguments and index.find(name, cache) is not None:
        raise RequestError(f"{name} takes no arguments", f"networks that do: {', '.join(sorted(CLASSICS))}")
    raise unknown("network", name, [*index.library(cache), *CLASSICS, "pixels"])


def check_name(text: str, cache: Cache) -> None:
    """Check a network's name and arguments without building the network.

    Args:
        text: A name as `describe` accepts it; an existing path (a run or a file) is not checked.
        cache: Cache of the libraries' lists of networks.

    Raises:
        RequestError: If the name is unknown (the hint names the closest one), or the network does not take the arguments.
    """
    name, arguments = parse(text)
    if name in index.SPECIAL or Path(text).exists():
        return
    if name in index.classics() and not arguments:  # read from the table, without importing torch
        return
    source, _ = source_of(name, arguments, cache)
    if source == "sightline":
        from sightline.networks.classics import check_arguments

        check_arguments(name, arguments)
