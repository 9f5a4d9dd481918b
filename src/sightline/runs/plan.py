"""Request and plan of a run: options, planned steps and their estimated seconds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from sightline import engine, evaluation, heads, networks
from sightline.containers import has_archive_name, is_array_file
from sightline.errors import RequestError, WeightsError, unknown
from sightline.records import Backbone, Catalog, Recipe
from sightline.records.recipe import MOST_IMAGE_PX
from sightline.records.versions import RESULTS_VERSION
from sightline.store import Cache, digest, slug
from sightline.training.method import Method, Workload
from sightline.training.methods import METHODS, source_hashes

BUDGET_S = 600.0
"""Default time budget of a run, in seconds."""
FAR_AHEAD = 0.25
"""Training from scratch is skipped if a pretrained network makes at most this fraction of the baseline's errors."""
HEATMAPS_SHARE = 0.15
"""Fraction of the budget for heatmaps and thumbnails of misclassified images."""
BEHIND_SHARE = 0.1
"""Fraction of the budget that is reserved for test, learning curve and report."""
HELD_OUT_SHARE = 0.02
"""Fraction of the budget for thumbnails of held-out images."""
CURVE_SHARE = 0.04
"""Fraction of the budget for the learning curve."""
SMALL_IMAGE_PX = 64
"""Median image side in pixels below which the pixels themselves are also tried as features."""
BEST = "the best network"
"""Placeholder in a recipe for the backbone whose features have the highest accuracy."""
_VAGUE = frozenset({"dataset", "datasets", "data", "images", "imgs", "train", "training", "val", "test"})
"""Folder names that say little about the photographs in them."""
STARTUP_S = 8.0
"""Seconds that it takes to convert a network before it runs on the first image."""
_MACS_PER_S = 4e10
"""Multiply–accumulates per second of a frozen network on two cores, roughly, until it was measured on this machine."""
_MACS_PER_PARAMETER = 100.0
"""Multiply–accumulates per parameter at 224 px, roughly, of a network that is not in the table of networks."""


