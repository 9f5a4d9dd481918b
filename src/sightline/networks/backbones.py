"""timm and torchvision: list their networks and build them. Only `networks` imports these libraries."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sightline.errors import RequestError, WeightsError
from sightline.networks.entry import NetworkEntry, pretrained_on
from sightline.records import Preprocess
from sightline.store import plain

# The only network traffic is the download of weights.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
_FITS = {"center": "crop", "squash": "squash", "border": "pad"}
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained", "pretrained_filter_fn")
"""Names that timm's modules give to the function that renames the keys of published weights to the network's."""
_DRAWS = {
    *("normal_", "uniform_", "trunc_normal_", "_no_grad_trunc_normal_", "erfinv_", "orthogonal_"),
    *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
}
_TORCHVISION_CLASSIFIERS = ("fc", "classifier", "head", "heads")


def _size_of_weights(architecture: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return the input size to use. DINOv2's 518 px is a short last training phase for dense tasks; its published linear
    probes use 224 px.

    Source: Oquab et al. 2023, section 7.1.
    """
    return (224, 224) if "dinov2" in architecture and size == (518, 518) else size


# ---------------------------------------------------------------------------------------------------------------- survey


def survey() -> dict[str, list[dict[str, Any]]]:
    """Return every architecture with its weights as JSON of `NetworkEntry`, the default weights first."""
    import timm

    entries_of: dict[str, list[NetworkEntry]] = {}
    for name in timm.list_models():
        default = timm.get_pretrained_cfg(name)
        configs = timm.models.get_arch_pretrained_cfgs(name)
        entries = [_timm_entry(name, c) for c in configs.values() if c.has_weights]
        first = default.tag if default is not None else None
        entries.sort(key=lambda e: e.tag != first)
        if not entries and default is not None:
            entries = [_timm_entry(name, default)]
        if entries:
            entries_of[name] = entries
    for name, entries in _torchvision_survey().items():
        entries_of.setdefault(name, entries)
    return dict(plain(entries_of))


def _timm_entry(architecture: str, config: Any) -> NetworkEntry:
    classifier = config.classifier or ()
    interpolation = config.interpolation if config.interpolation in _INTERPOLATIONS else "bicubic"
    preprocess = Preprocess(
        size=_size_of_weights(architecture, tuple(config.input_size[1:])),
        fit=_FITS.get(config.crop_mode, "crop"),  # type: ignore[arg-type]
        crop_fraction=float(min(config.crop_pct, 1.0)),
        interpolation=interpolation,  # type: ignore[arg-type]
        mean=tuple((config.mean * 3)[:3]),
        std=tuple((config.std * 3)[:3]),
    )
    return NetworkEntry(
        architecture,
        "timm",
        preprocess,
        tag=(config.tag or "") if config.has_weights else "",
        fixed_size=bool(config.fixed_input_size),
        classifier=(classifier,) if isinstance(classifier, str) else tuple(classifier),
        classes=int(config.num_classes or 0),
        licence=config.license or "unknown",
        pretrained_on=pretrained_on(config.tag or "") if config.has_weights else "nothing",
        hub=_hub_id(config),
        file=config.hf_hub_filename or "",
        url=config.url if isinstance(config.url, str) else "",
    )


def _hub_id(config: Any) -> str:
    """Return the repository on the hub; timm's shorthand `timm/` stands for `timm/ARCHITECTURE.TAG`."""
    if not config.hf_hub_id:
        return ""
    return f"{config.hf_hub_id}{config.architecture}.{config.tag}" if config.hf_hub_id.endswith("/") else config.hf_hub_id


def _torchvision_survey() -> dict[str, list[NetworkEntry]]:
    import torchvision.models as models

    entries_of = {}
    for name in models.list_models(models):
        enum = models.get_model_weights(name)
        default = getattr(enum, "DEFAULT", None)
        entries = [_torchvision_entry(name, w) for w in sorted(enum, key=lambda w: w is not default)]
        entries_of[name] = entries or [NetworkEntry(name, "torchvision", Preprocess(interpolation="bilinear"))]
    return entries_of


