"""What a heatmap's caption says: what was answered, what the colours mean, and what the checks say of it."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.explanation.draw.lettering import SMALL_PX, TEXT_PX, shorten, width, wrap
from sightline.explanation.methods import METHODS
from sightline.records import Explanation
from sightline.records.predictions import MOST_CELLS

_SHARES = ("contribution", "integrated-gradients", "gradient-input", "occlusion")
"""Methods whose heat below zero is drawn too: theirs is a share of the score, not a sum that a bias shifts."""
_CLASSLESS = ("activation",)
_SPECKLED = ("saliency", "gradient-input", "smoothgrad", "integrated-gradients")
"""Methods whose heat jumps from one pixel to the next, so that unsmoothed it cannot be seen."""
MEANING_LINES, _VERDICT_LINES = 3, 4
_ANSWER = " → "


@dataclass(frozen=True, slots=True)
class Caption:
    """The words below one heatmap.

    Args:
        label: The true class, if it is known.
        predicted: The class that was answered; None leaves the answer out.
        probability: Of that class.
        target_probability: Of the class that the heat is for, where it is another one.
        name: The file's name, where the picture cannot be traced without.
        verdict: What the checks say, and why; "" where there is room for the verdict alone.
    """

    label: str | None = None
    predicted: str | None = None
    probability: float = 0.0
    target_probability: float | None = None
    name: str = ""
    verdict: tuple[str, str] | None = None


def title_of(method: str) -> str:
    """A method's name in the field; those of an ensemble's members one after the other."""
    return ", ".join(METHODS[m].title if m in METHODS else m for m in _methods(method))


def unit_of(method: str) -> str:
    """What heat is measured in."""
    return METHODS[method].unit if method in METHODS else ""


def _methods(method: str) -> list[str]:
    return method.split(", ")


def classless(explanation: Explanation) -> bool:
    """Whether the heat is the same whatever class is asked about."""
    return all(m in _CLASSLESS for m in _methods(explanation.method))


def signed(explanation: Explanation) -> bool:
    """Whether heat above zero speaks for the target; else it says where something matters, and not to which end."""
    return all(METHODS[m].signed for m in _methods(explanation.method) if m in METHODS)


def two_sided(explanation: Explanation) -> bool:
    """Whether heat that speaks against the target is drawn as well: of shares, and of one class against another."""
    return signed(explanation) and (explanation.method in _SHARES or bool(explanation.contrast))


def smoothed(explanation: Explanation) -> bool:
    """Whether the heat is drawn under a Gaussian: that of many single pixels."""
    return min(explanation.heat.shape) > MOST_CELLS and all(m in _SPECKLED for m in _methods(explanation.method))


def answer(label: str | None, predicted: str, probability: float, room_px: float) -> str:
    """The true label if it is known, what was predicted, and how sure; long names lose their middle.

    Example:
        >>> answer("cat", "dog", 0.934, 400), answer(None, "dog", 1.0, 400)
        ('cat → dog (93%)', 'dog (100%)')
    """
    share = f" ({probability:.0%})"
    room = room_px - width(share, TEXT_PX)
    if label is None:
        return shorten(predicted, room, TEXT_PX) + share
    room = (room - width(_ANSWER, TEXT_PX)) / 2
    return f"{shorten(label, room, TEXT_PX)}{_ANSWER}{shorten(predicted, room, TEXT_PX)}{share}"


def meaning(explanation: Explanation, probability: float | None, room_px: float) -> list[str]:
    """What the colours mean, by which method, in at most three lines; long names of classes lose their middle."""
    most = room_px * (0.4 if explanation.contrast else 0.7)
    target = shorten(explanation.target, most, SMALL_PX)
    against = shorten(explanation.contrast, most, SMALL_PX)
    share = "" if probability is None else f" ({probability:.0%})"
    if classless(explanation):
        said = "where the network responds (no class)"
    elif not signed(explanation):
        said = f"what the score of {target}{share}{f' over {against}' if against else ''} hangs on (no sign)"
    elif against:
        said = f"evidence for {target}{share}, not {against} (blue: for {against})"
    elif two_sided(explanation):
        said = f"evidence for {target}{share} (blue: against)"
    else:
        said = f"evidence for {target}{share}"
    how = f"{said} · {title_of(explanation.method)}"
    return wrap(how + (" · smoothed for display" if smoothed(explanation) else ""), room_px, SMALL_PX, MEANING_LINES)


def judgement(verdict: tuple[str, str], room_px: float) -> list[str]:
    """What the checks say, with a sign that needs no colour, in at most four lines."""
    word, why = verdict
    sign = {"passes": "✓", "weak": "≈"}.get(word, "✗")
    return wrap(f"{sign} {word}: {why}" if why else f"{sign} {word}", room_px, SMALL_PX, _VERDICT_LINES)
