"""The command `card`: check a classifier file and describe it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sightline import classifier
from sightline.classifier import Classifier
from sightline.errors import ModelFileError, RequestError, SightlineError
from sightline.files import is_file, read_text
from sightline.records import Run
from sightline.records.export import ExportRecord
from sightline.records.model_card import MeasuredAccuracy, ModelCard
from sightline.schema import from_json
from sightline.store import file_digest, plain

_FEW_IMAGES = 30


def card(model: str | Path, *, code: str | None = None) -> ModelCard | ExportRecord:
    """Check a classifier and return its card; for an exported file, check it and return the card beside it.

    Args:
        model: Run folder, classifier file, exported file, or a folder with one.
        code: `file.py:function` that builds a user-defined network.

    Raises:
        RequestError: If it does not exist.
        ModelFileError: If it is damaged; the message names what is wrong.
    """
    path = Path(model)
    beside = (path if path.is_dir() else path.parent) / "card.json"
    file = path / "classifier.safetensors" if path.is_dir() else path
    if is_file(beside) and not (is_file(file) and file.suffix == ".safetensors"):
        return _exported(path, beside)
    loaded = classifier.load(model, code=code)
    return describe(loaded, file)


def describe(model: Classifier, file: Path | None) -> ModelCard:
    """Return the card of a classifier.

    Args:
        model: Classifier.
        file: Its file; None for one in memory.
    """
    card = model.card
    parts = [part.card.backbone for part in model.members or (model,)]
    networks = {backbone.name: backbone for backbone in parts if backbone.is_network}
    scores = () if file is None else _scores(file.parent)
    return ModelCard(
        file="" if file is None else str(file),
        bytes=0 if file is None else file.stat().st_size,
        sha256="" if file is None else file_digest(file),
        classes=card.classes,
        images_per_class=plain(card.data.get("images", {})),
        method=card.method,
        backbone=" + ".join(dict.fromkeys(backbone.name for backbone in parts)),
        head=" + ".join(dict.fromkeys(part.card.head for part in model.members or (model,))),
        parameters=sum(backbone.parameters for backbone in networks.values()),
        input_px=model.embedding_model.card.backbone.preprocess.size,
        licences={name: backbone.licence for name, backbone in networks.items()},
        pretrained_on={name: backbone.pretrained_on for name, backbone in networks.items()},
        temperature=card.temperature,
        positive=card.positive,
        threshold=card.threshold,
        crops=card.crops,
        prediction_sets=card.uncertainty.images,
        ood_threshold=card.uncertainty.ood_threshold,
        scores=scores,
        cautions=tuple(_cautions(model, scores)),
        recipe=plain(card.recipe),
        software=dict(card.software),
        format=card.format,
    )


def _scores(folder: Path) -> tuple[MeasuredAccuracy, ...]:
    """Return the accuracies in a run's record; none if the folder is not a run."""
    try:
        record = Run.load(folder).record
    except (SightlineError, OSError):
        return ()
    found = []
    for name, scores in (("test", record.test), (record.val_estimate or "val", record.val)):
        accuracy = None if scores is None else scores.metrics.get("accuracy")
        if scores is not None and accuracy is not None and accuracy.value is not None:
            found.append(MeasuredAccuracy(name, scores.n, accuracy.value, accuracy.low, accuracy.high))
    return tuple(found)


def _cautions(model: Classifier, scores: tuple[MeasuredAccuracy, ...]) -> list[str]:
    """Return what a user should know before relying on a classifier."""
    cautions = []
    for part in model.members or (model,):
        backbone = part.card.backbone
        if backbone.is_network and backbone.licence == "unknown" and not backbone.weights.startswith(("random", "run")):
            cautions.append(f"the licence of the weights of {backbone.name} is not known")
        facts = part.card.precision
        if facts.get("used") == "int8":
            compared = f"{facts['answers_changed']} of {facts['judged_on']} out-of-fold predictions"
            cautions.append(
                f"{backbone.name} runs in int8 on processors with VNNI, and in float32 elsewhere; {compared} differed"
            )
    if not any(score.split == "test" for score in scores):
        cautions.append("there is no score on a test split")
    counts = {name: sum(splits.values()) for name, splits in model.card.data.get("images", {}).items()}
    few = [name for name, count in counts.items() if count < _FEW_IMAGES]
    if few:
        cautions.append(f"fewer than {_FEW_IMAGES} images: {', '.join(few[:10])}{' …' if len(few) > 10 else ''}")
    if not model.card.uncertainty.images:
        cautions.append("it holds no calibration of prediction sets")
    if not model.looks_at_images:
        cautions.append("it does not use pixels")
    return list(dict.fromkeys(cautions))


def _exported(path: Path, beside: Path) -> ExportRecord:
    """Return the record beside an exported file, after comparing the file with its digest.

    Raises:
        ModelFileError: If the record cannot be read, or the file is missing or damaged.
    """
    try:
        value: Any = json.loads(read_text(beside))
        record = from_json(ExportRecord, value, str(beside))
    except (ValueError, TypeError, RequestError) as error:
        raise ModelFileError(f"{beside} cannot be read ({error})", "export the classifier again") from error
    if not path.is_dir() and path.name not in (record.file, beside.name):
        raise RequestError(f"{path} is not described by {beside}", f"name {beside.parent / record.file}")
    file = beside.parent / record.file
    if not is_file(file):
        raise ModelFileError(f"{file} is missing", "export the classifier again")
    if file_digest(file) != record.sha256:
        raise ModelFileError(f"{file} is damaged: its digest does not match card.json", "export the classifier again")
    return record
