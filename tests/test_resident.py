"""Predictions of images in memory equal those of files, alone and in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sightline import classifier, heads
from sightline.evaluation import out_of_distribution
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> classifier.Classifier:
    import sightline as sl

    folder = tmp_path_factory.mktemp("resident")
    catalog = sl.split(sl.scan(write_few_digits(folder / "digits", 8)))
    recipe = sl.Recipe(backbone="pixels", head="logistic", settings={"folds": 2})
    return sl.fit(catalog, recipe, out=folder / "run", cache=Cache(folder / "cache")).classifier


def test_one_image_alone_equals_the_same_image_in_a_batch_and_from_a_file(
    model: classifier.Classifier, tmp_path: Path, cache: Cache
) -> None:
    files = sorted(write_few_digits(tmp_path / "new", 2).rglob("*.png"))
    resident = classifier.Resident(model, cache)
    decoded = [resident.decode(file.read_bytes(), str(file)) for file in files]
    together = resident.predict(decoded, list(map(str, files)))
    from_files = model.predict(files, cache=cache)
    np.testing.assert_array_equal(together.probs, from_files.probs)
    assert together.ood_score is not None and from_files.ood_score is not None
    np.testing.assert_array_equal(together.ood_score, from_files.ood_score)
    for i in (0, 7):
        alone = resident.predict([decoded[i]], [str(files[i])])
        np.testing.assert_array_equal(alone.probs[0], together.probs[i])
        assert alone.ood_score is not None and alone.ood_score[0] == together.ood_score[i]
    limits, fit = model.uncertainty(from_files), resident.uncertainty(together)
    assert limits is not None and fit is not None
    np.testing.assert_array_equal(limits.sets, fit.sets)


def test_the_distance_of_an_image_does_not_depend_on_the_others() -> None:
    draw = np.random.default_rng(0)
    bank = out_of_distribution.directions(draw.normal(size=(300, 512)))
    rows = out_of_distribution.directions(draw.normal(size=(40, 512)))
    together = out_of_distribution.distances(bank, rows)
    alone = np.concatenate([out_of_distribution.distances(bank, rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_array_equal(together, alone)


def test_the_probabilities_of_an_image_do_not_depend_on_the_others(model: classifier.Classifier) -> None:
    values = np.random.default_rng(0).normal(size=(33, model.card.backbone.features)).astype(np.float32)
    together = heads.probs_of_each(model.head, values)
    np.testing.assert_array_equal(together[32], heads.probs_of_each(model.head, values[32:])[0])
