"""Finished runs made of drawn images, for the tests and for looking at the page: `python tests/report/drawn.py FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from sightline import evaluation, report
from sightline.records import Predictions, Run
from sightline.store import write_json, write_text

SHAPES = ("disc", "square", "triangle", "ring", "cross")


def draw(shape: str, rng: np.random.Generator, size: int = 256) -> tuple[Image.Image, tuple[int, int, int]]:
    """One shape on a coloured ground, and where it is: (x, y, radius)."""
    ground = rng.integers(120, 230, 3)
    noise = rng.normal(0, 9, (size, size, 3))
    shade = np.linspace(-35, 35, size)[:, None, None]
    image = Image.fromarray(np.clip(ground + noise + shade, 0, 255).astype(np.uint8))
    pen, r = ImageDraw.Draw(image), int(size * rng.uniform(0.14, 0.26))
    x, y = (int(v) for v in rng.integers(r + 6, size - r - 6, 2))
    ink, box = tuple(int(v) for v in rng.integers(10, 110, 3)), (x - r, y - r, x + r, y + r)
    if shape == "disc":
        pen.ellipse(box, fill=ink)
    elif shape == "square":
        pen.rectangle(box, fill=ink)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=ink)
    elif shape == "ring":
        pen.ellipse(box, outline=ink, width=r // 3)
    else:
        pen.line((x - r, y, x + r, y), fill=ink, width=r // 2)
        pen.line((x, y - r, x, y + r), fill=ink, width=r // 2)
    return image, (x, y, r)


def heated(image: Image.Image, spot: tuple[int, int, int], file: Path) -> dict[str, str]:
    """Write a photograph, its heatmap, and both together beside `file`; warm where the spot is."""
    yy, xx = np.mgrid[: image.height, : image.width]
    heat = np.exp(-((xx - spot[0]) ** 2 + (yy - spot[1]) ** 2) / (2 * (1.2 * spot[2]) ** 2))
    layer = np.dstack([np.full((*heat.shape, 3), (210, 167, 58)), 165 * heat]).astype(np.uint8)
    photo, heatmap = Path(f"{file}_photo.jpg"), Path(f"{file}_heat.webp")
    image.save(photo, quality=88)
    Image.fromarray(layer).save(heatmap)
    Image.alpha_composite(image.convert("L").convert("RGBA"), Image.fromarray(layer)).convert("RGB").save(f"{file}.png")
    return {
        "overlay": f"{file.parent.name}/{file.name}.png",
        **{key: f"{name.parent.name}/{name.name}" for key, name in (("photo", photo), ("heat", heatmap))},
    }


def held_out(folder: Path, val: Predictions, rng: np.random.Generator, most: int = 24) -> list[dict[str, Any]]:
    """Write thumbnails of held-out images at all degrees of confidence."""
    (folder / "held_out").mkdir(exist_ok=True)
    rows = np.argsort(val.probs.max(axis=1))[:: max(1, len(val) // most)][:most]
    found = []
    for number, row in enumerate(rows, 1):
        name = f"held_out/{number:03d}.jpg"
        draw(SHAPES[val.y_true[row] % len(SHAPES)], rng, 100)[0].save(folder / name)
        found.append({"path": val.paths[row], "row": int(row), "thumbnail": name})
    return found


def answers(classes: Sequence[str], n: int, skill: float, rng: np.random.Generator, prefix: str = "") -> Predictions:
    """Made-up probabilities; the larger `skill`, the better."""
    y = rng.integers(0, len(classes), n)
    logits = rng.normal(size=(n, len(classes))) * 1.4
    logits[np.arange(n), y] += skill
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    paths = tuple(f"{prefix}{classes[c]}/{i:05d}.jpg" for i, c in enumerate(y))
    return Predictions(paths, tuple(classes), y, probs)


def rung(label: str, accuracy: float, n: int, seconds: float, chosen: bool = False, note: str | None = None) -> dict[str, Any]:
    """One row of the ladder."""
    low, high = evaluation.wilson(round(accuracy * n), n)
    val = {"n": n, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "estimate": "CV (train+val, 5 folds)"}
    return {"method": "features", "label": label, "val": val, "seconds": seconds, "chosen": chosen, "note": note}


def pictures(folder: Path, test: Predictions, rng: np.random.Generator, most: int) -> dict[str, list[dict[str, Any]]]:
    """Samples and overlays of some mistakes and right answers, drawn into the run's folder."""
    for name in ("samples", "explanations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    samples = []
    for i in range(1, 9):
        shape = test.classes[i % len(test.classes)]
        image, _ = draw(SHAPES[i % len(SHAPES)], rng)
        whole = image.resize((int(rng.integers(200, 320)), 220))
        whole.save(folder / f"samples/{i:03d}.jpg", quality=88)
        image.resize((224, 224)).save(folder / f"samples/{i:03d}_seen.jpg", quality=88)
        files = {"file": f"samples/{i:03d}.jpg", "seen": f"samples/{i:03d}_seen.jpg"}
        samples.append({"path": f"{shape}/{i}.jpg", "label": shape, "split": "train", **files})
    wrong = evaluation.mistakes(test)[:most]
    right, labels = np.flatnonzero(test.y_pred == test.y_true)[:8], test.labels
    sure = [{"path": test.paths[i], "label": labels[i], "predicted": labels[i]} for i in right]
    sure = [{**s, "probability": float(test.probs[i].max())} for s, i in zip(sure, right, strict=True)]
    explained = []
    for number, item in enumerate([*wrong, *sure], 1):
        image, spot = draw(SHAPES[test.classes.index(item["label"]) % len(SHAPES)], rng)
        files = heated(image, spot, folder / f"explanations/{number:03d}")
        how = {"target": item["predicted"], "method": "gradcam", "layer": "last map", "peak": [spot[1], spot[0]]}
        how |= {"verdict": ("passes", "weak")[number % 2], "reason": "measured with random cells", "strength": 0.4}
        explained.append({**item, **how, "correct": item["label"] == item["predicted"], **files})
    return {"samples": samples, "explanations": explained}


def data_block(classes: Sequence[str], rng: np.random.Generator, per_class: int) -> dict[str, Any]:
    """The `data` part of run.json."""
    sizes = {c: int(per_class * rng.uniform(0.5, 1.2)) for c in classes}
    parts = {
        c: {"train": int(n * 0.65), "val": int(n * 0.15), "test": n - int(n * 0.65) - int(n * 0.15)} for c, n in sizes.items()
    }
    return {
        "images": sum(sizes.values()) + 3,
        "usable": sum(sizes.values()),
        "problems": {"truncated": 2, "empty": 1},
        "problem_files": [{"path": f"{classes[0]}/broken{i}.jpg", "problem": "truncated"} for i in range(2)],
        "notes": ["2 files are PNG images named .jpg; they are read by their content"],
        "per_class": parts,
        "width": {"min": 96, "median": 500, "max": 1024},
        "height": {"min": 96, "median": 375, "max": 768},
        "size_histogram": {
            "edges_px": [0, 32, 64, 96, 128, 160, 224, 299, 384, 512, 768, 1024],
            "counts": [0, 0, 12, 40, 55, 130, 260, 620, 330, 120, 33],
        },
        "enlarged": {"32": 0.0, "64": 0.0, "96": 0.007, "128": 0.03, "160": 0.07, "224": 0.15, "299": 0.31},
        "formats": {"JPEG": sum(sizes.values()) - 2, "PNG": 2},
        "modes": {"RGB": sum(sizes.values()) - 12, "L": 12},
        "duplicates": {
            "exact": 9,
            "near": 21,
            "largest": [f"{classes[0]}/{i}.jpg" for i in (3, 44, 77, 182)],
            "conflicts": [[f"{classes[0]}/12.jpg", f"{classes[-1]}/907.jpg"]],
        },
    }


def facts(classes: Sequence[str], rng: np.random.Generator, per_class: int) -> dict[str, Any]:
    """What every run.json holds beside its scores."""
    plan = ["1,600 images, 2 classes", "mobilenetv2_100: weights are here, about 8 s", "budget 10 min"]
    return {
        "version": 1,
        "sightline": "0.1.0",
        "kind": "run",
        "created": "2025-11-20T21:07:00+01:00",
        "seconds": 21.4,
        "photos": "photos",
        "classes": list(classes),
        "seed": 0,
        "method": "features",
        "backbone": "mobilenetv2_100",
        "head": "logistic",
        "command": "sightline run photos --backbone mobilenetv2_100",
        "rerun": ["sightline run photos --backbone mobilenetv2_100 --seed 0"],
        "data": data_block(classes, rng, per_class),
        "split": {
            "given": False,
            "val": 0.15,
            "test": 0.2,
            "seed": 0,
            "train": 1040,
            "val_n": 240,
            "test_n": 320,
            "straddling": 0,
        },
        "plan": plan,
        "network": {
            "name": "mobilenetv2_100",
            "parameters": 2_223_872,
            "features": 1280,
            "weights": "mobilenetv2_100.safetensors",
            "weights_hash": "ab12" * 16,
            "licence": "Apache-2.0",
            "origin": "timm",
            "pretrained_on": "ImageNet-1k",
            "preprocess": {"size": [224, 224], "fit": "crop", "interpolation": "bicubic"},
        },
        "precision": {
            "used": "bf16",
            "runtime": "openvino",
            "judged_on": 256,
            "mean_cosine": 0.99952,
            "min_cosine": 0.987,
            "answers_changed": 1,
            "limit": 1,
            "torch_max_difference": 3e-5,
            "why": "bf16 gives nearly the same features as float32",
        },
        "calibration": {"temperature": 1.21, "fitted_on": "CV (train+val, 5 folds)"},
        "environment": {
            "python": "3.11.9",
            "platform": "Linux x86_64",
            "processor": "Xeon",
            "cores": 2,
            "device": "cpu",
            "versions": {"numpy": "2.4.6", "torch": "2.11", "timm": "1.0.20", "openvino": "2025.4"},
        },
        "timings": {"reading, duplicates, split": 2.1, "methods": 14.2, "test": 1.7, "heatmaps and samples": 3.4},
        "test_openings": [{"when": "2025-11-20T21:06:50+01:00", "by": "features on mobilenetv2_100"}],
        "val_estimate": "CV (train+val, 5 folds)",
    }


def make(
    folder: Path,
    classes: Sequence[str] = SHAPES,
    *,
    n: int = 320,
    skill: float = 4.0,
    seed: int = 0,
    most_pictures: int = 36,
    changes: Mapping[str, Any] | None = None,
) -> Run:
    """Write a finished run with made-up answers and drawn pictures.

    Args:
        folder: Where it will lie.
        classes: Names, of whatever kind.
        n: Test images.
        skill: How good the answers are.
        changes: Keys of run.json that are set or replaced at the end.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    test, val = (answers(classes, size, skill, rng, prefix) for size, prefix in ((n, ""), (n, "v/")))
    write_text(folder / "predictions" / "test.csv", test.to_csv())
    write_text(folder / "predictions" / "val.csv", val.to_csv())
    data = facts(classes, rng, max(8, 3 * n // len(classes)))
    data |= {"name": folder.name, "val": evaluation.score(val), "test": evaluation.score(test)}
    top = data["val"]["accuracy"]
    data["ladder"] = [
        rung("majority class", 1 / len(classes) + 0.01, n, 0.1),
        rung("file size, brightness, … only", min(0.9, 1 / len(classes) + 0.05), n, 1.9),
        rung("pixels + logistic", 0.62 * top, n, 2.2, note="the image itself, at 32 px"),
        rung("mobilenetv2_100 + knn", 0.95 * top, n, 6.8),
        rung("mobilenetv2_100 + forest", 0.962 * top, n, 11.8),
        rung("mobilenetv2_100 + logistic", top, n, 7.1, chosen=True),
    ]
    found = pictures(folder, test, rng, most_pictures)
    data["data"]["samples"], data["explanations"] = found["samples"], found["explanations"]
    data["held_out_images"] = held_out(folder, val, rng)
    data |= {"mistakes": evaluation.mistakes(test), "mistakes_in": "test", **(changes or {})}
    (folder / "classifier.safetensors").write_bytes(b"")
    write_json(folder / "run.json", data)
    return Run.load(folder)


def history(folder: Path, epochs: int = 20) -> None:
    """Write a training that begins to learn by heart."""
    rows = ["epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds"]
    for e in range(1, epochs + 1):
        train, val = 1 - 0.6 * np.exp(-e / 4), 0.74 - 0.34 * np.exp(-e / 3)
        rows.append(f"{e},{1.4 * np.exp(-e / 5):.5f},{train:.5f},{0.75 + (e - 7) ** 2 / 300:.5f},{val:.5f},0.001,2.5")
    write_text(folder / "history.csv", "\n".join(rows) + "\n")


def main(out: Path) -> None:
    """Make every kind of run, and their pages."""
    leaks = [[f"disc/{i}.jpg", f"train/disc/{i + 9}.jpg"] for i in range(12)]
    rng = np.random.default_rng(5)
    worse = evaluation.score(answers(SHAPES, 308, 3.6, rng))
    shortcut = {"alarm": True, "class": "ring", "feature": "JPEG quality", "auc": 0.991, "auc_low": 0.972, "feature_auc": 0.983}
    alarmed = {
        "split": {"given": True, "train": 1040, "val_n": 240, "test_n": 320, "leaks": leaks, "straddling": 12},
        "test_without_leaks": worse,
        "shortcut": shortcut,
        "test_openings": [{"when": "2025-11-20", "by": "you"}] * 3,
        "undecodable": {"test": [{"path": "ring/9.jpg", "problem": "truncated"}]},
        "overfitting": "from epoch 7: train 0.98, val 0.74",
        "history": "history.csv",
        "method": "scratch",
    }
    good = make(out / "shapes")
    bad = make(out / "shapes with alarms", skill=3.2, seed=1, changes=alarmed)
    history(bad.folder)
    two = make(out / "cats and dogs", ("cat", "dog"), n=490, skill=5.5, seed=2)
    many = make(out / "hundred", [f"species {i:03d}" for i in range(100)], n=4000, skill=4.5, seed=3)
    for run in (good, bad, two, many):
        report.write_report([run], run.folder / "report.html")
    report.write_report([good, bad, two], out / "three.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
