"""Weight files: locate them, read their tensors, and check that they fit a network. Only reading a file imports torch."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sightline.errors import WeightsError
from sightline.files import is_file, open_regular
from sightline.store import Cache, digest, file_digest

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "SIGHTLINE_WEIGHTS"
SUFFIXES = (".safetensors", ".pth")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.", "aux_head.")
"""Prefixes of auxiliary heads, used only in training, in the files of the Inception networks."""
_SHOWN = 4


def folders() -> list[Path]:
    """Return the folders listed in the environment variable SIGHTLINE_WEIGHTS, in order."""
    return [Path(f) for f in os.environ.get(VARIABLE, "").split(os.pathsep) if f]


def look_up(name: str) -> Path | None:
    """Return `NAME.safetensors`, else `NAME.pth`, from the folders of SIGHTLINE_WEIGHTS; None if neither exists."""
    names = [name] if name.endswith(SUFFIXES) else [name + s for s in SUFFIXES]
    for file in names:
        for folder in folders():
            if (folder / file).is_file():
                return folder / file
    return None


def identity(file: Path, cache: Cache) -> str:
    """Return the SHA-256 of a file, cached by its path, size and modification time."""
    status = file.stat()
    key = digest([str(file.resolve()), status.st_size, status.st_mtime_ns])
    return str(cache.remember(f"networks/files/{key}", lambda: file_digest(file)))


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of the names, types, shapes and values of tensors, independent of their order; "" without tensors."""
    if not tensors:
        return ""
    total = hashlib.sha256()
    for name in sorted(tensors):
        values = np.asarray(tensors[name], order="C")
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        head = f"{name}\0{values.dtype.str}\0".encode() + struct.pack(f"<{values.ndim + 1}q", values.ndim, *values.shape)
        total.update(head)
        total.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def where_to_get(name: str, url: str) -> str:
    """Return the hint for weights that are missing and cannot be downloaded."""
    source = f"get {url}, save it" if url else "save a file of its weights"
    suffix = ".pth" if url.endswith(".pth") else ".safetensors"
    return (
        f"{source} as {name}{suffix} in a folder, and set {VARIABLE} to that folder; or use --weights FILE or --weights random"
    )


# ---------------------------------------------------------------------------------------------------------------- reading


def read(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without wrappers such as `state_dict` or `module.`. Never runs code from the file.

    Raises:
        WeightsError: If the file does not exist, is damaged, or holds anything but tensors.
    """
    if not is_file(file):
        raise WeightsError(f"weights file {file} not found", "give a .safetensors or .pth file")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return unwrapped(load_file(file), file.name)
        except (SafetensorError, ValueError, OSError) as error:
            raise WeightsError(f"{file} is damaged or not a safetensors file ({error})", "download it again") from error
    try:
        with io.BufferedReader(open_regular(file)) as stream:
            return read_pickle(stream, file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error})", "check the path and its permissions") from error


def read_pickle(stream: IO[bytes], file: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` file by name, as `read` does, from an open stream.

    Args:
        stream: The file's content.
        file: Path of the file, for error messages.

    Raises:
        WeightsError: If the file is damaged, or holds anything but tensors.
    """
    import pickle

    import torch

    try:
        state = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        hint = "on a machine where you trust it, save its state_dict() with torch.save or as .safetensors"
        raise WeightsError(f"{file} refused: it holds more than tensors, so that reading it would run code", hint) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        line = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{file} is damaged or not a weights file ({line})", "download it again") from error
    return unwrapped(state, file.name)


def unwrapped(state: Any, filename: str) -> dict[str, Tensor]:
    """Return the tensors by name, without the dictionaries and key prefixes that training programs wrap around them.

    Raises:
        WeightsError: If there are values other than tensors, or no tensors.
    """
    import torch

    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    hint = "save the network's state_dict()"
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{filename} does not hold tensors by name", hint)
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise WeightsError(f"{filename} does not hold tensors by name ({str(key)!r} is not a tensor)", hint)
    tensors = {str(k): v for k, v in state.items()}
    for prefix in _PREFIXES:
        if all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


# ---------------------------------------------------------------------------------------------------------------- fitting


def fit(
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    source: str,
    *,
    classifier: Sequence[str] = (),
    renamings: Sequence[Callable[[dict[str, Tensor]], dict[str, Tensor] | None]] = (),
) -> dict[str, Tensor]:
    """Match a file's tensors to a network's, and convert them to its types and shapes.

    Args:
        expected: The network's tensors, which give names, shapes and types.
        state: The file's tensors.
        source: The file, for error messages.
        classifier: Names of modules whose tensors may be missing from the file or from the network.
        renamings: Functions that rename the file's tensors or return None; tried in order if the names do not match.

    Returns:
        Every expected tensor that the file has, in the network's type (float16 becomes float32).

    Raises:
        WeightsError: If a tensor is missing, unexpected or misshaped, or holds NaN or infinity.
    """
    needed = {k: v for k, v in expected.items() if not k.endswith("num_batches_tracked")}
    best = _relevant(state, needed, classifier)
    if _mismatches(needed, best, classifier):
        for rename in renamings:
            renamed = rename(dict(state))
            candidate = None if renamed is None else _relevant(renamed, needed, classifier)
            if candidate is None:
                continue
            if len(_mismatches(needed, candidate, classifier)) < len(_mismatches(needed, best, classifier)):
                best = candidate
    mismatches = _mismatches(needed, best, classifier)
    if mismatches:
        more = f", and {len(mismatches) - _SHOWN} more" if len(mismatches) > _SHOWN else ""
        hint = "check that the file belongs to this network"
        raise WeightsError(f"{source} does not fit: {'; '.join(mismatches[:_SHOWN])}{more}", hint)
    fitted: dict[str, Tensor] = {}
    for name, tensor in best.items():
        value = tensor.to(needed[name].dtype).reshape(needed[name].shape)
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{source} holds NaN or infinity in the tensor {name}", "download the file again")
        fitted[name] = value
    return fitted


def _within(name: str, modules: Sequence[str]) -> bool:
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def _relevant(state: Mapping[str, Tensor], needed: Mapping[str, Tensor], classifier: Sequence[str]) -> dict[str, Tensor]:
    """Drop batch counters, auxiliary heads, and a classifier that the network does not have."""
    return {
        k: v
        for k, v in state.items()
        if not k.endswith("num_batches_tracked") and (k in needed or not (_within(k, classifier) or k.startswith(_AUXILIARY)))
    }


def _mismatches(needed: Mapping[str, Tensor], state: Mapping[str, Tensor], classifier: Sequence[str]) -> list[str]:
    """Describe tensors with wrong shapes, missing tensors and unexpected tensors, for an error message."""
    missing = [f"{k} is missing" for k in needed if k not in state and not _within(k, classifier)]
    misshaped = [
        f"{k} has shape {tuple(v.shape)}, not {tuple(needed[k].shape)}"
        for k, v in state.items()
        if k in needed and not _same_shape(tuple(v.shape), tuple(needed[k].shape))
    ]
    unexpected = [f"{k} is unexpected" for k in state if k not in needed]
    return [*misshaped, *missing, *unexpected]


def _same_shape(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Compare shapes without trailing ones, since a 1×1 convolution is a linear layer."""

    def trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
        while shape and shape[-1] == 1:
            shape = shape[:-1]
        return shape

    return trimmed(a) == trimmed(b)
