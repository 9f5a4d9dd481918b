"""Average heatmaps of a class, and the alarm for borders and corners, on planted evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sightline.explanation import class_maps
from sightline.records import Explanation, Head


def explanations(heats: np.ndarray) -> list[Explanation]:
    return [Explanation(f"{i}.jpg", "cat", "gradcam", "", h.astype(np.float32), (0, 0, 70, 70)) for i, h in enumerate(heats)]


def blobs(n: int, centre: tuple[float, float], spread: float, seed: int = 0) -> np.ndarray:
    """Maps float64 (n, 7, 7) with one hot spot each, somewhere around a place."""
    random = np.random.default_rng(seed)
    at = random.normal(centre, spread, (n, 2))
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij"), axis=-1)
    far = ((grid[None] - at[:, None, None]) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-far / 2) + random.uniform(0, 0.05, (n, 7, 7)))


def alarms(views: list[class_maps.ClassView]) -> list[dict[str, Any]]:
    return [r for r in class_maps.regions(views) if class_maps.concentrated(r)]


def test_objects_in_the_middle_raise_no_alarm() -> None:
    for seed in range(30):
        view = class_maps.view("cat", explanations(blobs(20, (3, 3), 1.2, seed)))
        assert view is not None and not alarms([view])
        assert view.outside < 0.64


def test_a_uniform_heatmap_raises_no_alarm() -> None:
    view = class_maps.view("cat", explanations(np.random.default_rng(0).uniform(0.9, 1.1, (20, 7, 7))))
    assert view is not None and view.outside == pytest.approx(0.64, abs=0.01) and not alarms([view])


@pytest.mark.parametrize(
    ("centre", "region"), [((6, 3), "lower border"), ((0, 3), "upper border"), ((5.7, 5.7), "lower right corner")]
)
def test_a_heatmap_on_a_border_or_in_a_corner_raises_the_alarm(centre: tuple[float, float], region: str) -> None:
    spread = blobs(20, (3, 3), 1.2)
    planted = blobs(20, centre, 0.6)
    views = [class_maps.view("dog", explanations(spread)), class_maps.view("cat", explanations(planted))]
    found = alarms([v for v in views if v is not None])
    assert region in {a["region"] for a in found} and {a["class"] for a in found} == {"cat"}
    assert all(a["share"] >= 2 * a["area"] and a["p"] < 0.01 for a in found)


def test_a_region_matters_if_blurring_it_significantly_lowers_the_probability() -> None:
    before = np.linspace(0.6, 0.9, 12)
    assert class_maps.lowers(before, before - 0.3)["lowers"]
    assert not class_maps.lowers(before, before + 0.05)["lowers"], "the probability rises"
    assert not class_maps.lowers(before, before - 0.01)["lowers"], "by next to nothing"
    assert not class_maps.lowers(before, np.where(np.arange(12) % 2, 0.01, 0.99))["lowers"], "for some down, for others up"


def test_few_images_raise_no_alarm() -> None:
    view = class_maps.view("cat", explanations(blobs(class_maps.FEWEST - 1, (6, 3), 0.3)))
    assert view is not None and not alarms([view])


def test_empty_maps_have_no_view() -> None:
    assert class_maps.view("cat", explanations(np.zeros((3, 7, 7)))) is None


def test_channels_are_those_that_speak_for_the_class() -> None:
    weights = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 1.0]], dtype=np.float32)
    arrays = {"weights": weights, "bias": np.zeros(2, np.float32), "feature_mean": np.ones(3, np.float32)}
    features = np.array([[3.0, 2.0, 0.5]], dtype=np.float32)
    # towards the first class: weights 2, -1, -2 times differences 2, 1, -0.5
    found = class_maps.channels_of(Head("logistic", 2, {}, arrays), 0, features)
    assert [c for c, _ in found] == [0, 2] and found[0][1] == pytest.approx(4 / 5)
    assert class_maps.channels_of(Head("knn", 2, {}, {}), 0, features) == ()


def test_of_two_classes_one_shows_itself_by_a_channel_and_the_other_by_its_absence() -> None:
    weights = np.array([[-2.0, 1.0], [2.0, -1.0]], dtype=np.float32)
    arrays = {"weights": weights, "bias": np.zeros(2, np.float32), "feature_mean": np.ones(2, np.float32)}
    head = Head("logistic", 2, {}, arrays)
    cats = class_maps.channels_of(head, 0, np.array([[0.5, 1.5]], dtype=np.float32))
    dogs = class_maps.channels_of(head, 1, np.array([[1.5, 0.5]], dtype=np.float32))
    assert [c for c, _ in cats] == [c for c, _ in dogs] == [0, 1], "the same list for both"
    assert [s for _, s in cats] == pytest.approx([-2 / 3, 1 / 3]) and [s for _, s in dogs] == pytest.approx([2 / 3, -1 / 3])
    seen = class_maps.view("cat", explanations(blobs(2, (3, 3), 1.0)), cats)
    assert seen is not None
    told = class_maps.as_data([seen])[0]["channels"]
    assert [(c["channel"], c["by"]) for c in told] == [(0, "absence"), (1, "presence")]
    assert [c["share"] for c in told] == pytest.approx([2 / 3, 1 / 3])


def test_a_watermark_on_some_images_is_found_with_more_images() -> None:
    """A watermark that two thirds of the images go by: sixteen do not show it, four times as many do, and it is the highest."""

    def of(n: int) -> class_maps.ClassView:
        marked, others = blobs(2 * n // 3, (0.8, 5.2), 0.4), blobs(n - 2 * n // 3, (3, 3), 1.0, 1)
        found = class_maps.view("mark", explanations(np.concatenate([marked, others])))
        assert found is not None
        return found

    highest = class_maps.regions([of(16)])[0]
    assert not alarms([of(16)]) and highest["region"] == "upper right corner" and highest["share"] > 2 * highest["area"]
    assert "upper right corner" in {a["region"] for a in alarms([of(64)])}
