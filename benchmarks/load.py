"""Load on the real server: latency, throughput, memory and errors while many ask at once.

    python benchmarks/load.py --svg docs/images/load.svg
    python benchmarks/load.py --phases clients16,clip
    python benchmarks/load.py --engine fake --model fake:delay_per_second=0.02 --phases steps

Starts ``whisper-api serve`` in processes of its own, sends it recordings over HTTP, and writes
``benchmarks/results/load-<commit>.json`` and, with ``--svg``, a picture. Phases:

    clients16    16 clients with files of 30 s, and the engine alone on the same windows, in turn;
                 with random weights in the shape of small and forced tokens, and with --model
    steps        a mix of short and longer files at 1, 4, 16, 64 clients
    connections  500 at once, and /health meanwhile
    killed       half of the clients leave in the middle of long files
    endurance    2,000 requests in a row, and memory
    clip         a 3 s clip beside eight one-hour files
    stop         SIGTERM under load
    replicas     batches of several sizes on one replica and on two (not by default)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from load_engine import Alone
from load_picture import picture
from load_server import ROOT, Load, Server, Tally, health_of, percentile, recording
from shapes import random_model
from whisper_api.config import Settings
from whisper_api.engines.base import DEFAULT_BATCH

STEPS = (1, 4, 16, 64)
CLIENTS = 16
LONG = 30.0
"""Seconds of the files of ``clients16``: one window of a model that takes whole ones."""
SMALL = "random:small"
Found = dict[str, Any]


async def steps(load: Load, asked: argparse.Namespace) -> list[Found]:
    """So many clients with a mix of short and longer recordings, one after the other each."""
    found = []
    for clients in (n for n in STEPS if n <= asked.clients):
        lengths = [(3.0, 3.0, 3.0, 10.0, 60.0)[n % 5] for n in range(max(10, 2 * clients))]
        tally = Tally()
        wall = await load.clients(clients, map(recording, lengths), tally)
        speed = {"audio_per_second": round(sum(lengths) / wall, 2), "rss_mb": load.server.rss()}
        found.append({"clients": clients, **tally.summary(), **speed})
    return found


async def connections(load: Load, asked: argparse.Namespace) -> Found:
    """Everybody at once, and how /health fares meanwhile."""
    tally, wav = Tally(), recording(3)
    async with health_of(load.server) as health:
        with behind():
            await asyncio.gather(*(load.send(wav, tally) for _ in range(asked.connections)))
    found = {"connections": asked.connections, **tally.summary(), "health": health.summary()}
    return found | {"idle_after_seconds": await load.idle()}


@contextmanager
def behind() -> Iterator[None]:
    """The clients take what the server leaves of the processor: theirs are other machines."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 15)
    try:
        yield
    finally:
        with suppress(PermissionError):  # only root may go back
            os.setpriority(os.PRIO_PROCESS, 0, before)


async def killed(load: Load, asked: argparse.Namespace) -> Found:
    """Half of the clients leave in the middle of files that would take long."""
    stay, leave = Tally(), Tally()
    going = [asyncio.create_task(load.send(recording(1800), leave)) for _ in range(8)]
    staying = [asyncio.create_task(load.send(recording(10), stay)) for _ in range(8)]
    arrived = await load.holds(len(going))
    await asyncio.sleep(2)  # into their decoding and engine work
    for task in going:
        task.cancel()
    left = time.perf_counter()
    await asyncio.gather(*staying, *going, return_exceptions=True)
    idle = await load.idle()
    return {
        "left": len(going),
        "stayed": stay.summary(),
        "arrived": arrived,
        "answered_before_leaving": leave.statuses.total(),
        "idle": idle is not None,
        "seconds_until_idle": round(time.perf_counter() - left, 2),
        "scratch_folders": load.server.scratch(),
    }