@dataclass(frozen=True, slots=True)
class Request:
    """Options of `sightline run`; see its help. `classes` is new name → old name; times are in seconds.

    Without a budget (`budget_s` is None) the run takes about `BUDGET_S`, and no training is stopped early for lack of time.
    """

    photos: str
    out: str = "runs"
    backbones: tuple[str, ...] = ()
    weights: str = "pretrained"
    methods: tuple[str, ...] = ()
    head: str = "auto"
    budget_s: float | None = None
    seed: int = 0
    val: float | int = 0.15
    test: float | int = 0.2
    group_by: str | None = None
    label_from: str | None = None
    label_level: int | None = None
    follow_links: bool = False
    path_column: str | None = None
    label_column: str | None = None
    classes: Mapping[str, str] | None = None
    limit: int | None = None
    positive: str | None = None
    threshold: str | None = None
    fit: str | None = None
    image_size: int | None = None
    pool: str = "avg"
    device: str = "auto"
    allow_truncated: bool = False
    command: str = ""
    resume: bool = False
    recipe: Recipe | None = None
    heatmaps: Literal["none", "few", "all"] = "all"
    name: str | None = None
    precision: Literal["auto", "f32", "bf16", "int8"] = "auto"

    @property
    def title(self) -> str:
        """Return the name of the run: the given one, or that of the photographs."""
        return photos_name(self.photos) if self.name is None else slug(self.name)

    @property
    def time_s(self) -> float:
        """Return the time budget of the whole run, in seconds."""
        return BUDGET_S if self.budget_s is None else self.budget_s


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One method of the plan.

    Args:
        recipe: The recipe.
        seconds: Estimated duration on this machine.
        why_not: Reason why it is left out; None otherwise.
        measured: Whether the estimate comes from an earlier measurement on this machine.
        unless_far_ahead: Whether it is skipped if a pretrained network is far ahead; see `candidates.far_ahead`.
    """

    recipe: Recipe
    seconds: float
    why_not: str | None = None
    measured: bool = False
    unless_far_ahead: bool = False

    @property
    def least_s(self) -> float:
        """Return the least time that the step needs, in seconds; 0 for methods that train for as long as the time allows."""
        return 0.0 if METHODS[self.recipe.method].fills_time else self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a run.

    Args:
        steps: The methods, in order.
        backbones: The available networks, by name.
        lines: The plan as text.
        missing: Default networks whose weights are not available.
    """

    steps: tuple[PlannedStep, ...]
    backbones: Mapping[str, Backbone] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def id(self, request: Request, catalog: Catalog) -> str:
        """Return the identity of a run: a hash of everything that its result depends on.

        It covers the images and their splits, the options that change the result, the recipes, the weights, user-defined code
        and `RESULTS_VERSION`; not options such as `--out`, nor which steps were skipped for lack of time. The keys are written
        out, so that an option that is added later makes no finished run stale.
        """
        recipes = [s.recipe for s in self.steps]
        return digest(
            {
                "photos": str(catalog.root),
                "catalog": catalog.fingerprint(),
                "backbones": request.backbones,
                "weights": request.weights,
                "methods": request.methods,
                "head": request.head,
                "budget_s": request.budget_s,
                "seed": request.seed,
                "val": request.val,
                "test": request.test,
                "group_by": request.group_by,
                "label_from": request.label_from,
                **({} if request.label_level is None else {"label_level": request.label_level}),
                **({"follow_links": True} if request.follow_links else {}),
                "path_column": request.path_column,
                "label_column": request.label_column,
                "classes": request.classes,
                "limit": request.limit,
                "positive": request.positive,
                "threshold": request.threshold,
                "fit": request.fit,
                "image_size": request.image_size,
                "pool": request.pool,
                "device": request.device,
                "allow_truncated": request.allow_truncated,
                "recipe": None if request.recipe is None else request.recipe.id,
                "heatmaps": request.heatmaps,
                **({} if request.precision == "auto" else {"precision": request.precision}),
                "networks": {n: [b.id, b.preprocess.id] for n, b in self.backbones.items()},
                "recipes": [recipe.id for recipe in recipes],
                "code": [source for recipe in recipes for source in source_hashes(recipe)],
                "results_version": RESULTS_VERSION,
            }
        )


def check(request: Request, cache: Cache | None = None) -> None:
    """Check the names and numbers of a request before any file is read.

    Raises:
        RequestError: If a name is unknown or a number is out of range.
    """
    for method in (*request.methods, *([request.recipe.method] if request.recipe is not None else [])):
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    runs_named = any(METHODS[method].network == "classifier" for method in request.methods)
    for backbone in () if runs_named else request.backbones:
        networks.check_name(backbone, Cache() if cache is None else cache)
    heads.check_name(request.head)
    if request.device not in ("auto", "cpu", "cuda", "mps"):
        raise unknown("device", request.device, ["auto", "cpu", "cuda", "mps"])
    if request.threshold is not None:
        evaluation.check_criterion(request.threshold)
    if request.time_s <= 0:
        raise RequestError(f"the budget must be more than 0 s, not {request.time_s:g} s", "write --budget 10m")
    if request.image_size is not None and not 8 <= request.image_size <= MOST_IMAGE_PX:
        raise RequestError(
            f"--image-size must be between 8 and {MOST_IMAGE_PX} px, not {request.image_size}", "write --image-size 224"
        )


