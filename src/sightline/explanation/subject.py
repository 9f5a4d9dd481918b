"""The subject of an explanation: a run, a classifier file, or a pretrained network with its own classes."""

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
    """A classifier to explain, and what is known about it.

    Args:
        model: The classifier.
        skill: How accurate it is known to be.
        run: Its run, if it comes from one.
        aliases: Other names of classes, in lower case → the class indices that they may mean.
    """

    model: Classifier
    skill: Skill
    run: Run | None = None
    aliases: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def class_index(self, name: str) -> int:
        """Return the index of a class by its name: exact, then ignoring case, then by an alias.

        Raises:
            RequestError: If no class or several classes match.
        """
        classes = self.model.classes
        if name in classes:
            return classes.index(name)
        matches = [i for i, c in enumerate(classes) if c.lower() == name.lower()] or self.aliases.get(name.lower(), ())
        if len(matches) > 1:
            raise RequestError(
                f"{name!r} matches {len(matches)} classes", f"name one: {', '.join(classes[i] for i in matches)}"
            )
        if not matches:
            raise unknown("class", name, classes)
        return matches[0]


def find_subject(name: str, cache: Cache, code: str | None = None) -> ExplainedModel:
    """Load a run's folder, a classifier file, or a network whose published weights include a classifier.

    Args:
        name: A path or a network's name.
        cache: Where a network's weights are stored.
        code: `file.py:function` that builds a user-defined network.

    Raises:
        RequestError: If it is none of these, or uses no pixels.
        WeightsError: If the network's weights are missing or include no classifier.
    """
    if Path(name).exists() or name.endswith(_SUFFIXES) or len(Path(name).parts) > 1:
        subject = _written(Path(name), code)
    else:
        subject = _pretrained(name, cache)
    check_explainable(subject.model, name)
    return subject


def explainable(model: Classifier) -> bool:
    """Return whether the classifier uses pixels; for an ensemble, whether a member with a positive weight does."""
    weighted = zip(model.members, model.card.weights, strict=True)
    return any(m.looks_at_images and w > 0 for m, w in weighted) if model.members else model.looks_at_images


def check_explainable(model: Classifier, name: str = "the classifier") -> None:
    """Check that a classifier uses pixels.

    Raises:
        RequestError: If it does not.
    """
    if not explainable(model):
        message = f"{name} ({model.card.method}) does not use the image's pixels, so there is nothing to explain"
        raise RequestError(message, "explain a classifier that has a network or uses `pixels`")


def _written(path: Path, code: str | None) -> ExplainedModel:
    """Load a classifier that Sightline wrote, with its run's scores if they are stored beside it."""
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
    """Return a network by its name as a classifier with its own classes."""
    try:
        backbone = networks.describe(name, cache=cache)
    except RequestError as error:
        if not Path(name).suffix and "unknown network" not in error.message:
            raise
        raise RequestError(f"{name} is not a run, a classifier file or a known network", error.hint) from error
    if not backbone.is_network:
        raise RequestError(f"{name!r} is not a network with its own classes", "name a run, a file, or a network")
    published = networks.own_classifier(backbone, cache)
    head = Head("logistic", len(published.classes), {}, {"weights": published.weights, "bias": published.bias})
    recipe = dataclasses.replace(Recipe(), backbone=name)
    card = Card(published.classes, published.backbone, head.kind, {}, "pretrained", recipe)
    return ExplainedModel(Classifier(card, head), Skill(verdict.published_classifier(name)), None, published.aliases)


def catalog_of(run: Run) -> Catalog | None:
    """Return a run's catalog; None if it cannot be read."""
    from sightline import catalog as catalogs

    try:
        return catalogs.load(run.folder / "catalog.csv")
    except (SightlineError, OSError):
        return None


def answers_of(run: Run) -> Predictions | None:
    """Return a run's test or validation predictions; None if neither can be read."""
    for split in ("test", "val"):
        try:
            return read_predictions(run.folder / "predictions" / f"{split}.csv")
        except SightlineError:
            continue
    return None


def rows_of(run: Run, catalog: Catalog, split: str | None = None) -> Catalog:
    """Return a run's usable images of one split.

    Args:
        run: A finished run.
        catalog: Its images.
        split: `train`, `val`, `test` or `all`; None takes the test images if the run itself was tested on them, else the
            validation images.

    Raises:
        RequestError: If there is no such split, or it has no image.
    """
    if split not in (None, "train", "val", "test", "all"):
        raise unknown("split", str(split), ("train", "val", "test", "all"))
    name = split or ("test" if run.data.get("test") else "val")
    usable = catalog.usable()
    rows = usable if name == "all" else usable.where(split=name)
    if not len(rows):
        counts = ", ".join(f"{s} {usable.column('split').count(s):,}" for s in ("train", "val", "test"))
        raise RequestError(f"{run.folder} has no image in its {name} split ({counts})", "choose another with --split")
    return rows


def aims(answers: Predictions, contrast: int | None) -> list[int]:
    """Return the class to explain for each image by default: the prediction, or the second class if that is `contrast`."""
    second = np.argsort(-answers.probs, axis=1, kind="stable")[:, min(1, len(answers.classes) - 1)]
    return [int(s if p == contrast else p) for p, s in zip(answers.y_pred, second, strict=True)]


def top_classes(model: Classifier, probs: np.ndarray) -> list[dict[str, Any]]:
    """Return the five most probable classes of one image with their probabilities."""
    order = np.argsort(-probs, kind="stable")[:5]
    return [{"class": model.classes[i], "probability": float(probs[i])} for i in order]
