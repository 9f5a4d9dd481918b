"""Run Sightline for benchmarks/training.py: the method `scratch` on images that are decoded once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from sightline import catalog, pixels
from sightline.training import fit_network
from sightline.training.plan import Plan

NETWORKS = {
    "cnn": ("cnn(filters=[32, 64, 128, 128], pool=[2, 2, 2, 2])", 3e-3),
    "resnet18": ("resnet18", 1e-3),
}
AUGMENT = {"policy": "none", "flip": 0.5, "rotation": 15, "shear": 10, "zoom": 0.2}


def main() -> None:
    photos, side, epochs, batch, network = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    table = catalog.scan(Path(photos)).usable()
    labels = table.labels(table.classes)
    images = np.empty((len(table), side, side, 3), dtype=np.uint8)
    good = np.zeros(len(table), dtype=bool)
    for part in pixels.batches(table.files(), fit_network.preprocess(side), batch_size=64):
        images[part.index], good[part.index] = part.images, True
    rows = np.flatnonzero(good)
    held, kept = rows[rows % 5 == 0], rows[rows % 5 != 0]
    name, rate = NETWORKS[network]
    plan = Plan(epochs=epochs, batch_size=batch, learning_rate=rate, keep="last")
    settings = fit_network.ScratchSettings(name, augment=AUGMENT, plan=plan)
    classes = len(table.classes)
    fit = fit_network.fit(images[kept], labels[kept], images[:0], labels[:0], classes, settings=settings)
    seconds = fit.history[-1].seconds - fit.history[0].seconds
    right = 0
    import torch

    from sightline import heads

    with torch.no_grad():
        for start in range(0, len(held), 64):
            index = held[start : start + 64]
            x = (torch.from_numpy(images[index]).permute(0, 3, 1, 2) / 255 - fit_network.MEAN[0]) / fit_network.STD[0]
            answers = heads.logits(fit.head, fit.network(x)[1].numpy()).argmax(axis=1)
            right += int((answers == labels[index]).sum())
    print(json.dumps({"images": len(kept) * (epochs - 1), "seconds": seconds, "accuracy": right / len(held)}))


if __name__ == "__main__":
    main()
