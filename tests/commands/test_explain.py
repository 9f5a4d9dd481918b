"""`explain`: covered regions, synonyms of classes, raw heatmap files, and checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sightline.classifier import Classifier
from sightline.commands import explain
from sightline.commands.explain import write_heat
from sightline.errors import RequestError
from sightline.explanation.checks import evidence, verdict
from sightline.explanation.checks.evidence import Skill, gather, of_run, skill_of, with_pictures
from sightline.explanation.cover_region import check_regions, hide, mask_of, parse_region
from sightline.explanation.heatmaps import heatmaps_of
from sightline.explanation.options import ExplainOptions
from sightline.explanation.subject import ExplainedModel
from sightline.heads import fit
from sightline.networks import describe
from sightline.records import Card, Explanation, Predictions, Preprocess, Recipe
from sightline.runs.gallery import write_overlay
from sightline.store import Cache


@pytest.fixture
def bright(cache: Cache) -> Classifier:
    """Looks at 16×16 pixels: the left half's brightness decides."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 16, 16, 3)).astype(np.float32) / 255
    labels = np.arange(60) % 2
    images[labels == 1, :, :8] = 1.0
    images[labels == 0, :, :8] = 0.0
    rows = np.arange(60)
    folds = [(rows[rows % 3 != i], rows[rows % 3 == i]) for i in range(3)]
    head = fit("ridge", images.reshape(60, -1), labels, 2, folds=folds, refit=True, settings={}, seed=0).head
    backbone = describe("pixels", cache=cache)
    return Classifier(
        Card(("dark", "bright"), backbone, "ridge", {}, "features", dataclasses.replace(Recipe(), backbone="pixels")), head
    )


def test_covering_the_decisive_part_changes_the_prediction_and_covering_the_rest_does_not(
    bright: Classifier, cache: Cache
) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, :32] = 255
    decides = hide(bright, image, [(0, 0, 32, 64)], cache=cache)
    beside = hide(bright, image, [(40, 0, 24, 64)], cache=cache)
    assert decides.before[1] > 0.5 > decides.after[1] and decides.share == 0.5 and decides.cover == (0, 0, 0)
    assert abs(beside.before[1] - beside.after[1]) < abs(decides.before[1] - decides.after[1]) / 3
    mask = np.zeros((64, 64), dtype=bool)
    mask[:, :32] = True
    np.testing.assert_array_equal(hide(bright, image, mask=mask, cache=cache).after, decides.after)


def test_invalid_regions_are_refused(bright: Classifier, cache: Cache) -> None:
    image = np.zeros((10, 20, 3), dtype=np.uint8)
    for text in ("1,2,3", "a,b,c,d", "0,0,0,5", "-1,0,5,5"):
        with pytest.raises(RequestError):
            parse_region(text)
    with pytest.raises(RequestError, match="beyond"):
        mask_of([(20, 0, 1, 1)], (10, 20), "it")
    with pytest.raises(RequestError, match="all of"):
        hide(bright, image, [(0, 0, 20, 10)], cache=cache)
    with pytest.raises(RequestError, match="nothing"):
        hide(bright, image, cache=cache)
    with pytest.raises(RequestError, match="mask is"):
        hide(bright, image, mask=np.ones((3, 3), dtype=bool), cache=cache)


