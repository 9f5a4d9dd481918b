"""Progressive resizing: the image side of each epoch, consistent augmentation, and no other change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sightline.errors import RequestError
from sightline.records import Recipe
from sightline.store import Cache
from sightline.studies import recipe_edit
from sightline.training import augment, fit_network, loop, progressive_resizing
from sightline.training.dataloader import DataLoader, Pixels
from sightline.training.plan import Plan
from sightline.training.scratch_settings import ScratchSettings
from tests.training.test_loop import NOTHING, Small, bars, small

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("side", "epochs", "share"),
    [(16, 5, 0.5), (32, 1, 0.5), (32, 2, 0.25), (60, 3, 0.25), (60, 30, 0.5), (64, 8, 0.25), (224, 5, 0.25), (224, 30, 0.5)],
)
def test_image_sides_grow_and_the_last_third_of_epochs_uses_the_full_side(side: int, epochs: int, share: float) -> None:
    found = progressive_resizing.sides(side, epochs, share)
    assert len(found) == epochs and list(found) == sorted(found)
    assert found.count(side) >= epochs / 3
    smaller = [s for s in found if s < side]
    assert len(set(smaller)) <= progressive_resizing.SMALLER and all(s % progressive_resizing.UNIT_PX == 0 for s in smaller)
    assert (
        not smaller
        or abs(smaller[0] - share * side) <= progressive_resizing.UNIT_PX / 2
        or smaller[0] == progressive_resizing.UNIT_PX
    )
    assert bool(smaller) == (epochs > 1)


def test_resize_from_without_a_smaller_side_is_refused() -> None:
    with pytest.raises(RequestError, match=r"resize_from = 0.9 leaves no side below 32 px"):
        progressive_resizing.sides(32, 10, 0.9)


@pytest.mark.parametrize("share", [0, 0.2, 1.01, float("nan")])
def test_resize_from_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(RequestError, match="resize_from cannot be"):
        ScratchSettings(resize_from=share)


class Watched(Small):
    """Network that records the side of its input, in training and evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, int, int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, int(x.shape[2]), int(x.shape[3])))
        return super().forward(x)


def test_training_uses_growing_sides_and_validation_the_full_side() -> None:
    network, data = Watched(), bars(40)
    plan = Plan(epochs=3, batch_size=20, patience=1)
    trained = loop.train(
        network, data, bars(20, 1), plan=plan, policy=augment.POLICIES["light"], mean=MEAN, std=STD, seed=0, sides=(8, 8, 16)
    )
    assert [s[1:] for s in network.seen if s[0]] == [(8, 8)] * 4 + [(16, 16)] * 2
    assert {s[1:] for s in network.seen if not s[0]} == {(16, 16)}
    assert len(trained.history) == 3  # patience begins where images are whole


def test_full_sides_equal_training_without_progressive_resizing() -> None:
    found = []
    for sides in (None, (16, 16)):
        network = small()
        loop.train(
            network,
            bars(20),
            NOTHING,
            plan=Plan(epochs=2),
            policy=augment.POLICIES["light"],
            mean=MEAN,
            std=STD,
            seed=0,
            sides=sides,
        )
        found.append(network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def smooth(n: int, side: int) -> np.ndarray:
    """Pictures without detail that a smaller size would lose: uint8 (n, side, side, 3)."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.integers(0, 256, (n, 3, 4, 4)).astype(np.float32))
    whole = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 255)
    return np.ascontiguousarray(whole.permute(0, 2, 3, 1).numpy().astype(np.uint8))


@pytest.mark.parametrize("policy", ["photo", "handwriting", "blurred"])
def test_augmentation_at_a_smaller_side_is_the_resized_augmentation(policy: str) -> None:
    """Crop, rotation, colour and blur are relative to the image: the small image is the resized augmented image."""
    chosen = augment.Policy(blur=(3.0, 3.0), flip=0.5) if policy == "blurred" else augment.POLICIES[policy]
    feed = DataLoader(Pixels(smooth(8, 64), np.zeros(8, dtype=np.int64)), chosen, MEAN, STD, torch.device("cpu"), 3)
    (whole,) = [x for x, _ in feed.epoch(1, 8)]
    (half,) = [x for x, _ in feed.epoch(1, 8, side=32)]
    assert half.shape == (8, 3, 32, 32)
    small_whole = torch.nn.functional.interpolate(whole, size=(32, 32), mode="bilinear", antialias=True)
    assert float((half - small_whole)[:, :, 4:-4, 4:-4].abs().mean()) < 0.03  # of a range of 4


def test_resizing_is_antialiased() -> None:
    """A checkerboard of single pixels becomes grey."""
    board = (np.indices((16, 16)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = torch.from_numpy(np.repeat(board[None, :, :, None], 3, axis=3))
    small_one = progressive_resizing.resized(image, 8)
    assert small_one.dtype == torch.uint8 and small_one.shape == (1, 8, 8, 3)
    assert 100 < int(small_one[:, 1:-1, 1:-1].min()) <= int(small_one[:, 1:-1, 1:-1].max()) < 155
    assert progressive_resizing.resized(image, 16) is image


@pytest.mark.parametrize(("network", "side"), [("lenet5", 32), ("happy_cnn", 64), ("vit_tiny_patch16_224", 224)])
def test_a_network_for_a_fixed_size_is_refused_by_name(network: str, side: int) -> None:
    images = np.zeros((4, side, side, 3), dtype=np.uint8)
    with pytest.raises(RequestError, match=rf"{network}.* for {side} px cannot train on images of {side // 2} px") as error:
        fit_network.prepare(images, np.arange(4) % 2, 2, settings=ScratchSettings(network, resize_from=0.5), seed=0)
    assert "resnet18" in str(error.value.hint)
    recipe = Recipe(method="scratch", backbone=network, image_size=side, settings={"resize_from": 0.5})
    with pytest.raises(RequestError, match="cannot train on images of"):  # a study says so before its first fit
        recipe_edit.check(recipe, 2, Cache())


@pytest.mark.parametrize("network", ["cnn", "resnet18", "googlenet"])
def test_a_network_with_global_average_pooling_is_accepted(network: str) -> None:
    fit_network.check_sides(ScratchSettings(network, resize_from=0.5), 96, 3)


def test_the_notes_of_a_fit_list_its_image_sides() -> None:
    data = bars(24, side=32)
    plan = Plan(epochs=3, batch_size=12)
    settings = ScratchSettings("cnn(filters=[8])", resize_from=0.5, plan=plan)
    made = fit_network.fit(data.images, data.y, data.images, data.y, 2, settings=settings)
    assert "progressive resizing: 16 px, 24 px from epoch 2, 32 px from epoch 3" in made.notes
    plain = fit_network.fit(
        data.images, data.y, data.images, data.y, 2, settings=ScratchSettings("cnn(filters=[8])", plan=plan)
    )
    assert not [note for note in plain.notes if "resizing" in note]
