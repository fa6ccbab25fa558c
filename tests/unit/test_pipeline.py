"""The whole path on the fake engine: real decoding, real windows, true order and times."""

from __future__ import annotations

import asyncio
import threading
import wave
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.waiting import PATIENCE_S

from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.engines.fake import MARKER_SAMPLES, FakeEngine, make_marker
from whisper_api.errors import InvalidOption, Overloaded
from whisper_api.pipeline import elect, finish
from whisper_api.runtime import Runtime, open_runtime
from whisper_api.types import SAMPLE_RATE, Options, Plan, Transcript, VadOptions, Waveform

RATE = SAMPLE_RATE
PLAIN = Options(language="en", vad=VadOptions(enabled=False))


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    settings = Settings(engine="fake", model_path="fake", data_dir=tmp_path, decode_workers=1)
    async with open_runtime(settings) as runtime:
        yield runtime


def recording(path: Path, markers: dict[float, int], seconds: float) -> Path:
    samples = np.zeros(int(seconds * RATE), np.float32)
    for at, number in markers.items():
        start = int(at * RATE)
        samples[start : start + MARKER_SAMPLES] = make_marker(number)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


async def fake(runtime: Runtime) -> FakeEngine:
    async with runtime.pool.lease() as engine:
        assert isinstance(engine, FakeEngine)
        return engine


async def test_every_marker_once_in_order_and_on_time(runtime: Runtime, tmp_path: Path) -> None:
    markers = {0.5 + 4.1 * n: n for n in range(40)}
    path = recording(tmp_path / "long.wav", markers, 170)
    result = await runtime.transcribe_path(path, PLAIN)
    assert [s.text for s in result.segments] == [f" marker-{n:04d}" for n in range(40)]
    for segment, at in zip(result.segments, markers, strict=True):
        assert segment.start == pytest.approx(at, abs=0.02)
    assert [s.id for s in result.segments] == list(range(40))
    assert result.duration == pytest.approx(170, abs=0.01)
    assert result.coverage.decoded == pytest.approx(170, abs=0.1)


async def test_one_file_fills_the_batches_that_the_engine_has_planned(tmp_path: Path) -> None:
    settings = Settings(
        engine="fake", model_path="fake:batch=64,replicas=2", data_dir=tmp_path, decode_workers=1
    )
    path = recording(tmp_path / "long.wav", {0.5 + 4.1 * n: n for n in range(60)}, 250)
    options = replace(PLAIN, chunk_length_s=1)
    async with open_runtime(settings) as runtime:
        result = await runtime.transcribe_path(path, options)
        sizes = sorted(call.size for call in (await fake(runtime)).calls)
    assert [s.text for s in result.segments] == [f" marker-{n:04d}" for n in range(60)]
    assert sizes[-2:] == [64, 64]


