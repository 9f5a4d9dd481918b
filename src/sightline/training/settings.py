"""Settings of the methods that train networks, as records that cost no torch to read."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.errors import RequestError


@dataclass(frozen=True, slots=True)
class ScratchSettings:
    """Settings of `scratch`, a small network trained on the photographs alone.

    Args:
        filters: Filters of each block, 1 to 2,048 each.
        kernel: Side of the filters, 1 to 15.
        dropout: Share of the flattened map that is dropped; None ends in global average pooling instead, which needs none.
        dense: (units, dropout) of each layer before the last.
        epochs: 1 to 1,000; None shows the network about 40,000 images in all, in 10 to 60 epochs.
        batch_size: 2 to 4,096.
        learning_rate: The highest, reached after the warm-up, 1e-6 to 1.
        weight_decay: AdamW's, 0 to 1.
        label_smoothing: 0 to below 1.
        augment: `auto`, or a name of `augment.POLICIES`.
        patience: Epochs without a better validation loss before training stops, 1 to 1,000.
        class_weights: Count each class alike in the loss.
    """

    filters: tuple[int, ...] = (32, 64, 128, 128)
    kernel: int = 3
    dropout: float | None = None
    dense: tuple[tuple[int, float], ...] = ()
    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    augment: str = "auto"
    patience: int = 15
    class_weights: bool = False

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {
            "kernel": (1, 15),
            "epochs": (1, 1000),
            "batch_size": (2, 4096),
            "learning_rate": (1e-6, 1),
            "weight_decay": (0, 1),
            "label_smoothing": (0, 0.999),
            "patience": (1, 1000),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RequestError(f"{name} cannot be {value}", f"it lies between {low:g} and {high:g}")
