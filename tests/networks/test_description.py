"""Descriptions: from names to records and back to networks, without importing torch if cached."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sightline import networks
from sightline.errors import RequestError, WeightsError
from sightline.networks import index
from sightline.records import Backbone
from sightline.schema import from_json
from sightline.store import Cache, plain

MY_NET = """
import torch
from torch import nn
from beside import width

class Net(nn.Module):
    image_size = 24
    mean = (0.1, 0.2, 0.3)
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU())
        self.fc = nn.Linear(width, 2)
    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))

def build():
    return Net()

def sized(image_size=8):
    net = Net(); net.image_size = image_size; return net

def wrong():
    return 7

def broken():
    raise ValueError("no such thing")
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("width = 5\n", encoding="utf-8")
    (tmp_path / "my_net.py").write_text(MY_NET, encoding="utf-8")
    return tmp_path / "my_net.py"


@pytest.mark.parametrize(("name", "features"), [("none", 0), ("file", 5), ("pixels", 768)])
def test_special_backbones_need_no_torch(name: str, features: int) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from sightline import networks
print(networks.describe({name!r}).features)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert int(done.stdout) == features


def test_cached_descriptions_need_no_torch(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = networks.describe("resnet10t", weights="random", image_size=64, cache=Cache())
    file = tmp_path / "resnet10t.safetensors"
    save_file({k: v.contiguous() for k, v in networks.build(first).net.state_dict().items()}, file)
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(tmp_path))
    second = networks.describe("resnet10t", image_size=64, cache=Cache())
    assert (first.weights, second.weights) == ("random:0", "resnet10t.safetensors")
    assert first.weights_hash == second.weights_hash != ""
    code = """
import sys
sys.modules["torch"] = sys.modules["timm"] = sys.modules["torchvision"] = None
from sightline import networks
print(networks.describe("resnet10t", weights="random", image_size=64).id)
print(networks.describe("resnet10t", image_size=64).id)
print(networks.describe("resnet10t", image_size=64, fit="pad").preprocess.fit)
print(len(networks.table("resnet")) > 50)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.split() == [first.id, second.id, "pad", "True"]
    with open(file, "r+b") as stream:  # other bytes, another answer
        stream.seek(-4, 2)
        stream.write(np.float32(0.25).tobytes())
    assert networks.describe("resnet10t", image_size=64, cache=Cache()).weights_hash != second.weights_hash


def test_record_survives_json() -> None:
    backbone = networks.describe("resnet10t", weights="random", image_size=64, seed=1)
    assert from_json(Backbone, plain(backbone), "test") == backbone
    assert backbone.preprocess.interpolation == "bicubic" and backbone.preprocess.size == (64, 64)
    other = networks.describe("resnet10t", weights="random", image_size=64, seed=2)
    assert other.weights_hash != backbone.weights_hash
    flat = networks.describe("resnet10t", weights="random", image_size=64, seed=1, pool="flatten")
    assert flat.features == 512 * 2 * 2 and flat.id != backbone.id


def test_random_leaves_the_users_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    networks.build(networks.describe("resnet10t", weights="random", image_size=64, seed=1))
    assert torch.equal(torch.rand(3), expected)


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = networks.describe("resnet10t", weights="random", image_size=64)
    with pytest.raises(WeightsError, match="not the ones"):
        networks.build(replace(backbone, weights_hash="0" * 64))
    monkeypatch.delenv("SIGHTLINE_WEIGHTS", raising=False)
    for weights, words in (("gone.safetensors", "not on this machine"), ("run", "only in a classifier's file")):
        with pytest.raises(WeightsError, match=words):
            networks.build(replace(backbone, weights=weights, weights_hash="1" * 64))


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("resnet5O", {}, "did you mean 'resnet50'"),
        ("resnet50.a1_in1kk", {}, "did you mean 'a1_in1k'"),
        ("resnet10t", {"weights": "randm"}, "did you mean 'random'"),
        ("resnet10t", {"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
        ("resnet10t", {"fit": "stretch"}, "stretch"),
        ("resnet10t", {"pool": "max"}, "max"),
        ("vit_tiny_patch16_224", {"weights": "random", "image_size": 30}, "30×30 px"),
        ("cnn", {}, "no weights of cnn"),
        ("absent.py:build", {}, "there is no file absent.py"),
    ],
)
def test_clear_errors(name: str, arguments: dict[str, object], words: str) -> None:
    with pytest.raises((RequestError, WeightsError)) as error:
        networks.describe(name, **arguments)  # type: ignore[arg-type]
    assert words in str(error.value) and error.value.hint


def test_cnn_with_arguments() -> None:
    settings = {"filters": [8, 16], "dense": [[10, 0.0]]}
    backbone = networks.describe("cnn", weights="random", image_size=32, arguments=settings)
    assert (backbone.source, backbone.map_shape, backbone.features) == ("sightline", (16, 8, 8), 10)
    arrays = networks.tensors(networks.build(backbone))
    trained = replace(backbone, weights="run", weights_hash=networks.weights_hash(arrays))
    again = networks.build(from_json(Backbone, plain(trained), "test"), tensors=arrays)
    assert again.features == 10


# ------------------------------------------------------------------------------------------------------- the user's own


def test_file_and_function(mine: Path, cache: Cache) -> None:
    name = f"{mine}:build"
    backbone = networks.describe(name, cache=cache, weights="random", seed=3)
    assert (backbone.source, backbone.features, backbone.map_shape) == ("user", 5, (5, 11, 11))
    assert (backbone.preprocess.size, backbone.preprocess.mean) == ((24, 24), (0.1, 0.2, 0.3))
    network = networks.build(backbone, cache=cache)
    arrays = networks.tensors(network)
    assert set(arrays) == {"body.0.weight", "body.0.bias"} and backbone.parameters == 140
    again = networks.build(backbone, tensors=arrays, cache=cache)
    x = torch.randn((2, 3, 24, 24))
    with torch.no_grad():
        assert torch.equal(again(x)[1], network(x)[1])
    assert str(mine.parent) not in sys.path
    assert networks.describe(f"{mine}:sized", cache=cache, image_size=16).preprocess.size == (16, 16)
    assert networks.describe(name, cache=cache, weights="random", seed=3) == backbone


def test_changed_code_is_noticed(mine: Path, cache: Cache) -> None:
    name = f"{mine}:build"
    assert networks.describe(name, cache=cache).features == 5
    sys.modules.pop("beside", None)
    (mine.parent / "beside.py").write_text("width = 61\n", encoding="utf-8")
    assert networks.describe(name, cache=cache).features == 61
    sys.modules.pop("beside", None)


@pytest.mark.parametrize(
    ("function", "words"),
    [("biuld", "did you mean 'build'"), ("wrong", "returns a int"), ("broken", "no such thing")],
)
def test_functions_that_fail_give_clear_errors(mine: Path, cache: Cache, function: str, words: str) -> None:
    with pytest.raises(RequestError) as error:
        networks.describe(f"{mine}:{function}", cache=cache)
    assert words in str(error.value)


def test_callable(cache: Cache) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    net.train()

    def build() -> nn.Module:
        return net

    backbone = networks.describe(build, image_size=12, cache=cache)
    assert (backbone.features, backbone.weights, backbone.map_shape) == (6, "own", (6, 10, 10))
    assert torch.equal(networks.build(backbone, cache=cache).net[0].weight, net[0].weight)  # type: ignore[index]
    with pytest.raises(RequestError, match="not known here"):
        networks.build(replace(backbone, name="nowhere:build"), cache=cache)


def test_a_record_never_runs_a_module_by_name(cache: Cache) -> None:
    backbone = replace(networks.describe("pixels"), name="os:getcwd", source="user", weights="own")
    with pytest.raises(RequestError, match="not known here"):
        networks.build(backbone, cache=cache)


# ---------------------------------------------------------------------------------------------------------- what there is


def test_table() -> None:
    rows = networks.table("mobilenetv2_1*")
    names = [r["network"] for r in rows]
    assert "mobilenetv2_100" in names and names == sorted(names) and all(n.startswith("mobilenetv2_1") for n in names)
    row = next(r for r in rows if r["network"] == "mobilenetv2_100")
    assert row["image_size"] == 224 and row["weights"].split(", ")[0] == "ra_in1k" and row["licence"] == "apache-2.0"
    wanted = {"network", "parameters", "macs", "image_size", "features", "weights", "pretrained_on", "licence"}
    assert wanted <= set(row)
    assert networks.table("squeezenet1_1")[0]["parameters"] == 1_235_496
    assert len(networks.table()) > 1300
    with pytest.raises(RequestError, match="did you mean 'resnet50'"):
        networks.table("resnet5O")


def test_default_networks_have_weights_and_permissive_licences() -> None:
    """Every network of the short list exists, with a licence that lets people use what they make."""
    roles = [d.role for d in networks.DEFAULTS.values()]
    assert sorted(roles) == ["foundation", "quick", "strong", "substitute"]
    for name, default in networks.DEFAULTS.items():
        entry = index.find(name, Cache())
        assert entry is not None and (entry.hub or entry.url)
        assert entry.licence == default.licence in ("apache-2.0", "mit", "bsd-3-clause")
        assert entry.preprocess.size in ((224, 224), (260, 260))
