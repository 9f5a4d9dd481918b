"""Identities are hashes of written-out keys: neither a new option nor a renamed attribute makes results stale."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa

from sightline.records import CATALOG_COLUMNS, Catalog, Preprocess, Recipe
from sightline.runs.plan import Plan, PlannedStep, Request


def test_ids_are_those_of_earlier_versions() -> None:
    assert Preprocess().id == "2c1aef1612e259b17e937ef183993dad"
    assert Preprocess(size=(64, 96), fit="pad", value_range=(0.0, 4095.0)).id == "e1e365eb0d531070ce366a47b4cf38df"
    assert Recipe(backbone="mobilenetv2_100").id == "5b7508228c7b7402671a417fede789a4"
    assert Recipe(method="scratch", backbone="cnn", settings={"epochs": 3}).id == "ffd69b0231c869db370a0abbc8c6c891"


def catalog() -> Catalog:
    rows = {"path": ["a/1.png", "b/2.png"], "label": ["a", "b"], "content": ["0" * 64, "1" * 64]}
    data = {n: pa.array(rows.get(n, [None, None]), pa.type_for_alias(k)) for n, k in CATALOG_COLUMNS.items()}
    return Catalog(pa.table(data), Path("/photos"))


def test_plan_id_is_a_hash_of_written_out_keys() -> None:
    plan = Plan((PlannedStep(Recipe(backbone="mobilenetv2_100"), 1.0),))
    request = Request("photos", seed=3)
    assert plan.id(request, catalog()) == "223b8ac6c50d2d4d8d194ad0593a835c"
    assert plan.id(dataclasses.replace(request, seed=4), catalog()) != plan.id(request, catalog())


def test_new_cosmetic_option_makes_no_finished_run_stale() -> None:
    plan = Plan((PlannedStep(Recipe(), 1.0),))
    request = Request("photos")
    wider = dataclasses.make_dataclass("Wider", [("name", str, "")], bases=(Request,), frozen=True)
    assert plan.id(wider("photos", name="pets"), catalog()) == plan.id(request, catalog())
    prettier = dataclasses.make_dataclass("Prettier", [("name", str, "")], bases=(Plan,), frozen=True)
    assert prettier(plan.steps, name="pets").id(request, catalog()) == plan.id(request, catalog())
    for kind in (Preprocess, Recipe):
        longer = dataclasses.make_dataclass("Longer", [("name", str, "")], bases=(kind,), frozen=True)
        assert longer(name="pets").id == kind().id
    moved = dataclasses.replace(request, out="elsewhere", command="x", resume=True)
    assert plan.id(moved, catalog()) == plan.id(request, catalog())
