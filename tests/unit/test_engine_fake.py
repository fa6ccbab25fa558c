"""The fake engine: markers are heard at their times, and it fails and waits on request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, Engine, WindowItem
from whisper_api.engines.fake import (
    MARKER_SAMPLES,
    MARKER_SECONDS,
    TIMESTAMP_BEGIN,
    FakeEngine,
    FakeOptions,
    find_markers,
    make_marker,
)
from whisper_api.errors import EngineError, EngineOutOfMemory, SettingsError
from whisper_api.models import ModelFiles
from whisper_api.types import SAMPLE_RATE, Audio


def sound(places: dict[float, int], seconds: float = 30.0) -> Audio:
    audio = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    for start, number in places.items():
        first = round(start * SAMPLE_RATE)
        audio[first : first + MARKER_SAMPLES] += make_marker(number)
    return audio


def item(audio: Audio, key: str = "k", **params: object) -> WindowItem:
    return WindowItem(key, audio, replace(DecodeParams("en"), **params))  # type: ignore[arg-type]


PLACES = {0.0: 0, 0.9973: 9999, 1.51: 1234, 7.7777: 42, 15.0: 42, 29.75: 8008}


def check(audio: Audio) -> None:
    found = find_markers(audio)
    assert [number for _, number in found] == list(PLACES.values())
    for (start, _), expected in zip(found, PLACES, strict=True):
        assert abs(start - expected) <= 0.005


def test_markers_are_found_at_their_times() -> None:
    check(sound(PLACES))


@pytest.mark.parametrize("gain", [1.9, 0.3, 0.01])
def test_markers_survive_int16_and_gain(gain: float) -> None:
    pcm = np.round(np.clip(sound(PLACES) * gain, -1, 1) * 32767).astype(np.int16)
    check(pcm.astype(np.float32) / 32768)


def test_markers_survive_noise_and_the_telephones_band() -> None:
    rng = np.random.default_rng(1)
    audio = sound(PLACES) + rng.normal(0, 0.03, 30 * SAMPLE_RATE).astype(np.float32)
    spectrum = np.fft.rfft(audio)
    spectrum[3700 * 30 :] = 0
    check(np.fft.irfft(spectrum).astype(np.float32))


def test_every_number_reads_back() -> None:
    rng = np.random.default_rng(2)
    numbers = [0, 9, 99, 999, 9999, *rng.integers(0, 10_000, 60).tolist()]
    audio = sound({0.2 + 0.4 * i: number for i, number in enumerate(numbers)}, seconds=30)
    assert [number for _, number in find_markers(audio)] == numbers


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.9999"):
        make_marker(10_000)


@pytest.mark.parametrize("kind", ["silence", "noise", "tone", "short", "empty"])
def test_other_sound_holds_no_marker(kind: str) -> None:
    rng = np.random.default_rng(3)
    audio = {
        "silence": np.zeros(SAMPLE_RATE, np.float32),
        "noise": rng.normal(0, 0.2, 30 * SAMPLE_RATE).astype(np.float32),
        "tone": np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 440 / SAMPLE_RATE).astype(np.float32),
        "short": make_marker(5)[:2000],
        "empty": np.zeros(0, np.float32),
    }[kind]
    assert find_markers(audio) == []


def test_a_marker_cut_by_the_windows_edge_is_not_heard_in_full_elsewhere() -> None:
    whole = sound({1.0: 77}, seconds=2)
    cut = SAMPLE_RATE + MARKER_SAMPLES // 2
    heard = find_markers(whole[:cut]) + find_markers(whole[cut:])
    assert len(heard) <= 1


def test_an_hour_takes_seconds() -> None:
    window = sound({float(second): second for second in range(0, 30, 2)})
    engine = FakeEngine()
    before = time.process_time()
    for number in range(120):
        assert len(engine.decode([item(window, str(number))])[0].pieces) == 15
    assert time.process_time() - before < 10


def test_one_piece_for_each_marker_with_its_tokens_words_and_logprobs() -> None:
    decoded = FakeEngine().decode([item(sound({1.0: 42, 5.0: 7}), words=True, logprobs=True)])[0]
    assert decoded.text == " marker-0042 marker-0007"
    assert [piece.text for piece in decoded.pieces] == [" marker-0042", " marker-0007"]
    first = decoded.pieces[0]
    assert first.start == pytest.approx(1.0, abs=0.005)
    assert first.end == pytest.approx(1.0 + MARKER_SECONDS, abs=0.005)
    assert first.tokens[0] == TIMESTAMP_BEGIN + 50
    assert first.tokens[-1] >= TIMESTAMP_BEGIN > max(first.tokens[1:-1])
    assert [(word.text, word.start, word.end) for word in first.words] == [
        (first.text, first.start, first.end)
    ]
    assert "".join(part.token for part in first.logprobs) == first.text
    assert bytes(first.logprobs[1].bytes) == b"-0042"
    assert decoded.no_speech_prob < 0.1


def test_words_and_logprobs_only_on_request() -> None:
    piece = FakeEngine().decode([item(sound({1.0: 1}))])[0].pieces[0]
    assert piece.words == ()
    assert piece.logprobs == ()


def test_silence_has_no_text_and_looks_like_no_speech() -> None:
    decoded = FakeEngine().decode([item(sound({}))])[0]
    assert (decoded.text, decoded.pieces) == ("", ())
    assert decoded.no_speech_prob > 0.9


def test_results_carry_the_items_language_and_temperature() -> None:
    decoded = FakeEngine().decode([item(sound({}), language="ru", temperature=0.4)])[0]
    assert (decoded.language, decoded.temperature) == ("ru", 0.4)


def test_detection_gives_the_configured_probabilities_best_first() -> None:
    engine = FakeEngine(FakeOptions(languages={"de": 0.2, "ru": 0.7}))
    answers = engine.detect([("a", sound({})), ("b", sound({}))])
    assert [list(answer.items()) for answer in answers] == [[("ru", 0.7), ("de", 0.2)]] * 2
    assert engine.detect_calls == [("a", "b")]


def test_calls_are_noted_also_from_many_threads() -> None:
    engine = FakeEngine(FakeOptions(delay=0.01))
    batch = [item(sound({}, 1.0), "a"), item(sound({}, 1.0), "b")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: engine.decode(batch), range(40)))
    assert sorted(call.number for call in engine.calls) == list(range(1, 41))
    assert {(call.size, call.keys, call.seconds) for call in engine.calls} == {(2, ("a", "b"), 2.0)}


def test_it_fails_on_the_calls_it_was_told_to_and_lives() -> None:
    engine = FakeEngine(FakeOptions(fail_on=frozenset({2})))
    batch = [item(sound({1.0: 5}))]
    assert engine.decode(batch)[0].text == " marker-0005"
    with pytest.raises(EngineError, match="call 2"):
        engine.decode(batch)
    assert engine.decode(batch)[0].text == " marker-0005"


def test_it_runs_out_of_memory_above_a_size() -> None:
    engine = FakeEngine(FakeOptions(oom_above=1))
    with pytest.raises(EngineOutOfMemory):
        engine.decode([item(sound({}, 1.0))] * 2)
    assert len(engine.decode([item(sound({}, 1.0))])) == 1


def test_it_is_as_slow_as_asked() -> None:
    engine = FakeEngine(FakeOptions(delay=0.02, delay_per_second=0.03, detect_delay=0.05))
    before = time.monotonic()
    engine.decode([item(sound({}, 1.0))])
    between = time.monotonic()
    engine.detect([("k", sound({}, 1.0))])
    assert between - before >= 0.05
    assert time.monotonic() - between >= 0.05


def test_batches_of_unequal_keys_are_refused() -> None:
    with pytest.raises(EngineError, match="batch keys"):
        FakeEngine().decode([item(sound({}), beam_size=1), item(sound({}), beam_size=5)])


def test_hooks_see_and_change_what_happens() -> None:
    seen: list[str] = []

    def worse(asked: WindowItem, decoded: Decoded) -> Decoded:
        return replace(decoded, avg_logprob=-3.0 if asked.params.temperature < 0.5 else -0.1)

    engine = FakeEngine(on_decode=lambda items: seen.extend(i.key for i in items), transform=worse)
    assert engine.decode([item(sound({}), "w")])[0].avg_logprob == -3.0
    assert engine.decode([item(sound({}), "w", temperature=0.6)])[0].avg_logprob == -0.1
    assert seen == ["w", "w"]


def test_closed_means_closed() -> None:
    engine = FakeEngine()
    engine.release(["a"])
    engine.close()
    assert engine.released == ["a"]
    with pytest.raises(EngineError, match="closed"):
        engine.decode([item(sound({}))])
    with pytest.raises(EngineError, match="closed"):
        engine.detect([])


def test_text_becomes_one_token_a_word() -> None:
    engine = FakeEngine()
    assert len(engine.encode_text(" one two, three.")) == 3
    assert engine.encode_text(" one") == engine.encode_text(" one")
    assert max(engine.encode_text(" a b c d e f g")) < 50_257
    assert engine.count_limit() == 223


def test_options_stand_in_the_models_name() -> None:
    options = FakeOptions.from_name("fake:delay=0.5,fail_on=2+5,oom_above=4,languages=ru+en")
    assert options.delay == 0.5
    assert options.fail_on == {2, 5}
    assert options.oom_above == 4
    assert list(options.languages) == ["ru", "en"]
    assert FakeOptions.from_name("fake") == FakeOptions()


@pytest.mark.parametrize("name", ["fake:speed=1", "fake:delay=fast", "fake:delay"])
def test_bad_options_are_one_clear_line(name: str) -> None:
    with pytest.raises(SettingsError, match="known options: batch, delay"):
        FakeOptions.from_name(name)


def test_load_makes_an_engine_like_any_other() -> None:
    settings = Settings(engine="fake", model_path="fake:oom_above=3", replicas=2)
    files = ModelFiles(id="fake:oom_above=3", path=Path(), kind="fake")
    engine: Engine = FakeEngine.load(files, settings)
    assert (engine.info.engine, engine.info.model) == ("fake", files.id)
    assert engine.info.replicas == 2
    assert engine.info.multilingual
    assert len(engine.info.languages) == 100
    assert engine.thresholds.no_speech == 0.6
