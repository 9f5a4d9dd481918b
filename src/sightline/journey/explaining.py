"""Images explained: an overlay with its verdict and the raw heat of each, sheets by class, and parts of a photograph hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier
from sightline.errors import RequestError
from sightline.explanation import draw, verdict
from sightline.explanation.verdict import Finding
from sightline.journey import gallery, hiding, sheets
from sightline.journey.evidence import Evidence, How, gather, sample_size
from sightline.journey.heats import heats_of
from sightline.journey.request import slug
from sightline.journey.subject import Subject, aims, catalog_of, find_subject, held_out, top_classes
from sightline.records import Explanation, Predictions, Progress, silent
from sightline.store import Cache, atomic_file

MOST_OF_A_RUN = 200
"""Images that are explained where a run is named without images."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The images of one request.

    Args:
        files, names: n each.
        labels: The true class of each, None where it is not known.
        unread: Why what stands beside them in a folder cannot be opened, by path.
    """

    files: list[Path]
    names: list[str]
    labels: list[str | None]
    unread: dict[str, str] = field(default_factory=dict)


def explain(
    subject: str,
    images: Sequence[str] = (),
    *,
    out: str = "explanations",
    target: str | None = None,
    method: str = "auto",
    layer: str | None = None,
    contrast: str | None = None,
    hide: Sequence[str] = (),
    seed: int = 0,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Heatmaps of images: an overlay, the raw heat, and what the checks say of each.

    Args:
        subject: A run's folder, a classifier's file, or the name of a network, which answers with its own classes.
        images: Files, folders, or catalogs (.csv), whose usable images are taken. The class of an image is known from a
            catalog, the run's too, or from a folder on its way that bears a class's name; images whose class is known also
            get sheets of right and wrong answers. Of a run, none stands for its held-out images, the classes in turn.
        out: Where the pictures go.
        target: The class to explain; the predicted one if None.
        method: `auto` or a name of `sightline.explanation.METHODS`.
        layer: A module of the network; None for its last map.
        contrast: The class that the target is set against; where it is itself the answer, the second likeliest class is
            explained.
        hide: Regions `x,y,width,height` of the upright original that are covered to see how the answer changes.

    Returns:
        One entry per image as `explain --json` prints it; an unreadable image has `error`.

    Raises:
        RequestError: A name, a class, a method or a region is wrong.
        WeightsError: A named network's weights are absent, or bring no classifier.
    """
    cache = Cache() if cache is None else cache
    regions = [hiding.parse_region(text) for text in hide]
    classifier.find_images([name for name in images if not _is_table(name)])
    found = find_subject(subject, cache, code)
    against = None if contrast is None else found.class_index(contrast)
    asked = _asked(found, subject, images)
    model = found.model
    for file in asked.files if regions else ():
        hiding.check_regions(regions, file)
    answers = model.predict(list(asked.files), cache=cache, device=device, progress=progress)
    kept = _kept(asked, answers)
    how = How(cache, device, seed, method, layer, against)
    targets = aims(answers, against) if target is None else [found.class_index(target)] * len(kept.files)
    heats, errors = heats_of(
        model, kept.files, kept.names, targets, cache=cache, device=device, method=method, layer=layer, contrast=against,
        seed=seed, progress=progress,
    )  # fmt: skip
    evidence = _check(found, kept, targets, how, _completeness(heats), progress)
    job = _Job(found, kept, answers, heats, evidence, Path(out), how)
    entries = [job.write(number, item) for number, item in enumerate(heats, 1)]
    if regions:
        for number, entry in enumerate(entries, 1):
            entry["hidden"] = job.hide(number, entry, regions)
    if any(label is not None for label in kept.labels):
        files = dict(zip(kept.names, kept.files, strict=True))
        said = {name: model.classes[i] for name, i in zip(kept.names, answers.y_pred, strict=True)}
        sheets.write(Path(out), found, heats, kept.labels, files, said, cache=cache, device=device, progress=progress)
    failed: Mapping[str, str] = {**asked.unread, **answers.errors, **errors}
    return entries + [{"path": n, "error": why} for n, why in failed.items()]


def _asked(subject: Subject, name: str, images: Sequence[str]) -> _Asked:
    """The images that are named, or a run's held-out ones with their labels, the classes in turn."""
    catalog = None if subject.run is None else catalog_of(subject.run)
    if images:
        told: dict[Path, str | None] = {}
        unread: dict[str, str] = {}
        for image in images:
            told |= _from_table(image) if _is_table(image) else _from_files(image, subject.model.classes, unread)
        if not told:
            raise classifier.no_image(images, unread)
        known = {} if catalog is None else dict(zip(map(_real, catalog.files()), catalog.column("label"), strict=True))
        return _Asked(list(told), [str(f) for f in told], [known.get(_real(f)) or label for f, label in told.items()], unread)
    if subject.run is None:
        raise RequestError(f"which images shall {name} explain?", f"name them: sightline explain {name} IMAGE...")
    if catalog is None:
        raise RequestError(f"the catalog of {name} cannot be read", "name the images to explain")
    rows = held_out(subject.run, catalog)
    labels = rows.column("label")
    order = sheets.in_turn(labels)[:MOST_OF_A_RUN]
    files, names = rows.files(), rows.paths
    return _Asked([files[i] for i in order], [names[i] for i in order], [labels[i] for i in order])


