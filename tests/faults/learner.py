"""A short training that is killed: run in a process of its own by `test_training.py`."""

from __future__ import annotations

import dataclasses
import json
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sightline.networks.classics import cnn
from sightline.training import augment, checkpoint, loop
from sightline.training.dataloader import Pixels
from sightline.training.plan import Plan

STEPS = 20
"""Of the whole training: 5 epochs of 4."""
PLAN = Plan(epochs=5, batch_size=16, learning_rate=0.01, average=0.9, mixup=0.3, sampling="balanced")


class Small(nn.Module):
    """BatchNorm, dropout and a linear layer: whatever has a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = cnn(image_size=16, filters=(8, 16), batch_norm=True)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(self.body.tail(self.body.map(x))))


def data(seed: int, n: int) -> Pixels:
    """Noise with bars, of three classes of which one is rare."""
    random = np.random.default_rng(seed)
    images, y = random.integers(0, 120, (n, 16, 16, 3)), np.minimum(np.arange(n) % 5, 2)
    for image, label in zip(images, y, strict=True):
        image[4 * label : 4 * label + 3] += 130
    return Pixels(images.astype(np.uint8), y.astype(np.int64))


def learn(folder: Path | None, **changes: Any) -> tuple[dict[str, Tensor], loop.Trained]:
    """Train, with a checkpoint after every step; what came of it."""
    checkpoint.EVERY_S, checkpoint.SHARE = 0.0, 1e9
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Small()
    given = {"plan": PLAN, "train": data(0, 60), "val": data(1, 24), "seed": 0, "policy": augment.POLICIES["light"]}
    settings = {**given, **changes}
    trained = loop.train(network, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), checkpoint=folder, **settings)
    return {name: value.clone() for name, value in network.state_dict().items()}, trained


def facts(trained: loop.Trained) -> str:
    """All that must be the same however often training was interrupted: everything but the clock."""
    history = [{**dataclasses.asdict(line), "seconds": 0} for line in trained.history]
    kept = dataclasses.replace(trained, history=(), seconds=0.0)
    return json.dumps([history, dataclasses.asdict(kept)], sort_keys=True)


def child(folder: Path, out: Path, told: Connection | None = None) -> None:
    """Train, tell every step, and leave weights and history."""

    def progress(stage: str, done: int, total: int) -> None:
        if told is not None:
            told.send(done)

    weights, trained = learn(folder, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, out / "weights.safetensors")
    (out / "facts.json").write_text(facts(trained), encoding="utf-8")
