"""Images explained: an overlay with its verdict and the raw heat of each, sheets by class, and parts of a photograph hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier
from sightline.catalog.tables import SUFFIXES, read_table
from sightline.classifier import Classifier
from sightline.errors import RequestError
from sightline.explanation import cover_region
from sightline.explanation.checks import verdict
from sightline.explanation.checks.evidence import Evidence, How, gather, of_run, sample_size, spread, with_pictures
from sightline.explanation.checks.verdict import Finding
from sightline.explanation.draw import channels as channel_sheets
from sightline.explanation.draw import contact_sheets
from sightline.explanation.draw.caption import Caption
from sightline.explanation.draw.contact_sheets import By
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.methods import check_contrast, check_method
from sightline.explanation.pointing_game import Place, play, read_places
from sightline.explanation.subject import ExplainedModel, aims, catalog_of, find_subject, rows_of, top_classes
from sightline.records import Catalog, Explanation, Predictions, Progress, silent
from sightline.runs import folder as folders
from sightline.runs import gallery, test_set_log
from sightline.store import Cache, atomic_file, file_digest, log, slug

MOST_OF_A_RUN = 200
"""Images that are explained where a run is named without images."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The images of one request.

    Args:
        files, names: n each.
        labels: The true class of each, None where it is not known.
        unread: Why what stands beside them in a folder cannot be opened, by path.
        places: Where the object is, by the image's file, for those of which a table says it.
        splits: The split of each, None where it has none; empty where no catalog is known.
        contents: SHA-256 of each; "" where it is not known.
    """

    files: list[Path]
    names: list[str]
    labels: list[str | None]
    unread: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    splits: list[str | None] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)

    def label_of(self) -> dict[str, str]:
        """Return name → label of the images whose class is known."""
        return {name: label for name, label in zip(self.names, self.labels, strict=True) if label is not None}


@folders.releasing
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
    channels: str | None = None,
    split: str | None = None,
    checks: bool = True,
    average_by: By = "label",
    seed: int = 0,
    code: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
    cache: Cache | None = None,
) -> list[dict[str, Any]]:
    """Write heatmaps of images: an overlay, the raw heat, and what the checks say of each.

    Test images whose class is known count as looked at: the test-set log records them, as it does for `evaluate`.

    Args:
        subject: A run's folder, a classifier's file, or the name of a network, which answers with its own classes.
        images: Files, folders, or tables that `scan` takes (.csv, .parquet), whose usable images are taken. The class of an
            image is known from a table, from the run's catalog, or from a folder on its way that bears a class's name; images
            whose class is known also get sheets of right and wrong answers. Of a run, none stands for its held-out images,
            the classes in turn.
        out: Where the pictures go.
        target: The class to explain; the predicted one if None.
        method: `auto` or a name of `sightline.explanation.METHODS`.
        layer: A module of the network; None for its last map.
        contrast: The class that the target is set against; where it is itself the answer, the second likeliest class is
            explained.
        hide: Regions `x,y,width,height` of the upright original that are covered to see how the answer changes.
        channels: `strongest:16`, `first:16` or `16`: so many channels of the layer are drawn for each image; None for none.
        split: `train`, `val`, `test` or `all`: which images of a run, where no image is named. None takes the test images if
            the run itself was tested on them, else the validation images.
        checks: Whether the heatmaps are checked; without checks there is no verdict.
        average_by: Whether the average map of a class is over the images that are labelled with it, or over those that were
            predicted as it.

    Returns:
        One entry per image as `explain --json` prints it; an unreadable image has `error`.

    Raises:
        RequestError: A name, a class, a method, a region or a choice of channels is wrong.
        WeightsError: A named network's weights are absent, or bring no classifier.
    """
    cache = Cache() if cache is None else cache
    regions = [cover_region.parse_region(text) for text in hide]
    choice = None if channels is None else channel_sheets.parse_channels(channels)
    classifier.find_images([name for name in images if not _is_table(name)])
    found = find_subject(subject, cache, code)
    if choice is not None:
        channel_sheets.check(found.model)
    against = None if contrast is None else found.class_index(contrast)
    aimed = None if target is None else found.class_index(target)
    check_method(method)
    check_contrast(str(target), aimed, against)
    if split is not None and images:
        raise RequestError(f"--split {split} chooses among a run's own images, and images are named", "leave out one of them")
    asked = _asked(found, subject, images, split, progress)
    model = found.model
    for file in asked.files if regions else ():
        cover_region.check_regions(regions, file)
    answers = model.predict(list(asked.files), cache=cache, device=device, progress=progress)
    kept = _kept(found, asked, answers)
    _count(model, kept, answers, subject)
    _say_earlier(Path(out))
    how = How(cache, device, seed, method, layer, against)
    targets = aims(answers, against) if aimed is None else [aimed] * len(kept.files)
    heats, errors = heatmaps_of(
        model, kept.files, kept.names, targets, cache=cache, device=device, method=method, layer=layer, contrast=against,
        seed=seed, progress=progress,
    )  # fmt: skip
    pointed = _pointing(model, kept, answers, heats) if checks else []
    evidence = _check(found, kept, targets, how, heats, pointed, progress) if checks else None
    folders.lock(Path(out), depth=1)
    job = _Job(found, kept, answers, heats, evidence, Path(out), how)
    entries = [job.write(number, item) for number, item in enumerate(heats, 1)]
    if regions:
        for number, entry in enumerate(entries, 1):
            entry["hidden"] = job.hide(number, entry, regions)
    if choice is not None:
        for number, entry in enumerate(entries, 1):
            entry["channels"] = job.channels(number, entry["path"], choice)
    if any(label is not None for label in kept.labels):
        files = dict(zip(kept.names, kept.files, strict=True))
        words = {entry["path"]: str(entry["check"]["verdict"]) for entry in entries if entry["check"]}
        where = contact_sheets.write(
            Path(out), found, heats, kept.labels, files, answers, words, cache=cache, device=device, progress=progress
        )
        maps = _of_labels(model, kept, heats, target, how, progress) if average_by == "label" else list(heats)
        class_of = kept.label_of() if average_by == "label" else dict(zip(answers.paths, answers.labels, strict=True))
        average = contact_sheets.write_average(Path(out), maps, class_of, average_by)
        for entry in entries:
            entry["sheet"] = where.get(entry["path"])
            entry["average"] = None if average is None else {"file": str(average), "by": average_by}
    failed: Mapping[str, str] = {**asked.unread, **answers.errors, **errors}
    return entries + [{"path": n, "error": why} for n, why in failed.items()]


def _asked(subject: ExplainedModel, name: str, images: Sequence[str], split: str | None, progress: Progress) -> _Asked:
    """Return the images that are named, or those of a split of the run, the classes in turn."""
    catalog = None if subject.run is None else catalog_of(subject.run)
    if images:
        told: dict[Path, str | None] = {}
        splits: dict[Path, str | None] = {}
        unread: dict[str, str] = {}
        places: dict[str, Place] = {}
        known = {} if catalog is None else dict(zip(map(_real, catalog.files()), catalog.column("label"), strict=True))
        for image in images:
            if _is_table(image):
                rows = _from_table(image, progress)
                told |= dict(zip(rows.files(), rows.column("label"), strict=True))
                splits |= dict(zip(rows.files(), rows.column("split"), strict=True))
                places |= _places(rows)
            else:
                guessed = _from_files(image, subject.model.classes, unread)
                told |= {file: known.get(_real(file)) or label for file, label in guessed.items()}
        if not told:
            raise classifier.no_image(images, unread)
        return _Asked(
            list(told), [str(f) for f in told], list(told.values()), unread, places, [splits.get(file) for file in told]
        )
    if subject.run is None:
        raise RequestError(f"which images shall {name} explain?", f"name them: sightline explain {name} IMAGE...")
    if catalog is None:
        raise RequestError(f"the catalog of {name} cannot be read", "name the images to explain")
    rows = rows_of(subject.run, catalog, split)
    labels = rows.column("label")
    order = contact_sheets.in_turn(labels)[:MOST_OF_A_RUN]
    files, names, own = rows.files(), rows.paths, rows.column("split")
    chosen = [files[i] for i in order], [names[i] for i in order], [labels[i] for i in order]
    return _Asked(*chosen, places=_places(catalog.usable()), splits=[own[i] for i in order])


def _is_table(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _from_table(name: str, progress: Progress) -> Catalog:
    """The usable images of a catalog, or of any other table that `scan` takes."""
    file = Path(name)
    ours = "content" in read_table(file)[0].column_names
    return (catalogs.load(file) if ours else catalogs.scan(file, progress=progress)).usable()


def _places(rows: Catalog) -> dict[str, Place]:
    """Where a table says that the object is, by the image's file."""
    return {str(rows.file(path)): place for path, place in read_places(rows)[0].items()}


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


