"""Where a torch model runs: device, number format, kind of attention, and why.

The torch module is handed in, so that every choice can be tested without a card.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from whisper_api.config import Settings
from whisper_api.errors import SettingsError

SDPA = "sdpa"
FLASH = "flash_attention_2"
_AMPERE = (8, 0)
_VOLTA = (7, 0)


@dataclass(frozen=True, slots=True)
class TorchPlace:
    """Device, number format and attention of one model."""

    device: str  #: ``cpu``, ``mps`` or ``cuda:N``
    dtype: str  #: ``float32``, ``float16`` or ``bfloat16``
    attention: str  #: of the encoder, in transformers' words
    why: str = ""  #: this device
    fell_back: str = ""  #: why the attention is not FlashAttention 2 though a card is there

    @property
    def reason(self) -> str:
        """All of it in words."""
        said = f"{self.attention} attention" + (f" ({self.fell_back})" if self.fell_back else "")
        return f"{self.device}: {self.why}; {self.dtype}; {said}"

    @property
    def on_card(self) -> bool:
        """Whether it is a CUDA device."""
        return self.device.startswith("cuda")


def choose_torch_place(
    settings: Settings, torch: Any, flash: Callable[[], str] | None = None
) -> TorchPlace:
    """The best device for the settings.

    ``flash`` answers why FlashAttention 2 cannot be imported, or nothing where it can.

    Raises:
        SettingsError: the device or the compute type does not exist here.
    """
    device, why = _device(settings, torch)
    capability = tuple(torch.cuda.get_device_capability(device)) if "cuda" in device else (0, 0)
    dtype = _dtype(settings.compute_type, device, capability)
    attention, fell_back = _attention(device, dtype, capability, flash or flash_missing)
    return TorchPlace(device, dtype, attention, why, fell_back)


def settle_attention(place: TorchPlace, torch: Any) -> None:
    """Keep cuDNN's attention out, which torch prefers on Hopper and Blackwell cards.

    It plans anew, for tens of milliseconds of the host, whenever a shape is new to a thread, and
    keeps every plan; prompts, texts to align and batches have ever new ones. And it is the one
    that gives up on shapes ("No execution plans support the graph"). It holds for the process.
    """
    if place.on_card:
        torch.backends.cuda.enable_cudnn_sdp(False)


def flash_missing() -> str:
    """Why flash-attn cannot be used; empty where it can."""
    if find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    try:
        import_module("flash_attn")
    except (ImportError, OSError, RuntimeError) as error:
        # Built for another torch: the usual way in which it breaks.
        return f"flash-attn does not load: {str(error).splitlines()[0] if str(error) else error!r}"
    return ""


def _device(settings: Settings, torch: Any) -> tuple[str, str]:
    wanted = settings.device
    cards = int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
    if wanted == "cpu":
        return "cpu", "as set"
    if wanted == "mps" or (wanted == "auto" and not cards and torch.backends.mps.is_available()):
        if not torch.backends.mps.is_available():
            raise SettingsError("device: mps was asked for, but torch finds none on this machine.")
        return "mps", "as set" if wanted == "mps" else "no CUDA card was found"
    if wanted == "auto" and not cards:
        return "cpu", "no CUDA card was found"
    if not cards:
        raise SettingsError(
            f"device: {wanted} was asked for, but torch {torch.__version__} can use no CUDA card"
            " here: is it a build for CUDA, and the driver new enough? (docs/gpu.md)"
        )
    index, why = _card(settings, torch, cards)
    if index >= cards:
        raise SettingsError(f"device: there is no cuda:{index}; this machine has {cards} card(s).")
    return f"cuda:{index}", why


def _card(settings: Settings, torch: Any, cards: int) -> tuple[int, str]:
    if ":" in settings.device:
        return int(settings.device.partition(":")[2]), "as set"
    if settings.device_id is not None:
        return settings.device_id, "as set"
    if cards == 1:
        return 0, "the only card"
    free = _free_by_uuid()
    known = {
        index: free[uuid]
        for index in range(cards)
        if (uuid := str(torch.cuda.get_device_properties(index).uuid)) in free
    }
    if len(known) < cards:
        return 0, "the first card (nvidia-smi does not tell how full they are)"
    return max(known, key=lambda index: known[index]), "the card with most free memory"


def _free_by_uuid() -> dict[str, int]:
    """MiB free on each card, by nvidia-smi.

    Asking CUDA itself would open a context on every card, and each takes half a gigabyte there.
    """
    command = ["nvidia-smi", "--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        rows = [line.split(",") for line in output.stdout.splitlines() if line.strip()]
        return {uuid.strip().removeprefix("GPU-"): int(free) for uuid, free in rows}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def _dtype(wanted: str, device: str, capability: tuple[int, ...]) -> str:
    if device == "cpu":
        known = ["float32", "bfloat16"]
    elif device == "mps":
        known = ["float16", "float32"]
    else:
        known = ["float16", "float32"] if capability >= _VOLTA else ["float32", "float16"]
        known += ["bfloat16"] if capability >= _AMPERE else []
    if wanted == "auto":
        return known[0]
    if wanted not in known:
        raise SettingsError(
            f"compute_type: the transformers engine does not compute in {wanted} on {device};"
            f" choose auto or one of {', '.join(known)}."
        )
    return wanted


def _attention(
    device: str, dtype: str, capability: tuple[int, ...], flash: Callable[[], str]
) -> tuple[str, str]:
    if not device.startswith("cuda"):
        return SDPA, ""
    if capability < _AMPERE:
        return SDPA, "FlashAttention 2 needs compute capability 8.0, the card has {}.{}".format(
            *capability
        )
    if dtype == "float32":
        return SDPA, "FlashAttention 2 does not compute in float32"
    missing = flash()
    return (SDPA, missing) if missing else (FLASH, "")
