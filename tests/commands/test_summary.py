"""`sightline summary` of networks, new heads, recipes, runs and classifiers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import sightline as sl
from sightline.cli.app import app
from sightline.commands.summary import read_head
from sightline.errors import RequestError
from sightline.runs.layer_table import SummarySpec, layer_table
from sightline.store import Cache

OWN = """
from torch import nn

def build(classes=10):
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(8, classes))
"""


def said(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    ended = CliRunner().invoke(app, ["summary", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return file


def fitted(digits: Path, out: Path, chosen: sl.Recipe, cache: Cache) -> Path:
    catalog = sl.split(sl.scan(digits), seed=0, cache=cache)
    return sl.fit(catalog, chosen, out=out, cache=cache).folder


# ---------------------------------------------------------------------------------------------------------- networks


def test_happy_cnn_as_its_tutorial_counts_it() -> None:
    text = said("happy_cnn", "--image-size", "64")
    numbers = {line.split()[-2 if "(" in line else -1]: line for line in text.splitlines() if line}
    assert any(line.startswith("parameters") and line.split()[1] == "37,569" for line in numbers.values())
    assert any(line.startswith("statistics") and line.split()[1] == "64" for line in numbers.values())
    assert any(line.startswith("total") and line.split()[1] == "37,633" for line in numbers.values())


def test_json_is_one_value_with_the_fixed_keys(cli: Callable[..., Any]) -> None:
    ended = cli("summary", "lenet5", "--json")
    assert ended.code == 0, ended.err
    value = json.loads(ended.out)
    assert {"network", "parameters", "trainable", "statistics", "macs", "layers"} <= value.keys()
    assert (value["network"], value["parameters"], value["trainable"], value["statistics"]) == ("lenet5", 61_706, 61_706, 0)
    assert value["frozen"] == 0
    assert sum(layer["parameters"] for layer in value["layers"]) == 61_706
    assert value["layers"][-1]["output"] == [10]
    assert {"name", "type", "output", "parameters"} <= value["layers"][0].keys()
    assert value == sl.summary("lenet5")


def test_a_network_with_arguments_and_other_classes() -> None:
    value = sl.summary("cnn(filters=[32, 64], dense=[(16, 0.5)])", image_size=32, classes=5)
    by_hand = (9 * 3 + 1) * 32 + (9 * 32 + 1) * 64 + (64 + 1) * 16 + (16 + 1) * 5
    assert value["parameters"] == by_hand
    assert value["features"] == 16
    assert value["layers"][-1]["output"] == [5]
    assert sl.summary("resnet18", classes=1)["parameters"] == 11_689_512 - 513_000 + 513


def test_the_image_size_changes_the_shapes_not_the_weights() -> None:
    small, large = sl.summary("resnet18", image_size=64), sl.summary("resnet18")
    assert small["parameters"] == large["parameters"] == 11_689_512
    assert small["layers"][0]["output"] == [64, 32, 32]
    assert large["layers"][0]["output"] == [64, 112, 112]
    assert small["macs"] < large["macs"] == 1_814_073_344


def test_auxiliary_classifiers_are_marked() -> None:
    value = sl.summary("googlenet(auxiliary=True)")
    assert (value["parameters"], value["only_in_training"]) == (13_004_888, 6_379_984)
    assert value["layers"][-1]["output"] is None
    assert "6,379,984" in said("googlenet(auxiliary=True)")


def test_a_network_of_the_user_s_own(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN, encoding="utf-8")
    value = sl.summary(f"{tmp_path / 'net.py'}:build", image_size=32, classes=3)
    assert (value["parameters"], value["statistics"], value["features"]) == (27 * 8 + 8 + 16 + 27, 16, 8)


# ------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.slow
def test_the_head_of_the_face_forensics_work_on_xception() -> None:
    value = sl.summary("xception", head="1000,256,64", classes=2)
    assert value["parameters"] == 23_128_786
    assert value["head"]["parameters"] == 2_321_834
    assert value["head"]["base"] == 20_806_952
    assert (value["head"]["published"], value["head"]["more"]) == (22_855_952, 272_834)
    assert value["head"]["over_base"] == pytest.approx(2_321_834 / 20_806_952)
    assert value["head"]["over_published"] == pytest.approx(272_834 / 22_855_952)
    assert value["trainable"] == value["parameters"]
    text = said("xception", "--head", "1000,256,64", "--classes", "2")
    for part in ("2,321,834", "20,806,952", "(+11.2%)", "22,855,952", "+272,834, +1.2%", "23,128,786"):
        assert part in text


@pytest.mark.slow
def test_a_head_on_the_flattened_map() -> None:
    """The five flowers: 3·3·2,048 numbers of Inception-V3 at 150 px, 256 units, 5 classes."""
    value = sl.summary("inception_v3", image_size=150, pool="flatten", head="256:0.5", classes=5)
    assert value["head"]["parameters"] == 4_720_133
    assert value["features"] == 3 * 3 * 2048
    assert value["head"]["base"] == 21_785_568
    assert [layer["type"] for layer in value["layers"][-5:]] == ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    assert value["layers"][-6]["output"][1:] == [3, 3]


@pytest.mark.slow
def test_layers_behind_a_flattened_map_are_not_counted() -> None:
    """The last convolution of MobileNetV3, 288 → 1,024 with a bias, does not run under a head on the map before it."""
    on_map = sl.summary("mobilenetv3_small_050", pool="flatten", head=[(256, 0.5)], classes=2)
    whole = sl.summary("mobilenetv3_small_050", head=[], classes=2)
    assert on_map["features"] == 288 * 7 * 7 and whole["features"] == 1024
    assert whole["head"]["base"] - on_map["head"]["base"] == 288 * 1024 + 1024
    assert on_map["head"]["parameters"] == (288 * 7 * 7 + 1) * 256 + 257 * 2


@pytest.mark.parametrize(
    ("name", "width"), [("squeezenet1_1", 512), ("mobilenetv3_small_050", 1024), ("vit_tiny_patch16_224", 192)]
)
def test_base_and_head_add_up_to_the_network(name: str, width: int) -> None:
    value = sl.summary(name, head="7", classes=3)
    count = sum(r["parameters"] for r in value["layers"])
    assert value["features"] == width
    assert count == value["parameters"] == value["head"]["base"] + value["head"]["parameters"]
    assert value["head"]["parameters"] == (width + 1) * 7 + 8 * 3


class Untraceable(nn.Module):
    """Its way depends on the images' shape, which a traced graph cannot say."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
        self.spare = nn.Parameter(torch.zeros(5))
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(len(x)):
            x = self.second(torch.relu(self.first(x)))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_a_base_that_cannot_be_traced_runs_once() -> None:
    value = sl.summary(Untraceable, image_size=12, head="", classes=2)
    assert [(layer["name"], layer["output"]) for layer in value["layers"]] == [
        ("first", [4, 10, 10]),
        ("second", [6, 8, 8]),
        ("top.0", [2]),
    ]
    assert value["macs"] == 108 * 100 + 216 * 64 + 12
    assert value["parameters"] == 112 + 222 + 14


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "efficientnet_b0"])
def test_the_drawn_network_has_the_parameters_of_the_table(name: str, cache: Cache) -> None:
    found = layer_table(name, SummarySpec(None, 3, None, [(8, 0.0)], None, cache))
    assert found.net is not None
    assert sum(p.numel() for p in found.net.parameters()) == found.anatomy.parameters


