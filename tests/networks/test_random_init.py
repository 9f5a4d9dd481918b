"""Networks with random weights by name: input and output shapes, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sightline import networks
from sightline.errors import RequestError
from sightline.networks import names


@pytest.mark.slow
@pytest.mark.parametrize("name", [*networks.DEFAULTS, "vit_b_32", "swin_tiny_patch4_window7_224", "xception", "lenet5"])
def test_networks_are_built_at_their_default_size_on_the_meta_device(name: str) -> None:
    made = networks.random_network(name, meta=True)
    assert all(p.is_meta for p in made.net.parameters())
    logits = made.net(torch.empty((2, made.channels, *made.size), device="meta"))
    assert tuple(logits.shape) == (2, made.classes) or made.classes == 0


@pytest.mark.slow
def test_another_size_and_number_of_classes() -> None:
    for name in ("vit_tiny_patch16_224", "resnet10t", "squeezenet1_1", "cnn(filters=[4, 8])", "lenet5"):
        made = networks.random_network(name, image_size=64, classes=5, channels=3)
        assert made.net(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
        assert not made.net.training


def test_the_weights_are_a_function_of_the_seed() -> None:
    a, b, c = (networks.random_network("cnn(filters=[4])", image_size=16, seed=s).net.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_a_network_of_two_classes_may_stay_one_unit() -> None:
    assert networks.random_network("happy_cnn", classes=2, meta=True).classes == 1
    assert networks.random_network("happy_cnn", classes=3, meta=True).classes == 3
    assert networks.random_network("cnn(classes=1)", classes=2, meta=True).classes == 1
    assert networks.random_network("cnn", classes=2, meta=True).classes == 2


def test_user_defined_networks(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def build(classes=3, image_size=8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size ** 2, classes))\n"
        "def fixed():\n"
        "    return build(4)\n",
        encoding="utf-8",
    )
    made = networks.random_network(f"{file}:build", image_size=16, classes=7)
    assert (made.source, made.size, made.classes) == ("user", (16, 16), 7)
    with pytest.raises(RequestError, match="returns 4 numbers"):
        networks.random_network(f"{file}:fixed", image_size=8, classes=7)
    made = networks.random_network(lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert made.classes == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnt50", "no network 'resnt50'"),
        ("resnet10t(width=2)", "takes no arguments"),
        ("cnn(filter=[3])", "no argument of cnn 'filter'"),
        ("cnn(filters=[3)", "cannot be read"),
        ("cnn([3])", "cannot be read"),
        ("cnn(filters=open('x'))", "cannot be read"),
        ("cnn(filters='ab')", "filters of cnn cannot be 'ab'"),
        ("pixels", "is not a network"),
    ],
)
def test_names_that_are_wrong(name: str, words: str) -> None:
    with pytest.raises(RequestError, match=words.replace("(", r"\(")) as error:
        networks.random_network(name)
    assert error.value.hint


def test_a_size_that_does_not_fit() -> None:
    with pytest.raises(RequestError, match="10×10"):
        networks.random_network("lenet5", image_size=10)
    with pytest.raises(RequestError, match="3 channels, not 1"):
        networks.random_network("squeezenet1_1", channels=1)


@pytest.mark.parametrize("text", ["cnn", "cnn(filters=[32, 64], dense=[(512, 0.3)])", "lenet5(activation='relu')", "a.py:b"])
def test_names_are_spelled_as_they_are_read(text: str) -> None:
    assert names.spell(*names.parse(text)) == text


def test_true_and_false_may_be_written_as_in_toml() -> None:
    assert names.parse("cnn(batch_norm=true, pool=[1, false])") == ("cnn", {"batch_norm": True, "pool": [1, False]})
    with pytest.raises(RequestError, match="pool holds the bare word maximum") as raised:
        names.parse("cnn(pool=maximum)")
    assert "0x" not in str(raised.value) and "true" in str(raised.value.hint)
