"""What is explained, from what the user names: a run, a classifier's file, or a pretrained network with its own classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import classifier, networks
from sightline.classifier import Classifier
from sightline.errors import RequestError, SightlineError, unknown
from sightline.explanation.checks import verdict
from sightline.explanation.checks.evidence import Skill, skill_of
from sightline.inputs import read_predictions
from sightline.records import Card, Catalog, Head, Predictions, Recipe, Run
from sightline.store import Cache

_SUFFIXES = (".safetensors",)


@dataclass(frozen=True, slots=True)
class ExplainedModel:
    """A classifier that is to be explained, and what is known of it.

    Args:
        model: It.
        skill: How good it is known to be.
        run: Its run, where it comes from one.
        aliases: Other names of classes, in lower case → the class indices that they may mean.
    """

    model: Classifier
    skill: Skill
    run: Run | None = None
    aliases: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def class_index(self, name: str) -> int:
        """The class that a name means: as it is written, then whatever its case, then by another name of it.

        Raises:
            RequestError: None, or several.
        """
        classes = self.model.classes
        if name in classes:
            return classes.index(name)
        meant = [i for i, c in enumerate(classes) if c.lower() == name.lower()] or self.aliases.get(name.lower(), ())
        if len(meant) > 1:
            raise RequestError(f"{name!r} may be {len(meant)} classes", f"name one: {', '.join(classes[i] for i in meant)}")
        if not meant:
            raise unknown("class", name, classes)
        return meant[0]


def find_subject(name: str, cache: Cache, code: str | None = None) -> ExplainedModel:
    """A run's folder, a classifier's file, or the name of a network whose published weights bring a classifier.

    Raises:
        RequestError: It is none of them, or never looks at photographs.
        WeightsError: The network's weights are absent, or bring no classifier.
    """
    if Path(name).exists() or name.endswith(_SUFFIXES) or len(Path(name).parts) > 1:
        found = _written(Path(name), code)
    else:
        found = _pretrained(name, cache)
    if not explainable(found.model):
        what = f"{name} ({found.model.card.method}) never looks at the photograph: there is nothing to explain"
        raise RequestError(what, "explain a classifier that has a network, or looks at `pixels`")
    return found


def explainable(model: Classifier) -> bool:
    """Whether it, or for an ensemble one member that counts, looks at images."""
    counted = zip(model.members, model.card.weights, strict=True)
    return any(m.looks_at_images and w > 0 for m, w in counted) if model.members else model.looks_at_images


def _written(path: Path, code: str | None) -> ExplainedModel:
    """A classifier that Sightline wrote, with its run's scores where they lie beside it."""
    model = classifier.load(path, code=code)
    folder = path if path.is_dir() else path.parent
    run = None
    if (folder / "run.json").is_file():
        try:
            run = Run.load(folder)
        except SightlineError:
            run = None
    if run is not None and run.data.get("kind") == "evaluation":
        run = None
    test = None if run is None else run.data.get("test_without_leaks") or run.data.get("test") or run.data.get("val")
    return ExplainedModel(model, skill_of(model, test, None if run is None else answers_of(run)), run)


def _pretrained(name: str, cache: Cache) -> ExplainedModel:
    """A network by its name, as a classifier with its own classes."""
    try:
        backbone = networks.describe(name, cache=cache)
    except RequestError as error:
        if not Path(name).suffix and "unknown network" not in error.message:
            raise
        raise RequestError(f"{name} is no run, no classifier's file and no network that is known", error.hint) from error
    if not backbone.is_network:
        raise RequestError(f"{name!r} is no network with classes of its own", "name a run, a file, or a network")
    own = networks.own_classifier(backbone, cache)
    head = Head("logistic", len(own.classes), {}, {"weights": own.weights, "bias": own.bias})
    plain = dataclasses.replace(Recipe(), backbone=name)
    card = Card(own.classes, own.backbone, head.kind, {}, "pretrained", plain)
    return ExplainedModel(Classifier(card, head), Skill(verdict.published_classifier(name)), None, own.aliases)


def catalog_of(run: Run) -> Catalog | None:
    """A run's images, where its catalog is still there."""
    from sightline import catalog as catalogs

    try:
        return catalogs.load(run.folder / "catalog.csv")
    except (SightlineError, OSError):
        return None


def answers_of(run: Run) -> Predictions | None:
    """What a run said of the images that it was judged on, where its table is still there."""
    for split in ("test", "val"):
        try:
            return read_predictions(run.folder / "predictions" / f"{split}.csv")
        except SightlineError:
            continue
    return None


def rows_of(run: Run, catalog: Catalog, split: str | None = None) -> Catalog:
    """Return a run's usable images of one split.

    Args:
        run: Finished.
        catalog: Its images.
        split: `train`, `val`, `test` or `all`; None takes the test images if the run itself was tested on them, else the
            validation images.

    Raises:
        RequestError: There is no such split, or no image in it.
    """
    if split not in (None, "train", "val", "test", "all"):
        raise unknown("split", str(split), ("train", "val", "test", "all"))
    chosen = split or ("test" if run.data.get("test") else "val")
    usable = catalog.usable()
    rows = usable if chosen == "all" else usable.where(split=chosen)
    if not len(rows):
        held = ", ".join(f"{name} {usable.column('split').count(name):,}" for name in ("train", "val", "test"))
        raise RequestError(f"{run.folder} has no image in its {chosen} split ({held})", "choose another with --split")
    return rows


def aims(answers: Predictions, against: int | None) -> list[int]:
    """The class to explain for each image where none is named: its answer, or where that is `against`, the second likeliest."""
    second = np.argsort(-answers.probs, axis=1, kind="stable")[:, min(1, len(answers.classes) - 1)]
    return [int(s if p == against else p) for p, s in zip(answers.y_pred, second, strict=True)]


def top_classes(model: Classifier, probs: np.ndarray, most: int = 5) -> list[dict[str, Any]]:
    """The likeliest classes of one image with their probabilities."""
    order = np.argsort(-probs, kind="stable")[:most]
    return [{"class": model.classes[i], "probability": float(probs[i])} for i in order]
