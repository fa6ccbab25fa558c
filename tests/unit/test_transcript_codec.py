"""Stored transcripts and plans come back as they were, also from older and newer versions."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, replace

import pytest

from whisper_api.errors import RecordBroken
from whisper_api.transcript_codec import ENVELOPE, OPTIONS, PLAN, SEGMENTS, TRANSCRIPT, Codec
from whisper_api.types import (
    Coverage,
    Envelope,
    Options,
    Plan,
    Segment,
    TokenLogprob,
    Transcript,
    VadOptions,
    Window,
    Word,
)

SEGMENT = Segment(
    id=3,
    seek=120,
    start=0.1 + 0.2,
    end=1e-7,
    text=" Ёлка \ud83d \U0001f600 «да»",
    tokens=(50364, 1, 2),
    temperature=0.2,
    avg_logprob=float("-inf"),
    compression_ratio=1 / 3,
    no_speech_prob=0.0,
    language="ru",
    words=(Word(" Ёлка", 0.3, 0.4, 0.99),),
    logprobs=(TokenLogprob("\u0401", -0.5, (208, 129)),),
    window=7,
)
TRANSCRIPT_VALUE = Transcript(
    task="translate",
    language="ru",
    language_probability=0.75,
    duration=12.345678901234567,
    segments=(SEGMENT, replace(SEGMENT, id=4, words=(), logprobs=())),
    model="small",
    coverage=Coverage(12.0, 9.5, 9.25, 0.25),
    warnings=("the file is damaged: 3 packets",),
)
OPTIONS_VALUE = Options(
    language="ru",
    languages=("ru", "en"),
    keywords=("Сбер",),
    vad=VadOptions(threshold=0.3),
    word_timestamps=True,
)
PLAN_VALUE = Plan(
    model="small",
    options=OPTIONS_VALUE,
    duration=12.5,
    language="ru",
    language_probability=0.5,
    windows=(Window(0, 0, 480_000, 3.5, ((10, 20), (30, 40))), Window(1, 480_000, 500_000)),
    first_prompt=(1, 2),
    prompt=(),
    seed=2**31 - 1,
    warnings=("a",),
)


def test_everything_comes_back_exactly_as_it_was() -> None:
    assert TRANSCRIPT.load(TRANSCRIPT.dump(TRANSCRIPT_VALUE)) == TRANSCRIPT_VALUE
    assert PLAN.load(PLAN.dump(PLAN_VALUE)) == PLAN_VALUE
    assert OPTIONS.load(OPTIONS.dump(OPTIONS_VALUE)) == OPTIONS_VALUE
    segments = TRANSCRIPT_VALUE.segments
    assert SEGMENTS.load(SEGMENTS.dump(segments)) == segments
    envelope = Envelope(2.5, 100.0, "00ff7f", ((0.1, 0.9),))
    assert ENVELOPE.load(ENVELOPE.dump(envelope)) == envelope


def test_plain_records_are_json_of_the_same_value() -> None:
    plan = json.loads(json.dumps(PLAN.plain(PLAN_VALUE)))
    assert (plan["kind"], plan["version"]) == ("plan", 1)
    assert PLAN.restore(plan) == PLAN_VALUE
    assert PLAN.load(json.dumps(plan).encode()) == PLAN_VALUE


def test_a_member_that_this_version_does_not_know_is_left_out() -> None:
    record = OPTIONS.plain(OPTIONS_VALUE)
    record["value"]["of_tomorrow"] = 1
    assert OPTIONS.restore(record) == OPTIONS_VALUE


def test_a_member_that_did_not_exist_yet_gets_its_default() -> None:
    record = OPTIONS.plain(Options())
    del record["value"]["loudness"]
    assert OPTIONS.restore(record) == Options()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"kind": "plan", "version": 1, "value": {}}',
        b'{"kind": "transcript", "version": 1, "value": {"task": "sing"}}',
        zlib.compress(b'{"kind": "transcript"}')[:-3],
    ],
)
def test_damaged_records_are_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(RecordBroken, match="damaged"):
        TRANSCRIPT.load(data)


def test_a_record_of_a_newer_version_says_so() -> None:
    record = TRANSCRIPT.plain(TRANSCRIPT_VALUE) | {"version": 2}
    with pytest.raises(RecordBroken, match="newer version"):
        TRANSCRIPT.restore(record)


@dataclass(frozen=True)
class Own:
    """Another module's value."""

    numbers: tuple[int, ...]


def test_other_values_get_codecs_of_their_own() -> None:
    codec: Codec[Own] = Codec("own", 3, Own)
    assert codec.load(codec.dump(Own((1, 2)))) == Own((1, 2))
