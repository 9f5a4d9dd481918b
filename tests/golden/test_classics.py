"""Parameter counts of the convolutional networks, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sightline.errors import RequestError
from sightline.networks.classics import CLASSICS, cnn


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_default_body_by_hand() -> None:
    # 9·3·32 + 9·32·64 + 9·64·128 + 9·128·128 weights without bias, and 2 BatchNorm numbers a filter
    by_hand = 864 + 18_432 + 73_728 + 147_456 + 2 * (32 + 64 + 128 + 128)
    assert by_hand == 241_184
    assert count(cnn(image_size=64)) == by_hand
    assert count(cnn(image_size=32)) == by_hand  # the mean over positions: no size in the count
    statistics = sum(b.numel() for n, b in cnn(image_size=64).named_buffers() if not n.endswith("num_batches_tracked"))
    assert statistics == 2 * (32 + 64 + 128 + 128)


@pytest.mark.parametrize(
    ("image_size", "flat"),
    [(64, 4 * 4 * 128), (32, 2 * 2 * 128)],  # four poolings by 2
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_lab_network_by_hand(image_size: int, flat: int, batch_norm: bool) -> None:
    lab = cnn(
        image_size=image_size,
        filters=[32, 64, 128, 128],
        kernel=3,
        pool=2,
        pool_stride=2,
        flatten_dropout=0.3,
        dense=[(512, 0)],
        batch_norm=batch_norm,
    )
    convolutions = 241_184 if batch_norm else 896 + 18_496 + 73_856 + 147_584
    assert count(lab) == convolutions + (flat + 1) * 512
    assert count(nn.Linear(lab.features, 2)) == 1026
    totals = {(64, False): 1_290_946, (32, False): 504_514, (64, True): 1_291_298, (32, True): 504_866}
    assert count(lab) + 1026 == totals[image_size, batch_norm]


def test_kernel_of_two_keeps_the_size() -> None:
    network = cnn(image_size=32, filters=(8, 16), kernel=2, pool=(2, 1), batch_norm=False).eval()
    assert network.map(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 16, 16)
    assert count(network) == (4 * 3 * 8 + 8) + (4 * 8 * 16 + 16)


def test_grey_input() -> None:
    assert count(cnn(image_size=28, channels=1, filters=(6,), batch_norm=False)) == 9 * 1 * 6 + 6


def test_map_tail_and_forward_agree() -> None:
    torch.manual_seed(0)
    for network in (cnn(image_size=32), cnn(image_size=32, flatten_dropout=0.5, dense=[(40, 0.2), (20, 0)])):
        network.eval()
        x = torch.randn(3, 3, 32, 32)
        last_map, features = network(x)
        assert last_map.shape == (3, 128, 2, 2)
        assert features.shape == (3, network.features)
        assert torch.equal(features, network.tail(network.map(x)))


def test_default_tail_is_the_plain_mean() -> None:
    network = cnn(image_size=32)
    last_map = torch.randn(2, 128, 4, 4)
    torch.testing.assert_close(network.tail(last_map), last_map.mean(dim=(2, 3)))


def test_too_small_an_image_names_the_smallest() -> None:
    with pytest.raises(RequestError, match="15×15") as error:
        cnn(image_size=15)
    assert error.value.hint is not None and "smallest is 16" in error.value.hint
    cnn(image_size=16)  # and that one works
    with pytest.raises(RequestError) as error:
        cnn(image_size=6, filters=(4, 4), pool=3, pool_stride=2)
    assert error.value.hint is not None and "smallest is 7" in error.value.hint
    network = cnn(image_size=7, filters=(4, 4), pool=3, pool_stride=2).eval()
    assert network.map(torch.zeros(1, 3, 7, 7)).shape == (1, 4, 1, 1)


@pytest.mark.parametrize(
    "wrong",
    [{"filters": ()}, {"kernel": (3, 3)}, {"pool": 0}, {"flatten_dropout": 1.0}, {"dense": [(8, -0.1)]}],
)
def test_lists_that_do_not_fit(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        cnn(image_size=64, **wrong)  # type: ignore[arg-type]


def test_registry_builds() -> None:
    for build in CLASSICS.values():
        assert isinstance(build(image_size=64), nn.Module)
