"""The progress callback of a fit reports fractions and accuracies, changes nothing, and may stop the fit."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import heads


def problem() -> dict[str, object]:
    draws = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 20)
    features = (draws.normal(size=(60, 5)) + 2 * np.eye(3, 5)[y]).astype(np.float32)
    rows = draws.permutation(60)
    folds = [(np.setdiff1d(rows, rows[i::5]), np.sort(rows[i::5])) for i in range(5)]
    return {"features": features, "y": y, "classes": 3, "folds": folds}


@pytest.mark.parametrize("kind", ["logistic", "ridge", "knn", "forest", "mlp"])
def test_watching_does_not_change_the_result(kind: str) -> None:
    reports: list[tuple[float, float]] = []
    settings = {"forest": {"trees": 5}, "mlp": {"epochs": 4, "units": [[8, 0.1]]}}.get(kind, {})
    watched = heads.fit(kind, **problem(), settings=settings, watch=lambda *report: reports.append(report))  # type: ignore[arg-type]
    alone = heads.fit(kind, **problem(), settings=settings)  # type: ignore[arg-type]
    np.testing.assert_array_equal(watched.logits, alone.logits)
    assert all(0 < share <= 1 and 0 <= accuracy <= 1 for share, accuracy in reports)
    assert len(reports) == {"mlp": 4, "ridge": 0}.get(kind, 1)  # ridge solves all folds at once


def test_a_callback_can_stop_the_fit() -> None:
    def stop(share: float, accuracy: float) -> None:
        raise KeyError(f"{share:.1f}")

    with pytest.raises(KeyError, match=r"0\.2"):
        heads.fit("knn", **problem(), watch=stop)  # type: ignore[arg-type]
