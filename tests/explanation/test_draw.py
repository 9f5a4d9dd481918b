"""Overlays: position of the heatmap, colours, scale, and text of any length."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sightline.errors import RequestError
from sightline.explanation.draw import colours, contact_sheets, lettering, overlay
from sightline.explanation.draw.caption import Caption
from sightline.records import Explanation


def explanation(heat: object, box: tuple[float, float, float, float], method: str = "gradcam", **rest: object) -> Explanation:
    array = np.array(heat, dtype=np.float32)
    return Explanation("a.jpg", "cat", method, "last map", array, box, **rest)  # type: ignore[arg-type]


def grey(height: int = 120, width: int = 160, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def saturation(picture: np.ndarray) -> np.ndarray:
    return np.asarray(picture.astype(int).max(axis=2) - picture.astype(int).min(axis=2))


def test_the_heatmap_is_placed_by_its_box() -> None:
    # One hot cell of 4×4, the second row's last, in a box of 80×80 at (20, 40) of an image of 120×160.
    heat = np.zeros((4, 4))
    heat[1, 3] = 1
    placed = overlay.place(heat, (20, 40, 80, 80), (120, 160), (120, 160))
    row, column = np.unravel_index(np.nanargmax(placed), placed.shape)
    assert 48 <= row <= 51 and 108 <= column <= 120
    assert np.isnan(placed[19]).all() and np.isnan(placed[:, 39]).all() and np.isnan(placed[:, 120]).all()
    assert np.isfinite(placed[20:100, 40:120]).all()
    # The same place in a picture of half the size.
    half = overlay.place(heat, (20, 40, 80, 80), (120, 160), (60, 80))
    row, column = np.unravel_index(np.nanargmax(half), half.shape)
    assert 24 <= row <= 25 and 54 <= column <= 60


def test_a_box_beyond_the_image_covers_it_all() -> None:
    placed = overlay.place(np.array([[0.0], [1.0], [0.0]]), (-30, 0, 120, 60), (60, 60), (60, 60))
    assert np.isfinite(placed).all()
    assert np.argmax(placed[:, 0]) in (29, 30)


def test_between_cell_centres_it_is_linear_and_flat_at_the_rim() -> None:
    placed = overlay.place(np.array([[0.0, 1.0]]), (0, 0, 10, 20), (10, 20), (10, 20))[0]
    np.testing.assert_allclose(placed, np.clip((np.arange(20) + 0.5 - 5) / 10, 0, 1))


def test_zero_cells_are_grey_and_positive_cells_coloured() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    assert saturation(overlay.blend(picture, np.zeros((40, 40)))).max() == 0
    share = np.zeros((40, 40))
    share[10:20, 10:20] = 1
    drawn = overlay.blend(picture, share).astype(int)
    inside = drawn[12:18, 12:18]
    assert (inside[..., 0] > inside[..., 2] + 40).all()
    assert inside.std() > 5, "the photograph shows through"
    share[:] = -share
    cold = overlay.blend(picture, share).astype(int)[12:18, 12:18]
    assert (cold[..., 2] > cold[..., 0] + 40).all()


def test_colours_differ_in_lightness_so_that_a_grey_print_and_any_eye_read_them() -> None:
    shares = np.linspace(-1, 1, 201)
    colour, opacity = colours.colours_of(shares)
    drawn = 0.5 * (1 - opacity[:, None]) + colour * opacity[:, None]
    light = drawn @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) > -0.004).all() and light[-1] - light[100] > 0.15 and light[100] - light[0] > 0.15
    # Who cannot tell red from green still has the axis from blue to yellow: there the two lie on opposite sides.
    blueness = drawn[:, 2] - drawn[:, :2].mean(axis=1)
    assert (blueness[125:] < -0.02).all() and (blueness[:75] > 0.02).all()
    assert blueness[-1] < -0.15 and blueness[0] > 0.15
    assert opacity[100] == 0 and opacity.max() < 0.8


def test_oklab_s_corners() -> None:
    # Ottosson's own table: white is (1, 0, 0), black zero; red is (0.6280, 0.2249, 0.1258).
    np.testing.assert_allclose(colours.oklab_to_srgb(np.array([[1.0, 0, 0], [0, 0, 0]])), [[1, 1, 1], [0, 0, 0]], atol=1e-3)
    np.testing.assert_allclose(colours.oklab_to_srgb(np.array([0.62796, 0.22486, 0.12585])), [1, 0, 0], atol=2e-2)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (1, 3000), (3000, 1), (300, 400), (1200, 700), (32, 200)])
def test_any_shape_gives_a_picture_of_at_most_420_px(shape: tuple[int, int]) -> None:
    height, width = shape
    page = overlay.overlay(grey(*shape), explanation([[0, 1], [2, 3]], (0, 0, height, width)), Caption("cat", "dog", 0.51))
    assert page.mode == "RGB" and max(page.size) <= overlay.SIDE_PX and min(page.size) >= 100


EXTREME = [
    # size of the photograph, what the network saw of it: a strip across, one upright, a panorama, a squashed and a padded one
    ((60, 1200), (4, 574, 52, 52)),
    ((1500, 90), (710, 5, 80, 80)),
    ((500, 6000), (30, 2780, 440, 440)),
    ((60, 1200), (0, 0, 60, 1200)),
    ((1500, 90), (0, -705, 1500, 1500)),
]


@pytest.mark.parametrize(("shape", "box"), EXTREME)
def test_the_network_input_of_a_long_photograph_is_drawn_enlarged(
    shape: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    for side_px in (overlay.SIDE_PX, 340):
        page = overlay.overlay(grey(*shape), explanation([[1, 1], [0, 0]], box), Caption("cat", "dog", 0.5), side_px=side_px)
        assert max(page.size) <= side_px
        warm = saturation(np.asarray(page)[:, : page.width - overlay.BAR_PX]) > 40
        rows, columns = np.flatnonzero(warm.any(axis=1)), np.flatnonzero(warm.any(axis=0))
        # The upper half of what was seen is hot: half as high as it is wide, and no line takes most of it.
        assert rows[-1] - rows[0] > 0.12 * side_px and columns[-1] - columns[0] > 0.25 * side_px
        assert warm[rows[0] : rows[-1], columns[0] : columns[-1]].mean() > 0.8


def test_an_ordinary_photograph_is_drawn_completely() -> None:
    for shape, box in (((120, 160), (0, 20, 120, 120)), ((160, 120), (20, 0, 120, 120)), ((90, 160), (6, 41, 78, 78))):
        assert not overlay.too_small(box, shape, (344, 342)) and overlay.longest_px(box, shape) == overlay.SIDE_PX
    plain, strip = (overlay.overlay(grey(300, w), explanation([[0, 1]], (0, w / 2 - 150, 300, 300))) for w in (400, 4000))
    assert ink(strip, slice(strip.height - 60, None)) > ink(plain, slice(plain.height - 60, None)) > 0, "a note more"


def test_the_seen_part_of_a_photograph_and_the_box_inside_it() -> None:
    image = np.arange(40 * 10 * 3, dtype=np.uint8).reshape(10, 40, 3)  # a quarter of an original of 40×160
    part, inside, size = overlay.seen_part(image, (0, 62, 40, 40), (40, 160))
    np.testing.assert_array_equal(part, image[:, 16:25])
    assert inside == (0, -2, 40, 40) and size == (40, 36)
    beyond, inside, size = overlay.seen_part(image, (-60, 0, 160, 160), (40, 160))
    assert beyond.shape == image.shape and inside == (-60, 0, 160, 160) and size == (40, 160)
    assert overlay.seen_part(image, (20.1, 80.1, 0.2, 0.2), (40, 160))[0].shape == (1, 1, 3)


HOSTILE = [
    "",
    "n" * 5000,
    '<script>alert("x")</script>',
    "a\nb\tc\x00\x1b[31m",
    "\u202egpj.tac",
    "猫 → 狗 🐕 кот γάτα قطة",
    "\ud800 half",
    "e\u0301" * 80,
    "%s %(x)s {0}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_drawn(text: str) -> None:
    named = dataclasses.replace(explanation([[0, 1]], (0, 0, 120, 160)), target=text)
    for label in (text, None):
        page = overlay.overlay(grey(), named, Caption(label, text, 0.5))
        assert page.size == overlay.overlay(grey(), named, Caption("a", "b", 0.5)).size
        assert overlay.overlay(grey(), named, Caption(label, text, 0.5, 0.5, text, (text, text))).width == page.width
    assert contact_sheets.contact_sheet([overlay.overlay(grey(), named)], title=text).width < 600


def test_a_heatmap_without_evidence_is_labelled() -> None:
    box = (0, 0, 120, 160)
    for heat in (np.zeros((2, 2)), -np.ones((2, 2))):
        for vmax in (None, 3.0, 0.0):
            empty = np.asarray(overlay.overlay(grey(), explanation(heat, box), vmax=vmax))
            assert (empty[50:200, 100:250] == 255).all(axis=2).sum() > 500, "a white label on the picture"
    some = np.asarray(overlay.overlay(grey(), explanation([[0, 1], [0, 0]], box)))
    assert (some[50:200, 100:250] == 255).all(axis=2).sum() < 500
    # A map of nothing: the answer comes from the head's bias, which lies nowhere.
    assert not overlay.evidence(explanation(np.zeros((2, 2)), box, neutral=-1.0)).any()
    # Shares are signed: what speaks against is drawn too.
    assert saturation(np.asarray(overlay.overlay(grey(), explanation(-np.ones((2, 2)), box, "contribution")))).max() > 80


def test_evidence_is_relative_to_the_neutral_value() -> None:
    heat = np.array([[1.0, 2.0, 4.0]])
    assert overlay.evidence(explanation(heat, (0, 0, 1, 3), neutral=2.0)).tolist() == [[0, 0, 2]]
    assert overlay.evidence(explanation(heat, (0, 0, 1, 3), "contribution", neutral=2.0)).tolist() == [[-1, 0, 2]]


def test_one_scale_for_a_set_makes_pictures_comparable() -> None:
    weak, strong = explanation(np.full((3, 3), 1.0), (0, 0, 120, 160)), explanation(np.full((3, 3), 9.0), (0, 0, 120, 160))
    scale = overlay.shared_scale([weak, strong])
    assert scale == 9.0 and overlay.shared_scale([]) == 0.0

    def warmth(item: Explanation, vmax: float | None) -> int:
        return int(saturation(np.asarray(overlay.overlay(grey(), item, vmax=vmax)))[100, 150])

    assert warmth(weak, scale) < 0.4 * warmth(strong, scale)
    assert warmth(weak, None) == warmth(strong, None)
    # The picture differs by what it says of its scale, though the colours are the same.
    own, shared = overlay.overlay(grey(), strong), overlay.overlay(grey(), strong, vmax=scale)
    assert own.tobytes() != shared.tobytes()


def test_one_odd_cell_does_not_make_a_set_pale() -> None:
    usual = [explanation(np.full((7, 7), 1.0), (0, 0, 1, 1)) for _ in range(40)]
    odd = explanation(np.where(np.arange(49).reshape(7, 7) == 3, 100.0, 1.0), (0, 0, 1, 1))
    assert overlay.shared_scale([*usual, odd]) == 1.0
    # Where hardly anything is hot, that is the scale.
    assert overlay.shared_scale([explanation(np.eye(40)[:1], (0, 0, 1, 1))] * 20) == 1.0
    nearly = [explanation(np.zeros((30, 30)), (0, 0, 1, 1)), explanation([[5.0]], (0, 0, 1, 1))]
    assert overlay.shared_scale(nearly) == 5.0


def test_overlays_are_reproducible_and_leave_the_image_unchanged() -> None:
    image, item = grey(), explanation([[0, 1], [2, 3]], (0, 0, 120, 160))
    before = image.copy()
    assert overlay.overlay(image, item).tobytes() == overlay.overlay(image, item).tobytes()
    np.testing.assert_array_equal(image, before)


def test_contact_sheet_holds_every_picture() -> None:
    pages = [overlay.overlay(grey(60 + 20 * i, 90), explanation([[i]], (0, 0, 60, 90))) for i in range(5)]
    sheet = contact_sheets.contact_sheet(pages, columns=2, title="five")
    assert sheet.width > 2 * pages[0].width
    assert sheet.height > sum(max(p.height for p in pages[i : i + 2]) for i in (0, 2, 4))
    assert contact_sheets.contact_sheet(pages[:1], columns=9).width < 2 * pages[0].width
    with pytest.raises(RequestError, match="at least one image"):
        contact_sheets.contact_sheet([])


def test_a_long_title_goes_on_in_the_next_line() -> None:
    page = overlay.overlay(grey(), explanation([[1]], (0, 0, 120, 160)))
    one, more = (
        contact_sheets.contact_sheet([page], title="short"),
        contact_sheets.contact_sheet([page], title="a title of many words " * 3),
    )
    assert more.width == one.width and more.height > one.height + 20


def ink(page: object, rows: slice) -> int:
    return int((np.asarray(page)[rows].astype(int).sum(axis=2) < 300).sum())


def test_the_verdict_s_reason_is_written_out() -> None:
    item = explanation([[0, 1]], (0, 0, 120, 160))
    plain = overlay.overlay(grey(), item)
    word = overlay.overlay(grey(), item, Caption(verdict=("weak", "")))
    why = overlay.overlay(grey(), item, Caption(verdict=("weak", "covering hot cells first leaves so much of it " * 3)))
    assert plain.height < word.height < why.height
    assert ink(why, slice(word.height, None)) > 100


def test_the_contour_is_at_half_of_the_scale_for_positive_evidence() -> None:
    share = np.zeros((40, 40))
    share[5:15, 5:15], share[25:35, 25:35] = 1, -1
    drawn, plain = overlay.blend(grey(40, 40), share), overlay.blend(grey(40, 40), share, contour=False)
    changed = (drawn != plain).any(axis=2)
    assert changed[:20, :20].any() and not changed[20:, 20:].any()


def test_the_colour_bar_marks_the_contour_and_fits_its_unit() -> None:
    unit = "logit per normalised value"
    marked, plain = (np.asarray(overlay.colour_bar(300, 1.0, unit=unit, whose="one scale", contour=c)) for c in (True, False))
    half = marked[100:160, overlay.GAP_PX : overlay.GAP_PX + 12]
    assert (half == 255).all(axis=2).any() and not (plain[100:160, overlay.GAP_PX : overlay.GAP_PX + 12] == 255).all(
        axis=2
    ).any()
    for words in lettering.wrap(unit, overlay.BAR_PX - overlay.GAP_PX, lettering.SMALL_PX, 3):
        assert "…" not in words
    assert (marked[:, -2:] == 255).all(), "nothing reaches the edge"


def test_noisy_heatmaps_are_smoothed_for_display_only() -> None:
    heat = np.zeros((224, 224), np.float32)
    heat[100, 60] = 1.0
    for method in ("saliency", "integrated-gradients"):
        item = explanation(heat, (0, 0, 224, 224), method)
        shown = overlay.evidence(item)
        assert np.unravel_index(int(shown.argmax()), shown.shape) == (100, 60) and (shown > shown.max() / 3).sum() > 50
        assert shown.sum() == pytest.approx(1, rel=1e-3) and item.heat[100, 60] == 1
        plain = np.asarray(overlay.overlay(grey(300, 300), item))
        assert not (plain[:250, :250] > 240).all(axis=2).any(), "no rings"
    assert overlay.evidence(explanation(heat, (0, 0, 224, 224), "occlusion")).max() == 1


def test_unsigned_methods_draw_no_negative_evidence() -> None:
    item = explanation([[1.0, 2.0]], (0, 0, 1, 2), "activation", contrast="dog", neutral=1.5)
    assert overlay.evidence(item).min() == 0


def test_without_matplotlib_pillow_s_own_font_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    lettering.font.cache_clear()
    monkeypatch.setattr(lettering.importlib.util, "find_spec", lambda name: None)
    try:
        assert overlay.overlay(grey(), explanation([[0, 1]], (0, 0, 120, 160)), Caption(None, HOSTILE[5])).width > 100
    finally:
        lettering.font.cache_clear()
