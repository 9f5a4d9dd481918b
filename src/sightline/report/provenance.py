"""Reproducibility section: network, preprocessing, precision, calibration, machine, times, versions and commands."""

from __future__ import annotations

from typing import Any

from sightline.records import Run, RunRecord, Scores
from sightline.records.candidates import Environment, ThresholdChoice
from sightline.report.format import clean, count, date, decimal, duration, percent, short
from sightline.report.headline import method_name
from sightline.report.images import drawing
from sightline.schema import command_line

Fact = tuple[str, str]
MOST_LAYERS = 1_000


def made(data: RunRecord) -> dict[str, Any]:
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
    laps = [(k, v) for k, v in data.timings.items()]
    timings = [(clean(k), duration(v)) for k, v in sorted(laps, key=lambda lap: -lap[1])]
    versions = sorted(data.environment.versions.items()) if data.environment else []
    openings = [f"{date(o.when) or clean(o.when)}, by {clean(o.by)}" for o in data.test_set_accesses]
    return {"facts": facts, "timings": timings, "versions": versions, "openings": openings, "plan": data.plan}


def network_layers(run: Run) -> dict[str, Any] | None:
    """Return the layer table of the network, and its drawing as a data URI; None if the run has none."""
    found = run.record.network_layers
    if found is None:
        return None
    return {
        "name": short(found.name, 80),
        "size": "×".join(map(str, found.size)),
        "parameters": count(found.parameters),
        "macs": count(found.macs),
        "drawing": drawing(run.folder, found.drawing),
        "layers": [
            {
                "name": short(row.name, 60),
                "type": short(row.type, 40),
                "output": "×".join(map(str, row.output)) if row.output else "–",
                "parameters": count(row.parameters),
                "macs": count(row.macs),
            }
            for row in found.layers[:MOST_LAYERS]
        ],
    }


def _method(data: RunRecord) -> list[Fact]:
    """Return method, random seed and training length."""
    name = method_name(data)
    facts = [("Method", name)] if name else []
    if data.seed is not None:
        facts.append(("Random seed", str(data.seed)))
    if data.epochs:
        facts.append(("Training", f"{count(data.epochs)} epochs, {count(data.steps)} steps"))
    return facts


def _network(data: RunRecord) -> list[Fact]:
    """Return the network's size and the origin and licence of its weights."""
    net = data.network
    if not net:
        return []
    parts = [str(net.name)]
    if net.parameters:
        parts.append(f"{count(net.parameters)} parameters")
    if net.features:
        parts.append(f"{count(net.features)} features")
    facts = [("Network", ", ".join(parts))]
    if net.weights:
        known = [
            ("pretrained on:", net.pretrained_on),
            ("licence:", net.licence),
            ("source:", net.origin),
        ]
        words = [f"{what} {clean(v)}" for what, v in known if v and v not in ("unknown", "nothing")]
        mark = f" (SHA-256 {net.weights_hash[:12]}…)" if net.weights_hash else ""
        facts.append(("Weights", f"{'; '.join([clean(net.weights), *words])}{mark}"))
    return facts


_FITS = {
    "crop": "centre crop",
    "pad": "padded with borders",
    "squash": "resized without keeping the aspect ratio",
}


def _seen(data: RunRecord) -> list[Fact]:
    """Return the preprocessing: input size, interpolation and crop."""
    p = data.network.preprocess if data.network else None
    if not p or not p.size:
        return []
    height, width = p.size
    return [("Input", f"{width} × {height} px, {p.interpolation} interpolation, {_FITS.get(p.fit or '', p.fit)}")]


