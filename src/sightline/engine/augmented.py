"""Features of augmented images, which change every epoch, from a frozen network compiled by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.engine.measures import cosines
from sightline.engine.runtime import Precision, compile_packed, convert, openvino
from sightline.engine.session import CHECKED_IMAGES, WORST_COSINE
from sightline.store import log

if TYPE_CHECKING:
    from torch import Tensor, nn

_LIKE = {"f32": WORST_COSINE, "bf16": 0.99}
"""Minimum cosine similarity with torch's float32 features on each checked image."""


def quick_features(network: nn.Module, example: Tensor, precision: Precision) -> Callable[[Tensor], Tensor] | None:
    """Compile a frozen network's features for the CPU with OpenVINO; return None if torch has to run it.

    Args:
        network: Maps normalised images to (last map, features); in evaluation mode, on the CPU, unchanged while this is used.
        example: float32 (n, 3, h, w), normalised images, on which OpenVINO and torch are compared.
        precision: `f32` or `bf16`.

    Returns:
        Function from float32 (n, 3, h, w) to features float32 (n, d), without gradients.
    """
    import torch
    from torch import nn

    if openvino() is None:
        return None

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)[1]  # type: ignore[no-any-return]

    checked = example[:CHECKED_IMAGES].contiguous()
    try:
        compiled: Any = compile_packed(convert(Features().eval(), checked[:1]), precision)
        actual = np.array(compiled(checked.numpy())[0], dtype=np.float32)
    except Exception as error:  # OpenVINO raises many types of errors; torch can run what OpenVINO can't
        log.info("OpenVINO cannot run this network (%s); it runs in torch", str(error).strip().split("\n")[0][:200])
        return None
    with torch.inference_mode():
        expected = network(checked)[1].float().numpy()
    worst = float(cosines(actual, expected).min())
    if not worst >= _LIKE[precision]:
        log.info("OpenVINO and torch disagree on this network (cosine %.5f); it runs in torch", worst)
        return None

    def run(x: Tensor) -> Tensor:
        values = x.detach().float().contiguous().numpy()
        return torch.from_numpy(np.array(compiled(values)[0], dtype=np.float32))

    return run
