"""Speed of the real server beside its peers: same files, same weights, one run.

    python benchmarks/run.py [--model bundled] [--seconds 120] [--rounds 3] [--clients 4]
    python benchmarks/run.py --model random:small --tokens 50

``random:tiny``, ``base``, ``small`` and ``turbo`` are random weights (``shapes.py``) that write
``--tokens`` tokens for each window, whoever decodes; the tokens are counted on every side.

The server and every peer (``peers.py``) run in processes of their own; the server gets files over
HTTP. They take turns in every round. Prints medians, ratios and the time by stage, and writes
``benchmarks/results/<commit>-<model>.json`` with a picture beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audio import clip_of, seconds_of, stretched
from machine import about, memory_mb
from peers import BATCHED, FASTER_WHISPER, TRANSFORMERS, WHISPER_CPP, Done, Peer, Work, missing
from picture import bars
from server import Server
from shapes import checkpoint_of, random_model
from whisper_api.api.system import SAMPLE
from whisper_api.config import Settings
from whisper_api.engines.base import DEFAULT_BATCH
from whisper_api.models import ModelStore

HERE = Path(__file__).resolve().parent
SERVER = "server"
_APART = 0.15
"""Share of tokens by which the work of two may differ before it is said to be unequal."""

Contestant = Callable[[Path], Done]


@dataclass(slots=True)
class Series:
    """One contestant in one measurement."""

    values: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, value: float, tokens: int, cpu: float) -> None:
        """One more round: what was measured, the tokens, and seconds of processor time."""
        self.values.append(value)
        self.tokens.append(tokens)
        self.cpu.append(cpu)

    def summary(self) -> dict[str, Any]:
        """For the report."""
        return {
            "median": statistics.median(self.values),
            "tokens": statistics.median(self.tokens),
            "cpu_seconds": statistics.median(self.cpu),
            "values": [round(value, 4) for value in self.values],
        }


def main() -> None:
    """Measure, print, write."""
    args = arguments()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = args.model
        if model.startswith("random:"):
            model = str(random_model(folder, model.partition(":")[2]))
        settings = Settings(data_dir=folder, model_path=model)
        files = ModelStore(settings).prepare()
        server = stack.enter_context(Server.running(folder, model, flags(args)))
        checkpoint = args.checkpoint or checkpoint_of(folder)
        work = Work(
            model=str(files.path),
            checkpoint=str(checkpoint or ""),
            ggml=str(args.ggml or ""),
            language=args.language,
            beam=args.beam,
            tokens=args.tokens or 0,
            batch=args.batch or DEFAULT_BATCH,
            compute_type=server.state["compute_type"],
            allocator=args.allocator,
        )
        peers = list(stack.enter_context(started(args.peers, work)))
        contestants: dict[str, Contestant] = {SERVER: server.transcribe(args.language)}
        contestants |= {peer.name: peer for peer in peers}
        report = measure(contestants, server, folder, args)
        report["memory_mb"] = {SERVER: memory_mb(server.pid)} | {
            peer.name: memory_mb(peer.pid) for peer in peers
        }
        report["about"] = about(args, server.state)
    show(report)
    write(report, args.model)
    if any(report[name]["unequal"] for name in MEASUREMENTS if args.tokens and name in report):
        sys.exit("the contestants wrote different numbers of tokens: no comparison")


def flags(args: argparse.Namespace) -> list[str]:
    """Settings of the server for what is asked."""
    found = ["--beam-size", str(args.beam), "--allocator", args.allocator, *args.flags]
    if args.batch:
        found += ["--batch-size", str(args.batch)]
    return [*found, "--max-new-tokens", str(args.tokens)] if args.tokens else found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="bundled", help="as in the setting model_path")
    parser.add_argument("--language", default="en")
    parser.add_argument("--clip", type=Path, help="a short WAV file; the sample by default")
    parser.add_argument("--seconds", type=float, default=120, help="length of the long file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=4, help="long files at the same time")
    parser.add_argument("--tokens", type=int, help="tokens of each window (random models)")
    parser.add_argument("--beam", type=int, default=5, help="width of the search, on every side")
    parser.add_argument(
        "--batch",
        type=int,
        help=f"windows in one, on every side; of peers {DEFAULT_BATCH} if not said",
    )
    parser.add_argument(
        "--allocator",
        choices=["system", "keep", "keep-huge"],
        default="system",
        help="as the setting, on every side",
    )
    parser.add_argument("--burst", type=int, default=16, help="clips of 5 s at the same time")
    parser.add_argument("--clips", type=int, default=3, help="clips of 3 s in each round")
    parser.add_argument(
        "--budget",
        type=float,
        default=float("inf"),
        help="seconds of each measurement after which no round begins",
    )
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=MEASUREMENTS)
    parser.add_argument(
        "--peers",
        nargs="*",
        default=[FASTER_WHISPER, BATCHED, TRANSFORMERS, WHISPER_CPP],
        help="by name; those that cannot run here are named and left out",
    )
    parser.add_argument("--checkpoint", help="folder or name of the weights for transformers")
    parser.add_argument("--ggml", type=Path, help="the weights for whisper.cpp")
    parser.add_argument("flags", nargs="*", help="more flags for the server, after --")
    return parser.parse_args()


@contextmanager
def started(names: list[str], work: Work) -> Iterator[Iterator[Peer]]:
    """The peers that can take part; says of the others why not."""
    running: list[Peer] = []
    try:
        for name in names:
            if reason := missing(name, work):
                print(f"without {name}: {reason}")
                continue
            peer = Peer(name, work)
            running.append(peer)
            peer.start()
        yield iter(running)
    finally:
        for peer in running:
            peer.stop()


def measure(
    contestants: dict[str, Contestant], server: Server, folder: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Everything that is asked for."""
    source = args.clip or SAMPLE
    long = folder / "long.wav"
    long.write_bytes(stretched(source, args.seconds))
    clip = clip_of(source, folder / "clip3.wav", 3)
    short = clip_of(source, folder / "clip5.wav", 5)
    report: dict[str, Any] = {}
    for contestant in contestants.values():
        contestant(clip)  # the first call is always slower
    if "throughput" in args.only:
        report["throughput"] = throughput(contestants, server, long, args)
    if "latency" in args.only:
        report["latency"] = latency(contestants, server, clip, args)
    if "burst" in args.only:
        report["burst"] = burst(contestants, short, args)
    return report


