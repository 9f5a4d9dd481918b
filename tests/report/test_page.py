"""The whole report: self-contained, escaped, bounded in size, and complete for runs that lack parts."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sightline import evaluation, report
from sightline.errors import RequestError
from sightline.inputs import read_predictions
from sightline.records import Predictions, Run, RunRecord
from sightline.report import page, sections
from sightline.store import write_text

VOID = {"meta", "img", "br", "link", "input", "hr", "line", "rect", "circle", "path"}


class Elements(HTMLParser):
    """Every element with its attributes; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def test_the_report_is_one_file_that_loads_nothing(run: Run, tmp_path: Path) -> None:
    file = report.write_report([run], tmp_path / "report.html")
    text = file.read_text(encoding="utf-8")
    elements = Elements(text)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"link", "iframe", "object", "embed", "form", "base"}
    assert all(set(a) <= {"type", "class"} for t, a in elements.found if t == "script"), "scripts are inline"
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", (tag, name)
            if name in ("src", "href", "srcset", "action", "xlink:href"):
                assert value is not None and value.startswith(("data:image/", "#")), (tag, value)
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text


def test_the_content_security_policy_allows_only_the_own_style_and_script(run: Run) -> None:
    text = page.render([run])
    policy = next(a["content"] for t, a in Elements(text).found if a.get("http-equiv") == "Content-Security-Policy") or ""
    for tag in ("style", "script"):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_every_figure_is_well_formed_and_every_picture_has_words(run: Run) -> None:
    text = page.render([run])
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(figures) > 20
    for figure in figures:
        ElementTree.fromstring(figure)
        assert "nan" not in figure and "inf" not in re.sub("interval|infinit", "", figure)
    for tag, attributes in Elements(text).found:
        if tag == "img":
            assert attributes.get("alt")
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden")


def test_links_lead_to_sections(run: Run) -> None:
    for runs in ([run], [run, run]):
        found = Elements(page.render(runs)).found
        ids = [a["id"] for _, a in found if "id" in a]
        assert len(ids) == len(set(ids))
        assert {a["href"] for t, a in found if t == "a"} <= {f"#{i}" for i in ids}


