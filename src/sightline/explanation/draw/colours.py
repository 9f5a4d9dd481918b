"""Colour maps of heatmaps: perceptually uniform, ordered by lightness, safe for colour blindness and grey prints."""

from __future__ import annotations

import functools

import numpy as np

STEPS = 256
MOST_OPAQUE = 0.65
OPAQUE_FROM = 0.6
"""Share of the scale from which the opacity is at its maximum."""


def oklab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """Convert OKLab (…, 3) to sRGB (…, 3) in 0 to 1, clipped to the gamut.

    Source: B. Ottosson, A perceptual color space for image processing (2020).
    """
    to_lms = np.array([[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]])
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = ((lab @ to_lms.T) ** 3) @ to_rgb.T
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.clip(np.where(linear <= 0.0031308, 12.92 * linear, curved), 0, 1))


def _ramp(lightness: tuple[float, float], chroma: tuple[float, float, float], hue: tuple[float, float]) -> np.ndarray:
    """Return a colour ramp, float64 (STEPS, 3) sRGB; lightness and hue are linear, chroma is interpolated over three values."""
    at = np.linspace(0, 1, STEPS)
    light = lightness[0] + at * (lightness[1] - lightness[0])
    strength = np.interp(at, [0, 0.5, 1], chroma)
    angle = np.radians(hue[0] + at * (hue[1] - hue[0]))
    return oklab_to_srgb(np.stack([light, strength * np.cos(angle), strength * np.sin(angle)], axis=-1))


@functools.cache
def positive_colours() -> np.ndarray:
    """Return the colours of positive values, float64 (256, 3): from pink over red and orange to light yellow."""
    return _ramp((0.60, 0.95), (0.16, 0.19, 0.17), (-20.0, 105.0))


@functools.cache
def negative_colours() -> np.ndarray:
    """Return the colours of negative values, float64 (256, 3): from light to dark blue, always darker than mid-grey."""
    return _ramp((0.60, 0.32), (0.12, 0.17, 0.17), (240.0, 264.0))


@functools.cache
def _table() -> np.ndarray:
    """Return colour and opacity from the most negative to the most positive value, float32 (2·STEPS - 1, 4)."""
    colour = np.concatenate([negative_colours()[:0:-1], positive_colours()])
    strength = np.abs(np.linspace(-1, 1, 2 * STEPS - 1))
    opacity = MOST_OPAQUE * np.clip(strength / OPAQUE_FROM, 0, 1)
    return np.concatenate([colour, opacity[:, None]], axis=1).astype(np.float32)


def colours_of(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and opacity of values given as shares of the scale.

    Args:
        share: float (…), -1 to 1; values beyond are clipped.

    Returns:
        Colours float32 (…, 3) in 0 to 1, and opacity float32 (…), 0 at zero so that the image stays visible.
    """
    index = np.rint(np.clip(share, -1, 1) * (STEPS - 1)).astype(np.int16) + (STEPS - 1)
    rgba = _table()[index]
    return rgba[..., :3], rgba[..., 3]