def test_a_note_names_the_default_number_of_classes() -> None:
    ended = CliRunner().invoke(app, ["summary", "lenet5", "--head", "8"])
    assert "2 classes" in ended.stderr
    assert sl.summary("lenet5", head="8")["layers"][-1]["output"] == [2]


def test_heads_as_text() -> None:
    assert read_head("1000, 256,64:0.25") == ((1000, 0.0), (256, 0.0), (64, 0.25))
    assert read_head("") == ()
    for wrong in ("a", "12:", "0", "5:1", "5,,6", "-3", "5:0.3:1"):
        with pytest.raises(RequestError, match="cannot be parsed"):
            read_head(wrong)


# ------------------------------------------------------------------------------------------------------------ recipes


def test_a_recipe_s_base_is_frozen(tmp_path: Path) -> None:
    file = recipe(tmp_path, 'method = "features"\nbackbone = "mobilenetv2_100"\nhead = "logistic"\n')
    value = sl.summary(str(file), classes=5)
    assert value["trainable"] == (1280 + 1) * 5
    assert value["frozen"] == 3_504_872 - 1_281_000
    assert value["layers"][-1] == {
        "name": "head",
        "type": "logistic",
        "output": [5],
        "parameters": 6405,
        "trainable": 6405,
        "statistics": 0,
        "macs": 6400,
    }
    assert not any(layer["trainable"] for layer in value["layers"][:-1])
    lines = said(str(file), "--classes", "5").splitlines()
    assert lines[0].endswith("trainable")
    assert lines[1].endswith("frozen")
    assert next(line for line in lines if line.startswith("head ")).endswith("yes")


