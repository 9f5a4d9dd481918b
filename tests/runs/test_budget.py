"""Time budget of a run on a slow machine, and interruptions after the test split was used."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from pathlib import Path

import pytest

from sightline.commands import run as main
from sightline.commands import run as run_command
from sightline.records import Recipe, Run
from sightline.records.heatmaps import HeatmapProgress
from sightline.runs import gallery, scored_run, test_set_log
from sightline.runs import plan as request
from sightline.runs import resume as resuming
from sightline.runs.record import HeatmapBlocks
from sightline.store import Cache
from tests.conftest import write_few_digits


class SlowClock:
    """Clock that advances by the given seconds at every progress report."""

    def __init__(self, report_s: float) -> None:
        self.now, self.report_s = 0.0, report_s
        self.stages: list[str] = []

    def __call__(self) -> float:
        return self.now

    def progress(self, stage: str, done: int, total: int) -> None:
        self.now += self.report_s
        self.stages.append(str(stage))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_few_digits(tmp_path_factory.mktemp("photos") / "digits", 10)


def asked(photos: Path, out: Path, **more: object) -> request.Request:
    settings = {"backbones": ("pixels",), "methods": ("baseline", "features"), "head": "logistic", **more}
    return request.Request(photos=str(photos), out=str(out), **settings)  # type: ignore[arg-type]


SCRATCH = Recipe(
    method="scratch", backbone="cnn(filters=[4])", image_size=16, settings={"epochs": 60, "batch_size": 16, "patience": 0}
)


@pytest.mark.slow
@pytest.mark.parametrize("report_s", [0.3, 5.0])
def test_a_run_keeps_its_budget_and_its_report_is_honest(report_s: float, photos: Path, tmp_path: Path) -> None:
    """On a slow machine, and on one on which reading alone takes most of the budget."""
    clock, said = SlowClock(report_s), list[str]()
    tried = {"methods": ("baseline", "scratch"), "recipe": SCRATCH, "backbones": (), "heatmaps": "few", "head": "auto"}
    wanted = asked(photos, tmp_path / "runs", budget_s=60.0, **tried)
    done = run_command.run(wanted, progress=clock.progress, say=said.append, cache=Cache(tmp_path / "cache"), clock=clock)
    assert clock.now <= 60 * 1.2, done.data["timings"]
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"[-−]\d+ s\b", " ".join(said) + page), "no negative time"
    assert "are being computed" not in page and done.data["seconds"] == pytest.approx(clock.now, abs=1)
    fitted = [step["method"] for step in done.data["ladder"]]
    if report_s == 0.3:
        assert len(fitted) == 2 and any(re.match(r"  Stopped by the time budget .* after epoch \d+ of 60\. ", s) for s in said)
    if report_s == 5.0:
        assert fitted == ["baseline"] and done.data["skipped"][0]["method"] == "scratch"
        assert any("CAUTION: no method" in line for line in said)
        assert "No method that uses the photographs finished" in page


@pytest.mark.slow
def test_the_report_is_there_before_the_heatmaps(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def drawing(folder: Path, *_: object, **__: object) -> HeatmapBlocks:
        seen.append((folder / "report.html").read_text(encoding="utf-8"))
        assert not (folder / "run.json").exists(), "the run is not finished"
        return HeatmapBlocks(
            explanations=[], progress=HeatmapProgress(requested="all", drawn=0, total=20, budget_s=9.0, seconds=9.0)
        )

    monkeypatch.setattr(gallery, "write_explanations", drawing)
    said: list[str] = []
    done = run_command.run(asked(photos, tmp_path / "runs"), say=said.append, cache=Cache(tmp_path / "cache"))
    assert "Heatmaps are being computed" in seen[0] and "of 20 test images" in seen[0], "the score is in it"
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "No heatmaps were computed" in page and "was enough for 0 of 20" in page
    assert "heatmaps: 0 of 20 drawn within their share of the time budget (9 s)" in said


@pytest.mark.slow
@pytest.mark.parametrize(("place", "resume"), [("looks", False), ("drawing", True), ("last", False)])
def test_a_run_killed_after_the_test_does_not_use_the_test_split_again(
    place: str, resume: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = {"looks": (test_set_log, "opened"), "drawing": (gallery, "write_explanations"), "last": (main.folders, "finish")}
    module, name = targets[place]

    def fall(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wanted, cache = asked(photos, tmp_path / "a", heatmaps="few"), Cache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fall)
        with pytest.raises(KeyboardInterrupt):
            run_command.run(wanted, cache=cache)
    (folder,) = (tmp_path / "a").iterdir()
    assert not (folder / "run.json").exists() and scored_run.load(folder, folder / resuming.FOLDER) is not None
    with monkeypatch.context() as patch:
        patch.setattr(main, "fit_candidates", fall)  # nothing is fitted again
        patch.setattr(main, "_predict_test", fall)  # nor is the test split
        done = run_command.run(dataclasses.replace(wanted, resume=resume), cache=cache)
    assert len(done.data["test_openings"]) == 1 and not (folder / resuming.FOLDER).exists()
    whole = run_command.run(dataclasses.replace(wanted, out=str(tmp_path / "b")), cache=cache)
    own = (
        "timings",
        "seconds",
        "created",
        "test_openings",
        "ledger",
        "crossvalidate",
        "ladder",
        "learning",
        "heatmaps",
        "plan",
    )
    for key in set(whole.data) - set(own):
        assert done.data[key] == whole.data[key], key
    for file in ("classifier.safetensors", "predictions/test.csv", "explanations/heat.npz"):
        assert (done.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file


@pytest.mark.slow
def test_stored_test_scores_of_another_classifier_are_not_reused(photos: Path, tmp_path: Path) -> None:
    done = run_command.run(asked(photos, tmp_path / "a", heatmaps="none"), cache=Cache(tmp_path / "cache"))
    kept = tmp_path / "kept"
    run = Run.load(done.folder)
    import sightline

    model, answers = sightline.load(run.folder), sightline.inputs.read_predictions(run.folder / "predictions" / "test.csv")
    scored_run.save(run.folder, kept, scored_run.Opened(model, answers, None, run.record, {"methods": 2.0}))
    back = scored_run.load(run.folder, kept)
    assert back is not None and back.test is None and back.record == run.record and back.laps == {"methods": 2.0}
    assert back.val.probs.tobytes() == answers.probs.tobytes() and back.val.paths == answers.paths
    run.classifier_file.write_bytes(run.classifier_file.read_bytes() + b" ")
    assert scored_run.load(run.folder, kept) is None
    (kept / "opened.npz").write_bytes(b"PK torn")
    assert scored_run.load(run.folder, kept) is None


def test_a_given_budget_equal_to_the_default_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from sightline.cli.app import app

    seen: list[request.Request] = []

    def run(wanted: request.Request, **_: object) -> None:
        seen.append(wanted)
        raise KeyboardInterrupt

    monkeypatch.setattr("sightline.commands.run.run", run)
    for more in ([], ["--budget", "10m"]):
        CliRunner().invoke(app, ["run", "photos", *more])
    assert [r.budget_s for r in seen] == [None, 600.0] and {r.time_s for r in seen} == {600.0}


def test_the_demo_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline import networks
    from sightline.commands import demo

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the demo looks for something that is not here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(networks, "download_bytes", lambda name, *_: None if name == "pixels" else refuse())
    monkeypatch.setattr(demo.digits, "write_digits", lambda folder: write_few_digits(folder, 6))
    plans: list[request.Plan] = []
    real = main.make_plan

    def planned(*given: object, **more: object) -> request.Plan:
        plans.append(real(*given, **more))  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "make_plan", planned)
    with pytest.raises(KeyboardInterrupt):
        demo.demo(str(tmp_path / "demo"), cache=Cache(tmp_path / "cache"))
    assert [s.recipe.method for s in plans[0].steps] == ["baseline", "shortcut", "features", "scratch"]
    assert json.dumps(plans[0].lines).count("weights") == 0


def test_the_plan_names_every_stage_with_its_seconds(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def fall(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "fit_candidates", fall)
    with pytest.raises(KeyboardInterrupt):
        run_command.run(asked(photos, tmp_path / "a"), say=said.append, cache=Cache(tmp_path / "cache"))
    plan = said[next(i for i, line in enumerate(said) if "plan for" in line) :]
    for stage in ("reading", "baseline", "features on pixels", "learning curve", "test and report", "heatmaps"):
        (line,) = [line for line in plan if line.strip().startswith(stage)]
        assert re.search(r"\d+ (s|min)\b", line), line
