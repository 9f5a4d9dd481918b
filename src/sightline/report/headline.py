"""Report summary: the headline score, the selected method, and alarms that limit how far the score can be trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from sightline import evaluation
from sightline.records import ComparisonRecord, RunRecord, Scores
from sightline.records.candidates import ShortcutCheck
from sightline.records.error_analysis import TableMismatches
from sightline.records.heatmaps import HeatmapProgress
from sightline.records.test_set import TestSetAccess, TestSetLogEntry
from sightline.report import cross_validation, svg
from sightline.report.format import clean, count, date, decimal, duration, images, listing, percent, percent_range, short


@dataclass(frozen=True, slots=True)
class Alarm:
    """Warning shown above the sections of the report.

    Args:
        level: `alarm` if the score may be meaningless, `caution` if it is less reliable, `note` otherwise; `passed` and
            `unchecked` for checks without a finding.
        title: The warning in a few words.
        text: Consequences and remedy.
        section: Id of the section that tells more; "" if there is none.
        topic: What was checked, so that the verdict box names each topic once.
    """

    level: Literal["alarm", "caution", "note", "passed", "unchecked"]
    title: str
    text: str
    section: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Headline:
    """Score with its confidence interval and its sample; `aside` if another score is the one to quote."""

    value: str
    interval: str
    of: str
    label: str = ""
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Summary of a run.

    Args:
        headlines: One score, or two if test images were also in train.
        lines: The answer in at most two sentences.
        details: Sentences on the classifier, and on how independent the score is of training and selection.
        scale: SVG axis with the score and its interval; None without a score.
        marks: Names of the reference values on the axis, in rising order.
    """

    headlines: list[Headline]
    lines: list[str]
    details: list[str]
    scale: Markup | None
    marks: list[str]


def scored(data: RunRecord) -> tuple[str, Scores | None]:
    """Return the name of the reported split and its scores: test if the test split was used, else validation."""
    if data.test:
        return "test", data.test
    return "val", data.val


def kind_of(data: RunRecord) -> str:
    """Return the adjective of the scored images: `test`, `validation`, `held-out` (cross-validated) or `labelled`."""
    where, _ = scored(data)
    if where == "val":
        crossed = data.kind == "crossvalidate" or (data.val_estimate or "val") != "val"
        return "held-out" if crossed else "validation"
    return "labelled" if data.kind == "evaluate" and data.scored_split != "test" else "test"


def answer(data: RunRecord) -> Answer:
    """Return the summary of one run."""
    _, score = scored(data)
    kind = kind_of(data)
    if not score or score.accuracy.value is None:
        text = "No score: no labelled image was scored."
        return Answer([], [text], _method_lines(data), None, [])
    quoted, heads, marks = (
        score,
        [_headline(score, f"of {images(score.n, kind)} classified correctly")],
        _marks(data, score),
    )
    clean = data.test_without_leaks
    if clean and clean.accuracy.value is not None:
        first = dataclasses.replace(heads[0], label="all images", aside=True)
        of = f"of {images(clean.n)} that were not used to train or select the classifier"
        heads = [first, _headline(clean, of, "without the leaked images")]
        marks.append((score.accuracy.value, f"all images {percent(score.accuracy.value)}"))
        quoted = clean
    value, low, high = quoted.accuracy.value, quoted.accuracy.low, quoted.accuracy.high
    drawn = None
    if value is not None and low is not None and high is not None:
        words = f"accuracy {percent(value)}, 95 % CI {percent_range(low, high)}"
        drawn = svg.scale(value, low, high, marks, words, svg.floor_of([low, *(v for v, _ in marks)]))
    details = [*_method_lines(data), *_trust_lines(data)]
    return Answer(heads, _answer_lines(data, quoted, kind), details, drawn, [name for _, name in sorted(marks)])


