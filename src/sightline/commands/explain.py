"""The command `explain`: overlays with verdicts, raw heatmaps, contact sheets by class, and covered regions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sightline import catalog as catalogs
from sightline import classifier, containers
from sightline.catalog.tables import SUFFIXES
from sightline.classifier import Classifier
from sightline.errors import DataError, RequestError
from sightline.explanation import cover_region
from sightline.explanation.checks import verdict
from sightline.explanation.checks.evidence import Evidence, gather, of_run, sample_size, spread, with_pictures
from sightline.explanation.checks.verdict import Finding
from sightline.explanation.draw import channels as channel_sheets
from sightline.explanation.draw import contact_sheets, layer_sheet, overlay
from sightline.explanation.draw.caption import Caption
from sightline.explanation.draw.contact_sheets import By
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.methods import check_contrast, check_method
from sightline.explanation.options import ExplainOptions
from sightline.explanation.pointing_game import Place, play, read_places
from sightline.explanation.subject import ExplainedModel, aims, catalog_of, find_subject, rows_of, top_classes
from sightline.records import Catalog, Explanation, Predictions, Progress, silent
from sightline.runs import executor, test_set_log
from sightline.runs import folder as folders
from sightline.store import Cache, atomic_file, log, slug

MOST_OF_A_RUN = 200
"""Maximum number of images that are explained where a run is named without images."""


@dataclass(frozen=True, slots=True)
class _Images:
    """The images to explain.

    Args:
        files, names: n each.
        labels: The true class of each, None where it is not known.
        unread: Path → reason, of files that cannot be opened.
        places: File → position of the object, where a table gives it.
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

    def file_of(self) -> dict[str, Path]:
        """Return name → file."""
        return dict(zip(self.names, self.files, strict=True))


