"""The CTranslate2 engine, on random models of Whisper's shapes and on the bundled one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checkpoints import ENGLISH, large_v3_model, save_checkpoint

from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.engines.base import Decoded, DecodeParams, Engine, Thresholds, WindowItem
from whisper_api.engines.ctranslate2 import CTranslate2Engine, read_thresholds
from whisper_api.errors import EngineError, EngineOutOfMemory, ModelBroken
from whisper_api.model_folder import describe
from whisper_api.types import SAMPLE_RATE, Audio

SHORT = {"max_new_tokens": 12, "beam_size": 1}


def sound(seconds: float, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def item(audio: Audio, key: str = "k", **params: Any) -> WindowItem:
    return WindowItem(key, audio, replace(DecodeParams("en"), **{**SHORT, **params}))


def load(folder: Path, **settings: Any) -> CTranslate2Engine:
    return CTranslate2Engine.load(describe(folder, "random"), Settings(replicas=2, **settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("random")
    convert_folder(save_checkpoint(root / "hf"), root / "ct2", "float32")
    return root / "ct2"


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[CTranslate2Engine]:
    loaded = load(folder)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def bundled() -> Iterator[CTranslate2Engine]:
    path = Path(str(files("whisper_api"))) / "assets" / "bundled"
    loaded = CTranslate2Engine.load(describe(path, "bundled"), Settings(replicas=2))
    yield loaded
    loaded.close()


def test_info_says_what_runs_where_and_why(engine: Engine) -> None:
    info = engine.info
    assert (info.engine, info.model, info.device) == ("ctranslate2", "random", "cpu")
    assert info.compute_type == "int8"
    assert info.replicas == 2
    assert info.multilingual
    assert len(info.languages) == 99
    assert "no CUDA card" in info.reason
    assert engine.count_limit() == 223
    assert engine.encode_text(" one two") == (472, 732)


def test_a_batch_gives_what_single_calls_give(engine: Engine) -> None:
    audios = [sound(seconds, seed) for seed, seconds in enumerate((3, 11, 30, 0.5))]
    languages = ("en", "ru", "de", "en")
    items = [
        item(audio, f"b{i}", language=language, task="translate" if i == 1 else "transcribe")
        for i, (audio, language) in enumerate(zip(audios, languages, strict=True))
    ]
    together = engine.decode(items)
    alone = [engine.decode([replace(one, key=f"alone-{one.key}")])[0] for one in items]
    assert [d.text for d in together] == [d.text for d in alone]
    assert [d.language for d in together] == list(languages)
    assert [d.avg_logprob for d in together] == pytest.approx([d.avg_logprob for d in alone], 1e-3)


def test_unequal_items_in_one_call_are_grouped(engine: Engine) -> None:
    audio = sound(2)
    items = [
        item(audio, "g", prompt=()),
        item(audio, "g", prompt=(400, 401)),
        item(audio, "g", beam_size=3),
        item(audio, "g", prompt=(500, 501)),
    ]
    expected = [engine.decode([one])[0] for one in items]
    assert engine.decode(items) == expected


def test_times_stay_inside_the_real_window(engine: Engine) -> None:
    for seconds in (0.4, 2.0, 7.5):
        decoded = engine.decode([item(sound(seconds), f"t{seconds}", max_new_tokens=60)])[0]
        times = [time for piece in decoded.pieces for time in (piece.start, piece.end)]
        assert times == sorted(times)
        assert 0 < max(times) <= seconds


def test_text_is_that_of_its_pieces_and_numbers_are_sane(engine: Engine) -> None:
    decoded = engine.decode([item(sound(5), max_new_tokens=40)])[0]
    assert decoded.text == "".join(piece.text for piece in decoded.pieces)
    assert decoded.text
    assert -30 < decoded.avg_logprob < 0
    assert 0 <= decoded.no_speech_prob <= 1
    assert decoded.compression_ratio > 0
    assert decoded.temperature == 0


def test_max_new_tokens_is_exact(
    engine: CTranslate2Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    original = engine._draft

    def note(asked: WindowItem, result: Any) -> Any:
        written.append(len(result.found.tokens))
        return original(asked, result)

    monkeypatch.setattr(engine, "_draft", note)
    for limit in (8, 30, 100):
        for prompt in ((), tuple(range(300, 400)), tuple(range(300, 523))):
            engine.decode([item(sound(30), "m", max_new_tokens=limit, prompt=prompt)])
            assert written.pop() <= limit
    # The random model never stops by itself: what it wrote is the limit.
    engine.decode([item(sound(30), "m", max_new_tokens=50)])
    engine.decode([item(sound(30), "m", max_new_tokens=448, prompt=tuple(range(300, 523)))])
    assert written == [50, 221]


def test_greedy_logprobs_add_up_to_the_average(engine: Engine) -> None:
    window = item(sound(4), "l", logprobs=True, max_new_tokens=30)
    decoded = engine.decode([window])[0]
    logprobs = [part for piece in decoded.pieces for part in piece.logprobs]
    data = b"".join(bytes(part.bytes) for part in logprobs)
    assert (
        data.decode("utf-8", "replace") == "".join(piece.text for piece in decoded.pieces)
        or b"\xef" in decoded.text.encode()
    )
    assert all(part.logprob <= 0 for part in logprobs)
    tokens = sum(len(piece.tokens) for piece in decoded.pieces)
    # The average also counts timestamps and the end, so that the text's part cannot exceed it.
    assert sum(part.logprob for part in logprobs) >= decoded.avg_logprob * (tokens + 1) - 1e-2


@pytest.mark.parametrize("params", [{"beam_size": 3}, {"temperature": 0.7, "seed": 4}])
def test_logprobs_of_searches_come_from_the_alignment(
    engine: Engine, params: Mapping[str, Any]
) -> None:
    decoded = engine.decode([item(sound(4), "l", logprobs=True, **params)])[0]
    assert decoded.pieces
    for piece in decoded.pieces:
        text_tokens = [token for token in piece.tokens if token < 50_257]
        assert len(piece.logprobs) == len(text_tokens)
        assert all(-24 < part.logprob <= 0 for part in piece.logprobs)


def test_words_ascend_inside_their_pieces_and_spell_the_text(engine: Engine) -> None:
    items = [
        item(sound(6, seed), f"w{seed}", words=True, language=language, max_new_tokens=40)
        for seed, language in enumerate(("en", "ja", "ru"))
    ]
    for decoded in engine.decode(items):
        assert decoded.pieces
        for piece in decoded.pieces:
            times = [time for word in piece.words for time in (word.start, word.end)]
            assert times == sorted(times)
            assert all(piece.start - 1e-6 <= time <= piece.end + 1e-6 for time in times)
            assert all(0 <= word.probability <= 1 for word in piece.words)
            assert "".join(word.text for word in piece.words) == piece.text


def test_extras_only_on_request(engine: Engine) -> None:
    pieces = engine.decode([item(sound(4), "x")])[0].pieces
    assert {(piece.words, piece.logprobs) for piece in pieces} == {((), ())}


def test_sampling_is_seeded_by_item_whatever_runs_beside_it(engine: Engine) -> None:
    def decode(number: int) -> Decoded:
        window = item(sound(3), f"s{number % 2}", temperature=1.0, seed=11)
        other = item(sound(2, 9), "o", temperature=1.0, seed=11)
        batch = [other, window] if number % 3 else [window, other]
        return engine.decode(batch)[1 if number % 3 else 0]

    with ThreadPoolExecutor(4) as pool:
        noise = pool.submit(engine.decode, [item(sound(9), "n", max_new_tokens=40)])
        results = list(pool.map(decode, range(6)))
        noise.result()
    assert len({decoded.text for decoded in results}) == 1
    assert results[0].temperature == 1.0
    others = {
        engine.decode([item(sound(3), "s", temperature=1.0, seed=seed)])[0].text
        for seed in range(3)
    }
    assert len(others | {results[0].text}) > 1


def test_calls_from_many_threads_agree(engine: Engine) -> None:
    windows = [item(sound(3, seed), f"p{seed}") for seed in range(4)]
    expected = [engine.decode([window])[0].text for window in windows]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: engine.decode([windows[i % 4]])[0].text, range(16)))
    assert found == expected * 4


def test_detection_is_over_the_models_languages(engine: Engine) -> None:
    answers = engine.detect([("d1", sound(3)), ("d2", sound(4, 5))])
    assert len(answers) == 2
    for answer in answers:
        assert len(answer) == 99
        assert sum(answer.values()) == pytest.approx(1, abs=1e-3)
        assert list(answer.values()) == sorted(answer.values(), reverse=True)


def test_a_window_is_encoded_once(
    engine: CTranslate2Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    original = engine._encoder.encode

    def count(audios: Any) -> Any:
        counted.append(len(audios))
        return original(audios)

    monkeypatch.setattr(engine._encoder, "encode", count)
    audio = sound(3, 77)
    engine.detect([("once", audio)])
    engine.decode([item(audio, "once", words=True)])
    engine.decode([item(audio, "once", temperature=0.4)])
    assert counted == [1]
    engine.release(["once", "never seen"])
    engine.decode([item(audio, "once")])
    assert counted == [1, 1]


def test_an_english_model_needs_no_detection(tmp_path: Path) -> None:
    convert_folder(save_checkpoint(tmp_path / "hf", ENGLISH), tmp_path / "ct2", "int8")
    engine = load(tmp_path / "ct2")
    assert (engine.info.multilingual, engine.info.languages) == (False, ("en",))
    assert engine.detect([("a", sound(1))]) == [{"en": 1.0}]
    assert engine.decode([item(sound(2), words=True, prompt=(5, 6, 7))])[0].pieces


def test_large_v3s_widths() -> None:
    engine = load(large_v3_model())
    assert len(engine.info.languages) == 100
    batch = [
        item(sound(2, i), str(i), language=code, words=True) for i, code in enumerate(("en", "yue"))
    ]
    assert [decoded.language for decoded in engine.decode(batch)] == ["en", "yue"]
    assert engine.detect([("en", sound(2))])[0].keys() >= {"yue"}


def test_unknown_language_fails_the_call_and_the_engine_lives(engine: Engine) -> None:
    with pytest.raises(ModelBroken, match="yue"):
        engine.decode([item(sound(1), "u", language="yue")])
    assert engine.decode([item(sound(1), "u")])


def test_raw_exceptions_never_come_out(
    engine: CTranslate2Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        device = "cpu"
        n_mels = 80

        def __init__(self, error: Exception) -> None:
            self._error = error

        def __getattr__(self, name: str) -> Any:
            def fail(*args: Any, **kwargs: Any) -> Any:
                raise self._error

            return fail

    for error, kind in (
        (RuntimeError("CUDA failed with error out of memory"), EngineOutOfMemory),
        (MemoryError("std::bad_alloc"), EngineOutOfMemory),
        (RuntimeError("something else"), EngineError),
        (ValueError("bad prompt"), EngineError),
    ):
        for part in (engine, engine._encoder, engine._writer):
            monkeypatch.setattr(part, "_model", Failing(error))
        with pytest.raises(kind):
            engine.decode([item(sound(1), "raw")])
        with pytest.raises(kind):
            engine.detect([("raw", sound(1))])


def test_closed_means_closed(folder: Path) -> None:
    engine = load(folder)
    engine.close()
    engine.close()
    for call in (lambda: engine.decode([item(sound(1))]), lambda: engine.detect([])):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_a_folder_of_garbage_is_a_broken_model(tmp_path: Path, folder: Path) -> None:
    files_ = describe(folder, "random")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(data[:100_000])
    with pytest.raises(ModelBroken, match="cannot be loaded"):
        CTranslate2Engine.load(replace(files_, path=tmp_path), Settings())


def test_thresholds_come_from_the_manifest() -> None:
    said = {"log_prob": -2.0, "temperatures": [0.0, 0.5], "unknown": 1}
    assert read_thresholds(said) == Thresholds(log_prob=-2.0, temperatures=(0.0, 0.5))
    assert read_thresholds({}) == Thresholds()


# --- the bundled model ------------------------------------------------------------------------


def test_the_bundled_model_loads_and_is_silent_about_silence(bundled: Engine) -> None:
    assert bundled.info.multilingual
    decoded = bundled.decode(
        [WindowItem("q", np.zeros(5 * SAMPLE_RATE, np.float32), DecodeParams("en"))]
    )
    assert decoded[0].text.strip() == ""


def test_the_bundled_model_speaks_of_its_languages_only(bundled: Engine) -> None:
    probabilities = bundled.detect([("d", sound(2))])[0]
    assert set(probabilities) == set(bundled.info.languages)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_thresholds_are_read_under_both_names() -> None:
    read = read_thresholds({"log_prob_threshold": -0.7, "no_speech": 0.4, "other": 1})
    assert (read.log_prob, read.no_speech, read.compression_ratio) == (-0.7, 0.4, 2.4)
