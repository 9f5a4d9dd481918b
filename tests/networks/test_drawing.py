"""Network diagrams show the structure of networks, have no overlaps, and are reproducible byte by byte."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.picture.dataflow import dataflow
from sightline.networks.picture.drawing import draw, figure, picture
from sightline.networks.picture.folding import fold
from sightline.networks.picture.layout import Line
from sightline.networks.picture.parts import Arcs, Box, Fork, Panel, Part
from tests.networks.pictures import faults, outside


def lenet() -> nn.Module:
    body = (nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10))


def build(name: str) -> tuple[nn.Module, tuple[int, int], int]:
    with torch.device("meta"):
        if name == "lenet5":
            return lenet(), (32, 32), 1
        if name == "googlenet":
            return torchvision.models.googlenet(init_weights=False, aux_logits=False), (224, 224), 3
        if name == "vgg16":
            return torchvision.models.vgg16(), (224, 224), 3
        net = timm.create_model(name)
        return net, net.default_cfg["input_size"][1:], 3


def parts_of(name: str) -> tuple[Part, ...]:
    net, size, channels = build(name)
    return fold(dataflow(net, size, channels))


def walk(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if isinstance(part, Panel):
            yield from walk(part.items)
        elif isinstance(part, Fork):
            for branch in part.branches:
                yield from walk(branch)
            yield part.merge
        elif isinstance(part, Arcs):
            yield from part.rows


def panels(parts: Sequence[Part]) -> list[Panel]:
    return [p for p in walk(parts) if isinstance(p, Panel)]


def titles(parts: Sequence[Part]) -> list[str]:
    return [p.title for p in walk(parts) if isinstance(p, Box)]


# --------------------------------------------------------------------------------------------------------- what is shown


def test_lenet_shows_its_seven_layers() -> None:
    image, *layers, output = parts_of("lenet5")
    assert titles(layers) == [
        "5×5 conv, 6",
        "2×2 average pool, /2",
        "5×5 conv, 16",
        "2×2 average pool, /2",
        "linear, 120",
        "linear, 84",
        "linear, 10",
    ]
    found = [p for p in layers if isinstance(p, Box)]
    assert [p.shape for p in found] == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]
    assert found[0].after == ("Tanh",) and found[4].before == ("flatten",)
    assert isinstance(image, Box) and isinstance(output, Box) and (image.kind, output.kind) == ("image", "output")


def test_resnet_50_shows_four_stages_of_blocks() -> None:
    parts = parts_of("resnet50")
    stages = [p for p in parts if isinstance(p, Panel)]
    assert [p.title for p in stages] == ["layer1", "layer2", "layer3", "layer4"]
    for stage, repeats, width in zip(stages, (2, 3, 5, 2), (256, 512, 1024, 2048), strict=True):
        first, rest = stage.items
        assert isinstance(first, Panel) and isinstance(rest, Panel)
        assert (first.title, first.times) == ("convolutional block", 1)
        assert (rest.title, rest.times) == ("identity block", repeats)
        for block, skips in ((first, False), (rest, True)):
            (fork,) = block.items
            assert isinstance(fork, Fork) and (fork.merge.title, fork.merge.after) == ("add", ("ReLU",))
            assert len(fork.branches) == 2 and (() in fork.branches) == skips and fork.merge.shape[0] == width
            assert [t.split()[0] for t in titles(fork.branches[0])] == ["1×1", "3×3", "1×1"]
    assert titles(parts)[1:3] == ["7×7 conv, 64, /2", "3×3 max pool, /2"]
    assert titles(parts)[-3:] == ["global average pool", "linear, 1000", "output"]


def test_googlenet_shows_nine_modules_with_four_branches() -> None:
    modules = [p for p in panels(parts_of("googlenet")) if p.title == "Inception"]
    assert [p.path for p in modules] == [f"inception{m}" for m in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")]
    for module in modules:
        (fork,) = module.items
        assert isinstance(fork, Fork) and fork.merge.title == "concat" and [len(b) for b in fork.branches] == [1, 2, 2, 2]


def test_xception_shows_its_three_flows() -> None:
    blocks = panels(parts_of("legacy_xception"))
    assert [(p.title, p.times) for p in blocks] == [
        ("convolutional block", 1),
        ("convolutional block", 1),
        ("convolutional block", 1),
        ("identity block", 8),
        ("convolutional block", 1),
    ]
    assert blocks[3].path == "block4–11 · Block" and "3×3 separable conv, 728" in titles(blocks[3].items)


def test_a_transformer_is_one_block_times_twelve() -> None:
    (block,) = panels(parts_of("vit_small_patch16_224"))
    assert (block.title, block.path, block.times) == ("Block", "blocks.0–11", 12)
    attention, mlp = block.items
    assert isinstance(attention, Fork) and isinstance(mlp, Fork) and () in attention.branches and () in mlp.branches
    assert titles(attention.branches[0]) == ["self-attention, 6 heads"] and titles(mlp.branches[0])[0] == "linear, 1536"


@pytest.mark.slow
def test_inverted_residuals_and_gates() -> None:
    plain = parts_of("mobilenetv2_100")
    assert [p.times for p in panels(plain) if p.title == "InvertedResidual"] == [1, 1, 1, 2, 1, 3, 1, 2, 1, 2, 1]
    assert "squeeze-and-excitation" in titles(parts_of("mobilenetv3_small_050"))


def test_a_stack_of_equal_layers_is_one_box() -> None:
    found = [p for p in walk(parts_of("vgg16")) if isinstance(p, Box) and p.kind == "conv"]
    assert [(p.title, p.times) for p in found] == [
        ("3×3 conv, 64", 2),
        ("3×3 conv, 128", 2),
        ("3×3 conv, 256", 3),
        ("3×3 conv, 512", 3),
        ("3×3 conv, 512", 3),
    ]


class Passed(nn.Module):
    """Every layer's result goes to the end: no series of parallels."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        all_of_it = [x]
        for layer in self.layers:
            all_of_it.append(layer(all_of_it[-1]))
        return torch.cat(all_of_it, 1)


