"""The command `predict`: classes of any number of images, in order and in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline import activity, classifier, pixels
from sightline.catalog import RequestedImage, requested_images
from sightline.classifier import Classifier, Sessions
from sightline.commands import prediction_files, prediction_groups
from sightline.commands.prediction_copies import Copies
from sightline.commands.prediction_parts import Parts, request_of
from sightline.commands.prediction_rows import of_predictions
from sightline.errors import ImageError, RequestError
from sightline.pixels.batching import cores
from sightline.pixels.capture_time import capture_time
from sightline.records import Predictions, Progress, silent
from sightline.runs import executor
from sightline.runs import folder as folders
from sightline.store import Cache, bytes_digest, slug


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Options of a job.

    Args:
        sets: Probability with which a prediction set contains the true class, in (0, 1); None for no sets.
        crops: Crops per image, 1, 5 or 10; None for the classifier's number.
        top: Number of most probable classes to list; None for none.
        group_by: Column of a table, or `burst`: one prediction per event instead of per image.
        heatmaps: Folder for heatmaps of all images.
        copy_to: Folder for copies of the images, sorted by class.
        out: Output file: .csv, .jsonl or .parquet.
        resume: Whether to continue an interrupted job with the same output file.
        path_column: Column of tables with the paths.
        code: `file.py:function` that builds a user-defined network.
        device: `auto`, `cpu`, `cuda` or `mps`.
    """

    sets: float | None = None
    crops: int | None = None
    top: int | None = None
    group_by: str | None = None
    heatmaps: Path | None = None
    copy_to: Path | None = None
    out: Path | None = None
    resume: bool = False
    path_column: str | None = None
    code: str | None = None
    device: str = "auto"


@dataclass(slots=True)
class PredictResult:
    """Result of a job, while its parts exist.

    Args:
        model: The classifier.
        entries: Function that yields all entries in order, as `prediction_rows.of_predictions` makes them.
        image_entries: The same, of images even where `entries` are events.
        images, failed: Number of images, and of those without a prediction.
        notes: Remarks for the user.
    """

    model: Classifier
    entries: Callable[[], Iterator[dict[str, Any]]]
    image_entries: Callable[[], Iterator[dict[str, Any]]]
    images: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Facts:
    """Content hash and capture time of a file; "" and None if it cannot be read."""

    content: str = ""
    time: str | None = None


@folders.releasing
def predict(
    model: str | Path,
    paths: Sequence[str | Path],
    options: PredictOptions,
    on_result: Callable[[PredictResult], None],
    *,
    lines: Iterable[str] = (),
    progress: Progress = silent,
    cache: Cache | None = None,
) -> None:
    """Predict the classes of images, write the output file, and hand the result to a function.

    Args:
        model: Run folder, or classifier file.
        paths: Files, folders, patterns, tables, or `-`; see `catalog.requested_images`.
        options: Options of the job.
        on_result: Receives the result; its entries can be read until it returns.
        lines: Lines of standard input.
        progress: Progress callback.
        cache: Cache. Default: the user's cache.

    Raises:
        RequestError: If the classifier or the images do not exist, too few calibration images support `sets`, or a job is
            resumed with other arguments or images.
    """
    loaded = classifier.load(model, code=options.code)
    cache = Cache() if cache is None else cache
    _check(loaded, options)
    for folder in (options.heatmaps, options.copy_to):
        if folder is not None:
            folders.lock(folder)
    request = request_of(
        model, paths, crops=options.crops, sets=options.sets, top=options.top, folders=(options.heatmaps, options.copy_to)
    )
    with Parts.open(options.out, request, resume=options.resume) as parts:
        job = _Job(loaded, options, cache, progress)
        requested = requested_images(paths, lines, path_column=options.path_column)
        job.skip(parts, requested)
        job.run(parts, requested)
        if parts.images == 0:
            raise classifier.no_image(paths, {})
        result = PredictResult(loaded, parts.entries, parts.entries, parts.images, parts.failed, job.notes)
        if options.group_by is not None:
            groups = prediction_groups.group(parts.entries, options.group_by, loaded, options.sets, options.top)
            result.entries, result.images, result.failed = groups.entries, groups.number, groups.failed
            result.notes += groups.notes
        if options.out is not None:
            prediction_files.write(options.out, result.entries, loaded, any_failed=result.failed > 0)
        on_result(result)
        parts.finish()


def _check(model: Classifier, options: PredictOptions) -> None:
    """Check the options before any image is read.

    Raises:
        RequestError: If an option is not possible.
    """
    model.uncertainty_limits(options.sets)
    if options.top is not None and options.top < 1:
        raise RequestError(f"--top {options.top} lists no class", "use --top 1 or more")
    if options.crops is not None:
        for part in model.members or (model,):
            classifier.check_crops(options.crops, part.card.backbone)
    if options.out is not None:
        prediction_files.check_name(options.out)
    elif options.resume:
        raise RequestError("--resume continues the job of an output file, but there is none", "name the file with -o FILE")
    if options.heatmaps is not None and not any(m.looks_at_images for m in model.members or (model,)):
        raise RequestError("this classifier uses no pixels, so there are no heatmaps", "leave out --heatmaps")


