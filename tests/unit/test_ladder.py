"""The temperature ladder and the rescue of gaps, on the fake engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, WindowItem
from whisper_api.engines.fake import MARKER_SAMPLES, FakeEngine, FakeOptions, make_marker
from whisper_api.ladder import WindowDecoder
from whisper_api.merge import WindowResult, window_segments
from whisper_api.metrics import Metrics
from whisper_api.scheduler import Scheduler
from whisper_api.types import SAMPLE_RATE, Options, Plan, VadOptions, Waveform, Window

RATE = SAMPLE_RATE


@pytest.fixture
def waveform(tmp_path: Path) -> Waveform:
    """20 s with markers at 1 s and 12 s."""
    samples = np.zeros(20 * RATE, np.float32)
    for second, number in ((1, 1), (12, 2)):
        samples[second * RATE : second * RATE + MARKER_SAMPLES] = make_marker(number)
    path = tmp_path / "pcm"
    path.write_bytes((samples * 32767).astype("<i2").tobytes())
    return Waveform(path, samples.size)


def plan(window: Window, **options: object) -> Plan:
    return Plan(
        model="fake",
        options=Options(**options),  # type: ignore[arg-type]
        duration=20.0,
        language="en",
        language_probability=1.0,
        windows=(window,),
        first_prompt=(7, 8),
        prompt=(8,),
        seed=5,
    )


async def run(
    waveform: Waveform, engine: FakeEngine, window: Window, **options: object
) -> tuple[WindowResult, Metrics]:
    scheduler, metrics = Scheduler(Settings()), Metrics()
    async with scheduler.admit() as ticket:
        ticket.bind(engine)
        decoder = WindowDecoder(plan(window, **options), waveform, engine, ticket, metrics)
        result = await decoder.decode(window)
    await scheduler.close()
    return result, metrics


WHOLE = Window(0, 0, 20 * RATE, 1.0, ((RATE, 2 * RATE),))


def temperatures(engine: FakeEngine) -> list[float]:
    return [call.params[0].temperature for call in engine.calls]


def bad_below(limit: float, **change: object) -> Callable[[WindowItem, Decoded], Decoded]:
    def transform(item: WindowItem, decoded: Decoded) -> Decoded:
        if item.params.temperature < limit:
            return replace(decoded, **change)  # type: ignore[arg-type]
        return decoded

    return transform


async def test_good_text_is_decoded_once(waveform: Waveform) -> None:
    engine = FakeEngine()
    result, _ = await run(waveform, engine, WHOLE)
    assert result.decoded is not None
    assert result.decoded.text == " marker-0001 marker-0002"
    assert temperatures(engine) == [0.0]
    assert engine.calls[0].params[0].prompt == (7, 8)
    assert engine.released


@pytest.mark.parametrize("change", [{"avg_logprob": -2.0}, {"compression_ratio": 5.0}])
async def test_failed_text_climbs_the_ladder(waveform: Waveform, change: dict[str, float]) -> None:
    engine = FakeEngine(transform=bad_below(0.4, **change))
    result, metrics = await run(waveform, engine, WHOLE)
    assert temperatures(engine) == [0.0, 0.2, 0.4]
    assert result.decoded is not None
    assert result.decoded.temperature == 0.4
    assert {call.params[0].seed for call in engine.calls} == {5}
    assert metrics.fallbacks._value.get() == 2


async def test_a_loop_at_every_temperature_is_told(waveform: Waveform) -> None:
    engine = FakeEngine(transform=bad_below(9, compression_ratio=5.0))
    result, _ = await run(waveform, engine, WHOLE)
    assert len(engine.calls) == 6
    assert result.decoded is not None
    assert "repeats itself" in result.warnings[0]


async def test_a_given_temperature_is_used_alone(waveform: Waveform) -> None:
    engine = FakeEngine(transform=bad_below(9, avg_logprob=-5.0))
    await run(waveform, engine, WHOLE, temperature=0.7)
    assert temperatures(engine) == [0.7]


async def test_silence_ends_at_once(waveform: Waveform) -> None:
    engine = FakeEngine(transform=bad_below(9, avg_logprob=-5.0, no_speech_prob=0.99))
    result, _ = await run(waveform, engine, WHOLE)
    assert result.decoded is None
    assert len(engine.calls) == 1


async def test_unlikely_text_of_faint_sounds_is_dropped_at_once(waveform: Waveform) -> None:
    engine = FakeEngine(transform=bad_below(9, avg_logprob=-2.0))
    result, _ = await run(waveform, engine, replace(WHOLE, voiced=0.0))
    assert result.decoded is None
    assert len(engine.calls) == 1


async def test_speech_without_text_is_decoded_again(waveform: Waveform) -> None:
    def forgets_the_second(item: WindowItem, decoded: Decoded) -> Decoded:
        if item.audio.size == 20 * RATE:
            return replace(
                decoded, pieces=decoded.pieces[:1], text=" marker-0001", avg_logprob=-0.9
            )
        return decoded

    engine = FakeEngine(transform=forgets_the_second)
    window = Window(0, 0, 20 * RATE, 4.0, ((RATE, 2 * RATE), (11 * RATE, 14 * RATE)))
    result, metrics = await run(waveform, engine, window)
    first, second = window_segments(waveform, result)
    assert (first.text, second.text) == (" marker-0001", " marker-0002")
    assert second.start == pytest.approx(12.0, abs=0.01)
    assert first.avg_logprob == -0.9
    assert second.avg_logprob != -0.9, "a gap's figures are those of its own decoding"
    assert metrics.rescues._value.get() == 1


async def test_second_attempts_have_a_budget(waveform: Waveform) -> None:
    engine = FakeEngine(
        FakeOptions(), transform=lambda item, decoded: replace(decoded, pieces=(), text="x")
    )
    spans = tuple((n * 3 * RATE // 2, n * 3 * RATE // 2 + RATE) for n in range(12))
    window = Window(0, 0, 20 * RATE, 12.0, spans)
    await run(waveform, engine, replace(window, spans=((0, 8 * RATE), (10 * RATE, 15 * RATE))))
    assert len(engine.calls) <= 1 + 2 * 1 + 8


async def test_without_vad_gaps_are_left_alone(waveform: Waveform) -> None:
    engine = FakeEngine()
    window = Window(0, 0, 20 * RATE, 20.0, ((0, 20 * RATE),))
    await run(waveform, engine, window, vad=VadOptions(enabled=False))
    assert len(engine.calls) == 1
