"""The shipped table of networks agrees with the networks that the installed libraries build.

No test depends on the versions that the table was made from, so that changes in a newer library are noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import survey_networks as survey
from sightline import networks
from sightline.errors import RequestError
from sightline.networks import backbones, index, papers
from sightline.networks.classics import CLASSICS
from sightline.networks.counting import macs
from sightline.networks.entry import NetworkEntry
from sightline.networks.network import Network
from sightline.schema import from_json
from sightline.store import Cache, plain

ROWS: dict[str, Any] = json.loads(index.TABLE.read_text(encoding="utf-8"))["networks"]
VERSIONS = json.loads(index.TABLE.read_text(encoding="utf-8"))["versions"]
MEASURED = ("parameters", "macs", "features", "smallest")

FEW = ["lcnet_035", "mobilenetv3_small_050", "test_convnext", "test_efficientnet"]
"""Quickly built."""
MORE = [
    "vit_tiny_patch16_224",
    "regnetx_002",
    "swin_tiny_patch4_window7_224",
    "squeezenet1_1",
    "mobilenet_v3_small",
]
"""One each of the other kinds of `smallest`: patches, windows, strides, poolings that round, and torchvision's own."""


# ------------------------------------------------------------------------------------------------- numbers, really built


@pytest.mark.parametrize("name", [*FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)])
def test_every_number_of_a_row(name: str) -> None:
    row, entry = ROWS[name], index.find(name, Cache())
    assert entry is not None and entry.architecture == name and entry.source == row["source"]
    size = entry.preprocess.size
    with backbones.seeded(0):
        whole = backbones.create_with_classifier(entry, size).eval()
        bare = backbones.create(entry, size)
    assert row["parameters"] == sum(p.numel() for p in whole.parameters())
    assert row["macs"] == macs(whole.requires_grad_(False), torch.zeros(1, 3, *size))
    assert row["features"] == Network(bare, size).features
    patch = survey._patch(whole)
    step = patch * -(-8 // patch)
    assert row["smallest"] % step == 0 or row["smallest"] == size[0]
    assert sees(entry, row["smallest"])
    assert row["smallest"] == step or not sees(entry, row["smallest"] - step)


def sees(entry: NetworkEntry, side: int) -> bool:
    """Whether a network gives finite scores for an image of noise, built with numbers."""
    try:
        with torch.no_grad(), backbones.seeded(0):
            net = backbones.create_with_classifier(entry, (side, side)).eval()
            return bool(net(torch.randn(1, 3, side, side)).isfinite().all())
    except (RequestError, RuntimeError, ValueError, AssertionError, TypeError, IndexError, ZeroDivisionError):
        return False


def test_parameters_are_those_of_the_summary() -> None:
    for name in FEW[:3]:
        net = networks.random_network(name, meta=True).net
        assert ROWS[name]["parameters"] == sum(p.numel() for p in net.parameters())


def test_published_numbers() -> None:
    """He 2015, Chollet 2016, Szegedy 2015, Sandler 2018, Dosovitskiy 2020 (a head of 1,000 classes on ViT-B/16)."""
    assert ROWS["resnet50"]["parameters"] == 25_557_032
    assert ROWS["legacy_xception"]["parameters"] == 22_855_952
    assert ROWS["inception_v3"]["parameters"] == 23_834_568
    assert ROWS["mobilenetv2_100"]["parameters"] == 3_504_872
    assert ROWS["vit_base_patch16_224"]["parameters"] == 86_567_656
    published = {"resnet50": 4.1e9, "vgg16": 15.5e9, "inception_v3": 5.7e9, "legacy_xception": 8.4e9, "mobilenetv2_100": 0.30e9}
    for name, count in published.items():
        assert ROWS[name]["macs"] == pytest.approx(count, rel=0.01)


def test_measurements_are_nearly_complete() -> None:
    """What could not be measured is null; that is rare."""
    assert len(ROWS) > 1300
    for key in ("parameters", "macs", "features", "smallest"):
        assert sum(key in row for row in ROWS.values()) > 0.99 * len(ROWS), key


# --------------------------------------------------------------------------------------------------------- the file


@pytest.fixture(scope="module")
def installed() -> dict[str, list[dict[str, Any]]]:
    """What the installed libraries say of their networks."""
    return backbones.survey()


@pytest.mark.slow
def test_the_script_measures_the_values_of_the_table(installed: dict[str, list[dict[str, Any]]]) -> None:
    for name in FEW:
        facts = plain(survey.measure(from_json(NetworkEntry, installed[name][0], "survey")))
        assert {key: ROWS[name][key] for key in MEASURED} == {key: facts[key] for key in MEASURED}, name
    classics = {n: survey.measure_classic(n) for n in CLASSICS if n not in installed and n not in index.ALIASES}
    assert survey.rows({}, classics) == {name: ROWS[name] for name in classics}


def test_the_file_is_written_as_the_script_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "version", VERSIONS.__getitem__)
    assert survey.text(ROWS) == index.TABLE.read_text(encoding="utf-8")


