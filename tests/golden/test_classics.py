"""Parameter counts, work and shapes of the classics: worked out by hand, or from where they were published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision.models as models
from torch import nn

from sightline.errors import RequestError
from sightline.networks.classics import CLASSICS
from sightline.networks.classics.classic_network import dense_layers
from sightline.networks.classics.course_cnns import cnn, happy_cnn, simple_net
from sightline.networks.classics.residual import residual
from sightline.networks.counting import macs


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def statistics(network: nn.Module) -> int:
    return sum(b.numel() for n, b in network.named_buffers() if not n.endswith("num_batches_tracked"))


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Shapes without numbers: nothing is drawn, nothing computed."""
    with torch.device("meta"):
        return build().eval()


def shapes(network: nn.Module, side: int, *names: str) -> list[tuple[int, ...]]:
    """(channels, height, width) of what the named modules give for an image of that side."""
    seen: dict[str, tuple[int, ...]] = {}
    for name in names:
        network.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: seen.update({name: tuple(y.shape[1:])}))
    channels = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
    network(torch.zeros((1, channels, side, side), device="meta"))
    return [seen[name] for name in names]


# ----------------------------------------------------------------------------------------------------------- parameters

PUBLISHED: list[tuple[str, dict[str, Any], int]] = [
    # LeCun 1998 has 60,000 with its sparse C3, its weighted poolings and its last layer that is not learnt
    ("lenet5", {}, 61_706),
    # Krizhevsky 2014, one tower, as torchvision publishes it; the two towers of 2012: 60,965,224
    ("alexnet", {}, 61_100_840),
    # Simonyan and Zisserman 2014, table 2: 133, 133, 138, 144 million; to the last one as torchvision publishes them
    ("vgg11", {}, 132_863_336),
    ("vgg13", {}, 133_047_848),
    ("vgg16", {}, 138_357_544),
    ("vgg19", {}, 143_667_240),
    # Szegedy 2014 with BatchNorm, as torchvision publishes it
    ("googlenet", {}, 6_624_904),
    ("googlenet", {"auxiliary": True}, 13_004_888),
    # He 2015, as torchvision publishes them
    ("resnet18", {}, 11_689_512),
    ("resnet34", {}, 21_797_672),
    ("resnet50", {}, 25_557_032),
    ("resnet101", {}, 44_549_160),
    ("resnet152", {}, 60_192_808),
    # Chollet 2016, table 3: 22,855,952
    ("xception", {}, 22_855_952),
    # a course work on generated faces: Xception with a head 2048→1000→256→64→2, ReLU between
    ("xception", {"classes": 2, "dense": [(1000, 0), (256, 0), (64, 0)]}, 23_128_786),
    # the same course work's own network for 256×256
    ("simple_net", {}, 16_901_762),
    # the Keras tutorial "Happy House", whose summary says: trainable 37,569
    ("happy_cnn", {}, 37_569),
    # Chollet 2017, listing 5.5, cats and dogs: model.summary() says 3,453,121
    ("basic_cnn", {"classes": 1}, 3_453_121),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), PUBLISHED)
def test_published_counts(name: str, arguments: dict[str, Any], expected: int) -> None:
    assert count(on_meta(lambda: CLASSICS[name].build(**arguments))) == expected


LIBRARIES: list[tuple[str, Callable[[], nn.Module], int]] = [
    # Szegedy 2015: timm's has no auxiliary head, torchvision's has one
    ("Inception-V3", lambda: timm.create_model("inception_v3"), 23_834_568),
    ("Inception-V3, auxiliary", lambda: models.inception_v3(weights=None, init_weights=False), 27_161_264),
    # Sandler 2018: 3.4 million
    ("MobileNetV2", lambda: timm.create_model("mobilenetv2_100"), 3_504_872),
    ("MobileNetV2, torchvision", lambda: models.mobilenet_v2(weights=None), 3_504_872),
    # Iandola 2016: 1.24 million
    ("SqueezeNet 1.1", lambda: models.squeezenet1_1(weights=None), 1_235_496),
]


