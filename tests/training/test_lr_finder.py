"""Learning-rate range test: suggestion, restored network, and errors if the loss never decreases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sightline.errors import DataError, SightlineError
from sightline.training import augment, lr_finder
from sightline.training.dataloader import Pixels
from sightline.training.lr_finder import STEPS, LrCurve
from sightline.training.plan import Plan
from tests.training.test_loop import bars, same, small, weights

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def found(network: nn.Module, train: Pixels, seed: int = 0, **plan: object) -> LrCurve:
    return lr_finder.find_rate(
        network,
        train,
        plan=Plan(**{"batch_size": 16, **plan}),  # type: ignore[arg-type]
        policy=augment.POLICIES["none"],
        mean=MEAN,
        std=STD,
        seed=seed,
    )


def test_the_range_test_is_deterministic_and_restores_the_network() -> None:
    network = small().eval()
    before, random = weights(network), torch.get_rng_state()
    a, b = found(network, bars(64)), found(network, bars(64))
    assert same(before, weights(network)) and not network.training
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert a.suggestion == b.suggestion and np.array_equal(a.losses, b.losses)


def test_the_suggested_learning_rate_trains_better_than_much_smaller_or_larger_ones() -> None:
    from sightline.training import loop

    network = small()
    rate = found(network, bars(128)).suggestion
    loss = {}
    for factor in (0.01, 1.0):
        network = small()
        plan = Plan(epochs=4, batch_size=16, learning_rate=rate * factor)
        trained = loop.train(
            network, bars(128), bars(64, 1), plan=plan, policy=augment.POLICIES["none"], mean=MEAN, std=STD, seed=0
        )
        loss[factor] = trained.history[-1].val_loss
    assert 1e-4 < rate < 0.3 and loss[1.0] < 0.7 * loss[0.01]


def test_learning_rates_grow_exponentially_until_the_loss_diverges() -> None:
    class Steep(nn.Module):
        """Linear layer on three large inputs that are unrelated to the labels, which diverges early."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(100 * x.mean(dim=(2, 3)))

    unlike = Pixels(bars(64).images, (np.arange(64) // 2 % 4 == 0).astype(np.int64))  # a loss that falls a little, then rises
    rates = found(Steep(), unlike, optimizer="sgd", clip_norm=0.0, label_smoothing=0.0)
    assert len(rates.rates) < STEPS and rates.rates[0] == lr_finder.LOWEST
    np.testing.assert_allclose(np.diff(np.log(rates.rates)), np.log(1e6) / (STEPS - 1))
    assert rates.suggestion < 1e-3
    assert np.isfinite(rates.losses).all() and len(rates.losses) == len(rates.rates) == len(rates.smoothed)


def test_smoothed_losses_equal_a_bias_corrected_moving_average() -> None:
    """After two values the weights are 0.09 and 0.1, of 0.19."""
    np.testing.assert_allclose(lr_finder.smooth(np.array([1.0, 3.0])), [1.0, (0.09 * 1 + 0.1 * 3) / 0.19])


def test_a_network_whose_loss_never_decreases_raises_an_error() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2) + 0 * self.unused

    with pytest.raises(SightlineError, match="decreased at no learning rate"):
        found(Fixed(), bars(32))
    with pytest.raises(DataError, match=r"1 image\(s\)"):
        found(small(), bars(1))


def test_a_trained_network_gets_a_tenth_of_the_rate_at_which_the_loss_rises() -> None:
    """The loss no longer decreases, so its minimum is noise; worked by hand."""
    rates = np.array([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    guessing = float(np.log(2))
    flat = np.array([0.300, 0.295, 0.302, 0.301, 0.310, 0.400, 0.900])
    assert lr_finder._suggestion(rates, flat, guessing) == pytest.approx(1e-3)
    with pytest.raises(SightlineError, match="is trained already, and its loss changes at no learning rate up to 1") as raised:
        lr_finder._suggestion(rates, np.full(7, 0.3), guessing)
    assert "images" not in str(raised.value.hint)
    falls = np.array([0.300, 0.300, 0.290, 0.250, 0.200, 0.400, 0.900])
    assert lr_finder._suggestion(rates, falls, guessing) == pytest.approx(1e-3), (
        "what still learns is judged by its lowest loss"
    )
    with pytest.raises(SightlineError, match="decreased at no learning rate"):
        lr_finder._suggestion(rates, np.array([0.70, 0.70, 0.71, 0.72, 0.8, 0.9, 1.0]), guessing)
