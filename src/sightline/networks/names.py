"""How people write networks: a name, or a name with arguments such as `cnn(filters=[32, 64])`; and who builds them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sightline.errors import RequestError, unknown
from sightline.networks import index, user
from sightline.networks.index import NetworkEntry
from sightline.store import Cache

Source = Literal["timm", "torchvision", "sightline", "user", "pixels"]

_CALL = re.compile(r"^[A-Za-z_]\w*\(.*\)$", re.DOTALL)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """The bare name and its arguments; any other text is a name without arguments. Nothing is ever run.

    Raises:
        RequestError: What is between the parentheses is no list of `key=value` with plain values.

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
    hint = "write it as cnn(filters=[32, 64], batch_norm=true): names, equals signs, numbers, true, false, texts and lists"
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("its arguments need names")
        found: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in found:
                raise ValueError("an argument is given twice")
            found[keyword.arg] = ast.literal_eval(_Words(keyword.arg).visit(keyword.value))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RequestError(f"the network {text!r} cannot be read ({reason})", hint) from error
    return call.func.id, found


class _Words(ast.NodeTransformer):
    """`true` and `false`, as TOML writes them, are what Python calls True and False; any other bare word is refused."""

    def __init__(self, argument: str) -> None:
        self.argument = argument

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        if node.id not in ("true", "false"):
            raise ValueError(f"{self.argument} holds the bare word {node.id}; texts stand in quotes: '{node.id}'")
        return ast.copy_location(ast.Constant(node.id == "true"), node)


def spell(name: str, arguments: Mapping[str, Any]) -> str:
    """The text that `parse` reads back.

    Example:
        >>> spell("cnn", {"filters": [32, 64]})
        'cnn(filters=[32, 64])'
    """
    if not arguments:
        return name
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


def source_of(name: str, arguments: Mapping[str, Any], cache: Cache) -> tuple[Source, NetworkEntry | None]:
    """Who builds a network of that name, and what its library says of it.

    With arguments it is one of ours, since only those take any; without, a name that a library has is the library's, which
    has weights for it.

    Raises:
        RequestError: Nobody does; the closest name is its hint.
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
        raise RequestError(f"{name} takes no arguments", f"those that do: {', '.join(sorted(CLASSICS))}")
    raise unknown("network", name, [*index.library(cache), *CLASSICS, "pixels"])


def check_name(text: str, cache: Cache) -> None:
    """Refuse the name of a network that nobody builds, or arguments that it does not take, without building it.

    Args:
        text: As `describe` takes it; the path of a run or a file is left to whoever opens it.
        cache: Where the names of the libraries are kept.

    Raises:
        RequestError: The name is not known, the closest one is its hint; or it takes no such arguments.
    """
    name, arguments = parse(text)
    if name in index.SPECIAL or Path(text).exists():
        return
    if name in index.ours() and not arguments:  # the table knows them without importing torch
        return
    source, _ = source_of(name, arguments, cache)
    if source == "sightline":
        from sightline.networks.building import check_arguments

        check_arguments(name, arguments)
