"""The HTTP service beside its parts and beside a plain FastAPI + torch service, with the same network in the same run.

`python benchmarks/serve.py [--photos N] [--requests N] [--soak N]`

The load comes from a process of its own over loopback, bounded in requests and time. One client measures latency, 32 clients
measure throughput, a soak of many requests measures memory. Photographs are made here (500×375, JPEG), so that nothing else is
needed; ratios compare figures of one run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

CLIENTS = 32
LIMIT_S = 600
BOUNDARY = "frontier"
NETWORK = "mobilenetv3_large_100"


def photo(seed: int) -> bytes:
    """A JPEG of 500×375 pixels with structure."""
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (25, 33, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(data, "JPEG", quality=88)
    return data.getvalue()


def request_of(data: bytes) -> bytes:
    """The bytes of one request."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x.jpg"\r\n\r\n'.encode()
    body = head + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    lines = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return (lines + f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n").encode() + body


def load(port: int, folder: str, count: int, clients: int) -> None:
    """Send requests from a number of connections, and print their latencies; run in a process of its own."""
    requests = [request_of(file.read_bytes()) for file in sorted(Path(folder).glob("*.jpg"))]
    latencies: list[float] = []
    failed = [0]
    turns = iter(range(count))
    until = time.monotonic() + LIMIT_S

    def client() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            for number in turns:
                if time.monotonic() > until:
                    return
                began = time.perf_counter()
                connection.sendall(requests[number % len(requests)])
                head = answer(connection)
                latencies.append(time.perf_counter() - began)
                failed[0] += not head.startswith(b"HTTP/1.1 200")

    began = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    p50, p99 = np.quantile(latencies, [0.5, 0.99])
    print(json.dumps({"rate": len(latencies) / took, "p50_ms": 1000 * p50, "p99_ms": 1000 * p99, "failed": failed[0]}))


def answer(connection: socket.socket) -> bytes:
    """Read one answer, and return its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return head


def offline(model: str, folder: str) -> None:
    """Print the time of decoding and forward pass of single images, and the throughput of features of all files."""
    from sightline import classifier, features, pixels
    from sightline.store import Cache

    loaded = classifier.load(model)
    session, preprocess = loaded.session(Cache()), loaded.card.backbone.preprocess
    files = sorted(Path(folder).glob("*.jpg"))
    for _ in range(2):
        features.compute(files[:16], preprocess, session)
    data = [file.read_bytes() for file in files[:100]]
    times = []
    for one in data:
        began = time.perf_counter()
        session.run(pixels.decode(one, preprocess)[None])
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    features.compute(files, preprocess, session)
    print(json.dumps({"bare_ms": 1000 * float(np.median(times)), "rate": len(files) / (time.perf_counter() - began)}))


PLAIN = """
import io, sys, timm, torch, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
model = timm.create_model({network!r}, num_classes=10).eval()
transform = create_transform(**resolve_model_data_config(model), is_training=False)
app = FastAPI()
@app.post("/predict")
def predict(images: UploadFile):
    image = Image.open(io.BytesIO(images.file.read())).convert("RGB")
    with torch.inference_mode():
        probs = model(transform(image)[None]).softmax(1)[0]
    return {{"label": int(probs.argmax()), "probabilities": probs.tolist()}}
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


def train(folder: Path) -> Path:
    """Fit a classifier on random weights: the speed does not depend on them."""
    import sightline as sl

    for number in range(60):
        file = folder / "photos" / str(number % 3) / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(1000 + number))
    catalog = sl.split(sl.scan(folder / "photos"))
    recipe = sl.Recipe(backbone=NETWORK, weights="random", head="logistic", settings={"folds": 2})
    return sl.fit(catalog, recipe, out=folder / "run").folder


def wait(port: int) -> float:
    """Wait until a port accepts connections, and return the seconds that it took."""
    began = time.perf_counter()
    while time.perf_counter() - began < 120:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return time.perf_counter() - began
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("the service did not start")


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def child(*arguments: object) -> dict[str, float]:
    """Run this script in a process of its own, and return what it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT_S, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB; 0 where /proc is missing."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(name: str, command: list[str], port: int, photos: Path, count: int, soak: int) -> dict[str, float]:
    """Start a service, and return its figures."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as service:
        try:
            start_s = wait(port)
            child("load", port, photos, 1, 1)
            start_s = start_s or 0.0
            child("load", port, photos, 50, 4)
            one = child("load", port, photos, count, 1)
            many = child("load", port, photos, count * 2, CLIENTS)
            memory = [rss_mb(service.pid)]
            for _ in range(4 if soak else 0):
                child("load", port, photos, soak // 4, CLIENTS)
                memory.append(rss_mb(service.pid))
        finally:
            service.terminate()
    failed = one["failed"] + many["failed"]
    print(f"{name}: listens after {start_s:.1f} s; one client p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms")
    print(f"  {CLIENTS} clients {many['rate']:.1f}/s, p99 {many['p99_ms']:.0f} ms; failed {failed:.0f}")
    print(f"  memory in MB {', '.join(f'{m:.0f}' for m in memory)}", flush=True)
    return {"p50_ms": one["p50_ms"], "rate": many["rate"]}


def main() -> None:
    """Compare both services with the bare work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--soak", type=int, default=0, help="requests for the memory measurement, such as 20000")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("SIGHTLINE_CACHE", str(folder / "cache"))
        photos = folder / "load"
        photos.mkdir()
        for number in range(settings.photos):
            (photos / f"{number:04d}.jpg").write_bytes(photo(number))
        run = train(folder)
        bare = child("offline", run, photos)
        port = free_port()
        ours = measure(
            "sightline serve",
            [sys.executable, "-m", "sightline", "serve", str(run), "--port", str(port)],
            port,
            photos,
            settings.requests,
            settings.soak,
        )
        port = free_port()
        middle = child("offline", run, photos)
        plain = folder / "plain.py"
        plain.write_text(PLAIN.format(network=NETWORK), encoding="utf-8")
        theirs = measure("plain FastAPI + torch", [sys.executable, str(plain), str(port)], port, photos, settings.requests, 0)
    print(f"bare decode + forward {bare['bare_ms']:.1f} ms before, {middle['bare_ms']:.1f} ms after")
    print(f"offline {bare['rate']:.1f} images/s before, {middle['rate']:.1f} after")
    bare_ms, rate = (bare["bare_ms"] + middle["bare_ms"]) / 2, (bare["rate"] + middle["rate"]) / 2
    print(f"one client p50 / bare: {ours['p50_ms'] / bare_ms:.2f}; {CLIENTS} clients / offline: {ours['rate'] / rate:.2f}")
    latency, throughput = theirs["p50_ms"] / ours["p50_ms"], theirs["rate"] / ours["rate"]
    print(f"plain service / sightline: p50 {latency:.2f}, throughput {throughput:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1:2] == ["offline"]:
        offline(sys.argv[2], sys.argv[3])
    else:
        main()
