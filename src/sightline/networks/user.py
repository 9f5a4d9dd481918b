"""Networks of the user's own: `my_net.py:build`, or any Python callable that returns an `nn.Module`."""

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
_SEEN_FILES = 500
_callables: dict[str, Builder] = {}
"""The callables that this process was given, by the name that stands for them in records."""


def is_user(name: str) -> bool:
    """Whether a name means a network of the user's own."""
    return name in _callables or _FUNCTION.match(name) is not None


def register(build: Builder) -> str:
    """The name that stands for a callable in this process.

    Raises:
        RequestError: It cannot be called.
    """
    if not callable(build):
        raise RequestError(f"a network of your own is a function that returns it, not a {type(build).__name__}")
    module, name = getattr(build, "__module__", ""), getattr(build, "__qualname__", type(build).__name__)
    name = f"{module}:{name}"
    if _callables.get(name, build) is not build:
        name = f"{name}#{1 + sum(n.partition('#')[0] == name for n in _callables)}"
    _callables[name] = build
    return name


def code_identity(name: str) -> str | None:
    """A hash of the code behind `file.py:function`: that file and those beside it. None for a callable of this process."""
    found = _FUNCTION.match(name)
    if name in _callables or found is None:
        return None
    file = _existing(Path(found["file"]))
    beside = sorted(file.parent.glob("*.py"))[:_SEEN_FILES]
    return digest([file_digest(file), found["function"], [[p.name, file_digest(p)] for p in beside if p.is_file()]])


def build(name: str, image_size: int | None = None, classes: int | None = None) -> nn.Module:
    """Call the user's function. It gets `image_size` and `classes` where it takes parameters of those names.

    Args:
        name: `file.py:function`, or what `register` gave.
        image_size: Side of the square that the network will see, None for its own.
        classes: How many classes it is to tell apart, None for its own number.

    Raises:
        RequestError: The file or the function is missing, it needs arguments, fails, or returns no `nn.Module`.
    """
    from torch import nn

    found = _FUNCTION.match(name)
    if name in _callables:
        network = _call(_callables[name], name, image_size=image_size, classes=classes)
    elif found is not None:
        file = _existing(Path(found["file"]))
        with _beside(file.parent):
            network = _call(_function(file, found["function"]), name, image_size=image_size, classes=classes)
    else:
        hint = "register it again in this process, or name it as file.py:function"
        raise RequestError(f"the code of the network {name!r} is not known here", hint)
    if not isinstance(network, nn.Module):
        raise RequestError(f"{name} returns a {type(network).__name__}", "it must return a torch.nn.Module")
    return network


def _existing(file: Path) -> Path:
    if not is_file(file):
        raise RequestError(f"there is no file {file}", "name your network as file.py:function")
    return file.resolve()


def _function(file: Path, name: str) -> Builder:
    """A function of a Python file, which is run."""
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
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module_name]
        raise unknown(f"function in {file.name}", name, own)
    return function  # type: ignore[no-any-return]


def _call(function: Builder, name: str, **wishes: int | None) -> Any:
    arguments: dict[str, Any] = {}
    with contextlib.suppress(TypeError, ValueError):
        takes = inspect.signature(function).parameters
        arguments = {key: value for key, value in wishes.items() if value is not None and key in takes}
    try:
        return function(**arguments)
    except Exception as error:
        hint = "it is called without arguments, or with image_size and classes where it takes those"
        raise RequestError(f"{name} fails ({type(error).__name__}: {error})", hint) from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Let the user's file import what lies beside it, for the block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
