"""The map of a transformer consists of patches that influence its features."""

from __future__ import annotations

import pytest
import torch

from sightline import networks
from sightline.networks import Network
from sightline.networks.feature_cut import Headed
from sightline.networks.patch_tokens import patch_outputs, patches_are_read
from sightline.store import Cache


def made(name: str, cache: Cache) -> tuple[Network, torch.Tensor]:
    backbone = networks.describe(name, weights="random", cache=cache)
    x = torch.randn((1, 3, *backbone.preprocess.size), generator=torch.Generator().manual_seed(0))
    return networks.build(backbone, cache=cache), x


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("xcit_nano_12_p16_224", (128, 14, 14)),  # class attention behind the blocks
        ("pit_ti_224", (256, 7, 7)),  # gives its class token alone
        # the last block is one of four rows of blocks
        pytest.param("coat_lite_tiny", (320, 7, 7), marks=pytest.mark.slow),
        pytest.param("cait_xxs24_224", (192, 14, 14), marks=pytest.mark.slow),
    ],
)
def test_the_features_read_the_map_s_patches(name: str, grid: tuple[int, int, int], cache: Cache) -> None:
    network, x = made(name, cache)
    assert network.map_shape == grid
    last = network.map(x).detach().requires_grad_(True)
    features = network.tail(last)
    patches = slice(network.prefix, None)
    (slope,) = torch.autograd.grad(features.square().sum(), last)
    assert float(slope[:, patches].abs().max()) > 0
    with torch.inference_mode():
        both = network(x)  # one pass over the network
        assert torch.allclose(both[0], last, atol=1e-6) and torch.allclose(both[1], features, atol=1e-5)
        several = network(x.expand(3, -1, -1, -1))[1]
        assert torch.allclose(several, features.expand(3, -1), atol=1e-5)


@pytest.mark.slow
def test_without_single_determining_module_there_is_no_map(cache: Cache) -> None:
    backbone = networks.describe("crossvit_9_240", weights="random", cache=cache)
    assert backbone.map_shape is None and backbone.features == 384  # two branches of patches up to the end


@pytest.mark.slow
def test_the_last_block_of_a_class_token_is_distinguished_from_one_that_is_read(cache: Cache) -> None:
    network, x = made("vit_tiny_patch16_224", cache)
    assert not patches_are_read(network.net, x, Headed(), 1) and patches_are_read(network.net, x, network.cut, 1)
    modes = {m: m.training for m in network.net.modules()}
    found = patch_outputs(network.net, x, "")
    assert found and found[-1].prefix in (0, 1) and "blocks.11" not in {o.module for o in found}
    assert "blocks.10" in {o.module for o in found} and modes == {m: m.training for m in network.net.modules()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.net.modules())
    assert all(p.grad is None for p in network.net.parameters())
