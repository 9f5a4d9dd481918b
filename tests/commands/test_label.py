"""Labelling sessions: what is asked, what is kept, what a restart restores, and the catalog that comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline import catalog as catalogs
from sightline.commands import label
from sightline.errors import RequestError
from sightline.runs import test_set_log
from sightline.runs.decisions import StaleError
from sightline.store import Cache


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty dark and bright photographs and a file that is none; the name says which is which."""
    folder, rng = tmp_path_factory.mktemp("unlabelled"), np.random.default_rng(0)
    for i in range(40):
        array = rng.integers(0, 60, (16, 16, 3)) + (120 if i % 2 else 0)
        Image.fromarray(array.astype(np.uint8)).save(folder / f"{i:02}-{'bright' if i % 2 else 'dark'}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def begin(photos: Path, folder: Path, cache: Cache) -> label.LabellingSession:
    return label.start(photos, ("dark", "bright"), folder, backbone="pixels", cache=cache)


def answer(session: label.LabellingSession, times: int) -> list[tuple[str, str]]:
    """Answer the next questions by the names of the photographs; return (path, drawn) of each."""
    asked = []
    for _ in range(times):
        state = session.state()
        assert state.question is not None
        asked.append((state.question.path, state.question.drawn))
        session.answer(state.question.path, "label", Path(state.question.path).stem[3:], seen=state.version)
        if session.needs_fit():
            session.refit()
    return asked


def test_every_fifth_photograph_is_random_and_never_trained_on(photos: Path, tmp_path: Path, cache: Cache) -> None:
    session = begin(photos, tmp_path / "s", cache)
    asked = answer(session, 20)
    assert [i for i, (_, drawn) in enumerate(asked) if drawn == "random"] == [4, 9, 14, 19]
    assert len({path for path, _ in asked}) == 20
    state = session.state()
    assert (state.trained, state.sampled, state.images, state.version) == (16, 4, 40, 20)
    assert sum(state.counts.values()) == 20 and [p.labels for p in state.curve] == [4, 8, 12, 16]
    assert state.curve[-1].images == 4 and state.curve[-1].low < state.curve[-1].accuracy <= 1
    assert state.gain is not None and (state.gain.before, state.gain.after) == (8, 16)


def test_a_restart_loses_nothing(photos: Path, tmp_path: Path, cache: Cache) -> None:
    session = begin(photos, tmp_path / "s", cache)
    answer(session, 13)
    before = session.state()
    after = begin(photos, tmp_path / "s", cache).state()
    assert (after.version, after.counts, after.sampled) == (before.version, before.counts, before.sampled)
    assert [p.labels for p in after.curve] == [4, 8, 11], "the last labels are fitted at the start"
    with pytest.raises(RequestError, match="other photographs"):
        label.start(photos.parent, ("a", "b"), tmp_path / "s", cache=cache)


def test_an_undone_photograph_is_asked_again_and_keeps_its_place(photos: Path, tmp_path: Path, cache: Cache) -> None:
    session = begin(photos, tmp_path / "s", cache)
    asked = answer(session, 5)
    session.undo(seen=5)
    state = session.state()
    assert state.question is not None and (state.question.path, state.question.drawn) == asked[-1] and state.sampled == 0
    session.undo(seen=6)
    question = session.state().question
    assert question is not None and question.path == asked[-2][0]
    with pytest.raises(StaleError):
        session.answer(asked[-1][0], "label", "dark", seen=5)
    session.answer(asked[-2][0], "skip", None, seen=7)
    question = session.state().question
    assert question is not None and question.path == asked[-1][0], "the other one follows"


def test_the_result_is_a_catalog_with_labels(
    photos: Path, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LEDGER", str(tmp_path / "log"))
    session = begin(photos, tmp_path / "s", cache)
    answer(session, 10)
    question = session.state().question
    assert question is not None
    session.answer(question.path, "no class", None, seen=10)
    saved = catalogs.load(session.save())
    rows = {
        Path(p).name: (a, s, x)
        for p, a, s, x in zip(saved.paths, *map(saved.column, ("label", "split", "problem")), strict=True)
    }
    assert len(rows) == 41 and rows[question.path][2] == "quarantined: not in any class"
    labelled = {name: row for name, row in rows.items() if row[0] is not None}
    assert len(labelled) == 10 and all(name[3:-4] == row[0] for name, row in labelled.items())
    assert sorted(row[1] for row in labelled.values()) == ["test"] * 2 + ["train"] * 8
    assert len((session.folder / "changes.csv").read_text(encoding="utf-8").splitlines()) == 12
    tests = [c for c, s in zip(saved.column("content"), saved.column("split"), strict=True) if s == "test"]
    seen = test_set_log.opened(tests, [test_set_log.LoggedClassifier("x", ("x",))], verb="v", by="b", when="w")
    assert [look.verb for look in seen.looks] == ["label", "v"]
    assert sorted(p.name for p in photos.iterdir()) == sorted(rows), "no photograph is touched"


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["a"], "1 classes"), (["a", " a"], "given twice"), (["a", " "], "empty"), ([str(i) for i in range(31)], "31 classes")],
)
def test_classes_are_checked(classes: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        label.checked_classes(classes)


def test_wrong_answers_are_refused(photos: Path, tmp_path: Path, cache: Cache) -> None:
    session = begin(photos, tmp_path / "s", cache)
    with pytest.raises(RequestError, match="not a photograph"):
        session.answer("../x.png", "label", "dark", seen=0)
    with pytest.raises(RequestError, match="is empty"):
        session.answer("00-dark.png", "label", " ", seen=0)
    with pytest.raises(RequestError, match="no answer to undo"):
        session.undo(seen=0)
    session.answer("00-dark.png", "label", "grey", seen=0)
    assert session.state().classes == ("dark", "bright", "grey")
