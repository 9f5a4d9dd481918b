"""Image decoding: turn files into uint8 arrays and batches with one decoder and one `Preprocess`. Does not import torch."""

from sightline.pixels.batching import Batch, batches, decode_same, value_range
from sightline.pixels.crops import CROPS, check_crops, cut, uncut
from sightline.pixels.decoding import Look, decode, decode_array, image_array, look, preview, read, upright
from sightline.pixels.file_properties import PROPERTIES, file_properties
from sightline.pixels.geometry import seen_box
from sightline.pixels.header import PASSING_PROBLEMS, Header, read_header, safe_header
from sightline.pixels.modes import CHANNELS, array_fault
from sightline.pixels.opening import DEEP_MODES
from sightline.pixels.sniff import KNOWN_SUFFIXES
from sightline.records import Preprocess

__all__ = [
    "CHANNELS",
    "CROPS",
    "DEEP_MODES",
    "KNOWN_SUFFIXES",
    "PASSING_PROBLEMS",
    "PROPERTIES",
    "Batch",
    "Header",
    "Look",
    "Preprocess",
    "array_fault",
    "batches",
    "check_crops",
    "cut",
    "decode",
    "decode_array",
    "decode_same",
    "file_properties",
    "image_array",
    "look",
    "preview",
    "read",
    "read_header",
    "safe_header",
    "seen_box",
    "uncut",
    "upright",
    "value_range",
]
