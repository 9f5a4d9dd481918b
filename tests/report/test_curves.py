"""The course of a training, as figures and in words."""

from __future__ import annotations

from sightline.report import curves

ROWS = [{"epoch": float(e), "train_accuracy": 0.5 + e / 10, "val_accuracy": 0.6} for e in (1, 2, 3)]


def test_whose_weights_are_kept_is_said_where_they_are_not_the_last() -> None:
    (figure,) = curves.history(ROWS, "from epoch 3", kept=2)
    assert "The weights of epoch 2 are kept" in figure["text"] and figure["text"].endswith("Overfitting: from epoch 3.")
    for kept in (3, None):
        (figure,) = curves.history(ROWS, None, kept)
        assert "are kept" not in figure["text"]


def test_no_epochs_no_figure() -> None:
    assert curves.history([], "from epoch 3", 2) == []