def test_covering_the_whole_image_is_refused_before_it_is_decoded(
    bright: Classifier, halves: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bright.save(tmp_path / "model.safetensors")
    monkeypatch.setattr(Classifier, "predict", lambda *a, **b: pytest.fail("it was asked before the regions were checked"))
    for regions in (["0,0,9999,9999"], ["0,0,8,16", "8,0,8,16"]):
        with pytest.raises(RequestError, match=r"all of .*0\.png would be covered"):
            explain.explain(str(tmp_path / "model.safetensors"), [str(halves[0])], hide=regions, out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    check_regions([(0, 0, 8, 16)], halves[0])


def test_a_strip_s_overlay_is_drawn_from_its_own_pixels(tmp_path: Path) -> None:
    """Made small as a whole, a strip of fine stripes would have nothing left to enlarge."""
    from PIL import Image

    stripes = np.zeros((60, 2400, 3), dtype=np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    Image.fromarray(stripes).save(tmp_path / "strip.png")
    item = Explanation("strip.png", "cat", "gradcam", "", np.zeros((2, 2), np.float32), (0.0, 1170.0, 60.0, 60.0))
    write_overlay(tmp_path / "overlay.png", tmp_path / "strip.png", Preprocess(), item)
    drawn = np.asarray(Image.open(tmp_path / "overlay.png").convert("L")).astype(int)
    bare = drawn[30:100, 120:220]  # of the part that was seen, beside the note that there is no evidence
    assert np.ptp(bare.mean(axis=0)) > 100, "light and dark stripes"


def test_a_class_is_found_by_its_synonyms(bright: Classifier) -> None:
    found = ExplainedModel(bright, Skill(verdict.unknown_classifier()), None, {"shiny": (1,), "both": (0, 1)})
    assert found.class_index("bright") == found.class_index("BRIGHT") == found.class_index("Shiny") == 1
    with pytest.raises(RequestError, match="matches 2 classes"):
        found.class_index("both")
    with pytest.raises(RequestError, match="brigth"):
        found.class_index("brigth")


def test_raw_heatmaps_are_read_without_pickle(tmp_path: Path) -> None:
    item = Explanation("a.jpg", "cat", "gradcam", "last map", np.eye(3, dtype=np.float32), (1.0, 2.0, 3.0, 4.0), 0.5)
    write_heat(tmp_path / "heat.npz", item, ("cat", "dög"))
    with np.load(tmp_path / "heat.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["heat"], item.heat)
        assert str(file["target"]) == "cat" and file["classes"].tolist() == ["cat", "dög"] and float(file["neutral"]) == 0.5
        assert file["box"].tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.fixture
def halves(tmp_path: Path) -> list[Path]:
    """Eight pictures, white on the left in turn, noise elsewhere."""
    from PIL import Image

    files = []
    for i in range(8):
        image = np.random.default_rng(i).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        image[:, :8] = 255 * (i % 2)
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    return files


def _answers(files: list[Path], right: bool) -> Predictions:
    """Answers to three times these pictures, all right or at chance."""
    true = np.tile(np.arange(len(files)) % 2, 3)
    said = true if right else np.arange(len(true)) // 2 % 2
    return Predictions(tuple(map(str, range(len(true)))), ("dark", "bright"), true, np.eye(2)[said])


def test_an_image_has_the_same_verdict_in_its_run_and_alone(bright: Classifier, cache: Cache, halves: list[Path]) -> None:
    names, targets, how = [str(f) for f in halves], [i % 2 for i in range(8)], ExplainOptions(cache=cache)
    skill = skill_of(bright, answers=_answers(halves, right=True))
    first = gather(bright, halves[:6], names[:6], targets[:6], how, skill=skill)
    heats, _ = heatmaps_of(bright, halves, names, targets, ExplainOptions(cache=cache))
    assert first is not None and first.of(heats[7])["why"].endswith("this image itself was not checked")
    files = dict(zip(names, halves, strict=True))
    whole = with_pictures(first, bright, heats, files, how)
    stored = of_run({**first.shared, "method": heats[0].method}, how, skill)
    assert stored is not None
    again = with_pictures(stored, bright, heats, files, how)
    for item in heats:
        one, other = whole.of(item), again.of(item)
        assert (one["verdict"], one["why"]) == (other["verdict"], other["why"]) and one["heat"] == pytest.approx(other["heat"])
        assert "not checked" not in one["why"]


def test_checks_of_a_run_with_other_options_are_not_reused(bright: Classifier, cache: Cache) -> None:
    stored = {"method": "occlusion", "verdict": "passes", "why": "", "findings": [], "chance": [0.1]}
    skill = skill_of(bright)
    assert (
        of_run(stored, ExplainOptions(cache=cache), skill) is not None
        and of_run(None, ExplainOptions(cache=cache), skill) is None
    )
    for other in (
        ExplainOptions(cache=cache, method="masks"),
        ExplainOptions(cache=cache, layer="x"),
        ExplainOptions(cache=cache, contrast=1),
    ):
        assert of_run(stored, other, skill) is None


def test_the_verdict_depends_on_the_explained_pair_of_classes(bright: Classifier, cache: Cache, halves: list[Path]) -> None:
    names, targets = [str(f) for f in halves], [i % 2 for i in range(8)]
    item = Explanation(names[0], "dark", "occlusion", "", np.zeros((2, 2), np.float32), (0, 0, 16, 16))
    for right, word in ((True, "passes"), (False, "don't rely on this")):
        skill = skill_of(bright, answers=_answers(halves, right))
        told = gather(bright, halves, names, targets, ExplainOptions(cache=cache), skill=skill)
        assert told is not None
        found = {f["check"]: f for f in told.of(item)["method"]["findings"]}
        assert found["classifier"]["verdict"] == word and found["class"]["verdict"] == "n/a"


def test_a_class_independent_heatmap_fails_its_check(bright: Classifier, cache: Cache, halves: list[Path]) -> None:
    names, targets = [str(f) for f in halves], [i % 2 for i in range(8)]
    skill = skill_of(bright, answers=_answers(halves, right=True))
    for method, word in (("activation", "don't rely on this"), ("saliency", "weak"), ("occlusion", "n/a"), ("auto", "n/a")):
        told = gather(bright, halves, names, targets, ExplainOptions(cache=cache, method=method), skill=skill)
        assert told is not None
        assert next(f for f in told.shared["findings"] if f["check"] == "class")["verdict"] == word, method


def test_slow_methods_are_checked_coarsely_on_few_images_and_computed_once(
    bright: Classifier, cache: Cache, halves: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, targets = [str(f) for f in halves], [i % 2 for i in range(8)]
    asked: list[tuple[bool, int]] = []
    made = evidence._maker

    def counted(options: ExplainOptions) -> evidence.Make:
        def heat(model: Classifier, images: np.ndarray, aims: np.ndarray) -> list[np.ndarray]:
            asked.append((options.coarse, len(images)))
            return made(options)(model, images, aims)

        return heat

    monkeypatch.setattr(evidence, "_maker", counted)
    method, steps = "integrated-gradients", []
    heats, _ = heatmaps_of(bright, halves, names, targets, ExplainOptions(cache=cache, method=method))
    given = {item.path: item for item in heats}
    how = ExplainOptions(cache=cache, method=method)
    told = gather(
        bright, halves, names, targets, how, skill=skill_of(bright), given=given, progress=lambda *step: steps.append(step)
    )
    assert told is not None and set(asked) == {(True, evidence.COMPARED_SLOW)}
    assert [done for _, done, _ in steps] == list(range(len(steps))) and steps[-1][1] == steps[-1][2]
