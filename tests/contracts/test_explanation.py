"""Contract of every explanation method, with every head on every kind of feature map."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sightline
from sightline import engine, heads, networks
from sightline.errors import RequestError, SightlineError
from sightline.explanation import METHODS, ExplainOptions, explain, gradcam_linear, gradcam_tail, to_grid
from sightline.explanation.layers import borrowed
from sightline.explanation.methods import integrated_gradients, occlusion, smoothgrad
from sightline.explanation.score import coefficients
from sightline.records import Explanation, Head
from sightline.store import Cache
from tests.syntax import tree

BACKBONES = {
    "mean tail": ("resnet10t", 64, "avg"),
    "tail with a layer": ("mobilenetv3_small_050", 64, "avg"),
    "normalised after the mean": ("convnext_atto", 64, "avg"),
    "tokens": ("vit_tiny_patch16_224", 32, "avg"),
    "flattened map": ("resnet10t", 64, "flatten"),
    "the image itself": ("pixels", 16, "flatten"),
}
MEAN_TAILS = {"mean tail"}
ON_PIXELS = {"mean tail", "tokens", "the image itself"}
KINDS = [k for k in heads.HEADS if k != "constant"]
NOT_LINEAR = {"gradcam++"}
"""Signed methods that are not linear in the gradient, so that exchanging two classes does not negate the heatmap."""
CLASSES = ("one", "two", "three")
IMAGES = 18


@dataclass(frozen=True)
class Case:
    session: engine.Session
    images: np.ndarray
    maps: np.ndarray
    features: np.ndarray


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    yield Cache(tmp_path_factory.mktemp("explanation"))
    made.cache_clear()
    fitted.cache_clear()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few samples, on whose number these tests do not depend."""
    monkeypatch.setattr(integrated_gradients, "SEGMENTS", 1)
    monkeypatch.setattr(integrated_gradients, "POINTS", 2)
    monkeypatch.setattr(smoothgrad, "SAMPLES", 2)
    monkeypatch.setattr(occlusion, "WINDOW", 2)