def _precision(data: RunRecord) -> list[Fact]:
    """Return the numerical precision of inference and its comparison with float32."""
    p = data.precision
    if not p:
        return []
    parts = [f"{p.used}{' in ' + str(p.runtime) if p.runtime else ''}"]
    if p.why:
        parts.append(str(p.why).rstrip("."))
    if p.judged_on:
        mean = "" if p.why else f" mean cosine similarity {decimal(p.mean_cosine, 5)},"
        changed = f"predictions changed: {count(p.predictions_changed)} ({count(p.limit)} allowed)"
        parts.append(
            f"compared with float32 on {count(p.judged_on)} images of this run:{mean} "
            f"lowest cosine similarity {decimal(p.min_cosine, 4)}, {changed}"
        )
    if p.map_correlation is not None:
        drawn = "int8" if p.int8_maps else "float32"
        parts.append(f"heatmaps from {drawn} maps; rank correlation of int8 and float32 maps {decimal(p.map_correlation, 3)}")
    if p.torch_max_difference is not None:
        parts.append(f"largest difference from PyTorch {p.torch_max_difference:.2g}")
    return [("Numerical precision", "; ".join(parts))]


def _calibration(data: RunRecord) -> list[Fact]:
    """Return the temperature scaling that calibrates the probabilities."""
    calibration = data.calibration
    if calibration is None or calibration.temperature is None:
        return []
    temperature = calibration.temperature
    if temperature == 1:
        return [("Calibration", "none (temperature 1)")]
    fitted = calibration.fitted_on
    where = f", fitted on {fitted}" if fitted else ""
    effect = "lower" if temperature > 1 else "higher"
    return [("Calibration", f"temperature scaling, T = {decimal(temperature)}{where}; this makes confidences {effect}")]


def _threshold(data: RunRecord) -> list[Fact]:
    """Return the decision threshold for the positive class, if it is not the default of 0.5."""
    threshold = data.threshold or ThresholdChoice()
    value, bars = threshold.value, [b for b in threshold.by_fold if b is not None]
    if bars:
        rule = f"predicted “{clean(threshold.positive)}” at probability ≥ {min(bars):.3f} to {max(bars):.3f}"
        how = f"one threshold per fold, criterion: {clean(threshold.criterion)}, selected without the images of the fold"
        return [("Decision threshold", f"{rule} ({how})")]
    if value is None:
        return []
    fitted = threshold.fitted_on
    rule = f"predicted “{clean(threshold.positive)}” at probability ≥ {value:.3f}"
    how = f"criterion: {clean(threshold.criterion)}, selected on {fitted}; scores on those images are slightly optimistic"
    return [("Decision threshold", f"{rule} ({how})")]


def _machine(data: RunRecord) -> list[Fact]:
    """Return the machine and the software versions."""
    e = data.environment or Environment()
    cores = f"{e.cores} cores" if e.cores else None
    parts = [clean(v) for v in (e.processor, cores, e.device, e.platform) if v]
    facts = [("Machine", ", ".join(dict.fromkeys(parts)))] if parts else []
    software = [f"Sightline {data.sightline}"] if data.sightline else []
    software += [f"Python {e.python}"] if e.python else []
    return [*facts, ("Software", ", ".join(software))] if software else facts


def again(run: Run, data: RunRecord) -> list[tuple[str, str]]:
    """Return commands that repeat the run and use its classifier."""
    commands = [("Repeat this run", clean(line)) for line in data.rerun_commands]
    if not commands and data.command:
        commands.append(("Repeat this run", clean(data.command)))
    if run.classifier_file.is_file():
        folder, file = str(run.folder), str(run.classifier_file)
        commands += [
            ("Classify new images", f"{clean(command_line('sightline', 'predict', file))} NEW_PHOTOS"),
            ("Evaluate on another labelled dataset", f"{clean(command_line('sightline', 'evaluate', folder))} OTHER_PHOTOS"),
            ("Compute heatmaps of other images", f"{clean(command_line('sightline', 'explain', folder))} IMAGE.jpg"),
            (
                "List and draw the network's layers",
                f"{clean(command_line('sightline', 'summary', folder))} --graph network.svg",
            ),
        ]
    return commands


def comparison_row(run: Run, data: RunRecord, score: Scores, kind: str) -> dict[str, Any]:
    """Return the row of one run in the comparison of several."""
    return {
        "name": short(data.name or run.folder.name, 50),
        "method": method_name(data),
        "kind": kind,
        "n": count(score.n),
        "value": percent(score.accuracy.value),
        "seconds": duration(data.seconds),
        "auc": decimal(score.roc_auc.value),
    }
