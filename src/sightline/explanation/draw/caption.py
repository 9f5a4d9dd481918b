"""Captions of heatmaps: the prediction, the meaning of the colours, and the verdict of the checks."""

from __future__ import annotations

from dataclasses import dataclass

from sightline.explanation.draw.lettering import SMALL_PX, TEXT_PX, shorten, width, wrap
from sightline.explanation.methods import METHODS
from sightline.explanation.methods.record import Method
from sightline.records import Explanation
from sightline.records.predictions import MOST_CELLS

MEANING_LINES, _VERDICT_LINES = 3, 4
_ARROW = " → "


@dataclass(frozen=True, slots=True)
class Caption:
    """The text below a heatmap.

    Args:
        label: The true class, if known.
        predicted: The predicted class; None omits the prediction.
        probability: Its probability.
        target_probability: The probability of the explained class, if that is another one.
        name: The file's name, where the image could not be identified without it.
        verdict: The verdict of the checks and its reason; "" where there is room for the verdict only.
    """

    label: str | None = None
    predicted: str | None = None
    probability: float = 0.0
    target_probability: float | None = None
    name: str = ""
    verdict: tuple[str, str] | None = None


def title_of(method: str) -> str:
    """Return a method's name in the field; those of an ensemble's members are joined by commas."""
    return ", ".join(METHODS[m].title if m in METHODS else m for m in method.split(", "))


def unit_of(method: str) -> str:
    """Return the unit of a heatmap; "" for several methods."""
    return METHODS[method].unit if method in METHODS else ""


def _records(explanation: Explanation) -> list[Method]:
    """Return the records of the methods of an explanation, several for an ensemble."""
    return [METHODS[m] for m in explanation.method.split(", ") if m in METHODS]


def class_free(explanation: Explanation) -> bool:
    """Return whether the heatmap is the same for every class."""
    records = _records(explanation)
    return bool(records) and all(m.class_free for m in records)


def signed(explanation: Explanation) -> bool:
    """Return whether positive values are evidence for the target; else they mean that a place matters, in either direction."""
    return all(m.signed for m in _records(explanation))


def two_sided(explanation: Explanation) -> bool:
    """Return whether evidence against the target is drawn: for shares of the score, and with a contrast class."""
    shares = explanation.method in METHODS and METHODS[explanation.method].shares
    return signed(explanation) and (shares or bool(explanation.contrast))


def smoothed(explanation: Explanation) -> bool:
    """Return whether the heatmap is smoothed for display: one of single pixels."""
    records = _records(explanation)
    return min(explanation.heat.shape) > MOST_CELLS and bool(records) and all(m.noisy for m in records)


def answer(label: str | None, predicted: str, probability: float, room_px: float) -> str:
    """Return the true label if known, the prediction and its probability; long names are shortened in their middle.

    Example:
        >>> answer("cat", "dog", 0.934, 400), answer(None, "dog", 1.0, 400)
        ('cat → dog (93%)', 'dog (100%)')
    """
    share = f" ({probability:.0%})"
    room = room_px - width(share, TEXT_PX)
    if label is None:
        return shorten(predicted, room, TEXT_PX) + share
    room = (room - width(_ARROW, TEXT_PX)) / 2
    return f"{shorten(label, room, TEXT_PX)}{_ARROW}{shorten(predicted, room, TEXT_PX)}{share}"


def meaning(explanation: Explanation, probability: float | None, room_px: float) -> list[str]:
    """Return the meaning of the colours and the method, in at most three lines; long class names are shortened."""
    most = room_px * (0.4 if explanation.contrast else 0.7)
    target = shorten(explanation.target, most, SMALL_PX)
    contrast = shorten(explanation.contrast, most, SMALL_PX)
    share = "" if probability is None else f" ({probability:.0%})"
    if class_free(explanation):
        text = "where the network responds (no class)"
    elif not signed(explanation):
        text = f"where the score of {target}{share}{f' minus {contrast}' if contrast else ''} is sensitive (no sign)"
    elif contrast:
        text = f"evidence for {target}{share}, not {contrast} (blue: for {contrast})"
    elif two_sided(explanation):
        text = f"evidence for {target}{share} (blue: against)"
    else:
        text = f"evidence for {target}{share}"
    text += f" · {title_of(explanation.method)}"
    return wrap(text + (" · smoothed for display" if smoothed(explanation) else ""), room_px, SMALL_PX, MEANING_LINES)


def judgement(verdict: tuple[str, str], room_px: float) -> list[str]:
    """Return the verdict and its reason, with a sign that needs no colour, in at most four lines."""
    word, reason = verdict
    sign = {"passes": "✓", "weak": "≈"}.get(word, "✗")
    return wrap(f"{sign} {word}: {reason}" if reason else f"{sign} {word}", room_px, SMALL_PX, _VERDICT_LINES)