@pytest.mark.parametrize(("build", "expected"), [row[1:] for row in LIBRARIES], ids=[row[0] for row in LIBRARIES])
def test_counts_of_the_libraries(build: Callable[[], nn.Module], expected: int) -> None:
    assert count(on_meta(build)) == expected


def test_batchnorm_statistics_are_counted_apart_from_parameters() -> None:
    assert statistics(on_meta(CLASSICS["happy_cnn"].build)) == 64  # 37,633 in all, as Keras says
    assert 22_855_952 + statistics(on_meta(CLASSICS["xception"].build)) == 22_910_480  # what Keras counts
    assert statistics(on_meta(CLASSICS["lenet5"].build)) == 0


def test_what_the_face_head_adds_to_the_published_xception() -> None:
    bare, head = on_meta(CLASSICS["xception"].build), {"classes": 2, "dense": [(1000, 0), (256, 0), (64, 0)]}
    added = count(on_meta(lambda: CLASSICS["xception"].build(**head))) - count(bare)
    assert added == 272_834
    assert round(100 * added / count(bare), 1) == 1.2


@pytest.mark.parametrize(
    ("inputs", "dense", "classes", "expected"),
    [
        (2048, [(512, 0)], 1, 1_049_601),  # a cats-and-dogs lab: MLP on Xception's features
        (3 * 3 * 2048, [(256, 0.5)], 5, 4_720_133),  # a flowers lab: InceptionV3's map at 150 px, flattened
    ],
)
def test_heads_of_labs(inputs: int, dense: list[tuple[int, float]], classes: int, expected: int) -> None:
    layers, width = dense_layers(inputs, dense)
    assert count(nn.Sequential(*layers, nn.Linear(width, classes))) == expected


def test_one_filter_of_1x1() -> None:
    assert count(nn.Conv2d(16, 1, 1)) == 17  # on a volume 64×64×16: a weight a channel, and a bias


def test_nin_by_hand() -> None:
    first = (121 * 3 * 96 + 96) + 2 * (96 * 96 + 96)
    second = (25 * 96 * 256 + 256) + 2 * (256 * 256 + 256)
    third = (9 * 256 * 384 + 384) + 2 * (384 * 384 + 384)
    fourth = (9 * 384 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 1000 + 1000)
    assert count(on_meta(CLASSICS["nin"].build)) == first + second + third + fourth == 7_595_176


def test_nin_for_cifar_by_hand() -> None:
    first = (25 * 3 * 192 + 192) + (192 * 160 + 160) + (160 * 96 + 96)
    second = (25 * 96 * 192 + 192) + 2 * (192 * 192 + 192)
    third = (9 * 192 * 192 + 192) + (192 * 192 + 192) + (192 * 10 + 10)
    network = on_meta(lambda: CLASSICS["nin"].build(image_size=32, classes=10))
    assert count(network) == first + second + third == 966_986
    sides = [(96, 32), (96, 16), (192, 8), (10, 8)]
    assert shapes(network, 32, *(f"blocks.{n}" for n in (0, 1, 4, 6))) == [(c, s, s) for c, s in sides]