def _kept(subject: ExplainedModel, asked: _Asked, answers: Predictions) -> _Asked:
    """Return the images that were answered, under the names that the answers use.

    The split of an image is that of its bytes in the run's catalog, else that of the table that names it.
    """
    rows = {str(f): i for i, f in enumerate(asked.files)}
    index = [rows[p] for p in answers.paths]
    files = [asked.files[i] for i in index]
    contents = [file_digest(file) for file in files]
    catalog = None if subject.run is None else catalog_of(subject.run)
    known = {} if catalog is None else dict(zip(catalog.column("content"), catalog.column("split"), strict=True))
    splits = [known.get(content) or asked.splits[i] for content, i in zip(contents, index, strict=True)]
    labels = [asked.labels[i] for i in index]
    return _Asked(files, [str(f) for f in files], labels, places=asked.places, splits=splits, contents=contents)


def _count(model: Classifier, kept: _Asked, answers: Predictions, name: str) -> None:
    """Record a look at labelled test images in the test-set log, and warn of images that the classifier was fitted on."""
    labelled = np.array([label is not None for label in kept.labels], dtype=bool)
    counts = labelled & model.counts_as_test(kept.contents, kept.splits)
    opening = test_set_log.look(answers, kept.contents, counts, model, verb="explain", by=name)
    if opening is not None and opening.new:
        images = "1 test image" if counts.sum() == 1 else f"{counts.sum():,} test images"
        log.warning("%s of known class: the test-set log %s", images, "counts this look" if opening.counted else opening.note)
    fitted = int(model.was_trained_on(kept.contents).sum())
    if fitted:
        log.warning(
            "%d of the %d images were used to fit the classifier, so its answers to them are better than to new images",
            fitted, len(kept.files),
        )  # fmt: skip


