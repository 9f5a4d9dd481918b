"""The colours of heat: even steps for the eye, one order of lightness, told apart by colour-blind people and on grey prints."""

from __future__ import annotations

import functools

import numpy as np

STEPS = 256
MOST_OPAQUE = 0.65
OPAQUE_FROM = 0.6
"""The share of the scale from which heat is as opaque as it gets."""


def oklab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """OKLab (…, 3) → sRGB (…, 3) in 0 to 1, cut to the gamut.

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
    """float64 (STEPS, 3) sRGB: lightness and hue go in even steps; chroma from its first over its middle to its last value."""
    at = np.linspace(0, 1, STEPS)
    light = lightness[0] + at * (lightness[1] - lightness[0])
    strength = np.interp(at, [0, 0.5, 1], chroma)
    angle = np.radians(hue[0] + at * (hue[1] - hue[0]))
    return oklab_to_srgb(np.stack([light, strength * np.cos(angle), strength * np.sin(angle)], axis=-1))


@functools.cache
def speaks_for() -> np.ndarray:
    """float64 (256, 3): from pink over red and orange to light yellow, for heat above zero; ever lighter than mid-grey."""
    return _ramp((0.60, 0.95), (0.16, 0.19, 0.17), (-20.0, 105.0))


@functools.cache
def speaks_against() -> np.ndarray:
    """float64 (256, 3): from light to dark blue, for heat below zero; ever darker than mid-grey, and never like a warm one."""
    return _ramp((0.60, 0.32), (0.12, 0.17, 0.17), (240.0, 264.0))


@functools.cache
def _table() -> np.ndarray:
    """float32 (2·STEPS - 1, 4): colour and opacity from the strongest heat against to the strongest for; nothing at zero."""
    colour = np.concatenate([speaks_against()[:0:-1], speaks_for()])
    strength = np.abs(np.linspace(-1, 1, 2 * STEPS - 1))
    opacity = MOST_OPAQUE * np.clip(strength / OPAQUE_FROM, 0, 1)
    return np.concatenate([colour, opacity[:, None]], axis=1).astype(np.float32)


def colours_of(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours and opacity of heat that is given as a share of the scale.

    Args:
        share: float (…), -1 to 1; beyond that it is cut.

    Returns:
        Colours float32 (…, 3) in 0 to 1, and opacity float32 (…): none at zero, so that the picture stays visible.
    """
    index = np.rint(np.clip(share, -1, 1) * (STEPS - 1)).astype(np.int16) + (STEPS - 1)
    found = _table()[index]
    return found[..., :3], found[..., 3]
