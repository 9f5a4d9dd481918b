"""Schema checks: build dataclasses from JSON or TOML with every key and type checked; escape CSV cells for spreadsheets."""

from __future__ import annotations

import dataclasses
import functools
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
"""Metadata of a dataclass field that is a nested record whose keys are written at the level of the outer dataclass. The field's
default provides the values of the keys that are absent."""


def from_json(kind: type[T], value: Mapping[str, Any], what: str, noun: str = "setting") -> T:
    """Build a dataclass instance from JSON types, and check every key and type.

    Args:
        kind: A dataclass. Keys of a nested record marked with `BESIDE` are at the level of its own keys.
        value: The result of `store.plain` for such a record; absent keys take their defaults.
        what: Name of the input for messages, such as "recipe".
        noun: Word for a key in messages.

    Raises:
        RequestError: If a key is unknown (with the closest match) or missing, or a value has another type.
    """
    return kind(**arguments(kind, value, what, noun))


def arguments(kind: Any, value: Mapping[str, Any], what: str, noun: str = "setting") -> dict[str, Any]:
    """Return the checked constructor arguments of a record; see `from_json`."""
    hints, fields, inner, keys = _layout(kind)
    known = [key for name in fields for key in inner.get(name, [keys[name]])]
    for key in value:
        if key not in known:
            raise unknown(f"{noun} in the {what}", key, known)
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        key = keys[name]
        if name in inner:
            defaults = {k: getattr(spec.default, k) for k in inner[name]}
            settings = {k: value[k] for k in inner[name] if k in value}
            values[name] = from_json(hints[name], {**defaults, **settings}, what, noun)
        elif key in value:
            values[name] = _convert(hints[name], value[key], f"{key!r} in the {what}", noun)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise RequestError(f"the {what} has no {key!r}", f"add {key} to it")
    return values


def json_key(key: str) -> Mapping[str, Any]:
    """Return the metadata of a dataclass field that is written to JSON under `key`, whatever the attribute is called."""
    return types.MappingProxyType({"key": key})


def to_json(record: Any) -> Any:
    """Return a record as the mapping that `from_json` reads, with all its fields."""
    if hasattr(record, "to_json"):
        return record.to_json()
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return fields_to_json(record)
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    return record


def fields_to_json(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass under their JSON keys; see `to_json`."""
    kind: Any = type(record)
    return {key: to_json(getattr(record, name)) for name, key in _layout(kind)[3].items()}


def json_keys(kind: Any) -> list[str]:
    """Return the JSON keys of a dataclass, in the order of its fields."""
    return list(_layout(kind)[3].values())


@functools.cache
def _layout(kind: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, list[str]], dict[str, str]]:
    """Return the type hints, fields, inner records (`BESIDE`) and JSON keys of a dataclass, by attribute name."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    inner = {name: [f.name for f in dataclasses.fields(hints[name])] for name, f in fields.items() if f.metadata == BESIDE}
    keys = {name: f.metadata.get("key", name) for name, f in fields.items()}
    return hints, fields, inner, keys


def check_value(hint: Any, value: Any, name: str, example: Any) -> None:
    """Check that a value has the type of a parameter.

    Args:
        hint: Type of the parameter.
        value: Value to check.
        name: Name of the parameter for messages, such as `filters of cnn`.
        example: A valid value for the hint; None or () adds none.

    Raises:
        RequestError: If the value has another type; the hint describes the type.
    """
    try:
        _convert(hint, value, name)
    except RequestError as error:
        shown = example if not isinstance(example, tuple) else list(example)
        such = f", such as {shown}" if example not in (None, ()) else ""
        raise RequestError(error.message, f"{name.partition(' ')[0]} is {_in_words(hint)}{such}") from None


def _convert(hint: Any, value: Any, where: str, noun: str = "setting") -> Any:
    """Convert a JSON value to the type `hint`; raise a `RequestError` that names `where` if it has another type."""
    if type(value) is hint and hint in _SCALARS:
        return value
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        some = [p for p in parts if p is not type(None)]
        if len(some) == 1 and typing.get_origin(some[0]) is not Literal:
            return _convert(some[0], value, where, noun)
        for part in some:
            try:
                return _convert(part, value, where, noun)
            except RequestError:
                continue
    elif origin is Literal:
        if value in parts:
            return value
        if isinstance(value, str):
            raise unknown(where, value, [str(p) for p in parts])
    elif origin is tuple and isinstance(value, list | tuple):
        if len(parts) == 2 and parts[1] is Ellipsis:
            return tuple(_convert(parts[0], v, where, noun) for v in value)
        if len(parts) == len(value):
            return tuple(_convert(p, v, where, noun) for p, v in zip(parts, value, strict=True))
    elif origin is Sequence:
        if isinstance(value, list | tuple):
            if parts[0] in _SCALARS and all(type(v) is parts[0] for v in value):  # confusion matrices have many cells
                return list(value)
            return [_convert(parts[0], v, where, noun) for v in value]
    elif origin in (Mapping, dict) or getattr(origin, "__name__", "") == "Mapping":
        if isinstance(value, Mapping):
            return {str(k): _convert(parts[1], v, where, noun) for k, v in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        if hasattr(hint, "from_json"):
            return hint.from_json(value, where)
        return from_json(typing.cast(type, hint), value, where, noun)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise RequestError(f"{where} cannot be {value!r}", f"it is {_in_words(hint)}")


_SCALARS = (int, float, str, bool)


def _in_words(hint: Any) -> str:
    """Return the description of a type for a message."""
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
    """Return a cell that no spreadsheet runs as a formula: put an apostrophe before a leading `= + - @`, tab or return."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def csv_unescape(cell: str) -> str:
    """Undo `csv_escape`."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def command_line(*words: str) -> str:
    """Return a command line that this system's shell splits into these words.

    Example:
        >>> command_line("sightline", "scan", "photos")
        'sightline scan photos'
    """
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return shlex.join(words)


def relative_posix(file: Path, folder: Path) -> str:
    """Return `file` relative to `folder` with forward slashes, with `..` if needed; absolute if on another Windows drive."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return Path(file).resolve().as_posix()