HOSTILE = (
    "<script>alert(1)</script>",
    '"onerror=alert(1) x="',
    "</script></style></title><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "right\u202eto left\nand a line\x00\x1b[31m",
    "日本語 🦊 " + "very long " * 400,
)


@pytest.mark.slow
def test_names_with_markup_are_escaped(drawn: ModuleType, tmp_path: Path) -> None:
    changes = {
        "name": HOSTILE[0],
        "command": f"sightline run {HOSTILE[2]}",
        "rerun": [f"sightline run '{HOSTILE[2]}'"],
        "plan": list(HOSTILE),
        "backbone": HOSTILE[0],
        "subject": HOSTILE[1],
        "overfitting": HOSTILE[2],
        "undecodable": {"test": [{"path": HOSTILE[2], "problem": HOSTILE[1]}]},
        "shortcut": {"alarm": True, "class": HOSTILE[0], "feature": HOSTILE[1], "auc": 0.99, "auc_low": 0.97},
        "skipped": [{"method": HOSTILE[0], "backbone": HOSTILE[1], "why": HOSTILE[2]}],
        "test_openings": [{"when": HOSTILE[0], "by": HOSTILE[1]}] * 2,
        "environment": {"processor": HOSTILE[0], "versions": {HOSTILE[1]: HOSTILE[2]}},
        "timings": {HOSTILE[0]: 1.0},
    }
    made = drawn.make(tmp_path / "run", HOSTILE, n=90, most_pictures=6, changes=changes)
    made.data["data"] |= {
        "notes": list(HOSTILE),
        "problems": {HOSTILE[0]: 3},
        "problem_files": [{"path": h, "problem": h} for h in HOSTILE],
        "formats": {HOSTILE[0]: 3},
    }
    made.data["split"]["leaks"] = [[HOSTILE[0], HOSTILE[1]]]
    text = page.render([made, made])
    elements = Elements(text)
    assert "iframe" not in {tag for tag, _ in elements.found}
    assert [a.get("type") for t, a in elements.found if t == "script"] == ["application/json"] * 2 + [None]
    assert all(not name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert "<script>alert(1)</script>" in elements.text and "49" not in "".join(re.findall("{{.*?}}", text))
    assert "\u202e" not in text and "\x00" not in text and "\x1b" not in text and "\\u202e" in text
    assert "very long " * 50 not in text


@pytest.mark.slow
def test_missing_files_leave_out_their_sections(run: Run, tmp_path: Path) -> None:
    for key in sorted(run.data):
        Elements(page.render([Run(tmp_path, {k: v for k, v in run.data.items() if k != key})]))
    for block in ("data", "split", "precision"):
        for key in run.data[block]:
            less = {k: v for k, v in run.data[block].items() if k != key}
            Elements(page.render([Run(tmp_path, {**run.data, block: less})]))
    text = Elements(page.render([Run(tmp_path, {})])).text
    assert "No score" in text


def test_damaged_tables_and_pictures_are_left_out(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    write_text(folder / "predictions" / "test.csv", "path,label,p:disc\nx,disc,not a number\n")
    (folder / "samples" / "001.jpg").write_bytes(b"<html>no image</html>")
    for first in sorted((folder / "explanations").iterdir())[:3]:  # a photograph, its heatmap, and both together
        first.write_bytes(first.read_bytes()[:200])
    elements = Elements(page.render([Run(folder, run.data)]))
    assert "Calibration: do" not in elements.text and "no picture" in elements.text


def test_no_picture_is_taken_from_outside_the_run(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "secret.png")
    inside = tmp_path / "run"
    inside.mkdir()
    samples = [
        {"path": "x", "label": "x", "file": name, "seen": None} for name in ("../secret.png", str(tmp_path / "secret.png"))
    ]
    data = {"data": {"images": 1, "samples": samples}}
    assert "data:image" not in page.render([Run(inside, data)])
    Image.new("RGB", (40, 40), "red").save(inside / "own.png")
    data["data"]["samples"] = [{"path": "x", "label": "x", "file": "own.png"}]
    assert "data:image" in page.render([Run(inside, data)])


def test_metadata_of_images_is_removed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET-PLACE"
    picture = Image.effect_noise((400, 300), 40).convert("RGB")
    for name, options in (("a.jpg", {"comment": b"SECRET-COMMENT"}), ("a.png", {})):
        picture.save(tmp_path / name, exif=exif, icc_profile=b"SECRET-PROFILE" * 20, **options)
        raw = (tmp_path / name).read_bytes()
        assert b"SECRET" in raw
        samples = [{"path": "x", "label": "x", "file": name}]
        text = page.render([Run(tmp_path, {"data": {"samples": samples}})])
        (uri,) = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
        data = base64.b64decode(uri)
        assert b"SECRET" not in data and b"Exif" not in data
        with Image.open(io.BytesIO(data)) as shown:
            assert shown.size == (280, 210) and not shown.getexif()


def test_many_classes_and_images_stay_bounded_and_readable(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    k, n = 100, 2500
    classes = tuple(f"species {i:03d}" for i in range(k))
    y = rng.integers(0, k, n)
    probs = rng.dirichlet(np.full(k, 0.05), n)
    p = Predictions(tuple(f"{classes[c]}/{i}.jpg" for i, c in enumerate(y)), classes, y, probs)
    write_text(tmp_path / "predictions" / "test.csv", p.to_csv())
    data = {
        "classes": list(classes),
        "test": evaluation.score(p),
        "mistakes": evaluation.mistakes(p),
        "data": {"images": n, "per_class": {c: {"train": 40, "val": 8, "test": 12} for c in classes}},
        "split": {"leaks": [[f"a{i}", f"b{i}"] for i in range(5000)]},
        "ladder": [{"method": "features", "label": f"m{i}", "val": {"accuracy": 0.5, "n": 5}} for i in range(500)],
    }
    text = page.render([Run(tmp_path, data)])
    elements = Elements(text)
    assert len(text) < 3_000_000
    assert "5 hardest of 100 classes" in elements.text and "80 more classes" in elements.text
    assert 'class="matrix"' in text and 'table class="confusion' not in text
    assert f"lists {len(data['mistakes']) - 200:,} more" in elements.text


def test_images_without_splits_have_one_column(tmp_path: Path) -> None:
    sizes = {"train": 0, "val": 0, "test": 0}
    data = {"images": 200, "per_class": {"cat": {**sizes, "unsplit": 120}, "dog": {**sizes, "unsplit": 80}}}
    text = Elements(page.render([Run(tmp_path, {"data": data})])).text
    assert "Val." not in text and re.search(r"Class\s+Images\s+cat\s+.*120\s+dog\s+.*80", text)
    divided = {"images": 10, "per_class": {"cat": {"train": 6, "val": 3, "test": 1}}}
    assert "Val." in Elements(page.render([Run(tmp_path, {"data": divided})])).text
    assert sections._class_rows({"cat": sizes})["shown"] == []


def test_a_note_says_which_scores_are_of_the_first_repeat(tmp_path: Path) -> None:
    told = {"folds": 3, "repeats": 2, "by_repeat": [0.9, 0.8], "clusters": 60, "parts": []}
    note = "The accuracy is the mean over all 2 repeats; every other score is from the first repeat"
    data = {"kind": "crossvalidate", "crossvalidation": told, "val": {"accuracy": 0.85, "n": 60, "ece": 0.1}}
    assert note in Elements(page.render([Run(tmp_path, data)])).text
    once = {**data, "crossvalidation": {**told, "repeats": 1, "by_repeat": [0.9]}}
    assert "every other score" not in Elements(page.render([Run(tmp_path, once)])).text


def test_suggestion_names_the_bias_of_selection_before_the_folds() -> None:
    from sightline.report import cross_validation

    own = {"method": "features", "backbone": "a"}
    data = {"crossvalidate": "sightline evaluate c.csv r.toml", "test": {"n": 60}, "ladder": [{"method": "baseline"}, own, own]}
    assert "optimistic" not in cross_validation.suggestion(RunRecord.from_json(data))[1]  # type: ignore[index]
    several = {**data, "ladder": [*data["ladder"], {**own, "backbone": "b"}]}  # type: ignore[misc]
    assert "selected among 2 on these same images" in cross_validation.suggestion(RunRecord.from_json(several))[1]  # type: ignore[index]


def test_large_tables_are_read_like_small_ones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    short = page.render([run])
    monkeypatch.setattr("sightline.report.curves.LARGE_BYTES", 10)
    assert page.render([run]) == short


def test_the_same_run_gives_the_same_page(run: Run, tmp_path: Path) -> None:
    first, second = (report.write_report([run], tmp_path / f"{i}.html").read_bytes() for i in (1, 2))
    assert first == second


def test_pictures_beyond_the_size_limit_are_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(page.Album):
        def __init__(self) -> None:
            super().__init__(limit_bytes=60_000)

    monkeypatch.setattr(page, "Album", Small)
    text = page.render([run])
    pictures = re.findall(r'src="(data:image[^"]+)"', text)
    assert sum(map(len, pictures)) <= 60_000
    assert "To limit its size" in Elements(text).text


def test_wrong_requests_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="at least one run"):
        report.write_report([], tmp_path / "a.html")
    with pytest.raises(RequestError, match="is a folder"):
        report.write_report([run], tmp_path)


def test_several_runs_begin_with_a_comparison(run: Run, drawn: ModuleType, tmp_path: Path) -> None:
    other = Run(run.folder, {**run.data, "name": "another"})
    text = Elements(page.render([run, other])).text
    assert text.index("Comparison of 2 runs") < text.index("Run 1 of 2") < text.index("Run 2 of 2")
    assert "were scored on the same images" in text
    elsewhere = dataclasses.replace(other, data={**other.data, "photos": "elsewhere"})
    assert "scored on different images" in Elements(page.render([run, elsewhere])).text


def test_disagreements_of_several_runs_are_shown_with_their_pictures(drawn: ModuleType, tmp_path: Path) -> None:
    good, poor = (drawn.make(tmp_path / name, n=60, skill=skill, most_pictures=4) for name, skill in (("a", 4.0), ("b", 1.0)))
    tables = [read_predictions(run.folder / "predictions" / "test.csv") for run in (good, poor)]
    assert tables[0].paths == tables[1].paths
    differing = int((tables[0].y_pred != tables[1].y_pred).sum())
    elements = Elements(page.render([good, poor]))
    shared = "of the 60 images that all runs were scored on"
    assert f"The classifiers predict different classes for {differing} images {shared}" in elements.text
    same = Elements(page.render([good, Run(good.folder, {**good.data, "name": "again"})])).text
    assert f"The classifiers predict the same class for every image {shared}" in same
    elsewhere = dataclasses.replace(poor, data={**poor.data, "root": "/elsewhere"})
    assert "The classifiers predict" not in Elements(page.render([good, elsewhere])).text


def test_errors_of_held_out_images_are_filtered_by_split(drawn: ModuleType, tmp_path: Path) -> None:
    made = drawn.make(tmp_path / "run", n=120, skill=2.0, most_pictures=4)
    val = read_predictions(made.folder / "predictions" / "val.csv")
    elements = Elements(page.render([made]))
    cards = [a for _, a in elements.found if len(set((a.get("data-pair") or "").split("-"))) == 2]  # errors
    splits = [a["data-split"] for a in cards]
    assert splits.count("validation") == int((val.y_pred != val.y_true).sum())
    assert splits.count("test") == len(made.data["mistakes"])
    assert any(a.get("data-filter") == "split" for _, a in elements.found)


def test_the_report_imports_no_heavy_package(run: Run, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sightline import report; from sightline.records import Run;"
        "report.write_report([Run.load(Path(sys.argv[1]))], Path(sys.argv[2]));"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'matplotlib', 'timm', 'openvino', 'pyarrow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(run.folder), str(tmp_path / "r.html")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_applies_the_style_without_errors(run: Run, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    file, shot = report.write_report([run], tmp_path / "report.html"), tmp_path / "shot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [chromium, *options, "--window-size=1000,700", f"--screenshot={shot}", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, encoding="utf-8", errors="replace")
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    with Image.open(shot) as image:
        corner = image.convert("RGB").getpixel((3, 300))
    assert corner in {(253, 252, 249), (20, 21, 23)}  # the paper's colour: the style was applied


def test_tables_and_galleries_can_be_filtered_by_pair_slice_and_problem(drawn: ModuleType, tmp_path: Path) -> None:
    made = drawn.make(tmp_path / "run", n=120, skill=2.0, most_pictures=4)
    first = made.data["mistakes"][0]
    first["slices"] = [0]
    made.data["slices"] = [{"column": "brightness", "n": 30, "low": 0.1, "high": 0.2}]
    made.data["split"]["leaks"] = [[first["path"], "train/x.jpg"]]
    cards = [a for _, a in Elements(page.render([made])).found if "data-pair" in a]
    classes = made.data["classes"]
    pair = f"{classes.index(first['label'])}-{classes.index(first['predicted'])}"
    own = next(a for a in cards if "also in train" in (a["data-groups"] or ""))
    assert own["data-pair"] == pair and (own["data-groups"] or "").startswith("brightness 0.1 to 0.2\x1f")
    assert float(own["data-confidence"] or 0) == pytest.approx(first["probability"], abs=1e-4)


def test_layers_are_embedded_without_losing_their_transparency(run: Run) -> None:
    text = page.render([run])
    uri = re.findall(r'class="heat" src="data:image/webp;base64,([^"]+)"', text)[0]
    with Image.open(io.BytesIO(base64.b64decode(uri))) as layer:
        assert layer.mode == "RGBA" and layer.getchannel("A").getextrema()[0] < 10


def test_the_threshold_section_counts_held_out_predictions_only(run: Run) -> None:
    from sightline.inputs import read_predictions
    from sightline.report import threshold_explorer

    held_out = read_predictions(run.folder / "predictions" / "val.csv")
    found = threshold_explorer.explorer(run, run.record, held_out, page.Album())
    assert found is not None
    for name, index in ((c, i) for i, c in found["classes"]):
        p, y = held_out.probs[:, held_out.classes.index(name)], held_out.y_true == index
        tp, fp = (counts[50] for counts in found["data"]["counts"][str(index)])
        assert (tp, fp) == (int((p[y] >= 0.25).sum()), int((p[~y] >= 0.25).sum()))
    assert "whoever chooses a threshold by the test score" in Elements(page.render([run])).text
    assert threshold_explorer.explorer(run, dataclasses.replace(run.record, kind="evaluate"), held_out, page.Album()) is None