@functools.cache
def made(which: str, cache: Cache) -> Case:
    name, size, pool = BACKBONES[which]
    backbone = networks.describe(name, weights="random", image_size=size, pool=pool, cache=cache)
    session = engine.open_session(backbone, cache=cache, expected=1)
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (IMAGES, 8, 8, 3))
    images = np.kron(coarse, np.ones((1, size // 8, size // 8, 1))).astype(np.uint8)
    features, maps = session.run(images, maps=True)
    assert maps is not None
    return Case(session, images, maps, features)


@functools.cache
def fitted(kind: str, which: str, cache: Cache) -> Head:
    features = made(which, cache).features
    rows = np.arange(IMAGES)
    small = {"forest": {"trees": 20}, "mlp": {"epochs": 3, "units": [[8, 0.0]]}, "knn": {"neighbours": 3}}
    folds = [(rows[:12], rows[12:])]
    return heads.fit(kind, features, rows % 3, 3, folds=folds, refit=True, settings=small.get(kind, {}), seed=0).head


BOX = (0.0, 0.0, 9.0, 9.0)


def asked(case: Case, head: Head, rows: slice, with_maps: bool = False, **rest: Any) -> list[Explanation]:
    """Two images for two classes, or one of them."""
    return explain(
        case.session,
        head,
        case.images[rows],
        paths=["a", "b"][rows],
        targets=[1, 2][rows],
        classes=CLASSES,
        boxes=[BOX, BOX][rows],
        options=ExplainOptions(**rest),
        maps=case.maps[rows] if with_maps else None,
    )


def refused(method: str, head: Head, case: Case) -> bool:
    """Whether a method cannot explain this head on this backbone."""
    takes = {"any": True, "gradient": heads.layers(head) is not None, "linear": heads.linear(head) is not None}
    backbone = case.session.backbone
    fits = {"contribution": backbone.pool == "flatten", "patches": backbone.layout == "tokens"}
    return not takes[METHODS[method].heads] or not fits.get(method, True)


PAIRS = [*((kind, "mean tail") for kind in KINDS), *(("logistic", which) for which in BACKBONES if which != "mean tail")]
"""Every head on one map, and one head on every map: a head is known by its formula alone, whatever it stands on."""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "which"), PAIRS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_head_and_map(method: str, kind: str, which: str, cache: Cache, few: None) -> None:
    case, head = made(which, cache), fitted(kind, which, cache)
    if METHODS[method].needs == "pixels" and which not in ON_PIXELS:
        return
    if refused(method, head, case):
        with pytest.raises(RequestError) as told:
            asked(case, head, slice(0, 2), method=method)
        assert told.value.hint
        return
    on_map = METHODS[method].needs == "map"
    found = asked(case, head, slice(0, 2), on_map, method=method)
    size = case.session.backbone.preprocess.size
    limit = (case.session.backbone.map_shape or (0, 0, 0))[1:] if on_map else size
    for one, target in zip(found, (1, 2), strict=True):
        assert (one.method, one.target, one.contrast, one.box) == (method, CLASSES[target], "", BOX)
        assert one.heat.dtype == np.float32 and one.heat.flags["C_CONTIGUOUS"] and np.isfinite(one.heat).all()
        assert np.less_equal(one.heat.shape, limit).all() if on_map else one.heat.shape == limit
        if not METHODS[method].signed:
            assert one.heat.min() >= 0 and one.neutral == 0
        assert one.missed is not None or method != "integrated-gradients"
    again = asked(case, head, slice(1, 2), on_map, method=method)[0]
    np.testing.assert_array_equal(found[1].heat, again.heat, err_msg="alone, in a batch, a second time")
    if on_map and kind in ("logistic", "forest"):  # the map itself may differ in its last bits with the batch
        own = asked(case, head, slice(1, 2), method=method)[0].heat
        np.testing.assert_allclose(own, again.heat, atol=1e-4 * np.abs(again.heat).max())


@pytest.mark.parametrize(("kind", "which"), [("logistic", "mean tail"), ("mlp", "mean tail"), ("forest", "tokens")])
def test_a_contrast_of_two_classes_is_antisymmetric(kind: str, which: str, cache: Cache, few: None) -> None:
    """The heatmap of a against b is the negative of that of b against a for signed methods."""
    case, head = made(which, cache), fitted(kind, which, cache)
    for method in METHODS:
        if refused(method, head, case) or METHODS[method].class_free:
            continue
        one = asked(case, head, slice(0, 1), method=method, contrast=2)[0]
        assert one.contrast == "three"
        shown: dict[str, Any] = {"paths": ["a"], "targets": [2], "classes": CLASSES, "boxes": [BOX]}
        options = ExplainOptions(method=method, contrast=1)
        other = explain(case.session, head, case.images[:1], options=options, **shown)[0]
        scale = np.abs(one.heat).max()
        if METHODS[method].signed and method not in NOT_LINEAR:
            np.testing.assert_allclose(one.heat, -other.heat, atol=1e-4 * scale + 1e-9, err_msg=method)
        if method != "occlusion" and kind == "logistic":
            assert np.abs(one.heat - asked(case, head, slice(0, 1), method=method)[0].heat).max() > 1e-3 * scale, method
    with pytest.raises(RequestError, match="compared with itself"):
        asked(case, head, slice(0, 1), contrast=1)
    with pytest.raises(RequestError, match="class 7"):
        asked(case, head, slice(0, 1), contrast=7)


def test_another_seed_gives_another_heatmap(cache: Cache, few: None) -> None:
    case, head = made("mean tail", cache), fitted("logistic", "mean tail", cache)
    for method in ("masks", "smoothgrad"):
        one, other = (asked(case, head, slice(0, 1), method=method, seed=seed)[0].heat for seed in (0, 1))
        assert np.abs(one - other).max() > 0, method


@pytest.mark.parametrize("which", BACKBONES)
def test_closed_form_gradcam_equals_the_gradient_if_the_tail_is_a_mean(which: str, cache: Cache) -> None:
    case, head = made(which, cache), fitted("logistic", which, cache)
    assert case.session.tail_is_mean == (which in MEAN_TAILS)
    found = heads.linear(head)
    assert found is not None
    weights = coefficients(3, 1) @ found[0]
    through = gradcam_tail(case.session, case.maps[:1], weights)
    grid = to_grid(case.maps[:1], case.session.backbone)[0]
    scale = np.abs(through).max()
    if case.session.tail_is_mean:
        np.testing.assert_allclose(gradcam_linear(grid, weights), through, atol=1e-5 * scale)
    elif len(weights) == len(grid):
        difference = np.abs(gradcam_linear(grid, weights) - through).max()
        assert difference > 1e-3 * scale, "a tail that is more than a mean has another gradient"


def keys_in(root: ast.AST) -> Iterator[str]:
    """Strings that are compared, used as a subscript, matched, or keys of a dictionary."""
    for node in ast.walk(root):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            parts += [item for part in parts if isinstance(part, ast.Tuple | ast.List | ast.Set) for item in part.elts]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = list(node.keys)
        yield from (p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str))


def test_no_code_outside_the_registry_tests_for_the_name_of_a_method() -> None:
    root = Path(sightline.__file__).parent
    files = [f for part in ("explanation", "commands", "runs", "cli") for f in (root / part).rglob("*.py")]
    registry = root / "explanation" / "methods" / "__init__.py"
    assert registry in files and set(keys_in(tree(registry))) >= set(METHODS)
    uses = {f.name: set(keys_in(tree(f))) & set(METHODS) for f in files if f != registry}
    assert not {name: keys for name, keys in uses.items() if keys}


def state(network: nn.Module) -> list[Any]:
    """Return the weights, flags and hooks of a network."""
    weights = [(n, v.clone()) for n, v in network.state_dict().items()]
    flags = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in network.parameters()]
    hooks = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()]
    return [weights, flags, hooks, torch.is_grad_enabled()]


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether two states are bitwise equal."""
    weights = all(a == b and torch.equal(v, w) for (a, v), (b, w) in zip(one[0], other[0], strict=True))
    flags = all(
        f == g and ((v is None) == (w is None)) and (v is None or torch.equal(v, w))
        for (f, v), (g, w) in zip(one[1], other[1], strict=True)
    )
    return weights and flags and one[2:] == other[2:]


def test_a_borrowed_network_keeps_mode_and_gradients() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    net.train()
    net[1].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    net[0].bias.requires_grad_(False)
    before = state(net)
    with pytest.raises(RuntimeError, match="inside"), torch.no_grad(), borrowed(net):
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
        assert torch.is_grad_enabled()
        net[0].weight.grad = None
        raise RuntimeError("inside")
    assert same(before, state(net))
    with borrowed(net):
        net[0].weight.grad = None
    assert same(before, state(net))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["mean tail", "tokens"])
def test_the_network_is_left_as_it_was_also_after_an_error(which: str, cache: Cache, few: None) -> None:
    case, head = made(which, cache), fitted("logistic", which, cache)
    network = case.session.network()
    names = [n for n, _ in network.net.named_modules()]
    layer = "blocks.5" if which == "tokens" else "layer3"
    assert layer in names
    first, middle = next(network.parameters()), network.net.get_submodule(layer)
    first.grad = torch.ones_like(first)
    before = state(network)
    failed: set[str] = set()

    def broken(*_: Any) -> None:
        raise RuntimeError("it failed inside")

    try:
        for method, record in METHODS.items():
            if refused(method, head, case):
                continue
            asked(case, head, slice(0, 1), method=method)
            assert same(before, state(network)), method
            if record.needs == "map" and method != "contribution":
                asked(case, head, slice(0, 1), method=method, layer=layer)
                assert same(before, state(network)), f"{method} at {layer}"
            for place in (middle, network.net.get_submodule(layer)):
                handle = place.register_forward_hook(broken)
                hooked = state(network)
                arguments = {"layer": layer} if record.needs == "map" else {}
                try:  # a method that runs the converted network, such as occlusion, does not fail
                    asked(case, head, slice(0, 1), method=method, **arguments)
                except RuntimeError as error:
                    assert "failed inside" in str(error)
                    failed.add(method)
                assert same(hooked, state(network)), f"{method} after an error"
                handle.remove()
        assert failed >= {"saliency", "integrated-gradients"}
        with pytest.raises(SightlineError, match="not finite"):
            shown: dict[str, Any] = {"paths": ["a"], "targets": [0], "classes": CLASSES, "boxes": [BOX]}
            explain(case.session, head, case.images[:1], maps=np.full_like(case.maps[:1], np.nan), **shown)
        assert same(before, state(network))
    finally:
        first.grad = None
