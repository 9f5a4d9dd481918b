"""Image classifiers (preprocessing, backbone, head, calibration): predict, save and load."""

from sightline.classifier.environment import environment, versions
from sightline.classifier.files import load
from sightline.classifier.model import Classifier, backbone_tensors, check_crops, content_keys, find_images, no_image

__all__ = [
    "Classifier",
    "backbone_tensors",
    "check_crops",
    "content_keys",
    "environment",
    "find_images",
    "load",
    "no_image",
    "versions",
]
