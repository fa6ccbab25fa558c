"""Speed of the real server beside faster-whisper: same files, same weights, one run.

    python benchmarks/run.py [--model bundled] [--seconds 120] [--rounds 3] [--clients 4]
    python benchmarks/run.py --model random:small --tokens 50

``random:tiny``, ``random:base`` and ``random:small`` are random weights (``shapes.py``) that write
``--tokens`` tokens for each window, whoever decodes.

The server runs in a process of its own and gets files over HTTP. faster-whisper runs in this
process, window by window and batched. The contestants take turns in every round. Prints a table
of medians and ratios and writes ``benchmarks/results/<commit>.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from shapes import random_model
from whisper_api.api.system import SAMPLE
from whisper_api.config import Settings
from whisper_api.models import ModelStore
from whisper_api.types import SAMPLE_RATE

HERE = Path(__file__).resolve().parent
PEER = "faster-whisper"

Contestant = Callable[[Path], None]


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        name = args.model
        if name.startswith("random:"):
            name = str(random_model(folder, name.partition(":")[2]))
        settings = Settings(data_dir=folder, model_path=name)
        model = ModelStore(settings).prepare().path
        limits = peer_limits(args.tokens)
        with server(folder, name, args.tokens) as (url, state):
            peer = WhisperModel(str(model), device="cpu", compute_type=state["compute_type"])
            contestants = {
                "server": http(url, args.language),
                PEER: plain(peer, args.language, limits),
                f"{PEER} batched": batched(peer, args.language, settings.batch_size, limits),
            }
            long, short = folder / "long.wav", args.clip or SAMPLE
            long.write_bytes(stretched(short, args.seconds))
            results = {
                "throughput": throughput(contestants, long, args),
                "latency": latency(contestants, short, args),
                "burst": burst(contestants, clip_of(short, folder / "clip.wav"), args),
            }
            state["memory_mb"] = memory_mb(state["pid"])
    report = {"about": about(args, state), **results}
    show(report)
    path = HERE / "results" / f"{report['about']['commit']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="bundled", help="as in the setting model_path")
    parser.add_argument("--language", default="en")
    parser.add_argument("--clip", type=Path, help="a short WAV file; the sample by default")
    parser.add_argument("--seconds", type=float, default=120, help="length of the long file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4, help="long files at the same time")
    parser.add_argument("--tokens", type=int, help="most tokens of each window")
    parser.add_argument("--burst", type=int, default=16, help="clips of 5 s at the same time")
    parser.add_argument("--clips", type=int, default=10, help="short clips in each round")
    return parser.parse_args()


def stretched(clip: Path, seconds: float) -> bytes:
    """``clip`` again and again, with pauses of 0.2 to 1.5 s, for about ``seconds``."""
    with wave.open(str(clip)) as file:
        rate = file.getframerate()
        voice = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    rng, parts, length = np.random.default_rng(0), [], 0
    while length < seconds * rate:
        parts += [voice, np.zeros(int(rng.uniform(0.2, 1.5) * rate), "<i2")]
        length += len(parts[-1]) + len(voice)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.concatenate(parts).tobytes())
    return buffer.getvalue()


@contextmanager
def server(
    folder: Path, model: str, tokens: int | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A running server: its address and what ``/ready`` says."""
    command = [sys.executable, "-m", "whisper_api", "serve", "--port", "0", "--model", model]
    command += ["--data-dir", str(folder / "server"), "--log-level", "ERROR"]
    command += ["--max-new-tokens", str(tokens)] if tokens else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        for _ in range(6000):
            answer = httpx.get(f"{url}/ready")
            if answer.is_success:
                break
            time.sleep(0.1)
        yield url, answer.json() | {"pid": process.pid}
    finally:
        process.terminate()
        process.wait(60)


def http(url: str, language: str) -> Contestant:
    """The server, as a client uses it."""
    # Rounds repeat the same files: no answer may come from the cache.
    client = httpx.Client(timeout=None, headers={"cache-control": "no-store"})

    def run(path: Path) -> None:
        with path.open("rb") as file:
            form = {"language": language, "response_format": "verbose_json"}
            answer = client.post(
                f"{url}/v1/audio/transcriptions", data=form, files={"file": (path.name, file)}
            )
        answer.raise_for_status()

    return run