def test_resnet9_by_hand() -> None:
    def block(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + 2 * outputs

    straight = block(3, 64) + block(64, 128) + block(128, 256) + block(256, 512)
    around = 2 * block(128, 128) + 2 * block(512, 512)
    assert count(on_meta(CLASSICS["resnet9"].build)) == straight + around + 513 * 10 == 6_573_130
    assert shapes(on_meta(CLASSICS["resnet9"].build), 32, "blocks.3", "blocks.8") == [(128, 16, 16), (512, 4, 4)]


@pytest.mark.parametrize(
    ("plain", "twin", "projections"),
    [
        ("plain18", "resnet18", [(64, 128), (128, 256), (256, 512)]),
        ("plain34", "resnet34", [(64, 128), (128, 256), (256, 512)]),
        ("plain50", "resnet50", [(64, 256), (256, 512), (512, 1024), (1024, 2048)]),
    ],
)
def test_plain_twins_lack_the_projections_alone(plain: str, twin: str, projections: list[tuple[int, int]]) -> None:
    residual, bare = on_meta(CLASSICS[twin].build), on_meta(CLASSICS[plain].build)
    assert count(residual) - count(bare) == sum(i * o + 2 * o for i, o in projections)
    convolutions = [m for m in bare.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 1 == int(plain.removeprefix("plain"))  # and the linear layer


# ----------------------------------------------------------------------------------------------------------------- work


@pytest.mark.parametrize(
    ("name", "build", "side", "published"),
    [
        ("alexnet", None, 224, 0.71e9),  # torchvision: 0.714
        ("resnet50", None, 224, 4.1e9),  # torchvision: 4.089
        ("vgg16", None, 224, 15.5e9),  # torchvision: 15.47
        ("xception", None, 299, 8.4e9),  # Bianco 2018, and timm's table: 8.40
        ("inception_v3", lambda: timm.create_model("inception_v3"), 299, 5.7e9),  # torchvision: 5.713
        ("mobilenetv2", lambda: timm.create_model("mobilenetv2_100"), 224, 0.30e9),  # Sandler 2018, table 4
    ],
)
def test_published_macs(name: str, build: Callable[[], nn.Module] | None, side: int, published: float) -> None:
    network = on_meta(build or CLASSICS[name].build)
    assert macs(network, torch.zeros((1, 3, side, side), device="meta")) == pytest.approx(published, rel=0.01)


# --------------------------------------------------------------------------------------------------------------- shapes


def test_shapes_of_lenet() -> None:
    # LeCun 1998, figure 2: C1 6@28×28, S2 6@14×14, C3 16@10×10, S4 16@5×5, C5 120, F6 84, output 10
    network = on_meta(CLASSICS["lenet5"].build)
    names = ("blocks.0", "blocks.2", "blocks.3", "blocks.5", "head.1", "head.3", "classifier")
    assert shapes(network, 32, *names) == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]


def test_shapes_of_alexnet() -> None:
    network = on_meta(CLASSICS["alexnet"].build)
    names = ("features.0", "features.2", "features.3", "features.5", "features.6", "features.8", "features.10", "features.12")
    sides = [(64, 55), (64, 27), (192, 27), (192, 13), (384, 13), (256, 13), (256, 13), (256, 6)]
    assert shapes(network, 224, *names) == [(c, s, s) for c, s in sides]


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("vgg11", (2, 5, 10, 15, 20)),
        ("vgg13", (4, 9, 14, 19, 24)),
        ("vgg16", (4, 9, 16, 23, 30)),
        ("vgg19", (4, 9, 18, 27, 36)),
    ],
)
def test_shapes_of_vgg(name: str, ends: tuple[int, ...]) -> None:
    network = on_meta(CLASSICS[name].build)
    sides = [(64, 112), (128, 56), (256, 28), (512, 14), (512, 7)]  # Simonyan 2014, table 1, after each pooling
    assert shapes(network, 224, *(f"features.{n}" for n in ends)) == [(c, s, s) for c, s in sides]


def test_shapes_of_nin() -> None:
    network = on_meta(CLASSICS["nin"].build)
    sides = [(96, 54), (96, 26), (256, 26), (256, 12), (384, 12), (384, 5), (1000, 5)]
    assert shapes(network, 224, *(f"blocks.{n}" for n in (0, 1, 2, 3, 4, 5, 7))) == [(c, s, s) for c, s in sides]


def test_shapes_of_googlenet() -> None:
    # Szegedy 2014, table 1, "output size"
    expected = {
        "conv1": (64, 112, 112),
        "maxpool1": (64, 56, 56),
        "conv3": (192, 56, 56),
        "maxpool2": (192, 28, 28),
        "inception3a": (256, 28, 28),
        "inception3b": (480, 28, 28),
        "maxpool3": (480, 14, 14),
        "inception4a": (512, 14, 14),
        "inception4b": (512, 14, 14),
        "inception4c": (512, 14, 14),
        "inception4d": (528, 14, 14),
        "inception4e": (832, 14, 14),
        "maxpool4": (832, 7, 7),
        "inception5a": (832, 7, 7),
        "inception5b": (1024, 7, 7),
        "avgpool": (1024, 1, 1),
    }
    assert shapes(on_meta(CLASSICS["googlenet"].build), 224, *expected) == list(expected.values())


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "plain18", "plain34", "plain50"]
)
def test_shapes_of_residual_networks(name: str) -> None:
    wide = 1 if name.endswith(("18", "34")) else 4
    sides = [(64, 112), (64, 56), (64 * wide, 56), (128 * wide, 28), (256 * wide, 14), (512 * wide, 7)]  # He 2015, table 1
    names = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    assert shapes(on_meta(CLASSICS[name].build), 224, *names) == [(c, s, s) for c, s in sides]