def _answer_lines(data: RunRecord, score: Scores, kind: str) -> list[str]:
    """Return the answer in at most two sentences: how often the classifier is wrong, and what it confuses."""
    accuracy, n = score.accuracy.value, score.n
    if accuracy is None or not n:
        return []
    name, share = _most_frequent(score)
    against = f"; always predicting “{short(name, 40)}” would be correct for {percent(share, 0)}" if share is not None else ""
    wrong = round(n * (1 - accuracy))
    if not wrong:
        return [f"The classifier predicted all {images(n, kind)} correctly{against}."]
    often = f"about 1 in {round(1 / (1 - accuracy)):,}" if accuracy >= 0.5 else f"{percent(1 - accuracy, 0)} of the images"
    lines = [f"The classifier is wrong for {often}: {count(wrong)} of {images(n, kind)}{against}."]
    pairs = evaluation.confused_pairs(score.confusion, list(score.per_class), 1) if score.confusion else []
    if pairs and pairs[0]["n"] > 1:
        pair = pairs[0]
        lines.append(
            f"Its most frequent error is “{short(pair['label'], 40)}” predicted as “{short(pair['predicted'], 40)}” "
            f"({count(pair['n'])} of {count(wrong)} errors)."
        )
    return lines


def _headline(score: Scores, of: str, label: str = "") -> Headline:
    interval = percent_range(score.accuracy.low, score.accuracy.high)
    return Headline(percent(score.accuracy.value), interval, of, label)


def _marks(data: RunRecord, score: Scores) -> list[tuple[float, str]]:
    """Return the reference values on the axis: always predicting the most frequent class, and the validation accuracy."""
    marks = []
    name, share = _most_frequent(score)
    if share is not None:
        marks.append((share, f"always predicting “{short(name, 24)}” {percent(share)}"))
    val = data.val.accuracy.value if data.val else None
    if val is not None and data.test:
        marks.append((val, f"{data.val_estimate or 'val'} {percent(val)}"))
    return marks


def _most_frequent(score: Scores) -> tuple[str, float | None]:
    """Return the most frequent class of the scored images and its fraction, 0–1; None if no image was scored."""
    sizes = {c: row.n for c, row in score.per_class.items()}
    total = sum(sizes.values())
    if not total:
        return "", None
    name = max(sizes, key=lambda c: sizes[c])
    return name, sizes[name] / total


def _method_lines(data: RunRecord) -> list[str]:
    """Return sentences that name the classifier and say how it was selected."""
    ladder = data.candidates
    chosen = next((r for r in ladder if r.chosen), None)
    name = (chosen.label if chosen else None) or method_name(data)
    if not name:
        return [f"Predictions: {data.subject}."] if data.subject else []
    if chosen and len(ladder) > 1:
        val = chosen.val
        where = f"{(val.estimate if val else None) or 'val'}, {images(val.n if val else 0)}"
        if chosen.shared:
            where = f"{images(chosen.shared.n)} held out from all methods"
        took = f" Total time of the run: {duration(data.seconds)}." if data.seconds else ""
        return [f"Model: {name}, the best of {len(ladder)} candidates ({where}).{took}"]
    return [f"Model: {name}."]


def method_name(data: RunRecord) -> str:
    """Return method, head and backbone as one phrase, such as `features (logistic on resnet18)`."""
    parts = [data.head, data.backbone]
    inner = " on ".join(str(p) for p in parts if p and p != "none")
    return f"{data.method} ({inner})" if data.method and inner else str(data.method or inner)


def _trust_lines(data: RunRecord) -> list[str]:
    """Return sentences on how independent the score is of training and model selection."""
    openings = data.test_set_accesses
    if data.kind == "evaluate":
        return []
    if data.cross_validation:
        return cross_validation.trust(data)
    if data.test and len(openings) <= 1 and (data.test_set_log is None or data.test_set_log.new):
        return ["The test images were used once, at the end: not for training and not for model selection."]
    if data.test:
        return ["No test image was used for training or model selection in this run."]
    estimate = data.val_estimate
    by = f" The accuracy was measured on {estimate}." if estimate else ""
    return [
        f"This run did not use the test split.{by} Decisions such as model selection used these images, so the score may be "
        "slightly optimistic."
    ]


