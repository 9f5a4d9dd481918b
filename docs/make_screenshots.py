"""Take the screenshots of README and docs in Chromium: `python docs/make_screenshots.py`.

They show the reports of the gallery (`python docs/make_gallery.py`) and its runs in the local app: the demo's digits and drawn
images, no photographs.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.browser import drive  # noqa: E402

WORK = ROOT / "build" / "gallery-work"
PAGES = ROOT / "build" / "gallery" / "gallery"
FOLDER = ROOT / "docs" / "screenshots"
COLOURS = 96
HIDE_FOLDER = """(() => {{
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) nodes.currentNode.nodeValue = nodes.currentNode.nodeValue.replaceAll({folder}, "my runs");
}})()"""
"""Replaces the folder of this machine in the text of a page."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One screenshot.

    Args:
        name: File name without `.png`.
        page: Page of the gallery, or address in the local app if it begins with a slash.
        section: Id of the element at its top; "" for the top of the page.
        width, height: Size of the window in px.
        dark: Whether the colour scheme is dark.
        before: JavaScript that is run first, such as a click; then the page of the picture is awaited.
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
    Shot("threshold", "rings", "threshold", height=900),
    Shot("heatmaps", "rings", "correct", height=620),
    Shot("comparison", "comparison", height=760),
    Shot("audit", "audit", height=900),
    Shot("app-runs", "/runs", height=700),
    Shot("app-data", "/data", height=860, before="document.querySelector('main a[href^=\"/data/\"]')?.click()"),
)


@contextlib.contextmanager
def local_app() -> Iterator[str]:
    """Run `sightline open` on the runs of the gallery and yield the address that it prints."""
    command = [sys.executable, "-u", "-m", "sightline", "open", ".", "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, cwd=WORK, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, encoding="utf-8")
    try:
        lines = iter(process.stdout or ())
        yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1\S+", line)))
    finally:
        process.terminate()
        process.wait(30)


def take(page: Any, shot: Shot, home: str) -> Image.Image:
    """Open a page of the gallery, or of the app at `home`, and return a picture of its window."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if shot.dark else "light"}
    page._call("Emulation.setEmulatedMedia", features=[scheme])
    size = {"width": shot.width, "height": shot.height, "deviceScaleFactor": 1, "mobile": shot.width < 600}
    page._call("Emulation.setDeviceMetricsOverride", **size)
    address = f"{home}{shot.page}" if shot.page.startswith("/") else (PAGES / f"{shot.page}.html").as_uri()
    page.open(address)
    drive.wait_for(page, f"location.href.startsWith({address!r}) && document.readyState === 'complete'")
    if shot.before:
        page.evaluate(f"{shot.before}; 1")
        time.sleep(3)
    if shot.section:
        page.evaluate(f"document.getElementById({shot.section!r}).scrollIntoView({{behavior: 'instant'}})")
    time.sleep(1)
    page.evaluate(HIDE_FOLDER.format(folder=json.dumps(str(WORK))))
    return Image.open(io.BytesIO(base64.b64decode(page._call("Page.captureScreenshot")["data"]))).convert("RGB")


def main() -> None:
    """Take all screenshots."""
    if drive.program_of("chromium") is None:
        raise SystemExit("Chromium is not installed. hint: apt-get install chromium")
    FOLDER.mkdir(exist_ok=True)
    with local_app() as address, drive.browser("chromium", address) as page:
        drive.wait_for(page, "location.pathname === '/runs'")
        for shot in SHOTS:
            file = FOLDER / f"{shot.name}.png"
            take(page, shot, address.partition("/enter")[0]).quantize(COLOURS).save(file, optimize=True)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
