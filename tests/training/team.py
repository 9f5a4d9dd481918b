"""Short training under `torchrun`: each process writes its weights, which `test_process_group.py` compares.

python -m torch.distributed.run --nproc_per_node 2 -m tests.training.team KIND OUT [CHECKPOINT] [SIGNAL STEP]
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sightline.training import augment, checkpoint, loop, process_group
from sightline.training.plan import Plan
from tests.faults import learner
from tests.training.test_loop import bars

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Simple(nn.Module):
    """Convolutions without BatchNorm and dropout, and a layer that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 16, 3)
        self.linear, self.unused = nn.Linear(16, 2), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        return self.linear(x.mean(dim=(2, 3)))


KINDS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "mixed": (
        Simple,
        {
            "plan": Plan(
                epochs=3,
                batch_size=16,
                mixup=0.5,
                average=0.9,
                optimizer="sgd",
                learning_rate=0.1,
                class_weight="balanced",
            )
        },
    ),
    "growing": (Simple, {"plan": Plan(epochs=3, batch_size=16), "sides": (8, 8, 16)}),
    "normed": (learner.Small, {"plan": Plan(epochs=4, batch_size=16, learning_rate=0.01)}),
}
"""Networks and plans: 45 images in batches of 15, shares of 8 and 7."""


def learn(kind: str, folder: Path | None = None, **given: Any) -> tuple[nn.Module, loop.Trained]:
    """Train, alone or with those that were joined."""
    checkpoint.SHARE, (made, settings) = 1e9, KINDS[kind]
    data, val = (learner.data(0, 45), learner.data(1, 25)) if kind == "normed" else (bars(45), bars(25, 1))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = made()
    policy = augment.POLICIES["light"]
    trained = loop.train(
        network, data, val, policy=policy, mean=MEAN, std=STD, seed=0, checkpoint=folder, **{**settings, **given}
    )
    return network, trained


def main(kind: str, out: str, folder: str | None = None, number: str = "0", step: str = "0") -> None:
    """One of the processes."""
    torch.set_num_threads(1)

    def progress(stage: str, done: int, total: int) -> None:
        if done == int(step):
            os.kill(os.getpid(), int(number))

    with process_group.joined("cpu") as team:
        if int(number) == signal.SIGTERM and not team.first:
            step = "0"  # the other one gets none
        network, trained = learn(kind, None if folder is None else Path(folder), progress=progress)
        own = Path(out) / str(team.rank)
        own.mkdir(parents=True)
        save_file({name: t.contiguous() for name, t in network.state_dict().items()}, own / "weights.safetensors")
        history = [[line.train_loss, line.train_accuracy, line.val_loss, line.val_accuracy] for line in trained.history]
        (own / "facts.json").write_text(json.dumps({"history": history, "notes": trained.notes}), encoding="utf-8")
    if sys.platform == "linux":  # threads that outlive the group abort the process while it ends, one time in a hundred
        left = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        assert not [name for name in left if "gloo" in name], left


if __name__ == "__main__":
    main(*sys.argv[1:])
