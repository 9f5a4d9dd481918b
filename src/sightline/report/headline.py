"""The first lines of the page: how good the classifier is, in words, and what the reader must know before believing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from sightline.report import cross_validation, svg
from sightline.report.format import at, clean, count, date, decimal, duration, images, listing, percent, percent_range, short


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to know before believing the score.

    Args:
        level: `alarm` where the score may mean nothing, `caution` where it means less, `note` otherwise.
        title: In a few words.
        text: What it means and what to do.
    """

    level: Literal["alarm", "caution", "note"]
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Headline:
    """One number, its interval and what it is a share of; `aside` where another one is to be quoted."""

    value: str
    interval: str
    of: str
    label: str = ""
    aside: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The run in a glance.

    Args:
        headlines: One, or two where test images were also in train.
        lines: Sentences below them.
        scale: The score on a ruler, None where there is none.
        marks: What else stands on the ruler.
        alarms: The gravest first.
    """

    headlines: list[Headline]
    lines: list[str]
    scale: Markup | None
    marks: list[str]
    alarms: list[Alarm]


def scored(data: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """Which images the page speaks of, and their scores: the test split's where it was opened, else validation's."""
    if data.get("test"):
        return "test", data["test"]
    return "val", data.get("val")


def kind_of(data: Mapping[str, Any]) -> str:
    """What the scored images are called: test, validation, held-out of those that were cross-validated, else labelled."""
    where, _ = scored(data)
    if where == "val":
        crossed = data.get("kind") == "crossvalidate" or (data.get("val_estimate") or "val") != "val"
        return "held-out" if crossed else "validation"
    return "labelled" if data.get("kind") == "evaluate" and data.get("scored") != "test" else "test"


def answer(data: Mapping[str, Any]) -> Answer:
    """The first lines of one run."""
    _, score = scored(data)
    kind = kind_of(data)
    if not score or score.get("accuracy") is None:
        text = "No labelled image was scored, so there is no score."
        return Answer([], [text, *_method_lines(data)], None, [], alarms(data))
    quoted, heads, marks = (
        score,
        [_headline(score, f"of {images(score.get('n'), kind)} answered correctly")],
        _marks(data, score),
    )
    clean = data.get("test_without_leaks")
    if clean and clean.get("accuracy") is not None:
        first = dataclasses.replace(heads[0], label="as given", aside=True)
        of = f"of the {images(clean.get('n'))} that it was not made from"
        heads = [first, _headline(clean, of, "without the leaked images")]
        marks.append((score["accuracy"], f"as given {percent(score['accuracy'])}"))
        quoted = clean
    low, high = quoted.get("accuracy_low"), quoted.get("accuracy_high")
    drawn = None
    if low is not None and high is not None:
        words = f"accuracy {percent(quoted['accuracy'])}, 95 % interval {percent_range(low, high)}"
        drawn = svg.scale(quoted["accuracy"], low, high, marks, words, svg.floor_of([low, *(v for v, _ in marks)]))
    lines = [*_method_lines(data), *_trust_lines(data)]
    return Answer(heads, lines, drawn, [name for _, name in sorted(marks)], alarms(data))


def _headline(score: Mapping[str, Any], of: str, label: str = "") -> Headline:
    interval = percent_range(score.get("accuracy_low"), score.get("accuracy_high"))
    return Headline(percent(score["accuracy"]), interval, of, label)


def _marks(data: Mapping[str, Any], score: Mapping[str, Any]) -> list[tuple[float, str]]:
    """What the score is compared with: always answering one class, and the validation score."""
    marks = []
    name, share = _most_frequent(score)
    if share is not None:
        marks.append((share, f"always “{short(name, 24)}” {percent(share)}"))
    val = at(data, "val.accuracy")
    if val is not None and data.get("test"):
        marks.append((val, f"{data.get('val_estimate') or 'val'} {percent(val)}"))
    return marks


def _most_frequent(score: Mapping[str, Any]) -> tuple[str, float | None]:
    """The most frequent class of the scored images and its share of them."""
    sizes = {c: row.get("n") or 0 for c, row in (score.get("per_class") or {}).items()}
    total = sum(sizes.values())
    if not total:
        return "", None
    name = max(sizes, key=lambda c: sizes[c])
    return name, sizes[name] / total


def _method_lines(data: Mapping[str, Any]) -> list[str]:
    """What gives the answers, and how it was chosen."""
    ladder = data.get("ladder") or []
    chosen = next((r for r in ladder if r.get("chosen")), None)
    name = (chosen or {}).get("label") or method_name(data)
    if not name:
        return [f"The answers come from {data['subject']}."] if data.get("subject") else []
    if chosen and len(ladder) > 1:
        n, how = at(chosen, "val.n", 0), f"on {at(chosen, 'val.estimate', 'val')}"
        if chosen.get("shared"):
            n, how = chosen["shared"]["n"], "on the images that all methods were held out on"
        took = f" The whole run took {duration(data.get('seconds'))}." if data.get("seconds") else ""
        return [f"The answers come from {name}, chosen among {len(ladder)} candidates {how} ({count(n)} images).{took}"]
    return [f"The answers come from {name}."]


def method_name(data: Mapping[str, Any]) -> str:
    """Method, network and head as one phrase."""
    parts = [data.get("head"), data.get("backbone")]
    inner = " on ".join(str(p) for p in parts if p and p != "none")
    return f"{data['method']} ({inner})" if data.get("method") and inner else str(data.get("method") or inner)


def _trust_lines(data: Mapping[str, Any]) -> list[str]:
    """What makes the number honest: unseen images, opened once."""
    openings = data.get("test_openings") or []
    if data.get("kind") == "evaluate":
        return []
    if data.get("crossvalidation"):
        return cross_validation.trust(data)
    if data.get("test") and len(openings) <= 1 and at(data, "ledger.new", True):
        return ["No test image was used for training or for any choice: the test split was opened once, at the end."]
    if data.get("test"):
        return ["No test image was used for training or for any choice in this run."]
    estimate = data.get("val_estimate")
    by = f" The accuracy is on {estimate}." if estimate else ""
    return [f"This run did not use the test split.{by} Choices were made on these images, so the score may flatter a little."]


# ---------------------------------------------------------------------------------------------------------- alarms


def alarms(data: Mapping[str, Any]) -> list[Alarm]:
    """Everything that the reader must know before believing the score, the gravest first."""
    found = [check(data) for check in _CHECKS]
    order = {"alarm": 0, "caution": 1, "note": 2}
    return sorted((a for a in found if a is not None), key=lambda a: order[a.level])


def _inverted(data: Mapping[str, Any]) -> Alarm | None:
    _, score = scored(data)
    text = (score or {}).get("inverted")
    return Alarm("alarm", "The scores look inverted", text) if text else None


def _leaks(data: Mapping[str, Any]) -> Alarm | None:
    if data.get("kind") == "evaluate":
        n, total = data.get("in_training") or 0, at(data, "test.n", 0)
        if not n:
            return None
        if n >= total:
            text = "The score says how well the classifier remembers, not how well it does on images it has never seen."
            return Alarm("alarm", "All of these images were used to make this classifier", text)
        text = "The first score counts them; the second leaves them out and is the one to quote."
        return Alarm("alarm", f"{images(n)} of {count(total)} {'was' if n == 1 else 'were'} used to make this classifier", text)
    pairs = at(data, "split.leaks", [])
    n = at(data, "split.leaked") or len({pair[0] for pair in pairs})
    if not n:
        return None
    if not data.get("test"):
        return Alarm("caution", f"{images(n, 'test')} also in train", "They will flatter the test score.")
    text = "The first score counts them, as given (so do the tables below); the second leaves them out and is the one to quote."
    return Alarm("alarm", f"{images(n, 'test')} {'is' if n == 1 else 'are'} also in train", f"{text} They are listed below.")


def _only_baseline(data: Mapping[str, Any]) -> Alarm | None:
    """No method that looks at the photographs was finished."""
    if data.get("kind") != "run" or data.get("method") != "baseline" or not data.get("skipped"):
        return None
    text = "It always predicts the most frequent class. “Methods left out” below gives the reasons; a larger --budget may help."
    return Alarm("alarm", "No method that looks at the photographs was finished", text)


def _unfinished(data: Mapping[str, Any]) -> Alarm | None:
    """What the page lacks for want of time, or still waits for."""
    heatmaps = data.get("heatmaps") or {}
    if heatmaps.get("pending"):
        return Alarm("note", "Heatmaps are being drawn", "The scores are final; this page is written again with the pictures.")
    missing = [f"the budget left out {what}" for what in data.get("left_out") or []]
    drawn, of = heatmaps.get("drawn", 0), heatmaps.get("of", 0)
    if heatmaps.get("asked") not in (None, "none") and drawn < of and heatmaps.get("budget_s") is not None:
        share = f"the share of the budget that heatmaps have ({duration(heatmaps['budget_s'])}) sufficed for {drawn} of {of}"
        missing.insert(0, share)
    if not missing:
        return None
    title = "Heatmaps were not drawn" if drawn == 0 and of else "Some pictures are missing"
    text = "; ".join(missing)
    return Alarm("note", title, f"{text[0].upper()}{text[1:]}. The scores are not affected. A larger --budget draws more.")


def _shortcut(data: Mapping[str, Any]) -> Alarm | None:
    found = data.get("shortcut") or {}
    if found.get("notable"):
        text = (
            f"A classifier that sees no photograph, only the file's size, width, height, brightness and JPEG quality, is "
            f"right for {percent(found.get('score'))} of the images. The most telling property is {found.get('feature')}. "
            "Part of the classifier's accuracy may come from how the files were made."
        )
        title = f"File properties alone reach {percent(found.get('score'), 0)} (chance {percent(found.get('chance'), 0)})"
        return Alarm("note", title, text)
    if not found.get("alarm"):
        return None
    feature, name = found.get("feature"), short(found.get("class"), 40)
    alone = f" Its {feature} alone is most telling" if feature else ""
    if alone and found.get("feature_auc") is not None:
        alone += f" (ROC AUC {decimal(found['feature_auc'])})"
    text = (
        f"A classifier that sees no photograph, only the file's size, width, height, brightness and JPEG quality, tells "
        f"“{name}” from the rest with a ROC AUC of {decimal(found.get('auc'))} (95 % interval from "
        f"{decimal(found.get('auc_low'))}).{alone}{'.' if alone else ''} The score may come from how the files were made, "
        f"not from what they show, and may not hold for photographs from elsewhere."
    )
    suspect = f": look at the {feature}" if feature else ""
    return Alarm("alarm", f"The files give “{name}” away without being looked at{suspect}", text)


def _no_better(data: Mapping[str, Any]) -> Alarm | None:
    _, score = scored(data)
    name, share = _most_frequent(score or {})
    low = (score or {}).get("accuracy_low")
    if share is None or low is None or low > share or share == 1:
        return None
    text = (
        f"Always answering “{short(name, 40)}” would be right for {percent(share)} of these images, and the score's interval "
        f"reaches down to {percent(low)}."
    )
    return Alarm("alarm", "Not clearly better than always giving the same answer", text)


def _classes(data: Mapping[str, Any]) -> Alarm | None:
    _, score = scored(data)
    per_class = (score or {}).get("per_class") or {}
    absent = [c for c, row in per_class.items() if not row.get("n")]
    if not absent or not (score or {}).get("n"):
        return None
    kind = kind_of(data)
    if len(per_class) - len(absent) == 1:
        only = next(c for c in per_class if c not in absent)
        title = f"All {kind} images are of one class, “{short(only, 40)}”"
        text = "A score on one class does not say whether the classifier tells it from others; curves and areas are undefined."
        return Alarm("alarm", title, text)
    title = f"No {kind} image of {len(absent)} of {len(per_class)} classes"
    text = f"Nothing is known of {listing(absent)}; means are taken over the other classes."
    return Alarm("caution", title, text)


def _undecodable(data: Mapping[str, Any]) -> Alarm | None:
    where, score = scored(data)
    broken = at(data, f"undecodable.{where}", [])
    if not broken or not score or score.get("accuracy") is None or not score.get("n"):
        return None
    n, right = score["n"], score["accuracy"] * score["n"]
    them = "they" if len(broken) > 1 else "it"
    text = (
        f"{listing([b.get('path') for b in broken])}: not in the score. If {them} counted as wrong, the score would be "
        f"{percent(right / (n + len(broken)))}."
    )
    title = f"{count(len(broken))} {kind_of(data)} file{'s' if len(broken) > 1 else ''} could not be decoded"
    return Alarm("caution", title, text)


def _no_row(data: Mapping[str, Any]) -> Alarm | None:
    """Images of the labelled set that a table of predictions does not speak of."""
    n = at(data, "table.no_row", 0)
    _, score = scored(data)
    if not n or not score or score.get("accuracy") is None or not score.get("n"):
        return None
    them, right = "they" if n > 1 else "it", score["accuracy"] * score["n"]
    text = (
        f"{_first(data, 'no_row', n)}: not in the score. If {them} counted as wrong, the score would be "
        f"{percent(right / (n + score['n']))}."
    )
    return Alarm("caution", f"The table has no row for {images(n, kind_of(data))}", text)


def _first(data: Mapping[str, Any], kind: str, n: int) -> str:
    """The first few of n paths, of which not all are known."""
    shown = [short(path, 40) for path in at(data, f"table.examples.{kind}", [])[:5]]
    return listing(shown) if n <= len(shown) else f"{', '.join(shown)} and {count(n - len(shown))} more"


def _not_in_catalog(data: Mapping[str, Any]) -> Alarm | None:
    n = at(data, "table.not_in_catalog", 0)
    if not n:
        return None
    text = f"{_first(data, 'not_in_catalog', n)}: no image of the labelled set, or more than one, has such a path."
    return Alarm("note", f"{count(n)} row{'s' if n > 1 else ''} of the table left out", text)


def _other_label(data: Mapping[str, Any]) -> Alarm | None:
    n = at(data, "table.other_label", 0)
    if not n:
        return None
    cases = [
        f"{short(c['path'], 40)} is “{short(c['table'], 24)}” in the table and “{short(c['catalog'], 24)}” in the set"
        for c in at(data, "table.examples.other_label", [])[:3]
    ]
    text = (
        f"The labelled set's labels count. {'; '.join(cases)}{f'; and {count(n - len(cases))} more' if n > len(cases) else ''}."
    )
    title = f"{count(n)} row{'s have' if n > 1 else ' has'} another label in the table than in the labelled set"
    return Alarm("note", title, text)


def openings(data: Mapping[str, Any]) -> Alarm | None:
    """Who has looked at the test images before, and what that does to the score."""
    looks, told = data.get("test_openings") or [], data.get("ledger") or {}
    again = bool(looks) and told.get("new") is False and (told.get("classifiers") or 0) > 1
    if len(looks) < 2 and not again:
        if told.get("counted", True):
            return None
        text = f"{_sentence(told.get('note'))} Looks at these images by other runs cannot be told from this one."
        return Alarm("note", "This look at the test images is not counted", text)
    here = [] if not told or not told.get("new") else looks[-1:]
    before = [o for o in looks if o not in here]
    same = " Scoring the same classifier on the same images again is no new look." if told and not here else ""
    earlier = "; ".join(_look(o, here) for o in before[-3:])
    more = f", the last {len(before[-3:])}: " if len(before) > 3 else ": "
    text = f"{'Earlier looks' if here else 'The looks'}{more}{earlier}.{same} {_flattery(told)}".strip()
    times = f"{len(looks)} times" if len(looks) > 1 else "before"
    return Alarm("caution", f"These test images have been looked at {times}", text)


def _look(look: Mapping[str, Any], here: Sequence[Mapping[str, Any]]) -> str:
    """One look at test images: when, by what, and at how many of them."""
    shared, total = look.get("shared"), (here[0] if here else {}).get("shared")
    part = f" at {count(shared)} of them" if shared and total and shared < total else ""
    several = f", {count(look['classifiers'])} at once" if (look.get("classifiers") or 1) > 1 else ""
    when = date(look.get("when")) or clean(look.get("when"))
    return f"{when} by {short(look.get('by'), 60)}{several}{part}"


def _flattery(told: Mapping[str, Any]) -> str:
    """What it means that several classifiers were scored on the same test images."""
    k, worth = told.get("classifiers") or 0, told.get("flattery")
    if k < 2 or worth is None:
        return "Each time that a choice follows a look at the test split, its score flatters a little more."
    return (
        f"{count(k)} classifiers have been scored on them. Nothing is lost if nothing was chosen by these scores. If the best "
        f"of the {count(k)} was, its score is too high by up to about {100 * worth:.1f} points, and only images that "
        f"none of them was scored on would tell."
    )


def _sentence(text: Any) -> str:
    """A note as a sentence."""
    line = clean(text)
    return f"{line[:1].upper()}{line[1:]}." if line else ""


def _few(data: Mapping[str, Any]) -> Alarm | None:
    found = cross_validation.suggestion(data)
    return None if found is None else Alarm("note", *found)


def _conflicts(data: Mapping[str, Any]) -> Alarm | None:
    found = at(data, "data.duplicates.conflicts", [])
    if not found:
        return None
    text = "One of the labels must be wrong, or the image shows both. They are listed under “Duplicates”."
    return Alarm("caution", f"{images(len(found))} {'stands' if len(found) == 1 else 'stand'} under more than one label", text)


def _unknown_labels(data: Mapping[str, Any]) -> Alarm | None:
    n = data.get("not_among_classes") or 0
    if not n:
        return None
    text = f"The classifier knows {listing(data.get('classes') or [], 8)}. Images of other classes are not in the score."
    return Alarm("caution", f"{images(n)} of classes that it does not know", text)


def _problems(data: Mapping[str, Any]) -> Alarm | None:
    kinds = at(data, "data.problems", {})
    n = sum(kinds.values())
    if not n:
        return None
    text = ", ".join(f"{short(kind)}: {count(k)}" for kind, k in sorted(kinds.items(), key=lambda item: -item[1])[:6])
    shown = len(at(data, "data.problem_files", []))
    where = "Each is named below" if shown >= n else f"{count(shown)} of them are named below, all of them in catalog.csv"
    return Alarm("note", f"{count(n)} file{'s were' if n > 1 else ' was'} left out", f"{text}. {where}.")


def _no_pretrained(data: Mapping[str, Any]) -> Alarm | None:
    """No pretrained weights were at hand, and the chosen classifier has none."""
    missing = data.get("not_at_hand") or []
    if not missing or at(data, "network.pretrained_on", "nothing") != "nothing":
        return None
    text = (
        f"The weights of {listing(missing)} were not on this machine and could not be fetched. With them, accuracy is usually "
        f"much higher: put files such as {missing[0]}.safetensors in a folder, set SIGHTLINE_WEIGHTS to it, and run again."
    )
    return Alarm("caution", "Made without pretrained weights", text)


_CHECKS = (
    _inverted,
    _only_baseline,
    _leaks,
    _shortcut,
    _no_better,
    _classes,
    _no_pretrained,
    _undecodable,
    _no_row,
    openings,
    _few,
    _unfinished,
    _conflicts,
    _unknown_labels,
    _not_in_catalog,
    _other_label,
    _problems,
)