def test_graphs_that_are_not_series_parallel_get_arcs() -> None:
    (_, arcs, output) = fold(dataflow(Passed(4), (8, 8)))
    assert isinstance(arcs, Arcs) and len(arcs.rows) == 5 and isinstance(output, Box)
    # Rows 0 to 3 are the layers, row 4 the concatenation.
    assert set(arcs.edges) == {(-1, 0), (0, 1), (1, 2), (2, 3), (-1, 4), (0, 4), (1, 4), (2, 4), (3, 4)}


def test_too_complex_graphs_become_a_chain_with_a_note() -> None:
    (_, chain, _) = fold(dataflow(Passed(14), (8, 8)))
    assert isinstance(chain, Panel) and chain.loose and chain.path == "in order; not all edges are drawn"
    assert [(p.title, p.times) for p in chain.items if isinstance(p, Box)] == [("3×3 conv, 3", 14), ("concat", 1)]
    dense = next(p for p in panels(parts_of("densenet121")) if p.title == "DenseBlock")
    assert dense.loose and dense.path == "each takes the outputs of all before it"
    assert titles(dense.items) == ["DenseLayer", "concat"]


def test_a_lower_limit_closes_modules() -> None:
    net, size, _ = build("inception_v3")
    flow = dataflow(net, size)
    opened, closed = fold(flow), fold(flow, 80)
    assert len(titles(opened)) > 100 and len(titles(closed)) <= 80
    kinds = [(p.kind, p.title) for p in walk(closed) if isinstance(p, Box)]
    assert ("module", "InceptionA") in kinds and [p.title for p in panels(closed)].count("InceptionA") == 1


# ------------------------------------------------------------------------------------------------------------ how it lies

NETWORKS = ["lenet5", "vit_small_patch16_224", "vgg16"]
LARGE = ["googlenet", "mobilenetv2_100", "swin_tiny_patch4_window7_224", "densenet121", "hrnet_w18_small"]


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(n, marks=pytest.mark.slow) for n in LARGE)])
def test_nothing_overlaps_and_nothing_is_outside(name: str) -> None:
    net, size, channels = build(name)
    page = picture(dataflow(net, size, channels))
    assert faults(page) == []
    made = figure(page, name, "image 3 × 224 × 224")
    assert outside(made) == []
    wide, high = made.get_size_inches()
    assert 1 / 3 < wide / high < 3 and wide * high < 330 and len(page.boxes) >= 8


def test_a_long_title_is_not_cut() -> None:
    page = picture(dataflow(nn.Sequential(nn.Conv2d(3, 4, 3)), (8, 8)))
    made = figure(page, "wide " * 30, "image 3 × 8 × 8  ·  112 parameters")
    assert outside(made) == [] and "…" in made.axes[0].texts[0].get_text()


def test_faults_are_found() -> None:
    net, size, channels = build("lenet5")
    page = picture(dataflow(net, size, channels))
    first, second, *rest = page.boxes
    on = replace(page, boxes=(first, replace(second, x=first.x + first.w - 0.05), *rest))
    assert any("lies on" in f for f in faults(on))
    across = Line(((first.x - 0.1, first.y + 0.1), (first.x + first.w + 0.1, first.y + 0.1)), False)
    assert any("a line crosses 'image'" in f for f in faults(replace(page, lines=(*page.lines, across))))
    assert any("outside" in f for f in faults(replace(page, width=page.width - 0.2)))
    made = figure(page, "x", "y")
    made.axes[0].text(made.get_size_inches()[0] - 0.1, 0.3, "over the edge")
    assert outside(made) == ["over the edge"]


