"""The page Try over HTTP: the classifiers of the runs answer as `sightline serve` does."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from sightline.store import Cache, output_folder
from tests.serve.local_app.conftest import AppClient, connect


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppClient]:
    """A run whose classifier tells dark images from bright ones by their pixels."""
    runs, cache = tmp_path_factory.mktemp("runs"), Cache(tmp_path_factory.mktemp("cache"))
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 60, (40, 24, 32, 3)) + 150 * labels[:, None, None, None]
    model = sl.ImageClassifier("pixels", "logistic", image_size=16, cache=tmp_path_factory.mktemp("c"))
    model.fit(images.astype(np.uint8), np.array(["dark", "<b>bright"])[labels])
    model.save(output_folder(runs / "shades") / "classifier.safetensors")
    yield connect(runs, cache)


def ask(client: AppClient, data: bytes, **query: Any) -> tuple[int, Any]:
    headers = {"x-csrf-token": client.csrf}
    answer = client.post("/try/predict", params=query, files={"images": ("a.png", data)}, headers=headers)
    return answer.status_code, answer.json()


def half_dark() -> bytes:
    """An image that is bright but for a dark part on its left."""
    array = np.full((24, 32, 3), 200, np.uint8)
    array[:, :8] = 10
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def test_the_page_and_the_description_name_the_classifiers(client: AppClient) -> None:
    page = client.page("/try")
    assert 'id="drop"' in page and 'data-base="/try"' in page
    value = client.get("/try/model").json()
    assert (value["model"], value["models"], value["classes"]) == ("shades", ["shades"], ["<b>bright", "dark"])
    assert {"auto", "occlusion"} <= value["methods"].keys() and "images" in value["card"]["limits"]
    assert client.get("/try/model?model=../x").status_code == 404
    assert "#photo-frame" in client.get("/static/try.css").text and "loadModel" in client.get("/static/try.js").text


def test_an_image_is_predicted_explained_and_covered(client: AppClient) -> None:
    status, value = ask(client, half_dark(), heatmap=True, method="occlusion", target="dark")
    (row,) = value["predictions"]
    assert status == 200 and row["label"] == "<b>bright" and row["heatmap"].startswith("data:image/png")
    assert row["heatmap_method"] and "heatmap_error" not in row
    _, value = ask(client, half_dark(), heatmap=True, target="dark", top=1)
    assert value["predictions"][0]["heatmap"] != row["heatmap"], "another method"
    status, value = ask(client, half_dark(), cover="8,0,24,24")
    covered = value["predictions"][0]["covered"]
    assert covered["share"] == 0.75 and covered["answer_after"] == "dark" and covered["after"] < covered["before"]
    assert covered["image"].startswith("data:image/jpeg")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"heatmap": True, "method": "gradcamm"}, "gradcam"),
        ({"heatmap": True, "target": "nothing"}, "nothing"),
        ({"cover": "1,2,3"}, "is not a region"),
    ],
)
def test_wrong_parameters_are_refused(client: AppClient, query: dict[str, Any], message: str) -> None:
    status, value = ask(client, half_dark(), **query)
    assert status == 422 and message in str(value)


def test_what_cannot_be_computed_is_said_beside_the_prediction(client: AppClient) -> None:
    _, value = ask(client, half_dark(), cover="500,0,2,2")
    (row,) = value["predictions"]
    assert row["label"] == "<b>bright" and "lies beyond a.png" in row["covered"]["error"]


def test_without_a_classifier_the_page_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = connect(tmp_path_factory.mktemp("empty"), Cache(tmp_path_factory.mktemp("cache")))
    assert "No run has a classifier yet" in empty.page("/try") and empty.get("/try/model").status_code == 404
