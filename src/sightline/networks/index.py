"""Which networks there are, how large they are, with what weights, seen how, under which licence: from a table that is shipped.

The table was made (`survey`) from one version of timm and of torchvision. With other versions what the libraries have is
asked of them once on each machine; what was measured of a network is taken from the table by its name.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sightline.errors import unknown
from sightline.networks.papers import paper
from sightline.records import Preprocess
from sightline.schema import from_json
from sightline.store import Cache, digest, plain

SPECIAL = ("none", "file", "pixels")
"""Backbones that are no networks: nothing, what a file tells of itself, the image itself."""
LIBRARIES = ("timm", "torchvision")
TABLE = Path(__file__).with_name("table.json")
"""What is shipped; `python -m sightline.networks.survey` makes it."""
ALIASES = {"xception": "legacy_xception"}
"""Names of papers → what a library calls the network, where its name is another."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class NetworkEntry:
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


@functools.cache
def _shipped() -> Mapping[str, Any]:
    """The shipped table: `versions` of the libraries, and `networks` by name."""
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


@functools.cache
def _shipped_library() -> Mapping[str, list[dict[str, Any]]]:
    rows: Mapping[str, Any] = _shipped()["networks"]
    return {n: [lengthened(e, n, row["source"]) for e in row["weights"]] for n, row in rows.items() if "weights" in row}


def library(cache: Cache) -> Mapping[str, list[dict[str, Any]]]:
    """Every architecture of timm and torchvision: name → its weights, the default ones first, as JSON of `Entry`.

    With the versions that the table was made from nothing is imported; with others the first call on a machine imports
    both (seconds), and later ones read the cache.
    """
    versions = {package: version(package) for package in LIBRARIES}
    if versions == _shipped()["versions"]:
        return _shipped_library()
    key = digest([_FORMAT, *versions.values()])

    def make() -> Any:
        from sightline.networks import backbones

        return backbones.survey()

    found: dict[str, list[dict[str, Any]]] = cache.remember(f"networks/known/{key}", make)
    return found


def ours() -> list[str]:
    """Return the names of Sightline's own networks that no library has."""
    return [name for name, row in _shipped()["networks"].items() if row["source"] == "sightline"]


def shortened(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An entry as the table keeps it: without its architecture and source, and without what is usual."""
    usual = _usual(name, entry["tag"], entry["source"])
    found = {k: v for k, v in entry.items() if v != usual[k]}
    if "preprocess" in found:
        found["preprocess"] = {k: v for k, v in found["preprocess"].items() if v != usual["preprocess"][k]}
    return found


def lengthened(entry: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """What `shortened` was given."""
    usual = _usual(name, entry.get("tag", ""), source)
    return usual | dict(entry) | {"preprocess": usual["preprocess"] | entry.get("preprocess", {})}


def _usual(name: str, tag: str, source: str) -> dict[str, Any]:
    """What most entries have in common, as JSON of `Entry`."""
    return _USUAL | {"architecture": name, "source": source, "hub": f"timm/{name}.{tag}" if source == "timm" and tag else ""}


def find(name: str, cache: Cache) -> NetworkEntry | None:
    """The weights that a name such as `resnet50` or `resnet50.a1_in1k` stands for; None where no library has that network.

    A name of `ALIASES` stands for the library's.

    Raises:
        RequestError: The architecture is known, the tag is not.
    """
    known = library(cache)
    architecture, _, tag = name.partition(".")
    entries = known.get(architecture) or known.get(ALIASES.get(architecture, ""))
    if entries is None:
        return None
    if not tag:
        return from_json(NetworkEntry, entries[0], "list of networks")
    for entry in entries:
        if entry["tag"] == tag:
            return from_json(NetworkEntry, entry, "list of networks")
    raise unknown(f"set of weights of {architecture}", tag, [e["tag"] for e in entries if e["tag"]])


def table(pattern: str | None = None, *, cache: Cache | None = None) -> list[dict[str, Any]]:
    """What `--backbone` takes, one row per architecture, sorted by name.

    Args:
        pattern: Part of a name, or one with `*`, `?` or `[…]` in it; None for all.
        cache: Where lists of other versions of the libraries are kept; the user's own cache if None.

    Returns:
        Rows of network, parameters (of the whole network with its own classifier), macs (for one image of its size),
        image_size (px), features (their width), weights (tags, the default first), pretrained_on and licence (of the
        default), year and paper (of the architecture), smallest (side of the smallest image that it takes, in px; see
        `survey.smallest`) and source. Null where it is not known.

    Raises:
        RequestError: Nothing matches; the closest name is its hint.
    """
    known = library(Cache() if cache is None else cache)
    known = {**known, **{alias: known[name] for alias, name in ALIASES.items() if name in known and alias not in known}}
    ours = {n: row for n, row in _shipped()["networks"].items() if row["source"] == "sightline" and n not in known}
    wanted = "" if pattern is None else pattern.lower()
    if not re.search(r"[*?\[]", wanted):
        wanted = f"*{wanted}*"
    rows = [_row(name, entries) for name, entries in known.items() if _matches(name, entries, wanted)]
    rows += [_own_row(name, row) for name, row in ours.items() if _matches(name, [], wanted)]
    if not rows:
        raise unknown("network", str(pattern), [*known, *ours, "pixels"])
    return sorted(rows, key=lambda r: str(r["network"]))


def _matches(name: str, entries: list[dict[str, Any]], wanted: str) -> bool:
    names = [name, *(f"{name}.{e['tag']}" for e in entries)]
    return any(fnmatch.fnmatchcase(n.lower(), wanted) for n in names)


def _row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A library's network; what was measured is of the same network where the library is of another version."""
    first = entries[0]
    measured = _shipped()["networks"].get(first["architecture"], {})
    published = paper(first["architecture"])
    return {
        "network": name,
        "parameters": measured.get("parameters", first["parameters"]),
        "macs": measured.get("macs"),
        "image_size": first["preprocess"]["size"][0],
        "features": measured.get("features"),
        "weights": ", ".join(e["tag"] for e in entries if e["tag"]),
        "pretrained_on": first["pretrained_on"],
        "licence": first["licence"],
        "year": None if published is None else published.year,
        "paper": None if published is None else published.cited,
        "smallest": measured.get("smallest"),
        "source": first["source"],
    }


def _own_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A network of ours, which comes without weights."""
    told = ("parameters", "macs", "image_size", "features", "weights", "pretrained_on", "licence", "year", "paper", "smallest")
    stated = {"weights": "", "pretrained_on": "nothing", "licence": "none needed"}
    return {"network": name, **{key: stated.get(key, row.get(key)) for key in told}, "source": "sightline"}


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

_USUAL: dict[str, Any] = dict(plain(NetworkEntry("", "timm", Preprocess()))) | {
    "classes": 1000,
    "classifier": ["head"],
    "licence": "apache-2.0",
    "pretrained_on": "ImageNet-1k",
}