def test_a_recipe_that_trains_from_scratch_learns_all(tmp_path: Path) -> None:
    file = recipe(tmp_path, 'method = "scratch"\nbackbone = "cnn(filters=[8, 16])"\nimage_size = 32\n')
    value = sl.summary(file, classes=3)
    assert value["frozen"] == 0
    assert value["trainable"] == 27 * 8 + 16 + 72 * 16 + 32 + 17 * 3  # BatchNorm instead of biases
    assert value["statistics"] == 2 * (8 + 16)


@pytest.mark.parametrize(
    ("text", "parameters", "note"),
    [
        ('method = "shortcut"', 0, "file"),
        ('method = "baseline"', 0, "no features"),
        ('backbone = "pixels"\nhead = "ridge"', (768 + 1) * 2, "pixels"),
    ],
)
def test_a_recipe_without_a_network_says_so(tmp_path: Path, text: str, parameters: int, note: str) -> None:
    value = sl.summary(recipe(tmp_path, text))
    assert [layer["name"] for layer in value["layers"]] == ["head"]
    assert value["parameters"] == parameters
    assert any("no network" in n and note in n for n in value["notes"])


def test_a_recipe_s_mlp_head_counts_its_layers(tmp_path: Path) -> None:
    text = 'backbone = "cnn(filters=[8])"\nhead = "mlp"\nimage_size = 32\n[settings]\nhead = { units = [[5, 0.1]] }\n'
    value = sl.summary(recipe(tmp_path, text), classes=4)
    assert (value["trainable"], value["frozen"]) == (9 * 5 + 6 * 4, 28 * 8)


# --------------------------------------------------------------------------------------------------- runs and classifiers


@pytest.mark.slow
def test_a_run_and_its_file_show_the_frozen_base(digits: Path, tmp_path: Path, cache: Cache) -> None:
    chosen = sl.Recipe(backbone="cnn(filters=[8, 16])", weights="random", head="logistic", image_size=32)
    folder = fitted(digits, tmp_path / "run", chosen, cache)
    value = sl.summary(folder, cache=cache)
    assert value["network"] == "cnn(filters=[8, 16])"
    assert (value["trainable"], value["frozen"]) == (17 * 10, 28 * 8 + 73 * 16)
    assert value["layers"][-1]["type"] == "logistic"
    assert sl.summary(folder / "classifier.safetensors", cache=cache) == value


