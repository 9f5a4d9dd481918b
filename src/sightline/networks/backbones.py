"""The networks of timm and torchvision: what there is, and how it is built. No other file imports either."""

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
from sightline.networks.index import NetworkEntry, pretrained_on
from sightline.records import Preprocess
from sightline.store import plain

# Nothing leaves the machine but the request for a file of weights.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
_FITS = {"center": "crop", "squash": "squash", "border": "pad"}
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained", "pretrained_filter_fn")
"""What timm's files call the function that turns the keys of published weights into the network's own."""
_DRAWS = {
    *("normal_", "uniform_", "trunc_normal_", "_no_grad_trunc_normal_", "erfinv_", "orthogonal_"),
    *("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_"),
}
_TORCHVISION_CLASSIFIERS = ("fc", "classifier", "head", "heads")


def _size_of_weights(architecture: str, size: tuple[int, int]) -> tuple[int, int]:
    """The size to see images at. DINOv2's 518 px is a short last phase for dense tasks; its published probes are at 224.

    Source: Oquab et al. 2023, section 7.1.
    """
    return (224, 224) if "dinov2" in architecture and size == (518, 518) else size


# ---------------------------------------------------------------------------------------------------------------- survey


def survey() -> dict[str, list[dict[str, Any]]]:
    """Every architecture that can be built, with its weights, the default ones first; as JSON of `known.Entry`."""
    import timm

    found: dict[str, list[NetworkEntry]] = {}
    for name in timm.list_models():
        default = timm.get_pretrained_cfg(name)
        configs = timm.models.get_arch_pretrained_cfgs(name)
        entries = [_timm_entry(name, c) for c in configs.values() if c.has_weights]
        first = default.tag if default is not None else None
        entries.sort(key=lambda e: e.tag != first)
        if not entries and default is not None:
            entries = [_timm_entry(name, default)]
        if entries:
            found[name] = entries
    for name, entries in _torchvision_survey().items():
        found.setdefault(name, entries)
    return dict(plain(found))


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
    """The repository on the hub, with timm's shorthand `timm/` written out."""
    if not config.hf_hub_id:
        return ""
    return f"{config.hf_hub_id}{config.architecture}.{config.tag}" if config.hf_hub_id.endswith("/") else config.hf_hub_id


def _torchvision_survey() -> dict[str, list[NetworkEntry]]:
    import torchvision.models as models

    found = {}
    for name in models.list_models(models):
        enum = models.get_model_weights(name)
        default = getattr(enum, "DEFAULT", None)
        entries = [_torchvision_entry(name, w) for w in sorted(enum, key=lambda w: w is not default)]
        found[name] = entries or [NetworkEntry(name, "torchvision", Preprocess(interpolation="bilinear"))]
    return found


