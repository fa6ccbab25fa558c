"""The transformers engine answers what CTranslate2 answers, on equal weights in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.checkpoints import ENGLISH, Shape, save_checkpoint
from tests.hf_export import export_bundled

from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.engines.base import Decoded, DecodeParams, Engine, WindowItem
from whisper_api.engines.ctranslate2 import CTranslate2Engine
from whisper_api.model_folder import describe, describe_checkpoint
from whisper_api.types import SAMPLE_RATE, Audio

pytest.importorskip("torch", reason="the extra transformers is not installed")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

DATA = Path(__file__).parent.parent / "data" / "speech"
SAMPLE = Path(__file__).parents[2] / "src" / "whisper_api" / "assets" / "sample.wav"

Engines = tuple[Engine, Engine]


def load_both(checkpoint: Path, work: Path) -> Engines:
    """(CTranslate2, transformers) on one checkpoint, both in float32 on the processor."""
    from whisper_api.engines.transformers import TransformersEngine

    convert_folder(checkpoint, work, "float32")
    settings = Settings(device="cpu", compute_type="float32")
    return (
        CTranslate2Engine.load(describe(work, "model"), settings),
        TransformersEngine.load(describe_checkpoint(checkpoint, "model"), settings),
    )


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    root = tmp_path_factory.mktemp("bundled")
    engines = load_both(export_bundled(root / "hf"), root / "ct2")
    yield engines
    for engine in engines:
        engine.close()


def read(path: Path) -> Audio:
    """A recording as 16 kHz mono."""
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    parts = []
    with av.open(str(path)) as file:
        for frame in [*file.decode(audio=0), None]:
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return (np.concatenate(parts) / 32768).astype(np.float32)


def recordings() -> list[tuple[str, Audio]]:
    """(language, audio): the sample in English, the recordings in Russian, one of them doubled."""
    russian = [read(path) for path in sorted(DATA.glob("ru-*.ogg"))]
    assert len(russian) == 2
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)
    both = np.concatenate([russian[0], silence, russian[1]])
    return [("en", read(SAMPLE)), *(("ru", audio) for audio in (*russian, both))]


def items(params: dict[str, Any], audios: Sequence[tuple[str, Audio]]) -> list[WindowItem]:
    return [
        WindowItem(f"{number}", audio, DecodeParams(language, **params))
        for number, (language, audio) in enumerate(audios)
    ]


def assert_equal(found: Decoded, expected: Decoded) -> None:
    """Equal text; times within 20 ms, log-probabilities within 0.02."""
    assert found.text == expected.text
    assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=0.02)
    assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=0.02)
    assert found.compression_ratio == expected.compression_ratio
    for piece, other in zip(found.pieces, expected.pieces, strict=True):
        assert piece.tokens == other.tokens
        assert (piece.start, piece.end) == pytest.approx((other.start, other.end), abs=0.0201)
        for word, same in zip(piece.words, other.words, strict=True):
            assert word.text == same.text
            assert (word.start, word.end) == pytest.approx((same.start, same.end), abs=0.0201)
            assert word.probability == pytest.approx(same.probability, abs=0.02)
        for part, like in zip(piece.logprobs, other.logprobs, strict=True):
            assert (part.token, part.bytes) == (like.token, like.bytes)
            assert part.logprob == pytest.approx(like.logprob, abs=0.02)


@pytest.mark.parametrize(
    "params",
    [
        {"beam_size": 1, "logprobs": True, "words": True},
        {"beam_size": 5, "logprobs": True, "words": True},
        {"beam_size": 2},
        {"beam_size": 20},
        {"beam_size": 5, "prompt": (530, 1115, 1045, 11)},
        {"beam_size": 1, "prompt": tuple(range(300, 523)), "words": True},
        {"beam_size": 5, "task": "translate", "words": True},
        {"beam_size": 1, "max_new_tokens": 9},
        {"beam_size": 5, "max_new_tokens": 8},
    ],
    ids=[
        "greedy",
        "beam",
        "narrow beam",
        "widest beam",
        "prompt",
        "longest prompt",
        "translation",
        "greedy, cut off",
        "beam, cut off",
    ],
)
def test_recordings_in_two_languages_are_decoded_alike(
    bundled: Engines, params: dict[str, Any]
) -> None:
    windows = items(params, recordings())
    expected, found = (engine.decode(windows) for engine in bundled)
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
    if not {"max_new_tokens", "prompt"} & params.keys():
        assert all(decoded.text.strip() for decoded in found)


def test_the_texts_are_those_that_were_spoken(bundled: Engines) -> None:
    texts = [d.text.strip() for d in bundled[1].decode(items({}, recordings()))]
    assert texts[0] == "Four zero four. Two zero one."
    assert texts[1:3] == ["Один два три четыре пять.", "Пятьсот двадцать три."]


def test_items_of_all_kinds_in_one_call(bundled: Engines) -> None:
    (_, english), (_, russian), *_ = recordings()
    kinds: list[tuple[Audio, DecodeParams]] = [
        (english, DecodeParams("en", beam_size=1)),
        (russian, DecodeParams("ru", beam_size=5, words=True)),
        (russian, DecodeParams("ru", task="translate", beam_size=5)),
        (english, DecodeParams("en", beam_size=1, logprobs=True)),
        (russian, DecodeParams("ru", beam_size=5, prompt=(530, 1115))),
        (english, DecodeParams("en", beam_size=1, max_new_tokens=10)),
        (np.zeros(3 * SAMPLE_RATE, np.float32), DecodeParams("en", beam_size=5)),
    ]
    windows = [WindowItem(f"m{i}", audio, params) for i, (audio, params) in enumerate(kinds)]
    expected, found = (engine.decode(windows) for engine in bundled)
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


def test_languages_are_detected_alike(bundled: Engines) -> None:
    asked = [(f"d{i}", audio) for i, (_, audio) in enumerate(recordings())]
    expected, found = (engine.detect(asked) for engine in bundled)
    for one, other in zip(found, expected, strict=True):
        assert next(iter(one)) == next(iter(other))
        for code in ("en", "ru"):
            assert one[code] == pytest.approx(other[code], abs=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(width=64, heads=2, layers=2),
        ENGLISH,
        Shape(width=64, heads=2, layers=2, mels=128, vocabulary=51_866),
    ],
    ids=["multilingual", "english", "large-v3"],
)
def test_random_models_are_searched_alike(tmp_path: Path, shape: Shape) -> None:
    """Random weights take every turn that the rules of timestamps have, and never end early."""
    engines = load_both(save_checkpoint(tmp_path / "hf", shape, seed=2), tmp_path / "ct2")
    rng = np.random.default_rng(3)
    noise = [rng.normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32) for seconds in (2, 30)]
    for params in (
        {"beam_size": 1, "max_new_tokens": 150, "logprobs": True, "words": True},
        {"beam_size": 4, "max_new_tokens": 70, "prompt": (300, 400, 500)},
    ):
        windows = items(params, [("en", audio) for audio in noise])
        expected, found = (engine.decode(windows) for engine in engines)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)


@pytest.mark.parametrize(
    ("params", "asked"),
    [
        ({"beam_size": 1, "logprobs": True}, (3, 1)),
        ({"beam_size": 5}, None),
        ({"beam_size": 1, "temperature": 0.6, "seed": 3, "max_new_tokens": 40}, (3, 1)),
        ({"beam_size": 5, "max_new_tokens": 24}, (3, 1)),
    ],
    ids=["greedy", "beam, at once", "sampled", "beam, cut off"],
)
def test_a_batch_whose_windows_end_goes_on_smaller_and_writes_the_same(
    bundled: Engines,
    params: dict[str, Any],
    asked: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from whisper_api.engines.torch_watch import Watch

    engine: Any = bundled[1]
    generator = engine._open().generator
    spoken = recordings()
    windows = items(params, [*spoken[:3], *spoken[1:3], spoken[3], spoken[0]])
    sizes: list[int] = []
    shrink = generator._shrink

    def counted(run: Any, *rest: Any) -> None:
        shrink(run, *rest)
        sizes.append(run.bench.items)

    monkeypatch.setattr(generator, "_shrink", counted)
    if asked:
        monkeypatch.setattr(generator, "watch", Watch(engine._open().device, *asked))
    found = engine.decode(windows)
    shrunk = list(sizes)
    monkeypatch.setattr(generator, "shrinks", False)
    expected = engine.decode(windows)
    assert shrunk == sorted(shrunk, reverse=True)
    assert shrunk[0] <= 4
    assert sizes == shrunk
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