@pytest.mark.slow
def test_a_run_from_scratch_learns_all(digits: Path, tmp_path: Path, cache: Cache) -> None:
    chosen = sl.Recipe(method="scratch", backbone="cnn(filters=[8, 16])", image_size=32, settings={"epochs": 1})
    value = sl.summary(fitted(digits, tmp_path / "run", chosen, cache), cache=cache)
    assert (value["frozen"], value["trainable"]) == (0, 27 * 8 + 16 + 72 * 16 + 32 + 17 * 10)


def test_one_sigmoid_unit_counts_as_one(digits: Path, tmp_path: Path, cache: Cache) -> None:
    for folder in list(digits.iterdir())[2:]:
        shutil.rmtree(folder)
    chosen = sl.Recipe(method="scratch", backbone="happy_cnn", image_size=16, settings={"epochs": 1})
    value = sl.summary(fitted(digits, tmp_path / "run", chosen, cache), cache=cache)
    assert value["classes"] == 2
    assert value["parameters"] == 4736 + 64 + 32 * 8 * 8 + 1


@pytest.mark.slow
def test_a_classifier_on_the_user_s_own_network_needs_its_code(digits: Path, tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "net.py").write_text(OWN, encoding="utf-8")
    code = f"{tmp_path / 'net.py'}:build"
    folder = fitted(digits, tmp_path / "run", sl.Recipe(backbone=code, head="ridge", image_size=32), cache)
    with pytest.raises(RequestError, match="user-defined code"):
        sl.summary(folder, cache=cache)
    value = sl.summary(folder, code=code, cache=cache)
    assert (value["trainable"], value["frozen"], value["statistics"]) == (90, 240, 16)


def test_options_that_change_a_trained_classifier_are_refused(digits: Path, tmp_path: Path, cache: Cache) -> None:
    folder = fitted(digits, tmp_path / "run", sl.Recipe(method="baseline"), cache)
    for options in ({"classes": 3}, {"image_size": 64}, {"head": "12"}):
        with pytest.raises(RequestError, match=next(iter(options)).replace("_", "-")):
            sl.summary(folder, **options)
    with pytest.raises(RequestError, match="no network to draw"):
        sl.summary(folder, graph=tmp_path / "net.svg")


# ------------------------------------------------------------------------------------------------- compare, graph, errors


def test_two_networks_side_by_side() -> None:
    value = sl.summary("lenet5", compare="nin")
    other = sl.summary("nin")
    assert value["compare"]["network"] == "nin"
    for key in ("parameters", "macs", "activation_bytes", "features"):
        assert value["compare"][key] == other[key]
        assert value["compare"]["difference"][key] == value[key] - other[key]
        assert value["compare"]["ratio"][key] == value[key] / other[key]
    assert value["compare"]["layers"] == len(other["layers"])
    text = said("lenet5", "--compare", "nin")
    assert f"{other['parameters']:,}" in text
    assert f"{61_706 - other['parameters']:+,}" in text


def test_options_apply_to_both_compared_networks(tmp_path: Path) -> None:
    value = sl.summary("cnn", classes=7, image_size=48, compare="basic_cnn")
    assert value["compare"]["parameters"] == sl.summary("basic_cnn", classes=7, image_size=48)["parameters"]
    made = sl.summary("cnn", head="9", classes=2, compare=recipe(tmp_path, 'method = "baseline"'))
    assert made["compare"]["parameters"] == 0


