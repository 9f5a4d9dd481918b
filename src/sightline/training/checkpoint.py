"""A training on disk: written whole, never pickled, resumed to the same bits, refused where it is another training's.

A checkpoint is one `.safetensors` file: tensors under `network/…`, `optimizer/…`, `best/…` and so on; in its metadata, as JSON,
counters, history, what the training is, the machine, and a checksum of the tensors.
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
from sightline.training.hardware import machine
from sightline.training.process_group import ALONE, ProcessGroup
from sightline.training.state import State, packed, unpack

FILE, BEFORE = "state.safetensors", "before.safetensors"
"""In a checkpoint's folder: the training as it stands, and the end of an earlier one that it goes on from."""
EVERY_S = 180.0
"""In the midst of an epoch a checkpoint is written after so long."""
SHARE = 0.05
"""At an epoch's end one is written unless writing would take more than this share of the time."""
VERSION = 2
_KEY = "sightline"
_WORDS = {"train": "the training images", "val": "the validation images", "network": "the network's layers"}


# ------------------------------------------------------------------------------------------------------------------ files


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write(file: Path, state: State, facts: Mapping[str, Any]) -> None:
    """Write a training whole: a reader sees the old file or the new one."""
    tensors, own = packed(state)
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    known = {"version": VERSION, **facts, **own, "checksum": _checksum(flat)}
    write_bytes(file, save(flat, metadata={_KEY: json.dumps(plain(known))}))


