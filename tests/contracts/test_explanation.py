"""What every method must do with every head on every kind of map; whether the closed form holds is measured, not listed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from sightline import engine, heads, networks
from sightline.errors import RequestError
from sightline.explanation import METHODS, contrast, explain, gradcam_linear, gradcam_tail, to_grid
from sightline.records import Head
from sightline.store import Cache

BACKBONES = {
    "mean tail": ("resnet10t", 64, "avg"),
    "tail with a layer": ("mobilenetv3_small_050", 64, "avg"),
    "normalised after the mean": ("convnext_atto", 64, "avg"),
    "tokens": ("vit_tiny_patch16_224", 32, "avg"),
    "flattened map": ("resnet10t", 64, "flatten"),
    "the image itself": ("pixels", 16, "flatten"),
}
MEAN_TAILS = {"mean tail"}
KINDS = [k for k in heads.HEADS if k != "constant"]
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
    small = {"forest": {"trees": 20, "fold_trees": 20}, "mlp": {"epochs": 3, "units": [[8, 0.0]]}, "knn": {"neighbours": 3}}
    folds = [(rows[:12], rows[12:])]
    return heads.fit(kind, features, rows % 3, 3, folds=folds, refit=True, settings=small.get(kind, {}), seed=0).head


@pytest.mark.parametrize("which", BACKBONES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_head_and_map(method: str, kind: str, which: str, cache: Cache) -> None:
    case, head = made(which, cache), fitted(kind, which, cache)
    paths, boxes = ["a", "b"], [(0.0, 0.0, 9.0, 9.0)] * 2

    def ask(rows: slice) -> list[np.ndarray]:
        shown = (paths[rows], [1, 2][rows], CLASSES, boxes[rows])
        found = explain(case.session, head, case.images[rows], *shown, method=method, maps=case.maps[rows])
        assert all(e.method == method and e.target == CLASSES[t] for e, t in zip(found, [1, 2][rows], strict=True))
        return [e.heat for e in found]

    linear, flat = heads.linear(head) is not None, case.session.backbone.pool == "flatten"
    if (method != "masks" and not linear) or (method == "contribution" and not flat):
        with pytest.raises(RequestError):
            ask(slice(0, 2))
        return
    heat = ask(slice(0, 2))
    _, height, width = case.session.backbone.map_shape or (0, 0, 0)
    for one in heat:
        assert one.dtype == np.float32 and np.isfinite(one).all()
        assert one.shape[0] <= height and one.shape[1] <= width
    np.testing.assert_array_equal(heat[1], ask(slice(1, 2))[0], err_msg="alone, in a batch, a second time")


@pytest.mark.parametrize("which", BACKBONES)
def test_where_the_tail_is_a_mean_the_closed_form_is_the_gradient_s(which: str, cache: Cache) -> None:
    case, head = made(which, cache), fitted("logistic", which, cache)
    assert case.session.tail_is_mean == (which in MEAN_TAILS)
    found = heads.linear(head)
    assert found is not None
    weights = contrast(found[0], 1)
    through = gradcam_tail(case.session, case.maps[:1], weights)
    grid = to_grid(case.maps[:1], case.session.backbone)[0]
    scale = np.abs(through).max()
    if case.session.tail_is_mean:
        np.testing.assert_allclose(gradcam_linear(grid, weights), through, atol=1e-5 * scale)
    elif len(weights) == len(grid):
        difference = np.abs(gradcam_linear(grid, weights) - through).max()
        assert difference > 1e-3 * scale, "a tail that is more than a mean has another gradient"


@pytest.mark.parametrize("which", ["tail with a layer", "tokens"])
def test_the_network_is_left_as_it_was(which: str, cache: Cache) -> None:
    case, head = made(which, cache), fitted("logistic", which, cache)
    network = case.session._network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in network.parameters()]
    explain(case.session, head, case.images[:1], ["a"], [0], CLASSES, [(0.0, 0.0, 9.0, 9.0)], method="gradcam")
    broken = np.full_like(case.maps[:1], np.nan)
    with pytest.raises(Exception, match="not finite"):
        explain(case.session, head, case.images[:1], ["a"], [0], CLASSES, [(0.0, 0.0, 9.0, 9.0)], maps=broken)
    assert not any(m.training or m._forward_hooks or m._backward_hooks for m in network.modules())
    assert [(p.requires_grad, p.grad) for p in network.parameters()] == flags
    assert all(bool((v == before[k]).all()) for k, v in network.state_dict().items())
