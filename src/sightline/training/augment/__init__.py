"""Augmentation: draw parameters per image, then apply them to a batch as one warp and one colour matrix.

Whatever geometric and colour changes a policy has, a batch costs one `grid_sample` and one matrix product; blur, noise and
erasing are extra; resolution and JPEG compression are applied image by image.
"""

from sightline.training.augment.applying import Changes, altered, apply, prepare, unchanged
from sightline.training.augment.colour import GREY, colour_matrices, hue_matrices, principal_colours
from sightline.training.augment.drawing import Draw, draw, identity
from sightline.training.augment.extremes import EXTREMES, Extreme, extremes, in_words, operations
from sightline.training.augment.policy import POLICIES, SETTINGS, Policy, Setting, is_grey, policy_for
from sightline.training.augment.warp import displacement, sampling_grid, warp_matrices

__all__ = [
    "EXTREMES",
    "GREY",
    "POLICIES",
    "SETTINGS",
    "Changes",
    "Draw",
    "Extreme",
    "Policy",
    "Setting",
    "altered",
    "apply",
    "colour_matrices",
    "displacement",
    "draw",
    "extremes",
    "hue_matrices",
    "identity",
    "in_words",
    "is_grey",
    "operations",
    "policy_for",
    "prepare",
    "principal_colours",
    "sampling_grid",
    "unchanged",
    "warp_matrices",
]
