"""`export`: the written file predicts what the classifier predicts, without Sightline, and a file that does not is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from sightline.commands.export import export
from sightline.errors import RequestError, SightlineError
from sightline.export import FORMATS, agreement
from sightline.store import Cache
from tests.conftest import write_few_digits

pytest.importorskip("onnxruntime")
BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sightline", "torch", "torchvision", "timm", "sklearn", "scipy", "onnx"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import runpy
script = sys.argv[1]
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
"""Runs a script where only the packages that it names can be imported."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a classifier of pixels."""
    folder = tmp_path_factory.mktemp("export")
    digits, cache = write_few_digits(folder / "digits", 30), Cache(folder / "cache")
    recipe = sl.Recipe(method="features", backbone="pixels", head="ridge", image_size=8)
    return sl.fit(sl.split(sl.scan(digits), cache=cache), recipe, out=folder / "run", cache=cache).folder


def photographs(folder: Path) -> list[Path]:
    """Write images of several formats, modes and orientations."""
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for number, (mode, suffix) in enumerate((("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg"))):
        shape = (90, 60) if mode in ("L", "P") else (90, 60, len(mode))
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), "L" if mode == "P" else mode).convert(mode)
        file = folder / f"{number}.{suffix}"
        image.save(file)
        files.append(file)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = folder / f"turned {orientation}.jpg"
        Image.fromarray(rng.integers(0, 256, (700, 40, 3), dtype=np.uint8)).save(file, exif=exif)
        files.append(file)
    return files


def run_script(script: Path, files: list[Path]) -> list[dict[str, Any]]:
    """Return what the written script prints, in a process where Sightline and torch cannot be imported."""
    command = [sys.executable, "-c", BLOCKED, str(script), *map(str, files)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_written_script_predicts_without_sightline(to: str, trained: Path, tmp_path: Path) -> None:
    done = export(trained, to, tmp_path / "out")
    assert done.record.agreement.same_class == done.record.agreement.images == 200
    files = photographs(tmp_path / "photographs")
    expected = sl.predict(trained, files)
    rows = run_script(tmp_path / "out" / "predict.py", files)
    assert [row["label"] for row in rows] == expected.labels
    difference = np.array([list(row["probabilities"].values()) for row in rows]) - expected.probs
    assert np.abs(difference).max() < 0.02  # a turned or transparent image is rounded in another order
    card = json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))
    assert card["facts"]["classes"] == [str(i) for i in range(10)]
    assert card["agreement"]["images"] == 200 and card["agreement"]["pixel_difference"] < 1e-3


def test_compares_validation_images_first_and_never_test_images(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def watched(model: Any, files: list[Path], *args: Any, **options: Any) -> agreement.Agreement:
        seen.extend(files)
        return agreement.Agreement(len(files), len(files), 0.0)

    monkeypatch.setattr(agreement, "from_files", watched)
    export(trained, "onnx", tmp_path / "out")
    catalog = sl.load_catalog(trained / "catalog.csv")
    split = dict(zip(catalog.files(), catalog.column("split"), strict=True))
    splits = [split[file] for file in seen]
    val = sum(s == "val" for s in split.values())
    assert splits == ["val"] * val + ["train"] * (200 - val)


@pytest.mark.slow
def test_a_file_that_disagrees_is_refused_and_nothing_is_left(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.export import model as graphs

    build = graphs.build

    def shifted(model: Any, *args: Any, **options: Any) -> graphs.GraphModel:
        arrays = {name: np.roll(array, 1, axis=0) if name == "bias" else array for name, array in model.head.arrays.items()}
        arrays["weights"] = np.roll(arrays["weights"], 1, axis=0)
        return build(dataclasses.replace(model, head=dataclasses.replace(model.head, arrays=arrays)), *args, **options)

    monkeypatch.setattr(graphs, "build", shifted)
    with pytest.raises(SightlineError, match=r"from the same pixels a probability differs|photographs get another class"):
        export(trained, "onnx", tmp_path / "out")
    assert not list((tmp_path / "out").glob("[!.]*"))
    kept = export(trained, "onnx", tmp_path / "out", allow_difference=True)
    assert kept.record.agreement.changed
    assert kept.file.is_file()


def test_a_classifier_without_photographs_needs_images(trained: Path, tmp_path: Path) -> None:
    model = sl.load(trained)
    with pytest.raises(SightlineError, match="no photographs to compare"):
        export(model, "onnx", tmp_path / "out")
    assert export(model, "onnx", tmp_path / "name.onnx", images=[trained.parent / "digits"]).file == tmp_path / "name.onnx"
    assert export(model, "onnx", tmp_path / "out", allow_difference=True).record.agreement.max_difference is None


def test_wrong_arguments_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="format"):
        export(trained, "onxx", tmp_path / "out")
    with pytest.raises(RequestError, match="precision 'int4'"):
        export(trained, "onnx", tmp_path / "out", precision="int4")
    with pytest.raises(RequestError, match=r"name a file that ends in \.onnx"):
        export(trained, "onnx", tmp_path / "model.xml")


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("to", FORMATS)
def test_photographs_of_mixed_formats_agree(to: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    recipe = sl.Recipe(method="features", backbone="mobilenetv2_100", head="logistic")
    run = sl.fit(shared / "data" / "food", recipe, out=tmp_path / "run")
    agreed = export(run, to, tmp_path / "out").record.agreement
    assert agreed.images > 150 and agreed.same_class >= 0.99 * agreed.images
