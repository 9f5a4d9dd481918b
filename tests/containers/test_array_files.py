"""Images in .npz and HDF5 files: what is recognised, what is refused, and that the same pixels have the same hash."""

from __future__ import annotations

import builtins
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline import catalog, containers, pixels
from sightline.errors import DataError, RequestError, SightlineError
from sightline.records import Preprocess

h5py = pytest.importorskip("h5py")
X = np.random.default_rng(0).integers(0, 256, (12, 16, 20, 3), dtype=np.uint8)
Y = np.arange(12) % 3
NAMES = np.array(["cat", "dog", "owl"])
LABELS = [("cat", "dog", "owl")[i] for i in Y]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def npz(file: Path, **arrays: Any) -> Path:
    np.savez(file, **arrays)
    return file


def compressed(file: Path, **arrays: Any) -> Path:
    np.savez_compressed(file, **arrays)
    return file


def hdf5(file: Path, **arrays: Any) -> Path:
    with h5py.File(file, "w") as h5:
        for name, values in arrays.items():
            h5[name.replace("__", "/")] = values.astype("S") if np.asarray(values).dtype.kind == "U" else values
    return file


def chunked(file: Path, **arrays: Any) -> Path:
    with h5py.File(file, "w") as h5:
        for name, values in arrays.items():
            values = np.asarray(values)
            values = values.astype("S") if values.dtype.kind == "U" else values
            h5.create_dataset(name, data=values, compression="gzip", chunks=(min(5, len(values)), *values.shape[1:]))
    return file


