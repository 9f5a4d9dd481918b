"""Export: a classifier as a file that predicts without Sightline, checked for agreement before it is kept.

Each format is one file that ends in its record `FORMAT`; `FORMATS` lists them by name.
"""

from sightline.export.format import ExportFormat, ExportRequest, Written
from sightline.export.writing import FORMATS, check_format, export_classifier

__all__ = ["FORMATS", "ExportFormat", "ExportRequest", "Written", "check_format", "export_classifier"]
