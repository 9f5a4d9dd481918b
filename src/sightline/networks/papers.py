"""Citations: the paper that introduced the architecture of a library's network, looked up by the network's name."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paper:
    """The publication of an architecture.

    Args:
        year: Year of the first publication, as a preprint or at a venue.
        cited: Authors and year, short title, and arXiv number or venue.
    """

    year: int
    cited: str


@functools.cache
def papers() -> Mapping[str, Paper]:
    """Read `papers.json`: beginning of a network's name → its paper. Keys with a `*` are explained in `_matches`."""
    rows = json.loads(Path(__file__).with_name("papers.json").read_text(encoding="utf-8"))
    return {name: Paper(row["year"], row["cited"]) for row in rows for name in row["names"]}


def paper(name: str) -> Paper | None:
    """Return the paper of an architecture, or None if none is known, as for networks that exist only as code.

    The longest key of `papers` that the name matches decides. The prefixes `tf_` and `legacy_` name the origin of the code,
    and `test_` timm's tiny test networks; all three are ignored.

    Args:
        name: Architecture, such as `resnet50`, without the tag of its weights.

    Example:
        >>> [paper(name).year for name in ("resnet50", "resnetrs50", "tf_efficientnetv2_s", "vit_base_patch16_clip_224")]
        [2015, 2021, 2021, 2021]
        >>> paper("an_own_network") is None
        True
    """
    bare = name.removeprefix("tf_").removeprefix("legacy_").removeprefix("test_")
    keys = [key for key in papers() if _matches(bare, key)]
    return papers()[max(keys, key=len)] if keys else None


def _matches(name: str, key: str) -> bool:
    """Return whether a name starts with a key, up to the end of a word.

    A key such as `vit*clip` matches names that start with `vit` and contain the word `clip` between underscores.
    """
    prefix, _, word = key.partition("*")
    if word:
        return name.startswith(prefix) and word in name.split("_")
    rest = name.removeprefix(prefix)
    return name.startswith(prefix) and (not rest or not rest[0].isalpha() or prefix[-1] == "_")
