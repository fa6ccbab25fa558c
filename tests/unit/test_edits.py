"""Edited transcripts: what was kept keeps its times and figures."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_api.edits import Line, retimed, with_lines, with_text
from whisper_api.errors import InvalidOption
from whisper_api.types import Segment, Transcript, Word


def segment(number: int, text: str, language: str = "en") -> Segment:
    tokens = text.split()
    words = tuple(
        Word(f" {t}", number + i / len(tokens), number + (i + 1) / len(tokens), 0.5)
        for i, t in enumerate(tokens)
    )
    return Segment(number, 0, float(number), number + 1.0, text, (7, 8), 0.2, -0.5, 1.1, 0.1,
                   language, words)  # fmt: skip


def transcript(*texts: str, language: str = "en") -> Transcript:
    segments = tuple(segment(n, text, language) for n, text in enumerate(texts))
    return Transcript("transcribe", language, 1.0, float(len(texts)), segments, "model")


BOTH = transcript(" Hello wurld.", " Good bye.")


def lines_of(value: Transcript) -> list[Line]:
    return [Line(s.start, s.end, s.text) for s in value.segments]


def test_nothing_changed_changes_nothing() -> None:
    assert with_lines(BOTH, lines_of(BOTH)) == BOTH
    assert with_text(BOTH, BOTH.text) == BOTH


def test_an_edited_segment_loses_its_tokens_and_keeps_its_figures() -> None:
    first, second = with_lines(BOTH, [Line(0, 1, "Hello world."), Line(1, 2, "Good bye.")]).segments
    assert (first.text, first.tokens, first.avg_logprob) == (" Hello world.", (), -0.5)
    assert [w.text for w in first.words] == [" Hello", " world."]
    assert (first.words[1].start, first.words[1].end) == (0.5, 1.0)
    assert second == BOTH.segments[1]


def test_segments_can_be_added_split_joined_and_come_in_any_order() -> None:
    split = with_lines(
        BOTH, [Line(1, 2, "Good bye."), Line(0.5, 1, "wurld."), Line(0, 0.5, "Hello")]
    )
    assert [s.text for s in split.segments] == [" Hello", " wurld.", " Good bye."]
    assert [s.id for s in split.segments] == [0, 1, 2]
    joined = with_lines(BOTH, [Line(0, 2, "Hello world. Good bye.")])
    assert joined.text == "Hello world. Good bye."
    assert with_lines(BOTH, []).text == ""


def test_words_that_are_given_count() -> None:
    words = (Word(" Hi", 0.1, 0.2, 1.0),)
    assert with_lines(BOTH, [Line(0, 1, "Hi", words)]).segments[0].words == words


def test_a_segment_whose_text_comes_back_is_the_original_again() -> None:
    edited = with_text(BOTH, "Something else.")
    again = with_text(edited, BOTH.text, BOTH)
    assert again.text == BOTH.text
    assert with_lines(edited, lines_of(BOTH), BOTH) == BOTH


def test_languages_without_spaces_get_none() -> None:
    value = transcript("東京", "です", language="ja")
    edited = with_lines(value, [Line(0, 1, "京都"), Line(1, 2, "です")])
    assert edited.text == "京都です"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello world. Good bye.", [" Hello world.", " Good bye."]),
        ("Hello wurld. And very Good bye.", [" Hello wurld. And very", " Good bye."]),
        ("Good bye.", [" Good bye."]),
        ("Hello wurld.", [" Hello wurld."]),
        ("One two three four", [" One two", " three four"]),
        ("", []),
    ],
)
def test_a_whole_text_finds_its_segments(text: str, parts: list[str]) -> None:
    edited = with_text(BOTH, text)
    assert [s.text for s in edited.segments] == parts
    assert edited.text == text


def test_text_for_an_empty_transcript_is_one_segment() -> None:
    empty = replace(BOTH, segments=())
    (only,) = with_text(empty, "Something").segments
    assert (only.start, only.end, only.text) == (0.0, 2.0, " Something")
    assert with_text(empty, " ").segments == ()


@pytest.mark.parametrize(
    "line", [Line(2, 1, "a"), Line(0, 3.5, "a"), Line(-1, 0, "a"), Line(float("nan"), 1, "a")]
)
def test_times_outside_the_audio_are_refused(line: Line) -> None:
    with pytest.raises(InvalidOption, match=r"segments\[0\]"):
        with_lines(BOTH, [line])


def test_a_segment_may_end_a_little_late_and_is_cut() -> None:
    assert with_lines(BOTH, [Line(1, 2.5, "a")]).segments[0].end == 2.0


@given(st.lists(st.sampled_from("a b c dd eee".split()), max_size=12),
       st.lists(st.sampled_from("a b c dd eee".split()), min_size=1, max_size=12))  # fmt: skip
def test_retimed_words_are_the_text_in_order_and_within_the_segment(
    new: list[str], old: list[str]
) -> None:
    before = segment(3, " " + " ".join(old))
    words = retimed(" ".join(new), before.words, 3.0, 4.0)
    assert [word.text.strip() for word in words] == new
    times = [time for word in words for time in (word.start, word.end)]
    assert all(3.0 <= time <= 4.0 for time in times)
    assert all(word.start <= word.end for word in words)
    starts = [word.start for word in words]
    assert starts == sorted(starts)


def test_a_day_of_speech_is_edited_in_seconds() -> None:
    day = transcript(*(f" This is segment number {n} of the day." for n in range(8000)))
    started = perf_counter()
    edited = with_text(day, day.text.replace("number 77 ", "seventy-seven "))
    assert perf_counter() - started < 20
    assert edited.segments[77].text == " This is segment seventy-seven of the day."
    assert edited.segments[78] == day.segments[78]


def test_hostile_texts_take_no_longer() -> None:
    words = [f"w{n % 150}" for n in range(40_000)]
    value = transcript(*(" " + " ".join(words[at : at + 60]) for at in range(0, 40_000, 60)))
    backwards = " ".join(words[::-1])
    started = perf_counter()
    edited = with_text(value, backwards)
    one = with_lines(value, [Line(0, value.duration, backwards)])
    assert perf_counter() - started < 20
    assert edited.text == one.text == backwards
    assert len(edited.segments) == len(value.segments)
