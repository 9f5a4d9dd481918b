"""Loss: class weights, mixup and parts of a batch equal explicit sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from sightline.training.losses import AUXILIARY, Labels, Loss, balanced_weights, mixed


def batch(n: int = 12, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((n, k), generator=generator), torch.randint(0, k, (n,), generator=generator)


def test_the_loss_of_logits_0_and_z_equals_binary_cross_entropy() -> None:
    z, y = torch.tensor([-2.0, 0.3, 5.0]), torch.tensor([0, 1, 1])
    columns = torch.stack([torch.zeros(3), z], dim=1)
    expected = F.binary_cross_entropy_with_logits(z, y.float())
    torch.testing.assert_close(Loss()(columns, Labels(y)), expected)


def test_the_weighted_loss_equals_the_formula() -> None:
    logits, y = batch()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    each = -logits.log_softmax(dim=1)[torch.arange(len(y)), y]
    expected = (weight[y] * each).sum() / weight[y].sum()
    torch.testing.assert_close(Loss(weight)(logits, Labels(y)), expected)
    short = Loss(weight[:2])(logits[:, :3], Labels(torch.tensor([0, 1] * 6)))  # a third class that has no images
    assert torch.isfinite(short)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mixing", [False, True])
def test_parts_of_a_batch_sum_to_its_mean(weighted: bool, mixing: bool) -> None:
    logits, y = batch(13)
    labels = Labels(y, y.flip(0), 0.7) if mixing else Labels(y)
    loss = Loss(torch.tensor([1.0, 2.0, 0.5, 3.0]) if weighted else None, smoothing=0.1)
    parts = [slice(0, 5), slice(5, 9), slice(9, 13)]
    total = sum(loss((logits[p], logits[p]), labels.rows(p), labels) for p in parts)
    torch.testing.assert_close(total, loss((logits, logits), labels))


def test_auxiliary_heads_are_weighted_less() -> None:
    logits, y = batch()
    alone = Loss()(logits, Labels(y))
    torch.testing.assert_close(Loss()((logits, logits, logits), Labels(y)), alone * (1 + 2 * AUXILIARY))


def test_mixup_is_a_function_of_seed_and_step() -> None:
    x, y = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 2, 2), torch.arange(8)
    again = [mixed(x, y, 0.4, seed, step) for seed, step in ((0, 3), (0, 3), (0, 4), (1, 3))]
    assert torch.equal(again[0][0], again[1][0])
    assert not torch.equal(again[0][0], again[2][0]) and not torch.equal(again[0][0], again[3][0])


def test_mixup_mixes_images_and_labels_in_the_same_proportion() -> None:
    x, y = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 2, 2), torch.arange(8)
    found, labels = mixed(x, y, 0.4, 0, 0)
    assert labels.other is not None and 0.5 <= labels.share <= 1
    expected = labels.share * y + (1 - labels.share) * labels.other
    torch.testing.assert_close(found[:, 0, 0, 0], expected.float())
    torch.testing.assert_close(labels.y, y)
    shares = np.array([mixed(x, y, 1.0, 0, step)[1].share for step in range(400)])
    assert shares.mean() == pytest.approx(0.75, abs=0.02)  # the upper half of an even distribution


def test_mixup_0_changes_nothing() -> None:
    x, y = torch.ones(2, 3, 2, 2), torch.tensor([0, 1])
    found, labels = mixed(x, y, 0.0, 0, 0)
    assert found is x and labels.other is None and labels.share == 1


def test_balanced_class_weights_are_inverse_to_class_frequencies() -> None:
    np.testing.assert_allclose(balanced_weights(np.array([0, 0, 0, 1]), 3), [4 / 9, 4 / 3, 0], rtol=1e-6)