WRITERS: dict[str, tuple[str, Callable[..., Path]]] = {
    "npz": ("x.npz", npz),
    "compressed npz": ("x.npz", compressed),
    "hdf5": ("x.h5", hdf5),
    "compressed hdf5": ("x.hdf5", chunked),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_pixels_have_the_same_hash_in_every_form(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    found = catalog.scan(write(tmp_path / name, images=X, labels=Y, class_names=NAMES))
    assert found.paths == [f"{name}#{i}" for i in range(12)] and found.root == tmp_path
    assert found.column("label") == LABELS
    reference = catalog.scan(npz(tmp_path / "reference.npz", x=X, y=Y))
    assert found.column("content") == reference.column("content")
    assert (found.column("width")[0], found.column("height")[0], found.column("mode")[0]) == (20, 16, "RGB")
    array = pixels.decode(found.file(found.paths[7]), Preprocess(size=(16, 20), fit="squash", crop_fraction=1.0))
    assert np.array_equal(array, X[7])


CONVENTIONS: dict[str, dict[str, Any]] = {
    "Keras": {"x_train": X[:8], "y_train": Y[:8], "x_test": X[8:], "y_test": Y[8:]},
    "capitals": {"X_train": X[:8], "Y_train": Y[:8], "X_test": X[8:], "Y_test": Y[8:]},
    "joined": {"xtrain": X[:8], "ytrain": Y[:8], "xtest": X[8:], "ytest": Y[8:]},
    "camel": {"trainX": X[:8], "trainY": Y[:8], "testX": X[8:], "testY": Y[8:]},
    "Happy House": {"train_set_x": X[:8], "train_set_y": Y[None, :8], "test_set_x": X[8:], "test_set_y": Y[None, 8:]},
    "MedMNIST": {"train_images": X[:8], "train_labels": Y[:8, None], "test_images": X[8:], "test_labels": Y[8:, None]},
    "equal sizes": {"x_train": X[:6], "y_train": Y[:6], "x_test": X[6:], "y_test": Y[6:]},
    "groups": {"train__images": X[:8], "train__labels": Y[:8], "test__images": X[8:], "test__labels": Y[8:]},
}


@pytest.mark.parametrize("kind", CONVENTIONS)
def test_splits_are_recognised_by_name(tmp_path: Path, kind: str) -> None:
    arrays = CONVENTIONS[kind]
    for write, name in ((npz, "a.npz"), (hdf5, "a.h5")):
        named = {k.replace("__", "/") if write is npz else k: v for k, v in arrays.items()}
        found = catalog.scan(write(tmp_path / name, **named))
        assert found.column("label") == [str(v) for v in Y]
        first_test = 6 if kind == "equal sizes" else 8
        assert found.column("split") == ["train"] * first_test + ["test"] * (12 - first_test)


SINGLE: dict[str, dict[str, Any]] = {
    "arr": {"arr_0": X, "arr_1": Y},
    "labels first": {"labels": Y, "data": X},
    "one-hot": {"x": X, "y": np.eye(3)[Y]},
    "one-hot columns": {"x": X, "y": np.eye(3, dtype=int)[Y].T},
    "bytes": {"images": X, "labels": np.array([str(v) for v in Y], dtype="S1")},
    "floats": {"images": X / 255.0, "targets": Y.astype(float)},
    "floats to 255": {"images": X.astype(np.float32), "targets": Y.astype(np.uint8)},
    "wide integers": {"images": X.astype(np.int64), "label": Y},
    "channels first": {"images": X.transpose(0, 3, 1, 2), "label": Y},
    "ids beside": {"images": X, "label": Y, "ids": np.arange(12)},
    "masks beside": {"images": X, "masks": X[..., 0] > 9, "label": Y},
    "class list": {"images": X, "y": Y, "list_classes": np.array([0, 1, 2])},
    "a test set alone": {"test_set_x": X, "test_set_y": Y},
    "one number each": {"x": X, "y": Y.reshape(12, 1, 1, 1)},
}


@pytest.mark.parametrize("kind", SINGLE)
def test_images_and_labels_are_recognised_by_shape_and_name(tmp_path: Path, kind: str) -> None:
    found = catalog.scan(npz(tmp_path / "a.npz", **SINGLE[kind]))
    assert found.column("label") == [str(v) for v in Y] and set(found.column("split")) == {None}
    assert found.column("content") == catalog.scan(npz(tmp_path / "b.npz", x=X, y=Y)).column("content")
    assert any(note.startswith("a.npz: images") for note in found.notes)


def test_grey_images_of_each_shape_are_read(tmp_path: Path) -> None:
    for number, values in enumerate((X[..., 0], X[..., :1])):
        found = catalog.scan(npz(tmp_path / f"{number}.npz", x=values, y=Y))
        assert found.column("mode") == ["L"] * 12 and not any(found.column("problem"))


def test_deep_and_negative_values_keep_their_range(tmp_path: Path) -> None:
    for number, values in enumerate((X.astype(np.uint16) * 200, X / 100.0 - 1)):
        found = catalog.scan(npz(tmp_path / f"{number}.npz", x=values, y=Y))
        low, high = pixels.value_range(found.files()) or (0, 0)
        assert low < np.quantile(values, 0.01) and high > np.quantile(values, 0.99)


AMBIGUOUS: dict[str, tuple[dict[str, Any], str]] = {
    "several labels": ({"images": X, "fine_labels": Y, "coarse_labels": Y // 2}, "--label-column 'fine_labels'"),
    "several images": ({"left_images": X, "right_images": X, "y": Y}, "--path-column 'left_images'"),
    "no images": ({"y": Y, "flat": X.reshape(12, -1)}, "reshape"),
    "too few labels": ({"x": X, "y": Y[:5]}, "one label for each image"),
    "several ones": ({"x": X, "y": np.ones((12, 3), int)}, "one label for each image"),
    "no ones": ({"x": X, "y": np.zeros((12, 3), int)}, "one label for each image"),
    "measurements": ({"x": X, "y": Y + 0.5}, "whole number"),
    "pickle": ({"x": X, "y": np.array([{"a": 1}] * 12, dtype=object)}, "str"),
    "pickled images": ({"x": np.array([X[0]] * 11 + [None], dtype=object), "y": Y[:12]}, "(n, height, width)"),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_unclear_or_unsafe_arrays_are_refused_with_a_remedy(tmp_path: Path, kind: str) -> None:
    arrays, hint = AMBIGUOUS[kind]
    with pytest.raises(SightlineError) as caught:
        catalog.scan(npz(tmp_path / "a.npz", **arrays))
    assert hint in str(caught.value.hint) and "a.npz" in caught.value.message


def test_arrays_can_be_named(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", left_images=X, right_images=X[::-1], fine_labels=Y, coarse_labels=Y // 2)
    found = catalog.scan(file, path_column="right_images", label_column="coarse_labels")
    assert found.paths[3] == "a.npz#right_images/3" and found.classes == ("0", "1")
    assert containers.digest(found.file("a.npz#right_images/0")) == containers.digest(f"{file}#left_images/11")
    with pytest.raises(RequestError, match="no array in"):
        catalog.scan(file, path_column="middle_images")


def test_an_unlabelled_file_is_predicted_but_not_scanned(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", images=X)
    assert [str(f) for f in catalog.image_files(file)[0]] == [f"{file}#{i}" for i in range(12)]
    with pytest.raises(DataError, match="has a class"):
        catalog.scan(file)


def test_a_folder_of_array_files_is_split_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    hdf5(tmp_path / "happy" / "train_happy.h5", train_set_x=X[:8], train_set_y=Y[:8])
    hdf5(tmp_path / "happy" / "test_happy.h5", test_set_x=X[8:], test_set_y=Y[8:])
    found = catalog.scan(tmp_path / "happy")
    assert min(zip(found.paths, found.column("split"), strict=True)) == ("test_happy.h5#0", "test")
    assert found.column("split").count("train") == 8


def external_link(file: Path, other: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5["x"], h5["y"] = X, Y
        h5["z"] = h5py.ExternalLink(other.name, "/x")


def external_storage(file: Path, other: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5["y"] = Y
        h5.create_dataset("x", shape=X.shape, dtype=np.uint8, external=[(str(other), 0, X.nbytes)])


def virtual(file: Path, other: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5["y"] = Y
        layout = h5py.VirtualLayout(shape=X.shape, dtype=np.uint8)
        layout[:] = h5py.VirtualSource(str(other), "x", shape=X.shape)
        h5.create_virtual_dataset("x", layout)


def claims_more(file: Path, other: Path) -> None:
    with h5py.File(file, "w") as h5:
        h5["y"] = Y
        h5.create_dataset("x", shape=(10_000_000, 16, 20, 3), dtype=np.uint8, chunks=(1, 16, 20, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (external_link, "a link to another file"),
        (external_storage, "are in another file"),
        (virtual, "virtual data set"),
        (claims_more, "claims the shape"),
    ],
)
def test_hdf5_that_leads_to_other_files_or_claims_too_much_is_refused(
    tmp_path: Path, build: Callable[[Path, Path], None], message: str
) -> None:
    hdf5(tmp_path / "other.h5", x=X)
    build(tmp_path / "a.h5", tmp_path / "other.h5")
    with pytest.raises(DataError, match=message):
        catalog.scan(tmp_path / "a.h5")
    assert containers.read_bytes(f"{tmp_path / 'other.h5'}#0")


def test_a_group_that_contains_itself_is_read_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["x"], h5["y"] = X, Y
        h5["again"] = h5["/"]
    assert len(catalog.scan(tmp_path / "a.h5")) == 12


@pytest.mark.parametrize("name", ["a.h5", "a.npz"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    (hdf5 if name.endswith("h5") else npz)(file, x=X, y=Y)
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged"):
        catalog.scan(file)
    file.write_bytes(b"no such file")
    with pytest.raises(DataError):
        catalog.scan(file)


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", x=X, y=Y)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        data = archive.read("x.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", data)
    with pytest.raises(DataError, match="twice"):
        catalog.scan(tmp_path / "a.npz")


def test_without_h5py_the_error_gives_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdf5(tmp_path / "a.h5", x=X, y=Y)
    imported = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RequestError) as caught:
        catalog.scan(tmp_path / "a.h5")
    assert caught.value.hint == 'pip install "sightline[hdf5]"'


def test_an_image_that_changed_since_the_scan_is_noticed(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=X, y=Y)
    found = catalog.scan(file)
    npz(file, x=X[::-1].copy(), y=Y)
    os.utime(file, ns=(1, 1))
    (batch,) = pixels.batches(found.files(), Preprocess(size=(8, 8)), batch_size=12, contents=found.column("content"))
    assert {error.kind for error in batch.errors.values()} == {"changed"}


def test_a_missing_row_is_a_missing_image(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", x=X, y=Y)
    assert containers.is_file(f"{file}#11") and not containers.is_file(f"{file}#12") and not containers.is_file(f"{file}#z/1")
    (tmp_path / "t.csv").write_text("path,label\na.npz#11,a\na.npz#12,b\n", encoding="utf-8")
    assert catalog.scan(tmp_path / "t.csv").column("problem") == [None, "missing: there is no such file"]
