"""The transformers engine on random checkpoints: loading, sampling, threads, memory, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checkpoints import ENGLISH, LARGE_V3, Shape, save_checkpoint

from whisper_api import features
from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, DecodeParams, Engine, WindowItem
from whisper_api.errors import EngineError, EngineOutOfMemory, ModelBroken, SettingsError
from whisper_api.model_folder import describe_checkpoint
from whisper_api.types import SAMPLE_RATE, Audio

torch = pytest.importorskip("torch", reason="the extra transformers is not installed")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

SHORT = {"max_new_tokens": 12, "beam_size": 1}


def sound(seconds: float, seed: int = 0) -> Audio:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def item(audio: Audio, key: str = "k", **params: Any) -> WindowItem:
    return WindowItem(key, audio, replace(DecodeParams("en"), **{**SHORT, **params}))


def load(folder: Path, **settings: Any) -> Any:
    from whisper_api.engines.transformers import TransformersEngine

    files = describe_checkpoint(folder, "random")
    return TransformersEngine.load(files, Settings(**{"device": "cpu", **settings}))


def change(folder: Path, name: str, values: dict[str, Any], drop: tuple[str, ...] = ()) -> None:
    path = folder / name
    said = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: said[key] for key in said if key not in drop}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("random") / "hf")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    loaded = load(folder)
    yield loaded
    loaded.close()


def texts(found: list[Decoded]) -> list[list[int]]:
    return [[token for piece in one.pieces for token in piece.tokens] for one in found]


def test_info_says_what_runs_where_and_why(engine: Engine) -> None:
    info = engine.info
    assert (info.engine, info.device, info.compute_type) == ("transformers", "cpu", "float32")
    assert (info.replicas, len(info.languages), info.multilingual) == (1, 99, True)
    assert "sdpa" in info.reason
    assert "8 windows" in info.reason
    assert info.batch_size == 8
    assert engine.count_limit() == 223
    assert engine.encode_text(" one two") == (472, 732)


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.3, 7.77, 30, 31])
def test_spectrograms_are_those_of_the_other_engines(mels: int, seconds: float) -> None:
    from whisper_api.engines.torch_features import LogMel

    audios = [sound(seconds), sound(2, 5)]
    found = LogMel(mels, torch.device("cpu"))(audios).numpy()
    for one, audio in zip(found, audios, strict=True):
        assert one.shape == (mels, 3000)
        np.testing.assert_allclose(one, features.log_mel(audio, mels), atol=2e-4)
    short = LogMel(mels, torch.device("cpu"))([sound(0.3)], 200).numpy()[0]
    np.testing.assert_allclose(short, features.log_mel(sound(0.3), mels, 200), atol=2e-4)


def test_paths_are_the_cheapest() -> None:
    from whisper_api.engines.torch_align import cheapest_path

    costs = np.ones((3, 6), np.float32)
    way = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    for token, frame in way:
        costs[token, frame] = 0
    assert cheapest_path(costs) == way
    assert cheapest_path(np.zeros((1, 1), np.float32)) == [(0, 0)]


def test_a_batch_gives_what_single_calls_give(engine: Engine) -> None:
    audios = [sound(seconds, seed) for seed, seconds in enumerate((3, 11, 30, 0.5, 4))]
    for beam in (1, 3):
        items = [
            item(audio, f"b{i}", language=("en", "ru")[i % 2], beam_size=beam)
            for i, audio in enumerate(audios)
        ]
        together = engine.decode(items)
        alone = [engine.decode([replace(one, key=f"a{one.key}")])[0] for one in items]
        assert texts(together) == texts(alone)
        assert [one.language for one in together] == ["en", "ru", "en", "ru", "en"]


def test_more_windows_than_fit_are_decoded_in_turns(folder: Path) -> None:
    small = load(folder, batch_size=2)
    items = [item(sound(1, i), f"t{i}", beam_size=(1, 20)[i % 2]) for i in range(7)]
    together = small.decode(items)
    assert texts(together) == texts([small.decode([one])[0] for one in items])
    assert len(small.detect([(one.key, one.audio) for one in items])) == 7


def test_samples_depend_on_the_seed_and_not_on_neighbours(engine: Engine) -> None:
    def decode(seed: int, *others: WindowItem) -> list[int]:
        window = item(sound(3), "s", temperature=1.0, seed=seed)
        return texts(engine.decode([*others, window]))[-1]

    other = item(sound(2, 9), "o", temperature=1.0, seed=11)
    assert decode(11) == decode(11) == decode(11, other)
    assert len({tuple(decode(seed)) for seed in range(4)}) > 1
    assert engine.decode([item(sound(3), "s", temperature=0.4)])[0].temperature == 0.4


def test_of_several_samples_the_likeliest_is_kept(engine: Engine) -> None:
    """At a low temperature all samples are nearly what a greedy search finds."""
    greedy = engine.decode([item(sound(3), "g")])[0]
    cold = engine.decode([item(sound(3), "g", temperature=0.001)])[0]
    assert texts([cold]) == texts([greedy])
    assert cold.avg_logprob == pytest.approx(greedy.avg_logprob, abs=1e-4)


def test_calls_from_many_threads_agree(engine: Engine) -> None:
    windows = [item(sound(3, seed), f"p{seed}", beam_size=seed + 1) for seed in range(4)]
    expected = [texts(engine.decode([window])) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: texts(engine.decode([windows[i % 4]])), range(12)))
    assert found == expected * 3


def test_a_window_is_encoded_once(folder: Path) -> None:
    engine = load(folder)
    counted: list[int] = []
    layers = engine._open().encoder.layers
    layers[0].register_forward_pre_hook(lambda _, args: counted.append(args[0].shape[0]))
    engine.detect([("once", sound(3))])
    engine.decode([item(sound(3), "once", words=True)])
    assert counted == [1]
    engine.release(["once", "never seen"])
    engine.decode([item(sound(3), "once"), item(sound(1), "new")])
    assert counted == [1, 2]


def test_short_windows_are_encoded_short_where_that_is_set(folder: Path) -> None:
    engine = load(folder, short_windows="always")
    audios = [sound(1), sound(7), sound(1.2, 3)]
    items = [item(audio, f"x{i}", words=True) for i, audio in enumerate(audios)]
    together = engine.decode(items)
    assert [engine._encodings.get(f"x{i}").shape[1] for i in range(3)] == [100, 400, 100]
    alone = [engine.decode([replace(one, key=f"y{one.key}")])[0] for one in items]
    assert texts(together) == texts(alone)


@pytest.mark.parametrize("shape", [Shape(), ENGLISH, LARGE_V3], ids=["small", "english", "large"])
@pytest.mark.parametrize("shards", [1, 3])
def test_shapes_of_real_models_load(tmp_path: Path, shape: Shape, shards: int) -> None:
    engine = load(save_checkpoint(tmp_path / "hf", shape, kind="F16", shards=shards))
    codes = {51_864: 1, 51_865: 99, 51_866: 100}
    assert len(engine.info.languages) == codes[shape.vocabulary]
    language = "yue" if shape is LARGE_V3 else "en"
    decoded = engine.decode([item(sound(1), language=language, words=True, max_new_tokens=8)])[0]
    assert decoded.pieces
    assert decoded.language == language


def test_the_same_weights_in_other_clothes_write_the_same(folder: Path, tmp_path: Path) -> None:
    expected = texts(load(folder).decode([item(sound(2))]))
    clothes: tuple[dict[str, Any], ...] = (
        {"shards": 2},
        {"slow_tokenizer": True},
        {"tied_copy": True},
    )
    for number, kind in enumerate(clothes):
        other = save_checkpoint(tmp_path / str(number), **kind)
        assert texts(load(other).decode([item(sound(2))])) == expected


def test_oddities_of_fine_tuned_checkpoints(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "hf")
    heads = [[0, 0], [0, 1]]
    with_heads = load(folder).decode([item(sound(2), words=True)])
    forced = {"forced_decoder_ids": [[1, 50_259], [2, 50_359]], "max_length": 225}
    change(folder, "generation_config.json", forced, drop=("alignment_heads", "lang_to_id"))
    change(folder, "config.json", forced | {"torch_dtype": "float16", "use_cache": False})
    assert not (folder / "preprocessor_config.json").exists()
    changed = load(folder).decode([item(sound(2), words=True)])
    assert heads == [[0, 0], [0, 1]]
    assert changed == with_heads  # both heads of the only layer are taken where none are named
    change(folder, "generation_config.json", {"alignment_heads": [[9, 0], [0, 1]]})
    assert load(folder).decode([item(sound(2), words=True)])[0].pieces
    (folder / "generation_config.json").unlink()
    assert load(folder).decode([item(sound(2), words=True)])[0].pieces


def test_weights_that_are_missing_are_not_invented(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "hf")
    change(folder, "config.json", {"decoder_layers": 2})
    with pytest.raises(ModelBroken, match=r"lack model\.decoder\.layers\.1"):
        load(folder)
    change(folder, "config.json", {"decoder_layers": 1, "d_model": 32})
    with pytest.raises(ModelBroken, match="cannot be loaded"):
        load(folder)


def test_other_models_and_settings_are_refused(folder: Path) -> None:
    from whisper_api.engines.transformers import TransformersEngine

    files = replace(describe_checkpoint(folder, "random"), kind="ctranslate2")
    with pytest.raises(ModelBroken, match="CTranslate2's format"):
        TransformersEngine.load(files, Settings())
    with pytest.raises(SettingsError, match="int8"):
        load(folder, compute_type="int8")


def test_half_precision_computes(folder: Path) -> None:
    engine = load(folder, compute_type="bfloat16")
    assert engine.info.compute_type == "bfloat16"
    decoded = engine.decode([item(sound(2), words=True, beam_size=2, logprobs=True)])[0]
    assert decoded.pieces
    assert np.isfinite(decoded.avg_logprob)


def test_raw_exceptions_never_come_out(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, kind in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), EngineOutOfMemory),
        (RuntimeError("MPS backend out of memory"), EngineOutOfMemory),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), EngineOutOfMemory),
        (MemoryError(), EngineOutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access"), EngineError),
    ):

        def fail(*_: Any, error: BaseException = error, **__: Any) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(engine._open().generator, "write", fail)
            with pytest.raises(kind):
                engine.decode([item(sound(1), "raw")])
        assert engine.decode([item(sound(1), "raw")])


def test_an_unknown_language_fails_the_call_and_the_engine_lives(engine: Engine) -> None:
    with pytest.raises(ModelBroken, match="yue"):
        engine.decode([item(sound(1), "u", language="yue")])
    assert engine.decode([item(sound(1), "u")])


def test_closed_means_closed(folder: Path) -> None:
    engine = load(folder)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.decode([item(sound(1))])
    with pytest.raises(EngineError, match="closed"):
        engine.detect([("a", sound(1))])


def test_memory_is_planned_from_what_is_free() -> None:
    from types import SimpleNamespace

    from whisper_api.engines.torch_memory import plan

    turbo: Any = SimpleNamespace(layers=range(4), width=1280, size=51_866)
    large: Any = SimpleNamespace(layers=range(32), width=1280, size=51_866)
    assert plan(turbo, 64, 5, 2, None).items == 64
    assert plan(turbo, 64, 5, 2, 120 << 30).items == 64
    eight = plan(large, 64, 5, 2, 5 << 30)
    assert 1 <= eight.items < 16
    assert plan(large, 64, 5, 2, 1).items == 1
    assert eight.items_of(20) >= 1
    assert eight.items_of(1) == eight.items
    assert eight.halved(5).items == eight.items // 2


def test_without_a_number_a_card_gets_as_many_windows_as_half_of_it_takes() -> None:
    from types import SimpleNamespace

    from whisper_api.engines.torch_memory import plan

    turbo: Any = SimpleNamespace(layers=range(4), width=1280, size=51_866)
    assert plan(turbo, 0, 5, 2, None).items == 8
    assert plan(turbo, 0, 5, 2, 120 << 30).items == 128
    assert plan(turbo, 0, 5, 2, 120 << 30, 16).items == 16
    small, set_by_hand = plan(turbo, 0, 5, 2, 8 << 30), plan(turbo, 1024, 5, 2, 8 << 30)
    assert 8 < small.items < set_by_hand.items < 64
    assert set_by_hand.items == pytest.approx(small.items * 1.6, abs=2)


def test_a_batch_that_does_not_fit_after_all_is_halved() -> None:
    from whisper_api.engines.torch_memory import Room
    from whisper_api.engines.torch_trial import fitted

    tried: list[int] = []

    def make(room: Room) -> Any:
        tried.append(room.items)
        if room.items > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return room

    fits, cpu = 3, torch.device("cpu")
    found: Any = fitted(make, Room(12, 60), 5, cpu)
    assert found == Room(3, 20)
    assert tried == [12, 6, 3]
    fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        fitted(make, Room(1, 20), 5, cpu)


def test_flash_attention_that_fails_is_replaced(folder: Path) -> None:
    from whisper_api.engines.torch_place import TorchPlace
    from whisper_api.engines.torch_trial import checked_attention

    encoder = load(folder)._open().encoder
    flash = "flash_attention_2"
    place = TorchPlace("cpu", "float32", flash, "as set")
    encoder.config._attn_implementation = flash
    found = checked_attention(encoder, 80, place)
    assert (found.attention, encoder.config._attn_implementation) == ("sdpa", "sdpa")
    assert "FlashAttention 2 does not work here: " in found.reason
    # One that works and answers alike stays; of one that does not exist nothing is asked.
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as KNOWN

    sdpa = KNOWN["sdpa"]
    for factor, expected in ((1.001, flash), (2.0, "sdpa")):

        def near(*args: Any, factor: float = factor, **options: Any) -> Any:
            states, weights = sdpa(*args, **options)
            return states * factor, weights

        kept, KNOWN[flash] = KNOWN[flash], near
        encoder.config._attn_implementation = flash
        try:
            assert checked_attention(encoder, 80, place).attention == expected
        finally:
            KNOWN[flash] = kept
    assert checked_attention(None, 80, TorchPlace("cpu", "float32", "sdpa")).attention == "sdpa"


def test_a_full_batch_is_tried_and_graphs_that_write_otherwise_are_given_up(folder: Path) -> None:
    from whisper_api.engines.torch_trial import try_out

    engine = load(folder, batch_size=2)
    assert engine.info.batch_size == 2
    parts = engine._open()
    asked: list[tuple[int, int]] = []
    write = parts.generator.write

    def noted(encodings: Any, prompts: Any, params: DecodeParams) -> Any:
        asked.append((len(prompts), params.beam_size))
        return write(encodings, prompts, params)

    parts.generator.write = noted
    try_out(parts, 2)
    assert asked == [(2, 2), (1, 1), (1, 1)]
    assert not parts.generator.graphs_fail
    assert parts.generator.graphs
    encodings = torch.ones(1, 100, 64)
    params, prompts = DecodeParams("en", beam_size=1, max_new_tokens=3), [[parts.tokenizer.sot]]
    with torch.inference_mode():
        (other,) = write(-encodings, prompts, params)
        other = replace(other, found=replace(other.found, tokens=[1, 2, 3]))
        parts.generator.check_graphs(encodings, prompts, params, [other])
    assert "they write other tokens" in engine.info.reason
