"""Answer bodies: the exact bytes and keys of OpenAI's live API."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_api import formats
from whisper_api.types import Segment, TokenLogprob, Transcript, Word


def segment(start: float, end: float, text: str, number: int = 0, **extra: object) -> Segment:
    return Segment(
        id=number,
        seek=round(start * 100),
        start=start,
        end=end,
        text=text,
        tokens=(50364, 2425, 50464),
        temperature=0.0,
        avg_logprob=-0.5,
        compression_ratio=0.8,
        no_speech_prob=0.002,
        **extra,  # type: ignore[arg-type]
    )


def transcript(*segments: Segment, task: str = "transcribe", duration: float = 1.7) -> Transcript:
    return Transcript(
        task=task,  # type: ignore[arg-type]
        language="en",
        language_probability=0.9,
        duration=duration,
        segments=segments,
        model="m",
    )


HELLO = transcript(segment(0.0, 2.0, " Hello, world! This is a test."))


def test_text_srt_vtt_are_openais_bytes() -> None:
    assert formats.to_text(HELLO) == "Hello, world! This is a test.\n"
    assert formats.to_srt(HELLO) == (
        "1\n00:00:00,000 --> 00:00:02,000\nHello, world! This is a test.\n\n\n"
    )
    assert formats.to_vtt(HELLO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nHello, world! This is a test.\n\n"
    )


def test_no_speech_is_empty_but_valid() -> None:
    nothing = transcript()
    assert formats.to_text(nothing) == "\n"
    assert formats.to_srt(nothing) == "\n"
    assert formats.to_vtt(nothing) == "WEBVTT\n\n"
    assert formats.to_json(nothing)["text"] == ""


def test_verbose_json_keys_and_order() -> None:
    body = formats.to_verbose_json(HELLO)
    assert list(body) == ["task", "language", "duration", "text", "segments", "usage"]
    assert body["language"] == "english"
    assert body["usage"] == {"type": "duration", "seconds": 2}
    assert list(body["segments"][0]) == [
        "id",
        "seek",
        "start",
        "end",
        "text",
        "tokens",
        "temperature",
        "avg_logprob",
        "compression_ratio",
        "no_speech_prob",
    ]
    assert body["segments"][0]["text"].startswith(" ")


def test_granularities_decide_the_keys() -> None:
    words = (Word(" Hello,", 0.0, 0.32, 0.9), Word(" world!", 0.4, 0.8, 0.9), Word(" -", 1, 1, 1))
    spoken = transcript(segment(0, 2, " Hello, world! -", words=words))
    only_words = formats.to_verbose_json(spoken, granularities=["word"])
    assert "segments" not in only_words
    assert only_words["words"] == [
        {"word": "Hello", "start": 0.0, "end": 0.32},
        {"word": "world", "start": 0.4, "end": 0.8},
    ]
    both = formats.to_verbose_json(spoken, granularities=["word", "segment"])
    assert {"words", "segments"} <= set(both)


def test_translations_have_neither_usage_nor_another_language() -> None:
    body = formats.to_verbose_json(transcript(segment(0, 1, " One."), task="translate"))
    assert (body["task"], body["language"]) == ("translate", "english")
    assert "usage" not in body


def test_old_keys_where_asked_for() -> None:
    spoken = transcript(segment(0.5, 1.25, " One."))
    assert formats.to_json(spoken, return_timestamps=True)["segments"] == [
        {"start_time_ms": 500, "end_time_ms": 1250, "text": "One."}
    ]
    verbose = formats.to_verbose_json(spoken, return_timestamps=True)["segments"][0]
    assert (verbose["start_time_ms"], verbose["end_time_ms"], len(verbose)) == (500, 1250, 12)


def test_logprobs_list_all_tokens() -> None:
    entry = TokenLogprob(" is", -0.04, (32, 105, 115))
    body = formats.to_json(transcript(segment(0, 1, " is", logprobs=(entry,))), logprobs=True)
    assert body["logprobs"] == [{"token": " is", "logprob": -0.04, "bytes": [32, 105, 115]}]


def test_cues_survive_hostile_text() -> None:
    spoken = transcript(segment(0, 0, " a --> b\n\n2\n<i>&"))
    assert formats.to_srt(spoken) == ("1\n00:00:00,000 --> 00:00:00,001\na -> b 2 <i>&\n\n\n")
    assert "a -&gt; b 2 &lt;i&gt;&amp;\n" in formats.to_vtt(spoken)


def test_blank_segments_leave_no_hole_in_the_numbers() -> None:
    spoken = transcript(segment(0, 1, " a"), segment(1, 2, "  "), segment(2, 3, " b"))
    assert re.findall(r"^(\d+)$", formats.to_srt(spoken), re.M) == ["1", "2"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [(" «Да»,", "Да"), (" don't", "don't"), (" 50%", "50%"), ("…", None), (" U.S.", "U.S")],
)
def test_words_lose_edge_punctuation(word: str, expected: str | None) -> None:
    entry = formats.verbose_word(Word(word, 0, 1, 1))
    assert (entry and entry["word"]) == expected


@given(st.floats(0, 400_000, allow_nan=False))
def test_clock_never_overflows_a_field(seconds: float) -> None:
    text = formats.clock(formats.milliseconds(seconds), ",")
    match = re.fullmatch(r"(\d\d+):([0-5]\d):([0-5]\d),(\d{3})", text)
    assert match is not None
    hours, minutes, whole, ms = map(int, match.groups())
    back = hours * 3600 + minutes * 60 + whole + ms / 1000
    assert abs(back - seconds) <= 0.0005 + 1e-9 * seconds


@pytest.mark.parametrize(("duration", "seconds"), [(1.7, 2), (2.0, 2), (2.0004, 2), (8.47, 9)])
def test_usage_rounds_up(duration: float, seconds: int) -> None:
    assert formats.usage(duration) == {"type": "duration", "seconds": seconds}
