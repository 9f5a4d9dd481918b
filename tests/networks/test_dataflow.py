"""The recorded data flow is correct, and recording does not change the network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import Tensor, nn

from sightline.errors import RequestError
from sightline.networks.picture.dataflow import Flow, Node, dataflow


class Residual(nn.Module):
    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)  # type: ignore[no-any-return]


class Functional(nn.Module):
    """No modules at all."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.matrix = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weight, stride=2))
        return F.linear(x.mean((2, 3)), self.matrix)


class Needing(nn.Module):
    """Its Python depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) if float(x.sum()) <= 0 else self.right(x)  # type: ignore[no-any-return]


def find(flow: Flow, path: str, call: int = 0) -> tuple[int, Node]:
    return [(i, n) for i, n in enumerate(flow.nodes) if n.path == path and n.kind != "merge"][call]


@pytest.mark.parametrize("inplace", [False, True])
def test_the_skip_is_an_edge(inplace: bool) -> None:
    flow = dataflow(nn.Sequential(nn.Conv2d(3, 8, 1), Residual(inplace=inplace)), (9, 9))
    stem, bn2 = find(flow, "0")[0], find(flow, "1.bn2")[0]
    (add,) = [n for n in flow.nodes if n.kind == "merge"]
    assert add.label == "add" and sorted(add.inputs) == [stem, bn2]
    assert flow.nodes[bn2].inputs == (find(flow, "1.conv2")[0],)
    last = flow.nodes[flow.outputs[0]]
    assert (last.path, last.label) == ("1.relu", "ReLU")  # the module that ran twice
    assert flow.nodes[last.inputs[0]] == add


def test_in_place_operations_on_a_skipped_tensor_are_recorded() -> None:
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.conv = nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 2
            return x + self.conv(self.act(x))  # type: ignore[no-any-return]

    flow = dataflow(Before(), (4, 4))
    act, conv = find(flow, "act")[0], find(flow, "conv")[0]
    assert set(flow.nodes[flow.outputs[0]].inputs) == {act, conv}, "the skip carries what the ReLU wrote"


def test_modules_that_return_their_input_keep_the_skip_connection() -> None:
    class Passing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.same, self.drop = nn.Conv2d(3, 3, 1), nn.Identity(), nn.Dropout(0.3)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.drop(self.conv(self.same(x)))  # type: ignore[no-any-return]

    flow = dataflow(Passing(), (4, 4))
    assert flow.nodes[flow.outputs[0]].inputs == (0, find(flow, "drop")[0])
    assert find(flow, "same")[1].kind == "identity" and find(flow, "drop")[1].label == "dropout 0.3"


def test_an_inception_module_has_four_branches_and_one_concatenation() -> None:
    module = torchvision.models.googlenet(init_weights=False, aux_logits=False).inception3a
    flow = dataflow(module, (28, 28), channels=192)
    (cat,) = [n for n in flow.nodes if n.label == "concat"]
    assert len(cat.inputs) == 4 and cat.shape == (256, 28, 28)
    assert [sum(0 in n.inputs for n in flow.nodes), flow.outputs] == [4, (flow.nodes.index(cat),)]
    assert [flow.nodes[i].shape[0] for i in cat.inputs] == [64, 128, 32, 32]


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_every_module_without_parts_that_runs_is_there(name: str) -> None:
    with torch.device("meta"):
        net = timm.create_model(name).eval()
    ran: list[str] = []
    for path, module in net.named_modules():
        if next(module.children(), None) is None:
            module.register_forward_pre_hook(lambda m, a, path=path: ran.append(path))
    size = net.default_cfg["input_size"][1:]
    with torch.no_grad():
        given = net(torch.zeros((1, 3, *size), device="meta"))
    expected = list(ran)
    flow = dataflow(net, size)
    leaves = {p for p, m in net.named_modules() if next(m.children(), None) is None}
    seen = [n.path for n in flow.nodes if n.path in leaves]
    assert len(expected) > 20 and sorted(seen) == sorted(expected)
    assert flow.nodes[flow.outputs[0]].shape == tuple(given.shape[1:])


def test_shapes_are_those_of_a_real_run() -> None:
    net = timm.create_model("resnet10t").eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for path, module in net.named_modules():
        module.register_forward_hook(lambda m, a, y, path=path: shapes.update({path: tuple(y.shape[1:])}))
    with torch.no_grad():
        net(torch.zeros(1, 3, 96, 96))
    flow = dataflow(net, (96, 96))
    leaves = [n for n in flow.nodes if n.path and n.kind in {"conv", "norm", "linear", "activation"}]
    assert len(leaves) > 20 and all(n.shape == shapes[n.path] for n in leaves)


def test_functions_alone() -> None:
    flow = dataflow(Functional(), (9, 9))
    assert [(n.kind, n.label) for n in flow.nodes[1:]] == [
        ("conv", "3×3 conv, 4, /2"),
        ("activation", "ReLU"),
        ("pool", "global average pool"),
        ("linear", "linear, 5"),
    ]
    assert [n.inputs for n in flow.nodes[1:]] == [(0,), (1,), (2,), (3,)]


LABELS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "stride": (lambda: nn.Conv2d(4, 6, 7, stride=2), "conv", "7×7 conv, 6, /2"),
    "oblong": (lambda: nn.Conv2d(4, 6, (1, 7), stride=(1, 2)), "conv", "1×7 conv, 6, /1×2"),
    "dilated": (lambda: nn.Conv2d(4, 6, 3, dilation=2), "conv", "3×3 conv, 6, dilation 2"),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), "conv", "3×3 conv, 6, 2 groups"),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), "depthwise", "3×3 depthwise conv, 8"),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), "conv", "2×2 transposed conv, 6, ×2"),
    "max": (lambda: nn.MaxPool2d(3, 2), "pool", "3×3 max pool, /2"),
    "average": (lambda: nn.AvgPool2d(2), "pool", "2×2 average pool, /2"),
    "global": (lambda: nn.AdaptiveAvgPool2d(1), "pool", "global average pool"),
    "adaptive": (lambda: nn.AdaptiveMaxPool2d((3, 2)), "pool", "max pool to 3×2"),
    "norm": (lambda: nn.GroupNorm(2, 4), "norm", "GroupNorm"),
    "pad": (lambda: nn.ZeroPad2d(3), "pad", "zero padding 3"),
    "act": (lambda: nn.Hardswish(), "activation", "Hardswish"),
    "flat": (lambda: nn.Flatten(), "shape", "flatten"),
}


@pytest.mark.parametrize("key", LABELS)
def test_labels(key: str) -> None:
    build, kind, label = LABELS[key]
    flow = dataflow(nn.Sequential(build()), (12, 12), channels=4)
    assert (flow.nodes[1].kind, flow.nodes[1].label) == (kind, label)


def test_functions_have_the_labels_of_their_modules() -> None:
    weight, turned = torch.randn(6, 2, 3, 3), torch.randn(4, 6, 2, 2)
    pairs: list[tuple[Callable[[Tensor], Tensor], nn.Module]] = [
        (lambda x: F.conv2d(x, weight, None, 2, 1, 1, 2), nn.Conv2d(4, 6, 3, 2, 1, groups=2)),
        (lambda x: F.conv_transpose2d(x, turned, None, 2), nn.ConvTranspose2d(4, 6, 2, 2)),
        (lambda x: F.max_pool2d(x, 3, 2), nn.MaxPool2d(3, 2)),
        (lambda x: F.avg_pool2d(x, kernel_size=2), nn.AvgPool2d(2)),
        (lambda x: F.adaptive_avg_pool2d(x, 2), nn.AdaptiveAvgPool2d(2)),
        (lambda x: x.relu(), nn.ReLU()),
        (lambda x: F.silu(x, inplace=False), nn.SiLU()),
        (lambda x: F.layer_norm(x, x.shape[1:]), nn.LayerNorm((4, 12, 12))),
    ]

    class Called(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    for function, module in pairs:
        as_function, as_module = dataflow(Called(function), (12, 12), 4), dataflow(nn.Sequential(module), (12, 12), 4)
        assert as_function.nodes[1].label == as_module.nodes[1].label
        assert as_function.nodes[1].kind == as_module.nodes[1].kind and as_function.nodes[1].shape == as_module.nodes[1].shape


def test_a_network_that_needs_values() -> None:
    net = Needing().train()
    flow = dataflow(net, (8, 8))
    assert [n.path for n in flow.nodes[1:] if n.kind == "conv"] == ["left"] and net.training


@pytest.mark.parametrize("net", [Residual(), Needing(), timm.create_model("test_vit")], ids=["meta", "numbers", "vit"])
@pytest.mark.parametrize("good", [True, False])
def test_the_network_stays_as_it_is(net: nn.Module, good: bool) -> None:
    net.train()
    next(iter(net.children())).eval()  # modes that differ
    seen: list[object] = []
    hook = net.register_forward_hook(lambda *_: seen.append(1))
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    size, channels = (getattr(net, "default_cfg", {}).get("input_size", (3, 9, 9))[1:], 8 if isinstance(net, Residual) else 3)
    if good:
        dataflow(net, size, channels)
    else:
        with pytest.raises(RequestError, match="does not accept images of"):
            dataflow(net, size, 7)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is not None and bool((p.grad == 1).all()) and p.device.type == "cpu" for p in net.parameters())
    hooks = [h for m in net.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert len(hooks) == 1 and (not seen or isinstance(net, Needing)), "no hook stays, and the network's own saw nothing"
    hook.remove()


@pytest.mark.parametrize("needs", [False, True])
def test_flow_is_recorded_in_evaluation_mode(needs: bool) -> None:
    class Learning(nn.Module):
        """Has more to do while it learns, as GoogLeNet has."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.extra, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.body(x) if not needs or float(x.max()) < 1 else x)
            return x + self.extra(x) if self.training else x

    net = Learning().train()
    assert [n.path for n in dataflow(net, (4, 4)).nodes if n.path] == ["body", "norm"] and net.extra.training
    assert int(net.norm.num_batches_tracked or 0) == 0


def test_several_outputs_and_a_branch_to_nowhere() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            self.c(x)
            return {"a": self.a(x), "b": self.b(x)}

    flow = dataflow(Two(), (4, 4))
    assert [flow.nodes[i].path for i in flow.outputs] == ["a", "b"] and find(flow, "c")[1].shape == (5, 4, 4)
