"""The HTTP service through a real socket: answers, limits and refusals, each with a reason in JSON."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import classifier
from sightline.commands import predict as predict_command
from sightline.serve import Settings, guard, server
from sightline.serve import app as application
from sightline.serve.batching import Batcher
from sightline.serve.metrics import Metrics
from sightline.serve.served_model import ServedModel
from sightline.store import Cache
from tests.conftest import write_few_digits

BOUNDARY = "frontier"


def png(size: tuple[int, int] = (8, 8), seed: int = 0) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def multipart(*files: tuple[str, bytes]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class Service:
    """A server in a thread of this process."""

    port: int
    folder: Path
    model: ServedModel
    headers: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {**self.headers, **named})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kind = answer.headers.get("content-type", "")
        return answer.status, dict(answer.headers), json.loads(data) if kind.startswith("application/json") else data.decode()

    def predict(self, *files: tuple[str, bytes], query: str = "", **headers: str) -> tuple[int, dict[str, str], Any]:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.call("POST", f"/predict{query}", multipart(*files), Content_Type=kind, **headers)


def started(folder: Path, settings: Settings) -> tuple[Service, threading.Thread, Any]:
    """Start a server in a thread, with the run in `folder`."""
    listening, metrics = server.listen(settings), Metrics()
    served = ServedModel("digits", folder, code=None, device="cpu", metrics=metrics)
    app = guard.Guard(
        application.create_app([served], metrics), metrics=metrics, token=settings.token, hosts=server.hosts_of(settings)
    )
    running = server.make_server(app, lambda: None)
    running.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    return Service(listening.getsockname()[1], folder, served), thread, running


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sightline as sl

    folder = tmp_path_factory.mktemp("serve")
    catalog = sl.split(sl.scan(write_few_digits(folder / "digits", 8)))
    recipe = sl.Recipe(backbone="pixels", head="logistic", settings={"folds": 2})
    sl.fit(catalog, recipe, out=folder / "run", cache=Cache(folder / "cache"))
    return folder / "run"


@pytest.fixture(scope="module")
def service(run_folder: Path) -> Iterator[Service]:
    made, thread, running = started(run_folder, Settings(port=0))
    yield made
    running.should_exit = True
    thread.join(20)
    made.model.close()


def test_predictions_equal_those_of_the_command_alone_and_together(service: Service, tmp_path: Path, cache: Cache) -> None:
    files = sorted(write_few_digits(tmp_path / "new", 1).rglob("*.png"))
    expected: list[dict[str, Any]] = []
    options = predict_command.PredictOptions(sets=0.5)
    predict_command.predict(service.folder, files, options, lambda result: expected.extend(result.entries()), cache=cache)
    uploads = [(file.name, file.read_bytes()) for file in files]
    status, _, together = service.predict(*uploads, query="?sets=0.5")
    assert status == 200
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda one: service.predict(one, query="?sets=0.5")[2]["predictions"][0], uploads))
    for entry, file, first, second in zip(expected, files, together["predictions"], alone, strict=True):
        assert first == second == {**entry, "path": file.name}


def test_one_bad_image_has_its_own_error(service: Service) -> None:
    status, _, value = service.predict(("a.png", png()), ("b.png", b"not an image"), ("c.png", png(seed=1)))
    assert status == 200
    first, second, third = value["predictions"]
    assert "error" not in first and "error" not in third
    assert second["path"] == "b.png" and second["kind"] == "not an image" and "b.png" in second["error"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 415), (b"<html></html>", 415), (png()[:60], 422), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 422)],
)
def test_a_file_that_is_no_image_is_refused(service: Service, data: bytes, expected: int) -> None:
    status, headers, value = service.predict(("x.png", data))
    assert status == expected and value["predictions"][0]["error"]
    assert headers["content-type"] == "application/json"


def test_an_image_with_too_many_pixels_is_refused_by_its_header(service: Service) -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0" * 12
    status, _, value = service.predict(("bomb.png", bomb))
    assert status == 413 and value["predictions"][0]["kind"] == "too large"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_while_it_arrives(
    service: Service, chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MOST_BODY_BYTES", 100_000)
    body = multipart(("x.png", b"\0" * 1_000_000))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    parts = (body[i : i + 50_000] for i in range(0, len(body), 50_000)) if chunked else body
    status, _, value = service.call("POST", "/predict", parts, Content_Type=kind)
    assert status == 413 and "larger than" in value["error"]


def test_thousands_of_parts_and_a_bad_boundary_are_refused(service: Service) -> None:
    status, _, value = service.predict(*[(f"{i}.png", b"x") for i in range(3_000)])
    assert status == 400 and value["error"]
    for kind in (
        "multipart/form-data",
        "multipart/form-data; boundary=other",
        "application/json",
        "multipart/form-data; boundary=",
    ):
        status, _, value = service.call("POST", "/predict", multipart(("a.png", png())), Content_Type=kind)
        assert 400 <= status < 500 and value["error"], kind


@pytest.mark.slow
def test_a_slow_client_is_disconnected(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SILENCE_S", 0.3)
    monkeypatch.setattr(server, "HEADERS_S", 0.3)
    for sent in (b"POST /predict HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET"):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
            client.sendall(sent)
            while client.recv(4096):
                pass  # the server closes the connection
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n"
    head += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as client:
        client.sendall(head.encode() + multipart(("a.png", b""))[:20])
        assert b" 408 " in client.recv(4096)


def test_a_full_queue_is_answered_with_503(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.serve.batching.MOST_WAITING", 1)
    status, headers, value = service.predict(("a.png", png()), ("b.png", png()))
    assert status == 503 and headers["retry-after"] == "1" and value["error"]
    assert service.predict(("a.png", png()))[0] == 200 and service.model.batcher.waiting == 0
    monkeypatch.setattr(guard, "MOST_REQUESTS", 0)
    status, headers, value = service.call("GET", "/healthz")
    assert status == 503 and headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "/app.js%00", "//etc/passwd", "/page/../app.py"]
)
def test_no_path_leads_to_a_file(service: Service, path: str) -> None:
    status, _, value = service.call("GET", path)
    assert status in (400, 404) and "root:" not in str(value)


@pytest.mark.parametrize("name", ["../run", "%2e%2e%2frun", "/etc/passwd", "a%00b", "http://127.0.0.1/"])
def test_a_model_is_a_name_not_a_path(service: Service, name: str) -> None:
    assert service.call("GET", f"/model?model={name}")[0] == 404


def test_requests_from_other_sites_and_for_other_hosts_are_refused(service: Service) -> None:
    own = f"http://127.0.0.1:{service.port}"
    assert service.predict(("a.png", png()), Origin=own)[0] == 200
    assert service.call("GET", "/healthz", Host="localhost:1234")[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        status, _, value = service.predict(("a.png", png()), **headers)
        assert status == 403 and value["error"], headers


def test_beyond_loopback_a_token_is_needed(run_folder: Path) -> None:
    from sightline.errors import RequestError

    with pytest.raises(RequestError, match="no token"):
        server.check(Settings(host="0.0.0.0"))
    with pytest.raises(RequestError, match="too short"):
        server.check(Settings(host="0.0.0.0", token="secret"))
    token = "0123456789abcdef"
    made, thread, running = started(run_folder, Settings(port=0, token=token))
    try:
        assert made.call("GET", "/model")[0] == 401
        assert made.call("GET", "/model", Authorization="Bearer 0123456789abcdeX")[0] == 401
        assert made.call("GET", "/model", Authorization=f"Bearer {token}")[0] == 200
        assert made.call("GET", "/")[0] == made.call("GET", "/healthz")[0] == 200
    finally:
        running.should_exit = True
        thread.join(20)
        made.model.close()


def test_the_page_runs_under_a_strict_policy_and_loads_nothing_remote(service: Service) -> None:
    status, headers, page = service.call("GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http:" not in policy
    for path in ("/app.js", "/style.css"):
        page += service.call("GET", path)[2]
    assert "http://" not in page and "https://" not in page and "innerHTML" not in page and " onclick" not in page
    for path in ("/docs", "/redoc"):
        assert service.call("GET", path)[0] == 404


def test_card_health_and_metrics(service: Service) -> None:
    assert service.call("GET", "/healthz")[2] == {"status": "ok", "models": ["digits"]}
    card = service.call("GET", "/model")[2]
    assert card["classes"] == list(map(str, range(10))) and card["card"]["head"] == "logistic"
    service.predict(("a.png", png()))
    text = service.call("GET", "/metrics")[2]
    assert 'sightline_requests_total{method="POST",path="/predict",status="200"}' in text
    assert "sightline_batch_images_count" in text and "sightline_waiting_images 0" in text


def test_heatmap_and_similar_images_of_a_run_at_hand(service: Service) -> None:
    digit = next(iter(sorted((service.folder.parent / "digits" / "3").glob("*.png"))))
    status, _, value = service.predict((digit.name, digit.read_bytes()), query="?heatmap=true&similar=true&top=2")
    (row,) = value["predictions"]
    assert status == 200 and len(row["top"]) == 2
    assert row["heatmap"].startswith("data:image/png;base64,")
    assert row["similar"][0]["label"] == "3" and row["similar"][0]["distance"] < 1e-6
    assert row["similar"][0]["thumbnail"].startswith("data:image/jpeg;base64,")


def test_a_stop_answers_running_requests(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, thread, running = started(run_folder, Settings(port=0))
    entered, submit = threading.Event(), Batcher.submit

    def slow(self: Batcher, images: Any, crops: int | None) -> Any:
        entered.set()
        time.sleep(0.5)
        return submit(self, images, crops)

    monkeypatch.setattr(Batcher, "submit", slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(made.predict, ("a.png", png()))
        assert entered.wait(20)
        running.should_exit = True
        assert answer.result(20)[0] == 200
    thread.join(20)
    assert not thread.is_alive()
    with pytest.raises(OSError):
        made.call("GET", "/healthz")
    made.model.close()


def test_a_damaged_batch_is_an_error_of_its_requests_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(classifier.Resident, "predict", lambda *_, **__: 1 / 0)
        status, _, value = service.predict(("a.png", png()))
        assert status == 500 and value["error"] == "the server failed; its log says why"
    assert service.predict(("a.png", png()))[0] == 200


@pytest.mark.slow
def test_requests_made_from_the_description_never_fail_in_the_server(service: Service) -> None:
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    count = 0
    for operation in schema.get_all_operations():

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.ok().as_strategy())
        def check(case: Any) -> None:
            nonlocal count
            count += 1
            case.call_and_validate(checks=[not_a_server_error], timeout=60)

        check()
    assert count > 40