# ---------------------------------------------------------------------------------------------------------- alarms


def alarms(data: RunRecord) -> list[Alarm]:
    """Return all warnings about the run, the most severe first."""
    found = []
    for check, (section, topic) in _CHECKS.items():
        alarm = check(data)
        if alarm is not None:
            found.append(dataclasses.replace(alarm, section=alarm.section or section, topic=alarm.topic or topic))
    order = {"alarm": 0, "caution": 1, "note": 2}
    return sorted(found, key=lambda a: order[a.level])


def _inverted(data: RunRecord) -> Alarm | None:
    _, score = scored(data)
    text = score.inverted if score else None
    return Alarm("alarm", "The scores look inverted", text) if text else None


def _leaks(data: RunRecord) -> Alarm | None:
    if data.kind == "evaluate":
        n, total = data.in_training or 0, data.test.n if data.test else 0
        if not n:
            return None
        if n >= total:
            text = "The score measures how well the classifier remembers these images, not how well it generalises to new ones."
            return Alarm("alarm", "All of these images were used to make this classifier", text)
        text = "The first score includes them; quote the second one, which leaves them out."
        return Alarm("alarm", f"{images(n)} of {count(total)} {'was' if n == 1 else 'were'} used to make this classifier", text)
    pairs = data.split.leaks if data.split else ()
    n = (data.split.leaked if data.split else None) or len({pair[0] for pair in pairs})
    if not n:
        return None
    if not data.test:
        return Alarm("caution", f"{images(n, 'test')} also in train", "They will make the test score too optimistic.")
    text = "The first score and the tables below include them; quote the second score, which leaves them out."
    return Alarm("alarm", f"{images(n, 'test')} {'is' if n == 1 else 'are'} also in train", f"{text} They are listed below.")


def _only_baseline(data: RunRecord) -> Alarm | None:
    """Warn if only the baseline was fitted."""
    if data.kind != "run" or data.method != "baseline" or not data.skipped:
        return None
    text = "It always predicts the most frequent class. “Methods compared” gives the reasons; a larger --budget may help."
    return Alarm("alarm", "No method that uses the photographs finished", text)


def _unfinished(data: RunRecord) -> Alarm | None:
    """Note heatmaps and checks that are pending or were skipped for lack of time."""
    heatmaps = data.heatmaps or HeatmapProgress()
    if heatmaps.pending:
        return Alarm(
            "note", "Heatmaps are being computed", "The scores are final; this report is updated when the heatmaps are ready."
        )
    missing = [f"skipped for lack of time: {what}" for what in data.left_out]
    drawn, of = heatmaps.drawn or 0, heatmaps.total or 0
    if heatmaps.requested not in (None, "none") and drawn < of and heatmaps.budget_s is not None:
        share = f"the time for heatmaps ({duration(heatmaps.budget_s)}) was enough for {drawn} of {of}"
        missing.insert(0, share)
    if not missing:
        return None
    title = "No heatmaps were computed" if drawn == 0 and of else "Some heatmaps or checks are missing"
    text = "; ".join(missing)
    return Alarm(
        "note", title, f"{text[0].upper()}{text[1:]}. The scores are not affected. Increase --budget to get all of them."
    )


