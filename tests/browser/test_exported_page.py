"""The exported web page predicts in real browsers what the classifier predicts, offline, from `file://`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sightline as sl
from sightline import pixels
from sightline.commands.export import export
from sightline.store import Cache
from tests.browser.drive import PROGRAMS, browser, program_of, wait_for

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.browser, pytest.mark.slow]
STARTED = "document.body && (document.body.dataset.readySeconds || document.getElementById('status').className === 'bad')"
CARDS = "[...document.querySelectorAll('.card')]"


def page_of(folder: Path, name: str) -> Iterator[Any]:
    """Yield an open page, once the classifier has started."""
    if program_of(name) is None:
        pytest.skip(f"{name} is not installed")
    with browser(name, (folder / "model.html").as_uri()) as opened:
        wait_for(opened, STARTED)
        assert opened.evaluate("document.getElementById('status').textContent").startswith("Ready")
        yield opened


def predicted(page: Any, files: list[Path]) -> list[Any]:
    """Choose files and return the probabilities that the page shows for each, or its message."""
    for start in range(0, len(files), 10):
        page.choose("#file", files[start : start + 10])
        done = f"{CARDS}.filter((c) => c.dataset.probabilities || c.dataset.error).length"
        wait_for(page, f"{done} === {min(len(files), start + 10)}")
    cards = page.evaluate(f"{CARDS}.map((c) => [c.dataset.name, c.dataset.probabilities || c.dataset.error])")
    found = dict(cards)
    return [json.loads(found[f.name]) if found[f.name][0] == "[" else found[f.name] for f in files]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of pixels with a hostile class name, exported as a page."""
    made = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (30, 30, 40, 3)) + 60 * (np.arange(30) % 3)[:, None, None, None]
    labels = np.array(["<img src=x onerror=alert(1)>", "b</script>", "c"])[np.arange(30) % 3]
    model = sl.ImageClassifier("pixels", "ridge", image_size=16, cache=made / "cache").fit(images.astype(np.uint8), labels)
    model.save(made / "classifier.safetensors")
    export(made / "classifier.safetensors", "html", made, allow_difference=True, cache=Cache(made / "cache"))
    return made


def photographs(folder: Path) -> list[Path]:
    """Write two photographs in several formats and orientations, and images with transparency."""
    from sklearn.datasets import load_sample_images

    folder.mkdir()
    files = []
    for number, array in enumerate(load_sample_images().images):
        image = Image.fromarray(array)
        for suffix, options in (("png", {}), ("webp", {"lossless": True}), ("jpg", {"quality": 90}), ("bmp", {})):
            files.append(folder / f"{number}.{suffix}")
            image.resize((91, 130)).save(files[-1], **options)
        for orientation in (3, 6):
            exif = Image.Exif()
            exif[0x0112] = orientation
            files.append(folder / f"{number} turned {orientation}.jpg")
            image.resize((130, 61)).save(files[-1], exif=exif, quality=95)
        files.append(folder / f"{number} transparent.png")
        image.resize((60, 70)).convert("RGBA").save(files[-1])
        alpha = np.zeros((70, 60), dtype=np.uint8)
        alpha[20:50] = 255
        clear = image.resize((60, 70))
        clear.putalpha(Image.fromarray(alpha))
        clear.save(files[-1])
    return files


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_predicts_what_the_classifier_predicts(name: str, folder: Path, tmp_path: Path) -> None:
    files = photographs(tmp_path / "photographs")
    expected = sl.predict(folder / "classifier.safetensors", files).probs
    (tmp_path / "photographs" / "text.jpg").write_bytes(b"no image")
    for page in page_of(folder, name):
        answers = predicted(page, files)
        difference = np.abs(np.array(answers) - expected).max(axis=1)
        turned = np.array(["turned" in file.name for file in files])
        assert difference[~turned].max() < 1e-4, dict(zip([f.name for f in files], difference, strict=True))
        assert difference[turned].max() < 1e-2  # the classifier resizes before it turns
        assert page.evaluate("document.querySelectorAll('img').length") == 0  # class names are text
        page.choose("#file", [tmp_path / "photographs" / "text.jpg"])
        wait_for(page, f"{CARDS}.some((c) => c.dataset.error)")
        assert "cannot read" in page.evaluate(f"{CARDS}.find((c) => c.dataset.error).dataset.error")
        if hasattr(page, "requests"):
            assert [r for r in page.requests if not r.startswith(("file:", "blob:"))] == []


def test_pixels_in_javascript_are_those_of_the_decoder(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    preprocess = sl.load(folder).card.backbone.preprocess
    for page in page_of(folder, "chromium"):
        for size in ((40, 60), (300, 90), (90, 300), (16, 16), (7, 5)):
            for channels in (3, 4):
                array = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
                if channels == 4:
                    array[..., 3] = np.where(array[..., 3] > 128, 255, 0)  # a canvas rounds the colours behind other alphas
                    array[array[..., 3] == 0] = 0
                data = io.BytesIO()
                Image.fromarray(array).save(data, "PNG")
                numbers = ",".join(map(str, data.getvalue()))
                blob = f"new Blob([new Uint8Array([{numbers}])], {{type: 'image/png'}})"
                answer = page.evaluate(f"decode({blob}).then(({{image}}) => ask(image, true)).then((a) => a.pixels[0])")
                expected = pixels.decode_array(array, preprocess)
                assert np.array_equal(np.array(answer, dtype=np.uint8).reshape(expected.shape), expected), (size, channels)


def test_a_damaged_page_says_so(folder: Path, tmp_path: Path) -> None:
    text = (folder / "model.html").read_text(encoding="utf-8")
    place = text.index('id="data-model">') + 2000
    other = "A" if text[place] != "A" else "B"
    (tmp_path / "model.html").write_text(text[:place] + other + text[place + 1 :], encoding="utf-8")
    if program_of("chromium") is None:
        pytest.skip("chromium is not installed")
    with browser("chromium", (tmp_path / "model.html").as_uri()) as page:
        wait_for(page, STARTED)
        assert "damaged" in page.evaluate("document.getElementById('status').textContent")


@pytest.mark.realdata
@pytest.mark.parametrize("name", PROGRAMS)
def test_photographs_with_a_real_network(name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_WEIGHTS", str(shared / "weights"))
    recipe = sl.Recipe(method="features", backbone="mobilenetv2_100", head="logistic")
    run = sl.fit(shared / "data" / "flowers", recipe, out=tmp_path / "run")
    done = export(run, "html", tmp_path / "out")
    assert done.record.bytes < 13e6
    files = sorted((shared / "data" / "flowers").rglob("*.jpg"))[::10]
    expected = sl.predict(run, files).probs
    for page in page_of(tmp_path / "out", name):
        difference = np.abs(np.array(predicted(page, files)) - expected)
        assert difference.max() < 0.02
