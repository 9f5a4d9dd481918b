"""HTTP service: predict images with trained classifiers, and a page to try them."""

from sightline.serve.server import Settings, serve

__all__ = ["Settings", "serve"]
