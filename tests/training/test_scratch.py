"""Training from scratch: backbone and head reproduce the trained network and its validation scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sightline import networks
from sightline.errors import DataError, RequestError
from sightline.networks import names
from sightline.networks.classics import CLASSICS
from sightline.schema import from_json
from sightline.training import augment, fit_network
from sightline.training.fit_network import MEAN, STD, ScratchFit
from sightline.training.plan import Plan
from sightline.training.scratch_settings import ScratchSettings

TINY = ScratchSettings("cnn(filters=[16, 32])", plan=Plan(epochs=8, batch_size=16, learning_rate=0.01))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten 0, 1 and 2, doubled to 16 px: uint8 (537, 16, 16, 3)."""
    from sklearn.datasets import load_digits

    images, y = load_digits(n_class=3, return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    return np.repeat(pixels[..., None], 3, axis=3), y.astype(np.int64)


def fitted(settings: ScratchSettings = TINY, seed: int = 0) -> tuple[ScratchFit, np.ndarray, np.ndarray]:
    images, y = digits()
    made = fit_network.fit(images[:400], y[:400], images[400:], y[400:], 3, settings=settings, seed=seed)
    return made, images[400:], y[400:]


@torch.no_grad()
def answers(made: ScratchFit, images: np.ndarray) -> np.ndarray:
    """Body features, then the linear head by hand: float (n, k)."""
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN[0]) / STD[0]
    features = made.network(x)[1].numpy()
    return np.asarray(features @ made.head.arrays["weights"].T + made.head.arrays["bias"])


@pytest.mark.slow
def test_the_split_into_backbone_and_head_reproduces_the_validation_scores() -> None:
    made, images, y = fitted()
    kept, logits = made.history[made.best_epoch - 1], answers(made, images)
    assert (logits.argmax(axis=1) == y).mean() == kept.val_accuracy > 0.95
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(y))
    assert float(loss) == pytest.approx(kept.val_loss, rel=1e-4)
    assert made.head.kind == "logistic" and made.head.classes == 3
    assert made.head.arrays["weights"].shape == (3, 32) and made.head.arrays["weights"].dtype == np.float32
    assert made.head.arrays["bias"].shape == (3,)
    assert made.epochs == 8 and made.steps == 8 * 25 and made.stopped is None
    assert "augmentation: light" in made.notes


@pytest.mark.slow
def test_the_network_name_rebuilds_the_backbone() -> None:
    made, images, _ = fitted()
    again = networks.random_network(made.made.name, image_size=16, classes=3)
    again.net.load_state_dict(made.made.net.state_dict())
    x = torch.from_numpy(images[:5]).permute(0, 3, 1, 2) / 255
    assert torch.equal(networks.Network(again.net, again.size)(x)[1], made.network(x)[1])
    assert not made.network.training


def test_the_same_seed_gives_the_same_bits() -> None:
    quick = ScratchSettings("cnn(filters=[8])", plan=Plan(epochs=2))
    (a, *_), (b, *_), (c, *_) = fitted(quick), fitted(quick), fitted(quick, seed=1)
    assert np.array_equal(a.head.arrays["weights"], b.head.arrays["weights"])
    assert not np.array_equal(a.head.arrays["weights"], c.head.arrays["weights"])


def test_the_preprocess_has_the_normalisation_of_the_training_loop() -> None:
    assert (fit_network.preprocess().mean, fit_network.preprocess().std) == (MEAN, STD)
    assert fit_network.preprocess(32).size == (32, 32)


@pytest.mark.parametrize(("side", "pool"), [(64, [2, 2, 2, 1]), (32, [2, 2, 1, 1]), (96, [2, 2, 2, 1]), (8, [1, 1, 1, 1])])
def test_the_map_keeps_enough_cells_for_a_heatmap(side: int, pool: list[int]) -> None:
    name, arguments = names.parse(fit_network.called("cnn", side))
    assert arguments["pool"] == pool
    network = CLASSICS[name].build(image_size=side, **arguments).eval()
    assert min(network.map(torch.zeros(1, 3, side, side)).shape[2:]) >= fit_network.MAP_SIDE  # type: ignore[operator]


@pytest.mark.parametrize(
    ("images", "side", "epochs"),
    # 80,000 · 64² pixels in all; at least 8 and at most 50 epochs; under 500 images up to 25,000 images or 120 epochs
    [(1_000, 64, 50), (2_000, 64, 40), (2_000, 32, 50), (2_000, 128, 10), (100_000, 64, 8), (400, 64, 62), (50, 64, 120)],
)
def test_the_default_number_of_epochs_depends_on_number_and_size_of_images(images: int, side: int, epochs: int) -> None:
    assert fit_network.epochs_for(images, side) == epochs


def test_grey_images_are_never_mirrored() -> None:
    images, _ = digits()
    assert augment.policy_for(ScratchSettings().augment, images)[1].flip == 0


def test_layers_are_named_as_the_network_names_them() -> None:
    made, *_ = fitted(ScratchSettings("cnn(filters=[8])", plan=Plan(epochs=2)))
    names_of = {name.rpartition(".")[0] for name, _ in made.made.net.named_parameters()}
    assert {g.layer for g in made.gradients} == names_of
    assert [g.epoch for g in made.gradients] == [1] * len(names_of) + [2] * len(names_of)


def test_settings_and_plan_are_read_from_one_table_of_the_recipe() -> None:
    settings = from_json(
        ScratchSettings, {"network": "cnn(filters=[16, 32])", "epochs": 3, "augment": "none"}, "settings of scratch"
    )
    assert settings.network == "cnn(filters=[16, 32])" and settings.plan == Plan(epochs=3)
    with pytest.raises(RequestError, match="learning_rat"):
        from_json(ScratchSettings, {"learning_rat": 0.1}, "settings of scratch")


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0}, {"dropout": 1.0}, {"epochs": 0}, {"learning_rate": math.nan}],
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        from_json(ScratchSettings, wrong, "settings of scratch")


def test_arrays_that_do_not_match_are_refused() -> None:
    images, y = digits()
    none, empty = images[:0], y[:0]
    with pytest.raises(DataError, match="labels"):
        fit_network.fit(images, y[:-1], none, empty, 3, settings=TINY)
    with pytest.raises(DataError, match="outside 0 to 1"):
        fit_network.fit(images, y, none, empty, 2, settings=TINY)
    with pytest.raises(DataError, match="not square"):
        fit_network.fit(images[:, :8], y, none, empty, 3, settings=TINY)
    with pytest.raises(DataError, match="float64"):
        fit_network.fit(images / 255, y, none, empty, 3, settings=TINY)
    with pytest.raises(RequestError, match="no network 'cnm'"):
        fit_network.fit(images, y, none, empty, 3, settings=ScratchSettings(network="cnm"))