def _shortcut(data: RunRecord) -> Alarm | None:
    found = data.shortcut or ShortcutCheck()
    if found.notable:
        text = (
            f"A classifier that uses only file size, width, height, brightness and JPEG quality, not the photograph, "
            f"predicts {percent(found.score)} of the images correctly. Most informative: "
            f"{found.feature}. Part of the accuracy may come from how the files were made."
        )
        title = f"File properties alone reach {percent(found.score, 0)} (chance {percent(found.chance, 0)})"
        return Alarm("note", title, text)
    if not found.alarm:
        return None
    if found.rules:
        listed = "; ".join(short(rule.sentence, 200) for rule in found.rules[:5])
        text = f"{listed}. The score may come from how the files were made, not from what they show."
        return Alarm("alarm", f"Shortcut: {short(found.feature, 40)} identifies “{short(found.class_name, 40)}”", text)
    feature, name = found.feature, short(found.class_name, 40)
    alone = f" Most informative property: {feature}" if feature else ""
    if alone and found.feature_auc is not None:
        alone += f" (ROC AUC {decimal(found.feature_auc)} on its own)"
    text = (
        f"A classifier that uses only file size, width, height, brightness and JPEG quality, not the photograph, separates "
        f"“{name}” from the other classes with a ROC AUC of {decimal(found.auc)} (lower end of the 95 % CI: "
        f"{decimal(found.auc_low)}).{alone}{'.' if alone else ''} The score may come from how the files were made, "
        f"not from what they show, and may be much lower on photographs from other sources."
    )
    suspect = f": check {feature}" if feature else ""
    return Alarm("alarm", f"Shortcut: file properties alone identify “{name}”{suspect}", text)


def _no_better(data: RunRecord) -> Alarm | None:
    _, score = scored(data)
    name, share = _most_frequent(score or Scores())
    low = score.accuracy.low if score else None
    if share is None or low is None or low > share or share == 1:
        return None
    text = (
        f"Always predicting “{short(name, 40)}” would be correct for {percent(share)} of these images, and the 95 % CI of the "
        f"accuracy starts at {percent(low)}."
    )
    return Alarm("alarm", "Not significantly better than always predicting the same class", text)


def _classes(data: RunRecord) -> Alarm | None:
    _, score = scored(data)
    per_class = score.per_class if score else {}
    absent = [c for c, row in per_class.items() if not row.n]
    if not absent or not score or not score.n:
        return None
    kind = kind_of(data)
    if len(per_class) - len(absent) == 1:
        only = next(c for c in per_class if c not in absent)
        title = f"All {kind} images belong to one class, “{short(only, 40)}”"
        text = "The score does not show whether the classifier separates this class from others; ROC curves are undefined."
        return Alarm("alarm", title, text)
    title = f"{len(absent)} of {len(per_class)} classes have no {kind} image"
    text = f"There is no score for {listing(absent)}; averages are over the other classes."
    return Alarm("caution", title, text)


def _undecodable(data: RunRecord) -> Alarm | None:
    where, score = scored(data)
    broken = data.undecodable.get(where, ())
    if not broken or not score or score.accuracy.value is None or not score.n:
        return None
    n, right = score.n, score.accuracy.value * score.n
    them = "they" if len(broken) > 1 else "it"
    text = (
        f"{listing([b.path for b in broken])}: not in the score. If {them} counted as errors, the accuracy would be "
        f"{percent(right / (n + len(broken)))}."
    )
    title = f"{count(len(broken))} {kind_of(data)} file{'s' if len(broken) > 1 else ''} could not be decoded"
    return Alarm("caution", title, text)


def _no_row(data: RunRecord) -> Alarm | None:
    """Warn of labelled images without a row in the table of predictions."""
    table = data.table_mismatches or TableMismatches()
    n = table.no_row
    _, score = scored(data)
    if not n or not score or score.accuracy.value is None or not score.n:
        return None
    them, right = "they" if n > 1 else "it", score.accuracy.value * score.n
    text = (
        f"{_first(table.examples.no_row, n)}: not in the score. If {them} counted as errors, the accuracy would be "
        f"{percent(right / (n + score.n))}."
    )
    return Alarm("caution", f"{images(n, kind_of(data))} without a row in the table of predictions", text)


def _first(paths: Sequence[str], n: int) -> str:
    """Return the first paths as a list in words, and the number of the others.

    Args:
        paths: Examples.
        n: The number of all paths; fewer may be stored.
    """
    shown = [short(path, 40) for path in paths[:5]]
    return listing(shown) if n <= len(shown) else f"{', '.join(shown)} and {count(n - len(shown))} more"