def test_shapes_of_xception() -> None:
    # Chollet 2016, figure 5: 19×19×728 maps after the entry flow, which eight blocks keep; 2,048 features
    network = on_meta(CLASSICS["xception"].build)
    entry = {"conv1": (32, 149, 149), "conv2": (64, 147, 147), "block1": (128, 74, 74), "block2": (256, 37, 37)}
    middle = {f"block{n}": (728, 19, 19) for n in range(3, 12)}  # the entry flow's last one, and the eight
    out = {"block12": (1024, 10, 10), "conv3": (1536, 10, 10), "bn4": (2048, 10, 10), "pool": (2048,)}
    expected = entry | middle | out
    assert shapes(network, 299, *expected) == list(expected.values())
    assert not hasattr(network, "block13")
    assert network.map(torch.zeros((1, 3, 256, 256), device="meta")).shape[2:] == (8, 8)  # type: ignore[operator]


def test_shapes_of_basic_cnn() -> None:
    # Chollet 2017, listing 5.6
    network = on_meta(CLASSICS["basic_cnn"].build)
    sides = [(32, 148), (32, 74), (64, 72), (64, 36), (128, 34), (128, 17), (128, 15), (128, 7)]
    names = [f"blocks.{n}" for block in range(4) for n in (3 * block, 3 * block + 2)]
    assert shapes(network, 150, *names) == [(c, s, s) for c, s in sides]


def test_shapes_of_simple_net_and_happy_cnn() -> None:
    sides = [(6, 250), (6, 125), (16, 119), (16, 59), (24, 53), (24, 26)]
    names = [f"blocks.{n}" for block in range(3) for n in (3 * block, 3 * block + 2)]
    simple = on_meta(CLASSICS["simple_net"].build)
    assert shapes(simple, 256, *names) == [(c, s, s) for c, s in sides]
    assert simple.get_submodule("head.1").in_features == 24 * 26 * 26
    happy = on_meta(CLASSICS["happy_cnn"].build)
    assert shapes(happy, 64, "blocks.0", "blocks.1", "blocks.4") == [(3, 70, 70), (32, 64, 64), (32, 32, 32)]
    assert happy.classifier.in_features == 32_768  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------------------- lab networks


def test_default_cnn_by_hand() -> None:
    # 9·i·o + o of four convolutions, and the classifier on 128 means
    by_hand = 896 + 18_496 + 73_856 + 147_584 + (128 + 1) * 2
    assert by_hand == 241_090
    assert count(cnn(image_size=64)) == by_hand
    assert count(cnn(image_size=32)) == by_hand  # the mean over positions: no size in the count
    assert statistics(cnn(image_size=64)) == 0


def test_cnn_with_batch_norm_by_hand() -> None:
    # the convolutions have no bias, and BatchNorm 2 numbers a filter
    by_hand = 864 + 18_432 + 73_728 + 147_456 + 2 * (32 + 64 + 128 + 128)
    assert by_hand == 241_184
    network = cnn(batch_norm=True)
    assert count(network) == by_hand + 258
    assert statistics(network) == 2 * (32 + 64 + 128 + 128)


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
    totals = {(64, False): 1_290_946, (32, False): 504_514, (64, True): 1_291_298, (32, True): 504_866}
    assert count(lab) == convolutions + (flat + 1) * 512 + 1026 == totals[image_size, batch_norm]


def test_kernel_of_two_keeps_the_size() -> None:
    network = cnn(image_size=32, filters=(8, 16), kernel=2, pool=(2, 1)).eval()
    assert network.map(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 16, 16)
    assert count(network) == (4 * 3 * 8 + 8) + (4 * 8 * 16 + 16) + (16 + 1) * 2