class Random(nn.Module):
    """A network that is drawn by lot: layers that take from any before them, some in modules."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        lot = random.Random(seed)
        self.plan: list[tuple[str, list[int]]] = []
        self.layers = nn.ModuleList()
        for i in range(lot.randint(2, 16)):
            kind = lot.choice(["conv", "block", "add", "cat", "relu"])
            reach = range(max(0, i + 1 - lot.choice([1, 2, 6])), i + 1)
            self.plan.append((kind, sorted(lot.sample(reach, min(len(reach), lot.choice([1, 2, 3]))))))
            convs = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(2 if kind == "block" else 1)]
            self.layers.append(nn.Sequential(*convs) if kind == "block" else convs[0])

    def forward(self, x: Tensor) -> Tensor:
        values = [torch.cat([x, x[:, :1]], 1)]
        for (kind, taken), layer in zip(self.plan, self.layers, strict=True):
            given = [values[t] for t in taken]
            if kind == "cat":
                values.append(torch.cat(given, 1)[:, :4])
            elif kind == "relu":
                values.append(given[-1].relu())
            else:
                total = sum(given[1:], given[0])
                values.append(total if kind == "add" else layer(total))
        return torch.cat(values[-2:], 1).mean((2, 3))


@pytest.mark.parametrize("seed", range(12))
def test_any_network_can_be_drawn(seed: int) -> None:
    flow = dataflow(Random(seed), (6, 6))
    assert faults(picture(flow)) == []


# --------------------------------------------------------------------------------------------------------------- the file


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = type("<script>alert('x')</script>", (nn.Sequential,), {})
        for name in ('a<b>&"c" $x_1$', "again"):
            self.add_module(name, inner(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(3, 1, 1)))
        self.pooled = type("]]><i>", (nn.Module,), {"forward": lambda self, x: x.mean((2, 3))})()

    def forward(self, x: Tensor) -> Tensor:
        first, second, pooled = self.children()
        x = second(first(x))
        return pooled(x + x.sigmoid())  # type: ignore[no-any-return]


def test_names_are_escaped(tmp_path: Path) -> None:
    title = '<script>alert(1)</script> & "quotes" $\\frac{1}$ \x00\x1b[31m\ud800 网络'
    draw(Named(), (12, 12), tmp_path / "net.svg", title=title)
    text = (tmp_path / "net.svg").read_text(encoding="utf-8")
    assert "<script" not in text and "<i>" not in text and "\x00" not in text
    root = ElementTree.fromstring(text)
    shown = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(t.startswith('<script>alert(1)</script> & "quotes" $\\frac{1}$') for t in shown)
    assert any("<script>alert('x')" in t for t in shown) and any('a<b>&"c" $x_1$' in t for t in shown)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_bytes_whatever_the_users_settings(tmp_path: Path, ending: str) -> None:
    draw(lenet(), (32, 32), tmp_path / f"a.{ending}", channels=1)
    with matplotlib.rc_context({"font.size": 30, "font.family": "serif", "svg.fonttype": "path", "savefig.dpi": 50}):
        draw(lenet(), (32, 32), tmp_path / f"b.{ending}", channels=1)
    first = (tmp_path / f"a.{ending}").read_bytes()
    assert first == (tmp_path / f"b.{ending}").read_bytes() and len(first) > 5000
    assert (b"dc:date" not in first and b"61,706 parameters" in first) or ending == "png"


@pytest.mark.slow
def test_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.networks.test_drawing import Named\n"
        "from sightline.networks.picture.drawing import draw\n"
        "draw(Named(), (12, 12), Path(sys.argv[1]))\n"
    )
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code, str(tmp_path / f"{seed}.svg")]
        root = Path(__file__).parents[2]
        subprocess.run(
            command, check=True, cwd=root, env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "HOME": str(tmp_path)}
        )
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


def test_png_is_fine_enough_for_print(tmp_path: Path) -> None:
    from PIL import Image

    draw(lenet(), (32, 32), tmp_path / "net.PNG", channels=1)
    with Image.open(tmp_path / "net.PNG") as image:
        assert image.format == "PNG" and image.info["dpi"][0] >= 150 and image.width > 800


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot be written to 'net\.pdf'") as error:
        draw(lenet(), (32, 32), tmp_path / "net.pdf", channels=1)
    assert error.value.hint == "end its name in .svg or .png"
    with pytest.raises(RequestError, match="Sequential does not accept images of 8×8 px with 1 channels"):
        draw(lenet(), (8, 8), tmp_path / "net.svg", channels=1)
    assert not list(tmp_path.iterdir())
