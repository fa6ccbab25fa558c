"""What only a card can show: graphs, half precision, smaller batches, FlashAttention; `-m gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checkpoints import save_checkpoint
from tests.hf_export import export_bundled
from tests.unit.test_engine_transformers_equal import items, recordings

from whisper_api.config import Settings
from whisper_api.engines.base import Decoded, WindowItem
from whisper_api.model_folder import describe_checkpoint
from whisper_api.types import SAMPLE_RATE, Audio

torch = pytest.importorskip("torch", reason="the extra transformers is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA card"),
]

GREEDY, BEAM = {"beam_size": 1}, {"beam_size": 5}


def load(folder: Path, **settings: Any) -> Any:
    from whisper_api.engines.transformers import TransformersEngine

    files = describe_checkpoint(folder, "model")
    return TransformersEngine.load(files, Settings(device="cuda", **settings))


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundled(tmp_path_factory.mktemp("bundled") / "hf")


@pytest.fixture(scope="module")
def engine(bundled: Path) -> Iterator[Any]:
    loaded = load(bundled)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def spoken() -> list[tuple[str, Audio]]:
    """Twelve windows that end after different numbers of tokens."""
    return 3 * recordings()


def tokens(found: list[Decoded]) -> list[list[int]]:
    return [[token for piece in one.pieces for token in piece.tokens] for one in found]


@pytest.mark.parametrize("params", [GREEDY, BEAM, {"beam_size": 1, "temperature": 0.5, "seed": 7}])
def test_graphs_write_what_single_steps_write(
    engine: Any, spoken: list[tuple[str, Audio]], params: dict[str, Any]
) -> None:
    generator = engine._open().generator
    windows = items(params, spoken)
    first = tokens(engine.decode(windows))  # records
    again = tokens(engine.decode(windows))  # replays
    assert generator._graphs
    generator.graphs = False
    try:
        assert first == again == tokens(engine.decode(windows))
    finally:
        generator.graphs = True
    assert not generator.graphs_fail


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("params", [GREEDY, BEAM])
def test_texts_are_those_of_the_processor(
    bundled: Path, spoken: list[tuple[str, Audio]], kind: str, params: dict[str, Any]
) -> None:
    from whisper_api.engines.transformers import TransformersEngine

    if kind == "bfloat16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("the card has no bfloat16")
    exact = TransformersEngine.load(describe_checkpoint(bundled, "m"), Settings(device="cpu"))
    card = load(bundled, compute_type=kind)
    windows = items({**params, "words": True}, spoken[:4])
    for found, expected in zip(card.decode(windows), exact.decode(windows), strict=True):
        assert found.text == expected.text
        assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=0.1)
        words = [word for piece in found.pieces for word in piece.words]
        same = [word for piece in expected.pieces for word in piece.words]
        assert [word.start for word in words] == pytest.approx([w.start for w in same], abs=0.1)
    for engine in (card, exact):
        engine.close()


@pytest.mark.parametrize("params", [GREEDY, BEAM])
def test_a_batch_that_becomes_smaller_writes_the_same(
    engine: Any, spoken: list[tuple[str, Audio]], params: dict[str, Any]
) -> None:
    generator = engine._open().generator
    generator._least = 1
    windows = items(params, spoken)
    before = len(generator._benches)
    smaller = [one.text for one in engine.decode(windows)]
    assert len(generator._benches) > before
    generator.shrinks = False
    try:
        assert smaller == [one.text for one in engine.decode(windows)]
    finally:
        generator.shrinks = True


def test_flash_attention_writes_what_torchs_own_writes(
    bundled: Path, spoken: list[tuple[str, Audio]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    from whisper_api.engines import torch_place

    flash = load(bundled)
    assert "flash_attention_2 attention" in flash.info.reason
    monkeypatch.setattr(torch_place, "_attention", lambda *_: ("sdpa", "as the test wants it"))
    own = load(bundled)
    windows = items(BEAM, spoken)
    assert [d.text for d in flash.decode(windows)] == [d.text for d in own.decode(windows)]
    for engine in (flash, own):
        engine.close()


def test_two_calls_and_two_models_at_once_disturb_nobody(
    engine: Any, tmp_path: Path, spoken: list[tuple[str, Audio]]
) -> None:
    """While one records graphs the others encode, decode and load."""
    other = load(save_checkpoint(tmp_path / "hf"), batch_size=4)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)
    strange = items({**GREEDY, "max_new_tokens": 40}, [("en", noise)])
    windows = items(BEAM, spoken)
    expected = tokens(engine.decode(windows)), tokens(other.decode(strange))

    def call(turn: int) -> bool:
        who, work = ((engine, windows), (other, strange))[turn % 2]
        fresh = [WindowItem(f"{turn}-{one.key}", one.audio, one.params) for one in work]
        return tokens(who.decode(fresh)) == expected[turn % 2]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(16)))
    other.close()
    assert tokens(engine.decode(windows)) == expected[0]


def test_a_card_without_memory_says_so_and_goes_on(
    engine: Any, spoken: list[tuple[str, Audio]]
) -> None:
    from whisper_api.errors import EngineOutOfMemory

    windows = items(GREEDY, spoken[:1])
    expected = tokens(engine.decode(windows))
    engine.release([one.key for one in windows])
    share = torch.cuda.memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(share)
    held = []
    try:
        while True:
            held.append(torch.empty(1 << 20, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError:
        with pytest.raises(EngineOutOfMemory):
            engine.decode(windows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        held.clear()
    assert tokens(engine.decode(windows)) == expected
