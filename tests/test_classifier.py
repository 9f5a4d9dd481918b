"""Classifier files: round trip, validation, and clear errors for damaged and foreign files."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import classifier, heads, inputs, networks
from sightline.classifier import Classifier
from sightline.errors import ModelFileError, RequestError
from sightline.records import Backbone, Card, Head, Preprocess, Recipe, Uncertainty
from sightline.store import Cache


def make(cache: Cache, **changes: object) -> Classifier:
    """A linear classifier of 8×8 images."""
    backbone = networks.describe("pixels", image_size=8, cache=cache)
    random = np.random.default_rng(0)
    arrays = {"weights": random.normal(size=(2, 192)).astype(np.float32), "bias": np.zeros(2, np.float32)}
    card = Card(("a", "b"), backbone, "logistic", {"C": 1.0}, "features", Recipe(), temperature=1.3)
    return Classifier(card, Head("logistic", 2, {"C": 1.0}, arrays), **changes)  # type: ignore[arg-type]


def images(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def test_a_saved_classifier_has_the_same_predictions_and_the_same_bytes(tmp_path: Path, cache: Cache) -> None:
    before = make(cache, seen=np.array([3, 5], dtype=np.uint64))
    file = before.save(tmp_path / "m.safetensors")
    after = classifier.load(file)
    assert after.card == before.card
    np.testing.assert_array_equal(after.predict(images(4), cache=cache).probs, before.predict(images(4), cache=cache).probs)
    assert after.save(tmp_path / "n.safetensors").read_bytes() == file.read_bytes()
    assert after.was_trained_on([f"{3:016x}" + "0" * 48, "f" * 64]).tolist() == [True, False]


def test_one_image_and_a_batch_get_the_same_prediction(cache: Cache) -> None:
    model, batch = make(cache), images(5)
    together = model.predict(batch, cache=cache).probs
    alone = np.concatenate([model.predict([x], cache=cache).probs for x in batch])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def rewrite(file: Path, change: dict[str, object]) -> None:
    """Change the card inside a file."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    card = json.loads(head["__metadata__"]["sightline"]) | change
    head["__metadata__"]["sightline"] = json.dumps(card)
    text = json.dumps(head).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_foreign_and_damaged_files_are_refused(tmp_path: Path, cache: Cache) -> None:
    from safetensors.numpy import save_file

    file = make(cache).save(tmp_path / "m.safetensors")
    whole = file.read_bytes()
    for name, data in {"empty": b"", "text": b"hello, this is no model", "cut": whole[: len(whole) // 2]}.items():
        file.write_bytes(data)
        with pytest.raises(ModelFileError, match=r"not a Sightline classifier|damaged"):
            classifier.load(file)
        assert name
    save_file({"x": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelFileError, match="not a Sightline classifier"):
        classifier.load(tmp_path / "foreign.safetensors")
    with pytest.raises(RequestError, match="does not exist"):
        classifier.load(tmp_path / "nowhere.safetensors")
    for version, words in ((99, "newer"), (0, "older")):
        file.write_bytes(whole)
        rewrite(file, {"format": version})
        with pytest.raises(ModelFileError, match=words):
            classifier.load(file)
    file.write_bytes(whole)
    rewrite(file, {"surprise": 1})
    with pytest.raises(ModelFileError, match="surprise"):
        classifier.load(file)


def test_nan_weights_are_named(tmp_path: Path, cache: Cache) -> None:
    model = make(cache)
    model.head.arrays["weights"][0, 0] = np.nan
    with pytest.raises(ModelFileError, match=r"head\.weights"):
        classifier.load(model.save(tmp_path / "m.safetensors"))


def test_user_defined_code_must_be_passed_and_is_never_run_from_the_file(tmp_path: Path, cache: Cache) -> None:
    trap = tmp_path / "net.py"
    trap.write_text("raise SystemExit('the code in the file was run')", encoding="utf-8")
    backbone = Backbone(f"{trap}:build", "user", Preprocess(size=(8, 8)), 4)
    card = Card(("a", "b"), backbone, "logistic", {}, "features", Recipe())
    arrays = {"weights": np.zeros((2, 4), np.float32), "bias": np.zeros(2, np.float32)}
    file = Classifier(card, Head("logistic", 2, {}, arrays)).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="--code"):
        classifier.load(file).predict(images(1), cache=cache)


def test_folders_are_searched_and_missing_paths_named(tmp_path: Path, cache: Cache) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.fromarray(images(1)[0]).save(tmp_path / "in" / "x.png")
    (tmp_path / "in" / ".DS_Store").write_bytes(b"x")
    assert [f.name for f in classifier.find_images([tmp_path])[0]] == ["x.png"]
    with pytest.raises(RequestError, match="nowhere"):
        classifier.find_images([tmp_path / "nowhere"])
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "out.png").symlink_to(tmp_path / "in" / "x.png")
    assert classifier.find_images([tmp_path / "bare"]) == (
        [],
        {str(tmp_path / "bare" / "out.png"): "link: its target is outside the folder"},
    )
    model = make(cache)
    with pytest.raises(RequestError, match=r"no image in .*bare; 1 cannot be opened, such as .*out.png: link"):
        model.predict(tmp_path / "bare", cache=cache)
    told = model.predict([tmp_path / "bare", tmp_path / "in"], cache=cache)
    assert [Path(p).name for p in told.paths] == ["x.png"] and [Path(p).name for p in told.errors] == ["out.png"]
    with pytest.raises(RequestError, match="does not exist"):
        classifier.load(tmp_path / "bare")
    (tmp_path / "bare" / "best.toml").touch()
    with pytest.raises(RequestError, match="is a sweep or a search"):
        classifier.load(tmp_path / "bare")
    (tmp_path / "bare" / "best.toml").unlink()
    (tmp_path / "bare" / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match="contains scores but no classifier"):
        classifier.load(tmp_path / "bare")
    with pytest.raises(RequestError, match="there is no image in"):
        make(cache).predict([tmp_path / "bare"], cache=cache)


CLASSES = ("a", "b", "c")


def fitted(cache: Cache, kind: str = "logistic", network: str = "pixels") -> Classifier:
    """Return a classifier of three classes with fitted head, calibration, OOD detection and network weights."""
    random = np.random.default_rng(3)
    backbone = networks.describe(network, weights="random", image_size=16, cache=cache)
    tensors = networks.tensors(networks.build(backbone)) if backbone.is_network else {}
    y = np.arange(30) % 3
    values = random.normal(size=(30, backbone.features)).astype(np.float32) + y[:, None].astype(np.float32)
    rows = np.arange(30)
    settings = {"trees": 4} if kind == "forest" else {"units": [[4, 0.0]], "epochs": 1} if kind == "mlp" else {}
    head = heads.fit(kind, values, y, 3, folds=[(rows[:20], rows[20:])], settings=settings).head
    limits = {
        "scores": random.random(9),
        "labels": (np.arange(9) % 3).astype(np.int32),
        "answers": random.random(9),
        "right": np.ones(9, np.uint8),
        "bank": random.normal(size=(5, min(backbone.features, 1024))).astype(np.float16),
    }
    facts = Uncertainty(9, "validation", ood_threshold=0.5, ood_rate=0.05, ood_images=9)
    card = Card(CLASSES, backbone, kind, dict(head.settings), "features", Recipe(), temperature=1.3, uncertainty=facts)
    return Classifier(card, head, tensors, seen=np.array([3, 5], dtype=np.uint64), limits=limits)


def ensemble(cache: Cache) -> Classifier:
    """Return an ensemble of two classifiers."""
    members = tuple(dataclasses.replace(fitted(cache, kind), limits={}) for kind in ("logistic", "ridge"))
    members = tuple(dataclasses.replace(m, card=dataclasses.replace(m.card, uncertainty=Uncertainty())) for m in members)
    backbone = dataclasses.replace(members[0].card.backbone, name="ensemble", source="ensemble", features=0)
    cards = tuple(m.card for m in members)
    card = Card(CLASSES, backbone, "ensemble", {}, "ensemble", Recipe(), members=cards, weights=(0.5, 0.5))
    return Classifier(card, Head("ensemble", 3), members=members)


MADE: dict[str, Callable[[Cache], Classifier]] = {
    **{kind: lambda cache, kind=kind: fitted(cache, kind) for kind in heads.HEADS},  # type: ignore[misc]
    "cnn": lambda cache: fitted(cache, "logistic", "cnn(filters=[4, 8])"),
    "ensemble": ensemble,
}


@pytest.mark.parametrize("kind", MADE)
def test_every_flipped_bit_is_refused(kind: str, tmp_path: Path, cache: Cache) -> None:
    file = MADE[kind](cache).save(tmp_path / "m.safetensors")
    classifier.load(file)
    whole = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", whole[:8])
    start = 8 + length
    spans = {"length": (0, 8), "header": (8, start), "data": (start, len(whole))}
    for name, entry in json.loads(whole[8:start]).items():  # each tensor has its own share of the flips
        if name != "__metadata__" and entry["data_offsets"][0] < entry["data_offsets"][1]:
            spans[name] = (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
    random = np.random.default_rng(11)
    for place, (low, high) in spans.items():
        for _ in range(40 if place == "header" else 4):
            at, bit = int(random.integers(low, high)), int(random.integers(8))
            whole[at] ^= 1 << bit
            file.write_bytes(whole)
            with pytest.raises(ModelFileError):
                classifier.load(file)
            whole[at] ^= 1 << bit


def damaged(model: Classifier, part: str, name: str, value: np.ndarray | None) -> Classifier:
    """Return a classifier with one tensor replaced or left out."""
    old = dict(model.head.arrays if part == "head" else model.limits)
    old = {n: a for n, a in old.items() if n != name} | ({} if value is None else {name: value})
    if part == "limits":
        return dataclasses.replace(model, limits=old)
    return dataclasses.replace(model, head=dataclasses.replace(model.head, arrays=old))


@pytest.mark.parametrize("kind", heads.HEADS)
def test_a_head_with_a_missing_misshapen_or_infinite_tensor_is_refused_and_named(
    kind: str, tmp_path: Path, cache: Cache
) -> None:
    model = fitted(cache, kind)
    for name, array in model.head.arrays.items():
        wrong = {"flat": array.ravel() if array.ndim > 1 else array[None], "short": array[:-1], "missing": None}
        if array.dtype.kind == "f":
            wrong["infinite"] = np.full_like(array, np.inf)
        for what, value in wrong.items():
            if name == "feature_mean" and value is None:
                continue  # explanations do without
            file = damaged(model, "head", name, value).save(tmp_path / "m.safetensors")
            with pytest.raises(ModelFileError, match=r"m\.safetensors is damaged.*head\.") as raised:
                classifier.load(file)
            assert what and raised.value.hint


@pytest.mark.parametrize("name", ["scores", "labels", "answers", "right", "bank"])
def test_limits_that_do_not_fit_the_card_are_refused_and_named(name: str, tmp_path: Path, cache: Cache) -> None:
    model = fitted(cache)
    array = model.limits[name]
    narrow = array[:, :-1] if array.ndim == 2 else array[:-1]
    for value in (None, array.ravel()[None, None], narrow, array - array.dtype.type(7) if name != "bank" else array * np.inf):
        with pytest.raises(ModelFileError, match=rf"limits\.{name}"), np.errstate(all="ignore"):
            classifier.load(damaged(model, "limits", name, value).save(tmp_path / "m.safetensors"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("a", "b")}, r"head\."),
        ({"classes": ("a", "b", "c", "d")}, r"head\."),
        ({"classes": ()}, "no classes"),
        ({"classes": ("a", "b", "b")}, "'b' twice"),
        ({"classes": ("a", "", "b")}, "empty"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"threshold": 7.0}, "threshold"),
        ({"positive": "z"}, "'z'"),
        ({"crops": 3}, "crops"),
        ({"head": "logistc"}, "logistc"),
        ({"size": (0, 16)}, "size"),
        ({"size": (10**6, 10**6)}, "size"),
        ({"std": (0.0, 1.0, 1.0)}, "std"),
        ({"value_range": (5.0, 5.0)}, "value_range"),
    ],
)
def test_a_card_with_an_impossible_field_is_refused_and_the_field_named(
    changes: dict[str, object], words: str, tmp_path: Path, cache: Cache
) -> None:
    model = fitted(cache)
    if next(iter(changes)) in ("size", "std", "value_range"):
        preprocess = dataclasses.replace(model.card.backbone.preprocess, **changes)  # type: ignore[arg-type]
        changes = {"backbone": dataclasses.replace(model.card.backbone, preprocess=preprocess)}
    broken = dataclasses.replace(model, card=dataclasses.replace(model.card, **changes))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=words):
        classifier.load(broken.save(tmp_path / "m.safetensors"))