def test_graph_draws_the_network_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.networks import picture

    asked: list[Any] = []
    monkeypatch.setattr(picture, "draw", lambda net, size, file, **more: asked.append((size, file, more)))
    value = sl.summary("lenet5", graph=tmp_path / "net.svg")
    assert value["graph"] == str(tmp_path / "net.svg")
    assert asked == [((32, 32), tmp_path / "net.svg", {"channels": 1, "title": "lenet5, 32×32 px"})]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["resnet5O"], "no network 'resnet5O'", "resnet50"),
        (["lenet5", "--graph", "net.pdf"], "net.pdf", ".svg or .png"),
        (["lenet5", "--pool", "flatten"], "--pool flatten", "--head"),
        (["lenet5", "--pool", "average", "--head", "8"], "average", "avg"),
        (["lenet5", "--head", "8;9"], "8;9", "units"),
        (["lenet5", "--image-size", "5"], "5×5", "smallest"),
        (["nowhere.safetensors"], "nowhere.safetensors", "pass a classifier"),
        (["nowhere.toml"], "nowhere.toml", "name a"),
        (["."], ". is a folder", "name a network"),
        (["lenet5", "--compare", "lenet"], "'lenet'", "lenet5"),
    ],
)
def test_wrong_requests_are_one_sentence_and_a_hint(arguments: list[str], message: str, hint: str) -> None:
    ended = CliRunner().invoke(app, ["summary", *arguments])
    assert ended.exit_code == 2
    assert not ended.stdout
    assert message in ended.stderr
    assert hint in ended.stderr.partition("hint:")[2]


# ------------------------------------------------------------------------------------------------------- what learns

CNN = "cnn(filters=[8, 16])"
BASE, STAGE = 28 * 8 + 73 * 16, 73 * 16
"""All parameters of its base, and those of its last convolution."""


@pytest.mark.parametrize(
    ("method", "settings", "base", "head"),
    [
        ("features", 'head = "logistic"', 0, 17 * 3),
        ("features", 'head = "mlp"\n[settings]\nhead = { units = [[5, 0]] }', 0, 17 * 5 + 6 * 3),
        ("frozen", "", 0, 17 * 3),
        ("frozen", "[settings]\nhead = [[256, 0]]", 0, 17 * 256 + 257 * 3),
        ("frozen", "[settings]\nhead = [[6, 0.5], [4, 0]]", 0, 17 * 6 + 7 * 4 + 5 * 3),
        ("finetune", "", BASE, 17 * 3),
        ("finetune", '[settings]\nunfreeze = "all"\nhead = [[6, 0.5]]', BASE, 17 * 6 + 7 * 3),
        ("finetune", "[settings]\nunfreeze = 1\nhead = []", STAGE, 17 * 3),
        ("finetune", "[settings]\nunfreeze = 0", 0, 17 * 3),
        ("finetune", "[settings]\nunfreeze = 1\nhead_rate = 0", STAGE, 0),
        (
            "ensemble",
            f"[settings.recipe]\nmethod = 'finetune'\nbackbone = '{CNN}'\nsettings = {{ unfreeze = 1 }}",
            STAGE,
            17 * 3,
        ),
    ],
)
def test_trainable_parameters_are_those_that_the_method_trains(
    tmp_path: Path, method: str, settings: str, base: int, head: int
) -> None:
    network = "" if method == "ensemble" else f'backbone = "{CNN}"\n'
    value = sl.summary(recipe(tmp_path, f'method = "{method}"\n{network}image_size = 32\n{settings}\n'), classes=3)
    assert value["trainable"] == base + head
    assert value["frozen"] == BASE - base + (17 * 3 if not head else 0)


def test_a_stage_by_name_and_an_unknown_one(tmp_path: Path) -> None:
    text = 'method = "finetune"\nbackbone = "resnet18"\nimage_size = 64\n[settings]\nunfreeze = "layer4"\n'
    value = sl.summary(recipe(tmp_path, text), classes=3)
    learning = [layer["name"] for layer in value["layers"] if layer["trainable"]]
    assert all(name.startswith("layer4") or name == "head" for name in learning) and value["trainable"] == 8_393_728 + 513 * 3
    with pytest.raises(RequestError, match="layer9"):
        sl.summary(recipe(tmp_path, text.replace("layer4", "layer9")), classes=3)


