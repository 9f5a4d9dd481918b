"""Sightline: from a folder of photographs to an honest classifier, its score, its mistakes and where it looked."""

__version__ = "0.1.0"