def test_grey_input_and_one_unit() -> None:
    network = cnn(image_size=28, channels=1, filters=(6,), classes=1)
    assert count(network) == 9 * 1 * 6 + 6 + 6 + 1
    assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 1)


def test_default_tail_is_the_plain_mean() -> None:
    network = cnn(image_size=32)
    last = torch.randn(2, 128, 4, 4)
    torch.testing.assert_close(network.tail(last), last.mean(dim=(2, 3)))


def test_deeper_happy_cnn() -> None:
    # the second block: 7·7·32·64 + 64 and BatchNorm; then 64·16·16 numbers into the unit
    assert count(happy_cnn(blocks=2)) == 4_736 + 64 + (49 * 32 * 64 + 64) + 128 + (64 * 16 * 16 + 1)


def test_deeper_simple_net() -> None:
    # the fourth block takes 26 to 20, pooled 10, with 48 filters
    convolutions = 888 + 4_720 + 18_840 + (49 * 24 * 48 + 48)
    deeper = convolutions + (48 * 10 * 10 + 1) * 1024 + 1025 * 256 + 257 * 2
    assert count(simple_net(blocks=4)) == deeper < 16_901_762
    assert count(simple_net(blocks=2, image_size=64)) == 888 + 4_720 + (16 * 11 * 11 + 1) * 1024 + 1025 * 256 + 257 * 2


@pytest.mark.parametrize(
    ("name", "arguments", "dropouts"),
    [
        ("basic_cnn", {}, [0.5]),
        ("basic_cnn", {"dropout": 0}, [0.0]),
        ("nin", {}, [0.5]),
        ("cnn", {"flatten_dropout": 0.3, "dense": [(16, 0.2), (8, 0)]}, [0.3, 0.2]),
        ("xception", {"dense": [(16, 0.2), (8, 0)], "middle_blocks": 1}, [0.2]),
    ],
)
def test_dropouts(name: str, arguments: dict[str, Any], dropouts: list[float]) -> None:
    network = on_meta(lambda: CLASSICS[name].build(**arguments))
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == dropouts


def test_reduced_xception_by_hand() -> None:
    def separable(i: int, o: int) -> int:
        return 9 * i + i * o + 2 * o

    network = on_meta(
        lambda: CLASSICS["xception"].build(width=0.5, entry=(16, 32), middle_blocks=1, exit=(64, 96, 128), classes=3)
    )
    stem = 9 * 3 * 16 + 32 + 9 * 16 * 32 + 64
    entry = separable(32, 8) + separable(8, 8) + 32 * 8 + 16 + separable(8, 16) + separable(16, 16) + 8 * 16 + 32
    middle = 3 * separable(16, 16)
    out = separable(16, 16) + separable(16, 32) + 16 * 32 + 64 + separable(32, 48) + separable(48, 64)
    assert count(network) == stem + entry + middle + out + 65 * 3


@pytest.mark.parametrize("wrong", [{"depths": ()}, {"depths": (1, 0)}, {"width": 0}, {"layers": 4}, {"image_size": 0}])
def test_residual_networks_that_there_are_not(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        residual(**wrong)
    assert error.value.hint


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
    ("name", "wrong"),
    [
        ("cnn", {"filters": ()}),
        ("cnn", {"kernel": (3, 3)}),
        ("cnn", {"pool": 0}),
        ("cnn", {"flatten_dropout": 1.0}),
        ("cnn", {"dense": [(8, -0.1)]}),
        ("cnn", {"dense": [8]}),
        ("cnn", {"dense": [(8.5, 0)]}),
        ("lenet5", {"activation": "rlu"}),
        ("happy_cnn", {"blocks": 0}),
        ("simple_net", {"blocks": 0}),
        ("simple_net", {"blocks": 6}),
        ("basic_cnn", {"dropout": 1.0}),
        ("xception", {"entry": ()}),
        ("xception", {"exit": (8, 8)}),
        ("xception", {"middle_blocks": -1}),
        ("xception", {"width": 0}),
    ],
)
def test_arguments_that_do_not_fit(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as error:
        CLASSICS[name].build(**wrong)
    assert error.value.hint
