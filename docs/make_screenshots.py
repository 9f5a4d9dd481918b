"""Take the screenshots of README and docs in Chromium: `python docs/make_screenshots.py`.

They show the reports of the gallery (`python docs/make_gallery.py`): the demo's digits and drawn images, no photographs.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.browser import drive  # noqa: E402

PAGES = ROOT / "build" / "gallery" / "gallery"
FOLDER = ROOT / "docs" / "screenshots"
COLOURS = 96


@dataclass(frozen=True, slots=True)
class Shot:
    """One screenshot.

    Args:
        name: File name without `.png`.
        page: Page of the gallery.
        section: Id of the element at its top; "" for the top of the page.
        width, height: Size of the window in px.
        dark: Whether the colour scheme is dark.
        before: JavaScript that is run first, such as a click.
    """

    name: str
    page: str
    section: str = ""
    width: int = 1200
    height: int = 800
    dark: bool = False
    before: str = ""


SHOTS = (
    Shot("report", "digits", height=900),
    Shot("mistakes", "digits", "mistakes", height=760, dark=True),
    Shot("phone", "digits", width=400, height=800),
    Shot("threshold", "rings", "threshold", height=900),
    Shot("heatmaps", "rings", "correct", height=620),
    Shot("training", "training", "methods", height=820),
    Shot("comparison", "comparison", height=760),
    Shot("audit", "audit", height=900),
)


def take(page: Any, shot: Shot) -> Image.Image:
    """Open a page of the gallery and return a picture of its window."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if shot.dark else "light"}
    page._call("Emulation.setEmulatedMedia", features=[scheme])
    size = {"width": shot.width, "height": shot.height, "deviceScaleFactor": 1, "mobile": shot.width < 600}
    page._call("Emulation.setDeviceMetricsOverride", **size)
    page.open((PAGES / f"{shot.page}.html").as_uri())
    drive.wait_for(page, "document.readyState === 'complete'")
    if shot.before:
        page.evaluate(shot.before)
    if shot.section:
        page.evaluate(f"document.getElementById({shot.section!r}).scrollIntoView({{behavior: 'instant'}})")
    time.sleep(0.5)
    return Image.open(io.BytesIO(base64.b64decode(page._call("Page.captureScreenshot")["data"]))).convert("RGB")


def main() -> None:
    """Take all screenshots."""
    if drive.program_of("chromium") is None:
        raise SystemExit("Chromium is not installed. hint: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    with drive.browser("chromium", "about:blank") as page:
        for shot in SHOTS:
            file = FOLDER / f"{shot.name}.png"
            take(page, shot).quantize(COLOURS).save(file, optimize=True)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
