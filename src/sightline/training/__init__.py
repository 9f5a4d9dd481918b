"""Catalog and recipe → classifier, by one of several methods."""