def _not_in_catalog(data: RunRecord) -> Alarm | None:
    table = data.table_mismatches or TableMismatches()
    n = table.not_in_catalog
    if not n:
        return None
    text = f"{_first(table.examples.not_in_catalog, n)}: no image of the labelled set has this path, or several have it."
    return Alarm("note", f"{count(n)} row{'s' if n > 1 else ''} of the table of predictions ignored", text)


def _other_label(data: RunRecord) -> Alarm | None:
    table = data.table_mismatches or TableMismatches()
    n = table.other_label
    if not n:
        return None
    cases = [
        f"{short(c.path, 40)} is “{short(c.table, 24)}” in the table and “{short(c.catalog, 24)}” in the labelled set"
        for c in table.examples.other_label[:3]
    ]
    more = f"; and {count(n - len(cases))} more" if n > len(cases) else ""
    text = f"The labels of the labelled set are used. {'; '.join(cases)}{more}."
    title = f"{count(n)} row{'s have' if n > 1 else ' has'} a label that differs from the labelled set"
    return Alarm("note", title, text)


def openings(data: RunRecord | ComparisonRecord) -> Alarm | None:
    """Warn if the test images were used before, and say how optimistic the score may be."""
    looks, told = list(data.test_set_accesses), data.test_set_log
    again = bool(looks) and told is not None and not told.new and told.classifiers > 1
    if len(looks) < 2 and not again:
        if told is None or told.counted:
            return None
        text = f"{_sentence(told.note)} Uses of these images by other runs are unknown."
        return Alarm("note", "This use of the test images is not in the test-set log", text)
    here = [] if not told or not told.new else looks[-1:]
    before = [o for o in looks if o not in here]
    same = " Scoring the same classifier again on the same images does not count as a new use." if told and not here else ""
    earlier = "; ".join(_look(o, here) for o in before[-3:])
    more = f", the last {len(before[-3:])}: " if len(before) > 3 else ": "
    text = f"{'Earlier uses' if here else 'Uses'}{more}{earlier}.{same} {_flattery(told)}".strip()
    times = f"{len(looks)} times" if len(looks) > 1 else "before"
    return Alarm("caution", f"These test images have been used {times}", text)


def _look(look: TestSetAccess, here: Sequence[TestSetAccess]) -> str:
    """Describe one use of the test images: time, command, number of classifiers and number of images."""
    shared, total = look.shared, here[0].shared if here else None
    part = f" on {count(shared)} of these images" if shared and total and shared < total else ""
    several = f", {count(look.classifiers)} classifiers at once" if (look.classifiers or 1) > 1 else ""
    when = date(look.when) or clean(look.when)
    return f"{when} by {short(look.by, 60)}{several}{part}"


def _flattery(told: TestSetLogEntry | None) -> str:
    """Say how optimistic the score may be after several classifiers were scored on the same test images."""
    k, worth = (told.classifiers, told.optimism) if told else (0, None)
    if k < 2 or worth is None:
        return "Each decision that is based on a test score makes later scores on these images more optimistic."
    return (
        f"{count(k)} classifiers have been scored on these images. If you selected the best of them by its test score, that "
        f"score is optimistic by up to about {100 * worth:.1f} percentage points: confirm it on new images. If you selected "
        f"nothing by these scores, they are unbiased."
    )


def _sentence(text: Any) -> str:
    """Return a note with a capital letter and a full stop."""
    line = clean(text)
    return f"{line[:1].upper()}{line[1:]}." if line else ""


def _few(data: RunRecord) -> Alarm | None:
    found = cross_validation.suggestion(data)
    return None if found is None else Alarm("note", *found)


