"""Where a batch's time goes: its stages one by one, and what the device was busy with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from whisper_api.engines.base import DecodeParams
from whisper_api.engines.torch_network import encode
from whisper_api.engines.torch_parts import Parts, in_stream, on_device

_PROFILED = 24  # tokens: enough to see what a step consists of
_KERNELS = 10


def settle(device: Any) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(device: Any, work: Callable[[], Any], rounds: int) -> float:
    """Least seconds of some rounds, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        settle(device)
        started = time.perf_counter()
        work()
        settle(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def measure_parts(
    parts: Parts, audios: Sequence[Any], params: DecodeParams, rounds: int
) -> dict[str, Any]:
    """Milliseconds of each stage for a window, and the kernels that took longest.

    Graphs are made while it warms up; ``params`` are those of a greedy search.
    """
    device, generator = parts.device, parts.generator
    prompts = [parts.tokenizer.prompt((), "en", "transcribe")] * len(audios)
    first = replace(params, max_new_tokens=1)

    def milliseconds(work: Callable[[], Any]) -> float:
        return 1000 * timed(device, work, rounds) / len(audios)

    with on_device(device):
        with in_stream(parts.streams.encode):
            sound = parts.mel.stage(audios)
            mels = parts.mel.transform(sound).to(parts.dtype)
            kept = encode(parts.encoder, mels)
            found = {
                "sound to the device": milliseconds(lambda: parts.mel.stage(audios)),
                "spectrogram": milliseconds(lambda: parts.mel.transform(sound).to(parts.dtype)),
                "encoder": milliseconds(lambda: encode(parts.encoder, mels)),
            }
            busy = {"encoder": busiest(device, lambda: encode(parts.encoder, mels))}
        with in_stream(parts.streams.write):
            begun = milliseconds(lambda: generator.write(kept, prompts, first))
            whole = milliseconds(lambda: generator.write(kept, prompts, params))
            found["keys and values of the audio, prompt, first token"] = begun
            found[f"the other {params.max_new_tokens - 1} tokens"] = whole - begun
            some = replace(params, max_new_tokens=min(_PROFILED, params.max_new_tokens))
            busy["decoder"] = busiest(device, lambda: generator.write(kept, prompts, some))
        if device.type == "cuda":
            found["encoder, were its attention cuDNN's"] = _with_cudnn(
                lambda: milliseconds(lambda: encode(parts.encoder, mels))
            )
    steps = len(audios) * (whole - begun) / max(1, params.max_new_tokens - 1)
    return {"stages_ms": found, "step_ms": steps, "kernels": busy}


def _with_cudnn(work: Callable[[], float]) -> float | str:
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        return work()
    except RuntimeError as error:
        return str(error).splitlines()[0][:100]
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


def busiest(device: Any, work: Callable[[], Any]) -> list[dict[str, Any]]:
    """What took the device longest in ``work``, with each one's share; ``all`` is the sum."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_card = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]
    settle(device)
    started = time.perf_counter()
    with profile(activities=kinds) as seen:
        work()
        settle(device)
    wall = time.perf_counter() - started
    wanted = DeviceType.CUDA if on_card else DeviceType.CPU
    rows = [
        (event.self_device_time_total if on_card else event.self_cpu_time_total, event)
        for event in seen.key_averages()
        if event.device_type == wanted
    ]
    total = sum(spent for spent, _ in rows) or 1.0
    best = sorted(rows, key=lambda row: -row[0])[:_KERNELS]
    head = {"name": "all", "ms": total / 1000, "share": total / 1e6 / wall, "calls": len(rows)}
    return [head] + [
        {"name": short(e.key), "ms": spent / 1000, "share": spent / total, "calls": e.count}
        for spent, e in best
    ]


def short(name: str) -> str:
    """A kernel's name without the types that it was made for."""
    return name.removeprefix("void ").replace("|", " ")[:90]