def make_plan(
    request: Request, catalog: Catalog, cache: Cache, device: str, say: Callable[[str], None], *, spent_s: float = 0.0
) -> Plan:
    """Choose the methods and networks to try, with an estimate of their duration. No network is run.

    Args:
        request: The request.
        catalog: The usable images.
        cache: Cache, with the measured speed of networks on this machine.
        device: `cpu`, `cuda` or `mps`.
        say: Called with each message, such as a download that is about to begin.
        spent_s: Duration of scan, search for duplicates and split, in seconds.

    Raises:
        WeightsError: If the weights of a requested network are not available.
        RequestError: If a name is unknown.
    """
    request = _with_recipe(request)
    methods = _methods(request)
    small = _median_side(catalog) < SMALL_IMAGE_PX
    wanted = any(method.pretrained for method in methods)
    backbones, missing = _backbones(request, cache, small, say) if wanted else ({}, {})
    estimates = {name: _features_seconds(backbone, len(catalog), cache, device) for name, backbone in backbones.items()}
    networks_s = [seconds - STARTUP_S for name, (seconds, _) in estimates.items() if backbones[name].is_network]
    workload = Workload(len(catalog), request.time_s, forward_s=min(networks_s, default=0.0), device=device)
    # on small images, a small network trained from scratch can be better than a network made for large images
    beside = bool(networks_s) and not request.methods and not small and request.weights != "random"
    steps: list[PlannedStep] = []
    for method in methods:
        for name in _networks_of(method, request, backbones, cache):
            features_s, measured = estimates.get(name, (0.0, False)) if method.fits_heads else (0.0, method.role == "reference")
            step = PlannedStep(
                _recipe(request, method, name),
                method.estimate_seconds(dataclasses.replace(workload, features_s=features_s)),
                why_not="the weights of no network are available" if method.pretrained and not name else None,
                measured=measured,
                unless_far_ahead=beside and method.network == "random",
            )
            steps.append(step)
    fitting = _fitting(steps, methods_s(request) - spent_s)
    lines = _lines(catalog, fitting, backbones, missing, request, spent_s)
    return Plan(tuple(fitting), backbones, tuple(lines), tuple(missing))


def _methods(request: Request) -> list[Method]:
    """Return the methods to try, in the order of METHODS."""
    if not request.methods:
        return [method for method in METHODS.values() if method.by_default]
    return [method for name, method in METHODS.items() if name in request.methods]


def _networks_of(method: Method, request: Request, backbones: Mapping[str, Backbone], cache: Cache) -> Sequence[str]:
    """Return the backbone of each planned recipe of a method; an empty name if no network is available.

    Raises:
        RequestError: If a name is unknown, or no classifier to continue from is named.
    """
    if method.network == "random":
        return _from_scratch(method, request, cache)
    if method.network == "classifier":
        return (_earlier(request),)
    if not method.pretrained:
        return ("none",)
    if method.fits_heads:
        return tuple(backbones)
    trainable = [name for name, backbone in backbones.items() if backbone.is_network]
    if not trainable:
        return ("",) if request.methods else ()
    compared = any(m.fits_heads for m in _methods(request))
    return (BEST if compared and len(trainable) > 1 else trainable[0],)


def methods_s(request: Request) -> float:
    """Return the time limit of all methods together, in seconds from the start of the run."""
    heatmaps = 0.0 if request.heatmaps == "none" else HEATMAPS_SHARE
    return request.time_s * (1 - heatmaps - BEHIND_SHARE)


def _fitting(steps: list[PlannedStep], left_s: float) -> list[PlannedStep]:
    """Return the steps, those that do not fit with a reason; methods that fill the time get the time that is left."""
    total, fitting = 0.0, []
    for step in steps:
        left = max(0.0, left_s - total)
        if step.why_not is None and METHODS[step.recipe.method].fills_time and 0 < left < step.seconds:
            step = dataclasses.replace(step, seconds=left)
        elif step.why_not is None and total and step.seconds > left and (step.measured or left <= 0):
            step = dataclasses.replace(step, why_not=f"it takes about {_time(step.seconds)} here, {_time(left)} are left")
        total += step.seconds if step.why_not is None else 0.0
        fitting.append(step)
    return fitting


def _backbones(
    request: Request, cache: Cache, small: bool, say: Callable[[str], None]
) -> tuple[dict[str, Backbone], dict[str, WeightsError]]:
    """Return the networks to compare, and the default networks whose weights are not available, with the reason.

    A substitute among the default networks is left out if a stronger one is available.
    """
    found: dict[str, Backbone] = {}
    missing: dict[str, WeightsError] = {}
    named = request.backbones
    for name in named or networks.DEFAULTS:
        if not named and networks.DEFAULTS[name].role == "substitute" and len(found) > 1:
            continue
        size = networks.download_bytes(name, request.weights, cache)
        if size is not None:
            about = f", about {size / 1e6:.0f} MB" if size else ""
            say(f"{name} needs pretrained weights{about}: they will be downloaded once, if available")
        try:
            named_recipe = Recipe(
                backbone=name,
                weights=request.weights,
                image_size=request.image_size,
                fit=request.fit,  # type: ignore[arg-type]
                pool=request.pool,  # type: ignore[arg-type]
                seed=request.seed,
            )
            found[name] = networks.describe_recipe(named_recipe, cache)
        except WeightsError as error:
            if named:
                raise
            missing[name] = error
    if not named and (small or not found):
        # The pixels of the image at 16 px: fast to fit, and the heatmap is still readable.
        found = {"pixels": networks.describe("pixels", image_size=request.image_size, fit=request.fit, cache=cache), **found}
    return found, missing


