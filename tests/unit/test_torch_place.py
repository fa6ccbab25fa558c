"""Device, number format and attention of torch models; a double stands in for torch."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from whisper_api import accelerators
from whisper_api.config import Settings
from whisper_api.engines import torch_place
from whisper_api.engines.torch_place import TorchPlace, choose_torch_place, settle_attention
from whisper_api.errors import SettingsError


def torch_with(cards: int = 0, capability: tuple[int, int] = (9, 0), mps: bool = False) -> Any:
    return SimpleNamespace(
        __version__="2.13.0",
        cuda=SimpleNamespace(
            is_available=lambda: cards > 0,
            device_count=lambda: cards,
            get_device_capability=lambda device: capability,
            get_device_properties=lambda index: SimpleNamespace(uuid=f"uuid-{index}"),
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


def choose(torch: Any, missing: str = "", **settings: Any) -> TorchPlace:
    return choose_torch_place(Settings(engine="transformers", **settings), torch, lambda: missing)


def tells(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    def run(command: list[str], **_: Any) -> Any:
        assert command[0] == "nvidia-smi"
        return subprocess.CompletedProcess(command, 0, output, "")

    monkeypatch.setattr(subprocess, "run", run)


def test_a_card_computes_in_half_precision_with_flash_attention() -> None:
    place = choose(torch_with(1))
    assert (place.device, place.dtype, place.attention) == (
        "cuda:0",
        "float16",
        "flash_attention_2",
    )
    assert place.fell_back == ""
    assert "flash_attention_2" in place.reason


@pytest.mark.parametrize(
    ("capability", "missing", "settings", "said"),
    [
        ((9, 0), "flash-attn is not installed", {}, "flash-attn is not installed"),
        ((7, 5), "", {}, "the card has 7.5"),
        ((9, 0), "", {"compute_type": "float32"}, "float32"),
    ],
)
def test_every_other_attention_says_why(
    capability: tuple[int, int], missing: str, settings: dict[str, Any], said: str
) -> None:
    place = choose(torch_with(1, capability), missing, **settings)
    assert place.attention == "sdpa"
    assert said in place.fell_back
    assert place.fell_back in place.reason


def test_on_a_card_cudnns_attention_is_kept_out() -> None:
    told: list[bool] = []
    torch = torch_with(1)
    torch.backends.cuda = SimpleNamespace(enable_cudnn_sdp=told.append)
    settle_attention(choose(torch, device="cpu"), torch)
    assert told == []
    settle_attention(choose(torch), torch)
    assert told == [False]


def test_without_a_card_the_processor_or_apples_does_it() -> None:
    assert choose(torch_with()).device == "cpu"
    assert choose(torch_with()).dtype == "float32"
    assert choose(torch_with(mps=True)).device == "mps"
    assert choose(torch_with(1, mps=True)).device == "cuda:0"
    assert choose(torch_with(1), device="cpu").device == "cpu"


@pytest.mark.parametrize(
    ("settings", "device"),
    [
        ({"device": "cuda:1"}, "cuda:1"),
        ({"device": "cuda", "device_id": 1}, "cuda:1"),
        ({"device_id": 2}, "cuda:2"),
    ],
)
def test_a_card_may_be_named(settings: dict[str, Any], device: str) -> None:
    assert choose(torch_with(3), **settings).device == device


def test_of_several_cards_the_emptiest(monkeypatch: pytest.MonkeyPatch) -> None:
    # The order of nvidia-smi is not that of CUDA, and it knows cards that are hidden from us.
    tells(monkeypatch, "GPU-uuid-1, 40000\nGPU-hidden, 80000\nGPU-uuid-0, 900\n")
    place = choose(torch_with(2))
    assert place.device == "cuda:1"
    assert "most free memory" in place.reason
    tells(monkeypatch, "GPU-other, 1\n")
    assert "first card" in choose(torch_with(2)).reason


@pytest.mark.parametrize(
    ("cards", "settings", "said"),
    [
        (0, {"device": "cuda"}, "no CUDA card"),
        (1, {"device": "cuda:3"}, "no cuda:3"),
        (0, {"device": "mps"}, "mps was asked for"),
        (0, {"compute_type": "int8"}, "float32, bfloat16"),
        (1, {"compute_type": "int8_float16"}, "float16, float32, bfloat16"),
    ],
)
def test_what_is_not_here_is_refused(cards: int, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        choose(torch_with(cards), **settings)


def test_an_old_card_computes_in_float32_and_has_no_bfloat16() -> None:
    assert choose(torch_with(1, (6, 1))).dtype == "float32"
    with pytest.raises(SettingsError, match="bfloat16"):
        choose(torch_with(1, (7, 5)), compute_type="bfloat16")


def test_flash_attention_that_does_not_load_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError("flash_attn_2_cuda.so: undefined symbol: _ZN3c10\nmore")

    monkeypatch.setattr(torch_place, "find_spec", lambda name: object())
    monkeypatch.setattr(torch_place, "import_module", broken)
    why = torch_place.flash_missing()
    assert "undefined symbol" in why
    assert "\n" not in why


def test_auto_wants_checkpoints_only_where_torch_has_a_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def machine(libraries: bool, driver: bool, card: bool) -> None:
        missing = [] if libraries else ["torch"]
        monkeypatch.setattr(accelerators, "missing_libraries", lambda: missing)
        monkeypatch.setattr(accelerators, "has_driver", lambda: driver)
        monkeypatch.setattr(accelerators, "torch_has_card", lambda: card)

    machine(True, True, True)
    assert accelerators.wants_checkpoints(Settings())
    assert not accelerators.wants_checkpoints(Settings(device="cpu"))
    assert not accelerators.wants_checkpoints(Settings(engine="ctranslate2"))
    for facts in ((False, True, True), (True, False, True), (True, True, False)):
        machine(*facts)
        assert not accelerators.wants_checkpoints(Settings())
        assert accelerators.wants_checkpoints(Settings(engine="transformers"))
