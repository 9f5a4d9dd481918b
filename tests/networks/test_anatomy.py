"""Layer tables: every parameter is in one row, rows are in order of execution, and the network is not changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
import torchvision.models
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.anatomy import Layer, anatomy
from sightline.networks.counting import macs

FAMILIES = (
    *("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto", "mobilenetv3_small_100", "legacy_xception"),
    *("nf_resnet26", "mobilevit_xxs"),
)
TORCHVISION = ("googlenet", "squeezenet1_1", "shufflenet_v2_x0_5")


def families() -> Iterator[tuple[nn.Module, int]]:
    with torch.device("meta"):
        for name in FAMILIES:
            net = timm.create_model(name)
            yield net, net.pretrained_cfg["input_size"][-1]
        for name in TORCHVISION:
            auxiliary = {"init_weights": False} if name == "googlenet" else {}
            yield torchvision.models.get_model(name, **auxiliary), 224


@pytest.mark.slow
def test_sums_over_the_layers_of_many_families() -> None:
    for net, side in families():
        what = type(net).__name__
        found = anatomy(net, (side, side))
        assert found.parameters == sum(p.numel() for p in net.parameters()), what
        assert found.parameters == sum(layer.parameters for layer in found.layers), what
        assert found.trainable == found.parameters, what
        expected = sum(b.numel() for n, b in net.named_buffers() if n.endswith(("running_mean", "running_var")))
        assert found.statistics == expected == sum(layer.statistics for layer in found.layers), what
        assert found.macs == macs(net.eval(), torch.zeros(1, 3, side, side, device="meta")), what
        assert 0 <= found.macs_between < found.macs / 2, what
        with_numbers = [layer.name for layer in found.layers if layer.parameters]
        assert len(set(with_numbers)) == len(with_numbers), what


class Small(nn.Module):
    """Something of each kind: a parameter of its own, a layer used twice, one inside a block, and one for training only."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.never = nn.Linear(5, 6)
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.nothing = nn.Identity()
        self.same = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.5))
        self.auxiliary = nn.Linear(4, 2)
        self.fc = nn.Linear(4, 2)
        self.spare = nn.Parameter(torch.zeros(7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x))) * self.scale
        x = self.nothing(self.act(self.same(self.same(x))))
        x = x.mean(dim=(2, 3))
        return self.fc(x) + self.auxiliary(x) if self.training else self.fc(x)


def test_the_rows_of_a_small_network_by_hand() -> None:
    net = Small()
    net.conv.weight.requires_grad_(False)
    found = anatomy(net, (10, 12))
    assert found.layers == (
        Layer("conv", "Conv2d", (4, 8, 10), parameters=108, macs=108 * 80),
        Layer("norm", "BatchNorm2d", (4, 8, 10), 8, 8, 8),
        Layer("act", "ReLU", (4, 8, 10)),
        Layer("scale", "parameter", (4, 1, 1), 4, 4),
        Layer("same.0", "Conv2d", (4, 8, 10), 20, 20, macs=16 * 80),
        Layer("same.1", "Dropout", (4, 8, 10)),
        Layer("same.0", "Conv2d", (4, 8, 10), macs=16 * 80),
        Layer("same.1", "Dropout", (4, 8, 10)),
        Layer("act", "ReLU", (4, 8, 10)),
        Layer("fc", "Linear", (2,), 10, 10, macs=8),
        Layer("spare", "parameter", None, 7, 7),
        Layer("never", "Linear", None, 36, 36),
        Layer("auxiliary", "Linear", None, 10, 10),
    )
    assert (found.parameters, found.trainable, found.statistics) == (203, 95, 8)
    assert found.only_in_training == 53
    assert found.macs == 108 * 80 + 2 * 16 * 80 + 8
    assert found.macs_between == 0
    assert found.activation_bytes == 4 * (8 * 320 + 2)


def test_auxiliary_heads_come_last_and_are_counted_apart() -> None:
    with torch.device("meta"):
        net = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    found = anatomy(net, (224, 224))
    assert (found.parameters, found.only_in_training) == (13_004_888, 13_004_888 - 6_624_904)
    silent = [layer.output is None for layer in found.layers]
    assert silent == sorted(silent)
    assert {layer.name.partition(".")[0] for layer in found.layers if layer.output is None} == {"aux1", "aux2"}


