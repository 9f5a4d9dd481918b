"""Text that is shortened to fit."""

from __future__ import annotations

from sightline.explanation.draw import lettering


def test_long_names_lose_their_middle_and_both_ends_stay() -> None:
    short = lettering.shorten("wallaby_" * 40 + "END", 150, 14)
    assert short.startswith("wallaby") and short.endswith("END") and "…" in short
    assert lettering.width(short, 14) <= 150 < lettering.width(short + "mm", 14)
    assert lettering.shorten("cat", 150, 14) == "cat"


def test_text_is_wrapped_between_words_and_what_is_too_much_loses_its_end() -> None:
    text = "covering hot cells first leaves 0.27 of the probability on average, random cells 0.31"
    lines = lettering.wrap(text, 200, 11, 9)
    assert " ".join(lines) == text and len(lines) > 1 and all(lettering.width(line, 11) <= 200 for line in lines)
    cut = lettering.wrap(text, 200, 11, 2)
    assert cut[0] == lines[0] and cut[1].endswith("…") and lettering.width(cut[1], 11) <= 200
    assert lettering.wrap("", 200, 11, 2) == []
    (long,) = lettering.wrap("x" * 300, 100, 11, 3)
    assert "…" in long and lettering.width(long, 11) <= 100


def test_numbers_of_the_scale() -> None:
    assert [lettering.number(v) for v in (0.43, 1.0, 2.345, 99.6, 1234, 1e7, -0.94)] == [
        "0.43", "1.0", "2.3", "100", "1234", "1.0e+07", "-0.94",
    ]  # fmt: skip
