"""Extremes of an augmentation policy: each operation at both ends of its range, for a preview before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sightline import store
from sightline.training.augment.drawing import Draw, identity, rectangles
from sightline.training.augment.policy import SETTINGS, Policy, Span

_MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Extreme:
    """One end of an operation's range.

    Args:
        caption: Value with its unit.
        draw: Draw for one image that applies this operation alone.
    """

    caption: str
    draw: Draw


def operations(policy: Policy) -> tuple[str, ...]:
    """Return the operations of a policy that have an effect, in the order of `SETTINGS`."""
    plain = Policy()
    active = [name for name in EXTREMES if getattr(policy, name) != getattr(plain, name)]
    return tuple(name for name in active if not (name == "crop_ratio" and "crop" in active))  # shown by `crop`


def extremes(policy: Policy, name: str) -> tuple[Extreme, ...]:
    """Return both ends of an operation's range, or one if both are the same.

    Args:
        policy: Policy with the ranges.
        name: One of `operations(policy)`.
    """
    return tuple(Extreme(caption, _one(changes)) for caption, changes in EXTREMES[name](policy))


def in_words(policy: Policy, name: str) -> str:
    """Format the range of one operation.

    Example:
        >>> in_words(Policy(rotation=15), "rotation"), in_words(Policy(flip=0.5), "flip"), in_words(Policy(zoom=0.25), "zoom")
        ('−15° to +15°', 'probability 0.5', '×0.8 to ×1.25')
        >>> in_words(Policy(crop=0.4, crop_ratio=1.5), "crop")
        '40% to 100% of the area, ratio 0.667 to 1.5'
    """
    setting = SETTINGS[name]
    if setting.kind == "chance":
        more = f", {_share(policy.span('erase_area'))} of the area" if name == "erase" else ""
        return f"probability {policy.span(name)[0]:g}{more}"
    if setting.kind == "channels":
        each = [_signed(low) if low == high else f"{_signed(low)} to {_signed(high)}" for low, high in policy.rgb_spans()]
        return (each[0] if len(set(each)) == 1 else ", ".join(each)) + " " + setting.unit
    low, high = policy.span(name)
    if name in _FACTORS:
        return _to(f"×{1 + low:.3g}", f"×{1 + high:.3g}")
    if name == "crop":
        ratio = policy.span("crop_ratio")
        more = "" if ratio == (1.0, 1.0) else f", ratio {_to(f'{ratio[0]:.3g}', f'{ratio[1]:.3g}')}"
        return f"{_share((low, high))} of the area{more}"
    if name == "resolution":
        return f"{_share((low, high))} {setting.unit}"
    if name == "jpeg":
        return f"quality {_to(f'{low:.0f}', f'{high:.0f}')}"
    if name == "crop_ratio":
        return f"ratio {_to(f'{low:.3g}', f'{high:.3g}')}"
    if name == "pca":
        return f"standard deviation {low:.0%} {setting.unit}"
    if setting.kind in ("amount", "count"):
        return f"up to {high:.0%} {setting.unit}" if setting.kind == "amount" else f"up to {high:g} {setting.unit}"
    if name == "shift":
        return f"{_to(_signed(100 * low) + '%', _signed(100 * high) + '%')} {setting.unit}"
    if setting.unit == "°":
        return _to(f"{_signed(low)}°", f"{_signed(high)}°")
    return f"{_to(f'{low:g}', f'{high:g}')} {setting.unit}"


_FACTORS = ("zoom", "brightness", "contrast", "saturation")


def _to(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _share(span: Span) -> str:
    return _to(f"{span[0]:.0%}", f"{span[1]:.0%}")


def _signed(value: float) -> str:
    """Format a number with its sign (U+2212 for minus); 0 has no sign.

    Example:
        >>> _signed(-15), _signed(7.5), _signed(0)
        ('−15', '+7.5', '0')
    """
    return "0" if not value else f"{value:+.3g}".replace("-", _MINUS)


def _one(changes: dict[str, Any]) -> Draw:
    """Return the draw of one image with some fields set."""
    plain = identity(1)
    values = {field: getattr(plain, field) for field in Draw.__dataclass_fields__}
    return Draw(**{**values, **{field: np.asarray(value)[None] for field, value in changes.items()}})


Ends = list[tuple[str, dict[str, Any]]]


def _both(
    name: str, field: str, form: Callable[[float], str], value: Callable[[float], Any] = float
) -> Callable[[Policy], Ends]:
    """Return a function that gives both ends of a simple range; an end without effect is left out unless it is the only one."""

    def ends(policy: Policy) -> Ends:
        low, high = policy.span(name)
        return [(form(end), {field: value(end)}) for end in sorted({low, high}) if end or low == high]

    return ends


def _crop(policy: Policy) -> Ends:
    """Return the smallest crop, once narrow at the top left and once wide at the bottom right."""
    area, (low, high) = policy.span("crop")[0], policy.span("crop_ratio")
    parts = [(low, 0.0), (high, 1.0)]
    found = rectangles(np.full(2, area), np.array([ratio for ratio, _ in parts]), np.array([[at, at] for _, at in parts]))
    words = ("top left", "bottom right") if low == high else tuple(f"ratio {ratio:.3g}" for ratio, _ in parts)
    return [(f"{box[2] * box[3]:.0%}, {word}", {"crop": box}) for box, word in zip(found, words, strict=True)]


def _crop_padding(policy: Policy) -> Ends:
    most = policy.crop_padding
    return [(f"{_signed(end)} px", {"shift_px": np.array([end, end])}) for end in (-most, most)]


def _perspective(policy: Policy) -> Ends:
    """Return the perspective from the left and from above; the order of corners and axes is that of `Draw.corners`."""
    d = policy.perspective
    return [
        (f"{d:.0%}, left side", {"corners": np.array([[d, 0], [0, 0], [0, 0], [d, 0]])}),
        (f"{d:.0%}, upper side", {"corners": np.array([[0, d], [0, d], [0, 0], [0, 0]])}),
    ]


def _elastic(policy: Policy) -> Ends:
    """Return two warps whose knots all move the largest distance, in random directions."""
    side = policy.elastic_cells + 3
    ends: Ends = []
    for number in (1, 2):
        signs = store.stream(0, "elastic extremes", number).choice([-1.0, 1.0], (2, side, side))
        knots = (policy.elastic * signs).astype(np.float32)
        ends.append((f"{100 * policy.elastic:.3g}%, example {number}", {"elastic": knots}))
    return ends


def _rgb_shift(policy: Policy) -> Ends:
    spans = policy.rgb_spans()
    ends = sorted({tuple(span[end] for span in spans) for end in (0, 1)})
    return [(", ".join(_signed(v) for v in end), {"rgb": np.array(end)}) for end in ends if any(end)]


def _pca(policy: Policy) -> Ends:
    steps = (-2 * policy.pca, 2 * policy.pca)  # two standard deviations: 95 % of draws lie between
    return [(f"{_signed(100 * s)}% along the first", {"pca": np.array([s, 0, 0])}) for s in steps]


def _erase(policy: Policy) -> Ends:
    low, high = policy.span("erase_area")
    areas = np.unique([low, high])
    boxes = rectangles(areas, np.ones(len(areas)), np.full((len(areas), 2), 0.5))
    return [(f"{area:.0%} of the area", {"erase": box}) for area, box in zip(areas, boxes, strict=True)]


def _below(name: str, policy: Policy, none: float) -> list[float]:
    """Return the ends of a range whose upper limit, `none`, changes nothing; that end is left out."""
    return [end for end in sorted(set(policy.span(name))) if end < none]


EXTREMES: dict[str, Callable[[Policy], Ends]] = {
    "flip": lambda policy: [("mirrored", {"flip": True})],
    "vertical_flip": lambda policy: [("upside down", {"vertical_flip": True})],
    "quarter_turn": lambda policy: [("90°", {"turns": 1}), ("180°", {"turns": 2})],
    "crop": _crop,
    "crop_ratio": _crop,
    "crop_padding": _crop_padding,
    "rotation": _both("rotation", "angle", lambda x: f"{_signed(x)}°"),
    "shear": _both("shear", "shear", lambda x: f"{_signed(x)}°"),
    "zoom": _both("zoom", "zoom", lambda x: f"×{1 + x:.3g}", lambda x: 1 + x),
    "shift": _both("shift", "shift", lambda x: f"{_signed(100 * x)}%", lambda x: np.array([x, x])),
    "perspective": _perspective,
    "elastic": _elastic,
    "brightness": _both("brightness", "brightness", lambda x: f"×{1 + x:.3g}", lambda x: 1 + x),
    "contrast": _both("contrast", "contrast", lambda x: f"×{1 + x:.3g}", lambda x: 1 + x),
    "saturation": _both("saturation", "saturation", lambda x: f"×{1 + x:.3g}", lambda x: 1 + x),
    "hue": _both("hue", "hue", lambda x: f"{_signed(x)}°"),
    "rgb_shift": _rgb_shift,
    "pca": _pca,
    "grey": lambda policy: [("grey", {"grey": True})],
    "blur": _both("blur", "blur", lambda x: f"{x:g} px"),
    "resolution": lambda policy: [(_share((end, end)), {"resolution": end}) for end in _below("resolution", policy, 1.0)],
    "noise": _both("noise", "noise", lambda x: f"{x:g} grey levels"),
    "jpeg": lambda policy: [(f"quality {end:.0f}", {"jpeg": round(end)}) for end in _below("jpeg", policy, 100.0)],
    "erase": _erase,
}
"""Operation → function that returns its ends: (caption, fields of `Draw`). Settings that only shape another one have none."""
