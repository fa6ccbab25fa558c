"""The encoder in OpenVINO beside CTranslate2's own: numbers, texts, independence of neighbours."""

from __future__ import annotations

import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checkpoints import Shape, save_checkpoint

from whisper_api.config import Settings
from whisper_api.convert import convert_folder
from whisper_api.converted_weights import ConvertedWeights
from whisper_api.engines.base import DecodeParams, WindowItem
from whisper_api.engines.choice import distance
from whisper_api.engines.ctranslate2 import CTranslate2Engine
from whisper_api.engines.encoder import frames_for
from whisper_api.errors import EngineError, ModelBroken, SettingsError
from whisper_api.model_folder import describe
from whisper_api.types import SAMPLE_RATE, Audio

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")

from whisper_api.engines import openvino_layers  # noqa: E402
from whisper_api.engines.openvino import OpenVinoEngine, has_bfloat16, precisions  # noqa: E402
from whisper_api.engines.openvino_graph import build_encoder  # noqa: E402

BUNDLED = Path(str(files("whisper_api"))) / "assets" / "bundled"
FORMATS = [form.name for form in precisions("auto")] + ["float32"]


def sound(seconds: float, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


@cache
def engine(folder: Path, data: Path, compute_type: str = "float32") -> CTranslate2Engine:
    settings = Settings(replicas=2, data_dir=data, compute_type=compute_type)
    return OpenVinoEngine.load(describe(folder, "some"), settings)


@cache
def reference(folder: Path, **settings: Any) -> CTranslate2Engine:
    wanted = {"compute_type": "float32", "replicas": 1, **settings}
    return CTranslate2Engine.load(describe(folder, "some"), Settings(**wanted))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("compute_type", sorted(set(FORMATS)))
def test_the_bundled_models_encodings_are_ctranslate2s(data: Path, compute_type: str) -> None:
    most = {"float32": 0.002, "bfloat16": 0.02, "int8": 0.03}[compute_type]
    audios = [sound(30), sound(3.7, 1), spoken()]
    found = engine(BUNDLED, data, compute_type)._encoder.encode(audios)
    for ours, theirs in zip(found, reference(BUNDLED)._encoder.encode(audios), strict=True):
        assert ours.shape == (1, 1500, 128)
        assert ours.dtype == np.float32
        assert distance(ours, theirs) < most


def test_other_shapes_and_files_without_integers(tmp_path: Path, data: Path) -> None:
    shape = Shape(width=96, heads=3, layers=2, mels=128, vocabulary=51_866)
    convert_folder(save_checkpoint(tmp_path / "hf", shape), tmp_path / "ct2", "float32")
    audio = sound(17, 3)
    theirs = reference(tmp_path / "ct2")._encoder.encode([audio])[0]
    for compute_type in set(FORMATS):
        ours = engine(tmp_path / "ct2", data, compute_type)._encoder.encode([audio])[0]
        assert distance(ours, theirs) < (0.002 if compute_type == "float32" else 0.08)


def bfloat16_encoder() -> Any:
    weights = ConvertedWeights(BUNDLED / "model.bin")
    graph = build_encoder(weights, "float16", 3000)
    return openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")
def test_no_matrix_is_kept_in_float32_beside_the_one_in_use() -> None:
    wide = [
        tuple(node.get_output_partial_shape(0).to_shape())
        for node in bfloat16_encoder().get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Const"
        and node.get_output_element_type(0) == openvino.Type.f32
    ]
    assert (1, 1, 128) in wide  # biases, and positions, which are added and not multiplied
    assert not [shape for shape in wide if np.prod(shape) > 512 and shape[-2:] != (1500, 128)]


def test_matrices_in_parts_give_what_whole_ones_give(monkeypatch: pytest.MonkeyPatch) -> None:
    mel = np.random.default_rng(0).normal(0, 0.5, (1, 80, 3000)).astype(np.float32)
    whole = bfloat16_encoder()([mel])[0]
    monkeypatch.setattr(openvino_layers, "_PART", 200)  # 512 rows: 200, 200, 112
    assert distance(bfloat16_encoder()([mel])[0], whole) < 0.01


@pytest.mark.parametrize("compute_type", sorted(set(FORMATS)))
def test_the_sample_has_the_same_text_and_words(data: Path, compute_type: str) -> None:
    params = DecodeParams("en", words=True)
    item = WindowItem("sample", spoken(), params)
    ours = engine(BUNDLED, data, compute_type).decode([item])[0]
    theirs = reference(BUNDLED).decode([item])[0]
    assert ours.text == theirs.text != ""
    pairs = zip(ours.pieces[0].words, theirs.pieces[0].words, strict=True)
    assert all(abs(a.start - b.start) <= 0.1 and a.text == b.text for a, b in pairs)
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=0.05)


