"""Make the gallery of the site: reports of the demo's digits and of drawn images, with the commands that wrote them.

`python docs/make_gallery.py` writes build/gallery/gallery/*.html and docs/gallery/README.md; finished reports are kept.
Nothing of it is in git.
"""

from __future__ import annotations

import html
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "gallery-work"
PAGES = ROOT / "build" / "gallery" / "gallery"
INDEX = ROOT / "docs" / "gallery" / "README.md"


@dataclass(frozen=True, slots=True)
class Item:
    """One page of the gallery.

    Args:
        name: Name of the page without `.html`.
        title: Title.
        text: What to look at.
        commands: Command lines that write it, run in the work folder.
        page: The written page, relative to the work folder.
    """

    name: str
    title: str
    text: str
    commands: tuple[str, ...]
    page: str


ITEMS = (
    Item(
        "digits",
        "Handwritten digits",
        "The demo: ten classes, 1,797 small images, no pretrained network. Look at the confusion matrix and at the most "
        "similar training images of each mistake.",
        ("sightline demo -o demo",),
        "demo/runs/*/report.html",
    ),
    Item(
        "rings",
        "Discs and rings",
        "Two classes, 320 drawn images, features of the installed networks. Move the decision threshold, and switch between "
        "photograph and heatmap.",
        ("sightline run shapes --positive ring --threshold youden --budget 4m --name rings -o runs",),
        "runs/rings*/report.html",
    ),
    Item(
        "training",
        "A network trained from scratch",
        "Training curves, gradient norms of each layer and the layer table of a small network.",
        (
            'sightline train shapes --method scratch --backbone "cnn(filters=[16, 32, 64])" --set image_size=32'
            " --epochs 12 -o cnn",
        ),
        "cnn/report.html",
    ),
    Item(
        "sweep",
        "A sweep",
        "Three seeds of each rotation, on the same split, with paired tests.",
        (
            'sightline train digits --method scratch --backbone "cnn(filters=[8, 16])" --set image_size=16 --epochs 3'
            " --sweep augment.rotation=0,15,45,90 --seeds 2 -o sweep",
        ),
        "sweep/report.html",
    ),
    Item(
        "comparison",
        "A comparison",
        "Two classifiers on the same images: paired test, interval of the difference, and the images on which they disagree.",
        (
            "sightline train shapes --method features --backbone pixels --head ridge -o ridge",
            "sightline train shapes --method features --backbone pixels --head forest -o forest",
            "sightline compare ridge forest --split val -o comparison",
        ),
        "comparison/report.html",
    ),
    Item(
        "audit",
        "An audit",
        "The drawn images again, with copies, wrong labels and a watermark added on purpose.",
        ("sightline audit spoilt -o audit",),
        "audit/audit.html",
    ),
)


def shape(kind: str, rng: np.random.Generator, size: int = 128) -> Image.Image:
    """Draw a disc or a ring on a noisy ground."""
    ground = np.clip(rng.integers(110, 220, 3) + rng.normal(0, 12, (size, size, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(ground)
    radius = int(rng.integers(14, 34))
    x, y = (int(value) for value in rng.integers(radius + 4, size - radius - 4, 2))
    ink = tuple(int(value) for value in rng.integers(10, 100, 3))
    box = (x - radius, y - radius, x + radius, y + radius)
    width = int(radius * rng.uniform(0.35, 0.8))
    draw = ImageDraw.Draw(image)
    if kind == "disc":
        draw.ellipse(box, fill=ink)
    else:
        draw.ellipse(box, outline=ink, width=width)
    return image


def write_images() -> None:
    """Write the folders `shapes`, `spoilt` (the same with planted problems) and `digits` into the work folder."""
    from sightline.demo import write_digits

    rng = np.random.default_rng(0)
    for kind in ("disc", "ring"):
        folder = WORK / "shapes" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(160):
            shape(kind, rng).save(folder / f"{kind}-{number:03d}.jpg", quality=90)
    shutil.copytree(WORK / "shapes", WORK / "spoilt", dirs_exist_ok=True)
    for number in range(6):
        image = Image.open(WORK / "shapes" / "disc" / f"disc-{number:03d}.jpg")
        image.resize((96, 96)).save(WORK / "spoilt" / "disc" / f"copy-{number}.jpg", quality=70)
        wrong = WORK / "spoilt" / "disc" / f"disc-{number + 10:03d}.jpg"
        wrong.rename(WORK / "spoilt" / "ring" / wrong.name)
    for file in sorted((WORK / "spoilt" / "ring").glob("ring-*.jpg"))[:60]:
        image = Image.open(file).convert("RGB")
        ImageDraw.Draw(image).rectangle((96, 116, 124, 124), fill=(250, 250, 250))
        image.save(file, quality=90)
    write_digits(WORK / "digits")


def make(item: Item) -> None:
    """Run the commands of a page and copy it, unless it is there."""
    if (PAGES / f"{item.name}.html").is_file():
        return
    for command in item.commands:
        print(command, flush=True)
        program = [sys.executable, "-m", "sightline", *shlex.split(command)[1:]]
        subprocess.run(program, cwd=WORK, check=True, stdout=subprocess.DEVNULL)
    PAGES.mkdir(parents=True, exist_ok=True)
    shutil.copy(next(iter(sorted(WORK.glob(item.page)))), PAGES / f"{item.name}.html")


def index() -> str:
    """Return the page that lists the gallery."""
    parts = [
        "# Gallery",
        "Each page is one file that opens offline. The digits come with scikit-learn; the other images are drawn.",
    ]
    for item in ITEMS:
        commands = "\n".join(item.commands)
        link = f'<a href="../../gallery/{item.name}.html"><strong>Open: {html.escape(item.title)}</strong></a>'
        parts += [f"## {item.title}", item.text, link, f"```console\n{commands}\n```"]
    return "\n\n".join(parts) + "\n"


def write_index() -> None:
    """Write the page that lists the gallery into the documentation."""
    INDEX.parent.mkdir(exist_ok=True)
    INDEX.write_text(index(), encoding="utf-8")


def main() -> None:
    """Write all pages and the index."""
    if not all((PAGES / f"{item.name}.html").is_file() for item in ITEMS):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        write_images()
    for item in ITEMS:
        make(item)
    write_index()


if __name__ == "__main__":
    main()
