"""Export to one web page."""

from __future__ import annotations

from sightline.errors import SightlineError
from sightline.export.format import ExportFormat, ExportRequest, Written


def write(request: ExportRequest) -> Written:
    """Write the page."""
    raise SightlineError("not yet")


FORMAT = ExportFormat(name="html", title="a web page", suffix=".html", precisions=("f16",), write=write)
