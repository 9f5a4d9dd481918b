"""Index of networks: names, sizes, weights, preprocessing and licences, read from the shipped `table.json`.

`scripts/survey_networks.py` wrote the table for one version of timm and of torchvision. If other versions are installed, their
lists of networks are read once per machine and cached; measured values (parameters, MACs, features) still come from the table,
by name.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib.metadata
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sightline.errors import unknown
from sightline.networks import hub, installed, weights
from sightline.networks.entry import NetworkEntry
from sightline.networks.papers import paper
from sightline.records import Preprocess
from sightline.schema import from_json
from sightline.store import Cache, digest, plain

SPECIAL = ("none", "file", "pixels")
"""Backbones that are not networks: no features, file properties only (size, brightness, …), the pixels of the image."""
LIBRARIES = ("timm", "torchvision")
TABLE = Path(__file__).with_name("table.json")
"""The shipped table; `python scripts/survey_networks.py` writes it."""
ALIASES = {"xception": "legacy_xception"}
"""Name in the paper → name in the library, where they differ."""
_FORMAT = 1


def version(package: str) -> str:
    """Return a package's version without importing it, or "none" if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _shipped() -> Mapping[str, Any]:
    """Read the shipped table: `versions` of the libraries, and `networks` by name."""
    rows: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return rows


@functools.cache
def _shipped_library() -> Mapping[str, list[dict[str, Any]]]:
    rows: Mapping[str, Any] = _shipped()["networks"]
    return {n: [lengthened(e, n, row["source"]) for e in row["weights"]] for n, row in rows.items() if "weights" in row}


def library(cache: Cache) -> Mapping[str, list[dict[str, Any]]]:
    """Return every architecture of timm and torchvision: name → its weights as JSON of `NetworkEntry`, the default ones first.

    If the installed versions are those of the table, nothing is imported. Otherwise the first call on a machine imports both
    libraries (seconds), and later calls read the cache.
    """
    versions = {package: version(package) for package in LIBRARIES}
    if versions == _shipped()["versions"]:
        return _shipped_library()
    key = digest([_FORMAT, *versions.values()])

    def make() -> Any:
        from sightline.networks import backbones

        return backbones.survey()

    entries: dict[str, list[dict[str, Any]]] = cache.remember(f"networks/known/{key}", make)
    return entries


def classics() -> list[str]:
    """Return the names of Sightline's own networks that no library has."""
    return [name for name, row in _shipped()["networks"].items() if row["source"] == "sightline"]


