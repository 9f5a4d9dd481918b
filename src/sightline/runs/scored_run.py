"""State of a run after the test split was scored, so that an interrupted run does not use the test split twice."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline import classifier
from sightline.classifier import Classifier
from sightline.errors import SightlineError
from sightline.records import Predictions, RunRecord
from sightline.store import file_digest, plain, write_bytes

_FILE = "opened.npz"


@dataclass(frozen=True, slots=True)
class Opened:
    """Run after the test split was scored, before heatmaps are drawn.

    Args:
        classifier: The chosen classifier.
        val: Its predictions on held-out images.
        test: Its predictions on the test split; None if there is none.
        record: The content of `run.json` so far.
        laps: Seconds by stage.
    """

    classifier: Classifier
    val: Predictions
    test: Predictions | None
    record: RunRecord
    laps: dict[str, float]


def save(folder: Path, checkpoint: Path, opened: Opened) -> Opened:
    """Save the state of a run whose classifier is in its folder, and return it as `load` would."""
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {
        "classifier": file_digest(folder / "classifier.safetensors"),
        "code": opened.classifier.code,
        "record": opened.record.to_json(),
        "laps": opened.laps,
    }
    for name, answers in (("val", opened.val), ("test", opened.test)):
        facts[name] = None if answers is None else _facts(answers)
        if answers is not None:
            arrays |= {f"{name}.y_true": answers.y_true, f"{name}.probs": answers.probs}
            arrays |= {} if answers.ood_score is None else {f"{name}.unlike": answers.ood_score}
    facts = plain(facts)
    text = io.BytesIO()
    np.savez(text, facts=np.frombuffer(json.dumps(facts).encode("ascii"), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    write_bytes(checkpoint / _FILE, text.getvalue())
    return Opened(opened.classifier, opened.val, opened.test, RunRecord.from_json(facts["record"]), facts["laps"])


def load(folder: Path, checkpoint: Path) -> Opened | None:
    """Return the saved state of an interrupted run; None if there is none or it is damaged."""
    file = checkpoint / _FILE
    if not file.is_file():
        return None
    try:
        with np.load(file) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            answers = {name: _predictions(name, facts[name], arrays) for name in ("val", "test")}
        if file_digest(folder / "classifier.safetensors") != facts["classifier"]:
            return None
        model = classifier.load(folder / "classifier.safetensors", code=facts["code"])
        record = RunRecord.from_json(facts["record"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, SightlineError):
        return None
    assert answers["val"] is not None
    return Opened(model, answers["val"], answers["test"], record, facts["laps"])


def _facts(answers: Predictions) -> dict[str, Any]:
    threshold = None if answers.threshold is None else [answers.threshold[0], float(answers.threshold[1])]
    return {
        "paths": answers.paths,
        "classes": answers.classes,
        "errors": answers.errors,
        "bar": threshold,
        "unlike_bar": answers.ood_threshold,
    }


def _predictions(name: str, facts: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]) -> Predictions | None:
    if facts is None:
        return None
    threshold = None if facts["bar"] is None else (facts["bar"][0], facts["bar"][1])
    return Predictions(
        tuple(facts["paths"]),
        tuple(facts["classes"]),
        arrays[f"{name}.y_true"],
        arrays[f"{name}.probs"],
        errors=facts["errors"],
        threshold=threshold,
        ood_score=arrays.get(f"{name}.unlike"),
        ood_threshold=facts["unlike_bar"],
    )