def _is_table(name: str) -> bool:
    return Path(name).suffix.lower() == ".csv"


def _from_table(name: str) -> dict[Path, str | None]:
    """The usable images of a catalog with their labels."""
    rows = catalogs.load(Path(name)).usable()
    return dict(zip(rows.files(), rows.column("label"), strict=True))


def _from_files(name: str, classes: Sequence[str], unread: dict[str, str]) -> dict[Path, str | None]:
    """An image, or those of a folder, each with its class: the name of the nearest folder on its way from there that is one.

    What cannot be opened is added to `unread` with the reason.
    """
    top = Path(name)
    found, problems = classifier.find_images([name])
    unread |= problems
    if not top.is_dir():
        return dict.fromkeys(found)
    inside = {f: [p.name for p in f.parents if p == top or top in p.parents] for f in found}
    return {f: next((folder for folder in folders if folder in classes), None) for f, folders in inside.items()}


def _real(file: Path) -> str:
    return str(Path(file).resolve())


def _kept(asked: _Asked, answers: Predictions) -> _Asked:
    """The images that were answered, under the names that the answers use."""
    rows = {str(f): i for i, f in enumerate(asked.files)}
    index = [rows[p] for p in answers.paths]
    return _Asked([asked.files[i] for i in index], [str(asked.files[i]) for i in index], [asked.labels[i] for i in index])


def _check(
    subject: Subject, kept: _Asked, targets: list[int], how: How, more: list[Finding], progress: Progress
) -> Evidence | None:
    """The checks, on as many of the images as they are made on at most, spread evenly."""
    n = len(kept.files)
    most = min(n, sample_size(subject.model))
    rows = sorted({round(i * (n - 1) / max(most - 1, 1)) for i in range(most)})
    stored = None if subject.run is None else subject.run.data.get("heat_checks")
    return gather(
        subject.model,
        [kept.files[i] for i in rows],
        [kept.names[i] for i in rows],
        [targets[i] for i in rows],
        how,
        skill=subject.skill,
        more=more,
        stored=stored,
        progress=progress,
    )


def _completeness(heats: Sequence[Explanation]) -> list[Finding]:
    """Of methods that promise to add up to the score's difference: whether they do."""
    missed = [item.missed for item in heats if item.missed is not None]
    return [verdict.judge_completeness(float(np.median(missed)))] if missed else []


@dataclass(frozen=True, slots=True)
class _Job:
    """What is written for each image, and from what."""

    subject: Subject
    kept: _Asked
    answers: Predictions
    heats: list[Explanation]
    evidence: Evidence | None
    folder: Path
    how: How

    def stem(self, number: int, path: str) -> str:
        """The beginning of an image's files."""
        return f"{number:03d}-{slug(Path(path).stem)}"

    def write(self, number: int, item: Explanation) -> dict[str, Any]:
        """Draw one image, write its heat, and tell it as JSON."""
        model, row = self.subject.model, self.answers.paths.index(item.path)
        probs = self.answers.probs[row]
        shown, label = float(probs[model.classes.index(item.target)]), self.kept.labels[row]
        check = None if self.evidence is None else self.evidence.of(item.path) or self.evidence.unasked()
        stem = self.stem(number, item.path)
        picture, heat = self.folder / f"{stem}.png", self.folder / f"{stem}.npz"
        caption = draw.answer(label, item.target, shown)
        said = None if check is None else (str(check["verdict"]), str(check["why"]))
        gallery.write_overlay(picture, self.kept.files[row], model.card.backbone.preprocess, item, caption, verdict=said)
        write_heat(heat, item, model.classes)
        return {
            "path": item.path,
            "label": label,
            "target": item.target,
            "probability": shown,
            "top": top_classes(model, probs),
            "method": item.method,
            "layer": item.layer,
            "contrast": item.contrast or None,
            "overlay": str(picture),
            "heat": str(heat),
            "peak": None if item.flat else list(item.peak()),
            "completeness_error": item.missed,
            "check": check,
        }

    def hide(self, number: int, entry: Mapping[str, Any], regions: Sequence[hiding.Region]) -> dict[str, Any]:
        """Cover the regions of one image, ask again, and draw what was covered."""
        model, row = self.subject.model, self.answers.paths.index(entry["path"])
        done = hiding.hide(model, self.kept.files[row], regions, cache=self.how.cache, device=self.how.device)
        picture = self.folder / f"{self.stem(number, entry['path'])}-hidden.png"
        target = model.classes.index(entry["target"])
        gallery.write_hidden(picture, done, entry["target"], target)
        return {**done.as_data(model.classes, target, regions), "picture": str(picture)}


def write_heat(file: Path, item: Explanation, classes: Sequence[str]) -> None:
    """Write raw heat and all that is needed to read it as `.npz`: no pickle, plain arrays and text."""
    with atomic_file(file) as stream:
        np.savez_compressed(
            stream,
            heat=item.heat,
            box=np.array(item.box),
            neutral=np.array(item.neutral),
            path=np.array(item.path),
            target=np.array(item.target),
            contrast=np.array(item.contrast),
            method=np.array(item.method),
            layer=np.array(item.layer),
            classes=np.array(list(classes)),
        )
