"""Shapes and parameter formulas of the blocks, with sizes that are all different."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.blocks import (
    ConvNorm,
    Inception,
    MlpConv,
    PositionMean,
    ResidualBlock,
    SeparableConv,
    XceptionBlock,
    convolutional_block,
    identity_block,
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def output(module: nn.Module, *shape: int) -> Tensor:
    with torch.no_grad():
        return module.eval()(torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def test_conv_norm_shapes_and_parameters() -> None:
    block = ConvNorm(3, 10, 5, stride=2)
    assert count(block) == 25 * 3 * 10 + 2 * 10
    assert output(block, 2, 3, 17, 20).shape == (2, 10, 9, 10)
    assert output(ConvNorm(3, 10, 5, padding=0), 2, 3, 17, 20).shape == (2, 10, 13, 16)
    assert output(block, 2, 3, 17, 20).min() == 0  # ReLU


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("i", "o", "stride"), [(8, 8, 1), (8, 12, 1), (8, 12, 2), (8, 8, 2)])
def test_two_layers(i: int, o: int, stride: int, skip: bool) -> None:
    block = ResidualBlock(i, o, stride=stride, skip=skip)
    projected = skip and (i != o or stride != 1)
    assert count(block) == 9 * i * o + 9 * o * o + 4 * o + (i * o + 2 * o if projected else 0)
    assert output(block, 2, i, 9, 10).shape == (2, o, 9 if stride == 1 else 5, 10 if stride == 1 else 5)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("i", "o", "stride"), [(16, 16, 1), (8, 16, 1), (8, 16, 2), (16, 16, 2)])
def test_bottleneck(i: int, o: int, stride: int, skip: bool) -> None:
    block = ResidualBlock(i, o, stride=stride, layers=3, skip=skip)
    m, projected = o // 4, skip and (i != o or stride != 1)
    assert count(block) == i * m + 9 * m * m + m * o + 4 * m + 2 * o + (i * o + 2 * o if projected else 0)
    assert output(block, 2, i, 9, 10).shape == (2, o, 9 if stride == 1 else 5, 10 if stride == 1 else 5)


def test_named_residual_blocks() -> None:
    c = 32
    assert count(identity_block(c)) == 18 * c * c + 4 * c
    assert count(identity_block(c, layers=3)) == 17 * c * c // 16 + 3 * c
    assert identity_block(c).downsample is None
    assert convolutional_block(c, 2 * c).downsample is not None
    assert count(convolutional_block(c, 2 * c)) == 9 * c * 2 * c + 9 * 4 * c * c + 8 * c + c * 2 * c + 4 * c
    assert convolutional_block(c, 2 * c, skip=False).downsample is None


@pytest.mark.parametrize("layers", [2, 3])
def test_blocks_differ_only_in_the_skip_connection(layers: int) -> None:
    torch.manual_seed(0)
    block = identity_block(8, layers=layers).eval()  # type: ignore[arg-type]
    plain = identity_block(8, layers=layers, skip=False).eval()  # type: ignore[arg-type]
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, 8, 5, 5)
    inner = block.last_norm(block.conv2(torch.relu(block.bn1(block.conv1(x))))) if layers == 2 else None
    if inner is None:
        inner = block.bn3(block.conv3(torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))))))
    torch.testing.assert_close(block(x), torch.relu(inner + x))
    torch.testing.assert_close(plain(x), torch.relu(inner))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ResidualBlock(8, 8, layers=4),  # type: ignore[arg-type]
        lambda: ResidualBlock(8, 10, layers=3),
        lambda: convolutional_block(8, 8, stride=1),
    ],
)
def test_invalid_residual_blocks_are_refused(wrong: object) -> None:
    with pytest.raises(RequestError) as error:
        wrong()  # type: ignore[operator]
    assert error.value.hint


@pytest.mark.parametrize("k", [3, 5])
def test_inception(k: int) -> None:
    i, one, r3, three, r5, large, pooled = 20, 6, 9, 11, 3, 5, 7
    widths = {"one": one, "three_reduced": r3, "three": three, "large_reduced": r5, "large": large, "pooled": pooled}
    module = Inception(i, **widths, kernel=k)
    norms = 2 * (one + r3 + three + r5 + large + pooled)
    assert count(module) == i * one + i * r3 + 9 * r3 * three + i * r5 + k * k * r5 * large + i * pooled + norms
    assert output(module, 2, i, 9, 10).shape == (2, one + three + large + pooled, 9, 10)


def test_inception_3a_by_hand() -> None:
    # Szegedy 2014, table 1, "inception (3a)": 159 K weights with the 5×5 of the paper; ours adds BatchNorm, without biases
    norms = 2 * (64 + 96 + 128 + 16 + 32 + 32)
    module = Inception(192, one=64, three_reduced=96, three=128, large_reduced=16, large=32, pooled=32)
    assert count(module) - norms == 163_328
    assert 163_328 == 192 * 64 + 192 * 96 + 9 * 96 * 128 + 192 * 16 + 25 * 16 * 32 + 192 * 32


def test_separable_convolution() -> None:
    assert count(SeparableConv(6, 10, 5)) == 25 * 6 + 6 * 10
    assert output(SeparableConv(6, 10, 5, stride=2), 2, 6, 9, 10).shape == (2, 10, 5, 5)


@pytest.mark.parametrize("relu_first", [True, False])
@pytest.mark.parametrize("widen_last", [True, False])
@pytest.mark.parametrize(("i", "o", "stride"), [(6, 6, 1), (6, 10, 1), (6, 10, 2)])
def test_xception_block(i: int, o: int, stride: int, widen_last: bool, relu_first: bool) -> None:
    block = XceptionBlock(i, o, layers=3, stride=stride, widen_last=widen_last, relu_first=relu_first)
    steps = [(i, i), (i, i), (i, o)] if widen_last else [(i, o), (o, o), (o, o)]
    projection = i * o + 2 * o if (i, stride) != (o, 1) else 0
    assert count(block) == sum(9 * a + a * b + 2 * b for a, b in steps) + projection
    shape = (9, 10) if stride == 1 else (5, 5)
    x = torch.randn(2, i, 9, 10)
    before = x.clone()
    assert block.eval()(x).shape == (2, o, *shape)
    assert torch.equal(x, before), "the block changed what it was given"
    assert sum(isinstance(m, nn.ReLU) for m in block.modules()) == (3 if relu_first else 2)


def test_mlpconv() -> None:
    i, o, k = 3, 10, 5
    assert count(MlpConv(i, o, k)) == k * k * i * o + o + 2 * (o * o + o)
    assert count(MlpConv(i, o, k, last=7)) == k * k * i * o + o + o * o + o + o * 7 + 7
    assert output(MlpConv(i, o, k, stride=2, padding=1), 2, i, 17, 20).shape == (2, o, 8, 9)
    assert output(MlpConv(i, o, k), 2, i, 9, 9).min() == 0
    assert output(MlpConv(i, o, k, last=7), 2, i, 9, 9).min() < 0  # class scores are free to be negative


def test_position_mean() -> None:
    assert PositionMean()(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).tolist() == [[3.0]]