def _conflicts(data: RunRecord) -> Alarm | None:
    found = data.dataset.duplicates.conflicts if data.dataset and data.dataset.duplicates else ()
    if not found:
        return None
    text = "One of the labels must be wrong, or the image shows both classes. See “Duplicates with conflicting labels” below."
    return Alarm(
        "caution", f"{images(len(found))} {'appears' if len(found) == 1 else 'appear'} under more than one label", text
    )


def _label_changes(data: RunRecord) -> Alarm | None:
    """Say how the score depends on labels that were changed after the classifier was made."""
    found = data.label_changes
    if found is None:
        return None
    old = f"{percent(found.old)} (95 % CI {percent_range(found.old_low, found.old_high)})"
    new = f"{percent(found.new)} (95 % CI {percent_range(found.new_low, found.new_high)})"
    cases = [f"{short(i.path, 40)}: “{short(i.old, 24)}” → “{short(i.new, 24)}”" for i in found.images[:3]]
    more = f"; and {count(found.n - len(cases))} more" if found.n > len(cases) else ""
    text = (
        f"Under the labels that the run of the classifier knew, the accuracy on the {images(found.compared)} in both is {old}; "
        f"under the new labels {new}. If only the labels of errors were checked, the new score is too high. "
        f"{'; '.join(cases)}{more}."
    )
    title = f"{count(found.n)} label{'s were' if found.n > 1 else ' was'} changed after the classifier was made"
    return Alarm("caution", title, text)


def _unknown_labels(data: RunRecord) -> Alarm | None:
    n = data.unknown_labels
    if not n:
        return None
    text = f"Classes of the classifier: {listing(data.classes, 8)}. Images of other classes are not in the score."
    return Alarm("caution", f"{images(n)} of classes that the classifier does not know", text)


def _problems(data: RunRecord) -> Alarm | None:
    kinds = data.dataset.problems if data.dataset else {}
    n = sum(kinds.values())
    if not n:
        return None
    text = ", ".join(f"{short(kind)}: {count(k)}" for kind, k in sorted(kinds.items(), key=lambda item: -item[1])[:6])
    shown = len(data.dataset.problem_files) if data.dataset else 0
    where = (
        "“Files left out” below lists all" if shown >= n else f"“Files left out” below lists {count(shown)}, catalog.csv all"
    )
    return Alarm("note", f"{count(n)} file{'s were' if n > 1 else ' was'} left out", f"{text}. {where}.")


def _no_pretrained(data: RunRecord) -> Alarm | None:
    """Warn if pretrained weights were not available, so that no pretrained network was compared."""
    missing = data.missing_weights
    chosen = data.network is not None and (data.network.pretrained_on or "nothing") != "nothing"
    if not missing or chosen or data.pretrained_networks:
        return None
    text = (
        f"The weights of {listing(missing)} were not on this machine and could not be downloaded. Pretrained weights usually "
        "give a much higher accuracy. Install Sightline again to get those that belong to it, connect to the internet, or put "
        f"files such as {missing[-1]}.safetensors in a folder and set SIGHTLINE_WEIGHTS to it; then run again."
    )
    return Alarm("caution", "No pretrained weights", text)


_CHECKS: Mapping[Callable[[RunRecord], Alarm | None], tuple[str, str]] = {
    _inverted: ("scores", ""),
    _only_baseline: ("methods", ""),
    _leaks: ("split", "leaks"),
    _shortcut: ("methods", "shortcut"),
    _no_better: ("scores", ""),
    _classes: ("scores", ""),
    _no_pretrained: ("reproduce", ""),
    _undecodable: ("data", ""),
    _no_row: ("data", ""),
    openings: ("reproduce", "uses"),
    _few: ("scores", "size"),
    _unfinished: ("heatmaps", ""),
    _conflicts: ("split", "conflicts"),
    _label_changes: ("scores", ""),
    _unknown_labels: ("data", ""),
    _not_in_catalog: ("data", ""),
    _other_label: ("data", ""),
    _problems: ("data", ""),
}
"""Check → id of the section that tells more, and the topic in the verdict box."""
