"""Captions of heatmaps: prediction, meaning of the colours, and verdict."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.explanation import METHODS
from sightline.explanation.draw import caption, lettering
from sightline.explanation.draw.overlay import SIDE_PX
from sightline.records import Explanation

ROOM = 320


def explanation(method: str, contrast: str = "", side: int = 7) -> Explanation:
    heat = np.ones((side, side), dtype=np.float32)
    return Explanation("a.jpg", "cat", method, "last map", heat, (0, 0, 1, 1), contrast=contrast)


def said(item: Explanation, probability: float | None = None) -> str:
    return " ".join(caption.meaning(item, probability, ROOM))


def test_long_names_in_an_answer_lose_their_middle() -> None:
    both = caption.answer("a" * 300, "b" * 300, 0.5, SIDE_PX)
    assert both.count("…") == 2 and both.endswith("b (50%)") and lettering.width(both, lettering.TEXT_PX) <= SIDE_PX


@pytest.mark.parametrize(
    "method, contrast, expected",
    [
        ("gradcam", "", "evidence for cat · Grad-CAM"),
        ("gradcam", "dog", "evidence for cat, not dog (blue: for dog) · Grad-CAM"),
        ("contribution", "", "evidence for cat (blue: against) · exact contributions"),
        ("activation", "", "where the network responds (no class) · activation"),
        ("activation", "dog", "where the network responds (no class) · activation"),
        ("saliency", "", "where the score of cat is sensitive (no sign) · saliency"),
        ("smoothgrad", "dog", "where the score of cat minus dog is sensitive (no sign) · SmoothGrad"),
        ("gradcam, masks", "", "evidence for cat · Grad-CAM, random masks"),
    ],
)
def test_the_caption_explains_the_colours(method: str, contrast: str, expected: str) -> None:
    assert said(explanation(method, contrast)) == expected


def test_the_caption_shows_the_probability_of_the_explained_class() -> None:
    assert said(explanation("gradcam"), 0.12).startswith("evidence for cat (12%) ·")
    assert said(explanation("saliency", "dog"), 0.12).startswith("where the score of cat (12%) minus dog")


@pytest.mark.parametrize("method", METHODS)
def test_only_captions_of_signed_methods_mention_evidence(method: str) -> None:
    for contrast in ("", "dog"):
        item = explanation(method, contrast)
        assert ("evidence" in said(item)) == METHODS[method].signed
        assert ("blue" in said(item)) == caption.two_sided(item)


def test_the_caption_mentions_smoothing() -> None:
    assert said(explanation("saliency", side=224)).endswith("smoothed for display")
    assert "smoothed" not in said(explanation("saliency")) + said(explanation("occlusion", side=224))


def test_long_class_names_are_shortened_before_the_verdict() -> None:
    item = Explanation("a", "n" * 400, "gradcam", "", np.ones((2, 2), np.float32), (0, 0, 1, 1), contrast="m" * 400)
    lines = caption.meaning(item, 0.5, ROOM)
    assert "blue" in " ".join(lines) and all(lettering.width(line, lettering.SMALL_PX) <= ROOM for line in lines)


@pytest.mark.parametrize("room", [320, 404])
def test_130_characters_of_a_reason_can_be_read(room: int) -> None:
    why = ("covering hot cells first leaves 0.27 of the probability, " * 4)[:130].strip()
    whole = " ".join(caption.judgement(("don't rely on this", why), room))
    assert whole == f"✗ don't rely on this: {why}"
    assert caption.judgement(("passes", ""), room) == ["✓ passes"]
