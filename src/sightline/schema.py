"""What is read back from JSON, TOML and CSV: every key and type checked, no cell that a spreadsheet would run."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from sightline.errors import RequestError, unknown

T = TypeVar("T")
BESIDE: Mapping[str, Any] = types.MappingProxyType({"beside": True})
"""Metadata of a dataclass's field that is a record: in what people write, its keys stand beside the dataclass's own. The
field's default is what the record is where none of its keys is given, and what its other keys are where some are."""


def from_json(kind: type[T], value: Mapping[str, Any], what: str) -> T:
    """Build a record from JSON's types, checking every key and type.

    Args:
        kind: A dataclass. The keys of a record that is a field with `BESIDE` stand among its own.
        value: What `store.plain` makes of such a record; absent keys take their defaults.
        what: What is being read, for messages, such as "recipe".

    Raises:
        RequestError: An unknown key ("did you mean"), a missing one, or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    inner = {name: [f.name for f in dataclasses.fields(hints[name])] for name, f in fields.items() if f.metadata == BESIDE}
    known = [key for name in fields for key in inner.get(name, [name])]
    for key in value:
        if key not in known:
            raise unknown(f"setting in the {what}", key, known)
    arguments: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in inner:
            standard = {key: getattr(spec.default, key) for key in inner[name]}
            given = {key: value[key] for key in inner[name] if key in value}
            arguments[name] = from_json(hints[name], {**standard, **given}, what)
        elif name in value:
            arguments[name] = _convert(hints[name], value[name], f"{name!r} in the {what}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RequestError(f"the {what} has no {name!r}", f"add {name} to it")
    return kind(**arguments)


def check_value(hint: Any, value: Any, name: str, example: Any) -> None:
    """Refuse a value of another type than a parameter has.

    Args:
        hint: The parameter's type.
        value: What was given.
        name: What the parameter is called, such as `filters of cnn`.
        example: A value that it could have, for the hint.

    Raises:
        RequestError: With the type in words, and the example where it says more than that.
    """
    try:
        _convert(hint, value, name)
    except RequestError as error:
        shown = example if not isinstance(example, tuple) else list(example)
        such = f", such as {shown}" if example not in (None, ()) else ""
        raise RequestError(error.message, f"{name.partition(' ')[0]} is {_in_words(hint)}{such}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    """One JSON value as the type `hint` says, or an error that names where it stands."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        for part in (p for p in parts if p is not type(None)):
            try:
                return _convert(part, value, where)
            except RequestError:
                continue
    elif origin is Literal:
        if value in parts:
            return value
        if isinstance(value, str):
            raise unknown(where, value, [str(p) for p in parts])
    elif origin is tuple and isinstance(value, list | tuple):
        if len(parts) == 2 and parts[1] is Ellipsis:
            return tuple(_convert(parts[0], v, where) for v in value)
        if len(parts) == len(value):
            return tuple(_convert(p, v, where) for p, v in zip(parts, value, strict=True))
    elif origin is Sequence:
        if isinstance(value, list | tuple):
            return [_convert(parts[0], v, where) for v in value]
    elif origin in (Mapping, dict) or getattr(origin, "__name__", "") == "Mapping":
        if isinstance(value, Mapping):
            return {str(k): _convert(parts[1], v, where) for k, v in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_json(typing.cast(type, hint), value, where)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise RequestError(f"{where} cannot be {value!r}", f"it is {_in_words(hint)}")


def _in_words(hint: Any) -> str:
    """A type as people say it."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(p) for p in parts)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(p) for p in parts if p is not type(None))
    if typing.get_origin(hint) is not None:
        return "a list" if typing.get_origin(hint) in (tuple, Sequence) else "a table of keys and values"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def csv_escape(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: a leading `= + - @`, tab or return gets an apostrophe before it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def csv_unescape(cell: str) -> str:
    """What `csv_safe` was given."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def command_line(*words: str) -> str:
    """Return words as one line that this system's shell splits into them again.

    Example:
        >>> command_line("sightline", "scan", "photos")
        'sightline scan photos'
    """
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def relative_posix(file: Path, folder: Path) -> str:
    """`file` relative to `folder` with forward slashes, `..` where it must; absolute on another Windows drive."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return Path(file).resolve().as_posix()
