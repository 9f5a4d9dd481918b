"""Findings that need features or a classifier: label errors, outliers, shortcuts, pretraining overlap, what to label next."""
