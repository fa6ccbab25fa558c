"""Where a CTranslate2 model runs: device, number format and threads, and why."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Any

from whisper_api.config import Settings
from whisper_api.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and threads of one model."""

    device: str  #: ``cpu`` or ``cuda``
    index: int
    compute_type: str
    replicas: int
    threads: int  #: of each replica; 0 where the device does the work
    reason: str

    @property
    def spare(self) -> int:
        """Calls that may run beside all replicas: where each has one thread, the system shares the
        processor among them. Threads of one call that wait for each other would lose far more."""
        return int(self.device == "cpu" and self.threads == 1 and self.replicas > 1)

    @property
    def name(self) -> str:
        """``cpu`` or ``cuda:N``."""
        return f"cuda:{self.index}" if self.device == "cuda" else self.device


def choose_placement(settings: Settings, library: Any) -> Placement:
    """The best device for the settings; ``library`` is the ctranslate2 module.

    Raises:
        SettingsError: the device or the compute type does not exist here.
    """
    cards = int(library.get_cuda_device_count())
    if settings.device == "mps":
        raise SettingsError("device: the ctranslate2 engine runs on cpu or cuda, not on mps.")
    if settings.device.startswith("cuda") or (settings.device == "auto" and cards):
        return _on_card(settings, library, cards)
    compute_type = _compute_type(settings, library, "cpu", 0, ("int8", "int8_float32", "float32"))
    replicas, threads = split_cores(cores(), settings.replicas, settings.cpu_threads)
    why = "as set" if settings.device == "cpu" else "no CUDA card was found"
    return Placement("cpu", 0, compute_type, replicas, threads, f"cpu: {why}; {compute_type}")


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def split_cores(count: int, replicas: int = 0, threads: int = 0) -> tuple[int, int]:
    """(replicas, threads of each) for ``count`` cores; zeros are chosen here.

    Two decodes side by side on one core each beat one decode on two cores (measured: 1.25 s for
    both, against 1.35 s for each). Beyond four threads a replica gains little.
    """
    if replicas and threads:
        return replicas, threads
    if threads:
        return max(1, count // threads), threads
    if not replicas:
        replicas = 1 if count < 2 else max(2, count // 4)
    return replicas, max(1, count // replicas)


def _on_card(settings: Settings, library: Any, cards: int) -> Placement:
    if not cards:
        raise SettingsError(
            f"device: {settings.device} was asked for, but no CUDA card is usable here"
            " (see `whisper-api doctor`); choose cpu or auto."
        )
    index, why = _card(settings, cards)
    if index >= cards:
        raise SettingsError(f"device: there is no cuda:{index}; this machine has {cards} card(s).")
    wanted = ("float16", "bfloat16", "float32")
    compute_type = _compute_type(settings, library, "cuda", index, wanted)
    reason = f"cuda:{index}: {why}; {compute_type}"
    return Placement("cuda", index, compute_type, settings.replicas or 1, 0, reason)


def _card(settings: Settings, cards: int) -> tuple[int, str]:
    if ":" in settings.device:
        return int(settings.device.partition(":")[2]), "as set"
    if settings.device_id is not None:
        return settings.device_id, "as set"
    free = _free_memory() if cards > 1 else {}
    # The tool counts all cards, CUDA only the visible ones: then its numbers mean nothing here.
    if not free or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return 0, "the first card"
    best = max((index for index in free if index < cards), key=lambda index: free[index], default=0)
    return best, "the card with most free memory"


def _free_memory() -> dict[int, int]:
    """MiB free on each card, by nvidia-smi; empty where that cannot be asked."""
    command = ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        rows = [line.split(",") for line in output.stdout.splitlines() if line.strip()]
        return {int(index): int(free) for index, free in rows}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def _compute_type(
    settings: Settings, library: Any, device: str, index: int, wanted: tuple[str, ...]
) -> str:
    known = set(library.get_supported_compute_types(device, index))
    if settings.compute_type == "auto":
        return next((name for name in wanted if name in known), "default")
    if settings.compute_type not in known:
        raise SettingsError(
            f"compute_type: {settings.compute_type} does not run on {device} here;"
            f" choose auto or one of {', '.join(sorted(known))}."
        )
    return settings.compute_type
