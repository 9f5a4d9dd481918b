"""User-defined networks: `my_net.py:build`, or any Python callable that returns an `nn.Module`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.errors import RequestError, unknown
from sightline.files import is_file
from sightline.store import digest, file_digest

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[..., Any]
_FUNCTION = re.compile(r"^(?P<file>.+\.py):(?P<function>[^\W\d]\w*)$", re.DOTALL)
_MOST_FILES = 500
_callables: dict[str, Builder] = {}
"""Registered callables, by the name that stands for them in records."""


def is_user(name: str) -> bool:
    """Return whether a name means a user-defined network."""
    return name in _callables or _FUNCTION.match(name) is not None


def register(build: Builder) -> str:
    """Register a callable as a network for this process and return the name that stands for it.

    Raises:
        RequestError: If `build` is not callable.
    """
    if not callable(build):
        raise RequestError(f"a user-defined network must be a function that returns it, not a {type(build).__name__}")
    module, name = getattr(build, "__module__", ""), getattr(build, "__qualname__", type(build).__name__)
    name = f"{module}:{name}"
    if _callables.get(name, build) is not build:
        name = f"{name}#{1 + sum(n.partition('#')[0] == name for n in _callables)}"
    _callables[name] = build
    return name


def code_identity(name: str) -> str | None:
    """Return a hash of the code of `file.py:function`: the file and the .py files in its folder. None for a callable."""
    match = _FUNCTION.match(name)
    if name in _callables or match is None:
        return None
    file = _existing(Path(match["file"]))
    neighbours = sorted(file.parent.glob("*.py"))[:_MOST_FILES]
    return digest([file_digest(file), match["function"], [[p.name, file_digest(p)] for p in neighbours if p.is_file()]])


def build(name: str, image_size: int | None = None, classes: int | None = None) -> nn.Module:
    """Build a user-defined network. Its function gets `image_size` and `classes` if it has parameters of those names.

    Args:
        name: `file.py:function`, or a name that `register` returned.
        image_size: Side of the square input in px; None for the function's default.
        classes: Number of classes; None for the function's default.

    Raises:
        RequestError: If the file or the function is missing, or the function needs other arguments, fails, or does not return
            an `nn.Module`.
    """
    from torch import nn

    match = _FUNCTION.match(name)
    if name in _callables:
        network = _call(_callables[name], name, image_size=image_size, classes=classes)
    elif match is not None:
        file = _existing(Path(match["file"]))
        with _importable(file.parent):
            network = _call(_function(file, match["function"]), name, image_size=image_size, classes=classes)
    else:
        hint = "register it again in this process, or name it as file.py:function"
        raise RequestError(f"the code of the network {name!r} is not known here", hint)
    if not isinstance(network, nn.Module):
        raise RequestError(f"{name} returns a {type(network).__name__}", "it must return a torch.nn.Module")
    return network


def _existing(file: Path) -> Path:
    if not is_file(file):
        raise RequestError(f"there is no file {file}", "name a user-defined network as file.py:function")
    return file.resolve()


def _function(file: Path, name: str) -> Builder:
    """Run a Python file and return one of its functions."""
    module_name = f"sightline_user_{hashlib.sha256(str(file).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickling look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(module_name, None)
        raise RequestError(
            f"{file} cannot be run ({type(error).__name__}: {error})", "run it with python to see where"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        defined = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module_name]
        raise unknown(f"function in {file.name}", name, defined)
    return function  # type: ignore[no-any-return]


def _call(function: Builder, name: str, **options: int | None) -> Any:
    """Call a function with the options that it has parameters for."""
    arguments: dict[str, Any] = {}
    with contextlib.suppress(TypeError, ValueError):
        parameters = inspect.signature(function).parameters
        arguments = {key: value for key, value in options.items() if value is not None and key in parameters}
    try:
        return function(**arguments)
    except Exception as error:
        hint = "Sightline passes only image_size and classes, if the function has parameters of those names"
        raise RequestError(f"{name} fails ({type(error).__name__}: {error})", hint) from error


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make the modules of a folder importable inside the block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
