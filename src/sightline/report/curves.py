"""Figures drawn from single predictions or epochs: ROC curves, calibration and training history."""

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
from sightline.records import Predictions, Scores
from sightline.records.candidates import ThresholdChoice
from sightline.report import svg, threshold_curves
from sightline.report.format import count, decimal, decimal_range, percent, short
from sightline.schema import csv_unescape
from sightline.store import log

LARGE_BYTES = 4_000_000


def read_answers(file: Path) -> Predictions | None:
    """Read a run's table of predictions; None if it is absent, or damaged (with a warning)."""
    try:
        if not file.is_file():
            return None
        return _read_large(file) if file.stat().st_size > LARGE_BYTES else read_predictions(file)
    except (SightlineError, OSError, ValueError, KeyError) as error:
        log.warning("%s cannot be read; the report has no curves (%s)", file.name, error)
        return None


def _read_large(file: Path) -> Predictions:
    """Read paths, labels, probabilities and threshold of a large table of predictions with pyarrow."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    with open_regular(file) as stream:
        names = next(csv.reader(io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")))
    columns, bars = [n for n in names if n.startswith("p:")], [n for n in names if n.startswith("bar:")][:1]
    types = {"path": pa.string(), "label": pa.string(), **dict.fromkeys([*columns, *bars], pa.float64())}
    options = arrow.ConvertOptions(
        include_columns=["path", "label", *columns, *bars], column_types=types, strings_can_be_null=False
    )
    table = arrow.read_csv(file, convert_options=options, parse_options=arrow.ParseOptions(newlines_in_values=True))
    index = {c.removeprefix("p:"): i for i, c in enumerate(columns)}
    probs = np.stack([table.column(c).to_numpy() for c in columns], axis=1)
    coded = table.column("label").combine_chunks().dictionary_encode()
    codes = np.array([index.get(csv_unescape(v), -1) for v in coded.dictionary.to_pylist()], dtype=np.int64)
    y_true = codes[coded.indices.to_numpy()]
    paths = tuple(csv_unescape(path) for path in table.column("path").to_pylist())
    if not bars or not len(y_true):
        return Predictions(paths, tuple(index), y_true, probs)
    each = table.column(bars[0]).to_numpy()
    bar = (bars[0].removeprefix("bar:"), float(each[0]) if (each == each[0]).all() else each)
    return Predictions(paths, tuple(index), y_true, probs, threshold=bar)


def figures(answers: Predictions | None, score: Scores) -> list[dict[str, Any]]:
    """Return ROC curve and calibration of one split; for two classes both ROC curves and the accuracy–coverage curve.

    Returns:
        A dict of `title`, `figure`, `legend` and `text` for each figure.
    """
    answers = labelled(answers)
    if answers is None:
        return []
    found = [_roc(answers, score), threshold_curves.other_side(answers, score), _calibration(answers, score)]
    if len(answers.classes) == 2:
        found.append(threshold_curves.coverage(answers))
    return [f for f in found if f is not None]


def folded(answers: Predictions | None, score: Scores, threshold: ThresholdChoice | None = None) -> list[dict[str, Any]]:
    """Return the figures that the report collapses under “More curves”, in the same form."""
    answers = labelled(answers)
    return [] if answers is None else threshold_curves.more(answers, score, threshold or ThresholdChoice())


def labelled(answers: Predictions | None) -> Predictions | None:
    """Return the predictions of labelled images; None if there are none or fewer than two classes."""
    if answers is None or len(answers.classes) < 2:
        return None
    if (answers.y_true < 0).any():
        answers = answers.select(answers.y_true >= 0)
    return answers if len(answers) else None


def _roc(answers: Predictions, score: Scores) -> dict[str, Any] | None:
    """Return the ROC curve of the positive class, or of each class (the hardest of many) versus the rest."""
    if score.roc_auc.value is None:
        return None
    classes, interval = answers.classes, decimal_range(score.roc_auc.low, score.roc_auc.high)
    positive, area = score.positive, decimal(score.roc_auc.value)
    shown, rest = threshold_curves.drawn_classes(answers, score)
    title, names = "ROC curve", ("false positive rate", "true positive rate (recall)")
    if len(classes) == 2 and positive in classes:
        name, other = short(positive, 40), next(c for c in classes if c != positive)
        text = (
            f"Positive class: “{name}”. AUC {area} (95 % CI {interval}): probability that an image of “{name}” gets a "
            f"higher score for “{name}” than an image of “{short(other, 40)}”. Dashed line: random guessing."
        )
        names = (
            f"false positive rate (“{short(other, 24)}” misclassified)",
            f"true positive rate (recall of “{short(positive, 24)}”)",
        )
        title = f"ROC curve for “{short(positive, 24)}”"
    else:
        text = f"Mean AUC {area} (95 % CI {interval}), each class versus the rest. Dashed line: random guessing.{rest}"
    lines = []
    for style, name in enumerate(shown):
        k = classes.index(name)
        fpr, tpr, _ = evaluation.roc_curve(answers.y_true == k, threshold_curves.rank_column(answers, name))
        lines.append(svg.Series(short(name, 32), threshold_curves.points(fpr, tpr), style % 6))
    figure = svg.roc(lines, f"ROC curve. {text}", score.eer.value, names)
    legend = svg.legend(lines) if len(lines) > 1 or len(classes) > 2 else None
    return {"title": title, "figure": figure, "legend": legend, "text": text}


def _calibration(answers: Predictions, score: Scores) -> dict[str, Any]:
    """Return the calibration plot: accuracy over the confidence of the predicted class."""
    y_pred = answers.y_pred
    correct, claimed = y_pred == answers.y_true, answers.probs[np.arange(len(answers)), y_pred]
    curve = evaluation.calibration_curve(correct, claimed)
    error = evaluation.expected_calibration_error(correct, claimed)
    mean, right = float(claimed.mean()), float(correct.mean())
    text = (
        f"Mean confidence {percent(mean)}, accuracy {percent(right)}: "
        f"{_verdict(mean, right, _worth(len(answers), score))}. Expected calibration error: {percent(error)} (15 bins). "
        "Dot area and number: images in the bin. Dashed line: perfect calibration."
    )
    figure = svg.calibration([(b.confidence, b.accuracy, b.n) for b in curve], f"Calibration. {text}")
    return {"title": "Calibration: does confidence match accuracy?", "figure": figure, "legend": None, "text": text}


def _verdict(claimed: float, right: float, n: float) -> str:
    """Say whether mean confidence and accuracy differ significantly, given the accuracy on n independent images.

    The mean confidence is compared with the Clopper–Pearson 95 % interval of the accuracy, each end a binomial tail of 2.5 %.
    This is conservative: with unequal confidences, the number of errors varies less than a binomial with their mean.

    Example:
        >>> _verdict(0.977, 61 / 64, 64), _verdict(0.98, 0.9, 200), _verdict(0.8, 0.9, 200)
        ('the difference is within chance', 'overconfident', 'underconfident')
    """
    images, error = max(1, round(n)), min(max(1 - claimed, 1e-12), 1 - 1e-12)
    mistakes, k = images * (1 - right), np.arange(images + 1)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    ways = factorial[-1] - factorial - factorial[::-1]
    chances = np.exp(ways + k * math.log(error) + (images - k) * math.log(1 - error))
    most = float(chances[math.floor(mistakes + 1e-9) :].sum())  # probability of at least as many errors
    least = float(chances[: math.ceil(mistakes - 1e-9) + 1].sum())  # probability of at most as many errors
    if min(most, least) >= 0.025:
        return "the difference is within chance"
    return "overconfident" if claimed > right else "underconfident"


def _worth(n: int, score: Scores) -> float:
    """Return the effective sample size: the n for which the Wilson interval is as wide as the interval of the accuracy.

    It is below the number of images if images form clusters. The ends e of the Wilson interval solve
    (e - accuracy)² = z² e (1 - e) / n.
    """
    share, ends = score.accuracy.value, [score.accuracy.low, score.accuracy.high]
    if share is None or None in ends:
        return n
    end = max((float(e) for e in ends if e is not None), key=lambda e: abs(e - share))
    reach = (end - share) ** 2
    return min(n, NormalDist().inv_cdf(0.975) ** 2 * end * (1 - end) / reach) if reach else n


def read_history(file: Path) -> list[dict[str, float]]:
    """Read the training history, one dict of numbers per epoch; [] if there is none."""
    try:
        rows = csv.DictReader(io.StringIO(read_text(file), newline=""))
        return [{k: float(v) if v else math.nan for k, v in row.items() if k} for row in rows]
    except (OSError, ValueError, TypeError):
        return []


def history(rows: Sequence[Mapping[str, float]], overfitting: str | None, saved: int | None = None) -> list[dict[str, Any]]:
    """Return the training history as figures: accuracy and loss by epoch, with the saved epoch and signs of overfitting.

    A row of epoch 0 stands for the head alone, before the backbone is trained.
    """
    found, trained = [], sum(r.get("epoch", 1.0) > 0 for r in rows)
    before = " Epoch 0: head only; from epoch 1 on the backbone is trained as well." if trained < len(rows) else ""
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
        title = f"{part} by epoch. {text}"
        figure = svg.lines(lines, ("epoch", part), title, share=share)
        row = {"title": f"Training history: {part}", "figure": figure, "legend": svg.legend(lines), "text": text}
        positive = [svg.Series(s.name, [(x, math.log10(y)) for x, y in s.points if y > 0], s.style) for s in lines]
        if not share and all(s.points for s in positive):
            row["log_figure"] = svg.lines(positive, ("epoch", f"{part} (log scale)"), title, log=True)
        found.append(row)
    if found and saved and saved != trained:
        found[0]["text"] += f" The scores are those of epoch {saved}, whose weights were saved."
    if found and overfitting:
        found[0]["text"] += f" Overfitting: {overfitting.rstrip('.')}."
    return found
