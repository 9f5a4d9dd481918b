"""A value that a part of one class has, and no other class, is named; what labels were read from is not."""

from __future__ import annotations

import numpy as np

from sightline.evaluation.shortcut_rules import edge_rules, shortcut_rules

LABELS = np.repeat([0, 1], 100)
CLASSES = ("cat", "dog")


def test_a_value_of_30_percent_of_one_class_is_named() -> None:
    quality = ["50"] * 30 + ["90"] * 170
    (rule,) = shortcut_rules({"JPEG quality": quality}, LABELS, CLASSES)
    assert (rule.feature, rule.value, rule.class_name, rule.images) == ("JPEG quality", "50", "cat", 30)
    assert rule.coverage == 0.3 and "JPEG quality 50" in rule.sentence


def test_values_of_both_classes_and_rare_values_are_not_named() -> None:
    mixed = (["50"] * 30 + ["90"] * 70) * 2
    rare = ["GIMP"] * 5 + [None] * 195
    assert shortcut_rules({"JPEG quality": mixed, "EXIF software": rare}, LABELS, CLASSES) == []


def test_many_random_values_raise_no_alarm() -> None:
    rng = np.random.default_rng(0)
    columns = {f"p{i}": [str(v) for v in rng.integers(0, 12, 200)] for i in range(50)}
    assert shortcut_rules(columns, LABELS, CLASSES) == []


def test_the_property_that_labels_were_read_from_is_left_out() -> None:
    assert shortcut_rules({"file format": ["JPEG"] * 100 + ["PNG"] * 100}, LABELS, ("jpg", "png")) == []


def test_duplicates_count_once() -> None:
    software = ["GIMP"] * 30 + [None] * 170
    cluster = np.concatenate([np.zeros(30, np.int64), np.arange(1, 171)])
    assert shortcut_rules({"EXIF software": software}, LABELS, CLASSES, cluster) == []


def test_an_edge_that_separates_the_classes_is_named_once() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=200)
    rules = edge_rules({"darkest pixels at the bottom edge": noise + 6 * LABELS, "brightness": noise}, LABELS, CLASSES)
    assert [rule.feature for rule in rules] == ["darkest pixels at the bottom edge"]
