"""Weight files: locating, reading, matching to networks, refusing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sightline import networks
from sightline.errors import WeightsError
from sightline.networks import hub, weights
from sightline.networks.entry import NetworkEntry
from sightline.records import Preprocess

EXPECTED = {"conv.weight": torch.zeros(4, 3, 3, 3), "bn.weight": torch.zeros(4), "bn.num_batches_tracked": torch.tensor(0)}


def file_of(folder: Path, name: str, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / name)
    return folder / name


def good() -> dict[str, Tensor]:
    return {"conv.weight": torch.ones(4, 3, 3, 3), "bn.weight": torch.ones(4)}


def test_fits_and_is_float32() -> None:
    half = {k: v.half() for k, v in good().items()} | {"fc.weight": torch.ones(7, 4), "bn.num_batches_tracked": torch.tensor(9)}
    fitted = weights.fit(EXPECTED, half, "f", classifier=("fc",))
    assert set(fitted) == {"conv.weight", "bn.weight"}
    assert all(v.dtype == torch.float32 for v in fitted.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bn.weight": None}, "bn.weight is missing"),
        ({"odd.weight": torch.ones(2)}, "odd.weight is unexpected"),
        ({"conv.weight": torch.ones(4, 3, 5, 5)}, "conv.weight has shape (4, 3, 5, 5), not (4, 3, 3, 3)"),
        ({"bn.weight": torch.tensor([1.0, float("nan"), 1, 1])}, "NaN or infinity in the tensor bn.weight"),
        ({"bn.weight": torch.tensor([1.0, float("inf"), 1, 1])}, "NaN or infinity in the tensor bn.weight"),
        ({"fc.weight": torch.ones(7, 4)}, "fc.weight is unexpected"),
    ],
)
def test_errors_name_tensors_that_do_not_fit(change: dict[str, Tensor | None], words: str) -> None:
    found = {k: v for k, v in (good() | change).items() if v is not None}
    with pytest.raises(WeightsError) as error:
        weights.fit(EXPECTED, found, "my.safetensors")
    assert words in str(error.value) and "my.safetensors" in str(error.value)


def test_a_tensor_transposed_in_shape_is_refused() -> None:
    """The same number of values is not the same shape."""
    with pytest.raises(WeightsError):
        weights.fit({"a.weight": torch.zeros(2, 6)}, {"a.weight": torch.zeros(6, 2)}, "f")


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t}, lambda t: {"model": t, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_wrappers(tmp_path: Path, wrap: object, prefix: str) -> None:
    torch.save(wrap({prefix + k: v for k, v in good().items()}), tmp_path / "w.pth")  # type: ignore[operator]
    assert set(weights.read(tmp_path / "w.pth")) == set(good())


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "ran"))
    torch.save({"state_dict": good(), "x": Bomb()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"x": Bomb()}))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="refused"):
            weights.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_damaged_files(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.safetensors", good())
    file.write_bytes(file.read_bytes()[:-7])
    torch.save(good(), tmp_path / "b.pth")
    (tmp_path / "b.pth").write_bytes((tmp_path / "b.pth").read_bytes()[:200])
    (tmp_path / "c.safetensors").write_bytes(b"")
    (tmp_path / "d.pth").write_bytes(b"<html>not found</html>")
    for name in ("a.safetensors", "b.pth", "c.safetensors", "d.pth", "absent.pth"):
        with pytest.raises(WeightsError) as error:
            weights.read(tmp_path / name)
        assert name in str(error.value)


def test_folders_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", os.pathsep.join(map(str, (one, two))))
    assert weights.look_up("net") is None
    (one / "net.pth").touch()
    assert weights.look_up("net") == one / "net.pth"
    (two / "net.safetensors").touch()
    assert weights.look_up("net") == two / "net.safetensors", "safetensors come first, whatever the folder"


def test_hash_is_of_names_types_shapes_and_values() -> None:
    a = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.zeros((), np.int64)}
    base = networks.weights_hash(a)
    assert networks.weights_hash(dict(reversed(a.items()))) == base
    assert networks.weights_hash({"x": np.asfortranarray(a["x"]), "y": a["y"]}) == base
    for other in ({"x": a["x"].reshape(3, 2)}, {"x": a["x"] + 1}, {"x": a["x"].astype(np.float64)}, {"z": a["x"]}):
        assert networks.weights_hash(other) not in (base, networks.weights_hash({"x": a["x"]}))
    assert networks.weights_hash({}) == ""


def test_missing_weights_give_the_download_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGHTLINE_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    monkeypatch.setattr(hub, "here", lambda entry: None)
    with pytest.raises(WeightsError) as error:
        networks.describe("resnet10t")
    text = str(error.value)
    assert "huggingface.co/timm/resnet10t.c3_in1k/resolve/main/model.safetensors" in text
    assert "resnet10t.safetensors" in text and "SIGHTLINE_WEIGHTS" in text


def test_an_unreachable_host_is_requested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    hub.reachable.cache_clear()
    assert not hub.reachable("https://nowhere.invalid") and not hub.reachable("https://nowhere.invalid")
    assert len(asked) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.reachable.cache_clear()
    assert not hub.reachable("https://nowhere.invalid") and len(asked) == 1
    hub.reachable.cache_clear()


def test_published_file_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the hub's cache is loaded without a request."""
    import timm

    theirs = timm.create_model("mobilenetv2_050").eval()
    file = file_of(tmp_path, "model.safetensors", theirs.state_dict())
    monkeypatch.delenv("SIGHTLINE_WEIGHTS", raising=False)
    monkeypatch.setattr(hub, "here", lambda entry: file)
    monkeypatch.setattr(hub, "reachable", lambda host: pytest.fail("asked the network"))
    backbone = networks.describe("mobilenetv2_050", image_size=64)
    assert (backbone.weights, backbone.licence, backbone.pretrained_on) == ("timm:lamb_in1k", "apache-2.0", "ImageNet-1k")
    arrays = networks.tensors(networks.build(backbone))
    assert np.array_equal(arrays["conv_stem.weight"], theirs.state_dict()["conv_stem.weight"].numpy())


def test_address_of_a_revision() -> None:
    entry = NetworkEntry("a", "timm", Preprocess(), tag="t", hub="org/a.t@v2")
    assert hub.address(entry) == "https://huggingface.co/org/a.t/resolve/v2/model.safetensors"
