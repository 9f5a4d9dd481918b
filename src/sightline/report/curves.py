"""The figures that need every single prediction or every epoch: ROC curves, calibration, the course of a training."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from sightline import evaluation
from sightline.errors import SightlineError
from sightline.files import open_regular, read_text
from sightline.inputs import read_predictions
from sightline.records import Predictions
from sightline.report import svg, threshold_curves
from sightline.report.format import count, decimal, percent, short
from sightline.schema import csv_unescape
from sightline.store import log

LARGE_BYTES = 4_000_000


def read_answers(file: Path) -> Predictions | None:
    """A run's table of predictions; None where it is absent or damaged, which is said."""
    try:
        if not file.is_file():
            return None
        return _read_large(file) if file.stat().st_size > LARGE_BYTES else read_predictions(file)
    except (SightlineError, OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read, its curves are left out (%s)", file.name, error)
        return None


def _read_large(file: Path) -> Predictions:
    """The labels, probabilities and bar of a table that is too long for Python's own reader; the paths are left out."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    with open_regular(file) as stream:
        names = next(csv.reader(io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")))
    columns, bars = [n for n in names if n.startswith("p:")], [n for n in names if n.startswith("bar:")][:1]
    types = {"label": pa.string(), **dict.fromkeys([*columns, *bars], pa.float64())}
    options = arrow.ConvertOptions(include_columns=["label", *columns, *bars], column_types=types, strings_can_be_null=False)
    table = arrow.read_csv(file, convert_options=options, parse_options=arrow.ParseOptions(newlines_in_values=True))
    index = {c.removeprefix("p:"): i for i, c in enumerate(columns)}
    probs = np.stack([table.column(c).to_numpy() for c in columns], axis=1)
    coded = table.column("label").combine_chunks().dictionary_encode()
    codes = np.array([index.get(csv_unescape(v), -1) for v in coded.dictionary.to_pylist()], dtype=np.int64)
    y_true = codes[coded.indices.to_numpy()]
    if not bars or not len(y_true):
        return Predictions(("",) * len(y_true), tuple(index), y_true, probs)
    each = table.column(bars[0]).to_numpy()
    bar = (bars[0].removeprefix("bar:"), float(each[0]) if (each == each[0]).all() else each)
    return Predictions(("",) * len(y_true), tuple(index), y_true, probs, threshold=bar)


def figures(answers: Predictions | None, score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """ROC and calibration of one split; where there are two classes, both their ROC curves, and what abstaining would give.

    Returns:
        One {"title", "figure", "legend", "text"} for each that can be drawn.
    """
    answers = labelled(answers)
    if answers is None:
        return []
    found = [_roc(answers, score), threshold_curves.other_side(answers, score), _calibration(answers, score)]
    if len(answers.classes) == 2:
        found.append(threshold_curves.coverage(answers))
    return [f for f in found if f is not None]


def folded(
    answers: Predictions | None, score: Mapping[str, Any], threshold: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The curves that not everybody asks for, in the same form."""
    answers = labelled(answers)
    return [] if answers is None else threshold_curves.more(answers, score, threshold or {})


def labelled(answers: Predictions | None) -> Predictions | None:
    """The answers to labelled images; None where there are none, or one class only."""
    if answers is None or len(answers.classes) < 2:
        return None
    if (answers.y_true < 0).any():
        answers = answers.select(answers.y_true >= 0)
    return answers if len(answers) else None


def _roc(answers: Predictions, score: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ROC curve of the positive class, or of each class, the worst where there are many."""
    if score.get("roc_auc") is None:
        return None
    classes, interval = answers.classes, f"{decimal(score.get('roc_auc_low'))}–{decimal(score.get('roc_auc_high'))}"
    positive, area = score.get("positive"), decimal(score.get("roc_auc"))
    shown, rest = threshold_curves.drawn_classes(answers, score)
    title, names = "ROC: what is found, at what price", ("share of the other images taken for it", "found")
    if len(classes) == 2 and positive in classes:
        name, other = short(positive, 40), next(c for c in classes if c != positive)
        text = (
            f"“{name}” counts as positive. Area {area} (95 % interval {interval}): the chance that an image of “{name}” gets a "
            f"higher probability of it than an image of “{short(other, 40)}”."
        )
        names = (f"share of “{short(other, 16)}” taken for “{short(positive, 16)}”", f"found of “{short(positive, 24)}”")
        title = f"ROC of “{short(positive, 24)}”"
    else:
        text = f"Mean area {area} (95 % interval {interval}), each class against all the others.{rest}"
    lines = []
    for style, name in enumerate(shown):
        k = classes.index(name)
        fpr, tpr, _ = evaluation.roc_curve(answers.y_true == k, threshold_curves.rank_column(answers, name))
        lines.append(svg.Series(short(name, 32), threshold_curves.points(fpr, tpr), style % 6))
    figure = svg.roc(lines, f"ROC curve. {text}", score.get("eer"), names)
    legend = svg.legend(lines) if len(lines) > 1 or len(classes) > 2 else None
    return {"title": title, "figure": figure, "legend": legend, "text": text}


def _calibration(answers: Predictions, score: Mapping[str, Any]) -> dict[str, Any]:
    """Whether claimed certainties come true: those of the given answers, which a threshold may have moved."""
    y_pred = answers.y_pred
    correct, claimed = y_pred == answers.y_true, answers.probs[np.arange(len(answers)), y_pred]
    curve = evaluation.calibration_curve(correct, claimed)
    error = evaluation.expected_calibration_error(correct, claimed)
    mean, right = float(claimed.mean()), float(correct.mean())
    text = (
        f"On average it claims {percent(mean)} for its answers, and {percent(right)} of them are right: "
        f"{_verdict(mean, right, _worth(len(answers), score))}. The expected calibration error is {percent(error)} (15 bins of "
        f"the answer’s probability; a dot’s area is its share of the images, the number how many)."
    )
    figure = svg.calibration([(b.confidence, b.accuracy, b.n) for b in curve], f"Calibration. {text}")
    return {"title": "Calibration: do its certainties come true?", "figure": figure, "legend": None, "text": text}


def _verdict(claimed: float, right: float, n: float) -> str:
    """What a mean claimed probability says beside the accuracy on as many as n independent images.

    The claim is compared with the ends of Clopper and Pearson's 95 % interval, each a binomial tail of 2.5 %. That is on the
    safe side: where claims differ, the number of mistakes varies less than a binomial of their mean.

    Example:
        >>> _verdict(0.977, 61 / 64, 64), _verdict(0.98, 0.9, 200), _verdict(0.8, 0.9, 200)
        ('no further apart than chance allows', 'it is too sure of itself', 'it is too modest')
    """
    images, error = max(1, round(n)), min(max(1 - claimed, 1e-12), 1 - 1e-12)
    mistakes, k = images * (1 - right), np.arange(images + 1)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    ways = factorial[-1] - factorial - factorial[::-1]
    chances = np.exp(ways + k * math.log(error) + (images - k) * math.log(1 - error))
    most = float(chances[math.floor(mistakes + 1e-9) :].sum())  # the chance of at least as many mistakes
    least = float(chances[: math.ceil(mistakes - 1e-9) + 1].sum())  # and of at most as many
    if min(most, least) >= 0.025:
        return "no further apart than chance allows"
    return "it is too sure of itself" if claimed > right else "it is too modest"


def _worth(n: int, score: Mapping[str, Any]) -> float:
    """As how many independent images n count: as many as Wilson's interval of the accuracy is as wide for.

    Where images belong together, the score lays its interval out as Wilson's of fewer images. His ends e solve
    (e - accuracy)² = z² e (1 - e) / n.
    """
    share, ends = score.get("accuracy"), [score.get("accuracy_low"), score.get("accuracy_high")]
    if share is None or None in ends:
        return n
    end = max((float(e) for e in ends if e is not None), key=lambda e: abs(e - share))
    reach = (end - share) ** 2
    return min(n, NormalDist().inv_cdf(0.975) ** 2 * end * (1 - end) / reach) if reach else n


def read_history(file: Path) -> list[dict[str, float]]:
    """The epochs of a training, as numbers; [] where there are none."""
    try:
        rows = csv.DictReader(io.StringIO(read_text(file), newline=""))
        return [{k: float(v) if v else math.nan for k, v in row.items() if k} for row in rows]
    except (OSError, ValueError, TypeError):
        return []


def history(rows: Sequence[Mapping[str, float]], overfitting: str | None, kept: int | None = None) -> list[dict[str, Any]]:
    """The course of a training: accuracy and loss by epoch, whose weights were kept, and whether it learnt by heart.

    A row of epoch 0 is the head alone, before the network learns with it.
    """
    found, trained = [], sum(r.get("epoch", 1.0) > 0 for r in rows)
    before = " Epoch 0 is the head alone; then the network learns with it." if trained < len(rows) else ""
    for part, share in (("accuracy", True), ("loss", False)):
        names = (("training", f"train_{part}", 1), ("validation", f"val_{part}", 0))
        lines = [
            svg.Series(name, [(r.get("epoch", i + 1.0), r[key]) for i, r in enumerate(rows) if key in r], style)
            for name, key, style in names
        ]
        lines = [line for line in lines if any(math.isfinite(y) for _, y in line.points)]
        if not lines:
            continue
        ends = ", ".join(f"{s.name} {percent(s.points[-1][1]) if share else decimal(s.points[-1][1])}" for s in lines)
        text = f"After {count(trained)} epoch{'s' if trained > 1 else ''}: {ends}.{before}"
        figure = svg.lines(lines, ("epoch", part), f"{part} by epoch. {text}", share=share)
        found.append({"title": f"Training: {part}", "figure": figure, "legend": svg.legend(lines), "text": text})
    if found and kept and kept != trained:
        found[0]["text"] += f" The weights of epoch {kept} are kept: the scores are theirs."
    if found and overfitting:
        found[0]["text"] += f" Overfitting: {overfitting.rstrip('.')}."
    return found