def test_the_table_gives_what_the_libraries_say(
    installed: dict[str, list[dict[str, Any]]], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other versions may add networks and weights, and correct a few; those that both have are the same."""
    monkeypatch.setattr(index, "version", VERSIONS.__getitem__)
    shipped = {(name, e["tag"]): e for name, entries in index.library(cache).items() for e in entries}
    library = {(name, e["tag"]): e for name, entries in installed.items() for e in entries}
    both = shipped.keys() & library.keys()
    assert len(both) > 0.95 * len(shipped)
    assert sum(shipped[key] == library[key] for key in both) > 0.99 * len(both)
    assert not cache.names()


def test_the_file_is_small_and_in_order() -> None:
    names = [line.split('"')[1] for line in index.TABLE.read_text(encoding="utf-8").splitlines()[1:-1]]
    assert names == sorted(names) == list(ROWS)
    assert index.TABLE.stat().st_size < 700_000


def test_lists_of_other_library_versions_are_read_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def other() -> dict[str, list[dict[str, Any]]]:
        asked.append(1)
        entry = index.lengthened({"tag": "new"}, "resnet50", "timm")
        return {"resnet50": [entry], "newnet": [entry | {"architecture": "newnet"}]}

    monkeypatch.setattr(index, "version", lambda package: "0.0")
    monkeypatch.setattr(backbones, "survey", other)
    for _ in range(2):
        rows = {row["network"]: row for row in networks.table("*net*", cache=cache)}
        assert rows["resnet50"]["weights"] == "new" and rows["resnet50"]["macs"] == ROWS["resnet50"]["macs"]
        assert rows["newnet"]["macs"] is None and rows["newnet"]["features"] is None
        assert "vgg16" not in rows
    assert len(asked) == 1
    found = index.find("newnet", cache)
    assert found is not None and found.hub == "timm/resnet50.new"


def test_entries_are_shortened_without_loss() -> None:
    plain = index.lengthened({}, "a", "torchvision")
    for entry in (
        plain,
        plain | {"tag": "x", "source": "timm", "hub": "timm/a.x"},
        plain | {"tag": "x", "source": "timm", "hub": ""},
        plain | {"classes": 0, "preprocess": plain["preprocess"] | {"fit": "squash", "size": [8, 9]}},
    ):
        assert index.lengthened(index.shortened(entry, "a"), "a", entry["source"]) == entry
    assert index.shortened(plain, "a") == {}


# ------------------------------------------------------------------------------------------------------ what people see


def test_classic_networks_are_listed() -> None:
    rows = {row["network"]: row for row in networks.table()}
    for name, classic in CLASSICS.items():
        assert name in rows, name
        if rows[name]["source"] == "sightline":
            assert rows[name]["weights"] == "" and rows[name]["pretrained_on"] == "nothing"
            assert rows[name]["year"] == classic.year and rows[name]["smallest"] == classic.smallest
    assert rows["lenet5"]["parameters"] == 61_706 and rows["happy_cnn"]["parameters"] == 37_569
    assert rows["resnet50"]["source"] == "timm" and rows["xception"]["source"] == "timm"


def test_xception_is_found_by_the_name_of_its_paper() -> None:
    entry = index.find("xception", Cache())
    assert entry is not None and entry.architecture == "legacy_xception"
    tagged = index.find(f"xception.{entry.tag}", Cache())
    assert tagged == entry
    row = next(row for row in networks.table("xception") if row["network"] == "xception")
    assert row["parameters"] == 22_855_952 and row["year"] == 2016 and entry.tag in row["weights"]


@pytest.mark.slow
def test_the_list_needs_no_torch_on_a_fresh_machine(python: Callable[..., Any], tmp_path: Path) -> None:
    """With the versions that the table was made from."""
    fresh = {"SIGHTLINE_CACHE": str(tmp_path / "fresh")}
    code = f"from sightline.networks import index\nindex.version = {VERSIONS}.__getitem__\n"
    code += "from sightline.cli import main\nmain()\n"
    ended = python(code, "networks", "--json", env=fresh)
    assert ended.code == 0, ended.err
    assert not ended.modules & {"torch", "torchvision", "timm", "openvino", "numpy.testing", "sklearn"}
    rows = json.loads(ended.out)
    assert len(rows) > 1300
    keys = ["network", "parameters", "macs", "image_size", "features", "weights", "weights_at", "pretrained_on", "licence"]
    keys += ["year", "paper", "smallest", "source"]
    assert all(list(row) == keys for row in rows)
    assert not (tmp_path / "fresh").exists()
    ended = python(code, "networks", "resnet5O", env=fresh)
    assert ended.code == 2 and "did you mean 'resnet50'" in ended.err


# -------------------------------------------------------------------------------------------------------------- papers


def test_papers_cover_nearly_all() -> None:
    without = [n for n, row in ROWS.items() if row["source"] != "sightline" and papers.paper(n) is None]
    assert len(without) < 0.02 * len(ROWS), without


def test_each_paper_is_cited_with_its_year() -> None:
    for key, paper in papers.papers().items():
        assert paper.cited.split(", ")[0].endswith(f" {paper.year}"), key
        _, mark, number = paper.cited.partition("arXiv:")
        assert not mark or 2000 + int(number[:2]) == paper.year or number.startswith("9"), key


def test_every_paper_is_cited() -> None:
    cited = {papers.paper(name) for name in ROWS}
    assert set(papers.papers().values()) <= cited


@pytest.mark.parametrize(
    ("name", "year"),
    [
        ("resnet50", 2015),
        ("resnetv2_50", 2016),
        ("seresnet50", 2017),
        ("vit_base_patch16_siglip_224", 2023),
        ("eva02_base_patch16_clip_224", 2023),
    ],
)
def test_the_longest_fitting_name_decides(name: str, year: int) -> None:
    found = papers.paper(name)
    assert found is not None and found.year == year


# ------------------------------------------------------------------------------------------------------------- smallest


def test_smallest_ignores_sizes_that_work_by_coincidence() -> None:
    """64 works by chance: 72 and what is above up to 96 do not."""
    assert survey.smallest(lambda side: side in (8, 64) or side >= 96, 224) == 96
    assert survey.smallest(lambda side: side >= 75, 299) == 80
    assert survey.smallest(lambda side: side % 16 == 0, 224, 16) == 16
    assert survey.smallest(lambda side: side % 14 == 0 and side > 28, 518, 14) == 42
    assert survey.smallest(lambda side: side % 4 == 0, 224, 4) == 8
    assert survey.smallest(lambda side: side == 240, 240) == 240
    assert survey.smallest(lambda side: False, 224) is None


def test_macs_follow_the_area_of_the_input() -> None:
    lite, large = networks.macs_of("tf_efficientnet_lite0", (224, 224)), networks.macs_of("resnet50", (224, 224))
    assert lite == pytest.approx(0.39e9, rel=0.05) and large == pytest.approx(4.1e9, rel=0.05)
    assert networks.macs_of("tf_efficientnet_lite0.in1k", (112, 224)) == pytest.approx(lite / 2)
    inception = networks.macs_of("inception_v3", (299, 299))
    assert inception == pytest.approx(5.7e9, rel=0.05)
    assert networks.macs_of("my_net.py:build", (64, 64)) is None
