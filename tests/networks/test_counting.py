"""Multiply–accumulates agree with manual counts and published values."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sightline.networks.counting import macs


def test_a_convolution_and_a_linear_layer_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 5, 7))
    assert macs(net, torch.zeros(1, 3, 6, 5)) == 3 * 8 * 9 * 6 * 5 + 8 * 6 * 5 * 7


def test_groups_and_strides_by_hand() -> None:
    net = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
    assert macs(net, torch.zeros(1, 8, 10, 10)) == 8 * 9 * 5 * 5


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_by_hand_on_either_device(device: str) -> None:
    n, d = 10, 16
    net = nn.MultiheadAttention(d, 4, batch_first=True, device=device).eval()

    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = net

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    # Queries, keys, values and output are n·d·d each; the scores and their sum over values n·n·d each.
    assert macs(Same(), torch.zeros(1, n, d, device=device)) == 4 * n * d * d + 2 * n * n * d


def test_nothing_of_the_network_or_of_torch_is_changed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    net[0].eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    macs(net, torch.zeros(1, 3, 8, 8))
    assert (net.training, net[0].training, net[1].training) == (True, False, True)
    assert int(net[1].num_batches_tracked) == 0
    with pytest.raises(RuntimeError):
        macs(net, torch.zeros(1, 5, 8, 8))
    assert (net.training, net[0].training, net[1].training) == (True, False, True)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert not net[0]._forward_hooks and not net[0]._forward_pre_hooks
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_the_same_as_torchs_own_counter(name: str) -> None:
    with torch.device("meta"):
        net, x = timm.create_model(name).eval(), torch.zeros(1, 3, 224, 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x)
    assert macs(net, x) == counter.get_total_flops() // 2


def test_under_inference_mode_nothing_is_missed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4 * 4, 5))
    with torch.inference_mode():
        assert macs(net, torch.zeros(1, 3, 6, 6)) == 3 * 8 * 9 * 4 * 4 + 8 * 4 * 4 * 5


def test_counting_accepts_tensors_with_gradients() -> None:
    with torch.device("meta"):
        net = timm.create_model("cait_xxs24_224")
    assert macs(net, torch.zeros(1, 3, 224, 224, device="meta")) == pytest.approx(2.53e9, rel=0.01)  # timm's results file
