"""Runs: list, live progress, stop, resume, compare, the report in its sandbox, and the form that starts one."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli.app import app
from sightline.records.audit import AuditRecord
from sightline.records.progress import CommandProgress, EpochProgress, TrainingProgress
from sightline.runs import progress_file
from sightline.serve.local_app import processes, start_page
from sightline.serve.local_app.workspace import Workspace
from sightline.store import Cache, output_folder, write_json
from tests.serve.local_app.conftest import AppClient, connect

HOSTILE = "<script>alert(1)</script>\"'x"
TRAINING = TrainingProgress(3, 8, 812.4, 65.0, (EpochProgress(1, 0.9, 0.5, 0.8, 0.6), EpochProgress(2, 0.7, 0.6, 0.75, None)))
WORKING = CommandProgress(
    ("run", "my photos"), os.getcwd(), platform.node(), os.getpid(), "2026-03-01T10:00:00+00:00", time.time() + 3600,
    stage="training: epoch 3 of 8", done=3, total=8, training=TRAINING, lines=("plan: " + HOSTILE,),
)  # fmt: skip


@pytest.fixture
def client(finished: Path, cache: Cache) -> AppClient:
    return connect(finished, cache)


def working(finished: Path, name: str, **changes: Any) -> Path:
    """A folder with the progress of a command."""
    folder = output_folder(finished / name)
    write_json(folder / "progress.json", dataclasses.replace(WORKING, **changes))
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, Any]]]:
    """The processes that would have been started."""
    found: list[tuple[list[str], dict[str, Any]]] = []

    class Process:
        pid = os.getpid()

        def __init__(self, command: list[str], **options: Any) -> None:
            found.append((command[3:], options))

        def wait(self) -> int:
            time.sleep(60)
            return 0

    monkeypatch.setattr(processes.subprocess, "Popen", Process)
    return found


def test_the_list_names_every_run_and_the_damaged_one_with_its_reason(client: AppClient, finished: Path) -> None:
    working(finished, "at-work")
    working(finished, "broke-off", state="interrupted")
    text = client.page("/runs")
    rows = dict(re.findall(r'data-run="([^"]+)" data-state="(\w+)"', text))
    assert {
        "shapes-1": "finished",
        "broken": "damaged",
        "at-work": "running",
        "broke-off": "interrupted",
    }.items() <= rows.items()
    assert "surprise" in text and text.index("at-work") < text.index("shapes-1"), "what works comes first"
    assert text.count('type="checkbox"') == 2, "only finished runs can be compared"
    assert client.get("/runs.json").json()["at-work"] == {"state": "running", "stage": "training: epoch 3 of 8", "share": 0.375}


def test_a_finished_run_shows_its_answer_and_links_to_its_report(client: AppClient) -> None:
    text = client.page("/runs/shapes-1")
    assert "95 % CI" in text and 'href="/runs/shapes-1/report"' in text and "&lt;b&gt;ring" in text and "<b>ring" not in text
    assert "surprise" in client.page("/runs/broken")
    for name in ("nope", "..%2fshapes-1", "%2e%2e", ".started", HOSTILE.replace("/", "%2f")):
        answer = client.get(f"/runs/{name}", headers={"accept": "text/html"})
        assert answer.status_code == 404 and "<script>alert" not in answer.text, name


def test_an_audit_is_listed_as_finished_and_the_folder_of_a_demo_is_left_out(client: AppClient, finished: Path) -> None:
    folder = output_folder(finished / "photos-audit")
    write_json(folder / "audit.json", AuditRecord(images=7, created="2026-03-01T10:00:00+00:00").to_json())
    (folder / "audit.html").write_text("<style>a{}</style>findings", encoding="utf-8")
    (output_folder(finished / "sightline-demo") / "runs").mkdir()
    listed = client.get("/runs").text
    row = listed[listed.index('data-run="photos-audit"') :].partition("</tr>")[0]
    assert 'data-state="finished"' in row and "<small>audit</small>" in row and "7" in row
    assert "sightline-demo" not in listed
    assert "findings" in client.get("/runs/photos-audit/report").text


def test_the_report_runs_in_a_sandbox_without_network(client: AppClient, finished: Path) -> None:
    answer = client.get("/runs/shapes-1/report")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and policy.startswith("sandbox allow-scripts ") and "allow-same-origin" not in policy
    assert "connect-src" not in policy and "default-src 'none'" in policy and "unsafe" not in policy
    (finished / "shapes-2" / "report.html").write_text("<style>p {}</style><script>steal()</script>", encoding="utf-8")
    hostile = client.get("/runs/shapes-2/report").headers["content-security-policy"]
    assert hostile.split("script-src ")[1] == policy.split("script-src ")[1], "only the script of this version"
    assert client.get("/runs/broken/report").status_code == 404


def test_a_run_at_work_shows_curves_speed_and_time_left_and_is_followed(client: AppClient, finished: Path) -> None:
    working(finished, "at-work")
    text = client.page("/runs/at-work")
    assert 'data-live="/runs/at-work/live"' in text and "epoch 3 of 8" in text and "812 images/s" in text
    assert "about 1\u00a0min 5" in text and "Training history: loss" in text and "sightline run &#39;my photos&#39;" in text
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text
    part = client.get("/runs/at-work/live")
    assert part.headers["x-state"] == "running" and "<html" not in part.text and "epoch 3 of 8" in part.text
    (finished / "at-work" / "progress.json").unlink()
    assert client.get("/runs/at-work/live").headers["x-state"] == "finished"


def test_stop_asks_the_command_and_only_a_running_one(client: AppClient, finished: Path) -> None:
    folder = working(finished, "at-work")
    assert client.submit("/runs/at-work/stop") == (303, "/runs/at-work")
    assert (folder / "stop").is_file()
    (folder / "stop").unlink()
    working(finished, "at-work", state="interrupted")
    status, text = client.submit("/runs/at-work/stop")
    assert status == 422 and "no command is running" in text and not (folder / "stop").exists()


def test_resume_starts_the_same_command_where_it_was_started(
    client: AppClient, finished: Path, calls: list[tuple[list[str], dict[str, Any]]], tmp_path: Path
) -> None:
    folder = working(finished, "broke-off", state="interrupted", working_folder=str(tmp_path), updated=1.0)
    assert client.submit("/runs/broke-off/resume") == (303, "/runs/broke-off")
    (arguments, options) = calls[0]
    assert arguments == ["run", "--resume", "my photos"] and options["cwd"] == str(tmp_path)
    assert options["env"]["SIGHTLINE_PROGRESS"] == str(folder) and options["start_new_session"] is True
    assert "is running" in client.submit("/runs/broke-off/resume")[1], "a second click starts nothing"
    working(finished, "broke-off", state="interrupted", command=("serve", "x"))
    assert client.submit("/runs/broke-off/resume")[0] == 422, "only commands that the app starts"
    working(finished, "broke-off")
    assert "is running" in client.submit("/runs/broke-off/resume")[1]
    assert len(calls) == 1


def test_ticked_runs_are_compared_by_a_command(
    client: AppClient, finished: Path, calls: list[tuple[list[str], dict[str, Any]]]
) -> None:
    answer = client.post("/compare", data={"run": ["shapes-1", "shapes-2"], "csrf": client.csrf}, follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"].startswith("/started/compare-")
    assert calls[0][0][:3] == ["compare", str(finished / "shapes-1"), str(finished / "shapes-2")]
    assert "starting" in client.page(answer.headers["location"])
    assert client.submit("/compare", run="shapes-1")[0] == 422
    assert client.post("/compare", data={"run": ["shapes-1", "../x"], "csrf": client.csrf}).status_code == 404


def test_the_form_shows_the_command_that_it_starts(
    client: AppClient, photos: Path, calls: list[tuple[list[str], dict[str, Any]]]
) -> None:
    values = {"photos": str(photos), "name": HOSTILE, "budget": "5m", "heatmaps": "few", "seed": "-1"}
    shown = client.get("/start/command", params=values).json()["command"]
    assert "--budget 5m --heatmaps few --seed=-1 -o " in shown
    assert client.submit("/start/run", **values)[0] == 303
    arguments = calls[0][0]
    assert arguments[:4] == ["run", str(photos), "--name", HOSTILE] and arguments[-2:] == ["-o", str(client.workspace.folder)]
    for bad in ("", "/does/not/exist", "a\0b", "/dev/null", "x" * 9000):
        status, text = client.submit("/start/run", photos=bad, name=HOSTILE)
        assert status == 422 and 'class="wrong"' in text and "<script>alert" not in text, bad
    assert client.submit("/start/run", photos=str(photos), name="x" * 999)[0] == 422
    assert client.submit("/start/scan", path="/does/not/exist")[0] == 422
    assert len(calls) == 1


def test_the_options_of_the_form_are_those_of_the_command() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    for field in start_page.FIELDS:
        line = re.search(rf"^ +{field.option} .*$", shown, flags=re.MULTILINE)
        assert line is not None, field.option
        assert all(choice in line[0] for choice in field.choices if choice != "default"), field.option


def test_a_path_is_completed_without_hidden_folders(client: AppClient, tmp_path: Path) -> None:
    for name in ("pets", "Plants", ".secret", "birds"):
        (tmp_path / name).mkdir()
    assert client.get("/start/folders", params={"path": f"{tmp_path}/p"}).json() == [
        f"{tmp_path}/{n}" for n in ("Plants", "pets")
    ]
    assert len(client.get("/start/folders", params={"path": f"{tmp_path}/"}).json()) == 3
    for bad in ("/nope/x", "\0/", "x" * 5000):
        assert client.get("/start/folders", params={"path": bad}).json() == []


def test_the_first_page_is_for_newcomers_until_there_is_a_run(client: AppClient, tmp_path: Path, cache: Cache) -> None:
    assert client.get("/", follow_redirects=False).headers["location"] == "/runs"
    new = connect(tmp_path / "none", cache)
    assert new.get("/", follow_redirects=False).headers["location"] == "/start" and not (tmp_path / "none").exists()
    assert "Where are your photographs?" in new.page("/") and "no run in this folder" in new.page("/runs")


def test_a_command_that_ends_before_it_reports_is_shown_with_its_error(client: AppClient, finished: Path) -> None:
    place = output_folder(finished / ".started" / "run-0123abcd")
    (place / "output.txt").write_text("note: x\nerror: unknown option --nope\nhint: see help\n", encoding="utf-8")
    write_json(place / "progress.json", dataclasses.replace(WORKING, stage="starting"))

    class Ended:
        def wait(self) -> int:
            return 2

    processes._wait(Ended(), place)  # type: ignore[arg-type]
    progress = progress_file.read(place)
    assert progress is not None and (progress.state, progress.error) == ("failed", "unknown option --nope")
    assert "unknown option --nope" in client.page("/started/run-0123abcd") and "unknown option" in client.page("/runs")
    assert client.submit("/started/run-0123abcd/forget") == (303, "/runs") and not place.exists()
    assert client.get("/started/run-0123abcd", follow_redirects=False).headers["location"] == "/runs"


@pytest.mark.slow
def test_a_scan_runs_in_its_own_process_and_says_what_is_in_the_folder(photos: Path, tmp_path: Path, cache: Cache) -> None:
    client = connect(tmp_path / "runs", cache)
    status, url = client.submit("/start/scan", path=str(photos))
    assert status == 303
    for _ in range(300):
        if client.get(f"{url}/live").headers["x-state"] != "running":
            break
        time.sleep(0.2)
    text = client.page(url)
    assert "9 images in 2 classes" in text and "onerror=&#34;" in text and "<img src=x" not in text
    pictures = re.findall(r'src="(/images/[^"]+)"', text)
    assert pictures and all(client.get(p.replace("&amp;", "&")).status_code == 200 for p in pictures)
    (id,) = Workspace(tmp_path / "runs", cache).catalogs()
    assert Workspace(tmp_path / "runs", cache).catalog(id).catalog.root == photos, "a restart loses nothing"
    assert start_page.FIELDS
