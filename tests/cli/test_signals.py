"""Ctrl-C and SIGTERM end a process that does not return to Python; hangs and crashes name the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sightline import activity

posix = pytest.mark.skipif(os.name == "nt", reason="Windows does not deliver signals")

_STUCK = """
import hashlib, threading, time
from sightline import activity
from sightline.cli import signals
import signal
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: None)
signals.watch()
threading.Thread(target=lambda: activity.decode("photos/cat.png", lambda: time.sleep(60)), daemon=True).start()
time.sleep(1.1)
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_a_process_that_is_stuck_outside_python(number: int, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", _STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    assert "the decoder has not returned from photos/cat.png for" in said
    assert time.monotonic() - began < 15, "1.5 s on an idle machine"


@posix
def test_a_crash_in_a_decoder_names_the_file() -> None:
    crash = (
        "import ctypes\nfrom sightline import activity\nfrom sightline.cli import signals\nsignals.watch()\n"
        "activity.decode('photos/cat.png', lambda: ctypes.string_at(0))\n"
    )
    ended = subprocess.run([sys.executable, "-c", crash], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGSEGV
    assert 'File "photos/cat.png"' in ended.stderr and "image being decoded" in ended.stderr


_HANGING = """
from PIL import ImageFile
import time
load = ImageFile.ImageFile.load
def hang(image):
    if image.size == (61, 61):
        print("hanging", flush=True)
        time.sleep(600)
    return load(image)
ImageFile.ImageFile.load = hang
from sightline.cli import main
main()
"""


@posix
@pytest.mark.slow
def test_a_command_whose_decoder_hangs_ends_on_sigterm_and_names_the_file(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from sightline import classifier, networks
    from sightline.records import Card, Head, Recipe
    from sightline.store import Cache

    backbone = networks.describe("pixels", image_size=8, cache=Cache(tmp_path / "cache"))
    arrays = {"weights": np.zeros((2, 192), np.float32), "bias": np.zeros(2, np.float32)}
    card = Card(("a", "b"), backbone, "logistic", {"C": 1.0}, "features", Recipe())
    classifier.Classifier(card, Head("logistic", 2, {"C": 1.0}, arrays)).save(tmp_path / "m.safetensors")
    for name, side in (("good", 20), ("bad", 61)):
        Image.new("RGB", (side, side), "red").save(tmp_path / f"{name}.png")
    code = f"import sys; sys.argv = ['sightline', 'predict', 'm.safetensors', 'good.png', 'bad.png']\n{_HANGING}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "hanging\n"
        time.sleep(1.2)
        began = time.monotonic()
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert said.count("error: terminated") == 1 and "bad.png" in said and "good.png" not in said
    assert time.monotonic() - began < 15, "1.5 s on an idle machine"


def test_a_pool_left_by_an_error_does_not_wait_for_its_threads() -> None:
    release = threading.Event()
    with pytest.raises(KeyboardInterrupt), activity.workers(1, "test") as pool:
        pool.submit(release.wait, 60)
        raise KeyboardInterrupt
    assert not release.is_set()
    release.set()
