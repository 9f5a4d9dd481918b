"""Downloads of published weights: time limits, and error messages that say what to do."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sightline.errors import WeightsError
from sightline.networks import hub
from sightline.networks.entry import NetworkEntry
from sightline.records import Preprocess

BODY = bytes(range(256)) * 2048


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """A server that answers HEAD, and whose files come whole (`whole`), slowly (`slow`), half (`half`) or never (`never`)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if "mute" in self.path:
                stop.wait(30)
            self.send_response(200)
            for name, value in (("ETag", '"abc"'), ("X-Repo-Commit", "0" * 40), ("Content-Length", str(len(BODY)))):
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            if "absent" in self.path:
                return self.send_error(404)
            if "never" in self.path:
                stop.wait(30)
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            parts = {"half": 2, "slow": 8}.get(self.path.strip("/").partition(".")[0], 1)
            for i in range(parts):
                self.wfile.write(BODY[i * len(BODY) // parts : (i + 1) * len(BODY) // parts])
                self.wfile.flush()
                if parts == 8:
                    stop.wait(0.25)
                elif parts == 2:
                    stop.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    stop = threading.Event()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "_START_S", 1.0)
    monkeypatch.setattr(hub, "_STALL_S", 1.0)
    monkeypatch.setattr("torch.hub.READ_DATA_CHUNK", 1 << 15)
    hub.reachable.cache_clear()
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    stop.set()
    served.shutdown()
    served.server_close()
    hub.reachable.cache_clear()


def entry(server: http.server.ThreadingHTTPServer, file: str) -> NetworkEntry:
    return NetworkEntry("net", "torchvision", Preprocess(), tag="V1", url=f"http://127.0.0.1:{server.server_port}/{file}.pth")


@pytest.mark.parametrize("file", ["whole", "slow"])
def test_a_slow_download_completes(server: http.server.ThreadingHTTPServer, file: str) -> None:
    """The slow one takes two seconds, longer than it may stand still."""
    wanted = entry(server, file)
    hub.check(wanted, "net")
    assert hub.fetch(wanted, "net").read_bytes() == BODY
    assert hub.here(wanted) is not None


@pytest.mark.parametrize("file", ["never", "half"])
def test_a_stalled_download_is_abandoned(server: http.server.ThreadingHTTPServer, file: str) -> None:
    wanted = entry(server, file)
    hub.check(wanted, "net")
    began = time.monotonic()
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1 stopped responding") as error:
        hub.fetch(wanted, "net")
    assert time.monotonic() - began < 20, "two seconds on an idle machine"
    assert "SIGHTLINE_WEIGHTS" in str(error.value) and f"/{file}.pth" in str(error.value)
    assert hub.here(wanted) is None


def test_a_server_that_does_not_answer_about_the_file_gives_an_error(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_FILE_S", 0.5)
    with pytest.raises(WeightsError, match="does not answer"):
        hub.check(entry(server, "mute"), "net")


def test_a_missing_file_gives_an_error(server: http.server.ThreadingHTTPServer) -> None:
    with pytest.raises(WeightsError, match=r"the download failed \(HTTP Error 404: Not Found\)"):
        hub.fetch(entry(server, "absent"), "net")


@pytest.mark.parametrize("file", ["whole", "never"])
def test_the_hubs_own_downloader(
    server: http.server.ThreadingHTTPServer, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    for name, value in (("HF_HUB_CACHE", str(tmp_path / "hf")), ("HF_HUB_OFFLINE", False)):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    wanted = NetworkEntry("net", "timm", Preprocess(), tag="t", hub="org/net", file=f"{file}.safetensors")
    hub.check(wanted, "net")
    if file == "whole":
        assert hub.fetch(wanted, "net").read_bytes() == BODY
        assert hub.here(wanted) is not None
    else:
        with pytest.raises(WeightsError, match="stopped responding"):
            hub.fetch(wanted, "net")


def test_received_bytes_are_counted() -> None:
    received: list[float] = []
    bar = hub._counting_tqdm(received)(total=10, disable=True)
    bar.update(0)
    bar.update(4)
    assert received == [4]