def peer_limits(tokens: int | None) -> dict[str, Any]:
    """Options of faster-whisper's for the same work; none where the model ends by itself."""
    if tokens is None:
        return {}
    # CTranslate2 writes half of max_length, which faster-whisper sets to prompt + max_new_tokens.
    return {
        "max_new_tokens": 2 * tokens - 4,
        "temperature": 0,
        "compression_ratio_threshold": None,
        "log_prob_threshold": None,
        "no_speech_threshold": None,
        "condition_on_previous_text": False,
    }


def plain(model: WhisperModel, language: str, limits: dict[str, Any]) -> Contestant:
    """faster-whisper, window after window."""

    def run(path: Path) -> None:
        segments, _ = model.transcribe(str(path), language=language, vad_filter=True, **limits)
        list(segments)

    return run


def batched(model: WhisperModel, language: str, size: int, limits: dict[str, Any]) -> Contestant:
    """faster-whisper's batches."""
    pipeline = BatchedInferencePipeline(model)

    def run(path: Path) -> None:
        segments, _ = pipeline.transcribe(str(path), language=language, batch_size=size, **limits)
        list(segments)

    return run


def throughput(
    contestants: dict[str, Contestant], path: Path, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of audio for each second, of one long file, and of several at once."""
    audio = seconds_of(path)
    found: dict[str, list[float]] = {}
    for contestant in contestants.values():
        contestant(path)  # the first call is always slower
    for _ in range(args.rounds):
        for name, contestant in contestants.items():
            found.setdefault(name, []).append(audio / timed(lambda run=contestant: run(path)))
        many = timed(lambda: together(contestants["server"], path, args.clients))
        label = f"server, {args.clients} clients"
        found.setdefault(label, []).append(args.clients * audio / many)
    return found


def latency(
    contestants: dict[str, Contestant], path: Path, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds that a short clip takes."""
    found: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, contestant in contestants.items():
            times = [timed(lambda run=contestant: run(path)) for _ in range(args.clips)]
            found.setdefault(name, []).extend(times)
    return found


def burst(
    contestants: dict[str, Contestant], path: Path, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds until many short clips that come at once are done; the peers take them in turn."""
    found: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, contestant in contestants.items():
            at_once = args.burst if name == "server" else 1
            turns = args.burst // at_once
            work = partial(repeat, contestant, path, at_once, turns)
            found.setdefault(name, []).append(timed(work))
    return found


def repeat(run: Contestant, path: Path, clients: int, turns: int) -> None:
    """``together``, several times."""
    for _ in range(turns):
        together(run, path, clients)


def clip_of(source: Path, target: Path, seconds: float = 5) -> Path:
    """``target`` with the first ``seconds`` of a WAV file, repeated where it is shorter."""
    with wave.open(str(source)) as file:
        rate, voice = file.getframerate(), file.readframes(file.getnframes())
    size = 2 * int(seconds * rate)
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((voice * (size // len(voice) + 1))[:size])
    return target


def memory_mb(process: int) -> float | None:
    """Most resident memory a process has had, where the system tells."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return peaks[0] if peaks else None


def together(run: Contestant, path: Path, clients: int) -> None:
    """``run`` several times at once."""
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(run, [path] * clients))


def timed(work: Callable[[], None]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds_of(path: Path) -> float:
    """Length of a WAV file."""
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


def about(args: argparse.Namespace, state: dict[str, Any]) -> dict[str, Any]:
    """What was measured, where, with what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    return {
        "commit": (commit or "unknown") + ("-changed" if dirty else ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("ctranslate2", "faster-whisper", "av")},
        "server": {
            key: state[key]
            for key in (
                "engine",
                "device",
                "compute_type",
                "replicas",
                "chosen_because",
                "memory_mb",
            )
        },
        "peer_memory_mb": memory_mb(os.getpid()),
        "arguments": {key: str(value) for key, value in vars(args).items()},
        "sample_rate": SAMPLE_RATE,
    }


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def show(report: dict[str, Any]) -> None:
    """The table."""
    facts = report["about"]
    print(f"{facts['machine']}, {facts['cores']} cores, load {facts['load']}; {facts['server']}\n")
    for title, unit, better in (
        ("throughput", "s of audio per s", max),
        ("latency", "s for a short clip", min),
        ("burst", "s for clips at once", min),
    ):
        medians = {name: statistics.median(values) for name, values in report[title].items()}
        peer = better(value for name, value in medians.items() if name.startswith(PEER))
        print(f"{title + ', ' + unit:36}{'median':>10}{'of the best peer':>20}")
        for name, value in medians.items():
            ratio = value / peer if better is max else peer / value
            print(f"  {name:34}{value:10.3f}{ratio:19.2f}x")


if __name__ == "__main__":
    main()