def test_a_window_is_the_same_in_any_company(data: Path) -> None:
    """Also in short windows of several lengths, and from several threads at once."""
    settings = Settings(replicas=2, data_dir=data, short_windows="always", compute_type=FORMATS[0])
    short = OpenVinoEngine.load(describe(BUNDLED, "some"), settings)
    audios = [spoken(), sound(1, 1), sound(7, 2), sound(29, 3), spoken(), sound(1.2, 4)]
    items = [
        WindowItem(f"k{i}", audio, DecodeParams("en", beam_size=2, max_new_tokens=20))
        for i, audio in enumerate(audios)
    ]
    together = short.decode(items)
    assert together[0] == together[4]
    short.release([item.key for item in items])
    with ThreadPoolExecutor(4) as threads:
        alone = list(threads.map(lambda item: short.decode([item])[0], items))
    assert [d.text for d in alone] == [d.text for d in together]
    alike = [replace(item, key=f"again {item.key}") for item in items]
    for one in (short._encoder.encode([item.audio]) for item in alike):
        assert any(np.array_equal(one[0], other) for other in short._encoder.encode(audios))
    short.close()
    with pytest.raises(EngineError, match="closed"):
        short.decode(items)


def test_a_short_window_costs_its_own_length(data: Path) -> None:
    for made in (
        OpenVinoEngine.load(
            describe(BUNDLED, "some"),
            Settings(data_dir=data, short_windows="always", compute_type="float32"),
        ),
        reference(BUNDLED, short_windows="always"),
    ):
        encodings = made._encoder.encode([sound(s) for s in (0.1, 5.4, 5.6, 30)])
        assert [e.shape[1] for e in encodings] == [100, 300, 400, 1500]
        made.close()
    reference.cache_clear()


def test_lengths_hold_the_audio_and_never_exceed_a_window() -> None:
    for seconds in np.arange(0, 30.1, 0.1):
        frames = frames_for(int(seconds * SAMPLE_RATE))
        assert min(seconds * 100, 3000) <= frames <= 3000
        assert frames % 2 == 0


def test_what_openvino_cannot_do_is_a_setting_to_mend(data: Path) -> None:
    files_ = describe(BUNDLED, "some")
    with pytest.raises(SettingsError, match=r"compute_type: .* int16 .* auto or one of .*float32"):
        OpenVinoEngine.load(files_, Settings(data_dir=data, compute_type="int16"))
    with pytest.raises(SettingsError, match="device"):
        OpenVinoEngine.load(files_, Settings(data_dir=data, device="cuda"))


def test_a_model_without_an_encoders_weights_is_broken(data: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(BUNDLED, tmp_path / "m")
    weights = (tmp_path / "m" / "model.bin").read_bytes()
    renamed = weights.replace(b"encoder/conv1/bias\0", b"encoder/conv1/bios\0")
    (tmp_path / "m" / "model.bin").write_bytes(renamed)
    with pytest.raises(ModelBroken):
        engine(tmp_path / "m", data)


def spoken() -> Audio:
    with wave.open(str(BUNDLED.parent / "sample.wav")) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert file.getframerate() == SAMPLE_RATE
    return (raw / 32768).astype(np.float32)