class _Job:
    """The work on chunks of images.

    Args:
        model: The classifier.
        options: Options of the job.
        cache, progress: As in `predict`.
    """

    def __init__(self, model: Classifier, options: PredictOptions, cache: Cache, progress: Progress) -> None:
        self.model, self.options, self.cache, self.progress = model, options, cache, progress
        self.copies = None if options.copy_to is None else Copies(options.copy_to, model.classes)
        self.sessions: Sessions = {}
        self.limits = model.uncertainty_limits(options.sets)
        self.seen = 0

    @property
    def notes(self) -> list[str]:
        """Return remarks on the whole job."""
        notes = [] if self.copies is None else self.copies.notes()
        if self.seen:
            notes.append(
                f"{self.seen:,} of the images were used to fit the classifier, so its predictions for them are better than for "
                "new images"
            )
        return notes

    def skip(self, parts: Parts, requested: Iterator[RequestedImage]) -> None:
        """Skip the images that an interrupted job has predicted.

        Raises:
            RequestError: If they are not the first images of the request any more.
        """
        for number, entry in enumerate(parts.entries(), 1):
            image = next(requested, None)
            if image is None or image.path != entry["path"]:
                now = "missing" if image is None else image.path
                message = f"the images have changed since the job began: image {number:,} was {entry['path']}, and is {now}"
                raise RequestError(message, "start again without --resume")

    def run(self, parts: Parts, requested: Iterator[RequestedImage]) -> None:
        """Predict the remaining images chunk by chunk; the next chunk's files are hashed meanwhile."""
        with activity.workers(cores(), "sightline-read") as pool:
            upcoming = self._read(pool, requested)
            while upcoming:
                images, facts = zip(*upcoming, strict=True)
                known = [future.result() for future in facts]
                upcoming = self._read(pool, requested)
                entries = self._predict(parts.images, images, known)
                parts.add(entries)
                self.progress("images", parts.images, 0)

    def _read(
        self, pool: ThreadPoolExecutor, requested: Iterator[RequestedImage]
    ) -> list[tuple[RequestedImage, Future[_Facts]]]:
        """Return the next chunk of images, whose files are being hashed."""
        return [(image, pool.submit(_facts, image)) for image in itertools.islice(requested, executor.current().part_images)]

    def _predict(self, start: int, images: Sequence[RequestedImage], facts: Sequence[_Facts]) -> list[dict[str, Any]]:
        """Return the entries of one chunk, in order."""
        rows = [i for i, image in enumerate(images) if image.problem is None]
        files = [images[i].file for i in rows]
        cached = executor.current().cached_images
        contents = [facts[i].content if start + i < cached else "" for i in rows]
        options = self.options
        predicted: Predictions = executor.current().predict(
            self.model,
            files,
            crops=options.crops,
            cache=self.cache,
            device=options.device,
            contents=contents,
            sessions=self.sessions,
        )
        entries: list[dict[str, Any]] = [{"path": image.path, "error": image.problem} for image in images]
        uncertainty = None if self.limits is None else self.limits.of(predicted)
        made = of_predictions(predicted, uncertainty, with_sets=options.sets is not None, top=options.top)
        by_file = {entry["path"]: entry for entry in made}
        for i in rows:
            entries[i] = {**by_file[str(images[i].file)], "path": images[i].path}
        good = [i for i in rows if "error" not in entries[i]]
        self.seen += int(self.model.was_trained_on([facts[i].content for i in good]).sum())
        for i, (image, fact) in enumerate(zip(images, facts, strict=True)):
            if fact.time is not None:
                entries[i]["time"] = fact.time
            if image.columns is not None:
                entries[i]["columns"] = image.columns
        if options.heatmaps is not None:
            self._draw(options.heatmaps, start, [(i, images[i], entries[i]) for i in good])
        if self.copies is not None:
            for i in good:
                entries[i]["copy"] = self.copies.add(images[i].file, entries[i]["label"])
        return entries

    def _draw(self, folder: Path, start: int, images: Sequence[tuple[int, RequestedImage, dict[str, Any]]]) -> None:
        """Draw heatmaps of the predicted classes, and add their files to the entries, in place."""
        from sightline.explanation.draw import overlay
        from sightline.explanation.draw.caption import Caption
        from sightline.explanation.heatmaps import heatmaps_of
        from sightline.explanation.options import ExplainOptions

        options = ExplainOptions(cache=self.cache, device=self.options.device)
        preprocess = self.model.embedding_model.card.backbone.preprocess
        names = [str(i) for i, _, _ in images]
        targets = [self.model.classes.index(entry["label"]) for _, _, entry in images]
        by_name = {name: (image, entry) for name, (_, image, entry) in zip(names, images, strict=True)}
        explanations, _ = heatmaps_of(self.model, [image.file for _, image, _ in images], names, targets, options)
        for item in explanations:
            image, entry = by_name[item.path]
            caption = Caption(predicted=entry["label"], probability=entry["probability"])
            file = folder / f"{start + int(item.path):06d}-{slug(image.file.stem)}.png"
            overlay.save_png(overlay.overlay_file(image.file, preprocess, item, caption), file)
            entry["heatmap"] = str(file)


def _facts(image: RequestedImage) -> _Facts:
    """Read a file once, and return its hash and capture time."""
    if image.problem is not None:
        return _Facts()
    try:
        data, _ = pixels.read(image.file)
    except ImageError:
        return _Facts()
    return _Facts(bytes_digest(data), capture_time(data))
