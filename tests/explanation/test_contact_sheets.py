"""Contact sheets of `explain`: prediction, explained class, and file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sightline.commands import explain
from sightline.explanation import class_maps
from sightline.explanation.draw import contact_sheets, overlay
from sightline.explanation.draw.caption import Caption
from sightline.records import Explanation, Predictions
from sightline.store import Cache


def explanation(path: str, target: str) -> Explanation:
    return Explanation(path, target, "gradcam", "last map", np.eye(3, dtype=np.float32), (0.0, 0.0, 32.0, 32.0))


def answers(names: tuple[str, ...]) -> Predictions:
    probs = np.tile([0.999, 0.001], (len(names), 1))
    return Predictions(names, ("cat", "dog"), np.zeros(len(names), np.int64), probs)


def test_a_sheet_s_picture_has_answer_file_and_verdict() -> None:
    said = contact_sheets.caption_of(explanation("photos/cat/7.jpg", "cat"), "cat", answers(("photos/cat/7.jpg",)), "weak")
    assert said == Caption("cat", "cat", 0.999, None, "7.jpg", ("weak", ""))
    other = contact_sheets.caption_of(explanation("photos/cat/7.jpg", "dog"), "cat", answers(("photos/cat/7.jpg",)), None)
    assert (other.label, other.predicted, other.probability) == ("cat", "cat", 0.999)
    assert other.target_probability == pytest.approx(0.001) and other.verdict is None


def test_captions_show_prediction_and_explained_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[Caption] = []
    monkeypatch.setattr(overlay, "overlay_file", lambda file, preprocess, item, caption: drawn.append(caption))
    monkeypatch.setattr(overlay, "save_png", lambda picture, file: file)

    class Backbone:
        preprocess = None

    class Made:
        class card:  # noqa: N801
            backbone = Backbone

        classes = ("cat", "dog")

    class Of:
        model = Made

    kept = explain._Images([Path("7.jpg")], ["7.jpg"], ["cat"])
    for target in ("dog", "cat"):
        heats = [explanation("7.jpg", target)]
        job = explain._Job(Of, kept, answers(("7.jpg",)), heats, None, folder=tmp_path, options=None)  # type: ignore[arg-type]
        entry = job.write(1, heats[0])
        assert (entry["predicted"], entry["target"]) == ("cat", target)
    told = [(c.label, c.predicted, c.probability) for c in drawn]
    assert told == [("cat", "cat", 0.999)] * 2, "what was answered, whatever was asked"
    assert drawn[0].target_probability == pytest.approx(0.001) and drawn[1].target_probability is None


def test_average_heatmaps_have_a_colour_bar_with_numbers_and_a_title(monkeypatch: pytest.MonkeyPatch) -> None:
    view = class_maps.view("cat", [explanation(str(i), "cat") for i in range(3)])
    assert view is not None
    bars: list[float] = []
    drawn = overlay.colour_bar
    monkeypatch.setattr(overlay, "colour_bar", lambda *a, **b: bars.append(a[1]) or drawn(*a, **b))
    titles: list[list[str]] = []
    wrapped = contact_sheets.wrap
    monkeypatch.setattr(contact_sheets, "wrap", lambda *a: titles.append(wrapped(*a)) or titles[-1])
    picture = contact_sheets.draw_average([view], "label")
    assert bars == [pytest.approx(3.0)] and picture.width > 224 + 60
    assert " ".join(titles[-1]) == "Average heatmaps by label (true class). One scale: maximum 3.0 × the uniform value"


def test_average_heatmaps_are_grouped_by_class_and_need_two_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[tuple[str, dict[str, int]]] = []
    real = contact_sheets.draw_average
    monkeypatch.setattr(
        contact_sheets,
        "draw_average",
        lambda views, by, target: drawn.append((by, {v.name: v.n for v in views})) or real(views, by, target),
    )
    found = [explanation(str(i), "cat" if i < 3 else "dog") for i in range(4)]
    file = contact_sheets.write_average(tmp_path, found, {"0": "cat", "1": "cat", "2": "dog", "3": "dog"}, "label")
    assert file == tmp_path / "average.png" and file.is_file()
    contact_sheets.write_average(tmp_path, found, {item.path: item.target for item in found}, "predicted")
    assert drawn == [("label", {"cat": 2, "dog": 2}), ("predicted", {"cat": 3})]
    assert (
        contact_sheets.write_average(tmp_path / "one", found[:1], {"0": "cat"}, "label") is None
        and not (tmp_path / "one").exists()
    )


def test_every_class_has_a_sheet_of_its_own_whatever_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from PIL import Image

    classes = ("C++", "C#", "赤い花", "青い花", "Cat", "cat")
    names = tuple(f"{i}.png" for i in range(len(classes)))
    monkeypatch.setattr(contact_sheets, "_picture", lambda *given: Image.new("RGB", (8, 8)))
    monkeypatch.setattr(contact_sheets, "_similar", lambda *given: {})

    class Subject:
        class model:  # noqa: N801
            classes = ("C++", "C#", "赤い花", "青い花", "Cat", "cat")

    found = [explanation(name, label) for name, label in zip(names, classes, strict=True)]
    given = Predictions(names, classes, np.arange(6), np.eye(6))
    cache = Cache(tmp_path / "cache")
    files = {name: Path(name) for name in names}
    contact_sheets.write(
        tmp_path / "out",
        Subject,  # type: ignore[arg-type]
        found,
        labels=classes,
        files=files,
        predictions=given,
        verdicts={},
        cache=cache,
    )
    written = [f.name for f in (tmp_path / "out").iterdir() if f.name.startswith("right-")]
    assert len({name.casefold() for name in written}) == len(classes)
