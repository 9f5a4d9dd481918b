"""Progress file: a running command tells other programs how far it is, and stops when one of them asks it to.

The command line enters `reporting`; `runs.folder.lock` attaches the folder that the command writes. From then on its file
`progress.json` is updated about every second, and removed when the command has finished. Of a command that failed or was
interrupted it stays, with the reason and the arguments. A file named `stop` in the folder acts like Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from sightline.errors import RequestError, SightlineError
from sightline.records.progress import CommandProgress, EpochProgress, State, TrainingProgress, epoch_of, finite
from sightline.records.recipe import Learning
from sightline.records.versions import check_version, read_record
from sightline.schema import from_json
from sightline.store import LOCK, OUTPUT_MARK, atomic_file, canonical_json, now, output_folder

NAME = "progress.json"
STOP = "stop"
VARIABLE = "SIGHTLINE_PROGRESS"
"""Environment variable: folder of the progress file until the command knows the folder of its result."""
STARTING = "starting"
"""Stage that who starts a command writes before the command reports itself."""
EVERY_S = 1.0
BEAT_S = 5.0
FRESH_S = 20.0
"""A file that was updated within this time belongs to a running command if its process exists."""
MOST_LINES = 60
MOST_EPOCHS = 2000


class Reporter:
    """Progress of the current command, written by a thread of its own.

    Args:
        command: Arguments after `sightline`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        here = os.getcwd()
        self._progress = CommandProgress(tuple(command), here, platform.node(), os.getpid(), now(), time.time())
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._epochs: list[EpochProgress] = []
        self._stage, self._stage_began = "", time.monotonic()
        self._changed, self._written_at = True, 0.0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self.folders: list[Path] = []
        self._thread: threading.Thread | None = None

    def attach(self, folder: Path) -> None:
        """Write the progress into a folder from now on; an earlier folder is told where it went."""
        with self._lock:
            self.folders.append(folder)
            self._changed = True
            with contextlib.suppress(OSError):
                (folder / STOP).unlink(missing_ok=True)
        self._write()
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="sightline-progress", daemon=True)
            self._thread.start()

    def leave(self, folder: Path) -> None:
        """Remove the progress from a folder in which the command has written nothing else."""
        with self._lock, contextlib.suppress(OSError):
            if {name for name in os.listdir(folder) if not name.startswith(OUTPUT_MARK)} <= {NAME, STOP}:
                self.folders.remove(folder)
                self._remove_files(folder)

    def report(self, stage: str, done: int, total: int) -> None:
        """Take a report of progress, from any thread; as a `records.Progress` callback."""
        learning: Learning | None = getattr(stage, "learning", None)
        name = stage.partition(": ")[0]
        with self._lock:
            if name != self._stage:
                self._stage, self._stage_began = name, time.monotonic()
            self._progress = dataclasses.replace(
                self._progress,
                stage=str(stage),
                done=done,
                total=total,
                stage_s=time.monotonic() - self._stage_began,
                training=None if learning is None else self._training(learning),
            )
            self._changed = True

    def note(self, line: str) -> None:
        """Take a line that the command prints about its plan or results."""
        with self._lock:
            self._lines.append(line)
            self._changed = True

    def end(self, state: State | None, error: str = "", hint: str = "") -> None:
        """Write the final state; without one, the command has finished and the files are removed."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=BEAT_S)
        if not self.folders:
            return
        if state is not None:
            self._progress = dataclasses.replace(self._progress, state=state, error=error, hint=hint)
            self._write()
            return
        for folder in self.folders:
            self._remove_files(folder)

    def _remove_files(self, folder: Path) -> None:
        """Remove the progress file and a request to stop."""
        for name in (NAME, STOP):
            with contextlib.suppress(OSError):
                (folder / name).unlink(missing_ok=True)

    def _training(self, learning: Learning) -> TrainingProgress:
        """Return the state of a training, with the history of its epochs; an earlier epoch begins a new history."""
        last = epoch_of(learning)
        if self._epochs and learning.epoch <= self._epochs[-1].epoch:
            self._epochs = []
        if last is not None and (not self._epochs or self._epochs[-1].epoch < last.epoch):
            self._epochs = [*self._epochs, last][-MOST_EPOCHS:]
        left_s = finite(learning.left_s)
        return TrainingProgress(learning.epoch, learning.epochs, finite(learning.images_s), left_s, tuple(self._epochs))

    def _keep(self) -> None:
        """Write what has changed, and stop the command when the folder has a file `stop`."""
        while not self._ended.wait(EVERY_S):
            if self._changed or time.monotonic() - self._written_at > BEAT_S:
                self._write()
            for folder in list(self.folders):
                if (folder / STOP).exists():
                    with contextlib.suppress(OSError):
                        (folder / STOP).unlink()
                    _interrupt()

    def _write(self) -> None:
        """Write the progress into the last folder, and into the first one where the last one is; failures are ignored."""
        with self._lock:
            self._changed, self._written_at = False, time.monotonic()
            progress = dataclasses.replace(self._progress, updated=time.time(), lines=tuple(self._lines))
            for folder in self.folders:
                elsewhere = "" if folder == self.folders[-1] else str(self.folders[-1].absolute())
                with contextlib.suppress(OSError), atomic_file(folder / NAME, sync=False) as file:
                    file.write(canonical_json(dataclasses.replace(progress, folder=elsewhere)))


def _interrupt() -> None:
    """Act as Ctrl-C does; as SIGTERM does where Ctrl-C is ignored, as of a command that `nohup` started."""
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    signal.raise_signal(signal.SIGTERM if ignored else signal.SIGINT)


_current: ContextVar[Reporter | None] = ContextVar("_current", default=None)


@contextlib.contextmanager
def reporting(command: Sequence[str]) -> Iterator[Reporter]:
    """Report the progress of a command inside the block in the folders that it locks; see `runs.folder.lock`.

    Args:
        command: Its arguments after `sightline`; empty for a call from Python.
    """
    reporter = Reporter(command)
    first = os.environ.pop(VARIABLE, None)  # of this command alone, not of processes that it starts
    if first and not _is_taken(Path(first)):
        reporter.attach(output_folder(Path(first)))
    token = _current.set(reporter)
    try:
        yield reporter
    except SightlineError as error:
        reporter.end("failed", error.message, error.hint or "")
        raise
    except (KeyboardInterrupt, SystemExit):
        reporter.end("interrupted")
        raise
    except BaseException as error:
        reporter.end("failed", f"{type(error).__name__}: {error}")
        raise
    else:
        reporter.end(None)
    finally:
        _current.reset(token)


def _is_taken(folder: Path) -> bool:
    """Return whether another command reports in a folder, apart from the entry of who has started this one."""
    try:
        progress = read(folder)
    except SightlineError:
        return False
    return progress is not None and progress.state == "running" and progress.pid != os.getpid() and progress.stage != STARTING


def attach(folder: Path) -> None:
    """Write the progress of the current command, if it is reported, into a folder."""
    reporter = _current.get()
    if reporter is not None:
        reporter.attach(folder)


def leave(folder: Path) -> None:
    """Remove the progress of the current command from a folder in which it has written nothing else."""
    reporter = _current.get()
    if reporter is not None and folder in reporter.folders:
        reporter.leave(folder)


def note(line: str) -> None:
    """Add a printed line to the progress of the current command."""
    reporter = _current.get()
    if reporter is not None:
        reporter.note(line)


# ------------------------------------------------------------------------------------------------------- other programs


def read(folder: Path) -> CommandProgress | None:
    """Return the progress of a command that writes into a folder or has not finished; None if there is none.

    Of a process that was killed, the state is `interrupted`.

    Raises:
        ModelFileError: If the file is damaged.
        RequestError: If it is of another version.
    """
    file = folder / NAME
    if not file.is_file():
        return None
    value = read_record(file)
    check_version(value, f"file {file}")
    progress = from_json(CommandProgress, value, "progress file", "key")
    if progress.state == "running" and not _runs(progress, folder):
        return dataclasses.replace(progress, state="interrupted")
    return progress


def ask_to_stop(folder: Path) -> None:
    """Ask the command that writes into a folder to stop, as Ctrl-C does; it stops within about two seconds.

    Raises:
        RequestError: If no command runs there.
    """
    progress = read(folder)
    if progress is None or progress.state != "running":
        raise RequestError(f"no command is running in {folder.name}", "load the page again")
    with atomic_file(folder / STOP, sync=False):
        pass


def _runs(progress: CommandProgress, folder: Path) -> bool:
    """Return whether the process of a progress file that says so really runs."""
    fresh = time.time() - progress.updated < FRESH_S
    if fresh and (progress.host != platform.node() or _exists(progress.pid)):
        return True
    return _locked(Path(progress.folder) if progress.folder else folder)


def _exists(pid: int) -> bool:
    """Return whether a process exists; True where this cannot be found out without harm."""
    if os.name == "nt" or pid <= 0:
        return os.name == "nt"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _locked(folder: Path) -> bool:
    """Return whether a process holds the lock of an output folder."""
    import filelock

    if not (folder / LOCK).is_file():
        return False
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
