"""Features of images that change every epoch, by a network that learns nothing: as fast as those of a session."""

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
"""The smallest cosine to torch's float32 features that is taken for the same, on any image."""


def quick_features(network: nn.Module, example: Tensor, precision: Precision) -> Callable[[Tensor], Tensor] | None:
    """How a frozen network's features are had quickly on a CPU; None where torch has to do it.

    Args:
        network: Normalised images → (last map, features); in evaluation mode, on the CPU, and not changed while this is used.
        example: float32 (n, 3, h, w), normalised images, on which both are compared.
        precision: What to compute in.

    Returns:
        float32 (n, 3, h, w) → features float32 (n, d), which no gradient goes through.
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

    some = example[:CHECKED_IMAGES].contiguous()
    try:
        compiled: Any = compile_packed(convert(Features().eval(), some[:1]), precision)
        found = np.array(compiled(some.numpy())[0], dtype=np.float32)
    except Exception as error:  # OpenVINO raises many kinds; whatever it cannot do, torch can
        log.info("OpenVINO cannot run this network (%s); it runs in torch", str(error).strip().split("\n")[0][:200])
        return None
    with torch.inference_mode():
        expected = network(some)[1].float().numpy()
    worst = float(cosines(found, expected).min())
    if not worst >= _LIKE[precision]:
        log.info("OpenVINO and torch disagree on this network (cosine %.5f); it runs in torch", worst)
        return None

    def run(x: Tensor) -> Tensor:
        values = x.detach().float().contiguous().numpy()
        return torch.from_numpy(np.array(compiled(values)[0], dtype=np.float32))

    return run
