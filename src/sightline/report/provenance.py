"""Reproducibility section: network, preprocessing, precision, calibration, machine, times, versions and commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sightline.records import Run
from sightline.report.format import at, clean, count, date, decimal, duration, percent, short
from sightline.report.headline import method_name
from sightline.schema import command_line

Data = Mapping[str, Any]
Fact = tuple[str, str]


def made(data: Data) -> dict[str, Any]:
    """Return facts about the method, times by stage, versions, uses of the test set and the printed plan."""
    facts = [
        *_method(data),
        *_network(data),
        *_seen(data),
        *_precision(data),
        *_calibration(data),
        *_threshold(data),
        *_machine(data),
    ]
    laps = [(k, v) for k, v in (data.get("timings") or {}).items() if v is not None]
    timings = [(clean(k), duration(v)) for k, v in sorted(laps, key=lambda lap: -lap[1])]
    versions = sorted((at(data, "environment.versions", {})).items())
    openings = [
        f"{date(o.get('when')) or clean(o.get('when'))}, by {clean(o.get('by'))}" for o in data.get("test_openings") or []
    ]
    return {"facts": facts, "timings": timings, "versions": versions, "openings": openings, "plan": data.get("plan") or []}


def _method(data: Data) -> list[Fact]:
    """Return method, random seed and training length."""
    name = method_name(data)
    facts = [("Method", name)] if name else []
    if data.get("seed") is not None:
        facts.append(("Random seed", str(data["seed"])))
    if data.get("epochs"):
        facts.append(("Training", f"{count(data['epochs'])} epochs, {count(data.get('steps'))} steps"))
    return facts


def _network(data: Data) -> list[Fact]:
    """Return the network's size and the origin and licence of its weights."""
    net = data.get("network")
    if not net:
        return []
    parts = [str(net.get("name"))]
    if net.get("parameters"):
        parts.append(f"{count(net['parameters'])} parameters")
    if net.get("features"):
        parts.append(f"{count(net['features'])} features")
    facts = [("Network", ", ".join(parts))]
    if net.get("weights"):
        known = [
            (what, net.get(key))
            for key, what in (("pretrained_on", "pretrained on:"), ("licence", "licence:"), ("origin", "source:"))
        ]
        words = [f"{what} {clean(v)}" for what, v in known if v and v not in ("unknown", "nothing")]
        mark = f" (SHA-256 {net['weights_hash'][:12]}…)" if net.get("weights_hash") else ""
        facts.append(("Weights", f"{'; '.join([clean(net['weights']), *words])}{mark}"))
    return facts


_FITS = {
    "crop": "centre crop",
    "pad": "padded with borders",
    "squash": "resized without keeping the aspect ratio",
}


def _seen(data: Data) -> list[Fact]:
    """Return the preprocessing: input size, interpolation and crop."""
    p = at(data, "network.preprocess")
    if not p or not p.get("size"):
        return []
    height, width = p["size"]
    return [
        ("Input", f"{width} × {height} px, {p.get('interpolation')} interpolation, {_FITS.get(p.get('fit', ''), p.get('fit'))}")
    ]


def _precision(data: Data) -> list[Fact]:
    """Return the numerical precision of inference and its comparison with float32."""
    p = data.get("precision")
    if not p:
        return []
    parts = [f"{p.get('used')}{' in ' + str(p['runtime']) if p.get('runtime') else ''}"]
    if p.get("why"):
        parts.append(str(p["why"]).rstrip("."))
    if p.get("judged_on"):
        mean = "" if p.get("why") else f" mean cosine similarity {decimal(p.get('mean_cosine'), 5)},"
        changed = f"predictions changed: {count(p.get('answers_changed'))} ({count(p.get('limit'))} allowed)"
        parts.append(
            f"compared with float32 on {count(p['judged_on'])} images of this run:{mean} "
            f"lowest cosine similarity {decimal(p.get('min_cosine'), 4)}, {changed}"
        )
    if p.get("torch_max_difference") is not None:
        parts.append(f"largest difference from PyTorch {p['torch_max_difference']:.2g}")
    return [("Numerical precision", "; ".join(parts))]


def _calibration(data: Data) -> list[Fact]:
    """Return the temperature scaling that calibrates the probabilities."""
    temperature = at(data, "calibration.temperature")
    if temperature is None:
        return []
    if temperature == 1:
        return [("Calibration", "none (temperature 1)")]
    fitted = at(data, "calibration.fitted_on")
    where = f", fitted on {fitted}" if fitted else ""
    effect = "lower" if temperature > 1 else "higher"
    return [("Calibration", f"temperature scaling, T = {decimal(temperature)}{where}; this makes confidences {effect}")]


def _threshold(data: Data) -> list[Fact]:
    """Return the decision threshold for the positive class, if it is not the default of 0.5."""
    value, bars = at(data, "threshold.value"), [b for b in at(data, "threshold.bars", []) if b is not None]
    if bars:
        rule = f"predicted “{clean(at(data, 'threshold.positive'))}” at probability ≥ {min(bars):.3f} to {max(bars):.3f}"
        how = f"one threshold per fold, criterion: {clean(at(data, 'threshold.by'))}, selected without the images of the fold"
        return [("Decision threshold", f"{rule} ({how})")]
    if value is None:
        return []
    fitted = at(data, "threshold.fitted_on")
    rule = f"predicted “{clean(at(data, 'threshold.positive'))}” at probability ≥ {value:.3f}"
    how = f"criterion: {clean(at(data, 'threshold.by'))}, selected on {fitted}; scores on those images are slightly optimistic"
    return [("Decision threshold", f"{rule} ({how})")]


def _machine(data: Data) -> list[Fact]:
    """Return the machine and the software versions."""
    e = data.get("environment") or {}
    cores = f"{e['cores']} cores" if e.get("cores") else None
    parts = [clean(v) for v in (e.get("processor"), cores, e.get("device"), e.get("platform")) if v]
    facts = [("Machine", ", ".join(dict.fromkeys(parts)))] if parts else []
    software = [f"Sightline {data['sightline']}"] if data.get("sightline") else []
    software += [f"Python {e['python']}"] if e.get("python") else []
    return [*facts, ("Software", ", ".join(software))] if software else facts


def again(run: Run) -> list[tuple[str, str]]:
    """Return commands that repeat the run and use its classifier."""
    commands = [("Repeat this run", clean(line)) for line in run.data.get("rerun") or []]
    if not commands and run.data.get("command"):
        commands.append(("Repeat this run", clean(run.data["command"])))
    if run.classifier_file.is_file():
        folder, file = str(run.folder), str(run.classifier_file)
        commands += [
            ("Classify new images", f"{clean(command_line('sightline', 'predict', file))} NEW_PHOTOS"),
            ("Evaluate on another labelled dataset", f"{clean(command_line('sightline', 'evaluate', folder))} OTHER_PHOTOS"),
            ("Compute heatmaps of other images", f"{clean(command_line('sightline', 'explain', folder))} IMAGE.jpg"),
        ]
    return commands


def comparison_row(run: Run, score: Data | None, kind: str) -> dict[str, Any]:
    """Return the row of one run in the comparison of several."""
    data, s = run.data, score or {}
    return {
        "name": short(data.get("name") or run.folder.name, 50),
        "method": method_name(data),
        "kind": kind,
        "n": count(s.get("n")),
        "value": percent(s.get("accuracy")),
        "seconds": duration(data.get("seconds")),
        "auc": decimal(s.get("roc_auc")),
    }
