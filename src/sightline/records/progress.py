"""Record of the progress of a command: `progress.json` in the folder that it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sightline.records.recipe import Learning
from sightline.records.versions import VERSION

State = Literal["running", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class EpochProgress:
    """Scores of a finished epoch; None if they are not known.

    Args:
        epoch: The epoch, from 1.
        loss, accuracy: On the training images.
        val_loss, val_accuracy: On the validation images.
    """

    epoch: int
    loss: float | None = None
    accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Current state of a training by epochs.

    Args:
        epoch, epochs: Current epoch, from 1, and the planned number.
        images_s: Training images per second; None until known.
        left_s: Predicted seconds until training ends; None until known.
        history: Finished epochs of the current training.
    """

    epoch: int
    epochs: int
    images_s: float | None = None
    left_s: float | None = None
    history: Sequence[EpochProgress] = ()


@dataclass(frozen=True, slots=True)
class CommandProgress:
    """Progress of a command; the file is removed when the command has finished.

    Args:
        command: Arguments after `sightline`, from which the command can be started again.
        working_folder: Absolute folder in which it was started.
        host, pid: Where it runs.
        started: Local time in ISO 8601.
        updated: Seconds since 1970 of the last update; a running command updates it every few seconds.
        state: `running`, `interrupted` or `failed`; of a process that was killed it stays `running`.
        stage: The current stage, in words.
        done, total: Steps of the stage; `total` is 0 if not known.
        stage_s: Seconds since the stage began.
        training: Of a training by epochs; None otherwise.
        lines: The last lines that it printed about its plan and results.
        error, hint: Why it failed.
        folder: Folder of the result, once it is known and is another one than that of this file; "" otherwise.
        version: Version of the format.
    """

    command: Sequence[str]
    working_folder: str
    host: str
    pid: int
    started: str
    updated: float
    state: State = "running"
    stage: str = ""
    done: int = 0
    total: int = 0
    stage_s: float = 0.0
    training: TrainingProgress | None = None
    lines: Sequence[str] = ()
    error: str = ""
    hint: str = ""
    folder: str = ""
    version: int = VERSION


def epoch_of(learning: Learning) -> EpochProgress | None:
    """Return the scores of the last finished epoch of a report of progress; None if there is none."""
    if math.isnan(learning.loss):
        return None
    scores = (learning.loss, learning.accuracy, learning.val_loss, learning.val_accuracy)
    return EpochProgress(learning.epoch - 1, *(finite(score) for score in scores))


def finite(value: float) -> float | None:
    """Return a number, None for NaN and infinity, which JSON lacks."""
    return value if math.isfinite(value) else None
