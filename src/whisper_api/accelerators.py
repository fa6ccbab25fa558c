"""Whether torch is here and has a card: asked before a model is fetched or converted for it."""

from __future__ import annotations

import shutil
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from whisper_api.config import Settings

INSTALL = "pip install 'whisper-api-server[transformers]', see docs/gpu.md"
LIBRARIES = ("torch", "transformers", "accelerate")


def missing_libraries() -> list[str]:
    """What the transformers engine needs and does not find."""
    return [name for name in LIBRARIES if find_spec(name) is None]


def wants_checkpoints(settings: Settings) -> bool:
    """Whether Hugging Face folders are loaded as they are, not converted for CTranslate2.

    So it is with the transformers engine, which ``auto`` means where torch has a CUDA card.
    """
    if settings.engine != "auto":
        return settings.engine == "transformers"
    on_card = settings.device == "auto" or settings.device.startswith("cuda")
    return on_card and not missing_libraries() and has_driver() and torch_has_card()


def has_driver() -> bool:
    """Whether there are signs of an NVIDIA driver; importing torch takes seconds."""
    return shutil.which("nvidia-smi") is not None or any(
        Path(path).exists() for path in ("/dev/nvidiactl", "/proc/driver/nvidia")
    )


@cache
def torch_has_card() -> bool:
    """Whether torch can use a CUDA card here."""
    try:
        return bool(import_module("torch").cuda.is_available())
    except (ImportError, OSError, RuntimeError):
        return False
