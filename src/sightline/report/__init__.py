"""Finished runs → one HTML file that opens with a double click, offline, and needs neither scripts nor torch.

Whatever it shows of images, networks or heatmaps was put into the run's folder before.
"""

from sightline.report.comparison import write_comparison
from sightline.report.folders import write_page
from sightline.report.page import write_report
from sightline.report.study import write_study

__all__ = ["write_comparison", "write_page", "write_report", "write_study"]
