"""`explain`: choice of the method, heatmaps, and refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sightline import engine, heads, networks
from sightline.errors import RequestError, SightlineError
from sightline.explanation import ExplainOptions, explain
from sightline.explanation.methods import choose_method
from sightline.explanation.methods.masks import cell_masks
from sightline.explanation.score import log_odds
from sightline.records import Backbone, Explanation, Head
from sightline.store import Cache
from tests.explanation.fake import FakeSession, numbered

BOX = (0.0, 0.0, 40.0, 60.0)
CLASSES = ("cat", "dog")


def linear_head(features: int) -> Head:
    weights = np.random.default_rng(5).normal(size=(2, features)).astype(np.float32)
    return Head("logistic", 2, {}, {"weights": weights, "bias": np.array([0.5, -1.5], dtype=np.float32)})


def neighbours(features: np.ndarray) -> Head:
    labels = np.arange(len(features), dtype=np.int32) % 2
    arrays = {"features": features.astype(np.float32), "labels": labels, "class_weights": np.ones(2, np.float32)}
    small = {"neighbours": np.array([3], np.int32), "metric": np.array([1], np.int32)}
    return Head("knn", 2, {}, {**arrays, **small})


def maps(n: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 4, 2, 3)).astype(np.float32)


def explained(session: Any, head: Head, images: np.ndarray, targets: list[int], **rest: Any) -> list[Explanation]:
    """Images named 0.jpg, 1.jpg, …; options of `ExplainOptions` and arguments of `explain` by name."""
    direct = {name: rest.pop(name) for name in ("paths", "maps", "progress") if name in rest}
    paths = direct.pop("paths", [f"{i}.jpg" for i in range(len(targets))])
    options = ExplainOptions(**rest)
    boxes = [BOX] * len(targets)
    return explain(session, head, images, paths=paths, targets=targets, classes=CLASSES, boxes=boxes, options=options, **direct)


def one(session: FakeSession, head: Head, target: int = 0, **rest: str) -> Explanation:
    return explained(session, head, numbered(1), [target], paths=["a.jpg"], **rest)[0]


def test_auto_is_exact_for_linear_heads_and_uses_masks_for_others() -> None:
    linear = linear_head(4)
    found = one(FakeSession(maps()), linear)
    assert (found.method, found.path, found.target, found.box) == ("gradcam", "a.jpg", "cat", BOX)
    assert found.layer == "last map, 4 channels of 2×3" and found.heat.dtype == np.float32
    assert one(FakeSession(maps()), neighbours(maps().mean(axis=(2, 3)))).method == "masks"
    flat = FakeSession(maps(), False, lambda m: m.reshape(len(m), -1), pool="flatten")
    assert one(flat, linear_head(24)).method == "contribution"


def test_heatmap_and_neutral_value_add_up_to_the_score() -> None:
    session, head = FakeSession(maps()), linear_head(4)
    logits = head.arrays["weights"] @ maps()[0].mean(axis=(1, 2)) + head.arrays["bias"]
    for target in (0, 1):
        found = one(session, head, target)
        assert (found.heat - found.neutral).sum() == pytest.approx(float(logits[target] - logits[1 - target]), rel=1e-4)
    np.testing.assert_allclose(one(session, head, 0).heat, -one(session, head, 1).heat)


def test_contributions_are_relative_to_the_training_mean_if_it_is_stored() -> None:
    flat = FakeSession(maps(), False, lambda m: m.reshape(len(m), -1), pool="flatten")
    head = linear_head(24)
    mean = maps()[0].ravel()
    kept = Head(head.kind, 2, {}, {**head.arrays, "feature_mean": mean})
    assert np.abs(one(flat, head).heat).max() > 0.1
    assert np.abs(one(flat, kept).heat).max() == 0  # this image is the mean: nothing sets it apart


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_alone_in_a_batch_and_with_maps_at_hand_are_the_same(kind: str) -> None:
    session = FakeSession(maps(20))
    head = linear_head(4) if kind == "linear" else neighbours(maps(20).mean(axis=(2, 3)))
    paths, targets = [f"{i}.jpg" for i in range(20)], [i % 2 for i in range(20)]
    seen: list[tuple[str, int, int]] = []
    batch = explained(session, head, numbered(20), targets, progress=lambda *step: seen.append(step))
    assert [e.path for e in batch] == paths and seen[-1] == ("explaining", 20, 20)
    alone = explained(session, head, numbered(20)[17:18], [1])[0]
    np.testing.assert_array_equal(alone.heat, batch[17].heat)
    runs = session.runs
    given = explained(session, head, numbered(0), targets, maps=maps(20))
    assert session.runs == runs
    np.testing.assert_array_equal(given[3].heat, batch[3].heat)


def test_methods_that_do_not_fit_are_refused() -> None:
    session, head = FakeSession(maps()), linear_head(4)
    with pytest.raises(RequestError, match="no method 'gradcamm'"):
        one(session, head, method="gradcamm")
    with pytest.raises(RequestError, match="'knn' has no gradient"):
        one(session, neighbours(maps().mean(axis=(2, 3))), method="gradcam")
    with pytest.raises(RequestError, match="the unpooled feature map"):
        one(session, head, method="contribution")
    with pytest.raises(RequestError, match=r"class 2 of a\.jpg"):
        one(session, head, 2)
    broken = maps()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(SightlineError, match=r"a\.jpg is not finite"):
        one(FakeSession(broken), head)


def test_an_all_zero_map_gives_a_zero_heatmap() -> None:
    for head in (linear_head(4), neighbours(maps().mean(axis=(2, 3)))):
        assert np.abs(one(FakeSession(np.zeros_like(maps())), head).heat).max() < 1e-9


def test_log_odds_have_no_ceiling_but_for_votes() -> None:
    sure = np.array([[0.0, 40.0], [0.0, 50.0]])
    assert log_odds(sure, 1).tolist() == [40, 50]
    votes = np.log(np.array([[1e-9, 1.0], [0.5, 0.5]]))
    np.testing.assert_allclose(log_odds(votes, 1), [np.log(999), 0], atol=1e-9)
    three = np.array([[1.0, 2.0, 3.0]])
    probs = np.exp(three) / np.exp(three).sum()
    np.testing.assert_allclose(log_odds(three, 0), np.log(probs[:, 0] / (1 - probs[:, 0])))


def mlp_head() -> Head:
    random = np.random.default_rng(3)
    first, second = random.normal(size=(5, 4)), random.normal(size=(2, 5))
    arrays = {"weights.0": first, "bias.0": random.normal(size=5), "weights.1": second, "bias.1": random.normal(size=2)}
    return Head("mlp", 2, {}, {n: a.astype(np.float32) for n, a in arrays.items()})


def test_the_heatmap_of_an_mlp_adds_up_to_its_score() -> None:
    session, head = FakeSession(maps()), mlp_head()
    logits = heads.logits(head, maps()[:1].mean(axis=(2, 3)))[0]
    for method in ("gradcam", "hirescam"):
        found = one(session, head, 0, method=method)
        assert (found.heat - found.neutral).sum() == pytest.approx(logits[0] - logits[1], rel=1e-4)


def test_auto_uses_occlusion_without_a_feature_map() -> None:
    class Blind(FakeSession):
        @property
        def backbone(self) -> Backbone:
            return dataclasses.replace(super().backbone, map_shape=None)

    session, head = Blind(maps()), linear_head(4)
    assert choose_method(session, head) == "occlusion"
    for method in ("gradcam", "masks"):
        with pytest.raises(RequestError, match="has no spatial feature map") as told:
            one(session, head, method=method)
        assert "occlusion" in str(told.value.hint)


def test_a_constant_heatmap_is_reported() -> None:
    flat = one(FakeSession(np.zeros_like(maps())), linear_head(4))
    assert flat.flat and not one(FakeSession(maps()), linear_head(4)).flat


def test_pixel_methods_need_the_image_not_only_its_feature_map() -> None:
    with pytest.raises(RequestError, match="needs the image"):
        explained(FakeSession(maps()), linear_head(4), numbered(0), [0], method="saliency", maps=maps()[:1])


def test_masks_that_change_no_prediction_give_a_zero_heatmap() -> None:
    """Rounding of 1e-16 would be drawn as vivid as evidence, on its own scale."""
    session = FakeSession(maps(1))
    found = cell_masks(session, maps(1)[:1], lambda features: 0.7 + 1e-9 * np.arange(len(features)) / len(features))
    assert not found.any()
    assert cell_masks(session, maps(1)[:1], lambda features: 0.7 + 1e-3 * features[:, 0]).any()


def test_hirescam_of_a_transformer_reads_patches_after_the_normalisation(cache: Cache) -> None:
    """The slope along a patch that only a LayerNorm reads is 0 but for rounding, and so is gradient × patch summed up."""
    backbone = networks.describe("vit_tiny_patch16_224", weights="random", image_size=64, cache=cache)
    session = engine.open_session(backbone, cache=cache, expected=1)
    random = np.random.default_rng(0)
    head = Head(
        "logistic", 2, {}, {"weights": random.normal(size=(2, 192)).astype(np.float32), "bias": np.zeros(2, np.float32)}
    )
    images = np.kron(random.integers(0, 256, (2, 4, 4, 3)), np.ones((1, 16, 16, 1))).astype(np.uint8)
    found = explained(session, head, images, [1, 1], method="hirescam")
    named = explained(session, head, images, [1, 1], method="hirescam", layer="blocks.11.norm1")
    whole = explained(session, head, images, [1, 1], method="gradcam")
    for ours, other, cam in zip(found, named, whole, strict=True):
        assert ours.layer == "blocks.11.norm1, 192 channels of 4×4" and np.array_equal(ours.heat, other.heat)
        assert np.abs(ours.heat).max() > 0.05 * np.abs(cam.heat).max()
    alone = explained(session, head, images[1:], [1], method="hirescam")[0]
    np.testing.assert_allclose(alone.heat, found[1].heat, atol=1e-5 * np.abs(alone.heat).max())