def test_json_nested_without_end_is_refused(tmp_path: Path, cache: Cache) -> None:
    file = fitted(cache).save(tmp_path / "m.safetensors")
    for depth in (100, 900, 200_000):
        rewrite(file, {"data": {"x": "DEEP"}})
        whole = file.read_bytes().replace(b'\\"DEEP\\"', b"[" * depth + b"]" * depth)
        (length,) = struct.unpack("<Q", whole[:8])
        file.write_bytes(struct.pack("<Q", length + 2 * depth - 8) + whole[8:])
        with pytest.raises(ModelFileError):
            classifier.load(file)
        file.write_bytes(struct.pack("<Q", depth) + b"[" * depth)
        with pytest.raises(ModelFileError, match="not a Sightline classifier"):
            classifier.load(file)
        fitted(cache).save(file)


def test_a_cached_problem_names_the_queried_file(tmp_path: Path, cache: Cache) -> None:
    from PIL import Image

    Image.fromarray(images(1)[0]).save(tmp_path / "whole.png")
    damaged = (tmp_path / "whole.png").read_bytes()[:60]
    model = make(cache)
    for names in (["a.png"], ["b.png", "c.png"], ["a.png", "whole.png"]):
        for name in names:
            if name != "whole.png":
                (tmp_path / name).write_bytes(damaged)
        for _ in range(2):
            errors = model.predict([tmp_path / n for n in names], cache=cache).errors
            assert set(errors) == {str(tmp_path / n) for n in names} - {str(tmp_path / "whole.png")}
            for path, why in errors.items():
                assert why.startswith(f"{path} cannot be decoded (truncated"), why
        (tmp_path / "a.png").unlink(missing_ok=True)  # the file that was named first is not there any more


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_predict_skips_a_pipe_and_lists_files_without_prediction(tmp_path: Path, cache: Cache, cli: Any) -> None:
    from PIL import Image

    make(cache).save(tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    Image.fromarray(images(1)[0]).save(tmp_path / "in" / "x.png")
    (tmp_path / "in" / "notes.txt").write_text("x")
    (tmp_path / "in" / "y.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    os.mkfifo(tmp_path / "p.jpg")
    ended = cli("predict", "m.safetensors", "in", "p.jpg", "/dev/zero", "-o", "out.csv")
    assert ended.code == 1 and "Traceback" not in ended.err
    for words in ("p.jpg is not a regular file: it is a pipe", "/dev/zero is not a regular file: it is a device"):
        assert words in ended.err
    assert "3 of 4 files have no prediction" in ended.err and "in: ignored: 1 .txt file" in ended.err
    assert "y.heic cannot be decoded" in ended.err or "y.heic is a HEIC image" in ended.err
    table = inputs.read_predictions(tmp_path / "out.csv")
    assert table.paths == ("in/x.png",) and list(table.errors) == ["in/y.heic", "p.jpg", "/dev/zero"]
    assert table.errors["p.jpg"] == "p.jpg is not a regular file: it is a pipe"
