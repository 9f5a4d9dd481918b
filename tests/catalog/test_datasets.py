"""Data sets of Hugging Face and torchvision, recognised by what they can do."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import catalog
from sightline.errors import DataError, RequestError
from sightline.store import Cache

X = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class ImageFeature:
    _type = "Image"

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class HuggingFace:
    """What Sightline uses of a data set of Hugging Face."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any]) -> None:
        self.rows, self.features, self.column_names = rows, features, list(features)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number]


class Pairs:
    """What Sightline uses of a data set of torchvision: items (image, target), a transform, and class names."""

    classes = ("cat", "dog")

    def __init__(self, labels: list[Any] | None = None, transform: Any = None) -> None:
        self.labels, self.transform = labels or [0, 1] * 3, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        image = Image.fromarray(X[number])
        return (self.transform(image) if self.transform else image), self.labels[number]


class Normalised(Pairs):
    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return X[number].transpose(2, 0, 1) / 128 - 1, 0


def hugging_face(labels: list[Any]) -> HuggingFace:
    rows = [{"img": Image.fromarray(X[i]), "kind": label, "person": f"p{i}"} for i, label in enumerate(labels)]
    return HuggingFace(rows, {"img": ImageFeature(), "kind": ClassLabel(["cat", "dog"]), "person": object()})


def test_classes_and_columns_of_hugging_face_are_kept(tmp_path: Path) -> None:
    found = catalog.scan(hugging_face([0, 1, 1, 0, -1, None]))
    assert found.column("label") == ["cat", "dog", "dog", "cat", None, None]
    assert found.column("person") == [f"p{i}" for i in range(6)]
    np.savez(tmp_path / "x.npz", x=X, y=[0, 1] * 3)
    assert found.column("content") == catalog.scan(tmp_path / "x.npz").column("content")
    assert Cache().verify() == [] and catalog.scan(hugging_face([0, 1, 1, 0, -1, None])).root == found.root


def test_files_of_hugging_face_keep_their_bytes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(X[0]).save(stream, "JPEG")
    Image.fromarray(X[1]).save(tmp_path / "1.png")
    images = [{"bytes": stream.getvalue(), "path": None}, {"bytes": None, "path": str(tmp_path / "1.png")}]
    rows = [{"image": image, "label": i} for i, image in enumerate(images)]
    found = catalog.scan(HuggingFace(rows, {"image": ImageFeature(), "label": ClassLabel(["a", "b"])}))
    contents = {hashlib.sha256(data).hexdigest() for data in (stream.getvalue(), (tmp_path / "1.png").read_bytes())}
    assert set(found.column("content")) == contents and not any(found.column("problem"))


@pytest.mark.parametrize("several", [[1, 1], np.array([1, 1, 0])])
def test_several_labels_are_refused(several: Any) -> None:
    with pytest.raises(DataError, match="has several labels"):
        catalog.scan(hugging_face([0, 1, several]))
    with pytest.raises(DataError, match="has several labels"):
        catalog.scan(Pairs([0, 1, several]))


def test_pairs_are_read_without_their_transform(tmp_path: Path) -> None:
    dataset = Pairs(transform=lambda image: np.asarray(image, dtype=float).transpose(2, 0, 1) / 128 - 1)
    found = catalog.scan(dataset)
    assert found.column("label") == ["cat", "dog"] * 3 and dataset.transform is not None
    np.savez(tmp_path / "x.npz", x=X, y=[0, 1] * 3)
    assert found.column("content") == catalog.scan(tmp_path / "x.npz").column("content")


def test_a_mapping_of_data_sets_is_split_by_its_keys() -> None:
    found = catalog.scan({"train": Pairs(), "validation": Pairs([0, 1]), "test": hugging_face([0, 1])})
    assert [found.column("split").count(name) for name in ("train", "val", "test")] == [6, 2, 2]


def test_subsets_and_tensors_are_read() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X.transpose(0, 3, 1, 2) / 255.0), torch.tensor([0, 1] * 3))
    assert catalog.scan(torch.utils.data.Subset(data, [0, 1])).column("label") == ["0", "1"]
    assert catalog.scan(torch.utils.data.Subset(Pairs(), [1, 3])).column("label") == ["dog", "dog"]


def test_streams_and_other_objects_are_refused() -> None:
    class Stream(HuggingFace):
        def __len__(self) -> int:
            raise TypeError

        def __iter__(self) -> Iterator[Any]:
            return iter(self.rows)

    with pytest.raises(RequestError, match="stream without a length"):
        catalog.scan(Stream([], {"image": ImageFeature()}))
    with pytest.raises(DataError, match="no column of images"):
        catalog.scan(HuggingFace([{"text": "a"}], {"text": object()}))
    with pytest.raises(DataError, match="not from 0 to 1"):
        catalog.scan(Normalised())
