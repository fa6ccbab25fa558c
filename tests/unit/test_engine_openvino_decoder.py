"""The decoder in OpenVINO beside CTranslate2's own, both in float32 on the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tests.checkpoints import ENGLISH, Shape, save_checkpoint
from tests.unit.test_engine_openvino import sound, spoken

from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.base import Decoded, DecodeParams, WindowItem, batch_size_of
from whisper_api.engines.ctranslate2 import CTranslate2Engine
from whisper_api.engines.placement import Placement
from whisper_api.engines.search import best_of
from whisper_api.engines.steps import between_steps
from whisper_api.errors import EngineError
from whisper_api.model_folder import describe
from whisper_api.tokens import WhisperTokenizer
from whisper_api.types import SAMPLE_RATE, Audio

pytest.importorskip("openvino", reason="OpenVINO is not installed")

from whisper_api.engines.openvino import (
    AUDIO_POSITIONS,
    OpenVinoEngine,
    decoder_plan,
    has_bfloat16,
)
from whisper_api.engines.openvino_decoder import OpenVinoDecoder
from whisper_api.engines.openvino_decoder_graph import DecoderShape

BUNDLED = Path(str(files("whisper_api"))) / "assets" / "bundled"
Engines = tuple[CTranslate2Engine, CTranslate2Engine]
NUMBERS = itertools.count()  # of windows: engines keep encodings by name


def load(
    folder: Path,
    decoder: Literal["ctranslate2", "openvino"],
    data: Path,
    compute_type: str = "float32",
) -> Any:
    settings = Settings(replicas=2, data_dir=data, compute_type=compute_type, decoder=decoder)
    return OpenVinoEngine.load(describe(folder, "some"), settings)


def load_both(folder: Path, data: Path) -> Engines:
    """The same encoder, with (CTranslate2's, OpenVINO's) decoder."""
    return load(folder, "ctranslate2", data), load(folder, "openvino", data)


@cache
def bundled(data: Path) -> Engines:
    return load_both(BUNDLED, data)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return bundled(tmp_path_factory.mktemp("data"))


def windows(audios: Sequence[Audio], **params: Any) -> list[WindowItem]:
    language = params.pop("language", "en")
    asked = DecodeParams(language, **params)
    return [WindowItem(f"{next(NUMBERS)}", audio, asked) for audio in audios]


def recordings() -> list[Audio]:
    """Speech of several lengths, so that some windows end long before others; noise; silence."""
    whole, silence = spoken(), np.zeros(2 * SAMPLE_RATE, np.float32)
    twice = np.concatenate([whole, silence, whole[: len(whole) // 2]])
    return [whole, whole[: 2 * SAMPLE_RATE], twice, sound(3), silence]


def assert_equal(found: Sequence[Decoded], expected: Sequence[Decoded]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text
        assert [p.tokens for p in one.pieces] == [p.tokens for p in other.pieces]
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=3e-3)
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, abs=3e-3)
        for piece, like in zip(one.pieces, other.pieces, strict=True):
            ours, theirs = ([t.logprob for t in p.logprobs] for p in (piece, like))
            assert ours == pytest.approx(theirs, abs=3e-3)


@pytest.mark.parametrize(
    "params",
    [
        {"beam_size": 1, "logprobs": True, "words": True},
        {"beam_size": 5, "logprobs": True},
        {"beam_size": 2, "task": "translate", "language": "ru"},
        {"beam_size": 5, "prompt": (530, 1115, 1045, 11)},
        {"beam_size": 1, "prompt": tuple(range(300, 523))},
        {"beam_size": 1, "max_new_tokens": 9},
        {"beam_size": 5, "max_new_tokens": 8},
        {"beam_size": 3, "max_new_tokens": 1},
    ],
    ids=["greedy", "beam", "translation", "prompt", "longest prompt", "cut", "cut beam", "one"],
)
def test_the_same_is_written(engines: Engines, params: dict[str, Any]) -> None:
    items = windows(recordings(), **params)
    own, ours = (engine.decode(items) for engine in engines)
    assert_equal(ours, own)
    assert engines[0].info.reason.endswith("decoder ctranslate2, as set")
    assert engines[1].info.reason.endswith("decoder openvino float32, as set")


@pytest.mark.parametrize(
    "shape",
    [
        Shape(width=64, heads=2, layers=2),
        ENGLISH,
        Shape(width=192, heads=3, layers=1, mels=128, vocabulary=51_866),
    ],
    ids=["multilingual", "english", "large-v3"],
)
def test_random_models_are_searched_alike(tmp_path: Path, shape: Shape) -> None:
    """Random weights take every turn that the rules of timestamps have, and outgrow their room."""
    convert_folder(save_checkpoint(tmp_path / "hf", shape, seed=2), tmp_path / "ct2", "float32")
    both = load_both(tmp_path / "ct2", tmp_path)
    params: dict[str, Any]
    for params in (
        {"beam_size": 1, "max_new_tokens": 70, "logprobs": True},
        {"beam_size": 4, "max_new_tokens": 66, "prompt": (300, 400, 500)},
    ):
        items = windows([sound(2), sound(9, 1)], **params)
        own, ours = (one.decode(items) for one in both)
        assert_equal(ours, own)
        assert max(len(piece.tokens) for one in own for piece in one.pieces) > 1
    for engine in both:
        engine.close()
    with pytest.raises(EngineError, match="closed"):
        both[1].decode(windows([sound(1)]))


def test_batches_are_larger_where_they_take_less_memory(engines: Engines, tmp_path: Path) -> None:
    assert [engine.info.batch_size for engine in engines] == [0, 16]
    settings = Settings(data_dir=tmp_path, decoder="openvino", batch_size=3)
    told = OpenVinoEngine.load(describe(BUNDLED, "some"), settings)
    assert batch_size_of(told.info, settings) == 3
    told.close()


def test_samples_depend_on_the_seed_and_not_on_neighbours(engines: Engines) -> None:
    ours = engines[1]

    def write(seed: int, audios: Sequence[Audio]) -> list[str]:
        items = windows(audios, temperature=1.0, seed=seed, beam_size=1, max_new_tokens=30)
        return [decoded.text for decoded in ours.decode(items)]

    noisy = [spoken() + sound(30, seed)[: len(spoken())] for seed in range(3)]
    together = write(1, noisy)
    assert together == write(1, noisy)
    assert together[2] == write(1, noisy[2:])[0]
    assert any(write(seed, noisy) != together for seed in range(2, 6))


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_sixteen_bits_write_the_same_text(engines: Engines, tmp_path: Path) -> None:
    short = load(BUNDLED, "openvino", tmp_path, "auto")
    assert "openvino bfloat16" in short.info.reason
    for beam in (1, 5):
        own, ours = (
            one.decode(windows(recordings(), beam_size=beam)) for one in (engines[0], short)
        )
        assert [one.text for one in ours] == [one.text for one in own]
        for one, other in zip(ours, own, strict=True):
            assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=0.05)


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_activations_are_quantized() -> None:
    """OpenVINO ignores the option without a word where activations are not in float32."""
    weights = ConvertedWeights(BUNDLED / "model.bin")
    place = Placement("cpu", 0, "auto", replicas=1, threads=2, reason="")
    plan = decoder_plan(describe(BUNDLED, "some"), place, "auto", AUDIO_POSITIONS)
    tokenizer = WhisperTokenizer.from_file(BUNDLED / "tokenizer.json", 51_865)
    shape = (1, AUDIO_POSITIONS, DecoderShape.of(weights).width)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    scores = []
    for group in (plan.group, 0):
        decoder = OpenVinoDecoder(replace(plan, group=group), weights, tokenizer, 1)
        params = DecodeParams("en", beam_size=1, max_new_tokens=1)
        scores.append(decoder.write([noise], [[tokenizer.sot]], params)[0].found.score)
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.1)


def test_the_likeliest_tokens_are_found_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    for size in (7, 64, 1000, 51_865):
        for count in (1, 6, 10):
            logits = rng.normal(0, 1, (4, size)).astype(np.float32)
            logits[1, size // 3 :] = -np.inf
            logits[2] = np.round(logits[2])  # many are equal
            ids, logprobs = best_of(logits, min(count, size))
            exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            expected = -np.sort(-exact, axis=1)[:, : ids.shape[1]]
            np.testing.assert_allclose(logprobs, expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(np.take_along_axis(exact, ids, 1), logprobs, atol=1e-4)


def test_a_call_between_the_steps_of_another_changes_neither(engines: Engines) -> None:
    _, engine = engines
    audios = recordings()
    alone = engine.decode(windows(audios)), engine.decode(windows(audios[::-1]))
    between: list[list[Decoded]] = []

    def pass_by() -> None:
        with between_steps(None):
            between.append(engine.decode(windows(audios[::-1])))

    calls = itertools.count()
    with between_steps(lambda: pass_by() if next(calls) in (1, 7, 12) else None):
        assert_equal(engine.decode(windows(audios)), alone[0])
    assert len(between) == 3
    for found in between:
        assert_equal(found, alone[1])
    assert next(calls) > len(audios) + 20  # in windows, and in each token's step
    assert engine.info.in_steps