def read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A training's tensors and facts.

    Raises:
        FailedWorkError: The file is damaged, or of another version.
    """
    hint = "begin anew in another folder, or without --resume"
    try:
        with safe_open(file, framework="pt") as opened:
            facts: dict[str, Any] = json.loads((opened.metadata() or {})[_KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise FailedWorkError(f"the checkpoint {file} cannot be read ({error})", hint) from error
    if facts.get("version") != VERSION:
        raise FailedWorkError(f"the checkpoint {file} is of version {facts.get('version')}, not {VERSION}", hint)
    if facts["checksum"] != _checksum(tensors):
        raise FailedWorkError(f"the checkpoint {file} is damaged: its checksum is another one", hint)
    return tensors, facts


def planned_epochs(folder: Path) -> int | None:
    """For how many epochs the training that a folder holds was laid out; None where it holds none.

    Raises:
        FailedWorkError: Its file is damaged.
    """
    file = folder / FILE
    return int(read(file)[1]["identity"]["plan"]["epochs"]) if file.is_file() else None


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two values of JSON's types differ, in words.

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
    """What keeps a training on disk while it goes on, and lets Ctrl-C and SIGTERM wait for the end of a step.

    Args:
        state: The training, as it begins.
        folder: Where it is kept; None keeps nothing.
        identity: What the training is: plan, data, network.
        device: Where it runs.
        ranks: The processes that it runs on; the first one alone writes, and a signal to one is one to all.
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
        self._cost_s, self._asked = 0.0, 0
        self._handlers: dict[int, Any] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[Keeper]:
        """Go on where the folder holds a training; keep this one until the block ends."""
        threads = torch.get_num_threads()
        try:
            self._begin()
            self._began = self._wrote = time.monotonic()
            self._listen()
            yield self
        finally:
            self._hush()
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)

    @property
    def seconds(self) -> float:
        """What the training has taken, all processes together."""
        return self.state.seconds + self.elapsed()

    def elapsed(self) -> float:
        """What this process has taken, in seconds."""
        return time.monotonic() - self._began

    def after_step(self) -> None:
        """Write where it is time; give way to a signal that has come."""
        self._agree()
        if self.folder is not None and (self._asked or time.monotonic() - self._wrote >= EVERY_S):
            self.write()
        self._obey()

    def after_epoch(self) -> None:
        """Write, unless that would take more than its share of the time; give way to a signal."""
        self._agree()
        if self.folder is not None and (self._asked or time.monotonic() - self._wrote >= self._cost_s / SHARE):
            self.write()
        self._obey()

    def write(self) -> None:
        """Write the training as it stands. A full disk costs the checkpoint, not the training."""
        if self.folder is None or not self.ranks.first:
            return
        began = time.monotonic()
        facts = {"identity": self.identity, "machine": machine(self.device), "seconds": self.seconds}
        try:
            write(self.folder / FILE, self.state, facts)
        except OSError as error:
            log.warning("no checkpoint can be written to %s (%s); training goes on", self.folder, error.strerror or error)
        self._wrote = time.monotonic()
        self._cost_s = self._wrote - began

    def _begin(self) -> None:
        """Fill the state with what the folder holds."""
        if self.folder is None:
            return
        if (self.folder / FILE).is_file():
            self._resume(*read(self.folder / FILE))
        elif (self.folder / BEFORE).is_file():
            self._go_on(*read(self.folder / BEFORE))

    def _resume(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on at the very step.

        Raises:
            RequestError: It is another training.
        """
        found = differences(facts["identity"], self.identity)
        if found:
            raise RequestError(
                f"the training kept in {self.folder} differs in {'; '.join(found[:6])}",
                "go on with the same recipe and images, or begin anew without --resume",
            )
        unpack(self.state, tensors, facts)
        self.state.seconds = facts["seconds"]
        before = facts["machine"]
        if before["threads"] <= _cores():
            torch.set_num_threads(before["threads"])  # sums are split by the number of threads
        other = differences(before, machine(self.device))
        if other:
            note = f"resumed on other terms ({'; '.join(other)}): the last bits cannot match an uninterrupted training's"
            log.warning("%s", note)
            self.state.notes.append(note)

    def _go_on(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Learn on from the end of an earlier training.

        Raises:
            RequestError: Its network is another one.
        """
        old, new = facts["identity"], self.identity
        if old["network"] != new["network"]:
            raise RequestError(
                "the run that is to be continued has a network of other layers", "keep its network, image size and classes"
            )
        same_optimizer = old["optimizer"] == new["optimizer"] and old["plan"]["optimizer"] == new["plan"]["optimizer"]
        kept = {name: t for name, t in tensors.items() if same_optimizer or not name.startswith("optimizer/")}
        state = self.state
        unpack(state, kept, {**facts, "notes": [], "slowed": 1.0, "pieces": 1})
        state.seconds = state.first_seconds = facts["seconds"]
        state.first_epoch, state.first_step = state.epoch, state.step
        state.notes.append(f"goes on after epoch {state.epoch} of an earlier run")
        if not same_optimizer:
            state.notes.append("the optimizer begins anew, as it is another one")
        if old["val"] != new["val"] or old["plan"]["keep"] != new["plan"]["keep"]:
            state.compared_from, state.best_epoch = state.epoch, 0
            state.notes.append("earlier epochs were judged in another way, so that the best of the new ones is kept")

    # ------------------------------------------------------------------------------------------------------------- signals

    def _listen(self) -> None:
        """Take note of Ctrl-C and SIGTERM instead of falling where one stands."""
        if self.folder is not None and threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._take_note)

    def _take_note(self, number: int, frame: Any) -> None:
        """The first signal waits for the end of the step; one more does not, unless others wait for this one in that step:
        Ctrl-C comes from the terminal and from torchrun."""
        again, self._asked = bool(self._asked), number
        if again and self.ranks.count == 1:
            self._hush()
            signal.raise_signal(number)

    def _agree(self) -> None:
        """Let all processes give way after the same step."""
        if self.ranks.count > 1 and self.ranks.any(bool(self._asked)):
            self._asked = self._asked or signal.SIGTERM

    def _hush(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _obey(self) -> None:
        """Let a signal that has come do what it would have done."""
        if self._asked:
            number, self._asked = self._asked, 0
            self._hush()
            signal.raise_signal(number)


def _cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forget(folder: Path) -> None:
    """Remove what an earlier training left in a checkpoint's folder and in those below it."""
    for name in (FILE, BEFORE):
        for file in folder.rglob(name):
            file.unlink()


def hand_on(source: Path, target: Path) -> int:
    """Copy the end of a finished training to where a new one looks for what it goes on from. Returns how many there were."""
    found = sorted(source.rglob(FILE))
    for file in found:
        with open_regular(file) as old, atomic_file(target / file.relative_to(source).with_name(BEFORE)) as new:
            shutil.copyfileobj(old, new)
    return len(found)
