"""Where a model runs, and which encodings are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from whisper_api.config import Settings
from whisper_api.engines.encodings import Encodings
from whisper_api.engines.placement import choose_placement, split_cores
from whisper_api.errors import SettingsError


class Library:
    """ctranslate2's questions about hardware, answered."""

    def __init__(self, cards: int = 0) -> None:
        self._cards = cards

    def get_cuda_device_count(self) -> int:
        return self._cards

    def get_supported_compute_types(self, device: str, index: int) -> set[str]:
        types = {"float32", "int8", "int8_float32", "int16"}
        return types | {"float16", "bfloat16"} if device == "cuda" else types


def test_without_a_card_it_is_int8_on_the_processor() -> None:
    place = choose_placement(Settings(), Library())
    assert (place.name, place.compute_type) == ("cpu", "int8")
    assert "no CUDA card" in place.reason


@pytest.mark.parametrize(
    ("replicas", "threads", "spare"), [(2, 1, 1), (1, 1, 0), (2, 2, 0), (1, 4, 0)]
)
def test_replicas_of_one_thread_have_a_call_to_spare(
    replicas: int, threads: int, spare: int
) -> None:
    settings = Settings(replicas=replicas, cpu_threads=threads)
    assert choose_placement(settings, Library()).spare == spare
    on_card = Settings(replicas=replicas, cpu_threads=threads, device="cuda")
    assert choose_placement(on_card, Library(cards=1)).spare == 0


def test_with_a_card_it_is_float16_on_the_emptiest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(
        "whisper_api.engines.placement._free_memory", lambda: {0: 100, 1: 900, 2: 500}
    )
    place = choose_placement(Settings(), Library(cards=3))
    assert (place.name, place.compute_type, place.replicas) == ("cuda:1", "float16", 1)
    assert "most free memory" in place.reason


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"device": "cuda:1"}, "cuda:1"),
        ({"device": "cuda", "device_id": 1}, "cuda:1"),
        ({"device_id": 1}, "cuda:1"),
        ({"device": "cpu"}, "cpu"),
    ],
)
def test_a_named_device_is_taken(settings: Mapping[str, Any], name: str) -> None:
    assert choose_placement(Settings(**settings), Library(cards=2)).name == name


@pytest.mark.parametrize(
    ("settings", "cards", "message"),
    [
        ({"device": "cuda"}, 0, "no CUDA card"),
        ({"device": "cuda:4"}, 2, r"no cuda:4; this machine has 2"),
        ({"device": "mps"}, 0, "not on mps"),
        ({"compute_type": "float16"}, 0, "does not run on cpu"),
    ],
)
def test_impossible_settings_are_one_clear_line(
    settings: Mapping[str, Any], cards: int, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        choose_placement(Settings(**settings), Library(cards))


@pytest.mark.parametrize(
    ("cores", "replicas", "threads", "expected"),
    [
        (1, 0, 0, (1, 1)),
        (2, 0, 0, (2, 1)),
        (4, 0, 0, (2, 2)),
        (8, 0, 0, (2, 4)),
        (16, 0, 0, (4, 4)),
        (8, 1, 0, (1, 8)),
        (8, 0, 2, (4, 2)),
        (2, 3, 5, (3, 5)),
        (1, 0, 4, (1, 4)),
    ],
)
def test_cores_are_split(cores: int, replicas: int, threads: int, expected: object) -> None:
    assert split_cores(cores, replicas, threads) == expected


def test_encodings_leave_by_age_and_size() -> None:
    kept = Encodings(max_bytes=3 * 400)
    for name in "abcd":
        kept.put(name, np.zeros(100, np.float32))
    assert len(kept) == 3
    assert kept.get("a") is None
    assert kept.get("b") is not None
    kept.put("e", np.zeros(100, np.float32))
    assert kept.get("c") is None
    kept.put("e", np.ones(100, np.float32))
    assert len(kept) == 3
    kept.put("huge", np.zeros(10_000, np.float32))
    assert len(kept) == 1
    kept.release(["huge"])
    assert len(kept) == 0