def _say_earlier(folder: Path) -> None:
    """Warn that a folder holds the heatmaps of an earlier call, which may be overwritten."""
    earlier = len(list(folder.glob("[0-9][0-9][0-9]*-*.npz"))) if folder.is_dir() else 0
    if earlier:
        log.warning(
            "%s holds %d heatmaps of an earlier call; files of the same name are overwritten, others stay (-o names another)",
            folder, earlier,
        )  # fmt: skip


def _of_labels(
    model: Classifier, kept: _Asked, heats: Sequence[Explanation], target: str | None, how: How, progress: Progress
) -> list[Explanation]:
    """Return heat of each labelled image for its own label, or for the target that was asked for.

    Heat that is for another class, as of a wrong answer, is computed for the label.
    """
    label_of, files = kept.label_of(), dict(zip(kept.names, kept.files, strict=True))
    labelled = [item for item in heats if item.path in label_of]
    if target is not None:
        return labelled
    own = [item for item in labelled if item.target == label_of[item.path]]
    others = [p for p in (i.path for i in labelled if i.target != label_of[i.path]) if label_of[p] in model.classes]
    if not others or how.contrast is not None:
        return own
    targets = [model.classes.index(label_of[p]) for p in others]
    found, _ = heatmaps_of(
        model, [files[p] for p in others], others, targets, cache=how.cache, device=how.device, method=how.method,
        layer=how.layer, seed=how.seed, progress=progress,
    )  # fmt: skip
    return [*own, *found]


