"""Which networks there are, with what weights, seen how, under which licence: answered without torch once it was asked here."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sightline.errors import unknown
from sightline.plain import from_plain
from sightline.records import Preprocess
from sightline.store import Cache, digest

SPECIAL = ("none", "file", "pixels")
"""Backbones that are no networks: nothing, what a file tells of itself, the image itself."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One set of weights of one architecture.

    Args:
        architecture: Such as `resnet50`.
        tag: Which weights, such as `a1_in1k`; "" where there are none to download.
        source: Who builds it.
        preprocess: What the weights were trained on.
        fixed_size: Whether the network is built for one image size.
        classifier: Names of the modules that turn features into the logits of what it was trained on.
        classes: How many logits those are.
        licence, pretrained_on: As the library states them.
        hub: The repository on the Hugging Face hub, "" where there is none.
        file: The file's name in that repository, "" for the usual ones.
        url: Where it can be had otherwise.
        parameters: Of the whole network with its classifier, None where it is not known.
    """

    architecture: str
    source: Literal["timm", "torchvision"]
    preprocess: Preprocess
    tag: str = ""
    fixed_size: bool = False
    classifier: tuple[str, ...] = ()
    classes: int = 0
    licence: str = "unknown"
    pretrained_on: str = "nothing"
    hub: str = ""
    file: str = ""
    url: str = ""
    parameters: int | None = None

    @property
    def name(self) -> str:
        """The full name: architecture and tag."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def version(package: str) -> str:
    """A package's version, read without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def library(cache: Cache) -> Mapping[str, list[dict[str, Any]]]:
    """Every architecture of timm and torchvision: name → its weights, the default ones first, as JSON of `Entry`.

    The first call on a machine imports both (seconds); later ones read the cache.
    """
    key = digest([_FORMAT, version("timm"), version("torchvision")])

    def make() -> Any:
        from sightline.networks import backbones

        return backbones.survey()

    found: dict[str, list[dict[str, Any]]] = cache.remember(f"networks/known/{key}", make)
    return found


def find(name: str, cache: Cache) -> Entry | None:
    """The weights that a name such as `resnet50` or `resnet50.a1_in1k` stands for; None where no library has that network.

    Raises:
        RequestError: The architecture is known, the tag is not.
    """
    known = library(cache)
    architecture, _, tag = name.partition(".")
    entries = known.get(architecture)
    if entries is None:
        return None
    if not tag:
        return from_plain(Entry, entries[0], "list of networks")
    for entry in entries:
        if entry["tag"] == tag:
            return from_plain(Entry, entry, "list of networks")
    raise unknown(f"set of weights of {architecture}", tag, [e["tag"] for e in entries if e["tag"]])


def table(pattern: str | None = None, *, cache: Cache | None = None) -> list[dict[str, Any]]:
    """What `--backbone` takes, one row per architecture, sorted by name.

    Args:
        pattern: Part of a name, or one with `*`, `?` or `[…]` in it; None for all.
        cache: Where the list is kept; the user's own cache if None.

    Returns:
        Rows of network, parameters (null where not known without building it), macs, image_size, features, weights (tags,
        the default first), pretrained_on and licence (of the default).

    Raises:
        RequestError: Nothing matches; the closest name is its hint.
    """
    known = library(Cache() if cache is None else cache)
    wanted = "" if pattern is None else pattern.lower()
    if not re.search(r"[*?\[]", wanted):
        wanted = f"*{wanted}*"
    rows = [_row(name, entries) for name, entries in known.items() if _matches(name, entries, wanted)]
    if not rows:
        raise unknown("network", str(pattern), [*known, *SPECIAL])
    return sorted(rows, key=lambda r: str(r["network"]))


def _matches(name: str, entries: list[dict[str, Any]], wanted: str) -> bool:
    names = [name, *(f"{name}.{e['tag']}" for e in entries)]
    return any(fnmatch.fnmatchcase(n.lower(), wanted) for n in names)


def _row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    first = entries[0]
    return {
        "network": name,
        "parameters": first["parameters"],
        "macs": None,
        "image_size": first["preprocess"]["size"][0],
        "features": None,
        "weights": ", ".join(e["tag"] for e in entries if e["tag"]),
        "pretrained_on": first["pretrained_on"],
        "licence": first["licence"],
        "source": first["source"],
    }


def pretrained_on(tag: str) -> str:
    """What the data behind a weight tag is, as far as the tag says.

    Example:
        >>> pretrained_on("fb_in22k_ft_in1k")
        'ImageNet-22k, then ImageNet-1k'
        >>> pretrained_on("a1_in1k")
        'ImageNet-1k'
    """
    found: list[str] = []
    for part in re.split(r"[_.]", tag.lower()):
        name = DATASETS.get(part)
        if name is not None and name not in found:
            found.append(name)
    return ", then ".join(found) if found else "unknown"


DATASETS: dict[str, str] = {
    "in1k": "ImageNet-1k",
    "imagenet1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "miil": "ImageNet-21k",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "sat493m": "SAT-493M",
    "openai": "WebImageText (400 M pairs)",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "laiona": "LAION-Aesthetic",
    "laion": "LAION",
    "merged2b": "Merged-2B",
    "m30m": "Merged-30M",
    "m38m": "Merged-38M",
    "webli": "WebLI",
    "dfn2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "dfndr2b": "DFNDR-2B",
    "datacompxl": "DataComp-XL",
    "datacomp1b": "DataComp-1B",
    "datacompdr": "DataCompDR",
    "metaclip": "MetaCLIP",
    "2pt5b": "CommonCrawl (2.5 B pairs)",
    "400m": "CommonCrawl (400 M pairs)",
    "cc12m": "CC12M",
    "yfcc15m": "YFCC-15M",
    "yfcc100m": "YFCC-100M",
    "ig1b": "Instagram-1B (hashtags)",
    "swag": "Instagram-3.6B (hashtags)",
    "sa1b": "SA-1B",
    "jft": "JFT-300M",
    "ns": "JFT-300M (unlabelled)",
    "dino": "ImageNet-1k (no labels)",
    "mae": "ImageNet-1k (no labels)",
    "inat21": "iNaturalist 2021",
    "mobileclip": "DataCompDR",
}
