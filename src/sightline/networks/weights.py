"""Files of weights: where they lie, what they hold, whether they fit. Importing this costs no torch; reading a file does."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""Heads that only training used, in the files of the Inception networks."""
_SHOWN = 4


def folders() -> list[Path]:
    """The folders that `SIGHTLINE_WEIGHTS` names, in order."""
    return [Path(f) for f in os.environ.get(VARIABLE, "").split(os.pathsep) if f]


def look_up(name: str) -> Path | None:
    """The file of a network's weights in the named folders: `NAME.safetensors`, else `NAME.pth`; None where there is none."""
    names = [name] if name.endswith(SUFFIXES) else [name + s for s in SUFFIXES]
    for file in names:
        for folder in folders():
            if (folder / file).is_file():
                return folder / file
    return None


def identity(file: Path, cache: Cache) -> str:
    """The SHA-256 of a file's bytes; computed once for a file of that size and time."""
    status = file.stat()
    key = digest([str(file.resolve()), status.st_size, status.st_mtime_ns])
    return str(cache.remember(f"networks/files/{key}", lambda: file_digest(file)))


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of tensors: name, type, shape and bytes of each, by name; "" where there are none. The order does not matter."""
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
    """What to do when weights are absent and there is no network."""
    source = f"get {url}, save it" if url else "save a file of its weights"
    suffix = ".pth" if url.endswith(".pth") else ".safetensors"
    return (
        f"{source} as {name}{suffix} in a folder, and set {VARIABLE} to that folder; or use --weights FILE or --weights random"
    )


# ---------------------------------------------------------------------------------------------------------------- reading


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, wrappers (`state_dict`, `module.`) taken off. Never runs code from it.

    Raises:
        WeightsError: There is no such file, it is damaged, or it holds something else than tensors.
    """
    if not is_file(file):
        raise WeightsError(f"there is no file of weights {file}", "name a .safetensors or .pth file")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return unwrapped(load_file(file), file.name)
        except (SafetensorError, ValueError, OSError) as error:
            raise WeightsError(f"{file} is damaged or no safetensors file ({error})", "get it again") from error
    import pickle

    import torch

    try:
        with io.BufferedReader(open_regular(file)) as stream:
            found = torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        hint = "save its state_dict() with torch.save, or as .safetensors, where you trust it"
        raise WeightsError(f"{file} holds more than tensors, and reading it would run code; it is refused", hint) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        line = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{file} is damaged or no file of weights ({line})", "get it again") from error
    return unwrapped(found, file.name)


def unwrapped(found: Any, what: str) -> dict[str, Tensor]:
    """The tensors inside what training programs save around them.

    Raises:
        WeightsError: There are none.
    """
    import torch

    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        odd = (
            next((str(k) for k, v in found.items() if not isinstance(v, torch.Tensor)), "")
            if isinstance(found, Mapping)
            else ""
        )
        where = f" ({odd!r} is none)" if odd else ""
        raise WeightsError(f"{what} does not hold tensors by name{where}", "save the network's state_dict()")
    tensors = {str(k): v for k, v in found.items()}
    for prefix in _PREFIXES:
        if all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


# ---------------------------------------------------------------------------------------------------------------- fitting


def fit(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    what: str,
    *,
    classifier: Sequence[str] = (),
    renamings: Sequence[Callable[[dict[str, Tensor]], dict[str, Tensor] | None]] = (),
) -> dict[str, Tensor]:
    """The tensors of a file as a network takes them, or an error that names the first ones that do not fit.

    Args:
        expected: The network's own tensors: names, shapes, types.
        found: The file's.
        what: The file, for messages.
        classifier: Modules whose tensors the file may bring though the network has none, and that it may leave out.
        renamings: Tried in order where the names do not fit as they are.

    Returns:
        Every expected tensor that the file has, in the network's own type (float16 becomes float32).

    Raises:
        WeightsError: A tensor is missing, extra, misshaped, or holds NaN or infinity.
    """
    wanted = {k: v for k, v in expected.items() if not k.endswith("num_batches_tracked")}
    best = _relevant(found, wanted, classifier)
    if _misfits(wanted, best, classifier):
        for rename in renamings:
            other = rename(dict(found))
            candidate = None if other is None else _relevant(other, wanted, classifier)
            if candidate is not None and len(_misfits(wanted, candidate, classifier)) < len(_misfits(wanted, best, classifier)):
                best = candidate
    wrong = _misfits(wanted, best, classifier)
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        hint = "is it the file of this very network?"
        raise WeightsError(f"{what} does not fit: {'; '.join(wrong[:_SHOWN])}{more}", hint)
    fitted: dict[str, Tensor] = {}
    for name, tensor in best.items():
        value = tensor.to(wanted[name].dtype).reshape(wanted[name].shape)
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{what} holds NaN or infinity in the tensor {name}", "get the file again")
        fitted[name] = value
    return fitted


def _within(name: str, modules: Sequence[str]) -> bool:
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def _relevant(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], classifier: Sequence[str]) -> dict[str, Tensor]:
    """Without counters, training-only heads, and a classifier that the network does not have."""
    return {
        k: v
        for k, v in found.items()
        if not k.endswith("num_batches_tracked") and (k in wanted or not (_within(k, classifier) or k.startswith(_AUXILIARY)))
    }


def _misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], classifier: Sequence[str]) -> list[str]:
    """What does not fit, in words."""
    missing = [f"{k} is missing" for k in wanted if k not in found and not _within(k, classifier)]
    shaped = [
        f"{k} is {tuple(v.shape)}, not {tuple(wanted[k].shape)}"
        for k, v in found.items()
        if k in wanted and not _same_shape(tuple(v.shape), tuple(wanted[k].shape))
    ]
    extra = [f"{k} is extra" for k in found if k not in wanted]
    return [*shaped, *missing, *extra]


def _same_shape(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Equal, ones at the end aside: a 1×1 convolution is a linear layer."""

    def bare(shape: tuple[int, ...]) -> tuple[int, ...]:
        while shape and shape[-1] == 1:
            shape = shape[:-1]
        return shape

    return bare(a) == bare(b)
