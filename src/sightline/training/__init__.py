"""Catalog + recipe → classifier: the methods, the one training loop, augmentation."""