def _torchvision_entry(name: str, weights: Any) -> NetworkEntry:
    seen = weights.transforms()
    crop, resize = int(seen.crop_size[0]), int(seen.resize_size[0])
    interpolation = seen.interpolation.value
    preprocess = Preprocess(
        size=(crop, crop),
        crop_fraction=crop / resize,
        interpolation=interpolation if interpolation in _INTERPOLATIONS else "bilinear",
        mean=tuple(seen.mean),
        std=tuple(seen.std),
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
    """torch's random numbers are a function of `seed` inside the block and go on outside as if it had not been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class _Unset(TorchFunctionMode):
    """Inside it, random initialisation does nothing: weights are about to come, and drawing takes seconds."""

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
    """Build a network of a library.

    Args:
        entry: Which one.
        size: (height, width) that it will see, in pixels.
        classifier: Whether to keep what turns features into the logits of what it was trained on.
        file: The library's own published file in its own cache, to load the weights from; "" leaves them at random.
        drawn: Whether random weights are drawn; without, timm's networks hold nothing until weights are put in.

    Raises:
        RequestError: The network cannot see images of that size.
        WeightsError: The weights could not be loaded.
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
        with warnings.catch_warnings(), contextlib.nullcontext() if drawn else _Unset():
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
        raise WeightsError(f"the weights of {entry.name} could not be loaded ({_line(error)})") from error


def _create_torchvision(entry: NetworkEntry, size: tuple[int, int], published: bool, classes: int | None = None) -> nn.Module:
    import torchvision.models as models

    arguments: dict[str, Any] = {"image_size": size[0]} if entry.fixed_size and not published else {}
    if classes is not None:
        arguments["num_classes"] = classes
    if entry.architecture == "googlenet" and not published:
        arguments["aux_logits"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision announces a change of its own initialisation
            network = models.get_model(entry.architecture, weights=entry.tag if published else None, **arguments)
    except ValueError as error:
        raise too_small_or_fixed(entry, size, str(error)) from error
    except Exception as error:
        if not published:
            raise
        raise WeightsError(f"the weights of {entry.name} could not be loaded ({_line(error)})") from error
    return network  # type: ignore[no-any-return]


def create_whole(
    entry: NetworkEntry,
    size: tuple[int, int],
    *,
    classes: int | None = None,
    channels: int | None = None,
    drawn: bool = True,
) -> nn.Module:
    """Build a network of a library with its own classifier, weights at random.

    Args:
        entry: Which one.
        size: (height, width) that it will see, in pixels.
        classes: Logits; None takes its own number.
        channels: Of the images; None takes its own number.
        drawn: Whether random weights are drawn.

    Raises:
        RequestError: The network cannot see images of that size, or of so many channels.
    """
    if entry.source == "torchvision":
        if channels not in (None, 3):
            raise RequestError(f"torchvision's {entry.architecture} sees images of 3 channels, not {channels}")
        return _create_torchvision(entry, size, False, classes)
    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if channels is not None:
        arguments["in_chans"] = channels
    if entry.fixed_size:
        arguments["img_size"] = size if size[0] != size[1] else size[0]
    with warnings.catch_warnings(), contextlib.nullcontext() if drawn else _Unset():
        warnings.simplefilter("ignore")
        return _timm(entry, size, arguments)


def _timm(entry: NetworkEntry, size: tuple[int, int], arguments: dict[str, Any]) -> nn.Module:
    """timm's network without weights.

    Raises:
        RequestError: It cannot see images of that size.
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
    """The side of the patches that a transformer cuts images into; 1 for any other network.

    What is left over at the edges of other sizes would be dropped, and heatmaps would lie askew.
    """
    embedding = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    patch = patch[0] if isinstance(patch, tuple | list) and patch else patch
    projection = getattr(embedding, "proj", None)
    if isinstance(projection, nn.Conv2d) and projection.stride[0] != patch:
        return 1  # its patches overlap, as a convolution's do
    return patch if isinstance(patch, int) and patch > 0 else 1


def too_small_or_fixed(entry: NetworkEntry, size: tuple[int, int], reason: str, step: int = 32) -> RequestError:
    """The error for an image size that a network cannot be built for or run at."""
    own = entry.preprocess.size[0]
    return RequestError(
        f"{entry.architecture} cannot see images of {size[0]}×{size[1]} px ({reason.splitlines()[0][:160]})",
        f"its own size is {own}: leave out --image-size, or choose a multiple of {step} near it",
    )


def _line(error: BaseException) -> str:
    """An error's first line, shortened."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:240]


# ------------------------------------------------------------------------------------------------------------- key names


def filtered(network: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Published weights under the network's own key names, by timm's own function for that file; None where it has none."""
    module = sys.modules[type(network).__module__]
    for name in _FILTERS:
        function = getattr(module, name, None)
        if function is None:
            continue
        with contextlib.suppress(Exception):  # it was written for that family's published files, not for any other
            try:
                return dict(function(dict(found), network))
            except TypeError:
                return dict(function(dict(found)))
    return None


def twin_names(entry: NetworkEntry) -> dict[str, str]:
    """Key names of the same architecture in the other library → key names in this one; empty where there is no twin.

    Both libraries define the same layers in the same order, so the tensors correspond one to one; which pairs do was
    measured: the tests compare their logits.
    """
    import timm
    import torchvision.models as models

    ours = TWINS.get(entry.architecture) if entry.source == "timm" else entry.architecture
    theirs = next((t for t, v in TWINS.items() if v == ours), None)
    if ours is None or theirs is None:
        return {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        aux = {"aux_logits": False} if ours == "googlenet" else {}
        torchvision_names = _ordered(models.get_model(ours, weights=None, **aux))
        timm_names = _ordered(timm.create_model(theirs, pretrained=False))
    if len(torchvision_names) != len(timm_names):
        return {}
    pairs = zip(torchvision_names, timm_names, strict=True)
    return dict(pairs) if entry.source == "timm" else {b: a for a, b in pairs}


def _ordered(network: nn.Module) -> list[str]:
    """The names of its tensors as they were defined, without the batch counters and the auxiliary heads."""
    skipped = ("AuxLogits.", "aux1.", "aux2.")
    return [n for n in network.state_dict() if not n.endswith("num_batches_tracked") and not n.startswith(skipped)]


TWINS: dict[str, str] = {
    # timm → torchvision: the same architecture under other key names. Where the names are equal, nothing is needed; where the
    # layers or a BatchNorm's epsilon differ (MobileNetV3, RegNet, Swin, ViT), torchvision's own name builds torchvision's.
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
