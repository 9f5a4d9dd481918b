"""Feature maps of every layout as a grid and back, and the position of blocks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from sightline.errors import RequestError
from sightline.explanation.feature_map import from_grid, overlap, sum_blocks, to_grid
from sightline.records import Backbone, Preprocess


def backbone(layout: Literal["nchw", "nhwc", "tokens"], prefix: int = 0) -> Backbone:
    return Backbone("b", "timm", Preprocess(), 5, map_shape=(5, 2, 3), layout=layout, prefix=prefix)


def test_layouts_show_the_same_grid() -> None:
    grid = np.random.default_rng(0).normal(size=(4, 5, 2, 3)).astype(np.float32)
    tokens = np.concatenate([np.full((4, 2, 5), 9, np.float32), grid.reshape(4, 5, 6).transpose(0, 2, 1)], axis=1)
    nhwc = grid.transpose(0, 2, 3, 1)
    for last, own in ((grid, backbone("nchw")), (nhwc, backbone("nhwc")), (tokens, backbone("tokens", 2))):
        np.testing.assert_array_equal(to_grid(last, own), grid)
        np.testing.assert_array_equal(from_grid(to_grid(last, own), last[:1], own), last)
    # A token's place: the second row's first patch is the fourth after the prefix.
    np.testing.assert_array_equal(to_grid(tokens, backbone("tokens", 2))[0, :, 1, 0], tokens[0, 2 + 3])


def test_a_backbone_without_a_map_is_one_clear_error() -> None:
    with pytest.raises(RequestError, match="'file' has no spatial feature map"):
        to_grid(np.zeros((1, 5)), Backbone("file", "file", Preprocess(), 5))


@pytest.mark.parametrize("cells", [1, 2, 7, 8, 10, 14, 16, 31])
@pytest.mark.parametrize("most", [1, 3, 8, 10])
def test_blocks_are_equal_and_share_out_each_cell_once(cells: int, most: int) -> None:
    shares = overlap(cells, most)
    assert shares.shape == (min(cells, most), cells)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    np.testing.assert_allclose(shares.sum(axis=1), cells / min(cells, most))


def test_summed_blocks_keep_the_total() -> None:
    heat = np.random.default_rng(0).normal(size=(13, 32))
    small = sum_blocks(heat, 8)
    assert small.shape == (8, 8)
    assert small.sum() == pytest.approx(heat.sum(), abs=1e-4)
    assert sum_blocks(np.kron([[1.0, 2.0]], np.ones((4, 4))), 2).tolist() == [[8, 16], [8, 16]]