@folders.releasing
def explain(
    subject: str,
    images: Sequence[str] = (),
    *,
    out: str = "explanations",
    target: str | None = None,
    method: str = "auto",
    layer: str | None = None,
    layers: Sequence[str] = (),
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
    """Write heatmaps of images: an overlay, the raw heatmap, and the verdict of the checks for each.

    Explaining test images of known class is recorded in the test-set log, as `evaluate` is.

    Args:
        subject: A run's folder, a classifier file, or the name of a network, which predicts its own classes.
        images: Files, folders, or tables that `scan` accepts (.csv, .parquet), whose usable images are taken. The class of an
            image is known from a table, from the run's catalog, or from a parent folder that is named after a class; images
            of known class also get sheets of right and wrong predictions. For a run, none means its held-out images,
            the classes in turn.
        out: The output folder.
        target: The class to explain; the predicted one if None.
        method: `auto` or a name in `sightline.explanation.METHODS`.
        layer: A module of the network; None for its last feature map.
        layers: Modules whose heatmaps are also drawn side by side, one sheet per image, without checks.
        contrast: The class that the target is compared with; where it is the prediction itself, the second most probable class
            is explained.
        hide: Regions `x,y,width,height` of the upright original that are covered to measure the change of the prediction.
        channels: `strongest:16`, `first:16` or `16`: the channels of the layer that are drawn for each image; None for none.
        split: `train`, `val`, `test` or `all`: the images of a run, where no image is named. None takes the test images if
            the run itself was tested on them, else the validation images.
        checks: Whether the heatmaps are checked; without checks there is no verdict.
        average_by: Whether the average heatmap of a class is over the images that are labelled with it, or over those that were
            predicted as it.
        seed: Seed of random masks and noise.
        code: `file.py:function` that builds a user-defined network.
        device, progress, cache: As in `Classifier.predict`.

    Returns:
        One entry per image as `explain --json` prints it; an unreadable image has `error`.

    Raises:
        RequestError: If a name, a class, a method, a region or a choice of channels is wrong.
        WeightsError: If a named network's weights are missing, or include no classifier.
    """
    cache = Cache() if cache is None else cache
    regions = [cover_region.parse_region(text) for text in hide]
    choice = None if channels is None else channel_sheets.parse_channels(channels)
    classifier.find_images([name for name in images if Path(name).suffix.lower() not in SUFFIXES])
    explained = find_subject(subject, cache, code)
    if choice is not None:
        channel_sheets.check(explained.model)
    contrast_index = None if contrast is None else explained.class_index(contrast)
    target_index = None if target is None else explained.class_index(target)
    check_method(method)
    check_contrast(str(target), target_index, contrast_index)
    if split is not None and images:
        raise RequestError(f"--split {split} selects a run's own images, but images are named too", "leave out one of them")
    options = ExplainOptions(method=method, layer=layer, contrast=contrast_index, seed=seed, cache=cache, device=device)
    requested = _find_images(explained, subject, images, split, progress)
    model = explained.model
    for file in requested.files if regions else ():
        cover_region.check_regions(regions, file)
    shared: dict[str, Any] = {"cache": cache, "device": device, "sessions": options.sessions}
    answers = executor.current().predict(model, list(requested.files), progress=progress, **shared)
    readable = _readable(explained, requested, answers)
    _record_access(model, readable, answers, subject)
    _warn_of_earlier(Path(out))
    targets = aims(answers, contrast_index) if target_index is None else [target_index] * len(readable.files)
    heats, errors = heatmaps_of(model, readable.files, readable.names, targets, options, progress=progress)
    pointing = _pointing(model, readable, answers, heats) if checks else []
    evidence = _check(explained, readable, targets, options, heats, pointing=pointing, progress=progress) if checks else None
    folders.lock(Path(out), depth=1)
    job = _Job(explained, readable, answers, heats, evidence, folder=Path(out), options=options)
    entries = [job.write(number, item) for number, item in enumerate(heats, 1)]
    for number, entry in enumerate(entries, 1):
        if regions:
            entry["hidden"] = job.hide(number, entry, regions)
        if choice is not None:
            entry["channels"] = job.channels(number, entry["path"], choice)
    if any(label is not None for label in readable.labels):
        job.write_sheets(entries, target, average_by, progress)
    if layers:
        job.compare_layers(entries, layers, targets, progress)
    failed: Mapping[str, str] = {**requested.unread, **answers.errors, **errors}
    return entries + [{"path": name, "error": reason} for name, reason in failed.items()]


def _find_images(subject: ExplainedModel, name: str, images: Sequence[str], split: str | None, progress: Progress) -> _Images:
    """Return the named images, or those of a split of the run, the classes in turn."""
    catalog = None if subject.run is None else catalog_of(subject.run)
    if images:
        return _named_images(subject, images, catalog, progress)
    if subject.run is None:
        raise RequestError(f"no images for {name} to explain", f"name them: sightline explain {name} IMAGE...")
    if catalog is None:
        raise RequestError(f"the catalog of {name} cannot be read", "name the images to explain")
    rows = rows_of(subject.run, catalog, split)
    labels = rows.column("label")
    order = contact_sheets.in_turn(labels)[:MOST_OF_A_RUN]
    files, names, splits = rows.files(), rows.paths, rows.column("split")
    return _Images(
        files=[files[i] for i in order],
        names=[names[i] for i in order],
        labels=[labels[i] for i in order],
        places=_places(catalog.usable()),
        splits=[splits[i] for i in order],
    )


def _named_images(subject: ExplainedModel, images: Sequence[str], catalog: Catalog | None, progress: Progress) -> _Images:
    """Return the images of files, folders and tables, with the labels that tables, the catalog or folders give."""
    label_of: dict[Path, str | None] = {}
    splits: dict[Path, str | None] = {}
    unread: dict[str, str] = {}
    places: dict[str, Place] = {}
    known = {} if catalog is None else dict(zip(map(_real, catalog.files()), catalog.column("label"), strict=True))
    for image in images:
        rows = _labelled_rows(image, progress)
        if rows is not None:
            label_of |= dict(zip(rows.files(), rows.column("label"), strict=True))
            splits |= dict(zip(rows.files(), rows.column("split"), strict=True))
            places |= _places(rows)
        else:
            by_folder = _from_files(image, subject.model.classes, unread)
            label_of |= {file: known.get(_real(file)) or label for file, label in by_folder.items()}
    if not label_of:
        raise classifier.no_image(images, unread)
    return _Images(
        files=list(label_of),
        names=[str(file) for file in label_of],
        labels=list(label_of.values()),
        unread=unread,
        places=places,
        splits=[splits.get(file) for file in label_of],
    )


def _labelled_rows(name: str, progress: Progress) -> Catalog | None:
    """Return the usable images of a table, an archive or a file of arrays; None for other paths, or without classes."""
    file = Path(name)
    scan = executor.current().scan
    if file.suffix.lower() in SUFFIXES and not file.is_dir():
        return (catalogs.load(file) if catalogs.is_catalog(file) else scan(file, progress=progress)).usable()
    if file.is_dir() or not containers.holds_images(file):
        return None
    try:
        return scan(file, progress=progress).usable()
    except DataError:  # without classes, or refused: then the images alone are refused, too
        return None


def _places(rows: Catalog) -> dict[str, Place]:
    """Return file → position of the object, where a table gives it."""
    return {str(rows.file(path)): place for path, place in read_places(rows)[0].items()}


def _from_files(name: str, classes: Sequence[str], unread: dict[str, str]) -> dict[Path, str | None]:
    """Return an image, or those of a folder, each with its class: the nearest parent folder that is named after one.

    Files that cannot be opened are added to `unread` with the reason.
    """
    top = Path(name)
    files, problems = classifier.find_images([name])
    unread |= problems
    if not top.is_dir():
        return dict.fromkeys(files)
    inside = {f: [p.name for p in f.parents if p == top or top in p.parents] for f in files}
    return {f: next((folder for folder in folders if folder in classes), None) for f, folders in inside.items()}


def _real(file: Path) -> str:
    return str(Path(file).resolve())


def _readable(subject: ExplainedModel, requested: _Images, answers: Predictions) -> _Images:
    """Return the images that have predictions, under the names that the predictions use.

    The split of an image is that of its bytes in the run's catalog, else that of the table that names it.
    """
    rows = {str(f): i for i, f in enumerate(requested.files)}
    index = [rows[p] for p in answers.paths]
    files = [requested.files[i] for i in index]
    contents = [containers.digest(file) for file in files]
    catalog = None if subject.run is None else catalog_of(subject.run)
    known = {} if catalog is None else dict(zip(catalog.column("content"), catalog.column("split"), strict=True))
    splits = [known.get(content) or requested.splits[i] for content, i in zip(contents, index, strict=True)]
    labels = [requested.labels[i] for i in index]
    return _Images(files, [str(f) for f in files], labels, places=requested.places, splits=splits, contents=contents)


def _record_access(model: Classifier, images: _Images, answers: Predictions, name: str) -> None:
    """Record labelled test images in the test-set log, and warn of images that the classifier was fitted on."""
    labelled = np.array([label is not None for label in images.labels], dtype=bool)
    counts = labelled & model.counts_as_test(images.contents, images.splits)
    opening = test_set_log.look(answers, images.contents, counts, model, verb="explain", by=name)
    if opening is not None and opening.new:
        n = "1 test image" if counts.sum() == 1 else f"{counts.sum():,} test images"
        log.warning("%s of known class: the test-set log %s", n, "records this access" if opening.counted else opening.note)
    fitted = int(model.was_trained_on(images.contents).sum())
    if fitted:
        log.warning(
            "%d of the %d images were used to fit the classifier, so its predictions for them are better than for new images",
            fitted,
            len(images.files),
        )


def _warn_of_earlier(folder: Path) -> None:
    """Warn that a folder holds the heatmaps of an earlier call, which may be overwritten."""
    earlier = len(list(folder.glob("[0-9][0-9][0-9]*-*.npz"))) if folder.is_dir() else 0
    if earlier:
        log.warning(
            "%s holds %d heatmaps of an earlier call; files of the same name are overwritten, others stay (-o names another)",
            folder,
            earlier,
        )


def _check(
    subject: ExplainedModel,
    images: _Images,
    targets: list[int],
    options: ExplainOptions,
    heats: Sequence[Explanation],
    pointing: Sequence[Finding],
    progress: Progress,
) -> Evidence | None:
    """Return the run's checks, or checks on a sample of the images; and the check of each single image."""
    evidence = of_run(None if subject.run is None else subject.run.data.get("heat_checks"), options, subject.skill)
    if evidence is not None:
        evidence = _with(evidence, pointing)
    else:
        rows = spread(len(images.files), sample_size(subject.model))
        evidence = gather(
            subject.model,
            [images.files[i] for i in rows],
            [images.names[i] for i in rows],
            [targets[i] for i in rows],
            options,
            skill=subject.skill,
            more=[*_completeness(heats), *pointing],
            given={item.path: item for item in heats},
            progress=progress,
        )
    return None if evidence is None else with_pictures(evidence, subject.model, heats, images.file_of(), options, progress)


def _completeness(heats: Sequence[Explanation]) -> list[Finding]:
    """Return the finding on completeness, for methods that should add up to the difference in score."""
    missed = [item.missed for item in heats if item.missed is not None]
    return [verdict.judge_completeness(float(np.median(missed)))] if missed else []


def _pointing(model: Classifier, images: _Images, answers: Predictions, heats: Sequence[Explanation]) -> list[Finding]:
    """Return the finding of the pointing game as a run plays it: with explanations of the predicted classes."""
    predicted = {name: model.classes[int(p)] for name, p in zip(answers.paths, answers.y_pred, strict=True)}
    finding = play([item for item in heats if item.target == predicted[item.path]], images.places, images.file_of())
    return [] if finding is None else [finding]


def _with(evidence: Evidence, more: Sequence[Finding]) -> Evidence:
    """Return a run's checks with further findings on these images, of checks that the run did not make."""
    listed = [dict(f) for f in evidence.shared["findings"]]
    new = [finding for finding in more if all(f["check"] != finding.check for f in listed)]
    if not new:
        return evidence
    old = [Finding(f.pop("check"), f.pop("verdict"), f.pop("text"), f) for f in listed]
    return dataclasses.replace(evidence, shared={**evidence.shared, **verdict.summary([*old, *new])})


@dataclass(frozen=True, slots=True)
class _Job:
    """The output of one call, and what it is made from."""

    subject: ExplainedModel
    images: _Images
    answers: Predictions
    heats: list[Explanation]
    evidence: Evidence | None
    folder: Path
    options: ExplainOptions

    def stem(self, number: int, path: str) -> str:
        """Return the beginning of the names of an image's files."""
        file, _, item = Path(path).name.partition("#")
        return f"{number:03d}-{slug(Path(file).stem + (f'-{item}' if item.isdigit() else ''))}"

    def write(self, number: int, item: Explanation) -> dict[str, Any]:
        """Draw one image, write its heatmap, and return its entry for JSON."""
        model, row = self.subject.model, self.answers.paths.index(item.path)
        probs = self.answers.probs[row]
        label, predicted, target = self.images.labels[row], int(self.answers.y_pred[row]), model.classes.index(item.target)
        probability = float(probs[target])
        check = None if self.evidence is None else self.evidence.of(item)
        stem = self.stem(number, item.path)
        picture, heat = self.folder / f"{stem}.png", self.folder / f"{stem}.npz"
        caption = Caption(
            label=label,
            predicted=model.classes[predicted],
            probability=float(probs[predicted]),
            target_probability=None if target == predicted else probability,
            verdict=None if check is None else (str(check["verdict"]), str(check["why"])),
        )
        preprocess = model.card.backbone.preprocess
        overlay.save_png(overlay.overlay_file(self.images.files[row], preprocess, item, caption), picture)
        write_heat(heat, item, model.classes)
        return {
            "path": item.path,
            "label": label,
            "split": self.images.splits[row] if self.images.splits else None,
            "in_training": self.in_training(row),
            "predicted": model.classes[predicted],
            "target": item.target,
            "probability": probability,
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
        return bool(self.images.contents and self.subject.model.was_trained_on([self.images.contents[row]])[0])

    def hide(self, number: int, entry: Mapping[str, Any], regions: Sequence[cover_region.Region]) -> dict[str, Any]:
        """Cover the regions of one image, predict again, draw the result, and return its entry for JSON."""
        model, row = self.subject.model, self.answers.paths.index(entry["path"])
        hidden = cover_region.hide(model, self.images.files[row], regions, cache=self.options.cache, device=self.options.device)
        picture = self.folder / f"{self.stem(number, entry['path'])}-hidden.png"
        target = model.classes.index(entry["target"])
        overlay.save_png(overlay.covered_region(hidden, entry["target"], target), picture)
        return {**hidden.as_data(model.classes, target, regions), "picture": str(picture)}

    def channels(self, number: int, path: str, choice: channel_sheets.Choice) -> dict[str, Any]:
        """Draw channels of one image, and return their entry for JSON."""
        file, stem = self.images.files[self.answers.paths.index(path)], self.folder / self.stem(number, path)
        return channel_sheets.write(stem, self.subject.model, file, path, choice, self.options)

    def compare_layers(
        self, entries: Sequence[dict[str, Any]], layers: Sequence[str], targets: Sequence[int], progress: Progress
    ) -> None:
        """Write the heatmaps of each image at several layers side by side, and add them to the entries, in place."""
        model, images = self.subject.model, self.images
        of_image: dict[str, dict[str, Explanation]] = {}
        for layer in layers:
            options = dataclasses.replace(self.options, layer=layer)
            for item in heatmaps_of(model, images.files, images.names, targets, options, progress=progress)[0]:
                of_image.setdefault(item.path, {})[layer] = item
        for number, entry in enumerate(entries, 1):
            items = of_image.get(entry["path"], {})
            if items:
                sheet = self.folder / f"{self.stem(number, entry['path'])}-layers.png"
                layer_sheet.write(sheet, images.file_of()[entry["path"]], list(items.values()), model.card.backbone.preprocess)
                entry["layers"] = {"names": list(items), "sheet": str(sheet)}

    def write_sheets(self, entries: Sequence[dict[str, Any]], target: str | None, average_by: By, progress: Progress) -> None:
        """Write contact sheets by class and average heatmaps, and add them to the entries, in place."""
        sheet_of = contact_sheets.write(
            self.folder,
            self.subject,
            self.heats,
            labels=self.images.labels,
            files=self.images.file_of(),
            predictions=self.answers,
            verdicts={entry["path"]: str(entry["check"]["verdict"]) for entry in entries if entry["check"]},
            cache=self.options.cache,
            device=self.options.device,
            progress=progress,
        )
        by_label = average_by == "label"
        explanations = self._of_labels(target, progress) if by_label else list(self.heats)
        class_of = self.images.label_of() if by_label else dict(zip(self.answers.paths, self.answers.labels, strict=True))
        average = contact_sheets.write_average(self.folder, explanations, class_of, average_by)
        for entry in entries:
            entry["sheet"] = sheet_of.get(entry["path"])
            entry["average"] = None if average is None else {"file": str(average), "by": average_by}

    def _of_labels(self, target: str | None, progress: Progress) -> list[Explanation]:
        """Return explanations of each labelled image for its own label, or for the requested target.

        Where an explanation is for another class, as of a wrong prediction, that for the label is computed.
        """
        model, label_of, file_of = self.subject.model, self.images.label_of(), self.images.file_of()
        labelled = [item for item in self.heats if item.path in label_of]
        if target is not None:
            return labelled
        right = [item for item in labelled if item.target == label_of[item.path]]
        paths = [i.path for i in labelled if i.target != label_of[i.path] and label_of[i.path] in model.classes]
        if not paths or self.options.contrast is not None:
            return right
        targets = [model.classes.index(label_of[p]) for p in paths]
        others, _ = heatmaps_of(model, [file_of[p] for p in paths], paths, targets, self.options, progress=progress)
        return [*right, *others]


def write_heat(file: Path, item: Explanation, classes: Sequence[str]) -> None:
    """Write a raw heatmap and its description as `.npz`: plain arrays and text, no pickle."""
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
