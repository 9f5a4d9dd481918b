"""Network diagrams: record the operations of a network, group them into blocks, lay these out and draw them."""

from sightline.networks.picture.drawing import draw

__all__ = ["draw"]