def _check(
    subject: ExplainedModel,
    kept: _Asked,
    targets: list[int],
    how: How,
    heats: Sequence[Explanation],
    pointed: Sequence[Finding],
    progress: Progress,
) -> Evidence | None:
    """The run's checks, or those on as many of the images as they are made on at most; and each picture's own."""
    evidence = of_run(None if subject.run is None else subject.run.data.get("heat_checks"), how, subject.skill)
    if evidence is not None:
        evidence = _with(evidence, pointed)
    else:
        rows = spread(len(kept.files), sample_size(subject.model))
        evidence = gather(
            subject.model,
            [kept.files[i] for i in rows],
            [kept.names[i] for i in rows],
            [targets[i] for i in rows],
            how,
            skill=subject.skill,
            more=[*_completeness(heats), *pointed],
            given={item.path: item for item in heats},
            progress=progress,
        )
    files = dict(zip(kept.names, kept.files, strict=True))
    return None if evidence is None else with_pictures(evidence, subject.model, heats, files, how, progress)


def _completeness(heats: Sequence[Explanation]) -> list[Finding]:
    """Of methods that promise to add up to the score's difference: whether they do."""
    missed = [item.missed for item in heats if item.missed is not None]
    return [verdict.judge_completeness(float(np.median(missed)))] if missed else []


def _pointing(model: Classifier, kept: _Asked, answers: Predictions, heats: Sequence[Explanation]) -> list[Finding]:
    """The pointing game as a run plays it: with heat for the answer that each image was given."""
    files = dict(zip(kept.names, kept.files, strict=True))
    said = {name: model.classes[int(p)] for name, p in zip(answers.paths, answers.y_pred, strict=True)}
    own = [item for item in heats if item.target == said[item.path]]
    finding = play(own, kept.places, files)
    return [] if finding is None else [finding]


def _with(evidence: Evidence, more: Sequence[Finding]) -> Evidence:
    """A run's checks, and findings of the images at hand on what the run did not look at."""
    listed = [dict(f) for f in evidence.shared["findings"]]
    new = [finding for finding in more if all(f["check"] != finding.check for f in listed)]
    if not new:
        return evidence
    old = [Finding(f.pop("check"), f.pop("verdict"), f.pop("text"), f) for f in listed]
    return dataclasses.replace(evidence, shared={**evidence.shared, **verdict.summary([*old, *new])})


@dataclass(frozen=True, slots=True)
class _Job:
    """What is written for each image, and from what."""

    subject: ExplainedModel
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
        label, predicted, target = self.kept.labels[row], int(self.answers.y_pred[row]), model.classes.index(item.target)
        shown = float(probs[target])
        check = None if self.evidence is None else self.evidence.of(item)
        stem = self.stem(number, item.path)
        picture, heat = self.folder / f"{stem}.png", self.folder / f"{stem}.npz"
        caption = Caption(
            label,
            model.classes[predicted],
            float(probs[predicted]),
            None if target == predicted else shown,
            verdict=None if check is None else (str(check["verdict"]), str(check["why"])),
        )
        gallery.write_overlay(picture, self.kept.files[row], model.card.backbone.preprocess, item, caption)
        write_heat(heat, item, model.classes)
        return {
            "path": item.path,
            "label": label,
            "split": self.kept.splits[row] if self.kept.splits else None,
            "in_training": self.in_training(row),
            "predicted": model.classes[predicted],
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

    def in_training(self, row: int) -> bool:
        """Return whether the classifier was fitted on an image."""
        return bool(self.kept.contents and self.subject.model.was_trained_on([self.kept.contents[row]])[0])

    def hide(self, number: int, entry: Mapping[str, Any], regions: Sequence[cover_region.Region]) -> dict[str, Any]:
        """Cover the regions of one image, ask again, and draw what was covered."""
        model, row = self.subject.model, self.answers.paths.index(entry["path"])
        done = cover_region.hide(model, self.kept.files[row], regions, cache=self.how.cache, device=self.how.device)
        picture = self.folder / f"{self.stem(number, entry['path'])}-hidden.png"
        target = model.classes.index(entry["target"])
        gallery.write_hidden(picture, done, entry["target"], target)
        return {**done.as_data(model.classes, target, regions), "picture": str(picture)}

    def channels(self, number: int, path: str, choice: channel_sheets.Choice) -> dict[str, Any]:
        """Draw channels of one image."""
        file, stem = self.kept.files[self.answers.paths.index(path)], self.folder / self.stem(number, path)
        how = self.how
        return channel_sheets.write(stem, self.subject.model, file, path, choice, how.layer, cache=how.cache, device=how.device)


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