def test_finetune_trains_xception_with_a_dense_head_completely(tmp_path: Path) -> None:
    """2048 → 1000 → 256 → 64 → 2 on Xception: 20,806,952 of the base and 2,321,834 of the head, as that work counts them."""
    text = 'method = "finetune"\nbackbone = "xception"\n[settings]\nhead = [[1000, 0], [256, 0], [64, 0]]\n'
    value = sl.summary(recipe(tmp_path, text), classes=2)
    assert (value["parameters"], value["trainable"], value["frozen"]) == (23_128_786, 23_128_786, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "trainable", "head"),
    [
        ({"method": "finetune", "settings": {"unfreeze": 1, "learning_rate": 0.05}}, STAGE + 170, "logistic"),
        ({"method": "frozen", "settings": {"head": [[5, 0.0]]}}, 17 * 5 + 60, "mlp"),
    ],
)
def test_a_run_and_a_warm_start_from_it_mark_their_trainable_parameters(
    digits: Path, tmp_path: Path, cache: Cache, settings: dict[str, Any], trainable: int, head: str
) -> None:
    own = {**settings, "settings": {**settings["settings"], "epochs": 2, "augment": "none"}}
    folder = fitted(digits, tmp_path / "run", sl.Recipe(backbone=CNN, weights="random", image_size=32, **own), cache)
    run = json.loads((folder / "run.json").read_text())
    value = sl.summary(folder, cache=cache)
    helped = run["network"]["weights"] == "run"
    assert value["layers"][-1]["type"] == head
    assert value["trainable"] == (trainable if helped or settings["method"] == "frozen" else trainable - STAGE)
    for frozen, expected in ((True, 170), (False, BASE + (170 if head == "logistic" else 17 * 5 + 60))):
        text = f'method = "warmstart"\nbackbone = "{folder}"\n[settings]\nfrozen = {str(frozen).lower()}\n'
        assert sl.summary(recipe(tmp_path, text), cache=cache)["trainable"] == expected


def test_an_ensemble_has_no_layer_table_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is an ensemble"):
        sl.summary(recipe(tmp_path, 'method = "ensemble"\n[settings]\nmembers = ["runs/a", "runs/b"]\n'))
    with pytest.raises(RequestError, match="does not exist"):
        sl.summary(recipe(tmp_path, 'method = "warmstart"\nbackbone = "runs/nothing"\n'))


@pytest.mark.parametrize(
    ("network", "message", "hint"),
    [
        ("cnn(filters=32)", "filters of cnn cannot be 32", "filters is a list, such as [32, 64, 128, 128]"),
        ("cnn(filters=['a'])", "filters of cnn cannot be 'a'", "filters is a list"),
        ("cnn(kernel='big')", "kernel of cnn cannot be 'big'", "kernel is a whole number or a list, such as 3"),
        ("cnn(dense=512)", "dense of cnn cannot be 512", "dense is a list"),
        ("cnn(batch_norm=1)", "batch_norm of cnn cannot be 1", "batch_norm is true or false"),
        ("xception(width='a')", "width of xception cannot be 'a'", "width is a number, such as 1.0"),
        ("xception(entry=3)", "entry of xception cannot be 3", "entry is a list, such as [128, 256, 728]"),
        ("happy_cnn(blocks=[1])", "blocks of happy_cnn cannot be [1]", "blocks is a whole number, such as 1"),
        ("lenet5(activation='gelu')", "activation of lenet5", "activation is 'tanh' or 'relu'"),
        ("resnet9(width=True)", "width of resnet9 cannot be True", "width is a whole number, such as 64"),
    ],
)
def test_an_argument_of_another_type_is_a_sentence(network: str, message: str, hint: str, tmp_path: Path) -> None:
    for asked in (network, recipe(tmp_path, f'method = "scratch"\nbackbone = "{network}"\nimage_size = 64\n')):
        with pytest.raises(RequestError) as caught:
            sl.summary(asked)
        assert message in caught.value.message and hint in (caught.value.hint or "")
