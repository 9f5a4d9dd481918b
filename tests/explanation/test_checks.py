"""Checks of heatmaps on classifiers whose decisive pixels are known."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.explanation.checks import measures, verdict

SIDE, CELLS = 56, 7


def photographs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy grey images uint8 (n, 56, 56, 3) with a fine checkerboard in one cell, and that cell's (row, column)."""
    random = np.random.default_rng(seed)
    images = random.integers(90, 160, (n, SIDE, SIDE, 1)).repeat(3, axis=3).astype(np.uint8)
    at = random.integers(0, CELLS, (n, 2))
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    for image, (row, column) in zip(images, at, strict=True):
        image[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = board
    return images, at


def sees_checkers(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """A classifier that looks for the checkerboard anywhere: the largest contrast of a cell decides."""
    cells = images[..., 0].reshape(len(images), CELLS, 8, CELLS, 8).astype(float)
    contrast = cells.std(axis=(2, 4)).max(axis=(1, 2))
    return np.where(targets == 1, contrast / 128, 1 - contrast / 128)


def sees_corner(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """A classifier that looks at the upper left corner's contrast alone."""
    contrast = images[:, :16, :16, 0].astype(float).std(axis=(1, 2))
    return np.clip(contrast / 25, 0, 1)


def hot_at(at: np.ndarray) -> list[np.ndarray]:
    heats = [np.random.default_rng(i).normal(0, 0.01, (CELLS, CELLS)) for i in range(len(at))]
    for heat, (row, column) in zip(heats, at, strict=True):
        heat[row, column] = 1
    return heats


def words(found: measures.Faithfulness) -> list[str]:
    return [f.word for f in verdict.judge_faithfulness(found)]


@pytest.mark.parametrize("n", [1, 3, 12])
def test_correct_heatmaps_pass_and_wrong_ones_do_not(n: int) -> None:
    images, at = photographs(n)
    targets = np.ones(n, dtype=np.int64)
    true = measures.faithfulness(sees_checkers, images, targets, hot_at(at), 0)
    assert words(true)[0] == "passes"
    assert (true.heat.deletion < true.random.deletion).all() and (true.heat.insertion > true.random.insertion).all()
    elsewhere = [-heat for heat in hot_at(at)]
    assert words(measures.faithfulness(sees_checkers, images, targets, elsewhere, 0))[0] == "don't rely on this"


def test_random_heatmaps_rarely_pass() -> None:
    passed = 0
    for seed in range(20):
        images, _ = photographs(8, seed)
        heats = [np.random.default_rng(1000 * seed + i).normal(size=(CELLS, CELLS)) for i in range(8)]
        found = measures.faithfulness(sees_corner, images, np.zeros(8, dtype=np.int64), heats, seed)
        passed += words(found)[0] == "passes"
    assert passed <= 4  # 20 tests at 5 %: more than 4 come once in 400 times


def test_an_edge_filter_is_not_better_than_an_edge_filter() -> None:
    images, _ = photographs(10)
    heats = list(measures.edge_heat(images, (CELLS, CELLS)))
    found = measures.faithfulness(sees_corner, images, np.zeros(10, dtype=np.int64), heats, 0)
    assert words(found)[1] == "weak"
    np.testing.assert_allclose(found.heat.gain, found.edges.gain)


def test_random_orders_have_a_mean_gain_of_zero() -> None:
    images, at = photographs(4)
    found = measures.faithfulness(sees_checkers, images, np.ones(4, dtype=np.int64), hot_at(at), 0)
    assert np.abs(found.random.gain).max() < 1e-12 and found.chance.size >= measures.ORDERS_AT_ONCE


def test_a_map_that_keeps_its_shape_under_other_weights_is_refused() -> None:
    images, _ = photographs(6)
    edges = list(measures.edge_heat(images, (CELLS, CELLS)))
    same = measures.likeness(edges, edges)
    assert verdict.judge_weights({"all weights": same}).word == "don't rely on this"
    random = [np.random.default_rng(i).normal(size=(CELLS, CELLS)) for i in range(6)]
    other = measures.likeness(edges, random)
    assert verdict.judge_weights({"all weights": other}).word == "passes"
    # One step that the map survives is enough: guided backpropagation changes with the lowest layers alone.
    assert verdict.judge_weights({"the last stage": same, "all weights": other}).word == "don't rely on this"


def test_likeness_of_an_empty_map_is_none() -> None:
    assert measures.likeness([np.zeros((3, 3))], [np.arange(9.0).reshape(3, 3)]).tolist() == [0.0]


def test_fine_heatmaps_are_checked_in_blocks() -> None:
    heat = np.zeros((56, 56))
    heat[:4, :4] = 16
    found = measures.blocks(heat)
    assert found.shape == (14, 14) and found[0, 0] == 16 and found.sum() == 16


CHANCES = [(57, 100, "don't rely on this"), (90, 100, "passes"), (3, 3, "don't rely on this")]


@pytest.mark.parametrize(("right", "n", "word"), CHANCES)
def test_a_classifier_at_chance_is_never_passed(right: int, n: int, word: str) -> None:
    assert verdict.judge_classifier(right, n, 0.5).word == word


def test_the_verdict_is_the_worst_finding_with_its_reason() -> None:
    good, bad = verdict.judge_noise(np.ones(3)), verdict.judge_classifier(5, 10, 0.5)
    assert verdict.summary([good])["verdict"] == "passes"
    found = verdict.summary([good, bad])
    assert found["verdict"] == "don't rely on this" and "guessing" in found["why"]
    assert [f["check"] for f in found["findings"]] == ["noise", "classifier"]


def test_an_image_whose_heatmap_fails_is_at_best_weak() -> None:
    images, at = photographs(12)
    heats = hot_at(at)
    heats[3] = -heats[3]
    found = measures.faithfulness(sees_checkers, images, np.ones(12, dtype=np.int64), heats, 0)
    shared = {**verdict.summary([verdict.judge_noise(np.ones(3))]), "images": 12}
    each = [verdict.of_image(shared, found.heat.row(i), found.chance)["verdict"] for i in range(12)]
    assert each[3] != "passes" and each.count("passes") >= 9


def test_pointing_is_held_against_the_area_of_the_boxes() -> None:
    assert verdict.judge_pointing(np.ones(20, dtype=bool), np.full(20, 0.3)).word == "passes"
    assert verdict.judge_pointing(np.ones(20, dtype=bool), np.full(20, 0.99)).word == "weak"
    assert verdict.judge_pointing(np.zeros(20, dtype=bool), np.full(20, 0.5)).word == "don't rely on this"
    assert verdict.judge_completeness(0.004).word == "passes" and verdict.judge_completeness(0.2).word == "don't rely on this"


def test_a_map_of_no_class_is_refused_and_one_without_a_sign_is_for_either() -> None:
    heat = [np.random.default_rng(i).normal(size=(CELLS, CELLS)) for i in range(6)]
    same, opposite = measures.likeness(heat, heat), measures.likeness(heat, [-h for h in heat])
    assert verdict.judge_class(same, same).word == "don't rely on this"
    assert verdict.judge_class(opposite, opposite).word == "passes"
    relative = verdict.judge_class(same, opposite)  # a close relative's evidence lies at the same place
    assert relative.word == "passes" and "--contrast" in relative.text
    found = verdict.judge_class(same, same, either=True)
    assert found.word == "weak" and "both classes" in found.text


def test_the_class_check_does_not_apply_to_two_classes_with_opposite_heatmaps() -> None:
    heat = [np.random.default_rng(i).normal(size=(CELLS, CELLS)) for i in range(6)]
    same, opposite = measures.likeness(heat, heat), measures.likeness(heat, [-h for h in heat])
    found = verdict.judge_class(opposite, opposite, two=True)
    assert found.word == "n/a" and verdict.judge_class(same, same, two=True).word == "don't rely on this"
    told = verdict.summary([verdict.judge_noise(np.ones(3)), found])
    assert (told["verdict"], told["why"]) == ("passes", "all 1 checks pass") and len(told["findings"]) == 2


def test_a_gain_that_is_not_shown_is_called_not_clear_with_its_p_and_orders() -> None:
    method = {"verdict": "passes", "why": "all 5 checks pass", "findings": []}
    chance = np.concatenate(
        [np.full(46, 0.5), np.full(8, 3.0)]
    )  # 8 of 54 reach farther than 1.98 in one direction or the other
    told = verdict.of_image(method, {"gain": 1.98}, chance)
    assert told["verdict"] == "weak" and told["orders"] == 54
    assert "not clearly more than random cells (+1.98 log odds, p = 0.083, 54 random orders)" in told["why"]


def test_random_orders_are_drawn_until_p_is_clearly_on_one_side_of_the_limit() -> None:
    images, at = photographs(1)
    heat = hot_at(at)[0]
    gain = float(measures.own_orders(sees_checkers, images, np.ones(1, np.int64), [heat]).gain[0])
    true = measures.random_gains(sees_checkers, images[0], 1, heat, gain=gain, seed=0)
    assert len(true) == measures.MOST_ORDERS and verdict.p_of_orders(true[None], gain) < measures.LEVEL, "a close call"
    high = measures.random_gains(sees_checkers, images[0], 1, heat, gain=100.0, seed=0)
    assert len(high) == 2 * measures.ORDERS_AT_ONCE and measures.beats(high, 100.0) and not measures.unclear(high, 100.0)
    none = measures.random_gains(sees_checkers, images[0], 1, heat, gain=0.0, seed=0)
    assert len(none) == measures.ORDERS_AT_ONCE, "that nothing is there is clear at once"
    np.testing.assert_array_equal(none, true[: len(none)])
    assert measures.unclear(np.array([-1.0, 0.5, 2.0]), 1.5)


def test_an_images_own_order_gains_the_same_alone_and_in_a_sample() -> None:
    images, at = photographs(4)
    heats, targets = hot_at(at), np.ones(4, dtype=np.int64)
    whole = measures.faithfulness(sees_checkers, images, targets, heats, 0)
    own = measures.own_orders(sees_checkers, images, targets, heats)
    assert [own.row(i) for i in range(4)] == [pytest.approx(whole.heat.row(i)) for i in range(4)]


def test_texts_of_findings_state_verdict_and_test() -> None:
    images, at = photographs(8)
    found = measures.faithfulness(sees_checkers, images, np.ones(8, dtype=np.int64), hot_at(at), 0)
    random, edges = verdict.judge_faithfulness(found)
    assert random.text.startswith("high-attribution cells change the prediction more than random cells (+")
    assert "log odds" in random.text
    assert edges.text.startswith("high-attribution cells ") and "an edge filter's" in edges.text
    assert f"{found.heat.gain.mean():+.2f}" in random.text and "probability" not in random.text


def test_numbers_are_not_rounded_across_a_threshold() -> None:
    assert verdict.judge_noise(np.array([0.796])).text.endswith("0.796")
    assert verdict.judge_noise(np.array([0.7999])).text.endswith("0.7999")
    assert "0.699" in verdict.judge_weights({"all weights": np.array([0.6994])}).text
    assert "1.004 %" in verdict.judge_completeness(0.01004).text


def test_the_verdict_of_an_image_includes_that_of_its_class_and_missing_checks() -> None:
    good, bad = verdict.judge_classifier(90, 100, 0.5), verdict.judge_classifier(5, 10, 0.5)
    shared = verdict.summary([good, verdict.judge_noise(np.ones(3))])
    method = verdict.of_class(shared, bad)
    assert method["verdict"] == "don't rely on this" and "guessing" in method["why"] and shared["verdict"] == "passes"
    assert verdict.of_class(shared, good) == {k: shared[k] for k in ("verdict", "why", "findings")}
    told = verdict.unchecked(verdict.of_class(shared, good))
    assert told["why"] == "the method passes; this image itself was not checked" and told["p"] is None