async def test_stream_yields_windows_before_the_transcript(
    runtime: Runtime, tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", {1: 1, 40: 2, 80: 3}, 90)
    async with Scratch.create(runtime.settings.scratch_dir) as scratch:
        file = await runtime.intake.from_own_path(scratch, path)
        async with aclosing(runtime.pipeline.stream(file, PLAIN, scratch)) as stream:
            updates = [update async for update in stream]
    assert [u.transcript is None for u in updates] == [True] * (len(updates) - 1) + [False]
    joined = "".join(s.text for u in updates for s in u.segments).strip()
    final = updates[-1].transcript
    assert final is not None
    assert joined == final.text
    assert [u.done for u in updates] == sorted(u.done for u in updates)


async def test_no_speech_is_an_empty_transcript(runtime: Runtime, tmp_path: Path) -> None:
    path = recording(tmp_path / "silence.wav", {}, 3)
    result = await runtime.transcribe_path(path, Options())
    assert result.text == ""
    assert result.duration == pytest.approx(3)
    engine = await fake(runtime)
    assert engine.calls == []


async def test_language_is_voted_among_candidates(runtime: Runtime, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", {1: 1}, 5)
    vad = VadOptions(enabled=False)
    detected = await runtime.transcribe_path(path, Options(vad=vad))
    assert detected.language == "en"
    assert detected.language_probability == pytest.approx(0.9)
    chosen = await runtime.transcribe_path(path, Options(vad=vad, languages=("ru", "de")))
    assert chosen.language == "ru"


def test_damage_is_told(tmp_path: Path) -> None:
    plan = Plan("m", PLAIN, 1.0, "en", 1.0, (), (), (), 0)
    whole, damaged = (Waveform(tmp_path / "pcm", RATE, damaged=n) for n in (0, 3))
    assert finish(plan, whole, [], []).warnings == ()
    assert "3 packets" in finish(plan, damaged, [], []).warnings[0]


def test_elect_weighs_windows() -> None:
    ballots = [{"en": 0.9, "ru": 0.1}, {"en": 0.2, "ru": 0.8}]
    winner, probability = elect(ballots, [1.0, 9.0], ("en", "ru"))
    assert winner == "ru"
    assert probability == pytest.approx(0.73)
    assert elect(ballots, [9.0, 1.0], ("en", "ru"))[0] == "en"
    assert elect([{}], [1.0], ("de", "en")) == ("de", 0.0)


async def test_prompt_enters_first_window_and_keywords_all(
    runtime: Runtime, tmp_path: Path
) -> None:
    path = recording(tmp_path / "a.wav", {1: 1, 40: 2}, 60)
    options = Options(
        language="en", vad=VadOptions(enabled=False), prompt="hello there", keywords=("Kubernetes",)
    )
    await runtime.transcribe_path(path, options)
    engine = await fake(runtime)
    lengths = sorted(len(params.prompt) for call in engine.calls for params in call.params)
    assert lengths[0] == 1
    assert lengths[-1] == 3


async def test_keywords_that_do_not_fit_are_named(runtime: Runtime, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", {1: 1}, 3)
    many = tuple(f"word{n}" for n in range(300))
    options = Options(language="en", vad=VadOptions(enabled=False), keywords=many)
    result = await runtime.transcribe_path(path, options)
    assert "word299" in result.warnings[0]
    assert "word0," not in result.warnings[0]


async def test_unknown_language_of_the_model_is_refused(runtime: Runtime, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", {1: 1}, 3)
    engine = await fake(runtime)
    object.__setattr__(engine, "_model", "m")
    with pytest.raises(InvalidOption) as refused:
        await runtime.transcribe_path(path, Options(language="xx"))
    assert refused.value.param == "language"


async def test_cancelled_request_stops_and_leaves_nothing(runtime: Runtime, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", {1: 1}, 400)
    engine = await fake(runtime)
    started, release = threading.Event(), threading.Event()

    def hold(items: object) -> None:
        started.set()
        release.wait(PATIENCE_S)

    engine.on_decode = hold
    task = asyncio.create_task(runtime.transcribe_path(path, PLAIN))
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await asyncio.sleep(0.2)
    calls = len(engine.calls)
    await asyncio.sleep(0.3)
    assert len(engine.calls) == calls
    assert runtime.scheduler.queued_seconds == 0
    assert not list(runtime.settings.scratch_dir.glob("*/request-*"))


async def test_two_requests_at_once_do_not_mix(runtime: Runtime, tmp_path: Path) -> None:
    paths = [recording(tmp_path / f"{n}.wav", {1: n, 31: n + 100}, 62) for n in range(6)]
    results: list[Transcript] = await asyncio.gather(
        *(runtime.transcribe_path(path, PLAIN) for path in paths)
    )
    for n, result in enumerate(results):
        assert result.text == f"marker-{n:04d} marker-{n + 100:04d}"


async def test_overload_is_refused_at_the_door(tmp_path: Path) -> None:
    settings = Settings(
        engine="fake", model_path="fake", data_dir=tmp_path, max_concurrent_requests=1
    )
    async with open_runtime(settings) as runtime:
        path = recording(tmp_path / "a.wav", {1: 1}, 3)
        with runtime_ticket(runtime), pytest.raises(Overloaded):
            await runtime.transcribe_path(path, PLAIN)


class runtime_ticket:
    """Holds the only place in the queue."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __enter__(self) -> None:
        self._ticket = self._runtime.scheduler.admit()

    def __exit__(self, *exc: object) -> None:
        self._ticket.close()