def shortened(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an entry without its architecture and source and without default values, as the table stores it."""
    defaults = _defaults(name, entry["tag"], entry["source"])
    short = {k: v for k, v in entry.items() if v != defaults[k]}
    if "preprocess" in short:
        short["preprocess"] = {k: v for k, v in short["preprocess"].items() if v != defaults["preprocess"][k]}
    return short


def lengthened(entry: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """Return the full entry for one that `shortened` returned."""
    defaults = _defaults(name, entry.get("tag", ""), source)
    return defaults | dict(entry) | {"preprocess": defaults["preprocess"] | entry.get("preprocess", {})}


def _defaults(name: str, tag: str, source: str) -> dict[str, Any]:
    """Return the values that most entries share, as JSON of `NetworkEntry`."""
    return _DEFAULTS | {"architecture": name, "source": source, "hub": f"timm/{name}.{tag}" if source == "timm" and tag else ""}


def find(name: str, cache: Cache) -> NetworkEntry | None:
    """Return the entry for a name such as `resnet50` or `resnet50.a1_in1k`, or None if no library has that network.

    Names in `ALIASES` are accepted too.

    Raises:
        RequestError: If the architecture is known, but not the tag.
    """
    networks = library(cache)
    architecture, _, tag = name.partition(".")
    entries = networks.get(architecture) or networks.get(ALIASES.get(architecture, ""))
    if entries is None:
        return None
    if not tag:
        return from_json(NetworkEntry, entries[0], "list of networks")
    for entry in entries:
        if entry["tag"] == tag:
            return from_json(NetworkEntry, entry, "list of networks")
    raise unknown(f"set of weights of {architecture}", tag, [e["tag"] for e in entries if e["tag"]])


def table(pattern: str | None = None, *, cache: Cache | None = None) -> list[dict[str, Any]]:
    """Return the networks that `--backbone` accepts, one row per architecture, sorted by name.

    Args:
        pattern: Part of a name, or a pattern with `*`, `?` or `[…]`; None for all networks.
        cache: Cache of the libraries' lists of networks; the user's cache if None.

    Returns:
        Rows with these keys; a value is None if it is unknown.
        network: name.
        parameters: number of parameters of the whole network including its classifier.
        macs: multiply–accumulate operations for one image of `image_size`.
        image_size: side of the input in px.
        features: number of features.
        weights: tags of the pretrained weights, the default first.
        weights_at: where the default weights are on this machine: `folder` of SIGHTLINE_WEIGHTS, `installed` package, or
            `downloaded` earlier.
        pretrained_on, licence: of the default weights.
        year, paper: of the architecture.
        smallest: side of the smallest accepted image in px; see `smallest` in `scripts/survey_networks.py`.
        source: library.

    Raises:
        RequestError: If no network matches; the hint names the closest one.
    """
    networks = library(Cache() if cache is None else cache)
    aliases = {alias: networks[name] for alias, name in ALIASES.items() if name in networks and alias not in networks}
    networks = {**networks, **aliases}
    classics = {n: row for n, row in _shipped()["networks"].items() if row["source"] == "sightline" and n not in networks}
    glob = "" if pattern is None else pattern.lower()
    if not re.search(r"[*?\[]", glob):
        glob = f"*{glob}*"
    rows = [_library_row(name, entries) for name, entries in networks.items() if _matches(name, entries, glob)]
    rows += [_classic_row(name, row) for name, row in classics.items() if _matches(name, [], glob)]
    if not rows:
        raise unknown("network", str(pattern), [*networks, *classics, "pixels"])
    return sorted(rows, key=lambda r: str(r["network"]))


def macs_of(name: str, size: tuple[int, int]) -> float | None:
    """Return the multiply–accumulate operations of a network for one image, in proportion to the area; None if unknown.

    Args:
        name: Name of the network, with or without the tag of its weights.
        size: (height, width) of the input in pixels.
    """
    row = _shipped()["networks"].get(ALIASES.get(name, name).partition(".")[0], {})
    first = next(iter(row.get("weights") or [{}]))
    side = row.get("image_size") or first.get("preprocess", {}).get("size", [Preprocess().size[0]])[0]
    return None if row.get("macs") is None else row["macs"] * size[0] * size[1] / side**2


def _matches(name: str, entries: list[dict[str, Any]], glob: str) -> bool:
    names = [name, *(f"{name}.{e['tag']}" for e in entries)]
    return any(fnmatch.fnmatchcase(n.lower(), glob) for n in names)


def _library_row(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a library's network; measured values come from the shipped table, whatever version is installed."""
    first = entries[0]
    measured = _shipped()["networks"].get(first["architecture"], {})
    citation = paper(first["architecture"])
    return {
        "network": name,
        "parameters": measured.get("parameters", first["parameters"]),
        "macs": measured.get("macs"),
        "image_size": first["preprocess"]["size"][0],
        "features": measured.get("features"),
        "weights": ", ".join(e["tag"] for e in entries if e["tag"]),
        "weights_at": weights_at(name, from_json(NetworkEntry, first, "list of networks")),
        "pretrained_on": first["pretrained_on"],
        "licence": first["licence"],
        "year": None if citation is None else citation.year,
        "paper": None if citation is None else citation.cited,
        "smallest": measured.get("smallest"),
        "source": first["source"],
    }


def weights_at(name: str, entry: NetworkEntry) -> Literal["folder", "installed", "downloaded"] | None:
    """Return where the pretrained weights of a network are on this machine, in the order of preference; None if nowhere."""
    if weights.look_up(name) is not None:
        return "folder"
    if installed.find(name) is not None:
        return "installed"
    return "downloaded" if hub.here(entry) is not None else None


def _classic_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of one of Sightline's own networks, which has no pretrained weights."""
    keys = (
        *("parameters", "macs", "image_size", "features", "weights", "weights_at"),
        *("pretrained_on", "licence", "year", "paper", "smallest"),
    )
    constants = {"weights": "", "pretrained_on": "nothing", "licence": "none needed"}
    return {"network": name, **{key: constants.get(key, row.get(key)) for key in keys}, "source": "sightline"}


_DEFAULTS: dict[str, Any] = dict(plain(NetworkEntry("", "timm", Preprocess()))) | {
    "classes": 1000,
    "classifier": ["head"],
    "licence": "apache-2.0",
    "pretrained_on": "ImageNet-1k",
}
