"""Finished runs → one HTML file that opens with a double click, offline, and needs neither scripts nor torch.

Whatever it shows of images, networks or heatmaps was put into the run's folder before.
"""

from sightline.report.page import write_report

__all__ = ["write_report"]