def _from_scratch(method: Method, request: Request, cache: Cache) -> tuple[str, ...]:
    """Return the networks that `scratch` trains: the requested ones if the method is requested too, else `cnn`.

    Without `--methods`, a requested network stands for its pretrained features. Training it from scratch on the few images of a
    usual run takes much longer and is rarely as accurate, so that the small network is trained instead.

    Raises:
        RequestError: If a name is unknown.
    """
    if method.name not in request.methods:
        return ("cnn",)
    if request.recipe is not None:
        return request.backbones
    known = [n for n in request.backbones if n not in networks.SPECIAL and not _is_run(n)]
    for name in known:
        networks.check_name(name, cache)
    return tuple(known) or ("cnn",)


def _is_run(name: str) -> bool:
    """Return whether a name is the path of a run or a classifier."""
    return Path(name).is_dir() or name.endswith(".safetensors")


def _with_recipe(request: Request) -> Request:
    """Return the request with the options of its recipe, whose method is compared with reference and shortcut check."""
    r = request.recipe
    if r is None:
        return request
    methods = request.methods or (*(name for name, m in METHODS.items() if m.role != "classifier"), r.method)
    options = {"weights": r.weights, "head": r.head, "image_size": r.image_size, "fit": r.fit, "pool": r.pool}
    return dataclasses.replace(request, methods=methods, backbones=(r.backbone,), **options)  # type: ignore[arg-type]


def _recipe(request: Request, method: Method, backbone: str) -> Recipe:
    if request.recipe is not None and method.name == request.recipe.method:
        return request.recipe
    pretrained = method.pretrained
    return Recipe(
        method=method.name,
        backbone=backbone,
        weights=request.weights if pretrained else "random",
        head=request.head if method.fits_heads else "auto",
        image_size=request.image_size if pretrained or method.network == "random" else None,
        fit=request.fit,  # type: ignore[arg-type]
        pool=request.pool if pretrained else "avg",  # type: ignore[arg-type]
        seed=request.seed,
    )


def speed_name(backbone: Backbone, device: str) -> str:
    """Return the name of the cache entry with the speed of a network on this machine, in images per second."""
    return f"speed/{digest([backbone.name, backbone.preprocess.size, device, os.cpu_count()])}"


def _features_seconds(backbone: Backbone, images: int, cache: Cache, device: str) -> tuple[float, bool]:
    """Return the estimated seconds of a feature extraction, and whether the estimate is from a measurement on this machine."""
    if backbone.source == "pixels":
        return 3 + images / 500, False
    rate = cache.read_json(speed_name(backbone, device))
    measured = rate is not None
    if rate is None:
        height, width = backbone.preprocess.size
        guess = _MACS_PER_PARAMETER * max(backbone.parameters, 1_000_000) * height * width / 224**2
        macs = networks.macs_of(backbone.name, (height, width)) or guess
        rate = _MACS_PER_S / macs * (20 if device == "cuda" else 1)
    return STARTUP_S + images / min(float(rate), 1500.0), measured


def _earlier(request: Request) -> str:
    """Return the path of the classifier that `warmstart` begins with.

    Raises:
        RequestError: If none is named.
    """
    if not request.backbones:
        raise RequestError("warmstart needs an earlier classifier", "name its run: --backbone runs/mine")
    return request.backbones[0]


def _median_side(catalog: Catalog) -> float:
    sides = [min(w, h) for w, h in zip(catalog.column("width"), catalog.column("height"), strict=True) if w and h]
    return float(np.median(sides)) if sides else 0.0


