"""Run a plain PyTorch loop for benchmarks/training.py: float32, a DataLoader with 2 workers, torchvision's transforms."""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision.transforms import v2


def cnn(classes: int) -> nn.Module:
    """Build four 3×3 convolutions with BatchNorm, ReLU and max pooling, global average pooling and a linear layer."""
    layers: list[nn.Module] = []
    width = 3
    for filters in (32, 64, 128, 128):
        layers += [nn.Conv2d(width, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(), nn.MaxPool2d(2)]
        width = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def main() -> None:
    photos, side, epochs, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.manual_seed(0)
    steps = [v2.Resize(side), v2.CenterCrop(side)]
    changes = [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(15, scale=(1 / 1.2, 1.2), shear=10, interpolation=v2.InterpolationMode.BILINEAR),
    ]
    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
    learnt = datasets.ImageFolder(photos, v2.Compose([*steps, *changes, *end]))
    plain = datasets.ImageFolder(photos, v2.Compose([*steps, *end]))
    held = [i for i in range(len(plain)) if i % 5 == 0]
    kept = [i for i in range(len(plain)) if i % 5]
    loader = DataLoader(Subset(learnt, kept), batch, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    network = cnn(len(plain.classes))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * len(loader))
    marks, seen = [], 0
    for _ in range(epochs):
        network.train()
        for x, y in loader:
            loss = nn.functional.cross_entropy(network(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += len(y)
        marks.append((time.perf_counter(), seen))
    network.eval()
    right = 0
    with torch.no_grad():
        for x, y in DataLoader(Subset(plain, held), 64):
            right += int((network(x).argmax(1) == y).sum())
    (start, before), (end_s, after) = marks[0], marks[-1]
    print(json.dumps({"images": after - before, "seconds": end_s - start, "accuracy": right / len(held)}))


if __name__ == "__main__":
    main()
