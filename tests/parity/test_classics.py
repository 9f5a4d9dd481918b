"""Our blocks and classics against torchvision's and timm's with the same weights, and against the sums written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision.models as models
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.googlenet import Inception as TorchvisionInception
from torchvision.models.resnet import BasicBlock, Bottleneck

from sightline.networks.blocks import Inception, MlpConv, ResidualBlock, SeparableConv, convolutional_block, identity_block
from sightline.networks.classics import CLASSICS
from sightline.networks.classics.residual import residual


def disturbed(network: nn.Module) -> nn.Module:
    """In evaluation mode, its BatchNorm away from what it starts as, which would hide mistakes."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in (
                (module.running_mean, -0.2),
                (module.running_var, 0.6),
                (module.weight.data, 0.6),
                (module.bias.data, -0.2),
            ):
                assert value is not None
                value.copy_(torch.rand(value.shape, generator=generator) * 0.4 + low)
    return network.eval()


def images(n: int, channels: int, side: int) -> Tensor:
    return torch.randn((n, channels, side, side), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    expected = disturbed(theirs)(x)
    ours.load_state_dict(theirs.state_dict())
    given = ours.eval()(x)
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((given - expected).abs().max()) <= 1e-5 * scale


# ---------------------------------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize(
    ("library", "name", "depths", "layers"),
    [
        ("torchvision", "resnet18", (2, 2, 2, 2), 2),
        ("timm", "resnet18", (2, 2, 2, 2), 2),
        ("torchvision", "resnet50", (3, 4, 6, 3), 3),
    ],
)
def test_residual_network(library: str, name: str, depths: tuple[int, ...], layers: int) -> None:
    theirs = models.get_model(name, weights=None) if library == "torchvision" else timm.create_model(name)
    assert_same(residual(depths=depths, layers=layers), theirs, images(2, 3, 64))  # type: ignore[arg-type]


def test_wrapped_resnet_loads_into_ours_and_back() -> None:
    ours = residual(image_size=32, classes=5)
    theirs = CLASSICS["resnet18"].build(image_size=32, classes=5)
    tensors = {k.replace("classifier.", "fc."): v for k, v in disturbed(ours).state_dict().items()}
    theirs.load_state_dict(tensors)
    x = images(1, 3, 32)
    torch.testing.assert_close(theirs.eval()(x), ours(x), rtol=1e-5, atol=1e-5)


def test_xception() -> None:
    theirs = timm.create_model("legacy_xception")
    ours = CLASSICS["xception"].build(image_size=96)
    names = {n.replace("classifier.", "fc.") for n in ours.state_dict()}
    assert names == set(theirs.state_dict())
    assert_same(ours, theirs, images(2, 3, 96))


