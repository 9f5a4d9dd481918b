"""How the numbers were made and how to make them again: network, precision, calibration, machine, times, commands."""

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
    """Facts in groups, times by stage, and versions."""
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
    """What was fitted, and from which random numbers."""
    name = method_name(data)
    facts = [("Method", name)] if name else []
    if data.get("seed") is not None:
        facts.append(("Seed", str(data["seed"])))
    if data.get("epochs"):
        facts.append(("Training", f"{count(data['epochs'])} epochs, {count(data.get('steps'))} steps"))
    return facts


def _network(data: Data) -> list[Fact]:
    """Whose weights they are."""
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
            (what, net.get(key)) for key, what in (("pretrained_on", "trained on"), ("licence", "licence"), ("origin", "from"))
        ]
        words = [f"{what} {clean(v)}" for what, v in known if v and v not in ("unknown", "nothing")]
        mark = f" (SHA-256 {net['weights_hash'][:12]}…)" if net.get("weights_hash") else ""
        facts.append(("Weights", f"{'; '.join([clean(net['weights']), *words])}{mark}"))
    return facts


_FITS = {
    "crop": "the middle is cut out",
    "pad": "borders are added",
    "squash": "the sides are scaled on their own",
}


def _seen(data: Data) -> list[Fact]:
    """From a file to what the network sees."""
    p = at(data, "network.preprocess")
    if not p or not p.get("size"):
        return []
    height, width = p["size"]
    return [("Input", f"{width} × {height} px, {p.get('interpolation')}; {_FITS.get(p.get('fit', ''), p.get('fit'))}")]


def _precision(data: Data) -> list[Fact]:
    """Which arithmetic was used, and how that was judged."""
    p = data.get("precision")
    if not p:
        return []
    parts = [f"{p.get('used')}{' in ' + str(p['runtime']) if p.get('runtime') else ''}"]
    if p.get("why"):
        parts.append(str(p["why"]).rstrip("."))
    if p.get("judged_on"):
        mean = "" if p.get("why") else f" mean cosine {decimal(p.get('mean_cosine'), 5)},"
        changed = f"{count(p.get('answers_changed'))} answers changed, at most {count(p.get('limit'))} accepted"
        parts.append(
            f"judged against float32 on {count(p['judged_on'])} images of this run:{mean} "
            f"lowest cosine {decimal(p.get('min_cosine'), 4)}, {changed}"
        )
    if p.get("torch_max_difference") is not None:
        parts.append(f"largest difference from torch {p['torch_max_difference']:.2g}")
    return [("Precision", "; ".join(parts))]


def _calibration(data: Data) -> list[Fact]:
    """The temperature that makes certainties true."""
    temperature = at(data, "calibration.temperature")
    if temperature is None:
        return []
    if temperature == 1:
        return [("Calibration", "none: probabilities are as the method gives them")]
    fitted = at(data, "calibration.fitted_on")
    where = f", fitted on {fitted}" if fitted else ""
    effect = "softer" if temperature > 1 else "sharper"
    return [
        ("Calibration", f"scores are divided by a temperature of {decimal(temperature)}{where}: probabilities are {effect}")
    ]


def _threshold(data: Data) -> list[Fact]:
    """From which probability on the answer is the positive class, where that is not one half."""
    value, bars = at(data, "threshold.value"), [b for b in at(data, "threshold.bars", []) if b is not None]
    if bars:
        told = f"the answer is {clean(at(data, 'threshold.positive'))} from each fold's own bar on"
        span = f"a probability of {min(bars):.3f} to {max(bars):.3f}"
        return [("Threshold", f"{told}, {span}, chosen by {clean(at(data, 'threshold.by'))} without the fold's images")]
    if value is None:
        return []
    fitted = at(data, "threshold.fitted_on")
    told = f"the answer is {clean(at(data, 'threshold.positive'))} from a probability of {value:.3f} on"
    return [
        ("Threshold", f"{told}, chosen by {clean(at(data, 'threshold.by'))} on {fitted}, whose own scores it flatters a little")
    ]


def _machine(data: Data) -> list[Fact]:
    """Where it ran."""
    e = data.get("environment") or {}
    cores = f"{e['cores']} cores" if e.get("cores") else None
    parts = [clean(v) for v in (e.get("processor"), cores, e.get("device"), e.get("platform")) if v]
    facts = [("Machine", ", ".join(dict.fromkeys(parts)))] if parts else []
    software = [f"Sightline {data['sightline']}"] if data.get("sightline") else []
    software += [f"Python {e['python']}"] if e.get("python") else []
    return [*facts, ("Software", ", ".join(software))] if software else facts


def again(run: Run) -> list[tuple[str, str]]:
    """Commands that make the run again and use what it made."""
    commands = [("The same run again", clean(line)) for line in run.data.get("rerun") or []]
    if not commands and run.data.get("command"):
        commands.append(("The same run again", clean(run.data["command"])))
    if run.classifier_file.is_file():
        folder, file = str(run.folder), str(run.classifier_file)
        commands += [
            ("Classify other images", f"{clean(command_line('sightline', 'predict', file))} NEW_PHOTOS"),
            ("Score it on another labelled set", f"{clean(command_line('sightline', 'evaluate', folder))} OTHER_PHOTOS"),
            ("Draw heatmaps of other images", f"{clean(command_line('sightline', 'explain', folder))} IMAGE.jpg"),
        ]
    return commands


def comparison_row(run: Run, score: Data | None, kind: str) -> dict[str, Any]:
    """One run's line among several."""
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