def _lines(
    catalog: Catalog,
    steps: list[PlannedStep],
    backbones: Mapping[str, Backbone],
    missing: Mapping[str, WeightsError],
    request: Request,
    spent_s: float,
) -> list[str]:
    """Return the lines of the plan: every stage with an estimate of its duration."""
    budget, known = request.time_s, [s for s in steps if s.why_not is None]
    heatmaps = 0.0 if request.heatmaps == "none" else HEATMAPS_SHARE * budget
    curve, behind = CURVE_SHARE * budget, 2 + len(catalog) / 500
    total = spent_s + sum(s.seconds for s in known) + curve + behind + heatmaps
    about = f"plan for at most {_time(min(total, budget))}"
    lines = [f"{len(catalog):,} images of {len(catalog.classes)} classes, a budget of {_time(budget)}; {about}:"]
    if not request.backbones:
        lines += _network_lines(backbones, missing)
    lines.append(f"  reading, duplicates, split: {_time(spent_s)} (done)")
    for step in steps:
        recipe = step.recipe
        what = step_name(recipe)
        fills_time = METHODS[recipe.method].fills_time
        cost = f"up to {_time(step.seconds)}, as many epochs as fit" if fills_time else _time(step.seconds)
        ahead = ", skipped if a pretrained network is far ahead" if step.unless_far_ahead else ""
        lines.append(f"  {what}: " + (f"skipped, {step.why_not}" if step.why_not else f"{cost}{ahead}"))
    if any(s.unless_far_ahead for s in known):
        lines.append(
            f"    (far ahead: the lower end of its 95 % interval leaves at most {FAR_AHEAD:.0%} of the errors "
            "of always predicting the most frequent class)"
        )
    lines.append(f"  learning curve: at most {_time(curve)}")
    lines.append(f"  test and report: {_time(behind)}")
    drawn = "none" if not heatmaps else f"at most {_time(heatmaps)}, drawn into the report when it is there"
    lines.append(f"  heatmaps and pictures of mistakes: {drawn}")
    if not backbones and any(method.fits_heads for method in _methods(request)):
        lines.append("  no pretrained network is available here")
    return lines


def _network_lines(backbones: Mapping[str, Backbone], missing: Mapping[str, WeightsError]) -> list[str]:
    """Return lines with the default networks that are used, the reason for each, and those that are not available."""
    used = [(networks.DEFAULTS[name], backbone) for name, backbone in backbones.items() if name in networks.DEFAULTS]
    lines = [f"  {backbone.name} ({default.role}): {default.why}; weights: {backbone.origin}" for default, backbone in used]
    if missing:
        first = next(iter(missing.values()))
        lines.append(f"  without weights: {', '.join(missing)} ({first.message})")
        if not used:
            lines.append(f"    without pretrained weights, expect a much lower accuracy; {first.hint}")
    return lines


def step_name(recipe: Recipe) -> str:
    """Return the name of a step in the plan and in progress lines: the method and its network."""
    method = METHODS[recipe.method]
    if method.network == "random":
        return f"{recipe.backbone} from scratch"
    return f"{recipe.method} on {recipe.backbone}" if method.pretrained and recipe.backbone else recipe.method


def _time(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def device_of(request: Request) -> str:
    """Return the device of a request on this machine."""
    return engine.choose_device(request.device)


def photos_name(photos: str) -> str:
    """Return the name of a run of these photographs: that of the folder or table, or of its parent if it says little.

    Example:
        >>> photos_name("My pets/dataset/train"), photos_name("flowers.csv"), photos_name("photos")
        ('my-pets', 'flowers', 'photos')
    """
    path = Path(photos)
    if path.suffix.lower() in (".csv", ".parquet") or is_array_file(path) or has_archive_name(path):
        return slug(path.stem.removesuffix(".tar"))
    parts = [part for part in path.resolve().parts if part != path.resolve().anchor]
    telling = next((part for part in reversed(parts[-4:]) if part.lower() not in _VAGUE), None)
    return slug(telling or path.resolve().name)
