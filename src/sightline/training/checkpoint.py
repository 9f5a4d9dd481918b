"""Checkpoints: save a training atomically, and resume it to the same bits; a checkpoint of another training is refused.

A checkpoint is one `.safetensors` file: tensors under `network/…`, `optimizer/…`, `best/…` and so on; its metadata holds, as
JSON, counters, history, the identity of the training, the machine, and a checksum of the tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sightline.errors import FailedWorkError, RequestError
from sightline.files import open_regular
from sightline.store import atomic_file, log, plain, write_bytes
from sightline.training import precision
from sightline.training.hardware import machine
from sightline.training.process_group import ALONE, ProcessGroup
from sightline.training.state import State, packed, unpack

FILE, BEFORE = "state.safetensors", "before.safetensors"
"""Files in a checkpoint folder: the state of this training, and the final state of an earlier one that it continues."""
EVERY_S = 180.0
"""Interval of checkpoints within an epoch, in seconds."""
SHARE = 0.05
"""Largest share of the time for writing checkpoints at the ends of epochs."""
VERSION = 2
_KEY = "sightline"
_WORDS = {"train": "the training images", "val": "the validation images", "network": "the network's layers"}


# ------------------------------------------------------------------------------------------------------------------ files


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write(file: Path, state: State, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    tensors, counters = packed(state)
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    known = {"version": VERSION, **facts, **counters, "checksum": _checksum(flat)}
    write_bytes(file, save(flat, metadata={_KEY: json.dumps(plain(known))}))


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata of a checkpoint.

    Raises:
        FailedWorkError: If the file is damaged or has another version.
    """
    hint = "start again in another folder, or without --resume"
    try:
        with safe_open(file, framework="pt") as opened:
            facts: dict[str, Any] = json.loads((opened.metadata() or {})[_KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise FailedWorkError(f"the checkpoint {file} cannot be read ({error})", hint) from error
    if facts.get("version") != VERSION:
        raise FailedWorkError(f"the checkpoint {file} has version {facts.get('version')}, not {VERSION}", hint)
    if facts["checksum"] != _checksum(tensors):
        raise FailedWorkError(f"the checkpoint {file} is damaged: its checksum does not match", hint)
    return tensors, facts


def planned_epochs(folder: Path) -> int | None:
    """Return the planned number of epochs of the training in a folder; None if the folder holds no checkpoint.

    Raises:
        FailedWorkError: If the file is damaged.
    """
    file = folder / FILE
    return int(read(file)[1]["identity"]["plan"]["epochs"]) if file.is_file() else None


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Describe the differences between two JSON values.

    Example:
        >>> differences({"plan": {"epochs": 3, "mixup": 0.0}, "seed": 0}, {"plan": {"epochs": 4, "mixup": 0.0}, "seed": 0})
        ['epochs 3, now 4']
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [text for key in keys for text in differences(old.get(key), new.get(key), str(key))]
    if old == new:
        return []
    return [_WORDS[name] if name in _WORDS else f"{name} {_short(old)}, now {_short(new)}"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ----------------------------------------------------------------------------------------------------- while a network learns


class Keeper:
    """Writer of checkpoints during a training; it delays Ctrl-C and SIGTERM to the end of a step.

    Args:
        state: State of the training.
        folder: Folder of the checkpoint; None writes none.
        identity: Identity of the training: plan, data, network.
        device: Device of the training.
        ranks: Processes of the training; the first one alone writes, and a signal to one of them stops all.
    """

    def __init__(
        self,
        state: State,
        folder: Path | None,
        identity: Mapping[str, Any],
        device: torch.device,
        ranks: ProcessGroup = ALONE,
    ) -> None:
        self.state, self.folder, self.identity, self.device, self.ranks = state, folder, plain(identity), device, ranks
        self._began = self._wrote = time.monotonic()
        self._cost_s, self._signal = 0.0, 0
        self._handlers: dict[int, Any] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[Keeper]:
        """Resume the training that the folder holds, and handle signals until the block ends."""
        threads = torch.get_num_threads()
        try:
            self._begin()
            self._began = self._wrote = time.monotonic()
            self._set_handlers()
            yield self
        finally:
            self._restore_handlers()
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)

    @property
    def seconds(self) -> float:
        """Duration of the training so far, with that before it was resumed, in seconds."""
        return self.state.seconds + self.elapsed()

    def elapsed(self) -> float:
        """Return the duration in this process, in seconds."""
        return time.monotonic() - self._began

    def after_step(self) -> None:
        """Write a checkpoint if the interval has passed or a signal has arrived, and then raise the signal."""
        self._share_signal()
        if self.folder is not None and (self._signal or time.monotonic() - self._wrote >= EVERY_S):
            self.write()
        self._raise_signal()

    def after_epoch(self) -> None:
        """Write a checkpoint unless that exceeds `SHARE` of the time; then raise a signal that has arrived."""
        self._share_signal()
        if self.folder is not None and (self._signal or time.monotonic() - self._wrote >= self._cost_s / SHARE):
            self.write()
        self._raise_signal()

    def write(self) -> None:
        """Write a checkpoint; training continues if the disk is full."""
        if self.folder is None or not self.ranks.first:
            return
        began = time.monotonic()
        facts = {"identity": self.identity, "machine": machine(self.device), "seconds": self.seconds}
        try:
            write(self.folder / FILE, self.state, facts)
        except OSError as error:
            log.warning("cannot write a checkpoint to %s (%s); training continues", self.folder, error.strerror or error)
        self._wrote = time.monotonic()
        self._cost_s = self._wrote - began

    def _begin(self) -> None:
        """Load the checkpoint that the folder holds into the state."""
        if self.folder is None:
            return
        if (self.folder / FILE).is_file():
            self._resume(*read(self.folder / FILE))
        elif (self.folder / BEFORE).is_file():
            self._continue(*read(self.folder / BEFORE))

    def _resume(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Resume at the step of the checkpoint.

        Raises:
            RequestError: If the checkpoint belongs to another training.
        """
        changes = differences(facts["identity"], self.identity)
        if changes:
            raise RequestError(
                f"the training saved in {self.folder} differs in {'; '.join(changes[:6])}",
                "use the same recipe and images, or start again without --resume",
            )
        unpack(self.state, tensors, facts)
        self.state.seconds = facts["seconds"]
        before = facts["machine"]
        if before["threads"] <= _cores():
            torch.set_num_threads(before["threads"])  # the order of sums depends on the number of threads
        other = differences(before, machine(self.device))
        if other:
            note = f"resumed on another setup ({'; '.join(other)}): results can differ slightly from an uninterrupted training"
            log.warning("%s", note)
            self.state.notes.append(note)

    def _continue(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Continue from the final state of an earlier training.

        Raises:
            RequestError: If its network has other layers.
        """
        old, new = facts["identity"], self.identity
        if old["network"] != new["network"]:
            raise RequestError(
                "the run to continue has a network with other layers", "use the same network, image size and classes"
            )
        same_optimizer = old["optimizer"] == new["optimizer"] and old["plan"]["optimizer"] == new["plan"]["optimizer"]
        loaded = {name: t for name, t in tensors.items() if same_optimizer or not name.startswith("optimizer/")}
        state = self.state
        unpack(state, loaded, {**facts, "notes": [], "slowed": 1.0, "pieces": 1})
        state.seconds = state.first_seconds = facts["seconds"]
        state.first_epoch, state.first_step = state.epoch, state.step
        state.notes.append(f"continues after epoch {state.epoch} of an earlier run")
        if not same_optimizer:
            state.notes.append("the state of the optimizer is reset, since the optimizer or its settings changed")
        if old["val"] != new["val"] or old["plan"]["keep"] != new["plan"]["keep"]:
            state.compared_from, state.best_epoch = state.epoch, 0
            state.notes.append("earlier epochs were evaluated on other images or metrics, so the best of the new ones is kept")

    # ------------------------------------------------------------------------------------------------------------- signals

    def _set_handlers(self) -> None:
        """Record Ctrl-C and SIGTERM instead of stopping at once."""
        if self.folder is not None and threading.current_thread() is threading.main_thread():  # others cannot
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._record_signal)

    def _record_signal(self, number: int, frame: Any) -> None:
        """Record the first signal. A second one stops at once, except in a group of processes, where Ctrl-C arrives twice: from
        the terminal and from torchrun."""
        again, self._signal = bool(self._signal), number
        if again and self.ranks.count == 1:
            self._restore_handlers()
            signal.raise_signal(number)

    def _share_signal(self) -> None:
        """Share a signal among all processes, so that all stop after the same step."""
        if self.ranks.count > 1 and self.ranks.any(bool(self._signal)):
            self._signal = self._signal or signal.SIGTERM

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _raise_signal(self) -> None:
        """Raise a signal that has arrived, with its original handler."""
        if self._signal:
            number, self._signal = self._signal, 0
            self._restore_handlers()
            signal.raise_signal(number)


def _cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forget(folder: Path) -> None:
    """Remove the checkpoints in a folder and its subfolders, and the precisions that were decided."""
    for name in (FILE, BEFORE, precision.FILE):
        for file in folder.rglob(name):
            file.unlink()


def hand_on(source: Path, target: Path) -> int:
    """Copy the checkpoints of a finished training to the folder of one that continues it; return their number."""
    files = sorted(source.rglob(FILE))
    for file in files:
        with open_regular(file) as old, atomic_file(target / file.relative_to(source).with_name(BEFORE)) as new:
            shutil.copyfileobj(old, new)
    return len(files)
