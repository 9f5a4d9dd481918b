"""A classifier's file: the same bytes, the same answers, and a clear word about every file that is not whole or not ours."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from sightline import classifier, networks
from sightline.classifier import Classifier
from sightline.errors import ModelFileError, RequestError
from sightline.records import Backbone, Card, Head, Preprocess, Recipe
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


def test_a_file_comes_back_with_the_same_answers_and_the_same_bytes(tmp_path: Path, cache: Cache) -> None:
    before = make(cache, seen=np.array([3, 5], dtype=np.uint64))
    file = before.save(tmp_path / "m.safetensors")
    after = classifier.load(file)
    assert after.card == before.card
    np.testing.assert_array_equal(after.predict(images(4), cache=cache).probs, before.predict(images(4), cache=cache).probs)
    assert after.save(tmp_path / "n.safetensors").read_bytes() == file.read_bytes()
    assert after.was_trained_on([f"{3:016x}" + "0" * 48, "f" * 64]).tolist() == [True, False]


def test_one_image_and_a_batch_get_the_same_answer(cache: Cache) -> None:
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


def test_what_is_not_ours_or_not_whole_is_said(tmp_path: Path, cache: Cache) -> None:
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


def test_weights_that_are_not_numbers_are_named(tmp_path: Path, cache: Cache) -> None:
    model = make(cache)
    model.head.arrays["weights"][0, 0] = np.nan
    with pytest.raises(ModelFileError, match=r"head\.weights"):
        classifier.load(model.save(tmp_path / "m.safetensors"))


def test_the_users_own_code_is_asked_for_and_never_run_from_the_file(tmp_path: Path, cache: Cache) -> None:
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
        {str(tmp_path / "bare" / "out.png"): "link: it leads out of the folder"},
    )
    model = make(cache)
    with pytest.raises(RequestError, match=r"no image in .*bare; 1 cannot be opened, such as .*out.png: link"):
        model.predict(tmp_path / "bare", cache=cache)
    told = model.predict([tmp_path / "bare", tmp_path / "in"], cache=cache)
    assert [Path(p).name for p in told.paths] == ["x.png"] and [Path(p).name for p in told.errors] == ["out.png"]
    with pytest.raises(RequestError, match="does not exist"):
        classifier.load(tmp_path / "bare")
    (tmp_path / "bare" / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RequestError, match="keeps scores and no classifier"):
        classifier.load(tmp_path / "bare")
    with pytest.raises(RequestError, match="there is no image in"):
        make(cache).predict([tmp_path / "bare"], cache=cache)
