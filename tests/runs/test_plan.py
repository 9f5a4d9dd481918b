"""Estimates of the plan before anything was measured on a machine."""

from __future__ import annotations

import pytest

from sightline.records import Backbone, Preprocess
from sightline.runs import plan
from sightline.store import Cache


def seconds(name: str, parameters: int, cache: Cache, size: tuple[int, int] = (224, 224)) -> float:
    backbone = Backbone(name, "timm", Preprocess(size=size), 1280, parameters=parameters)
    found, measured = plan._features_seconds(backbone, 1000, cache, "cpu")
    assert not measured
    return found - plan.STARTUP_S


def test_the_first_estimate_follows_operations_and_not_parameters(cache: Cache) -> None:
    """EfficientNet-Lite2 has 2.9 times the operations of MobileNetV2 at their own sizes, and 1.7 times its parameters."""
    lite = seconds("tf_efficientnet_lite2", 4_806_768, cache, (260, 260))
    mobile = seconds("mobilenetv2_100", 2_223_872, cache)
    assert lite / mobile == pytest.approx(0.86 / 0.30, rel=0.02)
    assert seconds("mobilenetv2_100", 2_223_872, cache, (112, 112)) == pytest.approx(mobile / 4, rel=0.01)
    assert seconds("my_net.py:build", 4_000_000, cache) == pytest.approx(1000 * 4e8 / 4e10)
    cache.write_json(plan.speed_name(Backbone("resnet50", "timm", Preprocess(), 2048), "cpu"), 50.0)
    assert plan._features_seconds(Backbone("resnet50", "timm", Preprocess(), 2048), 1000, cache, "cpu") == (28.0, True)