def rounds(args: argparse.Namespace) -> Iterator[int]:
    """Numbers of rounds, one at least; says so where time ends them early."""
    until = time.monotonic() + args.budget
    for number in range(args.rounds):
        if number and time.monotonic() > until:
            print(f"{number} of {args.rounds} rounds: --budget is over")
            return
        yield number


def throughput(
    contestants: dict[str, Contestant], server: Server, path: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Seconds of audio for each second, of one long file, and of several at once."""
    audio = seconds_of(path)
    found: dict[str, Series] = {}
    stages: list[dict[str, float]] = []
    for _ in rounds(args):
        for name, contestant in contestants.items():
            before = server.figures() if name == SERVER else {}
            done = contestant(path)
            found.setdefault(name, Series()).add(audio / done.seconds, done.tokens, done.cpu)
            if before:
                stages.append(server.stages(before, done.seconds))
        if args.clients > 1:
            many = together(contestants[SERVER], path, args.clients)
            series = found.setdefault(f"{SERVER}, {args.clients} clients", Series())
            rate = args.clients * audio / many.seconds
            series.add(rate, many.tokens // args.clients, many.cpu / args.clients)
    return summary(found) | {"stages": medians(stages)}


def latency(
    contestants: dict[str, Contestant], server: Server, path: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Seconds that a clip of 3 s takes."""
    found: dict[str, Series] = {}
    stages: list[dict[str, float]] = []
    for _ in rounds(args):
        for name, contestant in contestants.items():
            for _ in range(args.clips):
                before = server.figures() if name == SERVER else {}
                done = contestant(path)
                found.setdefault(name, Series()).add(done.seconds, done.tokens, done.cpu)
                if before:
                    stages.append(server.stages(before, done.seconds))
    return summary(found) | {"stages": medians(stages)}


def burst(
    contestants: dict[str, Contestant], path: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Seconds until many clips of 5 s that come at once are done; the peers take them in turn."""
    found: dict[str, Series] = {}
    for _ in rounds(args):
        for name, contestant in contestants.items():
            done = together(contestant, path, args.burst, args.burst if name == SERVER else 1)
            found.setdefault(name, Series()).add(done.seconds, done.tokens, done.cpu)
    return summary(found)


def together(run: Contestant, path: Path, times: int, at_once: int | None = None) -> Done:
    """``run`` several times, ``at_once`` (all) at the same time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once or times) as pool:
        done = list(pool.map(run, [path] * times))
    took = time.perf_counter() - started
    # What ran side by side saw each other's processor time.
    begun, ended = min(one.begun for one in done), max(one.ended for one in done)
    return Done(took, sum(one.tokens for one in done), begun, ended)


def summary(found: dict[str, Series]) -> dict[str, Any]:
    """Series by name, and who wrote another number of tokens than the server."""
    ours = statistics.median(found[SERVER].tokens)
    unequal = [
        name
        for name, series in found.items()
        if abs(statistics.median(series.tokens) - ours) > _APART * max(1, ours)
    ]
    return {"series": {name: s.summary() for name, s in found.items()}, "unequal": unequal}


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """The median of each column."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}


MEASUREMENTS = ("throughput", "latency", "burst")
_TITLES = {
    "throughput": ("a long file: seconds of audio for each second", max),
    "latency": ("one clip of 3 s: seconds", min),
    "burst": ("clips of 5 s at once: seconds until all are done", min),
}


def show(report: dict[str, Any]) -> None:
    """The tables."""
    facts = report["about"]
    print(f"{facts['machine']}, {facts['cores']} cores, load {facts['load']}; {facts['server']}")
    for name, (title, better) in _TITLES.items():
        if name not in report:
            continue
        series = report[name]["series"]
        found = {who: row["median"] for who, row in series.items()}
        rivals = [value for who, value in found.items() if not who.startswith(SERVER)]
        peer = better(rivals, default=0.0)
        print(f"\n{title:50}{'median':>10}{'of the best peer':>20}{'tokens':>9}{'cpu s':>9}")
        for who, value in found.items():
            ratio = (value / peer if better is max else peer / value) if peer else 0.0
            print(
                f"  {who:48}{value:10.3f}{ratio:19.2f}x{series[who]['tokens']:9.0f}"
                f"{series[who]['cpu_seconds']:9.2f}"
            )
        for stage, seconds in report[name].get("stages", {}).items():
            print(f"      {stage:44}{seconds:10.3f} s")
        if report[name]["unequal"]:
            print(f"  other work than the server's: {', '.join(report[name]['unequal'])}")
    print("\nmost memory, MB: ", end="")
    print(", ".join(f"{who} {value or 0:.0f}" for who, value in report["memory_mb"].items()))


def write(report: dict[str, Any], model: str) -> None:
    """JSON and picture."""
    name = f"{report['about']['commit']}-{model.replace(':', '-').replace('/', '-')}"
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    groups = [
        (title, {who: row["median"] for who, row in report[part]["series"].items()})
        for part, (title, _) in _TITLES.items()
        if part in report
    ]
    memory = {who: value for who, value in report["memory_mb"].items() if value}
    groups.append(("most memory, MB", memory))
    facts = report["about"]
    title = f"{model}, {facts['processor']}, {facts['cores']} cores, {facts['commit']}"
    path.with_suffix(".svg").write_text(bars(title, groups), "utf-8")
    print(f"written to {path.relative_to(HERE.parent)} and .svg")


if __name__ == "__main__":
    main()
