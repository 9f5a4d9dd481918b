"""Entries of the network index: one set of pretrained weights of one architecture of timm or torchvision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sightline.records import Preprocess


@dataclass(frozen=True, slots=True)
class NetworkEntry:
    """One set of weights of one architecture.

    Args:
        architecture: Name of the architecture, such as `resnet50`.
        source: Library that builds it.
        preprocess: Preprocessing that the weights were trained with.
        tag: Name of the weights, such as `a1_in1k`; "" if there are none to download.
        fixed_size: Whether the network is built for one image size.
        classifier: Names of the modules that turn features into the logits of the pretraining classes.
        classes: Number of pretraining classes.
        licence, pretrained_on: As stated by the library.
        hub: Repository on the Hugging Face hub, "" if there is none.
        file: File name in that repository, "" for the usual ones.
        url: Download address if the weights are not on the hub.
        parameters: Parameters of the whole network including its classifier; None if unknown.
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
        """Full name: architecture and tag."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def pretrained_on(tag: str) -> str:
    """Return the pretraining data that a weight tag names, or "unknown".

    Example:
        >>> pretrained_on("fb_in22k_ft_in1k")
        'ImageNet-22k, then ImageNet-1k'
        >>> pretrained_on("a1_in1k")
        'ImageNet-1k'
    """
    datasets = [DATASETS[part] for part in re.split(r"[_.]", tag.lower()) if part in DATASETS]
    return ", then ".join(dict.fromkeys(datasets)) or "unknown"


DATASETS: dict[str, str] = {
    # word in a tag → data set
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
