"""The transformers engine does no work twice: memory that lies together, steps recorded once."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.checkpoints import save_checkpoint
from tests.unit.test_engine_transformers import SHORT, item, load, sound, texts

pytest.importorskip("torch", reason="the extra transformers is not installed")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    loaded = load(save_checkpoint(tmp_path_factory.mktemp("random") / "hf"))
    yield loaded
    loaded.close()


def test_the_encoder_works_on_rows_that_lie_together(engine: Any) -> None:
    """The convolutions' answer lies across; sums would keep it so through all layers."""
    lies: list[bool] = []
    layers = engine._open().encoder.layers

    def before(_: Any, args: Any) -> None:
        lies.append(args[0].is_contiguous())

    def after(_: Any, args: Any, found: Any) -> None:
        lies.append(found.is_contiguous())

    hooks = [layers[0].register_forward_pre_hook(before), layers[-1].register_forward_hook(after)]
    engine.decode([item(sound(3), "lies"), item(sound(2), "too")])
    for hook in hooks:
        hook.remove()
    assert lies == [True, True]


def test_a_recorded_step_is_replayed_and_not_made_again(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = engine._open().generator
    expected = texts(engine.decode([item(sound(3), "replayed")]))
    made: list[int] = []
    replayed: list[Any] = []
    stepper = generator._stepper

    def noted(bench: Any, span: int, positions: int) -> Any:
        made.append(span)
        return stepper(bench, span, positions)

    def record(key: Any, step: Any) -> None:
        def replay() -> None:
            replayed.append(key)
            step()

        generator._graphs[key] = SimpleNamespace(replay=replay)

    monkeypatch.setattr(generator, "_stepper", noted)
    monkeypatch.setattr(generator, "_capture", record)
    monkeypatch.setattr(generator, "_on_card", True)
    try:
        assert texts(engine.decode([item(sound(3), "replayed")])) == expected
    finally:
        generator._graphs.clear()
    assert made == [64]
    assert len(replayed) == SHORT["max_new_tokens"] - 2
