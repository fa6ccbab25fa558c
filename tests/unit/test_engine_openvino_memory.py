"""What OpenVINO's engine has in memory at the same time: never the old beside the new."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openvino", reason="OpenVINO is not installed")

from whisper_api.config import Settings
from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines import openvino as hybrid
from whisper_api.engines.base import DecodeParams
from whisper_api.engines.choice import OWN
from whisper_api.engines.ctranslate2 import CTranslate2Engine
from whisper_api.engines.openvino_decoder import Numbers, OpenVinoDecoder, _to_front
from whisper_api.engines.openvino_decoder_graph import DecoderShape
from whisper_api.engines.parts import Chosen, Parts
from whisper_api.engines.placement import Placement
from whisper_api.engines.writer import Written
from whisper_api.model_folder import describe
from whisper_api.tokens import WhisperTokenizer

BUNDLED = Path(str(files("whisper_api"))) / "assets" / "bundled"
PLACE = Placement("cpu", 0, "float32", 1, 1, "because")
POSITIONS = 100


def test_windows_memory_is_given_up_before_more_is_taken_and_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, model = ConvertedWeights(BUNDLED / "model.bin"), describe(BUNDLED, "bundled")
    tokenizer = WhisperTokenizer.from_file(BUNDLED / "tokenizer.json", model.vocabulary_size)
    plan = hybrid.decoder_plan(model, PLACE, "float32")
    decoder = OpenVinoDecoder(plan, weights, tokenizer, 1)
    shape = DecoderShape.of(weights)
    noise = np.random.default_rng(0).normal(0, 1, (3, 1, POSITIONS, shape.width))
    large = shape.layers * shape.width * POSITIONS
    taken: list[weakref.ref[NDArray[Any]]] = []
    make = Numbers.zeros

    def write(windows: int) -> list[Written]:
        prompts = [tokenizer.prompt((), "en", "transcribe")] * windows
        params = DecodeParams("en", beam_size=1, max_new_tokens=3)
        return decoder.write(list(noise[:windows]), prompts, params)

    def zeros(numbers: Numbers, *shape: int) -> NDArray[Any]:
        windows = len(shape) == 1 and shape[0] >= 2 * large
        assert not (windows and any(array() is not None for array in taken))
        array = make(numbers, *shape)
        if windows:
            taken.append(weakref.ref(array))
        return array

    monkeypatch.setattr(Numbers, "zeros", zeros)
    alone = write(1)
    assert write(3)[0].found.tokens == alone[0].found.tokens
    assert len(taken) == 2
    assert write(1) == alone
    assert len(taken) == 2  # there was room
    decoder.shrink()
    assert [array() for array in taken] == [None, None]
    assert write(1) == alone


def test_windows_that_go_on_move_to_the_front_of_their_memory() -> None:
    array = np.random.default_rng(0).normal(0, 1, (3, 5, 2, 4)).astype(np.float32)
    for rows in ([0], [4], [1, 3], [0, 2, 4], [0, 1, 2, 3, 4]):
        before = array.copy()
        kept = _to_front(before, rows)
        np.testing.assert_array_equal(kept, array.take(rows, axis=1))
        assert np.shares_memory(kept, before)
        assert kept.flags.c_contiguous


def test_decoders_are_tried_before_an_encoder_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    own = Parts(Mock(), Mock())

    def choose_writer(*_: Any) -> tuple[Any, str]:
        order.append("decoder")
        return own.writer, "as tried"

    def choose_encoder(*_: Any) -> tuple[str, Any, str]:
        order.append("encoder")
        return OWN, own.encoder, "as measured"

    def load(files: Any, settings: Settings, choose: Callable[[Parts, bool], Chosen]) -> Chosen:
        return choose(own, False)

    monkeypatch.setattr(hybrid, "choose_writer", choose_writer)
    monkeypatch.setattr(hybrid, "choose_encoder", choose_encoder)
    monkeypatch.setattr(hybrid, "has_bfloat16", lambda: True)
    monkeypatch.setattr(CTranslate2Engine, "load", load)
    settings = Settings(data_dir=tmp_path)
    chosen: Any = hybrid.load_hybrid(describe(BUNDLED, "bundled"), settings, [], own_competes=True)
    assert order == ["decoder", "encoder"]
    assert chosen == Chosen(own, OWN, "as measured; as tried")
