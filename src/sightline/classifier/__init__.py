"""Image classifiers (preprocessing, backbone, head, calibration): predict, save and load."""

from sightline.classifier.environment import environment, versions
from sightline.classifier.files import load
from sightline.classifier.model import (
    Classifier,
    Decoded,
    Sessions,
    backbone_tensors,
    check_crops,
    content_keys,
    find_images,
    no_image,
)
from sightline.classifier.resident import Resident

__all__ = [
    "Classifier",
    "Decoded",
    "Resident",
    "Sessions",
    "backbone_tensors",
    "check_crops",
    "content_keys",
    "environment",
    "find_images",
    "load",
    "no_image",
    "versions",
]
