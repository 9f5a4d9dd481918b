"""The JSON of every command holds the documented fields; a missing part is null, never a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from sightline.catalog import overview
from sightline.cli import json_output
from sightline.commands import prediction_rows
from sightline.records import Catalog, Predictions, Run
from sightline.records.catalog_audit import DuplicateSet

SCORES = {
    "n": 40,
    "accuracy": 0.9,
    "accuracy_low": 0.8,
    "accuracy_high": 0.95,
    "roc_auc": None,
    "reasons": {"roc_auc": "one class"},
}


def test_fields_of_run() -> None:
    data = {"method": "features", "backbone": "resnet50", "head": "logistic", "val": SCORES, "test": SCORES, "seconds": 3.5}
    value = json_output.of_run(Run(Path("runs/pets"), data))
    assert {"run", "report", "classifier", "method", "backbone", "head", "val", "test", "seconds"} <= set(value)
    assert value["test"] == {"n": 40, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95}
    assert value["val"]["accuracy"] == 0.9
    assert Path(value["report"]) == Path("runs/pets/report.html")
    assert json_output.of_run(Run(Path("r"), {}))["test"] is None


def test_fields_of_train() -> None:
    value = json_output.of_training(
        Run(Path("r"), {"method": "scratch", "val": SCORES, "epochs": 3, "steps": 30, "seconds": 1.0})
    )
    assert {"run", "classifier", "method", "val", "epochs", "steps", "seconds"} <= set(value)
    assert value["epochs"] == 3


def test_evaluate_gives_a_reason_for_an_undefined_score() -> None:
    value = json_output.of_evaluation(Run(Path("r"), {"test": SCORES}))
    assert {
        *("run", "split", "n", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "macro_f1"),
        *("log_loss", "ece", "roc_auc", "eer", "per_class"),
    } <= set(value)
    assert value["split"] == "test"
    assert value["roc_auc"] is None
    assert value["reasons"] == {"roc_auc": "one class"}


def test_uncertainty_of_an_evaluation_has_descriptive_keys_beside_the_old_ones() -> None:
    unlike = {"n": 1, "of": 40, "bar": 0.3, "images": 20, "rate": 0.05, "pretrained": True}
    limits = {"coverage": 0.95, "sets": {"covered": 0.9}, "unlike": unlike}
    found = json_output.of_evaluation(Run(Path("r"), {"test": SCORES, "limits": limits}))["uncertainty"]
    assert limits.items() <= found.items() and found["prediction_sets"] == limits["sets"]
    assert found["out_of_distribution"] == {
        "n": 1,
        "total": 40,
        "threshold": 0.3,
        "held_out": 20,
        "rate": 0.05,
        "pretrained": True,
    }


def test_evaluate_reports_table_rows_that_do_not_match() -> None:
    table = {"not_in_catalog": 2, "other_label": 0, "no_row": 7, "examples": {"not_in_catalog": ["a.png", "b.png"]}}
    value = json_output.of_evaluation(Run(Path("r"), {"test": SCORES, "not_among_classes": 3, "table": table}))
    assert value["not_among_classes"] == 3 and value["table"] == table
    bare = json_output.of_evaluation(Run(Path("r"), {"test": SCORES}))
    assert bare["table"] is None and bare["looks"] == 0  # a classifier's
    looks = [{"when": "2026-01-01", "by": "a"}, {"when": "2026-01-02", "by": "b"}]
    assert json_output.of_evaluation(Run(Path("r"), {"test": SCORES, "test_openings": looks}))["looks"] == 2


def test_a_scan_counts_usable_images_by_class_and_problems_by_kind() -> None:
    table = pa.table(
        {
            "path": ["a", "b", "c", "d"],
            "label": ["cat", "dog", "cat", None],
            "problem": [None, None, "truncated: at 4 kB", "empty"],
            "width": [40, 30, None, None],
            "height": [30, 40, None, None],
            "format": ["PNG", "PNG", None, None],
            "mode": ["RGB", "L", None, None],
        }
    )
    found = Catalog(table, Path("/photos"))
    sets = [DuplicateSet("near", ("a", "b"), ("cat", "dog"), (None, None), conflict=True)]
    value = json_output.of_scan(found, "catalog.csv", overview(found), sets, [])
    assert value["images"] == 4
    assert value["classes"] == {"cat": 1, "dog": 1}
    assert value["problems"] == {"empty": 1, "truncated": 1}
    assert value["catalog"] == "catalog.csv"
    assert (value["formats"], value["shapes"]) == ({"PNG": 2}, {"wide": 1, "tall": 1, "square": 0})
    assert value["duplicates"][0]["paths"] == ("a", "b") and value["duplicates"][0]["conflict"]


def test_predict_has_one_entry_per_file() -> None:
    probs = np.array([[0.25, 0.75], [0.5, 0.5]])
    found = Predictions(("b.jpg", "a.jpg"), ("cat", "dog"), np.array([-1, -1]), probs, {"c.jpg": "empty"})
    assert prediction_rows.of_predictions(found) == [
        {"path": "b.jpg", "label": "dog", "probability": 0.75, "probabilities": {"cat": 0.25, "dog": 0.75}},
        {"path": "a.jpg", "label": "cat", "probability": 0.5, "probabilities": {"cat": 0.5, "dog": 0.5}},
        {"path": "c.jpg", "error": "empty"},
    ]


def test_unsure_and_ood_marks_are_columns_if_known() -> None:
    told = [{"unsure": True, "set": ["cat", "dog"], "coverage": 0.9, "unlike": 0.25, "unlike_bar": None}]
    told.append({"unsure": False, "set": [], "coverage": 0.9, "unlike": 0.5, "unlike_bar": None})
    columns = prediction_rows.remark_columns(told)
    assert columns == {"unsure": ["yes", "no"], "set": ["cat; dog", ""], "coverage": ["0.9", "0.9"], "unlike": ["0.25", "0.5"]}
    assert prediction_rows.remark_columns([{"path": "a", "label": "cat"}]) == prediction_rows.remark_columns([]) == {}