def _torchvision_entry(name: str, weights: Any) -> NetworkEntry:
    transforms = weights.transforms()
    crop, resize = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    interpolation = transforms.interpolation.value
    preprocess = Preprocess(
        size=(crop, crop),
        crop_fraction=crop / resize,
        interpolation=interpolation if interpolation in _INTERPOLATIONS else "bilinear",
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
    swag = "SWAG" in weights.name
    return NetworkEntry(
        name,
        "torchvision",
        preprocess,
        tag=weights.name,
        fixed_size=name.startswith("vit_"),
        classifier=_TORCHVISION_CLASSIFIERS,
        classes=len(weights.meta.get("categories") or ()),
        licence="cc-by-nc-4.0" if swag else "bsd-3-clause",
        pretrained_on=f"{pretrained_on('swag')}, then ImageNet-1k" if swag else "ImageNet-1k",
        url=weights.url,
        parameters=weights.meta.get("num_params"),
    )


# ----------------------------------------------------------------------------------------------------------------- build


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside the block and restore their state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class _SkipInit(TorchFunctionMode):
    """Mode that skips random initialisation, which takes seconds, before weights are loaded."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def create(
    entry: NetworkEntry,
    size: tuple[int, int],
    *,
    classifier: bool = False,
    file: str = "",
    drawn: bool = True,
) -> nn.Module:
    """Build a library's network, with published or random weights.

    Args:
        entry: The network.
        size: (height, width) of the images in px.
        classifier: Whether to keep the classifier of the pretraining classes.
        file: Published file in the library's own cache to load the weights from; "" for random weights.
        drawn: Whether to draw random weights. If False, timm's networks are uninitialised until weights are loaded.

    Raises:
        RequestError: If the network does not accept images of that size.
        WeightsError: If the weights could not be loaded.
    """
    if entry.source == "torchvision":
        return _create_torchvision(entry, size, bool(file))
    import timm

    arguments: dict[str, Any] = {} if classifier else {"num_classes": 0}
    if entry.fixed_size:
        arguments["img_size"] = size if size[0] != size[1] else size[0]
    pretrained = bool(file)
    if file:
        arguments["pretrained_cfg_overlay"] = {"file": file}
    try:
        with warnings.catch_warnings(), contextlib.nullcontext() if drawn else _SkipInit():
            warnings.simplefilter("ignore")
            return timm.create_model(entry.name, pretrained=pretrained, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        if size == entry.preprocess.size:
            arguments.pop("img_size")
            return timm.create_model(entry.name, pretrained=pretrained, **arguments)
        raise too_small_or_fixed(entry, size, "it is built for one size") from error
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        raise too_small_or_fixed(entry, size, str(error)) from error
    except Exception as error:
        if not pretrained:
            raise
        raise WeightsError(f"the weights of {entry.name} could not be loaded ({_first_line(error)})") from error


def _create_torchvision(entry: NetworkEntry, size: tuple[int, int], published: bool, classes: int | None = None) -> nn.Module:
    import torchvision.models as models

    arguments: dict[str, Any] = {"image_size": size[0]} if entry.fixed_size and not published else {}
    if classes is not None:
        arguments["num_classes"] = classes
    if entry.architecture == "googlenet" and not published:
        arguments["aux_logits"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision warns of a change of its default initialisation
            network = models.get_model(entry.architecture, weights=entry.tag if published else None, **arguments)
    except ValueError as error:
        raise too_small_or_fixed(entry, size, str(error)) from error
    except Exception as error:
        if not published:
            raise
        raise WeightsError(f"the weights of {entry.name} could not be loaded ({_first_line(error)})") from error
    return network  # type: ignore[no-any-return]


def create_with_classifier(
    entry: NetworkEntry,
    size: tuple[int, int],
    *,
    classes: int | None = None,
    channels: int | None = None,
    drawn: bool = True,
) -> nn.Module:
    """Build a library's network including its classifier, with random weights.

    Args:
        entry: The network.
        size: (height, width) of the images in px.
        classes: Number of logits; None for the network's default.
        channels: Number of input channels; None for the network's default.
        drawn: Whether to draw random weights.

    Raises:
        RequestError: If the network does not accept images of that size or number of channels.
    """
    if entry.source == "torchvision":
        if channels not in (None, 3):
            raise RequestError(f"torchvision's {entry.architecture} takes images of 3 channels, not {channels}")
        return _create_torchvision(entry, size, False, classes)
    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if channels is not None:
        arguments["in_chans"] = channels
    if entry.fixed_size:
        arguments["img_size"] = size if size[0] != size[1] else size[0]
    with warnings.catch_warnings(), contextlib.nullcontext() if drawn else _SkipInit():
        warnings.simplefilter("ignore")
        return _create_timm(entry, size, arguments)


def _create_timm(entry: NetworkEntry, size: tuple[int, int], arguments: dict[str, Any]) -> nn.Module:
    """Build timm's network without published weights.

    Raises:
        RequestError: If the network does not accept images of that size.
    """
    import timm

    try:
        return timm.create_model(entry.architecture, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        if size == entry.preprocess.size:
            return timm.create_model(entry.architecture, **{k: v for k, v in arguments.items() if k != "img_size"})
        raise too_small_or_fixed(entry, size, "it is built for one size") from error
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        raise too_small_or_fixed(entry, size, str(error)) from error


def patch_px(network: nn.Module) -> int:
    """Return the patch size of a transformer in px; 1 for any other network.

    Image sizes must be multiples of it: otherwise a strip at the edge is dropped and heatmaps are shifted.
    """
    embedding = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    patch = patch[0] if isinstance(patch, tuple | list) and patch else patch
    projection = getattr(embedding, "proj", None)
    if isinstance(projection, nn.Conv2d) and projection.stride[0] != patch:
        return 1  # overlapping patches, like a convolution
    return patch if isinstance(patch, int) and patch > 0 else 1


def too_small_or_fixed(entry: NetworkEntry, size: tuple[int, int], reason: str, step: int = 32) -> RequestError:
    """Return the error for an image size that a network cannot be built for or run at."""
    default = entry.preprocess.size[0]
    return RequestError(
        f"{entry.architecture} does not accept images of {size[0]}×{size[1]} px ({reason.splitlines()[0][:160]})",
        f"its default size is {default}: omit --image-size, or choose a multiple of {step} near the default",
    )


def _first_line(error: BaseException) -> str:
    """Return the first line of an error, shortened."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:240]


# ------------------------------------------------------------------------------------------------------------- key names


def filtered(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Rename published weights to the network's key names by the function in timm's module; None if there is none."""
    module = sys.modules[type(network).__module__]
    for name in _FILTERS:
        function = getattr(module, name, None)
        if function is None:
            continue
        with contextlib.suppress(Exception):  # it may fail on files other than those published for that family
            try:
                return dict(function(dict(state), network))
            except TypeError:
                return dict(function(dict(state)))
    return None


def other_library_names(entry: NetworkEntry) -> dict[str, str]:
    """Map the other library's key names of an architecture to this library's; empty for networks not in `TORCHVISION`.

    Both libraries define the same layers in the same order, so tensors correspond one to one. Tests compare the logits of
    each pair.
    """
    import timm
    import torchvision.models as models

    in_torchvision = TORCHVISION.get(entry.architecture) if entry.source == "timm" else entry.architecture
    in_timm = next((t for t, v in TORCHVISION.items() if v == in_torchvision), None)
    if in_torchvision is None or in_timm is None:
        return {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchvision_names = _ordered(models.get_model(in_torchvision, weights=None))
        timm_names = _ordered(timm.create_model(in_timm, pretrained=False))
    if len(torchvision_names) != len(timm_names):
        return {}
    pairs = zip(torchvision_names, timm_names, strict=True)
    return dict(pairs) if entry.source == "timm" else {b: a for a, b in pairs}


def _ordered(network: nn.Module) -> list[str]:
    """Return the names of the tensors in order of definition, without BatchNorm's batch counters."""
    return [n for n in network.state_dict() if not n.endswith("num_batches_tracked")]


TORCHVISION: dict[str, str] = {
    # timm's name → torchvision's: the same architecture under different key names. Networks with equal key names need no entry.
    # Networks whose layers or BatchNorm epsilon differ (MobileNetV3, RegNet, Swin, ViT) are only built by torchvision's name.
    "mobilenetv2_100": "mobilenet_v2",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_b1": "efficientnet_b1",
    "efficientnet_b2": "efficientnet_b2",
    "efficientnet_b3": "efficientnet_b3",
    "efficientnet_b4": "efficientnet_b4",
    "mnasnet_050": "mnasnet0_5",
    "mnasnet_075": "mnasnet0_75",
    "mnasnet_100": "mnasnet1_0",
    "convnext_tiny": "convnext_tiny",
    "convnext_small": "convnext_small",
}
