"""The picture of a network: what happens in it, folded into what a person would draw, laid out on a page."""

from sightline.networks.picture.drawing import draw

__all__ = ["draw"]
