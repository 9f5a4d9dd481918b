"""Compare rules for choosing the epoch whose weights are kept, on recorded trainings.

Each data set is split into train, val and test by seed; `scratch` trains on it, and validation and test results of every epoch
are recorded. Each rule then chooses an epoch from the validation results only. The table shows the mean test accuracy of the
chosen epochs and its mean distance from the best epoch of each training.

    python benchmarks/keep_epoch.py SET=FOLDER ... --network cnn --image-size 32 --train 150 --val 40 --epochs 20 --seeds 3
    python benchmarks/keep_epoch.py --read histories.json ...
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline import heads, pixels
from sightline.store import stream

Record = list[dict[str, float]]
"""One training: a row per epoch with val_loss, val_accuracy, val_calibrated (the loss at the best temperature), test_accuracy
and test_calibrated (the loss at the temperature that validation gave)."""


def record(folder: Path, options: argparse.Namespace, seed: int) -> Record:
    """Train once and return the results of every epoch."""
    from sightline.training import fit_network, loop

    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    files = [(f, k) for k, c in enumerate(classes) for f in sorted(c.iterdir())]
    order = stream(seed, "keep").permutation(len(files))[: options.train + options.val + options.test]
    images = np.zeros((len(order), options.image_size, options.image_size, 3), dtype=np.uint8)
    for batch in pixels.batches([files[i][0] for i in order], fit_network.preprocess(options.image_size), batch_size=64):
        images[batch.index] = batch.images
    y = np.array([files[i][1] for i in order], dtype=np.int64)
    parts = np.split(np.arange(len(order)), [options.train, options.train + options.val])
    train, val, test = (loop.Pixels(images[rows], y[rows]) for rows in parts)
    plan = loop.Plan(epochs=options.epochs, **json.loads(options.plan))
    settings = fit_network.ScratchSettings(options.network, augment=options.augment, plan=plan)
    lesson = fit_network.prepare(train.images, train.y, len(classes), settings=settings, seed=seed)
    rows: Record = []

    def watch(share: float, accuracy: float) -> None:
        """Score the network at the end of an epoch."""
        device = next(lesson.network.parameters()).device
        found = (loop.evaluate(lesson.network, p, fit_network.MEAN, fit_network.STD, device) for p in (val, test))
        logits = [tensor.double().numpy() for tensor in found]
        temperature = heads.temperature(logits[0], val.y)
        rows.append(
            {
                "val_loss": heads.log_loss(logits[0], val.y),
                "val_accuracy": accuracy,
                "val_calibrated": heads.log_loss(logits[0] / temperature, val.y),
                "test_accuracy": float((logits[1].argmax(axis=1) == test.y).mean()),
                "test_calibrated": heads.log_loss(logits[1] / temperature, test.y),
                "val_images": len(val),
            }
        )

    loop.train(
        lesson.network,
        train,
        val,
        plan=lesson.plan,
        policy=lesson.policy,
        mean=fit_network.MEAN,
        std=fit_network.STD,
        seed=seed,
        watch=watch,
    )
    return rows


# ------------------------------------------------------------------------------------------------------------- rules


def by(score: Callable[[Record, int], float]) -> Callable[[Record], int]:
    """Return the epoch of the highest score, the first one if several are equal."""
    return lambda rows: max(range(len(rows)), key=lambda i: (score(rows, i), -i))


def mean_of_three(key: str, rows: Record, i: int) -> float:
    """Return the mean over each epoch and the two before it."""
    part = [row[key] for row in rows[max(0, i - 2) : i + 1]]
    return sum(part) / len(part)


def error(accuracy: float, images: float) -> float:
    """Return the standard error of an accuracy."""
    return math.sqrt(accuracy * (1 - accuracy) / images)


def within_error(key: str, rows: Record) -> int:
    """Return the epoch of the lowest loss among those whose accuracy is within one standard error of the best."""
    top = max(row["val_accuracy"] for row in rows)
    near = [i for i, row in enumerate(rows) if row["val_accuracy"] >= top - error(top, row["val_images"])]
    return min(near, key=lambda i: rows[i][key])


def one_by_one(key: str, rows: Record) -> int:
    """Return the epoch that an online rule keeps, which stores the weights of one epoch only.

    A later epoch replaces it if it is more than one standard error better, or has a lower loss and is at most one standard
    error worse.
    """
    kept = 0
    for i, row in enumerate(rows):
        gain = row["val_accuracy"] - rows[kept]["val_accuracy"]
        limit = error(max(row["val_accuracy"], rows[kept]["val_accuracy"]), row["val_images"])
        if gain > limit or (row[key] < rows[kept][key] and gain >= -limit):
            kept = i
    return kept


RULES: dict[str, Callable[[Record], int]] = {
    "last": lambda rows: len(rows) - 1,
    "val_loss": by(lambda rows, i: -rows[i]["val_loss"]),
    "val_loss, mean of 3": by(lambda rows, i: -mean_of_three("val_loss", rows, i)),
    "val_loss, calibrated": by(lambda rows, i: -rows[i]["val_calibrated"]),
    "val_accuracy, then loss": by(lambda rows, i: rows[i]["val_accuracy"] - 1e-9 * rows[i]["val_loss"]),
    "val_accuracy, then calibrated": by(lambda rows, i: rows[i]["val_accuracy"] - 1e-9 * rows[i]["val_calibrated"]),
    "val_accuracy, mean of 3": by(lambda rows, i: mean_of_three("val_accuracy", rows, i) - 1e-9 * rows[i]["val_loss"]),
    "least loss within 1 error": lambda rows: within_error("val_loss", rows),
    "least calibrated within 1 error": lambda rows: within_error("val_calibrated", rows),
    "least loss within 1 error, one by one": lambda rows: one_by_one("val_loss", rows),
    "least calibrated, one by one": lambda rows: one_by_one("val_calibrated", rows),
}


def show(found: dict[str, list[Record]]) -> None:
    """Print for each rule the mean test accuracy per data set, mean distance from the best epoch, and calibrated loss."""
    every = [rows for records in found.values() for rows in records]
    print("| rule | " + " | ".join(f"{name} ({len(records)})" for name, records in found.items()) + " | short of best | loss |")
    print("|---|" + "---|" * (len(found) + 2))
    for name, rule in RULES.items():

        def mean(records: Sequence[Record], key: str, rule: Callable[[Record], int] = rule) -> float:
            return float(np.mean([rows[rule(rows)][key] for rows in records]))

        best = np.mean([max(row["test_accuracy"] for row in rows) for rows in every])
        cells = [f"{mean(records, 'test_accuracy'):.3f}" for records in found.values()]
        cells += [f"{best - mean(every, 'test_accuracy'):.3f}", f"{mean(every, 'test_calibrated'):.3f}"]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Read the options, record trainings, and print which epochs the rules would keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="NAME=FOLDER with a folder per class")
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--train", type=int, default=150)
    parser.add_argument("--val", type=int, default=40)
    parser.add_argument("--test", type=int, default=1000, help="at most so many of the rest")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--augment", default="auto")
    parser.add_argument("--plan", default="{}", help="other settings of the training, as JSON")
    parser.add_argument("--write", type=Path, help="a JSON file for the recorded trainings")
    parser.add_argument("--read", type=Path, nargs="*", default=[], help="such files, to be shown with what is recorded now")
    options = parser.parse_args()
    found: dict[str, list[Record]] = {}
    for name, folder in (part.split("=", 1) for part in options.sets):
        found[name] = [record(Path(folder), options, seed) for seed in range(options.seeds)]
    if options.write is not None:
        options.write.write_text(json.dumps(found), encoding="utf-8")
    for file in options.read:
        value: Any = json.loads(file.read_text(encoding="utf-8"))
        for name, records in value.items():
            found.setdefault(name, []).extend(records)
    show(found)


if __name__ == "__main__":
    main()