async def endurance(load: Load, asked: argparse.Namespace) -> Found:
    """Memory over many requests; the first tenth warms up."""
    tally, wav, done, every = Tally(), recording(1), 0, max(1, asked.requests // 10)
    memory = []
    for _ in range(11):
        await load.clients(8, (wav for _ in range(every)), tally)
        done += every
        memory.append((done, load.server.rss()))
    before, after = memory[0][1], memory[-1][1]
    growth = round(100 * (after - before) / before, 2) if before else None
    return {**tally.summary(), "memory": memory, "growth_percent": growth}


async def clip(load: Load, asked: argparse.Namespace) -> Found:
    """A 3 s clip alone, and with long files in the queue."""
    alone, beside, ignored = Tally(), Tally(), Tally()
    for _ in range(asked.clips):
        await load.send(recording(3), alone)
    wav = recording(asked.long_seconds)
    long = []
    for _ in range(asked.long_files):
        # One after the other: eight uploads at once are not what is measured.
        long.append(asyncio.create_task(load.send(wav + os.urandom(8), ignored)))
        await load.holds(len(long))
    before = await load.works()
    for _ in range(asked.clips):
        await asyncio.sleep(random.uniform(0, 1))  # not in step with the batches
        await load.send(recording(3), beside)
    left = await load.queue()
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    ratio = (percentile(beside.seconds, 95) or 0) / (percentile(alone.seconds, 95) or 1)
    return {
        "long_files": asked.long_files,
        "long_seconds": asked.long_seconds,
        "long_files_at_end": left["requests"],
        "queued_seconds_before": round(before),
        "queued_seconds_at_end": round(left["queued_seconds"]),
        "alone": alone.summary(),
        "beside": beside.summary(),
        "ratio_p95": round(ratio, 2),
        "idle_after_seconds": await load.idle(),
    }


async def stop(load: Load, asked: argparse.Namespace) -> Found:
    """SIGTERM with long and short files at work; ends the server."""
    long, short = Tally(), Tally()
    tasks = [asyncio.create_task(load.send(recording(3600), long)) for _ in range(2)]
    await load.holds(2)
    tasks += [asyncio.create_task(load.send(recording(3), short)) for _ in range(CLIENTS)]
    await load.holds(10)
    started = time.perf_counter()
    load.server.process.terminate()
    await asyncio.gather(*tasks, return_exceptions=True)
    answered = time.perf_counter() - started
    status = await asyncio.to_thread(load.server.process.wait, 60)
    return {
        "long": dict(long.statuses),
        "short": dict(short.statuses),
        "exit_status": status,
        "answered_after_seconds": round(answered, 2),
        "ended_after_seconds": round(time.perf_counter() - started, 2),
        "scratch_folders": load.server.scratch(),
    }


async def clients16(folder: Path, asked: argparse.Namespace) -> Found:
    """The server with 16 clients beside the engine alone, for two models."""
    found = {}
    for name in dict.fromkeys((SMALL, asked.model)):
        forced = asked.tokens if name.startswith("random:") else None
        files = asked.rounds_files * (1 if forced else 2)
        found[name] = await beside_engine(folder, name, forced, files, asked)
    return found


async def beside_engine(
    folder: Path, name: str, tokens: int | None, files: int, asked: argparse.Namespace
) -> Found:
    """The server's throughput and the engine's own on the same windows, in turn."""
    model = model_of(asked.random or folder, name)
    place = folder / ("data-" + name.replace(":", "-"))
    place.mkdir(exist_ok=True)
    # Random weights write as much as they may: a wide beam would only make them slow.
    beam = 1 if tokens else Settings.model_fields["beam_size"].default
    flags = [*asked.flags, "--beam-size", str(beam)]
    flags += ["--max-new-tokens", str(tokens)] if tokens else []
    server = Server(asked.engine, model, place, flags)
    try:
        load = Load(server, {"language": "en"})
        ready = await load.ready()
        chosen = {"engine": asked.engine, "compute_type": ready["compute_type"]}
        settings = Settings(
            model_path=model, data_dir=place, replicas=ready["replicas"], beam_size=beam, **chosen
        )
        alone = await asyncio.to_thread(Alone, settings, tokens)
        result = await take_turns(load, alone, files, asked.rounds, place)
        alone.close()
        await load.client.aclose()
    finally:
        server.end()
    about = {key: ready[key] for key in ("engine", "compute_type", "replicas", "chosen_because")}
    return {
        **result,
        "tokens": tokens,
        "beam_size": beam,
        "batch_size": settings.batch_size or DEFAULT_BATCH,
        "server": about,
    }


async def take_turns(load: Load, alone: Alone, files: int, rounds: int, folder: Path) -> Found:
    """Rounds of both; the medians and their ratio."""
    wavs = [recording(LONG) for _ in range(files)]
    windows = [window for wav in wavs for window in alone.windows(wav, folder)]
    size, audio = alone.settings.batch_size or DEFAULT_BATCH, files * LONG
    await load.clients(CLIENTS, wavs[:4], Tally())  # warm
    await asyncio.to_thread(alone.seconds, windows[:4], size)
    own: list[float] = []
    served: list[float] = []
    tally = Tally()
    for _ in range(rounds):
        own.append(audio / await asyncio.to_thread(alone.seconds, windows, size))
        served.append(audio / await load.clients(CLIENTS, wavs, tally))
    return {
        "engine_per_second": round(median(own), 3),
        "server_per_second": round(median(served), 3),
        "ratio": round(median(served) / median(own), 3),
        "rounds": [[round(a, 3), round(b, 3)] for a, b in zip(own, served, strict=True)],
        "files": files,
        "windows": len(windows),
        **tally.summary(),
    }


async def replicas(folder: Path, asked: argparse.Namespace) -> list[Found]:
    """The engine alone: one replica with large batches, and two with half of the cores each."""
    found = []
    for name in dict.fromkeys((SMALL, asked.model)):
        tokens = asked.tokens if name.startswith("random:") else None
        for count in (1, 2):
            settings = Settings(
                model_path=model_of(asked.random or folder, name),
                data_dir=folder,
                replicas=count,
                engine=asked.engine,
                beam_size=1 if tokens else 5,
            )
            alone = await asyncio.to_thread(Alone, settings, tokens)
            wavs = [recording(LONG) for _ in range(16)]  # two of the largest batches
            windows = [w for wav in wavs for w in alone.windows(wav, folder)]
            alone.seconds(windows[:4], 2)  # warm
            for size in (1, 4, 8):
                took = await asyncio.to_thread(alone.seconds, windows, size)
                rate = round(len(wavs) * LONG / took, 3)
                found.append(
                    {
                        "model": name,
                        "replicas": count,
                        "batch": size,
                        "audio_per_second": rate,
                        "windows": len(windows),
                    }
                )
                print(found[-1], flush=True)
            alone.close()
    return found


def model_of(folder: Path, name: str) -> str:
    """A model's name or folder; random ones are made once."""
    kind, _, shape = name.partition(":")
    if kind != "random":
        return name
    path = folder / f"random-{shape}"
    return str(path if path.is_dir() else random_model(folder, shape))


Phase = Callable[[Load, argparse.Namespace], Awaitable[Any]]
ON_ONE_SERVER: dict[str, Phase] = {
    "steps": steps,
    "connections": connections,
    "killed": killed,
    "endurance": endurance,
    "clip": clip,
    "stop": stop,
}
ON_THEIR_OWN = {"clients16": clients16, "replicas": replicas}
DEFAULT = ["clients16", *ON_ONE_SERVER]


async def measure(asked: argparse.Namespace, folder: Path) -> Found:
    """The chosen phases, one after the other."""
    found: Found = {"took_seconds": {}}

    async def note(name: str, work: Awaitable[Any]) -> None:
        started = time.perf_counter()
        found[name] = await work
        found["took_seconds"][name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {json.dumps(found[name])}", flush=True)

    for name in (n for n in ON_THEIR_OWN if n in asked.phases):
        await note(name, ON_THEIR_OWN[name](folder, asked))
    chosen = [name for name in ON_ONE_SERVER if name in asked.phases]
    if chosen:
        place = folder / "server"
        place.mkdir()
        model = model_of(asked.random or folder, asked.model)
        server = Server(asked.engine, model, place, asked.flags)
        try:
            load = Load(server)
            found["ready"] = await load.ready()
            await load.warm()
            found["rss_at_start_mb"] = server.rss()
            for name in chosen:
                await note(name, ON_ONE_SERVER[name](load, asked))
            await load.client.aclose()
        finally:
            server.end()
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*ON_THEIR_OWN, *ON_ONE_SERVER]
    parser.add_argument("--phases", default=",".join(DEFAULT), help="names with commas")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--tokens", type=int, default=16, help="of each window, random weights")
    parser.add_argument("--rounds", type=int, default=2, help="of clients16")
    parser.add_argument("--rounds-files", type=int, default=16, help="in each of these rounds")
    parser.add_argument("--random", type=Path, help="folder that keeps the random models")
    parser.add_argument("--clients", type=int, default=STEPS[-1])
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--long-files", type=int, default=8)
    parser.add_argument("--long-seconds", type=float, default=3600)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--svg", type=Path, default=None)
    parser.add_argument("flags", nargs="*", help="more flags for the server, after --")
    asked = parser.parse_args()
    asked.phases = [name for name in asked.phases.split(",") if name]
    if wrong := set(asked.phases) - set(known):
        parser.error(f"no such phase: {', '.join(sorted(wrong))}; there are {', '.join(known)}")
    return asked


def main() -> None:
    """Run it and write what was found."""
    asked = arguments()
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    about = {"commit": commit, "engine": asked.engine, "model": asked.model}
    about |= {"cores": os.cpu_count(), "load_average_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        found = about | asyncio.run(measure(asked, Path(folder)))
    out = asked.out or ROOT / "benchmarks" / "results" / f"load-{commit or 'now'}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if asked.svg is not None:
        asked.svg.write_text(picture(found), encoding="utf-8")
    print(f"written to {out}; seconds: {found['took_seconds']}")


if __name__ == "__main__":
    main()