def test_a_layer_with_others_inside_stays_a_row() -> None:
    rows = anatomy(timm.create_model("efficientnet_b0"), (64, 64)).layers
    assert [(r.name, r.type, r.parameters, r.statistics) for r in rows[1:3]] == [
        ("bn1", "BatchNormAct2d", 64, 64),
        ("bn1.act", "SiLU", 0, 0),
    ]


class Adapted(nn.Linear):
    """A linear layer with a correction of low rank beside it."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__(width, width)
        self.correction = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.correction(x)


def test_work_is_counted_in_one_row_only() -> None:
    found = anatomy(nn.Sequential(nn.Flatten(), Adapted(12, 2)), (2, 2))
    assert [(r.name, r.parameters, r.macs) for r in found.layers[1:]] == [
        ("1", 156, 144),
        ("1.correction.0", 24, 24),
        ("1.correction.1", 24, 24),
    ]
    assert found.macs == 192


def test_an_attention_layer_of_torch_is_one_row_with_its_whole_work() -> None:
    net = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    with torch.device("meta"):
        tokens = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.Flatten(2))

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.block = tokens.to_empty(device="cpu"), net

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.tokens(x).transpose(1, 2))  # type: ignore[no-any-return]

    found = anatomy(Tokens(), (8, 8))
    row = next(r for r in found.layers if r.name == "block.self_attn")
    assert (row.type, row.output, row.parameters) == ("MultiheadAttention", (4, 16), 4 * 16 * 16 + 4 * 16)
    assert row.macs == 4 * 4 * 16 * 16 + 2 * 4 * 4 * 16
    assert found.only_in_training == 0


def test_weights_of_uncalled_layers_are_counted_where_they_are_used() -> None:
    """BEiT multiplies by the weight of a linear layer that it never calls."""
    with torch.device("meta"):
        net = timm.create_model("beit_base_patch16_224")
    found = anatomy(net, (224, 224))
    assert found.only_in_training == 0
    names = [r.name for r in found.layers]
    place = names.index("blocks.0.attn.qkv.weight")
    assert names.index("blocks.0.norm1") < place < names.index("blocks.0.attn.proj")


def test_shared_weights_count_once() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.Linear(12, 12))
    net[2].weight = net[1].weight
    found = anatomy(net, (2, 2))
    assert [r.parameters for r in found.layers] == [0, 156, 12]


class Reads(nn.Module):
    """Its way depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.weights = torch.ones(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x * self.weights)
        return x if x.sum().item() > 1e9 else x.mean(dim=(2, 3))


@pytest.mark.parametrize("build", [Small, Reads])
def test_the_network_stays_as_it_was(build: type[nn.Module]) -> None:
    net = build().train()
    net.conv.eval()
    seen: list[int] = []
    net.conv.register_forward_hook(lambda *_: seen.append(1))
    before = {n: v.clone() for n, v in net.state_dict().items()}
    found = anatomy(net, (9, 9))
    assert found.parameters == sum(p.numel() for p in net.parameters())
    with pytest.raises(RequestError, match="2×2 px"):
        anatomy(net, (2, 2))
    assert net.training and not net.conv.training
    assert len(net.conv._forward_hooks) == 1
    assert not any(m._forward_pre_hooks for m in net.modules())
    assert sum(len(m._forward_hooks) for m in net.modules()) == 1
    assert all(p.grad is None and p.requires_grad and p.device.type == "cpu" for p in net.parameters())
    after = net.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], v) for n, v in before.items())


def test_a_network_without_parameters() -> None:
    found = anatomy(nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), (4, 4))
    assert [r.output for r in found.layers] == [(3, 2, 2), (12,)]
    assert (found.parameters, found.macs, found.activation_bytes) == (0, 0, 4 * 24)


def test_windows_in_the_batch_show() -> None:
    with torch.device("meta"):
        net = timm.create_model("swin_tiny_patch4_window7_224")
    rows = {r.name: r for r in anatomy(net, (224, 224)).layers}
    assert rows["layers.0.blocks.0.attn.qkv"].output == (64, 49, 288)
    assert rows["layers.0.blocks.0.norm1"].output == (56, 56, 96)
