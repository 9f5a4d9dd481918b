"""Gradient norms by layer: reading, drawing and text."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline.report import gradients

PLAIN = "epoch,layer,norm,type\n1,conv1,0.001,Conv2d\n1,bn1,9,BatchNorm2d\n1,conv2,0.1,Conv2d\n1,fc,1.0,Linear\n"


def run(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "gradients.csv").write_text(text, encoding="utf-8")
    return folder


def test_layers_of_normalisation_are_left_out(tmp_path: Path) -> None:
    assert gradients.read(run(tmp_path / "a", PLAIN)) == {1: [("conv1", 0.001), ("conv2", 0.1), ("fc", 1.0)]}


def test_one_run_has_its_first_and_last_epoch(tmp_path: Path) -> None:
    later = PLAIN + "".join(line.replace("1,", "2,", 1) + "\n" for line in PLAIN.splitlines()[1:])
    (figure,) = gradients.of_run(run(tmp_path / "a", later))
    assert figure["legend"].count("<li>") == 2 and "epoch 2" in figure["legend"]
    assert "0.001 (conv1)" in figure["text"] and "ratio 1,000" in figure["text"]
    # three layers, a thousandfold: two powers of ten apart in the drawing as on the axis
    assert all(f">{power}</text>" in figure["figure"] for power in ("0.001", "0.01", "0.1", "1"))


def test_runs_are_drawn_together_by_their_names(tmp_path: Path) -> None:
    twins = [("plain<b>", run(tmp_path / "a", PLAIN)), ("residual", run(tmp_path / "b", PLAIN.replace("0.001", "0.9")))]
    (figure,) = gradients.of_runs([*twins, ("features", tmp_path)])
    assert figure["legend"].count("<li>") == 2 and "plain&lt;b&gt;" in figure["legend"]
    assert "residual: smallest of 3 layers 0.1" in figure["text"]
    assert gradients.of_runs(twins[:1]) == []


@pytest.mark.parametrize(
    "text",
    ["", "epoch,layer\n1,conv1\n", "epoch,layer,norm,type\n1,conv1,many,Conv2d\n", "epoch,layer,norm,type\n1,conv1,1,Conv2d\n"],
)
def test_runs_without_valid_gradients_are_left_out(tmp_path: Path, text: str) -> None:
    assert gradients.of_run(run(tmp_path / "a", text)) == []
    assert gradients.of_run(tmp_path / "nowhere") == []


def test_layers_without_gradient_are_counted(tmp_path: Path) -> None:
    (figure,) = gradients.of_run(run(tmp_path / "a", PLAIN.replace("0.001", "0.0")))
    assert "1 without a gradient" in figure["text"] and "nan" not in figure["figure"]
