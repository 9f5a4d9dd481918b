"""HTML reports: one self-contained file about finished runs, studies or comparisons, without torch.

Images and heatmaps are read from the run folder; nothing is computed by a network here.
"""

from sightline.report.audit import write_audit
from sightline.report.comparison import write_comparison
from sightline.report.documents import write_card, write_documents
from sightline.report.folders import write_page
from sightline.report.page import write_report
from sightline.report.study import write_study

__all__ = ["write_audit", "write_card", "write_comparison", "write_documents", "write_page", "write_report", "write_study"]
