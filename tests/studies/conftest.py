"""Small studies on real digits."""

from __future__ import annotations

import pytest

from sightline import catalog as catalogs
from sightline.records import Catalog, Recipe
from sightline.store import Cache
from tests.conftest import write_few_digits


@pytest.fixture(scope="session")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """120 digits with splits."""
    folder = write_few_digits(tmp_path_factory.mktemp("digits") / "digits", 12)
    found = catalogs.scan(folder)
    return catalogs.split(found, clusters=catalogs.find_duplicates(found, Cache(tmp_path_factory.mktemp("cache"))))


@pytest.fixture
def pixels() -> Recipe:
    """Recipe that fits within milliseconds."""
    return Recipe(backbone="pixels", head="logistic", image_size=8, settings={"folds": 3})


@pytest.fixture
def tiny() -> Recipe:
    """Recipe that trains on pixels."""
    return Recipe(method="scratch", backbone="cnn(filters=[4])", image_size=8, settings={"epochs": 2, "augment": "light"})
