"""Settings of training: ranges, defaults of each optimizer, and learning-rate schedules."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest
import torch
from torch import nn

from sightline.errors import RequestError
from sightline.training import optimizers
from sightline.training.optimizers import OPTIMIZERS
from sightline.training.plan import RANGES, Plan
from sightline.training.schedules import SCHEDULES

OUTSIDE = [
    *({"epochs": v} for v in (0, -1, 10_001)),
    *({"batch_size": v} for v in (1, 4097)),
    *({"learning_rate": v} for v in (0.0, -1e-3, 11.0, float("nan"))),
    *({"momentum": v, "optimizer": "sgd"} for v in (-0.1, 1.0)),
    *({name: -0.1} for name in ("weight_decay", "warm_up", "label_smoothing", "mixup", "clip_norm", "average", "patience")),
    {"warm_up": 0.95},
    {"label_smoothing": 0.6},
    {"average": 1.0},
]


@pytest.mark.parametrize("wrong", OUTSIDE, ids=str)
def test_settings_out_of_range_are_refused_with_the_range(wrong: dict[str, typing.Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))) as error:
        Plan(**wrong)
    assert error.value.hint is not None and "between" in error.value.hint


def test_every_numeric_setting_has_a_range() -> None:
    numbers = {f.name for f in dataclasses.fields(Plan) if str(f.type).split(" ")[0] in ("int", "float")}
    assert numbers == set(RANGES)


def test_unknown_names_and_settings_without_effect_are_refused() -> None:
    with pytest.raises(RequestError, match="no optimizer 'adamm'") as error:
        Plan(optimizer="adamm")  # type: ignore[arg-type]
    assert error.value.hint == "did you mean 'adam'?"
    with pytest.raises(RequestError, match="no schedule 'cosin'"):
        Plan(schedule="cosin")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="adam has no momentum"):
        Plan(optimizer="adam", momentum=0.9)
    with pytest.raises(RequestError, match="cannot both be balanced"):
        Plan(class_weight="balanced", sampling="balanced")


def test_the_plan_accepts_every_registered_optimizer_and_schedule() -> None:
    hints = typing.get_type_hints(Plan)
    assert set(typing.get_args(hints["optimizer"])) == set(OPTIMIZERS)
    assert set(typing.get_args(hints["schedule"])) == set(SCHEDULES)


def test_each_optimizer_has_its_own_default_learning_rate_and_weight_decay() -> None:
    assert (Plan().peak, Plan().decay) == (3e-3, 0.05)
    assert (Plan(optimizer="sgd").peak, Plan(optimizer="sgd").decay) == (0.05, 5e-4)
    assert Plan(optimizer="sgd", learning_rate=0.2).peak == 0.2
    assert Plan(weight_decay=0.0).decay == 0.0


# ------------------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_and_never_exceeds_the_peak_rate(name: str) -> None:
    plan = Plan(schedule=name, learning_rate=0.1)  # type: ignore[arg-type]
    rates = [plan.rate_at(step, 100) for step in range(100)]
    assert rates[:20] == sorted(rates[:20]) and rates[0] < 0.02
    assert rates[19] == pytest.approx(0.1) and max(rates) <= 0.1 * 1.001 and min(rates) > 0
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_the_default_schedule_is_a_linear_warm_up_and_a_cosine() -> None:
    """A fifth of 100 steps from a tenth up; then half a cosine, which is in its middle after 40 of 80 steps."""
    plan = Plan(learning_rate=0.1)
    assert plan.rate_at(9, 100) == pytest.approx(0.1 * (0.1 + 0.9 * 10 / 20))
    assert plan.rate_at(59, 100) == pytest.approx(0.1 * (0.5 + 1e-3))
    assert plan.rate_at(99, 100) == pytest.approx(0.1 * 1e-3)


def test_the_step_schedule_divides_the_rate_by_ten_at_half_and_three_quarters() -> None:
    plan = Plan(schedule="step", learning_rate=1.0, warm_up=0.2)
    rates = np.array([plan.rate_at(step, 100) for step in range(100)])
    np.testing.assert_allclose(rates[[20, 59, 60, 79, 80, 99]], [1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_one_cycle_schedule_starts_at_a_25th_of_the_peak_rate() -> None:
    plan = Plan(schedule="onecycle", learning_rate=1.0, warm_up=0.5)
    assert plan.rate_at(0, 1000) == pytest.approx(0.04, abs=1e-3)
    assert plan.rate_at(249, 1000) == pytest.approx(0.52, abs=1e-3)  # the middle of a cosine from 0.04 to 1


def test_the_constant_schedule_keeps_the_rate() -> None:
    plan = Plan(schedule="constant", learning_rate=1.0, warm_up=0)
    assert [plan.rate_at(step, 5) for step in range(5)] == [1.0] * 5


# ------------------------------------------------------------------------------------------------------------ optimizers


def stepped(plan: Plan, gradient: float, steps: int = 1) -> tuple[float, float]:
    """A weight (1, 1) and a bias (1,), both 1, after some steps along the same gradient."""
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(1.0)
    optimizer = optimizers.build(layer, plan)
    for _ in range(steps):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    return layer.weight.item(), layer.bias.item()


def test_optimizer_steps_equal_their_formulas() -> None:
    """AdamW: 1 - 0.1·0.5·1 (decay) - 0.1·1 (the first step has length 1). SGD with Nesterov's momentum 0.9: the first step is
    g + 0.9 g; decay adds 0.5 to the gradient. The bias never decays."""
    adamw = stepped(Plan(learning_rate=0.1, weight_decay=0.5), gradient=2.0)
    assert adamw == pytest.approx((0.85, 0.9), abs=1e-5)
    sgd = stepped(Plan(optimizer="sgd", learning_rate=0.1, weight_decay=0.5), gradient=1.0)
    assert sgd == pytest.approx((1 - 0.1 * 1.5 * 1.9, 1 - 0.1 * 1.9))
    plain = stepped(Plan(optimizer="sgd", learning_rate=0.1, weight_decay=0, momentum=0.0), gradient=1.0, steps=2)
    assert plain == pytest.approx((0.8, 0.8))
    rmsprop = stepped(Plan(optimizer="rmsprop", learning_rate=0.1, weight_decay=0), gradient=2.0)
    assert rmsprop == pytest.approx((0.0, 0.0), abs=1e-5)  # 0.1 · 2 / sqrt(0.01 · 4)
    adam = stepped(Plan(optimizer="adam", learning_rate=0.1, weight_decay=0.5), gradient=2.0)
    assert adam == pytest.approx((0.9, 0.9), abs=1e-5)


def test_parameter_groups_keep_their_learning_rate_and_weight_decay() -> None:
    layer = nn.Linear(2, 2)
    groups = [{"params": [layer.weight], "lr": 0.1, "weight_decay": 0.3, "name": "a"}]
    (group,) = optimizers.build(layer, Plan(), groups).param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.1, 0.3, 1)
    assert "betas" not in groups[0]  # what was given is left as it was