# --------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize(("i", "o", "stride"), [(16, 16, 1), (16, 32, 2)])
def test_residual_blocks(i: int, o: int, stride: int) -> None:
    def projection() -> nn.Sequential | None:
        return None if i == o else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    assert_same(ResidualBlock(i, o, stride=stride), BasicBlock(i, o, stride, projection()), images(2, i, 9))
    bottleneck = Bottleneck(i, o // 4, stride, projection())
    assert_same(ResidualBlock(i, o, stride=stride, layers=3), bottleneck, images(2, i, 9))


@pytest.mark.parametrize("layers", [2, 3])
@torch.no_grad()
def test_with_its_last_norm_at_zero_a_residual_block_is_its_skip(layers: int) -> None:
    x = images(2, 16, 7)
    block = identity_block(16, layers=layers)  # type: ignore[arg-type]
    disturbed(block)
    assert not torch.allclose(block(x.relu()), x.relu())
    for value in (block.last_norm.weight, block.last_norm.bias):
        nn.init.zeros_(value)
    assert torch.equal(block(x.relu()), x.relu())
    assert torch.equal(block(x), x.relu())
    wider = convolutional_block(16, 32, layers=layers)  # type: ignore[arg-type]
    disturbed(wider)
    for value in (wider.last_norm.weight, wider.last_norm.bias):
        nn.init.zeros_(value)
    assert wider.downsample is not None
    assert torch.equal(wider(x), wider.downsample(x).relu())


def test_inception_module() -> None:
    sizes = (192, 64, 96, 128, 16, 32, 32)  # of 3a
    inputs, *branches = sizes
    names = ("one", "three_reduced", "three", "large_reduced", "large", "pooled")
    module = Inception(inputs, **dict(zip(names, branches, strict=True)), kernel=3)
    assert_same(module, TorchvisionInception(*sizes), images(2, 192, 9))


@torch.no_grad()
def test_separable_convolution_written_out() -> None:
    block = SeparableConv(5, 8, 3)
    x = images(2, 5, 7)
    windows = nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)  # (n, c, h, w, 3, 3)
    depthwise = torch.einsum("nchwij,cij->nchw", windows, block.conv1.weight[:, 0])
    pointwise = torch.einsum("nchw,oc->nohw", depthwise, block.pointwise.weight[:, :, 0, 0])
    torch.testing.assert_close(block(x), pointwise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("last", [None, 4])
@torch.no_grad()
def test_mlpconv_is_a_perceptron_on_every_window(last: int | None) -> None:
    block = MlpConv(3, 6, 5, stride=2, padding=1, last=last)
    for value in block.parameters():
        nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(value.numel()))
    x = images(2, 3, 11)
    windows = nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 5, 2).unfold(3, 5, 2)  # (n, 3, 5, 5, 5, 5)
    rows = windows.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (n, h, w, 75)
    convolutions = [m for m in block if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3
    for number, convolution in enumerate(convolutions):
        rows = nn.functional.linear(rows, convolution.weight.flatten(1), convolution.bias)
        if last is None or number < 2:
            rows = rows.relu()
    torch.testing.assert_close(block(x), rows.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------- small networks written out


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def convolutions_of(network: nn.Module) -> list[nn.Conv2d]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(("activation", "act"), [("tanh", torch.tanh), ("relu", torch.relu)])
@torch.no_grad()
def test_lenet_written_out(activation: str, act: Callable[[Tensor], Tensor]) -> None:
    network, x = CLASSICS["lenet5"].build(activation=activation).eval(), images(2, 1, 32)
    c1, c3 = convolutions_of(network)
    c5, f6, last = linear_layers(network)
    s2 = functional.avg_pool2d(act(c1(x)), 2)
    s4 = functional.avg_pool2d(act(c3(s2)), 2)
    as_convolution = functional.conv2d(s4, c5.weight.reshape(120, 16, 5, 5), c5.bias)  # what the paper calls C5
    assert as_convolution.shape[2:] == (1, 1)
    expected = last(act(f6(act(as_convolution.flatten(1)))))
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_happy_cnn_written_out() -> None:
    network, x = disturbed(CLASSICS["happy_cnn"].build()), images(2, 3, 64)
    (convolution,), (unit,) = convolutions_of(network), linear_layers(network)
    norm = next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    y = functional.conv2d(functional.pad(x, (3, 3, 3, 3)), convolution.weight, convolution.bias)
    assert norm.running_mean is not None and norm.running_var is not None
    y = functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    y = functional.max_pool2d(y.relu(), 2)
    torch.testing.assert_close(network(x), unit(y.flatten(1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "side"), [("simple_net", 70), ("basic_cnn", 70)])
@torch.no_grad()
def test_unpadded_lab_networks_written_out(name: str, side: int) -> None:
    network, x = CLASSICS[name].build(image_size=side).eval(), images(2, 3, side)
    y = x
    for convolution in convolutions_of(network):
        assert convolution.padding == (0, 0)
        y = functional.max_pool2d(convolution(y).relu(), 2)
    y = y.flatten(1)
    *dense, last = linear_layers(network)
    for layer in dense:
        y = layer(y).relu()
    torch.testing.assert_close(network(x), last(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_norm", [False, True])
@torch.no_grad()
def test_cnn_written_out(batch_norm: bool) -> None:
    """Its ReLU comes after the pooling: the numbers are those of the usual order."""
    network = CLASSICS["cnn"].build(image_size=33, filters=[4, 6], pool=3, pool_stride=2, batch_norm=batch_norm)
    disturbed(network)
    x = images(2, 3, 33)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    y = x
    for number, convolution in enumerate(convolutions_of(network)):
        y = convolution(y)
        assert y.shape[2:] == ((33, 33), (16, 16))[number]
        y = functional.max_pool2d((norms[number](y) if batch_norm else y).relu(), 3, 2)
    (last,) = linear_layers(network)
    torch.testing.assert_close(network(x), last(y.mean(dim=(2, 3))), rtol=1e-5, atol=1e-5)


def test_initial_variances() -> None:
    """He: 2 / fan in before a ReLU; LeCun: 1 / fan in before a tanh."""
    torch.manual_seed(0)
    small = {"image_size": 70}
    cases = [("simple_net", small, 2), ("lenet5", {}, 1), ("lenet5", {"activation": "relu"}, 2), ("plain18", {}, 2)]
    for name, arguments, gain in cases:
        network = CLASSICS[name].build(**arguments)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.numel() > 5_000]
        assert layers
        for layer in layers:
            fan_in = layer.weight[0].numel()
            assert float(layer.weight.detach().var()) * fan_in == pytest.approx(gain, rel=0.1)
            assert layer.bias is None or not layer.bias.any()
